"""Tables as text: a line per frame, a column per coordinate, with lines of names or none; DeepLabCut, SLEAP, FreeMoCap."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from datamodules.clip_set import Recording
from datamodules.readers.raw_files import places, read_text
from datamodules.readers.times import OTHERWISE, check_frames, rate_of
from ddpm.errors import DataError

COLUMN = re.compile(r"(.+?)[ ._:/-]\(?(x|y|z|c|conf|confidence|score|visibility|likelihood)\)?", re.IGNORECASE)
FIRST, CAMEL = re.compile(r"([xyz])[ ._:/-](.+)", re.IGNORECASE), re.compile(r"(.*[a-z\d])([XYZ])")
AXES = ("x", "y", "z")
LEVELS = ("scorer", "individuals", "bodyparts", "coords")
"""Lines of names above a table of DeepLabCut, the second only where there are several animals."""
FRAMES = ("frame", "frame_idx", "frame_id", "fnum")
TRACKS = ("track", "track_id", "person_id", "individual")
POINTS = ("keypoint", "bodypart", "landmark", "marker", "joint")
TIME = re.compile(r"(time|t|seconds)[ _]?([(\[]?(s|sec|secs|seconds|ms|msec|us|ns)[)\]]?)?", re.IGNORECASE)
IGNORED = re.compile(
    r"|index|unnamed: \d+|timestamp.*|instance\.score|model|reprojection_error|.*_(error|ncams)|M_\d\d|center_\d", re.IGNORECASE
)
"""Columns that need not be numbers: of times of day, of SLEAP, FreeMoCap and Anipose."""
DECIMAL = re.compile(r"[-+]?\d*,\d+(e[-+]?\d+)?", re.IGNORECASE)  # a number with a comma for its point
EMPTY = {"", "na", "n/a", "none", "null"}  # cells, in lower case, that hold no number, as R, Excel and databases write them
FREEMOCAP = {"hips_center": "pelvis", "trunk_center": "spine", "neck_center": "neck", "head_center": "head"}

Columns = dict[str, dict[str, int]]  # joint -> x, y, z and confidence -> number of the column


def read(path: Path, coords: int = 3) -> list[Recording]:
    """The motions of a ``.csv`` file, its columns separated by commas, semicolons, tabs or blanks. Numbers
    may have a comma for their point where that separates no columns, or in quotes.

    With a first line of names such as ``left_knee_x,left_knee_y,left_knee_z`` the joints are those, in the order of their first
    columns; ``left_knee_confidence`` (or c, score, visibility, likelihood) is 0..1, ``time`` gives the frame rate, in seconds, or
    in milli-, micro- or nanoseconds where that would be less than one frame per second, ``frame`` must count on. Without names
    there are ``joints * coords`` columns. A position with an empty cell, or NaN, is lost.

    With a column ``track`` there is a body in each line, and ``frame_idx`` may leave frames out (SLEAP). First lines ``scorer``,
    perhaps ``individuals``, ``bodyparts`` and ``coords`` are DeepLabCut's, a body for each individual. In both, empty cells were
    not seen, and two coordinates are pixels. A position with an empty confidence was seen. A column ``keypoint`` makes a line for
    each point of a body. Joints called ``body_nose`` and so on are those of FreeMoCap, in millimetres.

    Raises:
        DataError: no such table, or bodies that nothing tells apart; names line and column.
    """
    if not (lines := read_text(path).rstrip().splitlines()):
        raise DataError(f"{path}: the file is empty, remove it")
    separator = next((mark for mark in ";\t" if mark in lines[0]), ",")
    try:
        rows = list(csv.reader(lines, delimiter=separator)) if separator in lines[0] else [line.split() for line in lines]
    except csv.Error as e:
        raise DataError(f"{path}: {e}; the file is damaged, replace or remove it") from e
    if any(DECIMAL.fullmatch(cell.strip()) for row in rows[:100] for cell in row):
        rows = [[cell.replace(",", ".") if DECIMAL.fullmatch(cell.strip()) else cell for cell in row] for row in rows]
    header = [cell.strip() for cell in rows[0]]
    if header[0].lower() in LEVELS:
        return _deeplabcut(path, rows)
    if all(map(_is_number, header)):
        table = _numbers(path, rows, [f"column {i + 1}" for i in range(len(header))], 1)
        if len(header) % coords:
            raise DataError(
                f"{path}: {len(header)} columns without names are no multiple of {coords} coordinates; add a first line such as "
                "left_knee_x,left_knee_y,left_knee_z,..."
            )
        positions = table.reshape(len(table), -1, coords).astype(np.float32)
        return [Recording(positions, path.name, confidence=_seen(positions))]

    columns: Columns = {}
    special: dict[str, int] = {}
    long = not {name.lower() for name in header}.isdisjoint(POINTS)
    for i, name in enumerate(header):
        ways = name, FIRST.sub(r"\2_\1", name), CAMEL.sub(r"\1_\2", name)
        match = next(filter(None, map(COLUMN.fullmatch, ways)), None)
        role = next((names[0] for names in (FRAMES, TRACKS, POINTS) if name.lower() in names), None)
        role = "time" if TIME.fullmatch(name) else role
        if role is not None:
            special[role] = i
        elif IGNORED.fullmatch(name):
            special[f"ignored {i}"] = i
        elif match is None and long and name.lower() in (*AXES, "confidence", "score", "likelihood"):
            columns.setdefault("", {})[name.lower() if name.lower() in AXES else "confidence"] = i
        elif match is None:
            raise DataError(
                f"{path}: column {i + 1} is called {name!r}; a name must end with _x, _y, _z or _confidence, or be frame, "
                "time or track"
            )
        else:
            kind = match[2].lower() if match[2].lower() in AXES else "confidence"
            if columns.setdefault(match[1], {}).setdefault(kind, i) != i:
                raise DataError(f"{path}: there are two columns {name!r} (columns {columns[match[1]][kind] + 1} and {i + 1})")
    text = {i for role, i in special.items() if role not in ("frame", "time")}
    table = _numbers(path, [["" if i in text else cell for i, cell in enumerate(row)] for row in rows[1:]], header, 2)
    if long or "track" in special:
        if "frame" not in special:
            other = header[special.get("track", special.get(POINTS[0], 0))]
            raise DataError(f"{path}: has a column {other!r} and none of {', '.join(FRAMES)}; add the frame of each line")
        tracks = [row[special["track"]].strip() for row in rows[1:]] if "track" in special else [""] * len(table)
        if long:
            points = [row[special[POINTS[0]]].strip() for row in rows[1:]]
            columns, table, tracks, frames = _widened(path, columns.get("", {}), table, points, tracks, special["frame"])
        else:
            frames = table[:, special["frame"]]
        return _tracks(path, columns, table, tracks, frames)
    if "frame" in special:
        check_frames(path, header[special["frame"]], table[:, special["frame"]])
    recording = _recording(path, path.name, columns, table)
    if "time" not in special:
        return [recording]
    fps, note, counts = rate_of(path, header[special["time"]], table[:, special["time"]])
    return [replace(recording, fps=fps, note=note, fps_counts=counts)]


def _widened(
    path: Path, has: Mapping[str, int], table: np.ndarray, points: Sequence[str], tracks: Sequence[str], frame: int
) -> tuple[Columns, np.ndarray, list[str], np.ndarray]:
    """A table with a line for each keypoint as one with a line for each body: its columns, numbers, tracks and frames."""
    names = list(dict.fromkeys(points))
    columns = {name: {kind: len(has) * k + j for j, kind in enumerate(has)} for k, name in enumerate(names)}
    bodies = list(dict.fromkeys(zip(tracks, table[:, frame].tolist(), strict=True)))
    wide = np.full((len(bodies), len(names), len(has)), np.nan)
    seen: dict[tuple[int, int], int] = {}
    index, place = {name: k for k, name in enumerate(names)}, {body: k for k, body in enumerate(bodies)}
    for i, (point, track, number) in enumerate(zip(points, tracks, table[:, frame].tolist(), strict=True)):
        at = place[track, number], index[point]
        if seen.setdefault(at, i) != i:
            raise DataError(
                f"{path}: lines {seen[at] + 2} and {i + 2} are both {point!r} in frame {number:g}; tell them apart by a track"
            )
        wide[at] = table[i, list(has.values())]
    return columns, wide.reshape(len(bodies), -1), [track for track, _ in bodies], np.array([number for _, number in bodies])


def _recording(path: Path, source: str, columns: Columns, table: np.ndarray, tracked: bool = False) -> Recording:
    """One body, from the ``(frames, columns)`` of a table; two coordinates of a ``tracked`` one are pixels."""
    if freemocap := {"body_nose", "body_left_hip"} <= columns.keys():
        columns = {name.removeprefix("body_"): has for name, has in columns.items()}
        columns = {FREEMOCAP.get(name, name): has for name, has in columns.items()}
    axes = [axis for axis in AXES if any(axis in joint for joint in columns.values())]
    for joint, has in columns.items():
        if len(axes) < 2 or not set(axes) <= set(has):
            missing = sorted({*axes, "x", "y"} - set(has))
            raise DataError(f"{path}: joint {joint!r} has no column for {', '.join(missing)}; every joint needs all of them")
    if not columns:
        raise DataError(f"{path}: no column is of a joint; call them left_knee_x, left_knee_y, ...")
    positions = np.stack([table[:, [has[axis] for axis in axes]] for has in columns.values()], axis=1).astype(np.float32)
    confidence = _seen(positions)
    if tracked or freemocap or any("confidence" in has for has in columns.values()):
        given = [table[:, has["confidence"]] if "confidence" in has else np.ones(len(table)) for has in columns.values()]
        confidence = np.where(np.isnan(positions).any(-1), np.float32(0), scored(np.stack(given, axis=1), positions))
    if any("_" in name for name in columns) and all(map(str.isupper, columns)):  # MediaPipe's LEFT_HIP
        columns = {name.lower(): has for name, has in columns.items()}
    units = "mm" if freemocap else "px" if tracked and len(axes) == 2 else None
    return Recording(positions, source, joints=tuple(columns), confidence=confidence, units=units)


def _seen(positions: np.ndarray) -> np.ndarray | None:
    """``(frames, joints)`` float32, 0 where a cell is empty and 1 elsewhere; None if there is no empty one."""
    empty = np.isnan(positions).any(-1)
    return np.where(empty, np.float32(0), np.float32(1)) if empty.any() else None


def scored(confidence: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """``(frames, joints)`` float32: a confidence that is missing (NaN) is 1 where there is a position, and else 0."""
    return np.where(np.isnan(confidence), np.isfinite(positions).all(-1), confidence).astype(np.float32)


def _tracks(path: Path, columns: Columns, table: np.ndarray, tracks: Sequence[str], frames: np.ndarray) -> list[Recording]:
    """A recording for each track, from its first to its last frame, of lines in any order."""
    place = _places(path, frames.tolist())
    recordings = []
    for track in dict.fromkeys(tracks):
        own = np.flatnonzero([name == track for name in tracks])
        at = place[own]
        if len(set(at.tolist())) < len(at):
            twice = next(i for i in own.tolist() if (at == place[i]).sum() > 1)
            whose = f"track {track[:40]!r}" if track else "no track"
            raise DataError(
                f"{path}: line {twice + 2}: frame {frames[twice]:g} has several bodies with {whose}, and nothing tells who is "
                "who; track them where they were found, or write a name into the column"
            )
        whole = np.full((at.max() - at.min() + 1, table.shape[1]), np.nan)
        whole[at - at.min()] = table[own]
        source = path.name if len(set(tracks)) == 1 else f"{path.name}, {track or 'without a track'}"
        recordings.append(_recording(path, source, columns, whole, tracked=True))
    return recordings


def _deeplabcut(path: Path, rows: Sequence[Sequence[str]]) -> list[Recording]:
    """The individuals of a table of DeepLabCut. Its first columns, without names, are the frame, or the picture of each line."""
    levels: dict[str, Sequence[str]] = {}
    for row in rows:
        if row[0].strip().lower() not in LEVELS:
            break
        levels[row[0].strip().lower()] = [cell.strip() for cell in row]
    if not {"bodyparts", "coords"} <= levels.keys() or len({len(level) for level in levels.values()}) > 1:
        raise DataError(f"{path}: its first lines are {list(levels)}; DeepLabCut's are {', '.join(LEVELS)}, of one length")
    index = next((i for i, cell in enumerate(levels["coords"][1:], 1) if cell), len(levels["coords"]))
    bodies: dict[str, Columns] = {}
    for i in range(index, len(levels["coords"])):
        axis = levels["coords"][i].lower()
        joint, body = levels["bodyparts"][i], levels["individuals"][i] if "individuals" in levels else ""
        kind = axis if axis in AXES else "confidence" if axis in ("likelihood", "confidence", "score") else None
        if kind is None or bodies.setdefault(body, {}).setdefault(joint, {}).setdefault(kind, i) != i:
            raise DataError(
                f"{path}: column {i + 1}, {body} {joint} {levels['coords'][i]!r}, is there twice or neither x, y, z nor "
                "likelihood"
            )
    names = [" ".join(level[i] for level in levels.values()) for i in range(len(levels["coords"]))]
    body_rows = rows[len(levels) :]
    table = _numbers(path, [[*[""] * index, *row[index:]] for row in body_rows], names, len(levels) + 1)
    pictures = ["/".join(row[:index]) for row in body_rows]
    videos = [picture.rpartition("/")[0] for picture in pictures]
    recordings = []
    for video in dict.fromkeys(videos):
        own = [i for i, name in enumerate(videos) if name == video]
        numbers = [re.findall(r"\d+", pictures[i].rpartition("/")[2].rpartition(".")[0] or pictures[i]) for i in own]
        if not all(numbers):
            raise DataError(f"{path}: {pictures[own[0]][:80]!r} has no number by which frames could be ordered; correct the file")
        at = _places(path, [float(found[-1]) for found in numbers])
        if len(set(at.tolist())) < len(at):
            raise DataError(f"{path}: two lines have the number of one frame; correct the file")
        whole = np.full((at.max() + 1, table.shape[1]), np.nan)
        whole[at] = table[own]
        for body, columns in bodies.items():
            parts = [video.rpartition("/")[2] if len(set(videos)) > 1 else "", body if len(bodies) > 1 else ""]
            source = ", ".join([path.name, *filter(None, parts)])
            recordings.append(_recording(path, source, columns, whole, tracked=True))
    return recordings


def _places(path: Path, numbers: Sequence[float]) -> np.ndarray:
    """``(lines,)`` int64: at which frame from the first each line stands."""
    bad = next((number for number in numbers if not (number >= 0 and number.is_integer() and number < 1e15)), None)
    if bad is not None:
        raise DataError(f"{path}: a frame has the number {bad:g}, expected 0, 1, 2, ...; correct the file")
    place = places(path, sorted({int(number) for number in numbers}))
    return np.array([place[int(number)] for number in numbers])


def _numbers(path: Path, rows: Sequence[Sequence[str]], names: Sequence[str], first: int) -> np.ndarray:
    """``(lines, columns)`` float64, finite or NaN; ``first`` is the number of the first line in its file."""
    for i, row in enumerate(rows, first):
        if len(row) != len(names):
            raise DataError(
                f"{path}: line {i} has {len(row)} columns, the first has {len(names)}; the file is truncated or damaged"
            )
    try:
        table = np.array([["nan" if cell.strip().lower() in EMPTY else cell for cell in row] for row in rows], dtype=np.float64)
    except ValueError as e:
        cells = ((i, j, cell) for i, row in enumerate(rows, first) for j, cell in enumerate(row, 1))
        i, j, cell = next((place for place in cells if not _is_number(place[2])), (first, 1, str(e)))
        if TIME.fullmatch(names[j - 1]):
            remedy = f" of seconds, as 0.05; convert the column, or {OTHERWISE.format(30)}"
        else:
            remedy = "; correct the cell, or empty it, which marks a lost position"
        raise DataError(f"{path}: line {i}, column {j} is {cell[:40]!r}, expected a number{remedy}") from None
    table = table.reshape(len(rows), len(names))
    for i, j in np.argwhere(np.isinf(table))[:1]:
        raise DataError(f"{path}: line {i + first}, {names[j]} is infinite; leave lost positions empty")
    return table


def _is_number(text: str) -> bool:
    try:
        float("nan" if text.strip().lower() in EMPTY else text)
    except ValueError:
        return False
    return True
