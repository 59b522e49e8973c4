"""Optical markers: TRC, a table of text, and C3D, which is read with the library ezc3d."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from datamodules.clip_set import Recording
from datamodules.readers.raw_files import read_bytes, read_text
from ddpm.errors import DataError
from ddpm.skeleton import UNITS

MAX_C3D = 512 << 20
HEADER = 5  # lines of a TRC file before its numbers: type, keys, their values, names of the markers, X1 Y1 Z1 and so on


def read_trc(path: Path) -> Recording:
    """The markers of a ``.trc`` file, its columns separated by tabs or commas; an empty cell, or NaN, was not seen.

    Raises:
        DataError: no such file, or a damaged one; names the line.
    """
    text = read_text(path)
    lines = text.splitlines()
    if len(lines) <= HEADER or not lines[0].startswith("PathFileType"):
        raise DataError(
            f"{path}: line 1 is {lines[0][:40] if lines else ''!r}, expected the header of a TRC file, PathFileType ..."
        )
    separator = max("\t,;", key=lines[3].count)
    rows = [[cell.strip() for cell in line.split(separator)] for line in lines]
    about = dict(zip(rows[1], rows[2], strict=False))
    names = [name for name in rows[3][2:] if name]
    places = [i for i, name in enumerate(rows[3]) if i > 1 and name]
    if not names or places != list(range(2, 2 + 3 * len(names), 3)):
        raise DataError(f"{path}: line 4 must hold Frame#, Time and the name of a marker in every third column; correct the file")
    width = 2 + 3 * len(names)
    numbers = [(i, row) for i, row in enumerate(rows[HEADER:], HEADER + 1) if any(row)]
    positions = np.full((len(numbers), width - 2), np.nan)
    for values, (i, row) in zip(positions, numbers, strict=True):
        cells = row[2:width]
        if len(row) < width and i == len(rows) and not text.endswith("\n"):
            raise DataError(f"{path}: line {i} ends after {len(row)} of {width} columns; the file is truncated, replace it")
        try:
            values[: len(cells)] = [cell or "nan" for cell in cells]
        except ValueError as e:
            raise DataError(f"{path}: line {i}: {str(e)[:80]}; expected numbers, replace or remove the file") from None
    if not numbers:
        raise DataError(f"{path}: no frames; remove it")
    said = about.get("NumFrames", "")
    short = said.isdecimal() and len(numbers) < int(said[:18])  # as of excerpts, and of files that were cut off
    r = _markers(path, path.name, positions.reshape(len(positions), -1, 3), names, about.get("DataRate"), about.get("Units"))
    return replace(r, note="fewer frames than NumFrames says, the end may be missing") if short else r


def read_c3d(path: Path) -> list[Recording]:
    """The markers of a ``.c3d`` file, a recording for every subject where names have the form ``SUBJECT:MARKER``.

    Markers without a name (``*7``), and angles, forces and the like among the points, are left out.

    Raises:
        DataError: ezc3d is not installed, or it cannot read the file.
    """
    content = read_bytes(path, MAX_C3D)
    if content[1:2] != b"\x50":
        raise DataError(f"{path}: its second byte is {content[1:2]!r}, that of a C3D file is 0x50; replace or remove the file")
    try:
        import ezc3d
    except ImportError as error:
        raise DataError(f"{path}: a .c3d needs ezc3d: pip install 'pose-ddpm[c3d]' or pip install -e '.[c3d]'") from error
    try:
        file = ezc3d.c3d(str(path))
        about = {key: value["value"] for key, value in file["parameters"]["POINT"].items() if key != "__METADATA__"}
        names = [name.strip() for key in sorted(about) if key.rstrip("0123456789") == "LABELS" for name in about[key]]
        points, residuals = file["data"]["points"], file["data"]["meta_points"]["residuals"][0]
        rate, unit = float(about["RATE"][0]), str(next(iter(about.get("UNITS", [])), ""))
        others = {name.strip() for kind in ("ANGLES", "FORCES", "MOMENTS", "POWERS", "SCALARS") for name in about.get(kind, [])}
    except (OSError, RuntimeError, ValueError, KeyError, IndexError, TypeError, MemoryError) as e:
        raise DataError(f"{path}: not a valid C3D file ({str(e)[:80]}); replace or remove it") from e
    bodies: dict[str, list[int]] = {}
    for i, name in enumerate(names[: points.shape[1]]):
        if name and name not in others and not name.startswith("*"):
            bodies.setdefault(name.rpartition(":")[0], []).append(i)
    if not bodies or points.shape[2] == 0:
        raise DataError(f"{path}: no markers with a name; its labels are {names[:20]}; remove it, or label the markers")
    positions = np.where(residuals < 0, np.nan, points[:3]).transpose(2, 1, 0)
    recordings = []
    for body, index in bodies.items():
        source = path.name if len(bodies) == 1 else f"{path.name}, {body or 'others'}"
        own = [names[i].rpartition(":")[2] for i in index]
        recordings.append(_markers(path, source, positions[:, index], own, rate, unit))
    return recordings


def _markers(
    path: Path, source: str, positions: np.ndarray, names: Sequence[str], rate: str | float | None, unit: str | None
) -> Recording:
    """A recording of positions ``(frames, markers, 3)`` that are not finite where a marker was not seen."""
    try:
        fps = None if rate is None else float(rate)
    except ValueError:
        raise DataError(f"{path}: DataRate is {str(rate)[:40]!r}, expected a number; correct the file") from None
    unit = (unit or "").lower()
    if unit not in ("", *UNITS):
        raise DataError(f"{path}: its unit is {unit[:40]!r}, expected one of {', '.join(UNITS)}; correct the file")
    seen = np.asarray(np.isfinite(positions).all(-1))
    with np.errstate(over="ignore"):  # what becomes infinite is named later, with its frame and joint
        placed = np.where(seen[..., None], positions, 0).astype(np.float32)
    return Recording(placed, source, joints=tuple(names), fps=fps, confidence=seen.astype(np.float32), units=unit or None)
