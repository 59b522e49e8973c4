"""A summary of a ClipSet in words: sizes, labels, body, motion, and probable errors."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from datamodules.clip_set import ClipSet
from datamodules.flaws import bone_statistics, find_flaws
from datamodules.outliers import SET, outliers_among
from ddpm.errors import escaped

BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Summary:
    """Lines on the data, and flaws: sentences on what should be checked before training."""

    lines: tuple[str, ...]
    flaws: tuple[str, ...]

    def text(self) -> str:
        """All of it, the flaws last, without control characters of names in it."""
        flaws = [f"  ! {flaw}" for flaw in self.flaws] or ["  none found"]
        return escaped("\n".join([*self.lines, "flaws", *flaws]))


def summarise(clips: ClipSet, frames: int, split: str) -> Summary:
    """Summarise data for training on windows of ``frames`` frames, split by ``subject`` or ``sequence``."""
    skeleton, lengths = clips.skeleton, clips.lengths.numpy()
    seconds = len(clips.frames) / clips.fps
    duration = f"{seconds / 3600:.1f} hours" if seconds > 7200 else f"{seconds / 60:.1f} minutes"
    joints = f"{len(skeleton.names)} joints x {skeleton.coords} coordinates"
    lines = [
        f"{len(clips)} recordings, {len(clips.frames)} frames at {clips.fps:g} fps, {duration}; {joints}, up is {skeleton.up}",
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
        fewer = max(8, int(np.percentile(lengths, 25)) // 8 * 8)
        shorter = f"{short} of {len(clips)} recordings are shorter than frames={frames} and will be padded"
        flaws.append(f"{shorter}; frames={fewer} would fit three quarters of them")
    if split == "subject" and (None in clips.subjects or len(set(clips.subjects)) == 1):
        unknown = clips.subjects.count(None)
        why = f"of {unknown} recordings no subject is known" if unknown else "there is only one subject"
        flaws.append(f"{why}: training cannot split by subject, set loader.split=sequence")
    own = clips.flaws  # where they did not pass through `datamodules.prepare`, judged here, without its remedies
    flaws += [flaw.split(SET)[0] for flaw in (*outliers_among(clips).flaws, *find_flaws(clips))] if own is None else own
    return Summary((*lines, *_body(clips), *_motion(clips)), tuple(flaws))


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
    shown = [f"{escaped(name, '')[:60]} {number}" for name, number in counts.most_common(12)]
    more = [f"{len(counts) - 12} others"] if len(counts) > 12 else []
    return f"{len(counts)}: {', '.join([*shown, *more, *([f'unknown {unknown}'] if unknown else [])])}" if counts else "unknown"


def _body(clips: ClipSet) -> list[str]:
    """Bone lengths, their spread within a recording, and their symmetry."""
    skeleton, positions = clips.skeleton, clips.frames.numpy()
    if not skeleton.bones:
        return []
    mean, spread, _ = bone_statistics(clips)
    names = [skeleton.names[child] for child, _ in skeleton.bones]
    typical, within = np.median(mean, axis=0), np.median(spread, axis=0)
    between = np.median(mean.std(0) / np.maximum(mean.mean(0), 1e-9))
    extent = float(np.median(np.ptp(positions[..., skeleton.up_axis], axis=1)))
    lines = [
        f"body     {extent:.2f} m from its lowest to its highest joint; half of the bones, each named by its outer joint, vary "
        f"by up to {100 * np.median(within):.1f} % within a recording and by up to {100 * between:.0f} % between recordings",
        "  most within: "
        + ", ".join(f"{names[b]} {100 * typical[b]:.1f} cm ± {100 * within[b]:.0f} %" for b in np.argsort(-within)[:5]),
    ]
    if (pairs := skeleton.bone_pairs) and skeleton.coords == 3:  # in a picture they are foreshortened
        a, b = typical[np.array(pairs).T]
        uneven = np.abs(a - b) / np.maximum((a + b) / 2, 1e-9)
        lines.append(
            f"sides    left and right bones differ by {100 * np.median(uneven):.1f} %, at most {100 * uneven.max():.0f} %"
        )
    return lines


def _motion(clips: ClipSet) -> list[str]:
    inside = np.ones(len(clips.frames) - 1, bool)
    inside[clips.starts.numpy()[1:] - 1] = False
    if not inside.any():
        return []
    speed = np.linalg.norm(np.diff(clips.frames.numpy(), axis=0)[inside] * clips.fps, axis=-1)
    fastest, root = speed.max(1), speed[:, clips.skeleton.root]
    return [
        f"motion   the fastest joint makes {np.median(fastest):.2f} m/s half of the time and {fastest.max():.1f} at most, "
        f"the root {np.median(root):.2f} and {root.max():.1f}"
    ]
