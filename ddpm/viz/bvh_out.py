"""Clips as BVH files, for Blender and the like: positions become a rest pose and rotations."""

import re
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ddpm.clips import Clips
from ddpm.errors import printable
from ddpm.files import write_durably
from ddpm.skeleton import Skeleton
from ddpm.viz.camera import all_drawable

TWIST = 1e-5  # weight of the identity against the bones: it decides only the rotations that these leave open
RIGID = 1e-3  # metres by which the child bones of a joint may move against each other and still share its rotation
POINT = 1e-3  # metres: a shorter bone is no End Site


@dataclass(frozen=True)
class RoundTrip:
    """Distance of the file's joints from the positions it was made of, in millimetres, by joint."""

    mean: dict[str, float]
    worst: dict[str, float]

    @staticmethod
    def lines(trips: Collection["RoundTrip"]) -> Iterator[str]:
        """Of several files together, a line a joint."""
        for joint in next(iter(trips)).mean:
            mean, worst = sum(trip.mean[joint] for trip in trips) / len(trips), max(trip.worst[joint] for trip in trips)
            yield f"{printable(joint):<20} {mean:7.2f} mm off on average, {worst:7.2f} mm at most"


@dataclass(frozen=True)
class _Node:
    """A joint of the file."""

    name: str
    parent: int  # index of a node, -1 for the root
    offset: np.ndarray  # (3,) metres from the parent, in the rest pose
    turn: np.ndarray  # (frames, 3, 3) rotation relative to the parent
    is_end: bool  # an End Site, which does not turn


def write_bvh(
    path: str | Path, positions: np.ndarray, skeleton: Skeleton, fps: float, scale: float = 100.0, loose: Collection[int] = ()
) -> RoundTrip:
    """Write a clip as a BVH file: the root with six channels, the others with Zrotation Xrotation Yrotation, in degrees.

    Bones have their mean length and point in their mean direction in the rest pose; the body is turned to face z. A joint with
    one child turns the shortest way from the rest direction to the observed one, relative to its parent: positions hold no
    twist. A joint with several children is turned to fit all of them (Kabsch 1976); where they move against each other by more
    than a millimetre, a joint ``PARENT_to_CHILD`` at the parent's place turns each that is off. Every bone aims at the position
    of its end from where its beginning came to lie, so that errors of length do not add up. Angles are continuous over time.

    BVH is y-up: other skeletons are turned so that up becomes y. A joint ``NAME_end`` that is the only child of NAME becomes
    its End Site, as the reader has it.

    Args:
        positions: ``(frames, joints, 3)`` metres.
        skeleton: its joints; blanks and braces in their names become ``_``.
        fps: 0.01 to 10000.
        scale: units of the file per metre; 100 makes centimetres, as is usual (in Blender, import with a scale of 0.01).
        loose: indices of joints that get a joint ``PARENT_to_CHILD`` however they move, as in other files of the same joints.

    Returns:
        What the rotations could not reproduce: nothing where bones keep their length, else the variation of the lengths.

    Raises:
        ValueError: a 2-D skeleton, a wrong shape, numbers that are not finite or beyond 10^9 m, names that coincide, or an
            argument out of limits.
    """
    points, names = _checked(positions, skeleton)
    if not 0.01 <= fps <= 10000 or not 0 < scale < np.inf:
        raise ValueError(f"fps={fps} must be in 0.01..10000, and scale={scale} positive")
    nodes, reached, _ = _nodes(points, skeleton, names, loose)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at x = 90 only a sum of z and y is determined, and any choice is right
        turns = [Rotation.from_matrix(node.turn).as_euler("ZXY", degrees=True) for node in nodes if not node.is_end]
    angles = _continuous(np.stack(turns, axis=1))
    channels = np.concatenate([points[:, skeleton.root] * scale, angles.reshape(len(points), -1)], axis=1)
    row = " ".join(["%.6f"] * channels.shape[1]) + "\n"
    motion = f"MOTION\nFrames: {len(points)}\nFrame Time: {1 / fps:.9f}\n" + row * len(points) % tuple(channels.ravel())
    write_durably(path, (_hierarchy(nodes, scale) + motion).encode())
    away = 1000 * np.linalg.norm(reached - points, axis=-1)
    mean, worst = (dict(zip(skeleton.names, values.tolist(), strict=True)) for values in (away.mean(0), away.max(0)))
    return RoundTrip(mean, worst)


def _checked(positions: np.ndarray, skeleton: Skeleton) -> tuple[np.ndarray, list[str]]:
    """``(frames, joints, 3)`` with y up, and the names of the joints in a file; for errors see `write_bvh`."""
    if skeleton.coords != 3:
        raise ValueError("a skeleton with coords: 2 has no BVH file: rotations need three dimensions")
    joints = len(skeleton.names)
    if positions.ndim != 3 or positions.shape[1:] != (joints, 3) or len(positions) == 0:
        raise ValueError(f"positions have shape {positions.shape}, expected (frames >= 1, {joints}, 3)")
    points = all_drawable(positions, skeleton)
    names = [re.sub(r"[\s{}]+", "_", name) for name in skeleton.names]
    if len(set(names)) < joints:
        raise ValueError(f"two joints would have one name in the file: {sorted(n for n in set(names) if names.count(n) > 1)}")
    return points, names


def write_bvh_files(path: str | Path, clips: Clips) -> dict[Path, RoundTrip]:
    """Write each clip to a file of its own, NAME_000.bvh and so on, all with the same joints; see `write_bvh`."""
    found: dict[Path, RoundTrip] = {}
    motions = [clip[:length] for clip, length in zip(clips.positions.numpy(), clips.lengths.tolist(), strict=True)]
    loose = set[int]()
    for motion in motions:
        points, names = _checked(motion, clips.skeleton)
        loose |= _nodes(points, clips.skeleton, names)[2]
    for file, motion in zip(clips.files(path), motions, strict=True):
        found[file] = write_bvh(file, motion, clips.skeleton, clips.fps, loose=loose)
    return found


def _nodes(
    points: np.ndarray, skeleton: Skeleton, names: list[str], loose: Collection[int] = ()
) -> tuple[list[_Node], np.ndarray, set[int]]:
    """The joints of the file, depth first, where they come to lie, ``(frames, joints, 3)``, and those with a joint between them
    and their parent, as ``loose`` ones have."""
    children: list[list[int]] = [[] for _ in names]
    for child, parent in skeleton.bones:
        children[parent].append(child)
    model = int(np.argmax(np.ptp(points[..., 1], axis=1)))  # the rest pose is as upright as the tallest frame
    facing = _facing(points, skeleton, children, model)
    identity = np.repeat(np.eye(3)[None], len(points), axis=0)
    reached, turned = points.copy(), set[int]()
    nodes: list[_Node] = []
    # joint -> parent node, its orientation, offset, rotation of a joint between, whether the body has not forked yet
    todo: dict[int, tuple[int, np.ndarray, np.ndarray, np.ndarray | None, bool]]
    todo = {skeleton.root: (-1, identity, np.zeros(3), None, True)}
    while todo:
        joint, (parent, world, offset, between, trunk) = todo.popitem()
        if between is not None:
            turned.add(joint)
            name = f"{names[skeleton.parents[joint]]}_to_{names[joint]}"
            while name in names:
                name += "_"
            nodes.append(_Node(name, parent, np.zeros(3), between, False))
            parent, world = len(nodes) - 1, world @ between
        if parent >= 0:
            reached[:, joint] = reached[:, skeleton.parents[joint]] + world @ offset
        own = children[joint]
        wanted = points[:, own] - reached[:, [joint]]
        bones = wanted @ world  # rows times a rotation: turned back by it
        lengths = np.linalg.norm(points[:, own] - points[:, [joint]], axis=-1).mean(0)
        rest = wanted[model] @ facing.T if trunk else bones.mean(0)
        vague = np.linalg.norm(rest, axis=-1) < 0.1 * lengths  # no mean direction
        rest[vague] = bones[model, vague]
        rest = _mean_shape(rest, bones) if len(own) > 1 else rest
        rest *= (lengths / np.maximum(np.linalg.norm(rest, axis=-1), 1e-12))[:, None]
        turn = _fit(rest, bones) if own else identity
        above = skeleton.parents[joint]
        is_end = not own and above >= 0 and names[joint] == f"{names[above]}_end" and children[above] == [joint]
        is_end = is_end and bool(np.linalg.norm(offset) >= POINT)
        nodes.append(_Node(names[joint], parent, offset, turn, is_end))
        here = len(nodes) - 1
        for k in reversed(range(len(own))):
            swing = _fit(rest[[k]], (bones @ turn)[:, [k]])
            apart = own[k] in loose or np.linalg.norm(swing @ rest[k] - rest[k], axis=-1).max() > RIGID
            todo[own[k]] = (here, world @ turn, rest[k], swing if len(own) > 1 and apart else None, trunk and len(own) == 1)
    return nodes, reached, turned


def _facing(points: np.ndarray, skeleton: Skeleton, children: list[list[int]], model: int) -> np.ndarray:
    """``(3, 3)`` rotation about y after which the body of frame ``model`` faces z: its mean left is towards x.

    Measured relative to the joint at which the body forks, as limbs and shoulders turn against the pelvis.
    """
    fork = skeleton.root
    while len(children[fork]) == 1:
        fork = children[fork][0]
    bones = points[:, children[fork]] - points[:, [fork]]
    turn = _fit(_mean_shape(bones[model], bones), bones)
    left, right = ([skeleton.index(pair[side]) for pair in skeleton.left_right] for side in (0, 1))
    x, _, z = ((points[:, left] - points[:, right]) @ turn).sum((0, 1))
    return Rotation.from_rotvec([0, np.arctan2(z, x), 0]).as_matrix()


def _mean_shape(shape: np.ndarray, bones: np.ndarray) -> np.ndarray:
    """Mean of ``bones`` ``(frames, k, 3)`` once they are turned onto each other, in the orientation of ``shape`` ``(k, 3)``."""
    for _ in range(4):
        shape = (bones @ _fit(shape, bones)).mean(0)
    return shape


def _fit(rest: np.ndarray, bones: np.ndarray) -> np.ndarray:
    """``(frames, 3, 3)`` least-squares rotations of ``rest`` ``(k, 3)`` onto ``bones`` ``(frames, k, 3)`` (Kabsch 1976).

    With bones along one line the turn about it is open: a little of the identity in the correlation picks the smallest.
    """
    correlation = np.einsum("fka,kb->fab", bones, rest) + (TWIST * (rest**2).sum() + 1e-12) * np.eye(3)
    u, _, vt = np.linalg.svd(correlation)
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
    return u @ vt


def _continuous(angles: np.ndarray) -> np.ndarray:
    """The same rotations ``(frames, joints, 3)``, with angles that change as little as possible from frame to frame.

    (z, x, y) and (z + 180, 180 - x, y + 180) are one rotation. Whether to exchange them at a frame does not depend on the
    choice at the frame before, so that the choices add up.
    """
    other = angles * (1, -1, 1) + 180

    def change(after: np.ndarray) -> np.ndarray:
        return np.abs((after[1:] - angles[:-1] + 180) % 360 - 180).sum(-1)

    flips = np.cumsum(change(other) < change(angles), axis=0) % 2 == 1
    chosen = angles.copy()
    chosen[1:][flips] = other[1:][flips]
    return np.unwrap(chosen, period=360, axis=0)


def _hierarchy(nodes: list[_Node], scale: float) -> str:
    """The first part of the file."""
    lines, depths = ["HIERARCHY"], [0] * len(nodes)
    for i, node in enumerate(nodes):
        depths[i] = depths[node.parent] + 1 if node.parent >= 0 else 0
        tab = "\t" * depths[i]
        x, y, z = node.offset * scale
        kind = "End Site" if node.is_end else f"{'JOINT' if depths[i] else 'ROOT'} {node.name}"
        lines += [tab + kind, tab + "{", f"{tab}\tOFFSET {x:.6f} {y:.6f} {z:.6f}"]
        if not node.is_end:
            place = "" if depths[i] else "Xposition Yposition Zposition "
            lines.append(f"{tab}\tCHANNELS {3 if depths[i] else 6} {place}Zrotation Xrotation Yrotation")
        below = nodes[i + 1].parent == i if i + 1 < len(nodes) else False
        if not below and not node.is_end:
            lines += [f"{tab}\tEnd Site", f"{tab}\t{{", f"{tab}\t\tOFFSET 0.000000 0.000000 0.000000", f"{tab}\t}}"]
        if not below:
            upto = depths[nodes[i + 1].parent] + 1 if i + 1 < len(nodes) else 0
            lines += ["\t" * depth + "}" for depth in range(depths[i], upto - 1, -1)]
    return "\n".join(lines) + "\n"
