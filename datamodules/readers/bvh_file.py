"""BVH files: a tree of joints, and for every frame the angles and positions that pose it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import numpy as np

from datamodules.clip_set import Recording
from datamodules.readers.raw_files import common_rate, read_bytes
from ddpm.errors import DataError
from ddpm.skeleton import Skeleton

SCALE = 0.01  # metres per unit of most files
MAX_BYTES = 128 << 20  # 40 minutes of 60 joints at 30 fps
MAX_HEADER = 2 << 20
MAX_JOINTS = 512
MAX_POSITIONS = 1 << 24  # lines x joints
MAX_NUMBER = 1e6  # degrees, or centimetres: ten kilometres
BLOCK = 4096  # frames posed at once: bounds the memory that their rotations take
POINT = 1e-3  # metres: an end site nearer to its joint is that joint again
MOTION = re.compile(rb"^[ \t]*MOTION\s+Frames\s*:\s*(\S+)\s+Frame\s+Time\s*:\s*(\S+)[ \t\r]*(?:\n|\Z)", re.I | re.M)
CHANNELS = tuple(f"{axis}{kind}" for kind in ("position", "rotation") for axis in "xyz")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.I)
POINTED = re.compile(rb"\d\.\d")
FOOT = re.compile(r"foot|toe|ankle|heel", re.I)


@dataclass
class Joint:
    """A joint of the hierarchy, or an End Site."""

    name: str
    parent: int  # index in the file, smaller than its own; -1 for the root
    is_end: bool
    offset: list[float] = field(default_factory=list)  # x, y, z in the unit of the file
    channels: list[int] = field(default_factory=list)  # in the order of the numbers: 0..2 position x..z, 3..5 rotation about x..z


def read(path: Path, scale: float = SCALE, end_sites: bool = True) -> Recording:
    """All joints of a file, posed, in the axes of the file; ``scale`` is metres per unit of the file, most often a centimetre.

    Angles are degrees; the rotations of a joint are applied from the last channel to the first. Where a joint, any joint, has
    position channels, they replace its OFFSET, coordinate by coordinate. With ``end_sites`` the ``End Site`` of a joint NAME is a
    joint ``NAME_end`` (the tip of the toes, the top of the head) unless it lies on its joint. Parents come before their children.
    The frame rate is the common one, or else the whole number, that the digits of ``Frame Time`` stand for.

    Raises:
        DataError: a file that cannot be read, is too large, or is not a valid BVH file; names the line.
    """
    return parse(path, scale, end_sites)[0]


def skeleton_of(path: Path, scale: float = SCALE, end_sites: bool = True) -> Skeleton:
    """The skeleton of a file: its tree, and by their names the pairs of sides and the feet; y is up, as the format has it.

    Two joints are a pair if their names differ in one mark of the side: left/right, or a single l/r that begins or ends a word.
    Feet are the joints called foot, toe, ankle or heel. A root that is no joint of the body, as in many files the origin of the
    room, is left out: one with a single child at a distance that varies, which that of a bone does not.

    Raises:
        DataError: see `read`.
    """
    recording, tree = parse(path, scale, end_sites)
    names, root = recording.joints or (), 0
    while [joint.parent for joint in tree].count(root) == 1 and not tree[root + 1].is_end:
        bone = recording.positions[:, root + 1] - recording.positions[:, root]
        if np.ptp(np.linalg.norm(bone, axis=-1)) < 0.01:
            break
        root += 1
    names = names[root:]
    parents = {joint.name: tree[joint.parent].name for joint in tree} | {tree[root].name: None}
    pairs, feet = _pairs(names), [name for name in names if FOOT.search(name)]
    joints = {name: parents[name] for name in names}
    return Skeleton(joints, left_right=pairs, feet=feet, parts=_parts(joints, pairs, feet))


def parse(path: Path, scale: float, end_sites: bool) -> tuple[Recording, list[Joint]]:
    """What `read` returns, and the hierarchy of the file: parents come before their children."""
    content = read_bytes(path, MAX_BYTES)
    if b"," in content:  # as some exporters write in countries with a decimal comma
        parts = (part if POINTED.search(part) else re.sub(rb"(?<=\d),(?=\d)", b".", part) for part in content.split(b"MOTION"))
        content = b"MOTION".join(parts)
    if (head := MOTION.search(content, 0, MAX_HEADER)) is None:
        raise DataError(
            f"{path}: no lines MOTION, Frames: N, Frame Time: SECONDS in its first {min(len(content), MAX_HEADER)} bytes; it is "
            "cut short or no BVH file, replace or remove it"
        )
    tree = _parse_tree(path, content[: head.start()].decode("utf-8-sig", errors="backslashreplace"))
    frames_line, line = (content.count(b"\n", 0, head.start(group)) + 1 for group in (1, 2))
    frames, seconds = (text.decode("ascii", errors="replace") for text in head.groups())
    if not re.fullmatch(r"\d{1,18}", frames) or int(frames) < 1:
        raise DataError(f"{path}: line {frames_line}: Frames: {frames[:40]}, at least 1 is needed; repair or remove the file")
    if not NUMBER.fullmatch(seconds) or len(seconds) > 40 or not 1e-4 <= float(seconds) <= 100:
        raise DataError(
            f"{path}: line {line}: Frame Time: {seconds[:40]}, it must be from 0.0001 to 100 seconds; repair or remove the file"
        )
    if (lines := content.count(b"\n", head.end())) * len(tree) > MAX_POSITIONS:
        raise DataError(
            f"{path}: {lines} lines for the motion of {len(tree)} joints, at most {MAX_POSITIONS} positions are read; cut "
            "it into shorter files, or remove it"
        )
    motion = _parse_motion(path, content[head.end() :], line, tree)
    if len(motion) != int(frames):
        raise DataError(
            f"{path}: line {frames_line}: Frames: {frames}, but {len(motion)} follow; the file is cut short or was edited, "
            "replace it or correct the number"
        )
    kept = [not j.is_end or (end_sites and float(np.linalg.norm(j.offset)) * scale >= POINT) for j in tree]
    blocks = [_pose(tree, motion[i : i + BLOCK])[:, kept] * scale for i in range(0, len(motion), BLOCK)]
    positions = np.concatenate([block.astype(np.float32) for block in blocks])
    names = tuple(joint.name for joint, keep in zip(tree, kept, strict=True) if keep)
    fps = _rate(seconds)
    note = f"Frame Time: {seconds} is taken to be {fps:g} frames per second" if abs(fps * float(seconds) - 1) > 1e-3 else None
    return Recording(positions, path.name, joints=names, fps=fps, units="m", note=note), tree


def _pairs(names: Sequence[str]) -> list[list[str]]:
    """[left, right] names that differ in one mark of the side; both must be there, so that no l is mistaken for one."""
    marks = (r"left", r"Left", r"LEFT", r"(?<![A-Za-z])[lL](?![a-z])|(?<=[a-z])L(?![a-z])|(?<![A-Za-z])[lL](?=[A-Z])|^l")
    other = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "l": "r", "L": "R"}
    pairs: dict[str, str] = {}
    for name in names:
        for mark in re.finditer("|".join(marks), name):
            mirrored = name[: mark.start()] + other[mark[0]] + name[mark.end() :]
            if mirrored in names and not {name, mirrored} & {*pairs, *pairs.values()}:
                pairs[name] = mirrored
    return [list(pair) for pair in pairs.items()]


def _parts(parents: Mapping[str, str | None], pairs: Sequence[Sequence[str]], feet: Sequence[str]) -> dict[str, list[str]]:
    """Limbs are what hangs on a pair of joints with one parent, two joints with a foot or three; the trunk is what is left."""
    below: dict[str, list[str]] = {name: [name] for name in parents}
    for name in reversed(list(parents)):  # children come after their parents
        if (parent := parents[name]) is not None:
            below[parent] += below[name]
    parts: dict[str, list[str]] = {"trunk": list(parents)}
    for pair in pairs:
        limb = "leg" if set(feet) & set(below[pair[0]]) else "arm"
        if parents[pair[0]] == parents[pair[1]] and min(len(below[name]) for name in pair) > 1 + (limb == "arm"):
            for side, name in zip(("left", "right"), pair, strict=True):
                parts.setdefault(f"{side}_{limb}", []).extend(below[name])
                parts["trunk"] = [joint for joint in parts["trunk"] if joint not in below[name]]
    return parts


def _rate(seconds: str) -> float:
    """Frames per second: 0.0333333 and 0.0333 are both 30, 0.03336667 is 29.97, and 0.0167, 0.017 and 0.016 are 60."""
    written, exact = float(seconds), 1 / float(seconds)
    digit = float(Decimal(1).scaleb(int(Decimal(seconds).as_tuple().exponent)))
    if abs(exact - round(exact)) < 1e-9 * exact:
        return float(round(exact))
    # What was rounded to these digits goes before what was cut to them.
    common = common_rate(written - 0.5 * digit, written + 0.5 * digit) or common_rate(written, written + digit)
    if common is not None:
        return common
    whole = float(round(exact))
    return whole if whole and abs(1 / whole - written) < digit else exact


def _parse_tree(path: Path, text: str) -> list[Joint]:
    words = [
        (word, number)
        for number, line in enumerate(text.split("\n"), 1)
        for word in line.replace("{", " { ").replace("}", " } ").split()
    ]
    tree: list[Joint] = []
    position, open_joints = 0, [-1]

    def wrong(expected: str, at: int) -> DataError:
        word, number = words[at] if at < len(words) else ("MOTION", text.count("\n") + 1)
        return DataError(f"{path}: line {number}: {word[:60]!r}, expected {expected}; repair or remove the file")

    def take(expected: str, pattern: str) -> str:
        nonlocal position
        if position == len(words) or not re.fullmatch(pattern, words[position][0], re.I):
            raise wrong(expected, position)
        position += 1
        return words[position - 1][0]

    take("HIERARCHY", "HIERARCHY")
    while open_joints != [-1] or not tree:
        start, parent = position, open_joints[-1]
        if parent < 0:
            key = take("ROOT", "ROOT")
        elif tree[parent].is_end:
            key = take("OFFSET or }", "OFFSET|}")
        else:
            key = take("JOINT, End Site, OFFSET, CHANNELS or }", "JOINT|End|OFFSET|CHANNELS|}")
        if key == "}":
            if not tree[parent].offset:
                raise wrong("the OFFSET of the joint before its }", start)
            open_joints.pop()
        elif key.upper() == "OFFSET":
            values = [float(take("three numbers", NUMBER.pattern)) for _ in range(3)]
            if tree[parent].offset or max(map(abs, values)) > MAX_NUMBER:
                raise wrong(f"one OFFSET of a joint, within ±{MAX_NUMBER:g}", start)
            tree[parent].offset = values
        elif key.upper() == "CHANNELS":
            number = int(take("a number of channels from 0 to 6", "[0-6]"))
            found = [take(f"{number} channels like Xposition or Zrotation", "|".join(CHANNELS)).lower() for _ in range(number)]
            if tree[parent].channels or len(set(found)) < number:
                raise wrong("every channel of a joint once", start)
            tree[parent].channels = [CHANNELS.index(name) for name in found]
        else:
            while position < len(words) and words[position][0] not in "{}":
                position += 1
            is_end, name = key.upper() == "END", " ".join(word for word, _ in words[start + 1 : position])
            if not is_end and (not name or any(name == joint.name for joint in tree)):
                raise wrong(f"a name that no other joint has, not {name[:60]!r}", start)
            if len(tree) == MAX_JOINTS:
                raise wrong(f"at most {MAX_JOINTS} joints", start)
            take("{", "{")
            open_joints.append(len(tree))
            tree.append(Joint("" if is_end else name, parent, is_end))
    if position < len(words):
        raise wrong("MOTION after the root's }", position)
    names = {joint.name for joint in tree}
    for joint in tree:
        if joint.is_end:
            joint.name = f"{tree[joint.parent].name}_end"
            while joint.name in names:
                joint.name += "_end"
            names.add(joint.name)
    return tree


def _parse_motion(path: Path, content: bytes, line: int, tree: list[Joint]) -> np.ndarray:
    """``(frames, channels)`` float64; ``line`` is the number of the line before the first frame."""
    if not (columns := [(joint.name, CHANNELS[channel]) for joint in tree for channel in joint.channels]):
        raise DataError(f"{path}: no joint has CHANNELS, nothing moves; repair or remove the file")
    rows = content.split(b"\n")
    counts = [count for row in rows if (count := len(row.split()))]
    values = np.empty(0)
    if counts and set(counts) == {len(columns)}:
        try:
            values = np.fromstring(content, sep=" ")
        except ValueError:  # older versions of numpy return the numbers before the first word that is none
            pass
    if len(values) == len(counts) * len(columns) and (np.abs(values) <= MAX_NUMBER).all():  # false for NaN too
        return values.reshape(-1, len(columns))
    filled = [(number, words) for number, row in enumerate(rows, line + 1) if (words := row.split())]
    for frame, (number, words) in enumerate(filled):
        for word, (name, channel) in zip((word.decode("ascii", errors="replace") for word in words), columns, strict=False):
            if not NUMBER.fullmatch(word) or abs(float(word)) > MAX_NUMBER:
                raise DataError(
                    f"{path}: line {number} (frame {frame}): {channel} of {name} is {word[:40]!r}, expected a number within "
                    f"±{MAX_NUMBER:g}, with a point as in 0.5; repair or remove the file"
                )
        if len(words) != len(columns):
            raise DataError(
                f"{path}: line {number} (frame {frame}) has {len(words)} numbers, expected one for each of the {len(columns)} "
                "channels; the file is cut short or damaged, replace or remove it"
            )
    raise DataError(f"{path}: the lines after line {line} hold something else than numbers; replace or remove the file")


def _pose(tree: list[Joint], motion: np.ndarray) -> np.ndarray:
    """Forward kinematics: channels ``(frames, channels)`` -> ``(frames, joints, 3)`` in the unit of the file."""
    columns, taken = np.ascontiguousarray(motion.T), 0
    places, turned = np.zeros((len(tree), 3, len(motion))), []
    for j, joint in enumerate(tree):
        parent, offset, channels = joint.parent, joint.offset, joint.channels
        # axes[k] (3, frames) is where the k-th axis of the joint points in the world, at first that of its parent.
        axes = turned[parent].copy() if parent >= 0 else np.repeat(np.eye(3)[..., None], len(motion), axis=2)
        own = dict(zip(channels, columns[taken : taken + len(channels)], strict=True))
        taken += len(channels)
        places[j] = sum(axes[k] * own.get(k, offset[k]) for k in range(3)) + (places[parent] if parent >= 0 else 0)
        for channel, degrees in own.items():
            if channel >= 3:
                # Turning about one axis on the right of what was turned before mixes the two others.
                a, b = (channel + 1) % 3, (channel + 2) % 3
                c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
                axes[a], axes[b] = c * axes[a] + s * axes[b], c * axes[b] - s * axes[a]
        turned.append(axes)
    return places.transpose(2, 0, 1)
