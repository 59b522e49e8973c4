"""What all readers do with files: find them, and read them within limits."""

import codecs
import math
import os
import stat
from collections.abc import Collection, Sequence
from pathlib import Path

from ddpm.errors import DataError

MAX_FILES = 500_000
MAX_TEXT = 64 << 20  # bytes of a text file; while it is parsed it takes up to thirty times as much memory
MAX_STRIDE = 20  # times as many numbers of frames as frames: beyond, they are pictures and no motion


COMMON = (5.0, 10.0, 12.0, 15.0, 20.0, 24.0, 25.0, 30.0, 48.0, 50.0, 60.0, 72.0, 75.0, 90.0, 100.0, 120.0, 144.0, 200.0, 240.0)
NTSC = (24000 / 1001, 30000 / 1001, 60000 / 1001, 120000 / 1001)
"""Frame rates of cameras and of motion capture, and those of television."""


def common_rate(shortest: float, longest: float) -> float | None:
    """The usual rate, a whole one first, whose frames last from ``shortest`` to ``longest`` seconds; None if there is none."""
    for rates in (COMMON, NTSC):
        if near := [rate for rate in rates if shortest <= 1 / rate <= longest]:
            return min(near, key=lambda rate: abs(2 / rate - shortest - longest))
    return None


def read_bytes(path: Path, limit: int = MAX_TEXT) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    Raises:
        DataError: no such file, a device or pipe, more bytes than the limit, or an error of the operating system.
    """
    check_file(path, limit)
    with path.open("rb") as stream:
        return stream.read(limit)


def check_file(path: Path, limit: int = MAX_TEXT) -> None:
    """Raise the errors of `read_bytes`."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: not a regular file, it cannot be read; remove it from the data")
        if status.st_size > limit:
            raise DataError(f"{path}: {status.st_size} bytes, at most {limit} are read; cut it into shorter files, or remove it")
        path.open("rb").close()
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror}); check the path and its permissions") from e


def read_text(path: Path) -> str:
    """The content of a text file in UTF-8, or, as its mark at the beginning says, UTF-16; without that mark.

    Raises:
        DataError: see `read_bytes`; or it is no text.
    """
    content = read_bytes(path)
    try:
        return content.decode("utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError as e:
        raise DataError(
            f"{path}: byte {e.start} is no UTF-8 text; if it is a text, save it as UTF-8; else it is damaged or of another kind, "
            "remove it"
        ) from e


def find_files(root: Path, endings: Collection[str]) -> tuple[list[Path], int]:
    """Files in and below a directory whose names end with one of the lower-case ``endings``, sorted.

    Links in the directory are not followed. ``root`` may be one file, whatever its ending, or a link to a file or directory.

    Returns:
        The files, and the number of others that were passed over, links to files among them. Hidden ones do not count.

    Raises:
        DataError: no such directory, none of these files in it, or too many.
    """
    if root.is_file():
        return [root], 0
    if not root.is_dir():
        raise DataError(f"{root}: no such file or directory (looked for {root.absolute()}); set data.root")
    found: list[Path] = []
    others = 0
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(folder, name) for name in names if not name.startswith(".")):
            if path.name.lower().endswith(tuple(endings)) and not path.is_symlink():
                found.append(path)
            else:
                others += 1
        if len(found) + others > MAX_FILES:
            raise DataError(f"{root}: more than {MAX_FILES} files; set data.root to the directory of the motions alone")
    if not found:
        raise DataError(
            f"{root}: none of the files there ({others}) ends with {', '.join(endings)}; links are not followed; set "
            "data.root to the directory of the motions"
        )
    return sorted(found), others


def passed_over(others: int) -> list[str]:
    """A note on the number of other files, if there are any."""
    return [f"{others} other files were not looked at"] if others else []


def places(path: Path, numbers: Sequence[int]) -> dict[int, int]:
    """Number of each picture -> its place from the first, in units of their common step; missing ones are left out.

    Raises:
        DataError: they are too far apart to be frames of a motion.
    """
    first = min(numbers, default=0)
    step = math.gcd(*(number - first for number in numbers)) or 1
    if numbers and (max(numbers) - first) // step >= MAX_STRIDE * len(numbers):
        raise DataError(
            f"{path}: {len(numbers)} images with numbers from {first} to {max(numbers)}: single pictures and no motion; "
            "keep the frames of a video in one file"
        )
    return {number: (number - first) // step for number in numbers}
