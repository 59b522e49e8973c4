"""Motion at another frame rate."""

from collections.abc import Sequence

import numpy as np


def resample(positions: np.ndarray, fps: float, target: float) -> np.ndarray:
    """``(frames, joints, coords)`` at ``fps`` frames per second -> the same motion at ``target``, from the same first frame.

    A whole multiple is decimated, everything else is interpolated by the cubic through a frame's neighbours (Catmull and Rom,
    1974), which keeps velocities continuous.
    """
    ratio, n = fps / target, len(positions)
    if n < 2 or abs(ratio - 1) < 1e-6:
        return positions
    times = np.arange(int((n - 1) / ratio + 1e-6) + 1) * ratio
    if abs(ratio - round(ratio)) < 1e-6:
        return positions[np.rint(times).astype(int)]
    i = np.minimum(times.astype(int), n - 2)
    u = (times - i)[:, None, None]
    ends = 2 * positions[:1] - positions[1:2], 2 * positions[-1:] - positions[-2:-1]
    p = np.concatenate([ends[0], positions, ends[1]]).astype(np.float64)
    a, b, c, d = (p[i + k] for k in range(4))
    cubic = b + 0.5 * u * (c - a + u * (2 * a - 5 * b + 4 * c - d + u * (3 * (b - c) + d - a)))
    return cubic.astype(positions.dtype)


def resample_turn(positions: np.ndarray, ratio: float, root: int, travel: Sequence[int]) -> np.ndarray:
    """One turn of a cycle ``(frames, joints, coords)``, whose last frame leads to the first, with ``ratio`` times fewer frames.

    The next turn goes on where this one ends along the coordinates ``travel`` of the root; a turn stays a whole number of frames.
    """
    frames = max(round(len(positions) / ratio), 1)
    following = positions[:2].copy()
    way = positions[:, root, list(travel)]
    following[..., list(travel)] += way[-1] + (way[-1] - way[-2] + way[1] - way[0]) / 2 - way[0]
    return resample(np.concatenate([positions, following]), len(positions) / frames, 1.0)[:frames]
