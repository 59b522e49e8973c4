"""One clip as a moving stick figure: its colours, its floor and its bones."""

import re
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from ddpm.skeleton import Skeleton
from ddpm.viz.camera import View

# Blue and vermilion stay apart for every common kind of colour blindness; the spine is neutral.
SIDE_COLOURS = {"left": (0, 114, 178), "right": (213, 94, 0), "centre": (64, 68, 75)}
PAPER, FLOOR, FLOOR_LINE = (252, 252, 252), (240, 240, 240), (228, 228, 228)
PART_COLOURS = ((64, 68, 75), (213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (230, 159, 0))
MADE_CENTRE = (0, 158, 115)  # of the spine, beside what was given
GIVEN, GHOST = (128, 130, 134), (214, 215, 217)
SHADOW, TRAIL, INK, WARNING, BAR = (208, 208, 208), (150, 160, 172), (70, 74, 80), (176, 24, 56), (176, 182, 188)

OVERSAMPLE = 3  # cells are drawn this many times larger and averaged down: that is the antialiasing


def _floor(view: View, i: int, size: int, t: int = 0) -> Image.Image:
    """The empty cell of clip ``i`` at frame t, oversampled: paper and a squared floor under everything that moves."""
    image = Image.new("RGB", (size * OVERSAMPLE, size * OVERSAMPLE), PAPER)
    on_floor = view.points[i][np.isfinite(view.points[i]).all(-1)][:, ::2]
    if not len(on_floor):
        return image
    draw = ImageDraw.Draw(image)
    low, high = on_floor.min(0), on_floor.max(0)
    reach = max(min(float((high - low).max()), size / view.scale[i]), size / view.scale[i] / 4)
    power = 10.0 ** np.floor(np.log10(reach / 8))
    step = power * next(k for k in (1, 2, 5, 10) if k * power >= reach / 8)  # squares of 0.2 m under one person
    low, high = np.floor(low / step - 0.1) * step, np.ceil(high / step + 0.1) * step

    def place(a: float, b: float) -> tuple[float, float]:
        x, y = view.basis[i, :2] @ (a, view.ground[i], b) * (1, -1) * view.scale[i] + view.offset[i] - view.way[i, t]
        return float(x) * OVERSAMPLE, float(y) * OVERSAMPLE

    (a0, b0), (a1, b1) = low, high
    if view.basis[i, 2, 1] == 0:  # a camera that is not raised, as in 2-D, sees the floor as a line
        draw.line([(0, place(a0, b0)[1]), (size * OVERSAMPLE, place(a0, b0)[1])], FLOOR_LINE, 2 * OVERSAMPLE)
        return image
    draw.polygon([place(a0, b0), place(a1, b0), place(a1, b1), place(a0, b1)], FLOOR)
    for a in np.arange(a0, a1 + step / 2, step):
        draw.line([place(a, b0), place(a, b1)], FLOOR_LINE, OVERSAMPLE)
    for b in np.arange(b0, b1 + step / 2, step):
        draw.line([place(a0, b), place(a1, b)], FLOOR_LINE, OVERSAMPLE)
    return image


def _head(skeleton: Skeleton) -> tuple[int | None, int | None]:
    """The joint whose name ends in the word head, also of ``mixamorig:Head``; and where it ends in one other, that one."""
    if not (heads := [j for j, name in enumerate(skeleton.names) if re.split("[^a-z]+", name.lower())[-1] == "head"]):
        return None, None
    beyond = [child for child, parent in skeleton.bones if parent == heads[0]]
    return heads[0], beyond[0] if len(beyond) == 1 else None


def _lines(skeleton: Skeleton) -> list[tuple[int, int]]:
    """The bones; and from side to side of a trunk that has no joint in the middle, as in COCO, shoulders and hips."""
    across = []
    for left, right in ([skeleton.index(name) for name in pair] for pair in skeleton.left_right if "hip" in pair[0]):
        above = skeleton.parents[left], skeleton.parents[right]
        across += [(left, right), above] if above[0] != above[1] else []
    return [*skeleton.bones, *across]


def _bone_colours(skeleton: Skeleton, sides: Mapping[str, tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Of `_lines`: by side, or by part where there are no sides."""
    if skeleton.left_right or not skeleton.parts:
        own = [sides[skeleton.side(child)] for child, _ in skeleton.bones]
    else:
        parts = {name: PART_COLOURS[k % len(PART_COLOURS)] for k, part in enumerate(skeleton.parts.values()) for name in part}
        own = [parts.get(skeleton.names[child], sides["centre"]) for child, _ in skeleton.bones]
    return own + [sides["centre"]] * (len(_lines(skeleton)) - len(own))


def figure_frames(view: View, i: int, skeleton: Skeleton, size: int, length: int, given: np.ndarray) -> np.ndarray:
    """``(length, size, size, 3)`` uint8: the moving picture of clip ``i``, of which coordinates may be ``given``."""
    bones = np.array(_lines(skeleton), dtype=np.int64).reshape(-1, 2)
    held, on_path = np.all(given, -1), np.all(given[:, skeleton.root][:, list(skeleton.ground_axes)], -1)
    whole = np.all(held, 1).nonzero()[0]
    palette = {**SIDE_COLOURS, "centre": MADE_CENTRE} if given.any() else SIDE_COLOURS
    colours = _bone_colours(skeleton, palette)
    lengths = np.linalg.norm(view.points[i][:, bones[:, 0]] - view.points[i][:, bones[:, 1]], axis=-1)
    lengths = lengths[lengths > 1e-6]  # neither NaN nor the zeros of a body that a camera has lost
    # Limbs are as thick as a quarter of the bones' length, within what can be seen and does not smear.
    thick = np.clip(0.26 * np.median(lengths) * view.scale[i] if len(lengths) else 0, 0.007 * size, 0.026 * size)
    limb, halo = (max(1, round(w * OVERSAMPLE)) for w in (thick, thick + 0.014 * size))
    cap = limb / 2 - 0.5
    head, crown = _head(skeleton)
    head_radius = 1.9 * thick * OVERSAMPLE

    joints, shadows = view.joints[i] * OVERSAMPLE, view.shadows[i] * OVERSAMPLE
    drawable = np.all(np.isfinite(joints), -1)
    start, end = joints[:, bones[:, 0]], joints[:, bones[:, 1]]
    cut = np.minimum(1.2 * limb / np.maximum(np.linalg.norm(end - start, axis=-1, keepdims=True), 1e-9), 0.5)
    rims = np.concatenate([start + cut * (end - start), end + cut * (start - end)], axis=-1)
    order = np.argsort(np.nan_to_num(view.depth[i][:, bones].mean(-1)), axis=1, kind="stable")  # far ones first
    known = drawable[:, skeleton.root]
    way = view.way[i] * OVERSAMPLE
    empty = None if way.any() else _floor(view, i, size)
    out = np.empty((length, size, size, 3), dtype=np.uint8)

    def draw_body(draw: ImageDraw.ImageDraw, t: int, moved: np.ndarray, ghost: bool) -> None:
        dots, ok = (joints[t] - moved).tolist(), drawable[t].tolist()
        edges = (rims[t] - np.tile(moved, 2)).tolist()
        for b in order[t].tolist():
            child, parent = bones[b]
            if not (ok[child] and ok[parent]):
                continue
            ends = [GHOST if ghost else GIVEN if held[t, joint] else colours[b] for joint in (child, parent)]
            if not ghost:
                draw.line(edges[b], PAPER, halo)  # parts a limb from what lies behind it, not from its joints
            if child == (head if crown is None else crown):
                centre = dots[child] if crown is None else np.add(dots[child], dots[parent]) / 2
                if not ghost:
                    draw.circle(centre, head_radius + (halo - limb) / 2, PAPER)
                draw.circle(centre, head_radius, ends[0])
            draw.line([*dots[child], *dots[parent]], ends[0] if ends[0] == ends[1] else colours[b], limb)
            draw.circle(dots[child], cap, ends[0])
            draw.circle(dots[parent], cap, ends[1])

    for t in range(length):
        image = _floor(view, i, size, t) if empty is None else empty.copy()
        draw = ImageDraw.Draw(image)
        if skeleton.coords == 3:
            shades, ok = (shadows[t] - way[t]).tolist(), drawable[t].tolist()
            spots = shadows[:length, skeleton.root] - way[t]
            for child, parent in bones[order[t]]:
                if ok[child] and ok[parent]:
                    draw.line([*shades[child], *shades[parent]], SHADOW, limb)
                    draw.circle(shades[child], cap, SHADOW)
            for f in (on_path[1:] & on_path[:-1] & known[1:length] & known[: length - 1]).nonzero()[0]:
                draw.line(spots[f : f + 2].flatten().tolist(), GIVEN, 2 * OVERSAMPLE)
            trail = spots[: t + 1][known[: t + 1]]
            if len(trail) > 1:
                draw.line(trail.flatten().tolist(), TRAIL, OVERSAMPLE)
        for f in {*whole[whole < t][-1:], *whole[whole > t][:1]} if t not in whole else ():
            draw_body(draw, f, way[t], ghost=True)
        draw_body(draw, t, way[t], ghost=False)
        out[t] = np.asarray(image.reduce(OVERSAMPLE))
    return out
