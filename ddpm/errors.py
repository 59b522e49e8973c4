"""All errors of the project; each message names the remedy."""

import difflib
import logging
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

LONGEST = 4000
"""Characters of a message; beyond, its middle is left out."""


def escaped(text: str, kept: str = "\n") -> str:
    """Escape control characters, except those in ``kept``."""
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in text)


class EscapedFormatter(logging.Formatter):
    """For log messages, which quote names of files and what files hold."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, escaped."""
        return escaped(super().format(record))


def printable(message: str) -> str:
    """A message of limited length, escaped."""
    half = LONGEST // 2
    return escaped(message if len(message) <= LONGEST else f"{message[:half]} [...] {message[-half:]}")


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


def of_lightning(name: str) -> tuple[type[BaseException], ...]:
    """Lightning's exception of this name, in a tuple; () while Lightning is not imported."""
    module = sys.modules.get("pytorch_lightning.utilities.exceptions")
    return () if module is None else (getattr(module, name),)


def refuse(faults: Iterable[tuple[object, str]]) -> None:
    """Raise a ConfigError with the message of the first ``(condition, message)`` whose condition is true."""
    for there, message in faults:
        if there:
            raise ConfigError(message)


def refuse_split(split: str | None) -> None:
    """Raise a ConfigError for a split that is neither a known one, nor a path that is there, nor None."""
    if split not in (None, "subject", "sequence") and (split == "" or not Path(split).expanduser().exists()):
        raise ConfigError(f"loader.split={split} must be subject, sequence, or the path of an official list")


def outside(values: Mapping[str, Any], limits: Mapping[str, str]) -> list[tuple[bool, str]]:
    """For `refuse`: the keys whose numbers are not what their limits say.

    Args:
        values: by key; what is absent, no number or a truth value is not looked at.
        limits: by key ``at least A``, ``above A``, ``in [A, B)`` with any brackets, a number, or several of these with ``or``.
    """
    return [
        (not any(_inside(values[key], part) for part in limit.split(" or ")), f"{key}={values[key]} must be {limit}")
        for key, limit in limits.items()
        if isinstance(values.get(key), int | float) and not isinstance(values[key], bool)
    ]


def _inside(value: float, limit: str) -> bool:
    if not limit.startswith("in "):
        word, number = limit.split()[-2:] if " " in limit else ("", limit)
        least = float(number)
        return value >= least if word == "least" else value > least if word == "above" else value == least
    low, high = (float(number) for number in limit[4:-1].split(", "))
    return (value >= low if limit[3] == "[" else value > low) and (value <= high if limit[-1] == "]" else value < high)


def meant(word: str, known: Sequence[str]) -> str:
    """``, did you mean X?`` if the last part of a name is nearly that of the word; of its own group it may be less like it."""
    before, _, last = word.rpartition(".")
    ends = {name: name.rpartition(".")[2] for name in known}
    beside = [end for name, end in ends.items() if before and name.rpartition(".")[0] == before]
    like = {end: difflib.SequenceMatcher(None, last, end).ratio() for end in beside}
    if near := [f"{before}.{end}" for end in like if like[end] > max(0.65, max(like.values()) - 0.15)]:
        return f", did you mean {' or '.join(near[:3])}?"
    alike = [last] if last in ends.values() else difflib.get_close_matches(last, set(ends.values()), 1, 0.75)
    found = [name for name, end in ends.items() if end in alike]
    found = [name for name in found if name.rpartition(".")[0] == before] or found
    return f", did you mean {' or '.join(found[:3])}?" if found else ""


def quoted(text: str) -> str:
    """A text in Hydra's quotes, in which it is taken as it is: blanks, commas, brackets and all."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"


def typed(key: str, value: str) -> str:
    """``key=value`` as it is to be typed in a shell, quoted where the shell or Hydra would take it for something else."""
    plain_text = re.fullmatch(r"[\w./:@%+-]+", value)
    override = f"{key}={value if plain_text else quoted(value)}"
    return override if plain_text else shlex.quote(override) if re.search(r'[$"`!\\]', override) else f'"{override}"'
