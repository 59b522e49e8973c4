"""What is typed behind the name of a command, before Hydra reads it."""

import os
import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from ddpm.errors import ConfigError, meant, quoted

WITH_VALUE = "--cfg -c --package -p --config-path -cp --config-name -cn --config-dir -cd --info -i".split()
"""Options of Hydra that take a value, which is no path to data."""
OPTIONS = "--help -h --hydra-help --version --resolve --run -r --multirun -m --shell-completion -sc --experimental-rerun".split()
"""The others."""
PATHS = ("ckpt", "resume", "clips", "source", "edit", "vector", "data.root")
"""Keys that name a file or directory that is read."""
HOMES = (*PATHS, "out", "cache", "finetune", "guide", "beside")
"""Keys whose value may begin with ``~/``."""


def ambiguous(arguments: Sequence[str]) -> list[str]:
    """Those of ``KEY=VALUE`` that Hydra cannot read, or takes for several values where one is wanted."""

    sweeps = not {"-m", "--multirun"}.isdisjoint(arguments)

    def is_clear(argument: str) -> bool:
        try:
            return not OverridesParser.create().parse_override(argument).is_sweep_override() or sweeps
        except HydraException:
            return False

    return [argument for argument in arguments if "=" in argument and not argument.startswith("-") and not is_clear(argument)]


def options_first(arguments: Sequence[str]) -> list[str]:
    """The command line with options before overrides, wherever they stood.

    Raises:
        ConfigError: an option that no command has, or one without its value.
    """
    options: list[str] = []
    overrides: list[str] = []
    words = iter(arguments)
    for word in words:
        name, known = word.partition("=")[0], [*OPTIONS, *WITH_VALUE]
        if not word.isascii() and re.search("[\ud800-\udfff]", word):  # what Python could not decode
            raise ConfigError(f"{word!r}: not text in the encoding of this system; set PYTHONUTF8=1 in front of the command")
        if not word.startswith("-"):
            overrides.append(_from_home(word))
        elif not any(option.startswith(name) and (option == name or name[:2] == "--") for option in known):
            key = word.lstrip("-")
            instead = f"a key is given as {key}" if "=" in word else f"options are {', '.join(known)}"
            raise ConfigError(f"{word}: there is no such option{meant(name, known)}; {instead}")
        else:
            options.append(word)
            if word in WITH_VALUE:
                value = next(words, "")
                if value == "" or (word in ("--cfg", "-c") and value not in ("job", "hydra", "all")):
                    raise ConfigError(f"{word} {value}: {word} needs a value{', job, hydra or all' if word[-1] in 'gc' else ''}")
                options.append(value)
    return options + overrides


def _from_home(override: str) -> str:
    """``KEY=~/PLACE`` with the home directory written out, for shells that leave that to the program."""
    key, equals, value = override.partition("=")
    place = value.strip("'\"")
    if place == value and re.search(r"[,\\]", value):  # several values, or escapes
        return override
    if equals and key.lstrip("+") in HOMES and re.match("~(/|$)", place):
        return f"{key}={quoted(os.path.expanduser(place))}"
    return override
