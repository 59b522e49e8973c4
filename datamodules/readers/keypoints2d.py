"""Keypoints of people in pictures: JSON of OpenPose, COCO, AlphaPose and MediaPipe, one file per clip or one per frame."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.clip_set import Recording
from datamodules.readers.files import read_text
from ddpm.errors import DataError


def _joints(joints: str, sides: str = "left right") -> list[str]:
    """Both sides of one joint after the other."""
    return [f"{side}_{joint}" for joint in joints.split() for side in sides.split()]


def _limbs(joints: str, sides: str = "right left") -> list[str]:
    """All joints of one side, then those of the other."""
    return [f"{side}_{joint}" for side in sides.split() for joint in joints.split()]


ARMS, LEGS = "shoulder elbow wrist", "hip knee ankle"
JOINTS: dict[int, tuple[str, ...]] = {
    17: ("nose", *_joints(f"eye ear {ARMS} {LEGS}")),
    18: ("nose", "neck", *_limbs(ARMS), *_limbs(LEGS), *_joints("eye ear", "right left")),
    25: (
        *("nose", "neck", *_limbs(ARMS), "mid_hip", *_limbs(LEGS), *_joints("eye ear", "right left")),
        *_limbs("big_toe small_toe heel", "left right"),
    ),
    33: (
        *("nose", *_limbs("eye_inner eye eye_outer", "left right"), *_joints("ear"), "mouth_left", "mouth_right"),
        *_joints(f"{ARMS} pinky index thumb {LEGS} heel foot_index"),
    ),
}
"""Names by their number: COCO, OpenPose's COCO model, OpenPose's BODY_25, MediaPipe."""
FRAME = re.compile(r"(.*?)[ ._-]?(\d{1,15})_keypoints\.json", re.IGNORECASE)
"""Name of a file that holds one frame, as OpenPose writes it."""
MAX_PEOPLE = 50
MAX_STRIDE = 20  # times as many numbers of frames as frames: beyond, they are pictures and no motion
LONGEST_ABSENCE = 15  # frames after which whoever comes back is somebody else
REACH = 0.5  # of the height or width of a body: farther nobody gets from one frame to the next

Body = tuple[np.ndarray, str | None]  # (joints, 3) x, y, confidence; identity
Frames = dict[int, list[Body]]


def read(path: Path) -> list[Recording]:
    """The people of a file, in the order of their appearance, in pixels.

    It holds a list of frames, or an object with such a list as ``frames``, ``annotations`` or ``keypoints`` and, if known,
    ``fps``, ``joint_names``, ``label``, ``subject``, ``width`` and ``height``. A frame is an object with ``people`` (OpenPose),
    with ``keypoints`` and ``image_id`` (COCO, AlphaPose: one person; frames go by the number in image_id), with ``landmarks`` or
    ``pose_landmarks`` (MediaPipe: x and y are fractions of width and height, which are needed), or a list ``[[x, y, confidence],
    ...]``. Confidence is cut to 0..1; where there is none, all was seen.

    People keep their number if the file gives one (``track_id``, ``idx``, ``person_id``), else they are matched to the nearest
    body before.

    Raises:
        DataError: it is no JSON or holds no such keypoints; names the frame.
    """
    document = _load(path)
    about = document if isinstance(document, dict) else {}
    return _recordings(path, _frames(path, document), about)


def read_frames(paths: Sequence[Path]) -> list[Recording]:
    """As `read`, of files with one frame each, whose names end with its number and ``_keypoints.json``.

    Raises:
        DataError: see `read`.
    """
    frames: Frames = {}
    for path in paths:
        match = FRAME.fullmatch(path.name)
        if match is None:
            raise DataError(f"{path}: expected a name NAME_NUMBER_keypoints.json; rename or remove the file")
        bodies = _frames(path, _load(path))
        if len(bodies) > 1 or int(match[2]) in frames:
            raise DataError(f"{path}: expected one frame, the only one of this number; rename or remove the file")
        frames[int(match[2])] = bodies.get(0, [])
    return _recordings(paths[0], frames, {})


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


def _frames(path: Path, document: Any) -> Frames:
    """Number of the frame -> the bodies in it."""
    about = document if isinstance(document, dict) else {}
    if "people" in about:
        document = [about]
    for key in ("frames", "annotations", "keypoints"):
        if key in about:
            document = about[key]
            break
    if not isinstance(document, list) or not document:
        raise DataError(
            f"{path}: holds no list of frames (frames, annotations, keypoints or people); see conf/data/keypoints2d.yaml"
        )
    frames: Frames = {}
    by_image: dict[str, list[Body]] = {}
    for i, entry in enumerate(document):
        if isinstance(entry, dict) and "keypoints" in entry and "image_id" in entry:
            identity = next((str(entry[key]) for key in ("track_id", "idx") if isinstance(entry.get(key), int | str)), None)
            by_image.setdefault(str(entry["image_id"]), []).append((_body(path, i, entry["keypoints"]), identity))
        else:
            frames[i] = list(_people(path, i, entry, about))
    if by_image and frames:
        raise DataError(f"{path}: entry {min(frames)} has no image_id and keypoints, the others have; correct the file")
    frames = _by_number(path, by_image) if by_image else frames
    for i, bodies in frames.items():
        if len(bodies) > MAX_PEOPLE:
            raise DataError(f"{path}: frame {i}: {len(bodies)} people, at most {MAX_PEOPLE} are followed; remove the file")
    return frames


def _people(path: Path, i: int, entry: Any, about: Mapping[str, Any]) -> Iterator[Body]:
    """The bodies of frame ``i``."""
    if isinstance(entry, dict) and "people" in entry:
        for person in entry["people"] if isinstance(entry["people"], list) else [None]:
            values = person.get("pose_keypoints_2d", person.get("pose_keypoints")) if isinstance(person, dict) else None
            if values != []:
                number = person.get("person_id") if isinstance(person, dict) else None
                number = number[0] if isinstance(number, list) and number else number
                yield _body(path, i, values), str(number) if isinstance(number, int) and number >= 0 else None
    elif isinstance(entry, dict) and ("landmarks" in entry or "pose_landmarks" in entry):
        landmarks = entry.get("landmarks", entry.get("pose_landmarks"))
        size = [about.get("width"), about.get("height")]
        if not all(isinstance(pixels, int | float) and 0 < pixels < 1e6 for pixels in size):
            raise DataError(f"{path}: landmarks are fractions of the picture; add its width and height beside frames, in pixels")
        if landmarks:
            try:
                rows = [[mark["x"], mark["y"], mark.get("visibility", 1.0)] for mark in landmarks]
            except (TypeError, KeyError, AttributeError) as e:
                raise DataError(f"{path}: frame {i}: a landmark needs x and y; correct or remove the file") from e
            yield _body(path, i, rows) * np.array([*size, 1.0]), None
    elif entry is not None and entry != []:
        yield _body(path, i, entry.get("keypoints") if isinstance(entry, dict) else entry), None


def _body(path: Path, i: int, values: Any) -> np.ndarray:
    """``(joints, 3)`` x, y and confidence from a flat list of triples, or from a list of pairs or triples."""
    body: np.ndarray = np.empty(0)
    with suppress(ValueError, TypeError, OverflowError):
        body = np.array(values, dtype=np.float64)
    if body.ndim == 1 and body.size and body.size % 3 == 0:
        body = body.reshape(-1, 3)
    if body.ndim != 2 or body.shape[1] not in (2, 3) or not body.size:
        raise DataError(f"{path}: frame {i}: expected keypoints x, y, confidence of every joint; correct or remove the file")
    body = np.concatenate([body, np.ones((len(body), 3 - body.shape[1]))], axis=1)
    body[:, 2] = np.clip(np.nan_to_num(body[:, 2], nan=0.0), 0, 1)
    return body


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
    first, step = min(numbers), math.gcd(*(number - min(numbers) for number in numbers)) or 1
    if (max(numbers) - first) // step >= MAX_STRIDE * len(numbers):
        raise DataError(
            f"{path}: {len(numbers)} images with numbers from {first} to {max(numbers)}: single pictures and no motion; "
            "keep the frames of a video in one file"
        )
    return {(number - first) // step: by_image[numbers[number]] for number in sorted(numbers)}


def _recordings(path: Path, frames: Frames, about: Mapping[str, Any]) -> list[Recording]:
    """One recording per person and unbroken appearance; one of nothing if there is nobody."""
    counts = {len(body) for bodies in frames.values() for body, _ in bodies}
    if len(counts) > 1:
        raise DataError(f"{path}: bodies have {sorted(counts)} joints, expected the same number in all frames; correct the file")
    names = about.get("joint_names", JOINTS.get(next(iter(counts), 0)))
    if names is not None and (not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names)):
        raise DataError(f"{path}: joint_names must be a list of names; correct the file")
    fps = about.get("fps")
    if fps is not None and (isinstance(fps, bool) or not isinstance(fps, int | float)):
        raise DataError(f"{path}: fps is {str(fps)[:40]!r}, expected a number; correct the file")
    label, subject = (None if about.get(key) is None else str(about[key])[:200] for key in ("label", "subject"))
    tracks = _tracks(frames)
    if not tracks:
        tracks = [{0: np.zeros((len(names or "1"), 3)), len(frames) - 1: np.zeros((len(names or "1"), 3))}]
    recordings = []
    for k, track in enumerate(tracks):
        first = min(track)
        rows = np.zeros((max(track) - first + 1, *track[first].shape))
        rows[np.array(list(track)) - first] = list(track.values())
        with np.errstate(over="ignore"):  # what becomes infinite is named later, with its frame and joint
            rows = rows.astype(np.float32)
        source = path.name if len(tracks) == 1 else f"{path.name}, person {k + 1}"
        joints, rate = None if names is None else tuple(names), None if fps is None else float(fps)
        recordings.append(Recording(rows[..., :2], source, label, subject, joints, rate, rows[..., 2], "px"))
    return recordings


def _tracks(frames: Frames) -> list[dict[int, np.ndarray]]:
    """Bodies -> people: frame -> body of each, in the order of their appearance.

    Bodies with a number keep it. The others are matched to people not yet in this frame, nearest pairs first, by `_distances`.
    """
    tracks: list[dict[int, np.ndarray]] = []
    alive: list[tuple[dict[int, np.ndarray], int, str | None]] = []  # person, the last frame with it, identity
    for frame in sorted(frames):
        alive = [person for person in alive if frame - person[1] <= LONGEST_ABSENCE]
        bodies = frames[frame]
        free, taken = set(range(len(bodies))), set[int]()
        far = _distances([track[last] for track, last, _ in alive], [body for body, _ in bodies])
        for a, (_, _, identity) in enumerate(alive):
            for b, (_, other) in enumerate(bodies):
                if identity is not None or other is not None:
                    far[a, b] = 0.0 if identity == other else np.inf
        for index in np.argsort(far, axis=None, kind="stable").tolist():
            a, b = divmod(index, len(bodies))
            if far[a, b] > REACH:
                break
            if b in free and a not in taken:
                track, _, identity = alive[a]
                track[frame] = bodies[b][0]
                alive[a] = track, frame, identity
                free.discard(b)
                taken.add(a)
        for b in sorted(free):
            tracks.append({frame: bodies[b][0]})
            alive.append((tracks[-1], frame, bodies[b][1]))
    return tracks


def _distances(before: Sequence[np.ndarray], now: Sequence[np.ndarray]) -> np.ndarray:
    """``(before, now)``: mean distance of the joints that both show, in parts of the earlier body's extent; inf: unknown."""
    if not before or not now:
        return np.full((len(before), len(now)), np.inf)
    a, b = np.stack(before)[:, None], np.stack(now)[None]
    both = (a[..., 2] > 0) & (b[..., 2] > 0) & np.isfinite(a + b).all(-1)
    apart = np.where(both, np.hypot(a[..., 0] - b[..., 0], a[..., 1] - b[..., 1]), 0).sum(-1) / np.maximum(both.sum(-1), 1)
    shown = (a[..., 2:] > 0) & np.isfinite(a)
    high = np.where(shown, a, -np.inf)[..., :2].max(-2)
    low = np.where(shown, a, np.inf)[..., :2].min(-2)
    size = np.maximum((high - low).max(-1), 1e-9)
    return np.where(both.any(-1), apart / size, np.inf)
