"""From recordings of any kind to a ClipSet: joints, units, cleaning, frame rate, floor."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Literal, get_args

import numpy as np

from datamodules.cleaning import CleaningReport, clean, resample, set_floor
from datamodules.clip_set import ClipSet, Recording
from datamodules.joints import plan
from ddpm.errors import DataError
from ddpm.skeleton import UNITS, Skeleton

BODY = 1.4
"""Size in metres that a body in a picture is scaled to. The size is the longest way along the bones from the root: in the shipped
skeletons 1.3 to 1.6 m, from the hips to a hand or from the nose to an ankle."""
SIZES = (0.03, 10.0)
"""Sizes in metres that are plausible; beyond, the units are wrong."""
Floor = Literal["recording", "common", False]
FAR = 1000.0
"""Metres from the origin beyond which a position is an error."""


def prepare(
    recordings: Iterable[Recording],
    skeleton: Skeleton,
    *,
    name: str,
    fps: float | None = None,
    target_fps: float | None = None,
    lost: Literal["nans", "zeros"] | None = None,
    min_confidence: float = 0.0,
    max_gap: float = 0.25,
    min_seconds: float = 0.5,
    max_speed: float | None = 6.0,
    longest: bool = False,
    floor: Floor = "recording",
    retarget: Mapping[str, str | Sequence[str]] | None = None,
) -> ClipSet:
    """Bring recordings to one skeleton, unit and frame rate, and repair them.

    A recording in which tracking was lost for long becomes several, of one name, so that a split by sequence keeps them together.

    Args:
        recordings: as readers return them.
        skeleton: the joints they get.
        name: of the data, for messages.
        fps: frames per second of recordings that do not say theirs.
        target_fps: that all get; None if they have the same.
        lost: what else than confidence 0 marks a lost position: ``nans``, or ``zeros`` in all coordinates; None: nothing, and a
            position that is not finite is an error.
        min_confidence: below it a position is lost.
        max_gap: seconds of lost positions that are interpolated.
        min_seconds: shorter recordings are dropped.
        max_speed: metres per second; a joint that goes and returns faster is a spike, a body that goes is a jump, at which a
            recording is cut. None: neither is looked for.
        longest: keep only the longest sound stretch of a recording.
        floor: what to shift so that the lower foot is at height 0 half of the time: every ``recording`` by itself, or all by one
            ``common`` height, for recordings of one room, where people jump or climb. False: nothing.
        retarget: see `datamodules.joints.plan`.

    Raises:
        DataError: joints, rates or units that do not fit, positions that are not finite, or nothing left.
        ValueError: a limit outside its range.
    """
    for key, value in {"fps": fps, "target_fps": target_fps, "max_speed": max_speed}.items():
        if value is not None and not 0 < value < np.inf:
            raise ValueError(f"data.{key}={value} must be a positive number, or null")
    if max_gap < 0 or min_seconds < 0 or not 0 <= min_confidence <= 1:
        need = "max_gap >= 0, min_seconds >= 0 and min_confidence in [0, 1]"
        raise ValueError(f"data: needs {need}, got {max_gap=}, {min_seconds=}, {min_confidence=}")
    if floor not in get_args(Floor):
        raise ValueError(f"data.floor={floor} must be recording, common or false")
    above = _above(skeleton)
    kept: list[Recording] = []
    report, rates = CleaningReport(), Counter[float]()
    replaced: dict[str, str] = {}
    spare: dict[str, None] = {}
    scales: list[float] = []
    sizes: list[tuple[float, str | None]] = []  # metres, and the unit that the file says
    plans: dict[tuple[tuple[str, ...] | None, tuple[int, ...]], np.ndarray] = {}
    for r in recordings:
        seen = _seen(r, lost, min_confidence)
        if not seen.any():  # perhaps not even its joints are known
            dropped = ((r.source, "without a tracked frame"),)
            report += CleaningReport(1, frames=len(seen), frames_lost=len(seen), lost=seen.size, dropped=dropped)
            continue
        rate = _rate(r, fps)
        rates[rate] += 1
        key = (r.joints, r.positions.shape[1:])
        if key not in plans:
            weights, others, unused = plan(r, skeleton, retarget or {})
            plans[key] = weights.astype(np.float64)
            replaced |= others
            spare |= dict.fromkeys(unused)
        weights = plans[key]
        for frame, joint in np.argwhere(seen & ~np.isfinite(r.positions).all(-1))[:1]:
            raise DataError(
                f"{r.source}: frame {frame}, joint {joint if r.joints is None else r.joints[joint]}: "
                f"{r.positions[frame, joint].tolist()} is no position; repair or remove the file, or, if NaN marks what was not "
                "seen, set data.lost=nans"
            )
        positions = weights @ np.where(seen[..., None], r.positions, 0)
        seen = seen.astype(int) @ (weights.T > 0) == (weights > 0).sum(1)
        metres = UNITS[skeleton.units if r.units is None else r.units]  # None in a picture
        size = _size(positions, seen, skeleton, above)
        if metres is None:
            seen &= size > 0
            metres = BODY / (size or BODY)
            scales.append(metres)
        elif size > 0:
            sizes.append((size * metres, r.units))
        positions = np.where(seen[..., None], metres * positions, 0).astype(np.float32)
        if (far := float(np.abs(positions).max(initial=0))) > FAR:
            raise DataError(
                f"{r.source}: a position is {far:.3g} m from the origin, at most {FAR:g} are, and the body is "
                f"{size * metres:.3g} m along its bones; if the file is sound, {_other_units(size, r.units, skeleton)}"
            )
        pieces, done = clean(
            positions, ~seen, skeleton, fps=rate, source=r.source, longest=longest,
            max_gap=round(max_gap * rate), min_frames=max(1, round(min_seconds * rate)),
            max_speed=1e9 if max_speed is None else max_speed,
        )  # fmt: skip
        report += done
        for piece in pieces:
            piece = resample(piece, rate, target_fps or rate)
            piece = set_floor(piece, skeleton) if floor == "recording" else piece
            kept.append(Recording(piece, r.source, r.label, r.subject))
    if not report.recordings:
        raise DataError(f"{name}: no recordings")
    if target_fps is None and rates and max(rates) - min(rates) > 1e-3 * min(rates):
        found = ", ".join(f"{number} at {rate:g}" for rate, number in sorted(rates.items())[:8])
        raise DataError(
            f"{name}: the recordings have several frame rates ({found}); set data.target_fps={min(rates):g} or another"
        )
    size, said = sorted(sizes, key=itemgetter(0))[len(sizes) // 2] if sizes else (BODY, None)
    if len(skeleton.names) > 2 and not SIZES[0] <= size <= SIZES[1]:
        raise DataError(
            f"{name}: half of the bodies are {'over' if size > 1 else 'under'} {size:.3g} m along their bones, expected "
            f"{SIZES[0]} to {SIZES[1]:g} m; {_other_units(size / (UNITS[said or skeleton.units] or 1), said, skeleton)}"
        )
    notes = [report.summary()]
    if replaced:
        notes.append(f"joints under other names: {', '.join(f'{joint} is {way}' for joint, way in replaced.items())}")
    if spare:
        notes.append(f"joints of the files that the skeleton does not have: {', '.join(spare)}")
    if target_fps is not None:
        changed = {rate: number for rate, number in sorted(rates.items()) if rate != target_fps}
        notes += [f"{number} recordings brought from {rate:g} to {target_fps:g} fps" for rate, number in changed.items()]
    if scales:
        notes.append(
            f"{len(scales)} recordings in pixels scaled to bodies of one size ({BODY:g} m along the bones), by "
            f"{min(scales):.3g} to {max(scales):.3g} m a pixel"
        )
    if not kept:
        raise DataError(f"{name}: cleaning left nothing: {notes[0]}; check max_gap, min_frames or min_seconds, and max_speed")
    if floor == "common":
        together = set_floor(np.concatenate([r.positions for r in kept]), skeleton)
        parts = np.split(together, np.cumsum([len(r.positions) for r in kept])[:-1])
        kept = [replace(r, positions=part) for r, part in zip(kept, parts, strict=True)]
    return ClipSet.from_recordings(kept, fps=target_fps or next(iter(rates)), skeleton=skeleton, notes=notes)


def _rate(r: Recording, fps: float | None) -> float:
    rate = fps if r.fps is None else r.fps
    if rate is None:
        raise DataError(f"{r.source}: does not say its frames per second; set data.fps=")
    if not 0.1 <= rate <= 10_000:
        raise DataError(f"{r.source}: {rate} frames per second, expected 0.1 to 10000; correct the file")
    return float(rate)


def _seen(r: Recording, lost: str | None, min_confidence: float) -> np.ndarray:
    """``(frames, joints)`` bool: where there is a position."""
    seen = np.ones(r.positions.shape[:2], bool)
    if r.confidence is not None:
        seen &= (r.confidence > 0) & (r.confidence >= min_confidence)
    if lost == "nans":
        seen &= ~np.isnan(r.positions).any(-1)
    if lost == "zeros":
        seen &= (r.positions != 0).any(-1)
    return seen


def _above(skeleton: Skeleton) -> np.ndarray:
    """``(joints, joints)`` bool: which joints' bones, each to its parent, lie between a joint and the root."""
    above = np.eye(len(skeleton.names), dtype=bool)
    for joint in range(len(above)):
        parent = skeleton.parents[joint]
        while parent >= 0:
            above[joint, parent] = True
            parent = skeleton.parents[parent]
    return above


def _size(positions: np.ndarray, seen: np.ndarray, skeleton: Skeleton, above: np.ndarray) -> float:
    """The longest way along the bones from the root, in the unit of the positions; 0 where no bone is seen."""
    child, parent = np.array(skeleton.bones, dtype=int).reshape(-1, 2).T
    both = seen[:, child] & seen[:, parent]
    usable = both.any(0)
    if not usable.any():
        return 0.0
    lengths = np.linalg.norm(positions[:, child] - positions[:, parent], axis=-1)
    bones = np.zeros(len(skeleton.names))
    # Bones are seen foreshortened in a picture: the long ones among their lengths are the true ones.
    bones[child[usable]] = np.nanpercentile(np.where(both, lengths, np.nan)[:, usable], 90, axis=0)
    return float((above @ bones).max())


def _other_units(size: float, said: str | None, skeleton: Skeleton) -> str:
    """What to do about a body of implausible ``size``; ``said`` is the unit that the file names, None if it names none."""
    if said is not None:
        return f"their unit, known from the files, is not {said}: correct the files, or read BVH with data=bvh data.scale="
    fit = [unit for unit, metres in UNITS.items() if metres is not None and SIZES[0] <= size * metres <= SIZES[1]]
    picture = "px, which scales every body to one size"
    found = [picture, *fit] if skeleton.coords == 2 else fit or [picture]
    return f"set skeleton.units={' or '.join(found)}"
