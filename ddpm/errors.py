"""All errors of the project: input that cannot be used, named so that its owner can mend it."""

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 4000
"""Characters of a message; beyond, its middle is left out."""


def printable(message: str) -> str:
    """A message that a terminal can be trusted with: control characters but line ends are escaped, and its length is limited."""
    text = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} [...] {text[-half:]}"


class ProjectError(Exception):
    """Base of all. The message says what, where, which value, what is possible, and the remedy; it may quote a damaged file."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class ConfigError(ProjectError, ValueError):
    """A configuration that cannot be built. The message names the key, the value and what is possible."""


class DataError(ProjectError, ValueError):
    """Motion that cannot be used. The message names the file, the place in it, the value, the limit and the remedy."""


class CheckpointError(ProjectError, RuntimeError):
    """A checkpoint that cannot be trusted. The message names the file, what is wrong and the remedy."""


class WriteError(ProjectError, OSError):
    """A file that could not be written. The message names it, the bytes needed and the bytes free."""


def refuse(faults: Iterable[tuple[object, str]]) -> None:
    """Raise a ConfigError with the message of the first ``(is it there, message)`` that is there."""
    for there, message in faults:
        if there:
            raise ConfigError(message)


def below(values: Mapping[str, Any], least: Mapping[str, float]) -> list[tuple[bool, str]]:
    """For `refuse`: the keys whose values are less than the least that is possible; None is not looked at."""
    return [
        (values[key] is not None and values[key] < limit, f"{key}={values[key]} must be at least {limit}")
        for key, limit in least.items()
    ]


def quoted(text: str) -> str:
    """A text in Hydra's quotes, in which it is taken as it is: blanks, commas, brackets and all."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"


def typed(key: str, value: str) -> str:
    """``key=value`` as it is to be typed in a shell, quoted where the shell or Hydra would take it for something else."""
    plain_text = re.fullmatch(r"[\w./:@%+-]+", value)
    override = f"{key}={value if plain_text else quoted(value)}"
    return override if plain_text else shlex.quote(override) if re.search(r'[$"`!\\]', override) else f'"{override}"'
