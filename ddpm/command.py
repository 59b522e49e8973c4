"""What every command does: compose, say what is wrong in one message, end with the right status, go on with a sweep."""

import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException, HydraException
from hydra.types import RunMode
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pytorch_lightning.utilities.exceptions import SIGTERMException

from ddpm.config import check, construct, located
from ddpm.errors import ProjectError, printable, typed
from ddpm.skeleton import Skeleton

log = logging.getLogger("command")

CONF = Path(__file__).parent.parent / "conf"
FULL = "HYDRA_FULL_ERROR"
WANTS_FULL = os.environ.get(FULL) == "1"
"""Whether the user wants everything that led to an error."""
EXPECTED = (
    *(ProjectError, ValueError, OSError, FloatingPointError),
    *(OmegaConfBaseException, CompactHydraException, MisconfigurationException),
)
"""What input, configuration and machine can be to blame for; anything else is a fault of the code and keeps its traceback."""


def command(config_name: str, schema: type) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a command of a function of the composed configuration, which is called without arguments.

    What is `EXPECTED` to go wrong ends it with one message and status 1, Ctrl-C with 130, SIGTERM with 143. In a multirun
    every job runs whatever becomes of the others, with the number of the job behind ``out``; one that failed makes the
    status 1. With the environment variable HYDRA_FULL_ERROR=1 errors are raised, with everything that led to them.

    Args:
        config_name: file of ``conf``.
        schema: dataclass with the types of its keys; the file names it ``base``, with its own name in front.
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
                os.environ.pop(FULL, None)  # so that processes that it starts do as this one
            try:
                return work(cfg)
            except EXPECTED as error:
                log.error("%s", message(error))
                if sweeps or WANTS_FULL:
                    raise
                sys.exit(1)
            finally:
                os.environ[FULL] = "1"

        run = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(job)

        @functools.wraps(work)
        def main() -> None:
            sys.path.append(str(Path.cwd()))  # where a user's own package lies; last, so that it hides no other
            os.environ[FULL] = "1"  # Hydra then raises, and all errors are reported here, also those outside of the job
            try:
                run()
            except EXPECTED as error:
                if WANTS_FULL:
                    raise
                log.error("%s", message(error))
                for argument in ambiguous(sys.argv[1:]) if isinstance(error, CompactHydraException) else ():
                    log.error("if one text is meant, type %s", typed(*argument.split("=", 1)))
                sys.exit(1)
            except SIGTERMException:
                sys.exit(143)
            except (KeyboardInterrupt, SystemExit) as error:
                # Lightning ends an interrupted training with sys.exit(1).
                if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
                    raise
                sys.exit(130)
            finally:
                if not WANTS_FULL:
                    os.environ.pop(FULL, None)

        return main

    return decorate


def ambiguous(arguments: Sequence[str]) -> list[str]:
    """Those of ``KEY=VALUE`` that Hydra cannot read, or takes for several values where one is wanted."""

    sweeps = not {"-m", "--multirun"}.isdisjoint(arguments)

    def is_clear(argument: str) -> bool:
        try:
            return not OverridesParser.create().parse_override(argument).is_sweep_override() or sweeps
        except HydraException:
            return False

    return [argument for argument in arguments if "=" in argument and not argument.startswith("-") and not is_clear(argument)]


def message(error: BaseException) -> str:
    """What an error says to a user, without control characters."""
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has no value yet: give it as {error.full_key}=..."
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ProjectError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, OmegaConfBaseException) and cause is not None:
        error = cause  # raised where Hydra or OmegaConf asked for a value
    detail = f"\n{error.__cause__}" if isinstance(error, CompactHydraException) and error.__cause__ is not None else ""
    return printable(f"{type(error).__name__}: {error}{detail}")


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
    skeleton: Skeleton = construct(OmegaConf.to_container(cfg.skeleton, resolve=True, throw_on_missing=True), "skeleton", trust)
    written = {"_target_": "ddpm.skeleton.Skeleton", **skeleton.to_config()}
    check(written, "skeleton")  # it is resolved below with the rest: the name of a joint could become a node
    cfg.skeleton = written
    config: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    if trust is not None:
        located(config, "", trust)
    return config
