"""What every command does: compose, report an error in one message, set the exit status, continue a sweep."""

import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ddpm.command_line import PATHS, ambiguous, options_first
from ddpm.config import check, construct_part, located, may_have
from ddpm.errors import CheckpointError, ConfigError, ProjectError, meant, of_lightning, printable, typed
from ddpm.files import refuse_place, remove_strays
from ddpm.skeleton import Skeleton
from ddpm.startup import loaded

log = logging.getLogger("command")

CONF = Path(__file__).parent.parent / "conf"
FULL = "HYDRA_FULL_ERROR"
WANTS_FULL = os.environ.get(FULL) == "1"
"""Whether errors are shown with their tracebacks."""


def expected() -> tuple[type[BaseException], ...]:
    """Exceptions caused by input, configuration or machine; any other is a bug and keeps its traceback."""
    known = (ProjectError, ValueError, OSError, FloatingPointError, OmegaConfBaseException, CompactHydraException, yaml.YAMLError)
    return *known, *of_lightning("MisconfigurationException")


def _place_of_sweep(out: str) -> str:
    refuse_place("out", out)
    return out


# Hydra writes multirun.yaml there; of train.py see `ddpm.runs.sweep_directory`.
OmegaConf.register_new_resolver("place_of_sweep", _place_of_sweep, replace=True)


def command(
    config_name: str, schema: type, ended: Callable[[], None] = lambda: None
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a command of a function of the composed configuration, which is called without arguments.

    An `expected` exception ends it with one message and status 2, Ctrl-C with 130, SIGTERM with 143; status 1 is a bug, with its
    traceback. In a multirun every job runs, also after one failed, with the number of the job behind ``out``; a failed one makes
    the status 2. With the environment variable HYDRA_FULL_ERROR=1 errors are raised with their tracebacks.

    Args:
        config_name: file of ``conf``.
        schema: dataclass with the types of its keys; the file names it ``base``, with its own name in front.
        ended: called last, also after an error.
    """
    ConfigStore.instance().store(name=f"{config_name}_base", node=schema)

    def decorate(work: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(work)
        def job(cfg: DictConfig) -> Any:
            context = HydraConfig.get()
            sweeps = context.mode == RunMode.MULTIRUN
            if sweeps and cfg.get("out"):
                cfg.out = f"{cfg.out}/{context.job.num}"
            if not WANTS_FULL:
                os.environ.pop(FULL, None)  # so that the processes it starts behave alike
            try:
                _look_over(cfg, [field.name for field in fields(schema)])
                result = work(cfg)
                if cfg.get("out"):
                    remove_strays(Path(cfg.out))
                return result
            except expected() as error:
                log.error("%s", message(error))
                if sweeps or WANTS_FULL:
                    raise
                sys.exit(2)
            finally:
                os.environ[FULL] = "1"

        run = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)

        @functools.wraps(work)
        def main() -> None:
            loaded()
            sys.path.append(str(Path.cwd()))  # where a user's own package lies; last, so that it hides no other
            os.environ[FULL] = "1"  # Hydra then raises, and all errors are reported here, also those outside of the job
            try:
                sys.argv[1:] = options_first(sys.argv[1:])
                run()
            except expected() as error:
                if WANTS_FULL:
                    raise
                logging.basicConfig(format="%(message)s")  # before Hydra started
                log.error("%s", message(error, [field.name for field in fields(schema)]))
                if isinstance(error, CompactHydraException):
                    for argument in ambiguous(sys.argv[1:])[:2]:
                        log.error("if one text is meant, type %s", typed(*argument.split("=", 1)))
                sys.exit(2)
            except of_lightning("SIGTERMException"):
                sys.exit(143)
            except (KeyboardInterrupt, SystemExit) as error:
                # Lightning ends an interrupted training with sys.exit(1).
                if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
                    raise
                sys.exit(130)
            finally:
                if not WANTS_FULL:
                    os.environ.pop(FULL, None)
                ended()

        return main

    return decorate


def composed(name: str, overrides: Sequence[str], checkpoint: Path) -> DictConfig:
    """The configuration of a command line that a checkpoint holds; a CheckpointError if this version does not take it."""
    try:
        return hydra.compose(name, overrides=list(overrides))
    except CompactHydraException as error:  # the present command line was composed before
        raise CheckpointError(f"{checkpoint}: its command line is not that of this version: {message(error)}") from error


def _look_over(cfg: DictConfig, keys: Sequence[str]) -> None:
    """Raise a ConfigError for what is wrong in every command: keys that it has not, empty paths, places without room to write."""
    for key in cfg:
        if key not in keys:
            raise ConfigError(f"{key}: there is no such key{meant(str(key), keys)}; --cfg job prints all")
    for key in PATHS:
        if OmegaConf.select(cfg, key) == "":
            raise ConfigError(f"{key}='' is empty: give a path, or leave it away")
    for key in ("out", "cache"):
        if cfg.get(key) not in (None, "auto"):
            refuse_place(key, cfg[key])


def message(error: BaseException, keys: Sequence[str] = ()) -> str:
    """What an error says to a user, without control characters; ``keys`` are those of the command."""
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has no value yet: give it as {error.full_key}=..."
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ProjectError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OmegaConfBaseException) and cause is not None:
        error = cause  # raised where Hydra or OmegaConf asked for a value
    if isinstance(error, CompactHydraException):
        return printable(f"ConfigError: {_composition(error, keys)}")
    if isinstance(error, yaml.YAMLError):
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or " ".join(str(error).split())
        where = "" if mark is None else f"{mark.name}, line {mark.line + 1}: "
        return printable(f"ConfigError: {where}not valid YAML ({problem}); correct the file")
    if isinstance(error, UnicodeDecodeError):
        return printable(f"ConfigError: a file of the configuration is no UTF-8 text ({error}); save it as UTF-8")
    if isinstance(error, OmegaConfBaseException) and error.full_key:  # its other lines are about its own types
        return printable(f"ConfigError: {error.full_key}: {str(error.msg or error).splitlines()[0]}")
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be"):
        numbers = [a for a in sys.argv[1:] if re.fullmatch(r"\w*=(null|None|[\d.]*)", a)]
        group = next((a for a in numbers if (CONF / a.partition("=")[0]).is_dir()), "a group")
        return printable(f"ConfigError: {group}: a group takes the name of a file of conf/{group.partition('=')[0]}")
    return printable(f"{type(error).__name__}: {error}")


WANTED = {
    "converted to Integer": "must be a whole number, in digits alone",
    "converted to Float": "must be a number",
    "not a valid bool": "must be true or false",
    "not Optional": "must have a value",
    "not a ListConfig": "must be a list, [a,b]",
    "not a subclass": "must hold keys",
    "to Dict[": "must hold keys",
}
"""What OmegaConf says of a value of the wrong type, and what it says here."""


def _composition(error: CompactHydraException, keys: Sequence[str]) -> str:
    """What is wrong with a command line, in one line instead of Hydra's up to thirteen."""
    said, cause, given = str(error), error.__cause__, [a for a in sys.argv[1:] if not a.startswith("-")]
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        listed = ", ".join(error.options)
        return f"{group}={option}: there is no such option{meant(option, error.options)}; it may be {listed} (conf/{group})"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not read as KEY=VALUE"
    if "Ambiguous value" in said:
        argument = next((a for a in ambiguous(given)), "")
        key, _, value = argument.partition("=")
        return f"{argument}: several values for one; add -m to run with each of them, or type {key}=[{value}] for a list"
    named = re.search(r"Could not (?:override|delete from config\.) '([^']+)'", said)
    if named is not None:
        argument = next((a for a in given if a.lstrip("~").partition("=")[0] == named[1]), named[1])
        node = getattr(cause, "parent_node", None)  # from which nothing public leads to the whole
        inside: Any = {} if node is None else OmegaConf.to_container(node._get_root(), resolve=False)
        known = [name for name in _dotted(inside, "") if not name.startswith("hydra") and "._" not in name] or list(keys)
        if named[1] in known:
            return f"{argument}: {named[1]} holds keys, give {named[1]}.KEY=VALUE; --cfg job prints all"
        prefix = named[1].rpartition(".")[0]
        beside = [name.rpartition(".")[2] for name in known if prefix and name.rpartition(".")[0] == prefix]
        where = f"{prefix} has {', '.join(beside)}" if beside else "--cfg job prints all"
        where += f"; +{argument} adds one" if beside and may_have(inside, named[1]) else ""
        return f"{argument}: there is no such key{meant(named[1], known)}; {where}"
    merged = re.search(r"Error merging override (.*)", said)
    if merged is not None:
        reason = str(getattr(cause, "msg", None) or cause or said).splitlines()[0]
        return f"{merged[1]} " + next((text for words, text in WANTED.items() if words in reason), reason)
    detail = f" ({cause})" if cause is not None else ""
    return " ".join(f"{said}{detail}".split())


def _dotted(config: Any, prefix: str) -> Iterator[str]:
    """All keys of plain containers, with dots."""
    for key, value in config.items() if isinstance(config, Mapping) else ():
        yield f"{prefix}{key}"
        yield from _dotted(value, f"{prefix}{key}.")


def plain(cfg: DictConfig, trust: Sequence[str] | None = None) -> dict[str, Any]:
    """The configuration as plain containers: all interpolations resolved, nothing missing.

    A skeleton that is read from files is written out, for a checkpoint has to do without them. For ``trust`` see
    `ddpm.config.construct`: the result is checked, for an interpolation may give another name once the skeleton is written out.

    Raises:
        MissingMandatoryValue: names the key that has no value, and not one that refers to it.
        ConfigError, DataError: a skeleton that cannot be built.
    """
    cfg = cfg.copy()
    OmegaConf.to_container(cfg, throw_on_missing=True)
    node = OmegaConf.to_container(cfg.skeleton, resolve=True, throw_on_missing=True)
    skeleton: Skeleton = construct_part(node, "skeleton", trust)
    written = {"_target_": "ddpm.skeleton.Skeleton", **skeleton.to_config()}
    check(written, "skeleton")  # it is resolved below with the rest: the name of a joint could become a node
    cfg.skeleton = written
    config: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    if trust is not None:
        located(config, "", trust)
    return config
