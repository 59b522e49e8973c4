"""Columns of a table that count on: the frame, and the time, which gives the frame rate."""

from pathlib import Path

import numpy as np

from datamodules.readers.raw_files import common_rate
from ddpm.errors import DataError

OTHERWISE = "leave the column out and set data.fps={:.4g}, or what it is"


def check_frames(path: Path, name: str, numbers: np.ndarray) -> None:
    """Raise a DataError where the ``(lines,)`` numbers of a column do not count on by 1; names the line."""
    steps = _steps(path, name, numbers, "leave the column out")
    for i in np.flatnonzero(np.abs(steps - 1) > 0.5)[:1]:
        raise _hole(path, name, numbers, int(i), 1, "leave the column out")


def rate_of(path: Path, name: str, times: np.ndarray) -> tuple[float | None, str | None, bool]:
    """Frames per second of a column of ``(lines,)`` times; what is taken for granted of its unit; whether it may count frames.

    Raises:
        DataError: times that are empty, do not increase, or increase unevenly; names the line.
    """
    if len(times) < 2:
        return None, None, False
    steps = _steps(path, name, times, OTHERWISE.format(30))
    usual, mean = float(np.median(steps)), float(times[-1] - times[0]) / len(steps)
    uneven = np.abs(steps - usual)
    for i in np.flatnonzero(uneven > 0.5 * usual)[:1].tolist():
        if np.median(uneven) <= 0.1 * usual:
            raise _hole(path, name, times, i, usual, OTHERWISE.format(_per_second(usual)[0]))
        raise DataError(
            f"{path}: {name} increases unevenly, by {steps.min():.3g} to {steps.max():.3g}, in line {i + 3} by {steps[i]:.3g}, "
            f"and gives no frame rate; {OTHERWISE.format(_per_second(mean)[0])}"
        )
    fps, unit = _per_second(mean)
    # 15 and not 15.00002, nor 30.03 of 11 frames in 333 milliseconds, whatever was rounded in the file.
    off = 1000.0**-unit / len(steps) if unit and not np.mod(times, 1).any() else 0
    note = f"time is taken to be in {('', 'milli', 'micro', 'nano')[unit]}seconds" if unit else None
    return common_rate(1 / fps - off, 1 / fps + off) or round(fps, 3), note, bool((steps == 1).all())


def _per_second(step: float) -> tuple[float, int]:
    """The frame rate of a step of time, and the unit that this is in: 0 for seconds, 1 for milliseconds, and so on."""
    fps, unit = 1 / step, 0
    while fps < 1 and unit < 3:
        fps, unit = 1000 * fps, unit + 1
    return fps, unit


def _steps(path: Path, name: str, values: np.ndarray, otherwise: str) -> np.ndarray:
    for i in np.flatnonzero(~np.isfinite(values))[:1]:
        raise DataError(f"{path}: line {i + 2}: {name} is empty; fill it in, or {otherwise}")
    steps = np.diff(values)
    for i in np.flatnonzero(steps <= 0)[:1]:
        raise DataError(
            f"{path}: line {i + 3}: {name} goes from {values[i]:.15g} to {values[i + 1]:.15g}, but must increase; sort the "
            f"lines, or {otherwise}"
        )
    return steps


def _hole(path: Path, name: str, values: np.ndarray, i: int, usual: float, otherwise: str) -> DataError:
    return DataError(
        f"{path}: line {i + 3}: {name} goes from {values[i]:.15g} to {values[i + 1]:.15g}, expected steps of {usual:.6g}; add "
        f"the missing lines, with their {name} and empty cells, or {otherwise}"
    )
