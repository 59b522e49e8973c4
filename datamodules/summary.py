"""A summary of a ClipSet in words: sizes, labels, body, motion, and probable errors."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from datamodules.clip_set import ClipSet
from ddpm.skeleton import AXES, Skeleton

BARS = " ▁▂▃▄▅▆▇█"
STILL = 0.01  # metres per second: the fastest joint of a recording in which nothing happens
LOOSE = 0.10  # spread of a bone's length within a recording, in parts of it, above which it is no bone
UNEVEN = 0.15  # difference of the lengths of a left and a right bone, in parts of them


@dataclass(frozen=True)
class Summary:
    """Lines on the data, and flaws: sentences on what should be checked before training."""

    lines: tuple[str, ...]
    flaws: tuple[str, ...]

    def text(self) -> str:
        """All of it, the flaws last."""
        flaws = [f"  ! {flaw}" for flaw in self.flaws] or ["  none found"]
        return "\n".join([*self.lines, "flaws", *flaws])


def summarise(clips: ClipSet, frames: int, split: str) -> Summary:
    """Summarise data for training on windows of ``frames`` frames, split by ``subject`` or ``sequence``."""
    skeleton, positions = clips.skeleton, clips.frames.numpy()
    lengths, starts = clips.lengths.numpy(), clips.starts.numpy()
    seconds = len(positions) / clips.fps
    duration = f"{seconds / 3600:.1f} hours" if seconds > 7200 else f"{seconds / 60:.1f} minutes"
    joints = f"{len(skeleton.names)} joints x {skeleton.coords} coordinates"
    lines = [
        f"{len(clips)} recordings, {len(positions)} frames at {clips.fps:g} fps, {duration}; {joints}, up is {skeleton.up}",
        *(f"  {note}" for note in clips.notes),
        f"lengths  {lengths.min()} to {lengths.max()} frames, half of them up to {np.median(lengths):g}",
        *_histogram(lengths),
        f"windows  {np.maximum(lengths // frames, 1).sum()} of {frames} frames side by side, "
        f"{100 * lengths.max() / lengths.sum():.0f} % of all frames are in the longest recording",
        f"labels   {_counts([clips.class_names[k] if k >= 0 else None for k in clips.labels.tolist()])}",
        f"subjects {_counts(clips.subjects)}",
    ]
    flaws: list[str] = []
    short = int((lengths < frames).sum())
    if short > len(clips) / 2:
        flaws.append(
            f"{short} of {len(clips)} recordings are shorter than frames={frames} and will be padded; "
            f"frames={_round_down(float(np.percentile(lengths, 25)))} would fit three quarters of them"
        )
    if split == "subject" and (None in clips.subjects or len(set(clips.subjects)) == 1):
        unknown = clips.subjects.count(None)
        why = f"of {unknown} recordings no subject is known" if unknown else "there is only one subject"
        flaws.append(f"{why}: training cannot split by subject, set loader.split=sequence")
    body, wrong = _body(positions, starts, lengths, skeleton)
    motion, strange = _motion(positions, starts, clips)
    return Summary((*lines, *body, *motion), (*flaws, *wrong, *_direction(positions, skeleton), *strange))


def _round_down(value: float) -> int:
    return max(8, int(value) // 8 * 8)


def _histogram(lengths: np.ndarray) -> list[str]:
    """One bar per range of lengths; ranges grow geometrically."""
    if lengths.min() == lengths.max():
        return []
    edges = np.unique(np.rint(np.geomspace(lengths.min(), lengths.max() + 1, 11)).astype(int))
    counts, _ = np.histogram(lengths, edges)
    widest = max(len(str(edge)) for edge in edges) * 2 + 1
    ranges = [f"{a}-{b - 1}" if b - 1 > a else f"{a}" for a, b in pairwise(edges.tolist())]
    scale = 40 / counts.max()
    return [
        f"  {text:>{widest}} {('█' * int(count * scale) + BARS[round(count * scale % 1 * 8)]).rstrip()} {count}"
        for text, count in zip(ranges, counts.tolist(), strict=True)
    ]


def _counts(names: Sequence[str | None]) -> str:
    """``3: walk 10, run 5, jump 2``, the commonest first."""
    counts = Counter(name for name in names if name is not None)
    unknown = len(names) - counts.total()
    shown = [f"{name} {number}" for name, number in counts.most_common(12)]
    more = [f"{len(counts) - 12} others"] if len(counts) > 12 else []
    return f"{len(counts)}: {', '.join([*shown, *more, *([f'unknown {unknown}'] if unknown else [])])}" if counts else "unknown"


def _body(positions: np.ndarray, starts: np.ndarray, lengths: np.ndarray, skeleton: Skeleton) -> tuple[list[str], list[str]]:
    """Bone lengths, their spread within a recording, and their symmetry."""
    if not skeleton.bones:
        return [], []
    child, parent = np.array(skeleton.bones).T
    bones = np.linalg.norm(positions[:, child] - positions[:, parent], axis=-1).astype(np.float64)
    mean = np.add.reduceat(bones, starts) / lengths[:, None]
    square = np.add.reduceat(bones**2, starts) / lengths[:, None]
    spread = np.sqrt(np.maximum(square - mean**2, 0)) / np.maximum(mean, 1e-9)
    names = [skeleton.names[joint] for joint in child]
    typical, within = np.median(mean, axis=0), np.median(spread, axis=0)
    between = mean.std(0) / np.maximum(mean.mean(0), 1e-9)
    order = np.argsort(-within)[:5]
    height = skeleton.up_sign * positions[..., skeleton.up_axis]
    extent = float(np.median(np.ptp(height, axis=1)))
    lines = [
        f"body     {extent:.2f} m from its lowest to its highest joint; bones, each named by its outer joint, vary by "
        f"{100 * np.median(within):.1f} % within a recording and by {100 * np.median(between):.0f} % between recordings",
        "  most within: " + ", ".join(f"{names[b]} {100 * typical[b]:.1f} cm ± {100 * within[b]:.0f} %" for b in order),
    ]
    flaws = []
    if skeleton.coords == 3:  # in a picture they are foreshortened
        loose = [names[b] for b in np.flatnonzero(within > LOOSE)]
        if loose:
            flaws.append(
                f"the lengths of these bones vary by more than {100 * LOOSE:.0f} % within a recording: {', '.join(loose)}"
            )
        index = {name: b for b, name in enumerate(names)}
        pairs = [(index[left], index[right]) for left, right in skeleton.left_right if left in index and right in index]
        if pairs:
            a, b = typical[np.array(pairs).T]
            uneven = np.abs(a - b) / np.maximum((a + b) / 2, 1e-9)
            lines.append(
                f"sides    left and right bones differ by {100 * np.median(uneven):.1f} %, at most {100 * uneven.max():.0f} %"
            )
            odd = [f"{names[pairs[k][0]]} {100 * a[k]:.0f} and {100 * b[k]:.0f} cm" for k in np.flatnonzero(uneven > UNEVEN)]
            if odd:
                flaws.append(f"left and right bones differ: {', '.join(odd)}; are the names of the joints in the files' order?")
    empty = [name for name, length in zip(names, typical, strict=True) if length < 1e-4]
    if empty:
        flaws.append(f"these joints lie on their parents: {', '.join(empty)}")
    return lines, flaws


def _direction(positions: np.ndarray, skeleton: Skeleton) -> list[str]:
    """Whether the up axis fits the feet, and left and right fit the direction of the toes."""
    feet = [skeleton.index(name) for name in skeleton.feet]
    others = [j for j in range(len(skeleton.names)) if j not in feet]
    if not feet or not others:
        return []
    rise = (positions[:, others].mean(1) - positions[:, feet].mean(1)).mean(0)
    axis = int(np.abs(rise).argmax())
    upwards = ("-" if rise[axis] < 0 else "") + AXES[axis]
    if upwards != skeleton.up:
        return [
            f"people stand along {upwards} and not along {skeleton.up}: the feet are on the other side; set skeleton.up={upwards}"
        ]
    toes = [j for j in feet if skeleton.parents[j] in feet]
    pairs = [(skeleton.index(left), skeleton.index(right)) for left, right in skeleton.left_right]
    if skeleton.coords == 2 or not toes or not pairs:
        return []
    ahead = (positions[:, toes] - positions[:, [skeleton.parents[j] for j in toes]]).mean(1)
    left, right = np.array(pairs).T
    across = (positions[:, left] - positions[:, right]).mean(1)
    up = np.zeros(3)
    up[skeleton.up_axis] = skeleton.up_sign
    agree = float(((np.cross(up, ahead) * across).sum(-1) > 0).mean())
    if agree < 0.5:
        return [
            f"left and right are exchanged, or one axis is mirrored: in {100 * (1 - agree):.0f} % of the frames left lies to the "
            "right of where the toes point"
        ]
    return []


def _motion(positions: np.ndarray, starts: np.ndarray, clips: ClipSet) -> tuple[list[str], list[str]]:
    """Speeds, recordings without motion, and duplicates."""
    inside = np.ones(len(positions) - 1, bool)
    inside[starts[1:] - 1] = False
    steps = np.diff(positions, axis=0) * clips.fps
    speed = np.linalg.norm(steps, axis=-1).max(1) * inside
    if not inside.any():
        return [], ["no recording has two frames"]
    root = np.linalg.norm(steps[:, clips.skeleton.root], axis=-1)[inside]
    fastest = np.maximum.reduceat(np.append(speed, 0.0), starts)
    lines = [
        f"motion   the fastest joint makes {np.median(speed[inside]):.2f} m/s half of the time and {speed.max():.1f} at most, "
        f"the root {np.median(root):.2f} and {root.max():.1f}"
    ]
    flaws = []
    still = [clips.sources[i] for i in np.flatnonzero(fastest < STILL).tolist()]
    if still:
        flaws.append(f"{_some(still)} nothing moves")
    seen: dict[int, str | None] = {}
    twice = []
    for i, source in enumerate(clips.sources):
        first = seen.setdefault(hash(clips.recording(i).numpy().tobytes()), source)
        if first != source:
            twice.append(f"{source} = {first}")
    if twice:
        flaws.append(f"{_some(twice)} a recording is there twice")
    return lines, flaws


def _some(names: Sequence[str | None]) -> str:
    return f"{len(names)} times ({', '.join(map(str, names[:3]))}{', ...' if len(names) > 3 else ''})"
