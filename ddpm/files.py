"""The one way in which files are written: whole and on the disk, or not at all."""

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
        free = shutil.disk_usage(path.parent).free if path.parent.exists() else 0
        raise WriteError(
            f"{path}: not written ({error.strerror}), {len(content)} bytes needed, {free} free; what was there before is intact"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def refuse_place(key: str, place: str | Path) -> None:
    """Look whether a directory can be written to, or made, before there is anything to write; nothing is left there.

    Raises:
        ConfigError: it cannot; names key, place and what is in the way.
    """
    there = Path(place)
    if str(place) == "" or (there.exists() and not there.is_dir()):
        raise ConfigError(f"{key}={str(place)!r} must be a directory, or the name of a new one")
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ConfigError(f"{key}={place}: {there} cannot be written to ({error.strerror}); choose another directory") from error


@contextlib.contextmanager
def keeping(path: Path, other: Path) -> Iterator[None]:
    """What a file was before this context replaced it has another name afterwards, unless that failed."""
    if not path.exists():
        yield
        return
    temporary = other.with_name(f".{other.name}.tmp-{os.getpid()}")
    try:
        try:
            os.link(path, temporary)
        except OSError:  # a file system without second names
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


def _sync_directory(directory: Path) -> None:
    """Put the new name on the disk too, where the system can: Windows and some network file systems cannot, and need not."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
