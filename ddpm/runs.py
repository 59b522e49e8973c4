"""Directories of runs: where a run goes, that it is alone there, and what it takes to go on with one."""

import contextlib
import importlib.metadata
import logging
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from logging.handlers import MemoryHandler
from pathlib import Path

from filelock import FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_only

from ddpm.command import message
from ddpm.errors import ConfigError, EscapedFormatter, WriteError
from ddpm.files import refuse_place, remove_strays

log = logging.getLogger(__name__)


PRODUCTS = {
    "samples/final.gif": "generated clips",
    "samples/*.gif": "clips of the same noise during training",
    "loss.png": "the loss curve",
    "loss.csv": "its numbers",
    "noise_levels.png": "the error in cm by noise level",
    "checkpoints/last.ckpt": "for sample.py, and for resume=",
    "checkpoints/previous.ckpt": "the one before, in case last.ckpt is damaged",
    "checkpoints/best.ckpt": "the best by callbacks.best.monitor",
    "events.out.tfevents.*": "tensorboard --logdir",
    "config.yaml": "the configuration, with every value as it was used",
    "run.json": "command, versions, commit, data, machine and results of every start",
}
"""What may be in the directory of a run, and what it is."""

LAUNCHERS = {"torchrun": "ROLE_WORLD_SIZE", "srun": "SLURM_STEP_NUM_TASKS"}
"""What starts the processes of a distributed run instead of Lightning, and where it says how many."""

LOG = "train.log"
JOB = "job.json"
"""What `ddpm.sweep` notes of a job."""
_missing: set[Path] = set()
"""Directories that were not there when this process began, of which it may have made some."""


def run_directory(out: str | None, resume: str | None) -> str:
    """Where a single run goes: ``out`` if given, the directory of the run to resume, or a new one named by the time.

    Raises:
        ConfigError: ``out`` is no directory, or nothing can be written there; or several processes would choose one each.
    """
    if out is not None and is_first_process():
        refuse_place("out", out)  # Hydra makes it next
    if resume is not None and resume != "auto":
        path = Path(resume)
        run = path.parent.parent if path.suffix == ".ckpt" else path
        if (run / "checkpoints").is_dir():
            return str(run)
    if out is not None:
        _remember_missing(Path(out))
        return out
    started = sorted(Path("outputs").glob("*/*/checkpoints/*.ckpt"), key=lambda p: p.stat().st_mtime)
    if resume == "auto" and started:
        return str(started[-1].parent.parent)
    launcher = next((name for name, tasks in LAUNCHERS.items() if int(os.environ.get(tasks, "1")) > 1), None)
    if launcher is not None:
        raise ConfigError(f"out: {launcher} has started several processes that share the directory of a run: name it, out=DIR")
    return _new_directory("outputs/%Y-%m-%d/%H-%M-%S")


def sweep_directory(out: str | None, resume: str | None) -> str:
    """Where a multirun goes: ``out`` if given, the sweep to resume, or a new directory named by the time.

    Raises:
        ConfigError: a sweep is in ``out`` that is not to be resumed, or none in ``resume``; or nothing can be written there.
    """
    if resume not in (None, "auto"):
        if out is not None and Path(out).resolve() != Path(resume).resolve():
            raise ConfigError(f"resume={resume} continues in that sweep's own directory: leave out={out} away")
        if not any(path for pattern in ("multirun.yaml", f"*/{JOB}", "*/checkpoints") for path in Path(resume).glob(pattern)):
            raise ConfigError(f"resume={resume}: there is no sweep in it; with -m give the directory of one, or auto")
        return resume
    if out is None:
        begun = sorted(Path("multirun").glob(f"*/*/*/{JOB}"), key=lambda path: path.stat().st_mtime)
        return str(begun[-1].parents[1]) if resume and begun else _new_directory("multirun/%Y-%m-%d/%H-%M-%S")
    refuse_place("out", out)
    if resume is None:
        try:
            Path(out).mkdir(parents=True, exist_ok=True)
            Path(out, "multirun.yaml").touch(exist_ok=False)  # Hydra writes into it next
        except FileExistsError as error:
            if any(path.name not in (LOG, JOB) for path in Path(out).glob("*/*")):  # of refused jobs there is no more
                raise ConfigError(
                    f"out={out}: there is a sweep in it already; continue it with resume=auto, or choose another directory"
                ) from error
            for path in Path(out).glob(f"*/{JOB}"):
                shutil.rmtree(path.parent)
    return out


def _new_directory(pattern: str) -> str:
    """A directory named by the time that this process alone has made; a number behind it tells starts in one second apart."""
    name = datetime.now().strftime(pattern)
    path, n = name, 1
    if is_first_process():
        refuse_place("out", name)
    while is_first_process():
        _remember_missing(Path(path))
        try:
            Path(path).mkdir(parents=True)
            break
        except FileExistsError:
            n += 1
            path = f"{name}-{n}"
    return path


def _remember_missing(path: Path) -> None:
    _missing.update(folder for folder in (path.absolute(), *path.absolute().parents) if not folder.exists())


def is_first_process() -> bool:
    """Whether this is the process of a distributed run that writes files; true where there is only one."""
    return getattr(rank_zero_only, "rank", 0) == 0


def products(out: Path) -> str:
    """What there is in the directory of a run, a line each."""
    return "\n".join(f"  {name:<26} {what}" for name, what in PRODUCTS.items() if any(out.glob(name)))


@contextlib.contextmanager
def new_if_used(out: Path) -> Iterator[None]:
    """A directory that this process made is removed again, with its parents, if this context ends in an error and it is empty."""
    _remember_missing(out)
    try:
        yield
    except BaseException:
        if is_first_process():
            with contextlib.suppress(OSError):
                for folder in (out.absolute(), *out.absolute().parents):
                    if folder not in _missing:
                        break
                    folder.rmdir()
        raise


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """The run directory, which is made, is this run's alone inside this context; its first process holds the lock for all.

    An error before anything but the log was written leaves what was there before, and of a new directory nothing.

    Raises:
        ConfigError: another process trains in this directory.
        WriteError: it cannot be made, or nothing can be written there.
    """
    if not is_first_process():
        yield
        return
    with new_if_used(out):
        lock = FileLock(out / ".lock")
        try:
            out.mkdir(parents=True, exist_ok=True)
            before = set(os.listdir(out))
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ConfigError(f"out={out}: another process trains in this directory; wait for it or choose another") from error
        except OSError as error:
            raise WriteError(f"out={out}: cannot be written to ({error.strerror}); choose another directory") from error
        try:
            yield
        except BaseException:
            if set(os.listdir(out)) - before <= {".lock", LOG}:
                for name in {".lock", LOG if out.absolute() in _missing else ".lock"} - before:
                    (out / name).unlink(missing_ok=True)
            raise
        finally:
            lock.release()


@contextlib.contextmanager
def logged(out: Path) -> Iterator[Callable[[], None]]:
    """Inside this context messages are also appended to the log in ``out``, with time and origin, and the error that ends it too.

    Nothing is written before the function that it yields is called, for a refused command leaves a run as it was; but where
    there is nothing yet, an error is. Hydra would open the file before it is known whether the run may write there.
    """
    if not is_first_process():
        yield lambda: None
        return
    is_new = set(os.listdir(out)) <= {".lock", JOB}
    file = logging.FileHandler(out / LOG, delay=True)
    file.setFormatter(EscapedFormatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
    handler = MemoryHandler(sys.maxsize, flushLevel=sys.maxsize, target=file, flushOnClose=False)

    def begin() -> None:
        handler.flushLevel = 0
        handler.flush()

    logging.getLogger().addHandler(handler)
    try:
        yield begin
    except Exception as error:
        if is_new:
            begin()
        handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, message(error), (), None))
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
        file.close()


def remove_what_was_left(out: Path) -> None:
    """Remove what processes that were killed have left in the directory of a run, whose lock this process holds."""
    remove_strays(out / "checkpoints", alone=True)
    for folder in (out, out / "samples"):  # where sample.py and evaluate.py may be writing too
        remove_strays(folder)


def refuse_to_overwrite(out: Path) -> None:
    """Check that no run is in this directory.

    Raises:
        ConfigError: there is one.
    """
    there = sorted(path.name for path in (out / "checkpoints").glob("*.ckpt"))
    if there and is_first_process():
        raise ConfigError(f"out={out}: there is a run in it already; continue it with resume=auto, or choose another directory")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide the numbers of a run."""
    found = {"python": platform.python_version()}
    for name in ("pose-ddpm", "torch", "numpy", "pytorch-lightning"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # the project itself, run from its folder
            found[name] = "not installed"
    return found
