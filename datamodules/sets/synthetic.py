"""A synthetic motion set: labelled actions of Kinect-like people, computed from a seed."""

from types import SimpleNamespace

import numpy as np

from datamodules.clip_set import ClipSet, Recording
from datamodules.sets.synthetic_actions import ACTIONS
from datamodules.sets.synthetic_body import DRAWS, PERSONS, Motion, people, pose
from ddpm.memory import refuse_beyond_memory
from ddpm.skeleton import Skeleton


def synthetic(skeleton: Skeleton, n: int = 895, fps: float = 20.0, seed: int = 0) -> ClipSet:
    """``n`` labelled recordings of 2.5 to 5 seconds, floor at y = 0; balanced classes, and every subject performs every action.

    Recording k depends on (seed, k, fps) alone, not on n.

    Raises:
        ConfigError: more than memory holds.
        ValueError: a value below its least, or a skeleton that is not 3-D, y-up, with some joints of ``kinect20``, in any order.
    """
    if n < 1 or not 0 < fps < np.inf or seed < 0:
        raise ValueError(f"synthetic: n must be at least 1, fps positive and seed at least 0, got n={n}, fps={fps}, seed={seed}")
    refuse_beyond_memory(f"data.n={n} at data.fps={fps}", n * (500 + 4 * fps * 700), "make fewer")
    if skeleton.coords != 3 or skeleton.up != "y":
        raise ValueError(f"synthetic: needs a 3-D skeleton with up=y, got coords={skeleton.coords}, up={skeleton.up!r}")
    everyone = people(np.random.default_rng([seed, 0]))
    uniform = np.random.default_rng([seed, 1]).random((n, DRAWS + 6))  # row k does not depend on n
    person = np.arange(n) // len(ACTIONS) % PERSONS
    frames = np.maximum(np.rint(fps * (2.5 + 2.5 * uniform[:, 0])), 1).astype(int)
    recordings: dict[int, Recording] = {}
    for a, (action, play) in enumerate(ACTIONS.items()):
        rows = np.arange(a, n, len(ACTIONS))
        if len(rows) == 0:
            break
        row = np.repeat(np.arange(len(rows)), frames[rows])
        ends = np.cumsum(frames[rows])
        t = (np.arange(ends[-1]) - (ends - frames[rows])[row]) / fps
        body = SimpleNamespace(**{name: value[person[rows][row]] for name, value in vars(everyone).items()})
        motion = Motion(t, row, uniform[rows, 6:], body)
        play(motion)
        joints = pose(motion)
        if spare := sorted(set(skeleton.names) - set(joints)):
            raise ValueError(f"synthetic: makes the 20 Kinect joints, the skeleton has {spare} besides; use skeleton=kinect20")
        positions = _place(joints, skeleton.names, uniform[rows, 1:5][row])
        for k, clip in zip(rows.tolist(), np.split(positions, ends[:-1]), strict=True):
            recordings[k] = Recording(clip, f"synthetic/{action}_{k:04d}", action, f"p{person[k]:02d}")
    return ClipSet.from_recordings([recordings[k] for k in range(n)], fps=fps, skeleton=skeleton)


def _place(joints: dict[str, np.ndarray], names: tuple[str, ...], uniform: np.ndarray) -> np.ndarray:
    """``(N, joints, 3)`` float32, mirrored, turned and moved by the ``(N, 4)`` random numbers of each frame's recording."""
    other = {"left": "right", "right": "left"}
    mirrored = ["_".join(other.get(word, word) for word in name.split("_")) for name in names]
    own, opposite = (np.stack([joints[name] for name in order], 1) for order in (names, mirrored))
    x, y, z = np.moveaxis(np.where(uniform[:, :1, None] < 0.4, opposite * [-1, 1, 1], own), -1, 0)
    sin, cos = np.sin(2 * np.pi * uniform[:, 1:2]), np.cos(2 * np.pi * uniform[:, 1:2])
    moved_x = cos * x + sin * z + 3 * uniform[:, 2:3] - 1.5
    moved_z = cos * z - sin * x + 3 * uniform[:, 3:] - 1.5
    return np.stack([moved_x, y, moved_z], -1).astype(np.float32)
