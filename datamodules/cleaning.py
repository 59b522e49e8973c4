"""Repair of one recording: lost joints, spikes, jumps of the tracker, frame rate and floor height; every repair is counted."""

from dataclasses import dataclass, field, fields

import numpy as np

from ddpm.skeleton import Skeleton

DROPPED = "unlike the others, or the skeleton (data.on_outlier=drop)"
PIECE = 8  # frames of a piece of a cut recording, at least


@dataclass(frozen=True)
class CleaningReport:
    """What was done, in counts: ``frames == frames_kept + frames_lost + frames_cut + frames_dropped``."""

    recordings: int = 0
    repaired: int = 0  # recordings with at least one interpolated position
    frames: int = 0
    frames_kept: int = 0
    frames_lost: int = 0  # a joint is missing, and the gap is too long, or at an end of the recording
    frames_cut: int = 0  # sound, but not part of a stretch that is kept of a kept recording
    frames_dropped: int = 0  # sound, but of a dropped recording
    lost: int = 0  # joint positions without tracking
    filled: int = 0  # those of them that were interpolated
    spikes: int = 0  # joint positions that left for a single frame and were interpolated
    splits: int = 0  # stretches that were kept besides the first of their recording
    jumps: int = 0  # steps in which the whole body teleports or exchanges its sides; recordings are cut there
    dropped: tuple[tuple[str, str], ...] = ()  # (source, reason)
    starts: tuple[int, ...] = field(default=(), compare=False)  # of one recording: the first frames of what is kept

    def __add__(self, other: "CleaningReport") -> "CleaningReport":
        """Both together."""
        return CleaningReport(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self) if f.compare})

    def summary(self) -> str:
        """One line, with at most three dropped recordings per reason."""
        reasons: dict[str, list[str]] = {}
        for source, reason in self.dropped:
            reasons.setdefault(reason, []).append(source)
        why = "; ".join(
            f"{len(who)} {reason}: {', '.join([*who[:3], *(['...'] if len(who) > 3 else [])])}" for reason, who in reasons.items()
        )
        return (
            f"{self.recordings} recordings, {self.frames} frames: kept {self.recordings - len(self.dropped)} with "
            f"{self.frames_kept} frames; dropped {len(self.dropped)}{f' ({why})' if why else ''}; removed "
            f"{self.frames_lost} frames with lost joints, {self.frames_cut} cut off by these or by {self.jumps} jumps "
            f"of the whole body, {self.frames_dropped} of dropped recordings; interpolated {self.filled} lost and "
            f"{self.spikes} spiking joint positions in {self.repaired} recordings"
            + (f"; {self.splits} more stretches of recordings with a gap count as recordings" if self.splits else "")
        )


def find_spikes(positions: np.ndarray, lost: np.ndarray, step: float) -> np.ndarray:
    """``(frames, joints)`` bool: joints that go away further than ``step`` metres for one frame and come back.

    Coming back means that the frames around it are closer to each other than half the shorter way, so that a fast limb is no
    spike. Positions next to a lost one are not judged.
    """
    spikes = np.zeros_like(lost)
    ways = np.linalg.norm(np.diff(positions, axis=0), axis=-1)
    shorter = np.minimum(ways[:-1], ways[1:])
    back = np.linalg.norm(positions[2:] - positions[:-2], axis=-1) < 0.5 * shorter
    spikes[1:-1] = (shorter > step) & back & ~(lost[:-2] | lost[1:-1] | lost[2:])
    return spikes


def fill_gaps(positions: np.ndarray, lost: np.ndarray, max_gap: int) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate every joint linearly in time over gaps of at most ``max_gap`` frames with tracking on both sides.

    Returns:
        The positions ``(frames, joints, coords)``, the same array if nothing is filled, and where ``(frames, joints)`` bool.
    """
    n = len(positions)
    times = np.arange(n)[:, None]
    before = np.maximum.accumulate(np.where(lost, -1, times), axis=0)
    after = np.minimum.accumulate(np.where(lost, n, times)[::-1], axis=0)[::-1]
    filled = lost & (before >= 0) & (after < n) & (after - before - 1 <= max_gap)
    if not filled.any():
        return positions, filled
    frame, joint = np.nonzero(filled)
    a, b = before[frame, joint], after[frame, joint]
    weight = ((frame - a) / (b - a))[:, None]
    repaired = positions.copy()
    repaired[frame, joint] = (1 - weight) * positions[a, joint] + weight * positions[b, joint]
    return repaired, filled


def find_jumps(positions: np.ndarray, skeleton: Skeleton, step: float) -> np.ndarray:
    """``(frames - 1,)`` bool: steps in which half of the joints move over ``step`` metres or left becomes right.

    A tracker that mistakes left for right turns the body around between two frames; with the sides exchanged the step is then
    far shorter. Short steps are not judged: the ratio of two short ways is noise.
    """
    ways = np.linalg.norm(np.diff(positions, axis=0), axis=-1)
    mean, swapped = ways.mean(1), np.linalg.norm(positions[1:, skeleton.mirrored] - positions[:-1], axis=-1).mean(1)
    return (np.median(ways, axis=1) > step) | ((mean > 0.5 * step) & (swapped < 0.6 * mean))


def clean(
    positions: np.ndarray,
    lost: np.ndarray,
    skeleton: Skeleton,
    *,
    fps: float,
    source: str,
    max_gap: int,
    min_frames: int,
    max_speed: float,
    longest: bool = False,
) -> tuple[list[np.ndarray], CleaningReport]:
    """Fill short gaps and spikes, cut at long gaps and jumps.

    Args:
        positions: ``(frames, joints, coords)`` in metres, finite where they are not lost.
        lost: ``(frames, joints)`` bool, positions that were not tracked.
        max_gap: longest gap in frames that is interpolated. A straight line through 4 frames at 15 fps is 4 cm off on average,
            through 8 frames 7 cm, and it erases the lowest point of a bend.
        min_frames: shortest stretch that is kept; half a second at 15 fps, less shows a posture and not a motion. Of a recording
            that is cut, at least 8.
        max_speed: metres per second that no joint exceeds both out and back, nor half of the body at once.

    Returns:
        The stretches ``(frames', joints, coords)`` in order, views of sound input, none if the recording is dropped; the report.

    Raises:
        ValueError: a limit outside its range.
    """
    if fps <= 0 or max_speed <= 0 or max_gap < 0 or min_frames < 1:
        need = "fps > 0, max_speed > 0, max_gap >= 0 and min_frames >= 1"
        raise ValueError(f"cleaning needs {need}, got {fps=}, {max_speed=}, {max_gap=}, {min_frames=}")
    n, step = len(positions), max_speed / fps
    spikes = find_spikes(positions, lost, step)
    positions, filled = fill_gaps(positions, lost | spikes, max_gap)
    sound = np.asarray((~(lost | spikes) | filled).all(axis=1))
    jumps = find_jumps(positions, skeleton, step) & sound[1:] & sound[:-1]
    starts = np.flatnonzero(np.append(True, jumps | (sound[1:] != sound[:-1]))[:n])
    lengths = np.diff(starts, append=n) * sound[starts]
    least = min_frames if len(starts) == 1 else max(min_frames, PIECE)
    kept = np.flatnonzero(lengths >= least)
    if longest and len(kept):
        kept = kept[[int(lengths[kept].argmax())]]
    reason = f"with fewer than {least} sound frames in a row" if sound.any() else _without(lost, skeleton)
    frames_kept, frames_sound = int(lengths[kept].sum()), int(sound.sum())
    marks = {"lost": lost, "filled": filled & lost, "spikes": filled & spikes, "jumps": jumps}
    frames = {"frames": n, "frames_kept": frames_kept, "frames_lost": n - frames_sound}
    frames |= {"frames_cut" if len(kept) else "frames_dropped": frames_sound - frames_kept}
    dropped = () if len(kept) else ((source, reason),)
    report = CleaningReport(
        recordings=1, repaired=int(filled.any()), splits=max(len(kept) - 1, 0), dropped=dropped,
        starts=tuple(starts[kept].tolist()), **frames, **{name: int(where.sum()) for name, where in marks.items()},
    )  # fmt: skip
    return [positions[starts[k] : starts[k] + lengths[k]] for k in kept], report


def _without(lost: np.ndarray, skeleton: Skeleton) -> str:
    """Why no frame ``(frames, joints)`` has all joints."""
    never = lost.all(axis=0)
    if never.all():
        return "without a tracked frame"
    if not never.any():
        return "without a frame in which all joints are seen"
    names = [skeleton.names[j] for j in np.flatnonzero(never)]
    more = f" and {len(names) - 3} others are" if len(names) > 3 else " is" if len(names) == 1 else " are"
    return f"in which {', '.join(names[:3])}{more} never seen"


def set_floor(positions: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """A copy of ``(frames, joints, coords)``, shifted so that the median over the frames of the lowest foot joint's height is 0.

    A low percentile would follow badly tracked feet, which sink half a metre into the ground for a few frames. A skeleton
    without feet uses its lowest joint.
    """
    feet = [skeleton.index(name) for name in skeleton.feet] or list(range(len(skeleton.names)))
    heights = skeleton.up_sign * positions[:, feet, skeleton.up_axis]
    shifted = positions.copy()
    shifted[..., skeleton.up_axis] -= skeleton.up_sign * np.median(heights.min(1))
    return shifted
