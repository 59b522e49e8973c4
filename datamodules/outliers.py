"""Bodies of recordings beside each other: their sizes, the axes along which they stand, their left and right."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from datamodules.clip_set import ClipSet
from ddpm.skeleton import AXES, Skeleton

BODY = 1.4
"""Size in metres that a body in a picture is scaled to. The size is the longest way along the bones from the root: in the shipped
skeletons 1.3 to 1.6 m, from the hips to a hand or from the nose to an ankle."""
SIZES = (0.03, 10.0)  # sizes in metres that are plausible; beyond, the units are wrong
PEOPLE = (0.75, 2.4)  # sizes in metres that people have
FACTOR = 1.8  # sizes, or tempi, that differ by more are of another unit, or of another frame rate
UPRIGHT = 0.8  # mean cosine between the way from the feet to the body and an axis, from which on one stands along that axis
NEAR, BELOW = 0.3, 0.08  # metres over and below the floor on which the others stand, between which a body lies or sits on it
MIRRORED = -0.3  # mean sine between where the toes point and the right, about 0.9 the other way in sound data; noise gives 0
SET = "; set "  # what stands behind it is the remedy


@dataclass(frozen=True)
class Look:
    """What a recording's body must have in common with the others'."""

    bones: np.ndarray  # (joints,) metres from each joint to its parent, NaN for the root and what was not seen
    up: str | None  # the axis it stands along for its whole length, None where that is not clear
    mirrored: bool  # left lies to the right of where the toes point
    ends: np.ndarray  # (2, coords) metres, the smallest and the largest coordinate of its joints, half of the time

    def scaled(self, metres: float) -> "Look":
        """The same body in another unit."""
        return replace(self, bones=self.bones * metres, ends=self.ends * metres)

    def level(self, up: str) -> float:
        """Metres along an axis at which its lowest joint is."""
        return float(-self.ends[1, AXES.index(up[-1])] if up.startswith("-") else self.ends[0, AXES.index(up)])


@dataclass(frozen=True)
class Outliers:
    """Recordings beside each other: ``(recordings,)`` what to multiply them by, the axes along which they stand, "" where that
    is not clear, and bool, which are unlike the others."""

    factors: np.ndarray
    stands: np.ndarray
    odd: np.ndarray
    size: float  # metres of the usual body along its bones, 0 where it is not known
    flaws: tuple[str, ...]  # in sizes, axes and sides
    severe: tuple[str, ...]  # those because of which data are refused


def look_of(positions: np.ndarray, seen: np.ndarray, skeleton: Skeleton) -> Look:
    """Judge ``(frames, joints, coords)`` by what was ``(frames, joints)`` bool seen."""
    bones = np.full(len(skeleton.names), np.nan)
    if skeleton.bones:
        child, parent = np.array(skeleton.bones).T
        both = seen[:, child] & seen[:, parent]
        usable = both.any(0)
        lengths = np.linalg.norm(positions[:, child] - positions[:, parent], axis=-1)
        # Bones are seen foreshortened in a picture: the long ones among their lengths are the true ones.
        percentile = 90 if skeleton.coords == 2 else 50
        if both.all():  # some twenty times as fast
            bones[child] = np.percentile(lengths, percentile, axis=0)
        else:
            bones[child[usable]] = np.nanpercentile(np.where(both, lengths, np.nan)[:, usable], percentile, axis=0)
    shown = seen.any(1)
    ends = np.zeros((2, skeleton.coords))
    if shown.any():
        lowest, highest = (np.where(seen[shown, :, None], positions[shown], far) for far in (np.inf, -np.inf))
        ends = np.stack([np.median(lowest.min(1), axis=0), np.median(highest.max(1), axis=0)])
    feet = [skeleton.index(name) for name in skeleton.feet]
    others = [j for j in range(len(bones)) if j not in feet]
    if not feet or not others:
        return Look(bones, None, False, ends)
    sides = [(positions[:, part] * seen[:, part, None]).sum(1) for part in (others, feet)]
    counts = [seen[:, part].sum(1)[:, None] for part in (others, feet)]
    shown = ((counts[0] > 0) & (counts[1] > 0))[:, 0]
    ways = sides[0][shown] / counts[0][shown] - sides[1][shown] / counts[1][shown]
    rise = ways.sum(0)
    axis = int(np.abs(rise).argmax())
    clear = np.abs(rise[axis]) > UPRIGHT * np.linalg.norm(ways, axis=-1).sum()  # not of a lying body or a cartwheel
    up = ("-" if rise[axis] < 0 else "") + AXES[axis] if clear else None
    return Look(bones, up, _is_mirrored(positions, seen, skeleton, rise), ends)


def _is_mirrored(positions: np.ndarray, seen: np.ndarray, skeleton: Skeleton, up: np.ndarray) -> bool:
    feet = [skeleton.index(name) for name in skeleton.feet]
    toes = [j for j in feet if skeleton.parents[j] in feet]
    heels = [skeleton.parents[j] for j in toes]
    left, right = skeleton.across
    shown = seen[:, [*toes, *heels, *left, *right]].all(1)
    if skeleton.coords == 2 or not toes or not left or not shown.any():
        return False
    positions = positions[shown]
    ahead = (positions[:, toes] - positions[:, heels]).mean(1)
    across = (positions[:, left] - positions[:, right]).mean(1)
    sizes = np.linalg.norm(ahead, axis=-1) * np.linalg.norm(across, axis=-1) * np.linalg.norm(up)
    agree = (np.cross(up, ahead) * across).sum(-1) / np.maximum(sizes, 1e-12)
    return float(agree.mean()) < MIRRORED


def body_size(bones: np.ndarray, skeleton: Skeleton) -> float:
    """Metres of the longest way along the bones from the root; 0 where no bone is seen."""
    lengths, far = np.nan_to_num(bones).tolist(), 0.0
    for joint in range(len(lengths)):
        way = 0.0
        while joint >= 0:
            way, joint = way + lengths[joint], skeleton.parents[joint]
        far = max(far, way)
    return far


def is_person(skeleton: Skeleton) -> bool:
    """Whether it has feet and as many joints as those of people."""
    return bool(skeleton.feet) and len(skeleton.names) >= 12


def size_ratio(size: float, skeleton: Skeleton) -> float:
    """How many times as large as people a body of ``size`` metres is, if it is smaller; 1 for others, and in pictures."""
    return size / BODY if skeleton.coords == 3 and 0 < size < PEOPLE[0] else 1.0


def find_outliers(looks: Sequence[Look], sources: Sequence[str], skeleton: Skeleton, scaled: bool, total: int) -> Outliers:
    """Compare bodies with each other and with the skeleton's axis.

    Args:
        scaled: bodies in pictures, which have no size of their own.
        total: number of recordings, including those without enough joints, for messages.
    """
    n = len(looks)
    factors = np.ones(n)
    sizes = np.array([body_size(own.bones, skeleton) for own in looks])
    known = np.sort(sizes[sizes > 0])
    flaws, severe, size = list[str](), list[str](), 0.0
    rest = "data.on_outlier=drop to leave them out, or data.on_outlier=keep to take them as they are"

    def who(which: np.ndarray) -> str:
        return in_recordings([sources[i] for i in np.flatnonzero(which).tolist()], total)

    if not scaled and len(known):
        size = float(known[(len(known) - 1) // 2])
        if is_person(skeleton):  # of two halves, the one that is nearer to a person is right
            size = min(size, float(known[len(known) // 2]), key=lambda s: abs(np.log(s / BODY)))
        usual = [own.bones for own, s in zip(looks, sizes, strict=True) if s > 0 and 1 / FACTOR <= s / size <= FACTOR]
        body = _median(np.array(usual))
        ratio = np.array([_median((own.bones / np.where(body > 0, body, np.nan))[:, None]).item() for own in looks])
        ratio = np.where(np.isfinite(ratio) & (ratio > 0), ratio, 1.0)
        other = (ratio > FACTOR) | (ratio < 1 / FACTOR)
        factors[other] = [_factor(1 / value) for value in ratio[other]]
        if other.any():
            times, by = (", ".join(sorted({f"{v:.4g}" for v in values[other]})[:3]) for values in (ratio, factors))
            severe.append(
                f"{who(other)} the body has another size, {times} times that of the others, which are {size:.3g} m along their "
                f"bones{SET}data.on_outlier=fix to multiply by {by}, {rest}"
            )
    stands = np.array([own.up or "" for own in looks], dtype="U2")
    clear = Counter(stands[stands != ""].tolist())
    most = max(clear, key=lambda up: (clear[up], up == skeleton.up), default=skeleton.up)
    resting = {up: _resting(looks, stands, up) for up in (most, skeleton.up)}
    most = max(resting, key=lambda up: int((resting[up] | (stands == up)).sum()))
    stands[resting[most]] = ""
    for up in dict.fromkeys(stands[stands != ""].tolist()):
        start = f"{who(stands == up)} the body stands along {up} and not along"
        if up != most:
            severe.append(
                f"{start} {most}: the feet are on the other side{SET}data.on_outlier=fix to turn them, {rest}, if they lie or sit"
            )
        elif up != skeleton.up:
            fixes = f"skeleton.up={up}, or data.on_outlier=fix to turn them, unless they lie or sit"
            flaws.append(f"{start} {skeleton.up}: the feet are on the other side{SET}{fixes}")
    mirrored = np.array([own.mirrored for own in looks], dtype=bool)
    if mirrored.any():
        flaws.append(
            f"{who(mirrored)} left and right are exchanged, or one axis is mirrored: left lies to the right of where the toes "
            f"point{SET}data.on_outlier=fix to exchange their names"
        )
    odd = (factors != 1) | ((stands != "") & (stands != most)) | (mirrored & (2 * mirrored.sum() < n))
    return Outliers(factors, stands, odd, size, (*severe, *flaws), tuple(severe))


def _resting(looks: Sequence[Look], stands: np.ndarray, up: str) -> np.ndarray:
    """``(recordings,)`` bool: bodies along another axis than ``up`` that lie, sit or stand on their hands.

    Its lowest joint is on the floor of those who stand along ``up``, and its feet are on no floor of that height along its own
    axis, as are those of most others like it. If no body stands along ``up``, all must have a floor in common along ``up``, and
    none along their own axes.
    """
    own, standing = (stands != "") & (stands != up), stands == up
    if not own.any():
        return own
    level = np.array([one.level(up) for one in looks])
    feet = np.array([one.level(axis or up) for one, axis in zip(looks, stands.tolist(), strict=True)])
    floor = float(np.median(level[standing if standing.any() else own]))
    rests = own & (floor - BELOW < level) & (level < floor + NEAR)
    if not standing.any():
        return rests & (rests[own].all() and own.sum() > 1 and np.ptp(np.percentile(feet[own], (10, 90))) > NEAR)
    for axis in set(stands[rests].tolist()):
        alike = rests & (stands == axis)
        rests[alike] = 2 * (np.abs(feet[alike] - floor) > NEAR).sum() > alike.sum()
    return rests


def outliers_among(clips: ClipSet, most: int = 5000) -> Outliers:
    """`find_outliers` of recordings in metres: of at most so many, spread evenly, by some 32 frames of each."""
    chosen = range(0, len(clips), -(-len(clips) // most))
    poses = [clips.recording(i)[:: max(1, int(clips.lengths[i]) // 32)].numpy() for i in chosen]
    looks = [look_of(own, np.ones(own.shape[:2], bool), clips.skeleton) for own in poses]
    return find_outliers(looks, [str(clips.sources[i]) for i in chosen], clips.skeleton, False, len(chosen))


def _median(values: np.ndarray) -> np.ndarray:
    """Over the first axis, of what is finite; NaN where nothing is."""
    out = np.full(values.shape[1:], np.nan)
    some = np.isfinite(values).any(0)
    out[some] = np.nanmedian(values[:, some], axis=0)
    return out


def _factor(wanted: float) -> float:
    """The ratio of two units nearest to ``wanted``, which no two people differ from; or that itself, if none is near."""
    ratios = {10.0**k for k in range(-3, 4)} | {0.0254 * 10**k for k in (0, 2, 3)} | {0.3048 * 10**k for k in (0, 2, 3)} | {12.0}
    near = min(ratios | {1 / ratio for ratio in ratios}, key=lambda ratio: abs(np.log(ratio / wanted)))
    return near if 1 / 1.12 < near / wanted < 1.12 else wanted


def fixed(positions: np.ndarray, seen: np.ndarray, skeleton: Skeleton, factor: float, own: Look) -> tuple[np.ndarray, np.ndarray]:
    """``(frames, joints, coords)`` multiplied, turned so that it stands along the skeleton's axis, its sides exchanged; and what
    is seen ``(frames, joints)`` of that."""
    out, up, mirrored = positions * np.float32(factor), own.up, own.mirrored
    if up not in (None, skeleton.up):
        a, b = AXES.index(up[-1]), skeleton.up_axis
        sign = (-1 if up.startswith("-") else 1) * skeleton.up_sign
        if a == b:  # half a turn, or in a picture, which has no depth, the other direction of the axis
            out[..., a] *= -1
            if skeleton.coords == 3:
                out[..., skeleton.ground_axes[-1]] *= -1
        else:
            out[..., a], out[..., b] = -sign * out[..., b], (sign * out[..., a]).copy()
        mirrored = look_of(out, seen, skeleton).mirrored
    return (out[:, skeleton.mirrored], seen[:, skeleton.mirrored]) if mirrored else (out, seen)


def in_recordings(names: Sequence[str | None], total: int) -> str:
    """``in 4 of 9 recordings (a, b, c, d)``, for names that may be there more than once."""
    names = list(dict.fromkeys(names))
    return f"in {len(names)} of {total} recordings ({', '.join(map(str, names[:5]))}{', ...' if len(names) > 5 else ''})"
