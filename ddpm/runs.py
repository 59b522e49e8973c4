"""Directories of runs: where a run goes, that it is alone there, and what it takes to go on with one."""

import contextlib
import importlib.metadata
import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_only

from ddpm.checkpoint import GENERATIONS, checkpoint_of, read_checkpoint
from ddpm.command import message
from ddpm.errors import CheckpointError, ConfigError, typed

log = logging.getLogger(__name__)

SAVED = (
    "T",
    "frames",
    "seed",
    "model",
    "schedule",
    "prediction",
    "weighting",
    "timesteps",
    "variance",
    "motion_loss",
    "condition",
    "project",
    "travel",
    "sampler",
    "skeleton",
    "data",
    "loader",
    "split_list",
    "optimizer",
    "lr_scheduler",
    "trainer",
    "ema",
)
"""What of the configuration a checkpoint keeps: all that decides what is learned."""
MAY_DIFFER = (
    *("sampler", "project", "condition.guidance", "condition.interval", "data.root", "loader.num_workers"),
    *("skeleton.parts", "data.skeleton.parts"),
    *("trainer.max_", "trainer.accelerator", "trainer.log_every_n_steps", "trainer.check_val", "trainer.fast_dev_run"),
)
"""What may be changed when a run is resumed; the rest would make it another run."""

EARLIER = {
    **{"travel": "positions", "loader.facing": False, "data.skip": 0, "data.on_outlier": "refuse"},
    **{"skeleton.up": "y", "data.skeleton.up": "y", "prediction.travel_by_label": False},
    **{"data.subject": "None", "loader.draws": "equal"},
}
"""What runs had that began when there were no such keys."""

RENAMED = {"variance=learnt": "variance=learned"}
"""Options of groups that earlier versions called otherwise."""

PRODUCTS = {
    "samples/final.gif": "generated clips",
    "samples/*.gif": "the same noise, while it learned",
    "loss.png": "the loss curve",
    "loss.csv": "its numbers",
    "noise_levels.png": "the error in cm by noise level",
    "checkpoints/last.ckpt": "for sample.py, and for resume=",
    "checkpoints/previous.ckpt": "the one before, should last.ckpt be damaged",
    "checkpoints/best.ckpt": "the lowest val/loss",
    "events.out.tfevents.*": "tensorboard --logdir",
    "config.yaml": "the configuration, with every value as it was used",
}
"""What may be in the directory of a run, and what it is."""


def run_directory(out: str | None, resume: str | None) -> str:
    """Where a single run goes: ``out`` if given, the directory of the run to resume, or a new one named by the time."""
    if out is not None and (out == "" or (Path(out).exists() and not Path(out).is_dir())):
        raise ConfigError(f"out={out!r} must be a directory, or the name of a new one")
    if resume is not None and resume != "auto":
        path = Path(resume)
        run = path.parent.parent if path.suffix == ".ckpt" else path
        if (run / "checkpoints").is_dir():
            return str(run)
    if out is not None:
        return out
    started = sorted(Path("outputs").glob("*/*/checkpoints/last.ckpt"), key=lambda p: p.stat().st_mtime)
    if resume == "auto" and started:
        return str(started[-1].parent.parent)
    return _new_directory("outputs/%Y-%m-%d/%H-%M-%S")


def sweep_directory(out: str | None, resume: str | None) -> str:
    """Where a multirun goes: ``out`` if given, else a new directory named by the time.

    Raises:
        ConfigError: a sweep is in ``out`` that is not to be resumed.
    """
    if out is None:
        return _new_directory("multirun/%Y-%m-%d/%H-%M-%S")
    if resume is None:
        try:
            Path(out).mkdir(parents=True, exist_ok=True)
            Path(out, "multirun.yaml").touch(exist_ok=False)  # Hydra writes into it next
        except FileExistsError as error:
            raise ConfigError(
                f"out={out}: there is a sweep in it already; continue it with resume=auto, or choose another directory"
            ) from error
    return out


def _new_directory(pattern: str) -> str:
    """A directory named by the time that this process alone has made; a number behind it tells starts in one second apart."""
    name = datetime.now().strftime(pattern)
    path, n = name, 1
    while is_first_process():
        try:
            Path(path).mkdir(parents=True)
            break
        except FileExistsError:
            n += 1
            path = f"{name}-{n}"
    return path


def is_first_process() -> bool:
    """Whether this is the process of a distributed run that writes files; true where there is only one."""
    return getattr(rank_zero_only, "rank", 0) == 0


def products(out: Path) -> str:
    """What there is in the directory of a run, a line each."""
    return "\n".join(f"  {name:<26} {what}" for name, what in PRODUCTS.items() if any(out.glob(name)))


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """The run directory is this run's alone inside this context; its first process holds the lock for all.

    Raises:
        ConfigError: another process trains in this directory.
    """
    if not is_first_process():
        yield
        return
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(f"out={out}: another process trains in this directory; wait for it or choose another") from error
    try:
        for stray in (out / "checkpoints").glob(".*.tmp-*"):
            stray.unlink()  # of a process that was killed while it wrote
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """Inside this context messages are also appended to a file, with time and origin, and the error that ends it too.

    Hydra would open it before it is known whether the run may write there.
    """
    if not is_first_process():
        yield
        return
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    except Exception as error:
        handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, message(error), (), None))
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def checkpoint_to_resume(resume: str | None, out: Path) -> Path | None:
    """The checkpoint that ``resume`` names: none, that of ``out`` if there is one (auto), a file, or the last of a run.

    Raises:
        CheckpointError: it was named and is not there.
    """
    if resume is None:
        return None
    if resume == "auto":
        if any((out / "checkpoints" / f"{name}.ckpt").exists() for name in GENERATIONS):
            return checkpoint_of(out)
        refuse_to_overwrite(out)
        log.info("resume=auto: there is nothing to resume in %s, starting anew", out)
        return None
    path = checkpoint_of(resume)
    if not path.is_file():
        raise CheckpointError(f"resume={resume}: there is no {path}; resume=auto starts anew where there is nothing to resume")
    if path.resolve().parent.parent != out.resolve():
        raise ConfigError(
            f"resume={resume}: a run is continued in its own directory, from a file in its checkpoints folder, and not in {out}"
        )
    return path


def overrides_of(checkpoint: Path, overrides: Sequence[str]) -> list[str]:
    """The command line that a run was begun with, changed by another one."""
    begun: list[str] = read_checkpoint(checkpoint).get("hyper_parameters", {}).get("overrides", [])
    if not isinstance(begun, list) or not all(isinstance(o, str) for o in begun):
        raise CheckpointError(f"{checkpoint}: not a checkpoint of this project: its overrides are no list of texts")
    begun = [RENAMED.get(o, o) for o in begun]
    foreign = [o for o in begun if override_key(o).strip().startswith("hydra")]
    if foreign:  # the search path of the configuration imports packages
        raise CheckpointError(f"{checkpoint}: its command line has {foreign[0]!r}; no run is resumed with options of Hydra")
    given = {override_key(o) for o in overrides}
    return [o for o in begun if override_key(o) not in given] + list(overrides)


def override_key(override: str) -> str:
    """``+a.b=1`` -> ``a.b``."""
    return override.lstrip("+~").partition("=")[0]


def refuse_outside(config: Mapping[str, Any], out: Path) -> None:
    """Check that callbacks and loggers of a resumed run write below its directory.

    Raises:
        ConfigError: one does not.
    """
    for group in ("callbacks", "logger"):
        for key, value in flat(config[group], f"{group}.").items():
            if key.endswith(("dirpath", "save_dir", "root_dir", ".dir")) and isinstance(value, str) and value != "None":
                if not Path(value).resolve().is_relative_to(out.resolve()):
                    raise ConfigError(f"{key}={value}: a resumed run writes below its own directory, {out}; give {key}={out}")


def refuse_to_overwrite(out: Path) -> None:
    """Check that no run is in this directory.

    Raises:
        ConfigError: there is one.
    """
    there = sorted(path.name for path in (out / "checkpoints").glob("*.ckpt"))
    if there and is_first_process():
        how = "resume=auto" if "last.ckpt" in there else typed("resume", str(out / "checkpoints" / there[0]))
        raise ConfigError(f"out={out}: there is a run in it already; continue it with {how}, or choose another directory")


def refuse_another_run(checkpoint: Path, saved: Mapping[str, Any]) -> int:
    """Compare the configuration with the checkpoint's.

    Args:
        checkpoint: to be resumed.
        saved: what this run would save of its configuration.

    Returns:
        The optimiser step at which the checkpoint was saved.

    Raises:
        ConfigError: they differ in what decides the result; lists key, saved and given value.
    """
    content = read_checkpoint(checkpoint)
    if "hyper_parameters" not in content:
        raise CheckpointError(f"{checkpoint}: not a checkpoint of this project: it lacks hyper_parameters")
    before = flat({k: v for k, v in content["hyper_parameters"].items() if k in SAVED})
    now = flat(saved)
    before = {key: value for key, value in EARLIER.items() if key in now} | before
    differences = [
        f"  {key}: {before.get(key, 'absent')} in the checkpoint, {now.get(key, 'absent')} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(MAY_DIFFER)
    ]
    if differences:
        why = "is of another run, or of an earlier version with other defaults; start a new one, or give what the checkpoint has"
        raise ConfigError("\n".join([f"{checkpoint} {why} (~KEY takes away what it has not):", *differences]))
    return int(content["global_step"])


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``; lists become text, as tables of hyperparameters want."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = str(value) if isinstance(value, list) or value is None else value
    return out


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide the numbers of a run."""
    found = {"python": platform.python_version()}
    for name in ("pose-ddpm", "torch", "numpy", "pytorch-lightning"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # the project itself, run from its folder
            found[name] = "not installed"
    return found
