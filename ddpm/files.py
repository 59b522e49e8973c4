"""The one way in which files are written: whole and on the disk, or not at all."""

import contextlib
import errno
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ddpm.errors import ConfigError, WriteError


def write_durably(path: str | Path, content: bytes | memoryview) -> None:
    """Replace a file in one step, on the disk when this returns. Folders are made.

    Raises:
        WriteError: the disk does not take it; names the path, the bytes needed and the bytes free. The old file is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as error:
        need = f"{len(content)} bytes needed, {_free(path)} free"
        raise WriteError(f"{path}: not written ({error.strerror}), {need}; what was there before is intact") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def refuse_place(key: str, place: str | Path) -> None:
    """Check that a directory can be written to, or made; nothing is left there.

    Raises:
        ConfigError: it cannot; names key, place and what is in the way.
    """
    if str(place) == "" or (os.path.exists(place) and not os.path.isdir(place)):  # of a closed folder Path would raise
        raise ConfigError(f"{key}={str(place)!r} must be a directory, or the name of a new one")
    try:
        refuse_unwritable(place, 2**20)
    except WriteError as error:
        raise ConfigError(f"{key}={error}") from error


def refuse_unwritable(folder: str | Path, size: int, n: int = 1) -> None:
    """Check before the work that ``n`` files of ``size`` bytes can be written into a folder; nothing is left there.

    Raises:
        WriteError: they cannot; names the folder, the bytes needed and the bytes free.
    """
    folder = Path(folder).absolute()
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    free = _free(folder)  # beside the trials
    trials = [folder / f".trial-{i}.tmp-{os.getpid()}" for i in range(n)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for trial in trials:
            with trial.open("wb") as file:
                _occupy(file, size)
    except OSError as error:
        need = f"{n * size} bytes needed, {free} free"
        raise WriteError(
            f"{folder}: cannot be written to ({error.strerror}), {need}; choose another directory, or make room"
        ) from error
    finally:
        for remove in (*(trial.unlink for trial in trials), *(path.rmdir for path in missing)):
            with contextlib.suppress(OSError):
                remove()


def remove_strays(folder: Path, alone: bool = False) -> None:
    """Remove half-written files of killed processes from a folder.

    Those of a living process of this machine stay, unless ``alone``: the caller knows that there is none.
    """
    for stray in folder.glob(".*.tmp-*"):
        ours = re.fullmatch(r"\.(?:.+\.\w+|trial-\d+)\.tmp-(\d+)", stray.name)
        if ours and (alone or not _is_alive(ours[1])):
            with contextlib.suppress(OSError):
                stray.unlink()


@contextlib.contextmanager
def keeping(path: Path, other: Path) -> Iterator[None]:
    """Keep the version of a file that this context replaces as ``other``, unless the replacement fails."""
    if not path.exists():
        yield
        return
    temporary = other.with_name(f".{other.name}.tmp-{os.getpid()}")
    try:
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary)
        yield
        os.replace(temporary, other)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write plain containers as strict JSON: numbers that are not finite, which it does not have, become null."""

    def strict(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): strict(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [strict(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    write_durably(path, (json.dumps(strict(content), indent=1, allow_nan=False) + "\n").encode())


def _free(path: Path) -> int:
    """Bytes that are free where a path is, or would be."""
    return shutil.disk_usage(next(p for p in (path, *path.absolute().parents) if os.path.exists(p))).free


def _occupy(file: BinaryIO, size: int) -> None:
    """Take so many bytes of the disk, as quickly as the system can."""
    try:
        os.posix_fallocate(file.fileno(), 0, max(size, 1))
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        for start in range(0, size, 2**20):
            file.write(bytes(min(2**20, size - start)))
        file.flush()
        os.fsync(file.fileno())


def _is_alive(pid: str) -> bool:
    """Whether a process of this number, other than this one, runs on this machine; true where that cannot be asked."""
    if os.name != "posix":
        return True
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return int(pid) != os.getpid()


def _sync_directory(directory: Path) -> None:
    """Put the new name on the disk too, where the system can: Windows and some network file systems cannot, and need not."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
