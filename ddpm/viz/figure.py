"""The skeleton as a figure: every joint with its name and number, the sides in their colours."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddpm.files import write_durably
from ddpm.skeleton import Skeleton
from ddpm.viz.body import SIDE_COLOURS
from ddpm.viz.camera import canonical, facing
from ddpm.viz.plots import picture_bytes

GAP = 0.034  # of the figure's height, between two lines of text
LONGEST = 48  # characters of a name, beyond which it is cut


def draw_skeleton(path: str | Path, skeleton: Skeleton, poses: np.ndarray) -> None:
    """Draw the clearest of ``(poses, joints, coords)`` from the front with the names and numbers of its joints.

    Raises:
        ValueError: no finite pose, or a path that does not end in .png, .pdf or .svg.
    """
    from matplotlib.figure import Figure  # takes half a second

    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "pdf", "svg"):
        raise ValueError(f"{path}: a figure is a .png, .pdf or .svg")
    poses = poses[np.isfinite(poses).all((1, 2))]
    if poses.ndim != 3 or poses.shape[1:] != (len(skeleton.names), skeleton.coords) or not len(poses):
        raise ValueError(f"poses have shape {poses.shape}, expected (poses, {len(skeleton.names)}, {skeleton.coords}), finite")
    flat = _clearest(_from_the_front(poses, skeleton), skeleton)

    figure = Figure(figsize=(6.4, max(4.2, 0.13 * len(skeleton.names) + 2.2)), dpi=200)
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in skeleton.names]
    labels = [figure.text(0, 0, f"{k}  {name}", fontsize=8, parse_math=False) for k, name in enumerate(names)]
    room = max(label.get_window_extent().width for label in labels) / figure.dpi + 0.06
    for label in labels:
        label.remove()
    # In inches: a name begins 1.92 beside the middle, and takes 1.28 or what the longest needs; the body is between them.
    figure.set_figwidth(2 * (1.92 + max(1.28, room)))
    axes = figure.add_axes((0.0, 0.07, 1.0, 0.9))
    axes.set_axis_off()
    low, high = flat.min(0), flat.max(0)
    middle = (low + high) / 2
    tall = 0.9 * figure.get_figheight()
    height = max(float(high[1] - low[1]) / 0.94, float(high[0] - low[0]) / (2.69 / tall), 1e-6)
    inch = height / tall
    width = inch * figure.get_figwidth()
    axes.set_xlim(middle[0] - width / 2, middle[0] + width / 2)
    axes.set_ylim(middle[1] - height / 2, middle[1] + height / 2)
    colours = [_rgb(skeleton.side(joint)) for joint in range(len(skeleton.names))]
    for child, parent in skeleton.bones:
        axes.plot(*flat[[child, parent]].T, color=colours[child], linewidth=3.2, solid_capstyle="round", zorder=2)
    axes.scatter(*flat.T, s=26, c=colours, edgecolors="white", linewidths=0.9, zorder=3)
    axes.scatter(*flat[skeleton.root], s=95, facecolors="none", edgecolors=colours[skeleton.root], linewidths=1.2, zorder=3)
    if feet := [skeleton.index(name) for name in skeleton.feet]:
        reach = middle[0] + 1.34 * inch * np.array([-1, 1])
        axes.plot(reach, [flat[feet, 1].min()] * 2, color="0.85", linewidth=1.0, zorder=0)

    for side, joints in _columns(flat, skeleton).items():
        heights = _spread(flat[joints, 1], GAP * height)
        edge = middle[0] + side * 1.92 * inch
        for joint, y in zip(joints, heights.tolist(), strict=True):
            start, bend = edge - side * 0.08 * inch, edge - side * 0.38 * inch
            axes.plot([start, bend, flat[joint, 0]], [y, y, flat[joint, 1]], color="0.72", linewidth=0.6, zorder=1)
            align = "left" if side > 0 else "right"
            text = f"{joint}  {names[joint]}" if side > 0 else f"{names[joint]}  {joint}"
            axes.text(edge, y, text, color=colours[joint], fontsize=8, ha=align, va="center", parse_math=False)
    marks = [("left", "left"), ("right", "right"), ("centre", "neither")] if skeleton.left_right else []
    for k, (side, word) in enumerate(marks):
        figure.text(0.36 + 0.14 * k, 0.03, f"● {word}", color=_rgb(side), fontsize=8, ha="center")
    write_durably(path, picture_bytes(figure, kind))


def _rgb(side: str) -> tuple[float, float, float]:
    red, green, blue = SIDE_COLOURS[side]
    return red / 255, green / 255, blue / 255


def _from_the_front(poses: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """``(poses, joints, 2)``, to the right and up, each pose seen from its front."""
    points = canonical(poses[:, None], skeleton)
    if skeleton.coords == 2:
        return points[:, 0, :, :2]
    turn = facing(points, skeleton)[:, None]
    points = points[:, 0]
    return np.stack([np.cos(turn) * points[..., 0] - np.sin(turn) * points[..., 2], points[..., 1]], axis=-1)


def _clearest(flat: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """The pose ``(joints, 2)`` that stands, has no crossed sides, and has every joint far from its nearest neighbour."""
    apart = np.linalg.norm(flat[:, :, None] - flat[:, None], axis=-1)
    apart[:, np.arange(flat.shape[1]), np.arange(flat.shape[1])] = np.inf
    size = np.median(np.ptp(flat, axis=1).max(-1)) + 1e-9
    feet = [skeleton.index(name) for name in skeleton.feet]
    # Prefer both feet on the ground and the rest above them to a leg or a trunk across the picture.
    stature = flat[..., 1].mean(1) - flat[:, feet, 1].max(1) if feet else np.ptp(flat[..., 1], axis=1)
    score = np.log(apart.min(-1) / size + 1e-3).mean(1) + 8 * stature / size
    for left, right in skeleton.left_right:
        score -= 0.3 * (flat[:, skeleton.index(left), 0] < flat[:, skeleton.index(right), 0] + 0.03 * size)
    return flat[int(score.argmax())]


def _columns(flat: np.ndarray, skeleton: Skeleton) -> dict[int, list[int]]:
    """Right or left of the figure, 1 or -1, -> joints named there, lowest first; central joints fill up the shorter side."""
    columns: dict[int, list[int]] = {1: [], -1: []}
    middle = float(np.median(flat[:, 0]))
    for joint in sorted(range(len(flat)), key=lambda j: (skeleton.side(j) == "centre", -flat[j, 1])):
        shorter = min(columns, key=lambda side: len(columns[side]))
        side = 1 if flat[joint, 0] > middle else -1
        columns[shorter if skeleton.side(joint) == "centre" else side].append(joint)
    return {side: sorted(joints, key=lambda j: float(flat[j, 1])) for side, joints in columns.items()}


def _spread(heights: Sequence[float] | np.ndarray, gap: float) -> np.ndarray:
    """Ascending heights, moved as little as possible (least squares) so that neighbours are ``gap`` apart."""
    pools: list[tuple[float, int]] = []  # mean of the shifted heights, number
    for k, height in enumerate(heights):
        mean, number = float(height) - k * gap, 1
        while pools and pools[-1][0] >= mean:
            before, count = pools.pop()
            mean, number = (before * count + mean * number) / (count + number), count + number
        pools.append((mean, number))
    return np.repeat([mean for mean, _ in pools], [number for _, number in pools]) + gap * np.arange(len(heights))
