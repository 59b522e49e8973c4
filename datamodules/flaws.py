"""What is wrong with recordings, each judged by itself and beside the others: a sentence for each kind, with names and remedy."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from datamodules.cleaning import DROPPED, CleaningReport, find_jumps
from datamodules.clip_set import ClipSet
from datamodules.outliers import FACTOR, SET, body_size, in_recordings, size_ratio
from ddpm.skeleton import Skeleton

STILL = 0.01  # metres per second: the fastest joint of a recording in which nothing happens
FROZEN = 0.5  # seconds without any movement
REPEATED = 0.7  # part of the frames that differ from the one before, below which frames were written more than once
LOOSE = 0.10  # spread of a bone's length, in parts of it, above which it is none
RESTLESS = 0.35  # in pictures, mean change of a bone's length from frame to frame, in parts of it, at 20 frames per second
UNEVEN = 0.15  # difference of the lengths of a left and a right bone, in parts of them
FAST = 12.0  # metres per second that no joint of people makes
TELEPORT = 6.0  # metres per second that their body makes only while it runs
FIRST, FIRST_WAY = 4.0, 0.05  # first steps so many times as long as others, and so many metres, are from another pose
FEW, FEW_FACTOR = 4, 2.4  # of so few recordings tempi must differ by more


def bone_statistics(clips: ClipSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(recordings, bones)`` mean lengths in metres; their spread, and mean change from frame to frame, in parts of them."""
    child, parent = np.array(clips.skeleton.bones).T
    positions, lengths, starts = clips.frames.numpy(), clips.lengths.numpy()[:, None], clips.starts.numpy()
    bones = np.linalg.norm(positions[:, child] - positions[:, parent], axis=-1).astype(np.float64)
    changes = np.abs(np.diff(bones, axis=0, prepend=0))
    changes[starts] = 0
    mean, square, change = (np.add.reduceat(values, starts) / lengths for values in (bones, bones**2, changes))
    scale = np.maximum(mean, 1e-9)
    return mean, np.sqrt(np.maximum(square - mean**2, 0)) / scale, change / scale


def find_flaws(clips: ClipSet, total: int | None = None, places: Sequence[tuple[int, float]] | None = None) -> list[str]:
    """Judge every recording of prepared data: bones, speeds, first poses, jumps, stillness, copies.

    Args:
        total: recordings, with those that are not used, for messages.
        places: of each recording, the frame of its file that it begins at, and how many of these one of its own lasts.
    """
    if int(clips.lengths.max()) < 2:
        return ["no recording has two frames"]
    total = len(set(clips.sources)) if total is None else total
    return [*_bones(clips, total), *_motion(clips, total, places or [(0, 1.0)] * len(clips))]


def first_pose(ways: np.ndarray, small: float) -> int:
    """Frames at the beginning that hold another pose, from the ``(frames - 1, joints)`` metres of each step; see `size_ratio`."""
    mean = ways.mean(1)
    k = int(np.argmax(mean > 1e-5)) if len(mean) else 0  # before it the first pose is held
    if len(mean) <= k + 3 or mean[k] <= FIRST_WAY * small:
        return 0
    far = mean[k] > FIRST * np.percentile(mean[k + 1 :], 95) or ways[k].max() > FIRST / 2 * ways[k + 1 :].max()
    return k + 1 if far else 0


def _bones(clips: ClipSet, total: int) -> list[str]:
    skeleton, flaws = clips.skeleton, list[str]()
    if not skeleton.bones:
        return flaws
    names = [skeleton.names[child] for child, _ in skeleton.bones]
    mean, spread, change = bone_statistics(clips)
    if skeleton.coords == 2:  # they are foreshortened, which changes them slowly; those that point to the camera are not judged
        spread = np.where(mean > 0.3 * np.median(mean, axis=1, keepdims=True), change, 0)
    limit = LOOSE if skeleton.coords == 3 else RESTLESS * max(1.0, 20 / clips.fps)
    if (loose := (spread > limit) & (mean > 1e-3)).any():
        worst = [b for b in np.argsort(-loose.sum(0)) if loose[:, b].any()]
        how = " from frame to frame" if skeleton.coords == 2 else ""
        flaws.append(
            f"{_where(clips, loose, total)} the lengths of bones vary by more than {100 * limit:.0f} %{how}, most often "
            f"{', '.join(names[b] for b in worst[:3])} (up to {100 * spread[loose].max():.0f} %): positions are noisy, or not "
            "those of the joints"
        )
    if (pairs := skeleton.bone_pairs) and skeleton.coords == 3:  # in a picture they are foreshortened
        a, b = (mean[:, side] for side in np.array(pairs).T)
        if (uneven := np.abs(a - b) / np.maximum((a + b) / 2, 1e-9) > UNEVEN).any():
            k = int(uneven.sum(0).argmax())
            i = int(uneven[:, k].argmax())
            flaws.append(
                f"{_where(clips, uneven, total)} left and right bones differ: {names[pairs[k][0]]} {100 * a[i, k]:.0f} and "
                f"{100 * b[i, k]:.0f} cm; are the names of the joints in the files' order?"
            )
    if (empty := (mean < 1e-4).all(0)).any():
        flaws.append(f"these joints lie on their parents: {', '.join(names[b] for b in np.flatnonzero(empty))}")
    return flaws


def _motion(clips: ClipSet, total: int, places: Sequence[tuple[int, float]]) -> list[str]:
    skeleton, fps, flaws = clips.skeleton, clips.fps, list[str]()
    n = len(clips)
    fast, jumps, still, tempo, first = np.zeros(n), np.zeros(n, int), np.zeros(n, bool), np.full(n, np.nan), np.zeros(n, int)
    frozen: list[str | None] = []
    repeated: list[str | None] = []
    bones = np.full(len(skeleton.names), np.nan)
    if skeleton.bones:
        bones[[child for child, _ in skeleton.bones]] = np.median(bone_statistics(clips)[0], axis=0)
    small = size_ratio(body_size(bones, skeleton), skeleton)
    # Bodies that move alike have speeds that grow with the root of their size.
    fastest, teleporting = FAST * small**0.5, float(f"{TELEPORT * small**0.5:.2g}")
    for i in range(n):
        positions = clips.recording(i).numpy()
        if len(positions) < 2:
            continue
        begin, frame = places[i]
        ways = np.linalg.norm(np.diff(positions, axis=0), axis=-1)
        fast[i], still[i] = ways.max() * fps, ways.max() * fps < STILL * small
        mean = ways.mean(1)
        if i == 0 or clips.sources[i] != clips.sources[i - 1] or begin <= places[i - 1][0]:  # no later piece of the same
            first[i] = first_pose(ways, small)
        body = np.median(ways, axis=1)
        around = np.lib.stride_tricks.sliding_window_view(np.pad(mean, 3, mode="edge"), 7).min(1)  # large too while running
        teleport = find_jumps(positions, skeleton, teleporting / fps) & (mean > 3 * around)
        jumps[i] = int((teleport | (body > fastest / fps))[first[i] :].sum())
        moving = ways.max(1) > 1e-6
        moves = np.flatnonzero(np.concatenate([[True], moving, [True]]))
        at = int(np.argmax(np.diff(moves)))
        if not still[i] and (np.diff(moves)[at] - 1) / fps >= FROZEN:
            a, b = (round(begin + frame * k) for k in (moves[at], moves[at + 1] - 1))
            frozen.append(f"{clips.sources[i]} from frame {a} to {b}")
        elif not still[i] and moving.mean() < REPEATED:
            repeated.append(f"{clips.sources[i]}, as at {fps * moving.mean():.3g} fps")
        tempo[i] = _tempo((positions - positions[:, [skeleton.root]]) / small, fps)
    if first.any():
        skip = max(begin + int(np.ceil(k * frame - 1e-6)) for k, (begin, frame) in zip(first.tolist(), places, strict=True) if k)
        flaws.append(
            f"{_where(clips, first > 0, total)} the first step is many times as long as the others: a T-pose{SET}"
            f"data.on_outlier=fix to leave it out, or data.skip={skip} to leave the first "
            f"{'frame' if skip == 1 else f'{skip} frames'} of every recording out"
        )
    if jumps.any():
        flaws.append(
            f"{_where(clips, jumps > 0, total)} the body jumps at once, or its sides are exchanged, {jumps.sum()} times{SET}"
            f"data.max_speed={teleporting:g} to cut there"
        )
    if (too_fast := (fast > fastest) & (jumps == 0) & (first == 0)).any():
        flaws.append(
            f"{_where(clips, too_fast, total)} a joint is faster than {fastest:.3g} m/s, up to "
            f"{fast[too_fast].max():.1f}: noise, or another frame rate than said?"
        )
    if frozen:
        flaws.append(f"{in_recordings(frozen, total)} nothing moves for over {FROZEN:g} s: cut these frames out of the files")
    if repeated:
        flaws.append(
            f"{in_recordings(repeated, total)} many frames repeat the one before: were they recorded at a lower frame rate?"
        )
    if still.any():
        flaws.append(f"{_where(clips, still, total)} nothing moves")
    times, odd = _compared(tempo, clips.labels.numpy())
    if odd.any():
        flaws.append(
            f"{_where(clips, odd, total)} the body moves {', '.join(f'{t:.2g}' for t in times[odd][:3])} times as fast as in "
            "others that do the same: is the frame rate of these files right?"
        )
    seen: dict[int, str | None] = {}
    twice = []
    for i, source in enumerate(clips.sources):
        before = seen.setdefault(hash(clips.recording(i).numpy().tobytes()), source)
        if before != source:
            twice.append(f"{source} = {before}")
    if twice:
        flaws.append(f"{in_recordings(twice, total)} a recording is there twice")
    return flaws


def _tempo(pose: np.ndarray, fps: float) -> float:
    """Radians per second at which positions relative to the root swing about their mean; NaN for a body that hardly moves."""
    size = np.median(((pose - pose.mean(0)) ** 2).sum((1, 2)))
    speed = np.median((np.diff(pose, axis=0) ** 2).sum((1, 2))) * fps**2
    return float(np.sqrt(speed / size)) if size > 0.01 and speed > 0 else np.nan


def _compared(tempo: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(recordings,)`` each: how many times as fast as the median of its label, and whether that is beyond its like. Labels of
    one or two recordings are taken together."""
    times, odd = np.ones(len(tempo)), np.zeros(len(tempo), dtype=bool)
    counts = {label: int(((labels == label) & np.isfinite(tempo)).sum()) for label in set(labels.tolist())}
    groups = np.array([label if counts[label] > 2 else -2 for label in labels.tolist()])
    for group in np.unique(groups):
        which = np.flatnonzero((groups == group) & np.isfinite(tempo))
        if len(which) > (2 if group > -2 else FEW):
            away = np.log(tempo[which]) - np.median(np.log(tempo[which]))
            times[which] = np.exp(away)
            least = np.log(FACTOR if len(which) > FEW else FEW_FACTOR)
            # Three quarters of a normal distribution lie within 1.15 standard deviations.
            odd[which] = np.abs(away) > max(least, 6 * np.quantile(np.abs(away), 0.75, method="lower"))
    return times, odd


def _where(clips: ClipSet, which: np.ndarray, total: int) -> str:
    return in_recordings([clips.sources[i] for i in np.argwhere(which)[:, 0].tolist()], total)


def lost_flaws(zeros: Mapping[str, np.ndarray], skeleton: Skeleton, recordings: int, repairable: bool) -> list[str]:
    """Positions at the origin by recording and joint, ``(joints,)`` each, in words."""
    if not zeros:
        return []
    number = np.sum(list(zeros.values()), axis=0)
    most = ", ".join(f"{skeleton.names[j]} {number[j]}" for j in np.argsort(-number)[:3] if number[j])
    return [
        f"{in_recordings(list(zeros), recordings)} {number.sum()} positions are exactly 0 in all coordinates, most often of "
        f"{most}, as where nothing was seen{'; set data.lost=zeros' if repairable else ''}"
    ]


def repair_flaws(repairs: Mapping[str, Counter[str]], report: CleaningReport) -> list[str]:
    """What cleaning found, by recording, in words."""
    done = {
        "lost": f"positions were not seen: {report.filled} of them are interpolated, {report.frames_lost} frames are removed",
        "jumps": "steps are jumps of the body, or exchanges of its sides: the recordings are cut there",
        "spikes": "positions are spikes of one frame: they are interpolated, or cut out",
    }
    flaws = []
    for kind, numbers in repairs.items():
        if who := [source for source, number in numbers.items() if number]:
            flaws.append(f"{in_recordings(who, report.recordings)} {numbers.total()} {done[kind]}")
    if unused := [source for source, why in report.dropped if why != DROPPED]:
        flaws.append(f"{in_recordings(unused, report.recordings)} nothing is used, as said above")
    return flaws
