"""Keypoints of people in pictures: JSON of OpenPose, COCO, AlphaPose, MMPose, MediaPipe, one file per clip or one per frame."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.clip_set import Recording
from datamodules.readers.people import Body, Frames, recordings
from datamodules.readers.raw_files import places, read_text
from ddpm.errors import DataError

MARK = ("x", "y", "z", "visibility")
LISTS = ("frames", "annotations", "keypoints", "instance_info")  # names of the list of frames in a file
FRAME = re.compile(r"(.*?)[ ._-]?(\d{1,15})_keypoints\.json", re.IGNORECASE)
"""Name of a file that holds one frame, as OpenPose writes it."""
MAX_PEOPLE = 50


def read(path: Path, coords: int = 2) -> list[Recording]:
    """The people of a file, in the order of their appearance, in pixels; in 3-D without a unit, or in metres from MediaPipe.

    It holds a list of frames, or an object with such a list as ``frames``, ``annotations``, ``keypoints`` or ``instance_info``
    and, if known, ``fps``, ``joint_names``, ``label``, ``subject``, ``width`` and ``height``. A frame is

    - an object with ``people`` (OpenPose) or ``instances`` (MMPose);
    - one with ``keypoints`` and ``image_id`` (COCO, AlphaPose: one person; frames go by the number in image_id);
    - one with landmarks of MediaPipe under any of its names: x and y are fractions of width and height, which are needed, while
      those of the world are metres;
    - or a list ``[[x, y, confidence], ...]``. Confidence is cut to 0..1; where there is none, all was seen.

    People keep their number if the file gives one (``track_id``, ``idx``, ``person_id``), else they are matched to the nearest
    body before.

    Args:
        coords: 2 or 3, which is read where the file has both; three numbers a joint are x, y, z if this is 3 and the third is no
            confidence.

    Raises:
        DataError: it is no JSON, holds no such keypoints, or numbers of people that cannot be read; names the frame.
    """
    document = _load(path)
    about = document if isinstance(document, dict) else {}
    return recordings(path, _frames(path, document, coords), about)


def read_frames(paths: Sequence[Path]) -> list[Recording]:
    """As `read`, of files with one frame each, whose names end with its number and ``_keypoints.json``.

    Raises:
        DataError: see `read`.
    """
    frames: Frames = {}
    for path in paths:
        if (match := FRAME.fullmatch(path.name)) is None:
            raise DataError(f"{path}: expected a name NAME_NUMBER_keypoints.json; rename or remove the file")
        bodies = _frames(path, _load(path), 2)
        if len(bodies) > 1 or int(match[2]) in frames:
            raise DataError(f"{path}: expected one frame, the only one of this number; rename or remove the file")
        frames[int(match[2])] = bodies.get(0, [])
    return recordings(paths[0], frames, {})


def sequences(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Files that make one clip together: those named as frames of it, or one file by itself."""
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in paths:
        match = FRAME.fullmatch(path.name)
        groups.setdefault((path, "") if match is None else (path.parent, match[1]), []).append(path)
    yield from groups.values()


def _load(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as e:
        if isinstance(e, DataError):
            raise
        where = f" (line {e.lineno}, column {e.colno})" if isinstance(e, json.JSONDecodeError) else ""
        raise DataError(f"{path}: no JSON{where}: {str(e)[:60]}; the file is damaged or truncated, replace or remove it") from e


def _frames(path: Path, document: Any, coords: int) -> Frames:
    """Number of the frame -> the bodies in it."""
    about = document if isinstance(document, dict) else {}
    if "people" in about:
        document = [about]
    key = next((key for key in LISTS if key in about), None)
    marks = {key: value for key, value in about.items() if _is_landmarks(key) and isinstance(value, list)}
    if key is not None:
        document = about[key]
    elif marks:
        document = [dict(zip(marks, frame, strict=True)) for frame in zip(*marks.values(), strict=False)]
    if "data_by_frame" in about:
        raise DataError(f"{path}: holds the frames of FreeMoCap; give its by_trajectory.csv, or the tables in output_data")
    if not isinstance(document, list) or not document:
        raise DataError(f"{path}: holds no list of frames ({', '.join(LISTS)} or people); see conf/data/keypoints2d.yaml")
    frames: Frames = {}
    by_image: dict[str, list[Body]] = {}
    for i, entry in enumerate(document):
        if isinstance(entry, dict) and "keypoints" in entry and "image_id" in entry:
            by_image.setdefault(str(entry["image_id"]), []).append(_instance(path, i, entry))
        elif isinstance(entry, dict) and {"keypoints", "bbox"} <= entry.keys():
            raise DataError(f"{path}: entry {i} has no image_id and no frame: the bodies of a single picture are no motion")
        else:
            frames[i] = list(_people(path, i, entry, about, coords))
    if by_image and frames:
        raise DataError(f"{path}: entry {min(frames)} has no image_id and keypoints, the others have; correct the file")
    numbers: list[Any] = [entry.get("frame_id") if isinstance(entry, dict) else None for entry in document]
    if frames and all(isinstance(number, int) and 0 <= number < 1e15 for number in numbers):
        if len(set(numbers)) < len(numbers):
            raise DataError(f"{path}: two frames have one frame_id; correct the file")
        entries = {number: i for i, number in enumerate(numbers)}
        frames = {place: frames[entries[number]] for number, place in places(path, sorted(numbers)).items()}
    frames = _by_number(path, by_image) if by_image else frames
    for i, bodies in frames.items():
        if len(bodies) > MAX_PEOPLE:
            raise DataError(f"{path}: frame {i}: {len(bodies)} people, at most {MAX_PEOPLE} are followed; remove the file")
    return _scored(path, frames, coords)


def _scored(path: Path, frames: Frames, coords: int) -> Frames:
    """Frames whose bodies end with a confidence in 0..1: the third of three numbers, unless it is a coordinate."""
    third = np.concatenate([np.zeros(1), *(body[:, 2] for bodies in frames.values() for body, _ in bodies if body.shape[1] == 3)])
    spatial = coords == 3 and bool(((third < 0) | (third > 2)).any())
    if not spatial and ((third < 0) & (third != -1)).any():
        raise DataError(
            f"{path}: the third number of a keypoint is {third.min():g}, no confidence; if it is z, choose a skeleton with 3 "
            "coordinates"
        )
    for bodies in frames.values():
        for k, (body, identity) in enumerate(bodies):
            body = np.concatenate([body, np.ones((len(body), 1))], axis=1) if spatial and body.shape[1] == 3 else body
            body[:, -1] = np.fmin(np.fmax(body[:, -1], 0), 1)  # nan becomes 0
            bodies[k] = body, identity
    return frames


def _is_landmarks(key: Any) -> bool:
    """Whether a key is one of MediaPipe's for landmarks: pose_landmarks, worldLandmarks, multi_hand_landmarks and so on."""
    return str(key).replace("_", "").lower().endswith("landmarks")


def _people(path: Path, i: int, entry: Any, about: Mapping[str, Any], coords: int) -> Iterator[Body]:
    """The bodies of frame ``i``."""
    if isinstance(entry, list) and entry and all(isinstance(mark, dict) for mark in entry):
        entry = {"instances": entry} if "keypoints" in entry[0] else {"landmarks": entry}
    if isinstance(entry, dict) and "people" in entry:
        for person in entry["people"] if isinstance(entry["people"], list) else [None]:
            values = person.get("pose_keypoints_2d", person.get("pose_keypoints")) if isinstance(person, dict) else None
            if values != []:
                number = person.get("person_id") if isinstance(person, dict) else None
                yield _body(path, i, values), _identity(path, i, number)
    elif isinstance(entry, dict) and "instances" in entry:
        for person in entry["instances"] if isinstance(entry["instances"], list) else [None]:
            yield _instance(path, i, person)
    elif isinstance(entry, dict) and any(map(_is_landmarks, entry)):
        yield from _landmarks(path, i, entry, about, coords)
    elif entry is not None and entry != []:
        yield _instance(path, i, entry if isinstance(entry, dict) else {"keypoints": entry})


def _instance(path: Path, i: int, person: Any) -> Body:
    """A body given by its ``keypoints`` and, perhaps, ``keypoint_scores`` and a number."""
    person = person if isinstance(person, dict) else {}
    number = next((person[key] for key in ("track_id", "idx") if person.get(key) is not None), None)
    values = person.get("keypoints")
    if isinstance(values, dict):  # as YOLO writes them
        rows = [values.get(key) for key in ("x", "y", "visible") if key in values]
        values = list(zip(*rows, strict=False)) if all(isinstance(row, list) for row in rows) else None
    return _body(path, i, values, person.get("keypoint_scores")), _identity(path, i, number)


def _identity(path: Path, i: int, value: Any) -> str | None:
    """The number of a person as text, of one in as many brackets or twice: 7, 7.0, [7.0], [[7.0], [7.0]]; None: -1 or nothing."""
    values = [value]
    for _ in range(3):
        values = [inner for one in values for inner in (one if isinstance(one, list) else [one])]
    values = [int(one) if isinstance(one, float) and one.is_integer() else one for one in values if one is not None]
    if not all(isinstance(one, int | str) and not isinstance(one, bool) and one == values[0] for one in values):
        raise DataError(
            f"{path}: frame {i}: the number of a person is {str(value)[:60]}, expected one number; correct it, or remove all "
            "numbers to have people matched to the nearest body before"
        )
    return str(values[0]) if values and values[0] not in (-1, "") else None


def _landmarks(path: Path, i: int, entry: Mapping[str, Any], about: Mapping[str, Any], coords: int) -> Iterator[Body]:
    """The bodies of a frame of MediaPipe, in 3-D from the landmarks of the world, where they are asked for or the only ones."""
    keys = sorted(filter(_is_landmarks, entry), key=lambda key: ("world" in key.lower()) != (coords == 3))
    spatial, found = "world" in keys[0].lower(), entry[keys[0]]
    first = found[0] if isinstance(found, list) and found else None
    one = isinstance(found, dict) or (isinstance(first, dict) and "x" in first)
    one = one or (isinstance(first, list) and bool(first) and isinstance(first[0], int | float))
    found = [found] if one else found if isinstance(found, list) else []
    size = [about.get("width"), about.get("height")]
    if not spatial and not all(isinstance(pixels, int | float) and 0 < pixels < 1e6 for pixels in size):
        raise DataError(f"{path}: landmarks are fractions of the picture; add its width and height beside frames, in pixels")
    if spatial and len(found) > 1:
        raise DataError(
            f"{path}: frame {i}: {len(found)} bodies with landmarks of the world, each about an origin of its own: nothing tells "
            "who is who; keep one body a frame"
        )
    axes = ("x", "y", "z") if spatial else ("x", "y")
    for marks in found:
        try:
            marks = marks["landmark"] if isinstance(marks, dict) else marks  # as protobuf writes it
            marks = [dict(zip(MARK, mark, strict=False)) if isinstance(mark, list) else mark for mark in marks]
            seen = [1.0 if mark.get("visibility") is None else mark["visibility"] for mark in marks]
            rows = [[*(mark[axis] for axis in axes), own] for mark, own in zip(marks, seen, strict=True)]
        except (TypeError, KeyError, AttributeError) as e:
            raise DataError(f"{path}: frame {i}: a landmark needs {' and '.join(axes)}; correct or remove the file") from e
        yield _body(path, i, rows) * np.array([1, 1, 1, 1] if spatial else [*size, 1.0]), None


def _body(path: Path, i: int, values: Any, scores: Any = None) -> np.ndarray:
    """``(joints, 3 or 4)`` from a flat list of triples, or from a list of two to four numbers a joint, and confidences."""
    body: np.ndarray = np.empty(0)
    with suppress(ValueError, TypeError, OverflowError):
        body = np.array(values, dtype=np.float64)
        if scores is not None:
            body = np.concatenate([body, np.array(scores, dtype=np.float64).reshape(-1, 1)], axis=1)
    if body.ndim == 1 and body.size and body.size % 3 == 0 and scores is None:
        body = body.reshape(-1, 3)
    if body.ndim != 2 or body.shape[1] not in (2, 3, 4) or not body.size:
        raise DataError(f"{path}: frame {i}: expected keypoints x, y, confidence of every joint; correct or remove the file")
    return np.concatenate([body, np.ones((len(body), 1))], axis=1) if body.shape[1] == 2 else body


def _by_number(path: Path, by_image: Mapping[str, list[Body]]) -> Frames:
    """Frames in the order of the last number in their image's name, missing ones left out."""
    numbers: dict[int, str] = {}
    for image in by_image:
        digits = re.findall(r"\d+", image)
        if not digits or len(digits[-1]) > 15 or int(digits[-1]) in numbers:
            raise DataError(
                f"{path}: image_id {image[:40]!r} has no number of its own, by which frames could be ordered; correct the file"
            )
        numbers[int(digits[-1])] = image
    return {place: by_image[numbers[number]] for number, place in places(path, sorted(numbers)).items()}
