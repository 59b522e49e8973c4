"""Cameras: where the joints and shadows of clips lie in their cells of a picture."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ddpm.skeleton import Skeleton

TURN, ELEVATION = np.radians(-26.0), np.radians(14.0)  # the camera stands in front, to the body's right, a bit above
MARGIN = 0.08  # of the cell, kept free on each side
TRAVELS = 1.6  # the camera follows a root that takes a body over more than this many times the span that it has on the spot
ZOOM_OUT = 1.6  # a clip that spans more than this many times the typical span gets a scale of its own
FOLLOW = 4  # frames, deviation of the Gaussian that smooths the way of a camera that follows
DRAWABLE = 1e9  # metres; what lies beyond is treated as not finite, so that spans and squares cannot overflow


@dataclass(frozen=True)
class View:
    """Where everything lies in its cell, in pixels of the finished picture, y downwards. NaN: cannot be drawn."""

    points: np.ndarray  # (n, frames, joints, 3) metres, right-handed, axis 1 upwards
    joints: np.ndarray  # (n, frames, joints, 2) pixels
    shadows: np.ndarray  # (n, frames, joints, 2) pixels of the points on the floor straight below
    depth: np.ndarray  # (n, frames, joints) metres, grows towards the camera
    ground: np.ndarray  # (n,) metres, height of the floor
    basis: np.ndarray  # (n, 3, 3) rows: the camera's right, its up, and the direction from the body to it
    scale: np.ndarray  # (n,) pixels per metre
    zoom: np.ndarray  # (n,) 1, or how many times smaller than the others a clip is drawn
    offset: np.ndarray  # (n, 2) pixels at which the origin lies
    way: np.ndarray  # (n, frames, 2) pixels by which the camera has moved, to be subtracted; 0 where it stands still


def canonical(clips: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """``(..., coords)`` -> ``(..., 3)``: right-handed, axis 1 upwards; all NaN where any coordinate is not drawable."""
    up, sign = skeleton.up_axis, skeleton.up_sign
    points = np.where((np.abs(clips) < DRAWABLE).all(-1, keepdims=True), clips, np.nan).astype(np.float64)
    if skeleton.coords == 2:
        return np.stack([points[..., 1 - up], sign * points[..., up], 0.0 * points[..., 0]], axis=-1)
    # Axes in cyclic order, two or none of them flipped: the handedness stays.
    return np.stack([points[..., up - 1], sign * points[..., up], sign * points[..., (up + 1) % 3]], axis=-1)


def all_drawable(clips: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """`canonical` of ``(frames, joints, coords)``; a ValueError for what is not drawable, with its frame and joint."""
    points = canonical(clips, skeleton)
    for frame, joint, _ in np.argwhere(np.isnan(points))[:1]:
        raise ValueError(f"frame {frame}, joint {skeleton.names[joint]}: {clips[frame, joint]} is not a position")
    return points


def _mean(values: np.ndarray) -> np.ndarray:
    """``(n, frames, joints, 3)`` -> ``(n, 3)``: mean over the finite frames and joints, 0 where there are none."""
    return np.nansum(values, axis=(1, 2)) / np.maximum(np.isfinite(values).sum(axis=(1, 2)), 1)


def facing(points: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """``(n,)`` radians about the up axis: the mean direction that each body faces, 0 where it is unknown.

    From the pairs of left and right joints; without pairs from the toes, if the last joint of a foot lies ahead of its parent
    rather than below it. Toes come second because depth cameras often turn a foot the wrong way.
    """
    toes = [j for j in map(skeleton.index, skeleton.feet) if j not in skeleton.parents and j != skeleton.root]
    toe = _mean(points[:, :, toes] - points[:, :, [skeleton.parents[j] for j in toes]])
    left, right = ([skeleton.index(pair[k]) for pair in skeleton.left_right] for k in (0, 1))
    across = _mean(points[:, :, left] - points[:, :, right])  # to the body's left; its cross product with up is ahead
    ahead = np.stack([-across[:, 2], across[:, 0]], axis=-1)
    by_toes = (np.hypot(toe[:, 0], toe[:, 2]) > np.abs(toe[:, 1])) & (np.hypot(*ahead.T) < 1e-6)
    ahead = np.where(by_toes[:, None], toe[:, ::2], ahead)
    return np.arctan2(ahead[:, 0], ahead[:, 1])


def floors(points: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """``(n,)`` metres: the 1st percentile of the heights of each clip's feet, 0 where they are unknown.

    Robust to a few frames of lost tracking, and right for data measured from the pelvis or the camera, where height 0 is in
    mid-air.
    """
    feet = [skeleton.index(name) for name in skeleton.feet] or list(range(len(skeleton.names)))
    heights = points[:, :, feet, 1].reshape(len(points), -1)
    return np.array([np.percentile(h[np.isfinite(h)], 1) if np.isfinite(h).any() else 0.0 for h in heights])


def project(clips: np.ndarray, skeleton: Skeleton, size: int) -> View:
    """Project clips ``(n, frames, joints, coords)`` with one orthographic camera each, which sees all motion and shadow.

    It stands still, or goes beside a body that travels. All cells have one scale, so that bodies can be compared, except those of
    clips far larger than the typical one (the lower median).
    """
    points = canonical(clips, skeleton)
    n = len(points)
    ground = floors(points, skeleton)
    solid = skeleton.coords == 3
    turn = front(points, skeleton) + TURN if solid else np.zeros(n)
    rise = np.full(n, ELEVATION if solid else 0.0)
    s, c, se, ce = np.sin(turn), np.cos(turn), np.sin(rise), np.cos(rise)
    basis = np.moveaxis(np.array([[c, 0 * s, -s], [-se * s, ce, -se * c], [ce * s, se, ce * c]]), -1, 0)

    below = points.copy()
    below[..., 1] = ground[:, None, None] + 0.0 * points[..., 1]
    seen, shade = (np.einsum("nfjk,nck->nfjc", p, basis) for p in (points, below))
    flat = np.concatenate([seen, shade], axis=2)[..., :2] * (1, -1)

    def edges(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flat = flat.reshape(n, -1, 2)
        flat = np.where(np.isfinite(flat).any(axis=1, keepdims=True), flat, 0.0)  # nothing to show: an empty cell
        return np.nanmin(flat, axis=1), np.nanmax(flat, axis=1)

    path = np.einsum("nfk,nck->nfc", np.stack([_path(clip) for clip in points[:, :, skeleton.root]]), basis)[..., :2] * (1, -1)
    (low, high), near = edges(flat), edges(flat - path[:, :, None])
    travels = (high - low).max(-1) > TRAVELS * (near[1] - near[0]).max(-1)
    path = np.where(travels[:, None, None], path, 0.0)
    low, high = (np.where(travels[:, None], moved, still) for moved, still in zip(near, (low, high), strict=True))
    span = (high - low).max(axis=-1)
    bodies = np.sort(span[span > 0])
    typical = bodies[(len(bodies) - 1) // 2] if len(bodies) else 1.0
    common = span[span <= ZOOM_OUT * typical].max(initial=typical)
    zoom = np.maximum(span / common, 1.0)
    scale = size * (1 - 2 * MARGIN) / (common * zoom)
    x = size / 2 - (low + high)[:, 0] / 2 * scale
    offset = np.stack([x, size * (1 - 1.25 * MARGIN) - high[:, 1] * scale], axis=-1)  # all stand at the bottom of their cells

    joints, shadows = (p[..., :2] * (1, -1) * scale[:, None, None, None] + offset[:, None, None] for p in (seen, shade))
    return View(points, joints, shadows, seen[..., 2], ground, basis, scale, zoom, offset, path * scale[:, None, None])


def front(points: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """``(n,)`` radians about the up axis: the direction from which each clip is seen, before `TURN`.

    People are seen from the front, hands and animals from their broadest side, the plane of their greatest spread.
    """
    legs = len({*skeleton.feet} - {skeleton.names[parent] for parent in skeleton.parents if parent >= 0})
    if legs <= 2 and (skeleton.left_right or skeleton.feet):
        return facing(points, skeleton)
    flat = np.nan_to_num(points - points[:, :, [skeleton.root]])[..., ::2].reshape(len(points), -1, 2)
    axis = np.linalg.eigh(np.einsum("nij,nik->njk", flat, flat))[1][..., -1]
    axis *= np.where(axis[:, :1] < 0, -1, 1)
    return np.arctan2(-axis[:, 1], axis[:, 0]) - TURN


def _path(root: np.ndarray) -> np.ndarray:
    """``(frames, 3)`` the way of a root over the ground, smooth, and known in every frame if in any."""
    known = np.all(np.isfinite(root), -1).nonzero()[0]
    if len(known) == 0:
        return np.zeros_like(root)
    path = np.stack([np.interp(np.arange(len(root)), known, root[known, axis]) for axis in range(3)], axis=-1)
    return gaussian_filter1d(path * (1, 0, 1), FOLLOW, axis=0, mode="nearest")
