"""People of frames: their joints by name or number, and a recording for each, matched from frame to frame."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.clip_set import Recording
from ddpm.errors import DataError


def _joints(joints: str, sides: str = "left right") -> list[str]:
    """Both sides of one joint after the other."""
    return [f"{side}_{joint}" for joint in joints.split() for side in sides.split()]


def _limbs(joints: str, sides: str = "right left") -> list[str]:
    """All joints of one side, then those of the other."""
    return [f"{side}_{joint}" for side in sides.split() for joint in joints.split()]


ARMS, LEGS = "shoulder elbow wrist", "hip knee ankle"
BODY = ("nose", *_joints(f"eye ear {ARMS} {LEGS}"))
HALPE = (*BODY, "head", "neck", "mid_hip", *_joints("big_toe small_toe heel"))
DETAILS = (*(f"face_{k}" for k in range(68)), *(f"{side}_hand_{k}" for side in ("left", "right") for k in range(21)))
FINGERS = "index_finger middle_finger ring_finger pinky"
JOINTS: dict[int, tuple[str, ...]] = {
    17: BODY,
    18: ("nose", "neck", *_limbs(ARMS), *_limbs(LEGS), *_joints("eye ear", "right left")),
    21: (
        *("wrist", "thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip"),
        *(f"{finger}_{joint}" for finger in FINGERS.split() for joint in ("mcp", "pip", "dip", "tip")),
    ),
    25: (
        *("nose", "neck", *_limbs(ARMS), "mid_hip", *_limbs(LEGS), *_joints("eye ear", "right left")),
        *_limbs("big_toe small_toe heel", "left right"),
    ),
    26: HALPE,
    133: (*BODY, *_limbs("big_toe small_toe heel", "left right"), *DETAILS),
    136: (*HALPE, *DETAILS),
    33: (
        *("nose", *_limbs("eye_inner eye eye_outer", "left right"), *_joints("ear"), "mouth_left", "mouth_right"),
        *_joints(f"{ARMS} pinky index thumb {LEGS} heel foot_index"),
    ),
}
"""Names by their number: COCO, OpenPose's COCO model, a hand, OpenPose's BODY_25, Halpe and COCO-WholeBody, with face and hands,
MediaPipe."""
MMPOSE = {
    **{"root": "pelvis", "neck_base": "nose", "left_foot": "left_ankle", "right_foot": "right_ankle"},  # Human3.6M
    **{"Root of tail": "root_of_tail", "Nose": "nose", "Neck": "neck"},  # AP-10K, as what begins with L_ and R_
}
"""Joints of MMPose -> those of the shipped skeletons."""
LONGEST_ABSENCE = 15  # after so many missing frames a new track starts
REACH = 0.5  # largest step between frames, in heights or widths of the body

Body = tuple[np.ndarray, str | None]  # (joints, 3 or 4) x, y, perhaps z, confidence; identity
Frames = dict[int, list[Body]]


def recordings(path: Path, frames: Frames, about: Mapping[str, Any]) -> list[Recording]:
    """One recording per person and unbroken track; an empty one if there are no people."""
    counts = {len(body) for bodies in frames.values() for body, _ in bodies}
    if len(counts) > 1:
        raise DataError(f"{path}: bodies have {sorted(counts)} joints, expected the same number in all frames; correct the file")
    columns = {body.shape[1] for bodies in frames.values() for body, _ in bodies}
    if len(columns) > 1:
        raise DataError(f"{path}: some bodies have 2 coordinates and some 3; correct the file")
    number, spatial = next(iter(counts), 0), columns == {4}
    names = about.get("joint_names", _own_names(about))
    if names is None and (not spatial or number in (21, 33)):  # in space 17 joints may be those of COCO or of Human3.6M
        names = JOINTS.get(number)
    if names is not None and (not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names)):
        raise DataError(f"{path}: joint_names must be a list of names; correct the file")
    fps = about.get("fps")
    if fps is not None and (isinstance(fps, bool) or not isinstance(fps, int | float)):
        raise DataError(f"{path}: fps is {str(fps)[:40]!r}, expected a number; correct the file")
    label, subject = (None if about.get(key) is None else str(about[key])[:200] for key in ("label", "subject"))
    if not (tracks := _tracks(frames)):
        tracks = [dict.fromkeys((0, len(frames) - 1), np.zeros((len(names or "1"), 3)))]
    recordings = []
    for k, track in enumerate(tracks):
        first = min(track)
        rows = np.zeros((max(track) - first + 1, *track[first].shape))
        rows[np.array(list(track)) - first] = list(track.values())
        with np.errstate(over="ignore"):  # what becomes infinite is named later, with its frame and joint
            rows = rows.astype(np.float32)
        source = path.name if len(tracks) == 1 else f"{path.name}, person {k + 1}"
        joints, rate = None if names is None else tuple(names), None if fps is None else float(fps)
        units = "px" if not spatial else "m" if number in (21, 33) else None
        recordings.append(Recording(rows[..., :-1], source, label, subject, joints, rate, rows[..., -1], units))
    return recordings


def _own_names(about: Mapping[str, Any]) -> list[str] | None:
    """Names of the joints as COCO and MMPose write them beside the keypoints."""
    with suppress(AttributeError, KeyError, IndexError, TypeError, ValueError):
        if "categories" in about:
            return about["categories"][0]["keypoints"]
        names = about["meta_info"]["keypoint_id2name"]
        names = [str(names[key]) for key in sorted(names, key=int)]
        if {"root", "Root of tail"} & set(names):
            names = [MMPOSE.get(name, name) for name in names]
            for short, long in {"^L_": "left_", "^R_": "right_", "_F_": "_front_", "_B_": "_back_"}.items():
                names = [re.sub(short, long, name) for name in names]
            names = [name.lower() for name in names]
        return names
    return None


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
        far = np.full((len(alive), len(bodies)), np.inf)
        rows = [a for a, (_, _, identity) in enumerate(alive) if identity is None]
        columns = [b for b, (_, identity) in enumerate(bodies) if identity is None]
        if rows and columns:
            far[np.ix_(rows, columns)] = _distances([alive[a][0][alive[a][1]] for a in rows], [bodies[b][0] for b in columns])
        for a, (_, _, identity) in enumerate(alive):
            if identity is not None:
                far[a, [b for b, (_, other) in enumerate(bodies) if other == identity]] = 0.0
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


@np.errstate(over="ignore")  # of a position of 1e300 the square is infinite, and so is its distance
def _distances(before: Sequence[np.ndarray], now: Sequence[np.ndarray]) -> np.ndarray:
    """``(before, now)``: mean distance of the joints that both show, in parts of the earlier body's extent; inf: unknown."""
    if not before or not now:
        return np.full((len(before), len(now)), np.inf)
    a, b = np.stack(before)[:, None], np.stack(now)[None]
    both = (a[..., -1] > 0) & (b[..., -1] > 0) & np.isfinite(a + b).all(-1)
    apart = np.where(both, np.linalg.norm(a[..., :-1] - b[..., :-1], axis=-1), 0).sum(-1) / np.maximum(both.sum(-1), 1)
    shown = (a[..., -1:] > 0) & np.isfinite(a)
    high = np.where(shown, a, -np.inf)[..., :-1].max(-2)
    low = np.where(shown, a, np.inf)[..., :-1].min(-2)
    size = np.maximum((high - low).max(-1), 1e-9)
    return np.where(both.any(-1), apart / size, np.inf)
