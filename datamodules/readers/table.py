"""Tables as text: one line per frame, one column per coordinate, with or without a line of names."""

import re
from pathlib import Path

import numpy as np

from datamodules.clip_set import Recording
from datamodules.readers.files import common_rate, read_text
from ddpm.errors import DataError

COLUMN = re.compile(r"(.+?)[ ._:/-](x|y|z|c|conf|confidence|score|visibility|likelihood)", re.IGNORECASE)
AXES = ("x", "y", "z")


def read(path: Path, coords: int = 3) -> Recording:
    """The motion of a ``.csv`` file, its columns separated by commas, semicolons, tabs or blanks.

    With a first line of names such as ``left_knee_x,left_knee_y,left_knee_z`` the joints are those, in the order of their first
    columns; ``left_knee_confidence`` (or c, score, visibility, likelihood) is 0..1, ``time`` gives the frame rate, in seconds, or
    in milli-, micro- or nanoseconds where that would be less than one frame per second, ``frame`` must count on. Without names
    there are ``joints * coords`` columns. An empty cell is a lost position (NaN).

    Raises:
        DataError: no such table; names line and column.
    """
    lines = read_text(path).rstrip().splitlines()
    if not lines:
        raise DataError(f"{path}: the file is empty, remove it")
    separator = max(",;\t", key=lines[0].count)
    separator = separator if separator in lines[0] else None
    header = [cell.strip().strip('"') for cell in lines[0].split(separator)]
    named = not all(map(_is_number, header))
    table = _numbers(
        path, lines[named:], separator, header if named else [f"column {i + 1}" for i in range(len(header))], 1 + named
    )
    if not named:
        if len(header) % coords:
            raise DataError(
                f"{path}: {len(header)} columns without names are no multiple of {coords} coordinates; add a first line such as "
                "left_knee_x,left_knee_y,left_knee_z,..."
            )
        return Recording(table.reshape(len(table), -1, coords).astype(np.float32), path.name)

    columns: dict[str, dict[str, int]] = {}
    special: dict[str, int] = {}
    for i, name in enumerate(header):
        match = COLUMN.fullmatch(name)
        if name.lower() in ("frame", "time", ""):
            special[name.lower()] = i
        elif match is None:
            raise DataError(
                f"{path}: column {i + 1} is called {name!r}; a name must end with _x, _y, _z or _confidence, or be frame or time"
            )
        else:
            kind = match[2].lower() if match[2].lower() in AXES else "confidence"
            if columns.setdefault(match[1], {}).setdefault(kind, i) != i:
                raise DataError(f"{path}: there are two columns {name!r} (columns {columns[match[1]][kind] + 1} and {i + 1})")
    axes = [axis for axis in AXES if any(axis in joint for joint in columns.values())]
    for joint, has in columns.items():
        if len(axes) < 2 or not set(axes) <= set(has):
            missing = sorted({*axes, "x", "y"} - set(has))
            raise DataError(f"{path}: joint {joint!r} has no column for {', '.join(missing)}; every joint needs all of them")
    if not columns:
        raise DataError(f"{path}: no column is of a joint; call them left_knee_x, left_knee_y, ...")
    confidence = None
    if any("confidence" in has for has in columns.values()):
        seen = [table[:, has["confidence"]] if "confidence" in has else np.ones(len(table)) for has in columns.values()]
        confidence = np.nan_to_num(np.stack(seen, axis=1), nan=0.0).astype(np.float32)
    if "frame" in special:
        _steps_per_unit(path, table[:, special["frame"]], "frame", same=1.0)
    fps, units = None, 0
    if "time" in special and (fps := _steps_per_unit(path, table[:, special["time"]], "time")) is not None:
        while fps < 1 and units < 3:
            fps, units = 1000 * fps, units + 1
        # 15 and not 15.00002, nor 30.03 of 11 frames in 333 milliseconds, whatever was rounded in the file.
        off = 1000.0**-units / (len(table) - 1) if units and not np.mod(table[:, special["time"]], 1).any() else 0
        fps = common_rate(1 / fps - off, 1 / fps + off) or round(fps, 3)
    return Recording(
        np.stack([table[:, [has[axis] for axis in axes]] for has in columns.values()], axis=1).astype(np.float32),
        path.name,
        joints=tuple(columns),
        fps=fps,
        confidence=confidence,
        note=f"time is taken to be in {('', 'milli', 'micro', 'nano')[units]}seconds" if units else None,
    )


def _numbers(path: Path, lines: list[str], separator: str | None, names: list[str], first: int) -> np.ndarray:
    """``(lines, columns)`` float64, finite or NaN; ``first`` is the number of the first line in its file."""
    rows = [line.split(separator) for line in lines]
    for i, row in enumerate(rows, first):
        if len(row) != len(names):
            raise DataError(
                f"{path}: line {i} has {len(row)} columns, the first has {len(names)}; the file is truncated or damaged"
            )
    try:
        table = np.array([[cell if cell.strip() else "nan" for cell in row] for row in rows], dtype=np.float64)
    except ValueError as e:
        cells = ((i, j, cell) for i, row in enumerate(rows, first) for j, cell in enumerate(row, 1))
        i, j, cell = next((place for place in cells if not _is_number(place[2])), (first, 1, str(e)))
        raise DataError(f"{path}: line {i}, column {j} is {cell[:40]!r}, expected a number") from None
    table = table.reshape(len(rows), len(names))
    for i, j in np.argwhere(np.isinf(table))[:1]:
        raise DataError(f"{path}: line {i + first}, {names[j]} is infinite; leave lost positions empty")
    return table


def _is_number(text: str) -> bool:
    try:
        float(text.strip() or "nan")
    except ValueError:
        return False
    return True


def _steps_per_unit(path: Path, values: np.ndarray, name: str, same: float | None = None) -> float | None:
    """Check that a column counts on evenly, by ``same`` if it is given; returns the steps per unit, None for a single line."""
    if len(values) < 2:
        return None
    steps = np.diff(values)
    usual = float(np.median(steps)) if same is None else same
    bad = np.flatnonzero(~(np.abs(steps - usual) <= 0.5 * usual)) if usual > 0 else np.zeros(1, int)
    if len(bad) or not np.isfinite(usual):
        i = int(bad[0]) if len(bad) else 0
        raise DataError(
            f"{path}: line {i + 3}: {name} goes from {values[i]:g} to {values[i + 1]:g}, expected steps of {usual:g}; add the "
            "missing frames with empty cells, or sort the file"
        )
    return float((len(values) - 1) / (values[-1] - values[0]))
