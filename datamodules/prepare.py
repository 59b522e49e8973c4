"""From recordings of any kind to a ClipSet: joints, units, cleaning, frame rate, floor."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from datamodules.cleaning import DROPPED, CleaningReport, clean, set_floor
from datamodules.clip_set import ClipSet, Recording
from datamodules.flaws import find_flaws, first_pose, lost_flaws, repair_flaws
from datamodules.frame_rates import FrameRates
from datamodules.joints import plan, without
from datamodules.outliers import BODY, PEOPLE, SET, SIZES, Look, body_size, find_outliers, fixed, is_person, look_of, size_ratio
from datamodules.readers import bvh_file
from ddpm.errors import DataError
from ddpm.resampling import resample
from ddpm.skeleton import UNITS, Skeleton

Floor = Literal["recording", "common", False]
OnOutlier = Literal["refuse", "drop", "fix", "keep"]
FAR = 1000.0  # metres from the origin beyond which a position is an error


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
    skip: int = 0,
    on_outlier: OnOutlier = "refuse",
    scale: float | None = None,
) -> ClipSet:
    """Bring recordings to one skeleton, unit and frame rate, and repair them.

    A recording in which tracking was lost for long becomes several, of one name, so that a split by sequence keeps them together.

    Args:
        fps: frames per second of recordings that do not say theirs, or whose time may count frames.
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
        skip: frames left out at the beginning of every recording, a T-pose.
        on_outlier: what to do with bodies whose size differs by a factor over 1.8 from the usual one, or that stand along another
            axis than most: ``refuse`` the data, ``drop`` these recordings, ``fix`` them, by a factor or a turn to the skeleton's
            axis, and leave out a T-pose that one begins with, or ``keep`` them as they are. Some whose left and right are
            exchanged are not refused, but dropped or fixed.
        scale: by which a reader multiplied positions, for messages; None: it has no such option.

    Raises:
        DataError: joints, rates or units that do not fit, positions that are not finite, outliers to refuse, or nothing left.
        ValueError: a limit outside its range.
    """
    for key, value in {"fps": fps, "target_fps": target_fps, "max_speed": max_speed}.items():
        if value is not None and not 0 < value < np.inf:
            raise ValueError(f"data.{key}={value} must be a positive number, or null")
    if skip < 0:
        raise ValueError(f"data.skip={skip} must not be negative")
    if max_gap < 0 or min_seconds < 0 or not 0 <= min_confidence <= 1:
        need = "max_gap >= 0, min_seconds >= 0 and min_confidence in [0, 1]"
        raise ValueError(f"data: needs {need}, got {max_gap=}, {min_seconds=}, {min_confidence=}")
    if floor not in get_args(Floor):
        raise ValueError(f"data.floor={floor} must be recording, common or false")
    if on_outlier not in get_args(OnOutlier):
        raise ValueError(f"data.on_outlier={on_outlier} must be refuse, drop, fix or keep")
    report, rates = CleaningReport(), FrameRates(fps)
    replaced: dict[str, str] = {}
    spare: dict[str, None] = {}
    zeros: dict[str, np.ndarray] = {}
    unseen: dict[str, None] = {}  # joints of the skeleton that are lost in all of a recording
    said: Counter[str] = Counter()
    scales: list[float] = []
    plans: dict[tuple[tuple[str, ...] | None, tuple[int, ...]], np.ndarray] = {}
    found: list[tuple[Recording, np.ndarray, float]] = []  # in metres, what was seen, frames per second
    looks: list[Look] = []
    for r in recordings:
        r = replace(r, positions=r.positions[skip:], confidence=None if r.confidence is None else r.confidence[skip:])
        seen = _seen(r, lost, min_confidence)
        if not seen.any():  # its joints may be unknown
            dropped = ((r.source, "without a tracked frame" if len(seen) or not skip else f"not longer than data.skip={skip}"),)
            report += CleaningReport(1, frames=len(seen), frames_lost=len(seen), lost=seen.size, dropped=dropped)
            continue
        rate = rates.add(r)
        said.update([r.note] if r.note else [])
        key = (r.joints, r.positions.shape[1:])
        if key not in plans:
            weights, others, unused = plan(r, skeleton, retarget or {})
            plans[key] = weights.astype(np.float64)
            replaced |= others
            spare |= dict.fromkeys(unused)
        weights = plans[key]
        for frame, joint in np.argwhere(seen & ~np.isfinite(r.positions).all(-1))[:1]:
            bad = r.positions[frame, joint]
            where = f"{r.source}: frame {skip + frame}, joint {joint if r.joints is None else r.joints[joint]}: {bad.tolist()}"
            if np.isinf(bad).any():
                raise DataError(f"{where} is infinite; repair or remove the file, or write nan there and set data.lost=nans")
            raise DataError(
                f"{where} is no position; repair or remove the file, or, if NaN marks what was not seen, set data.lost=nans"
            )
        positions = weights @ np.where(seen[..., None], r.positions, 0)
        seen = seen.astype(int) @ (weights.T > 0) == (weights > 0).sum(1)
        unseen |= dict.fromkeys(skeleton.names[j] for j in np.flatnonzero(~seen.any(0)))
        if (at_zero := _at_zero(positions, seen, skeleton.root)).any():
            zeros[r.source] = at_zero.sum(0) + zeros.get(r.source, 0)
        metres = UNITS[skeleton.units if r.units is None else r.units]  # None in a picture
        own = look_of(positions, seen, skeleton)
        if metres is None:
            size = body_size(own.bones, skeleton)
            seen &= size > 0
            metres = BODY / (size or BODY)
            scales.append(metres)
        looks.append(own.scaled(metres))
        found.append((replace(r, positions=np.where(seen[..., None], metres * positions, 0).astype(np.float32)), seen, rate))
    if not found and not report.recordings:
        raise DataError(f"{name}: no recordings")
    rates.check(name, target_fps)
    sources = [r.source for r, *_ in found]
    total = report.recordings + len(found)
    outliers = find_outliers(looks, sources, skeleton, bool(scales), total)
    flaws, size = rates.flaws(total), outliers.size
    advice = _other_units(size, found[0][0], skeleton, scale) if size else ""
    if len(skeleton.names) > 2 and size and not SIZES[0] <= size <= SIZES[1]:
        raise DataError(
            f"{name}: half of the bodies are {'over' if size > 1 else 'under'} {size:.3g} m along their bones, expected "
            f"{SIZES[0]} to {SIZES[1]:g} m; {advice}"
        )
    if size and is_person(skeleton) and not PEOPLE[0] <= size <= PEOPLE[1]:
        flaws.append(f"the bodies are {size:.2g} m along their bones; if they are people, whose are {BODY:g} m; {advice}")
    if on_outlier == "refuse" and outliers.severe:
        raise DataError(f"{name}: {'; '.join(outliers.severe)}")

    small, posed = size_ratio(size, skeleton), 0
    kept: list[Recording] = []
    places: list[tuple[int, float]] = []  # of each: its first frame in its file, and frames of that to one of its own
    repairs: dict[str, Counter[str]] = {"lost": Counter(), "jumps": Counter(), "spikes": Counter()}
    found.reverse()  # each is freed once it is cleaned
    for odd, factor, axis, own in zip(outliers.odd, outliers.factors, outliers.stands, looks, strict=True):
        r, seen, rate = found.pop()
        positions = r.positions
        if odd and on_outlier == "drop":
            dropped = ((r.source, DROPPED),)
            report += CleaningReport(1, frames=len(seen), frames_dropped=len(seen), dropped=dropped)
            continue
        if on_outlier == "fix" and (odd or own.mirrored or axis not in ("", skeleton.up)):
            positions, seen = fixed(positions, seen, skeleton, float(factor), replace(own, up=str(axis) or None))
        if (far := float(np.abs(positions).max(initial=0))) > FAR and (factor == 1 or on_outlier == "fix"):
            size = body_size(own.bones, skeleton)
            raise DataError(
                f"{r.source}: a position is {far:.3g} m from the origin, at most {FAR:g} are, and the body is "
                f"{size:.3g} m along its bones; if the file is correct, {_other_units(size, r, skeleton, scale)}"
            )
        pieces, done = clean(
            positions, ~seen, skeleton, fps=rate, source=r.source, longest=longest,
            max_gap=round(max_gap * rate), min_frames=max(1, round(min_seconds * rate)),
            max_speed=1e9 if max_speed is None else max_speed,
        )  # fmt: skip
        held = 0
        if on_outlier == "fix" and done.starts[:1] == (0,):
            held = first_pose(np.linalg.norm(np.diff(pieces[0], axis=0), axis=-1), small)
            pieces[0] = pieces[0][held:]
            posed += held > 0
        report += replace(done, frames_kept=done.frames_kept - held, frames_cut=done.frames_cut + held)
        for kind, number in repairs.items():
            number[r.source] += getattr(done, kind)
        for piece, start in zip(pieces, done.starts, strict=True):
            places.append((skip + start + held * (start == 0), rate / (target_fps or rate)))
            piece = resample(piece, rate, target_fps or rate)
            piece = set_floor(piece, skeleton) if floor == "recording" else piece
            kept.append(Recording(piece, r.source, r.label, r.subject, condition=r.condition))
    notes = [report.summary(), *(f"{number} recordings: {note}" for note, number in said.items())]
    if replaced:
        notes.append(f"joints under other names: {', '.join(f'{joint} is {way}' for joint, way in replaced.items())}")
    if spare:
        notes.append(f"joints of the files that the skeleton does not have: {', '.join(spare)}")
    notes += rates.notes(target_fps)
    if scales:
        notes.append(
            f"{len(scales)} recordings in pixels scaled to bodies of one size ({BODY:g} m along the bones), by "
            f"{min(scales):.3g} to {max(scales):.3g} m a pixel"
        )
    if on_outlier == "fix":
        notes += [f"mended: {flaw.split(SET)[0]}" for flaw in outliers.flaws]
        notes += [f"mended: a T-pose at the beginning of {posed} recordings is left out"] if posed else []
    else:
        if on_outlier == "drop":
            stay = np.flatnonzero(~outliers.odd).tolist()
            outliers = find_outliers([looks[i] for i in stay], [sources[i] for i in stay], skeleton, bool(scales), total)
        flaws += outliers.flaws
    if not kept:
        why = "; ".join((*notes[:1], *outliers.flaws))
        remedies = f"lower data.skip={skip}; or " if skip else ""
        remedies += f"{without(skeleton, unseen)}; or " if unseen else ""
        raise DataError(
            f"{name}: cleaning left nothing: {why}; {remedies}check the frame rate, and the limits of gaps, lengths and speeds "
            "in data (--cfg job shows their keys)"
        )
    if floor == "common":
        together = set_floor(np.concatenate([r.positions for r in kept]), skeleton)
        parts = np.split(together, np.cumsum([len(r.positions) for r in kept])[:-1])
        kept = [replace(r, positions=part) for r, part in zip(kept, parts, strict=True)]
    clips = ClipSet.from_recordings(kept, fps=target_fps or next(iter(rates.by_rate)), skeleton=skeleton, notes=notes)
    flaws += [
        *lost_flaws(zeros, skeleton, total, scale is None),
        *repair_flaws(repairs, report),
        *find_flaws(clips, total, places),
    ]
    return replace(clips, flaws=tuple(flaws))


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


def _at_zero(positions: np.ndarray, seen: np.ndarray, root: int) -> np.ndarray:
    """``(frames, joints)`` bool: what lies exactly at the origin, except a root that data are centred on, or stand at first."""
    zero = seen & (positions == 0).all(-1)
    if zero.all():
        return zero
    on_root = (positions == positions[:, [root]]).all((0, 2))
    return zero & ~(on_root & (np.logical_and.accumulate(zero, axis=0) | (zero.sum(0) < 2)))


def _other_units(size: float, r: Recording, skeleton: Skeleton, scale: float | None) -> str:
    """What to do about a body of implausible ``size`` in metres, in a recording or in all that are like it."""
    raw = size / (scale or UNITS[r.units or skeleton.units] or 1)

    def far(metres: float) -> float:
        return abs(np.log(raw * metres / BODY))

    if scale is not None:
        unit = min(filter(None, UNITS.values()), key=far)
        return f"set data.scale={unit if far(unit) < 0.3 else BODY / raw:.4g}"
    if r.units is not None:
        advice = f"their unit, known from the files, is not {r.units}: correct the files"
        if not r.source.lower().endswith(".bvh"):
            return advice
        return f"{advice}, or {_other_units(size, r, skeleton, bvh_file.SCALE).replace('set', 'read BVH with data=bvh')}"
    others = {unit: metres for unit, metres in UNITS.items() if metres is not None and unit != skeleton.units}
    near = sorted((unit for unit, metres in others.items() if SIZES[0] <= raw * metres <= SIZES[1]), key=lambda u: far(others[u]))
    fit = [f"skeleton.units={unit}" for unit in (near[:1] if is_person(skeleton) else near)]
    picture = "skeleton.units=px to scale every body to one size"
    return f"set {', or '.join([picture, *fit] if skeleton.coords == 2 else fit or [picture])}"
