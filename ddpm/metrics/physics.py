"""Physical measures, one number per clip, ``Clips -> (n,)`` float64.

Lower is not better (a frozen clip has no jerk): compare their distribution with that of real clips. Those that need bones, feet
or a floor raise a ValueError for skeletons without them.
"""

import torch
from torch import Tensor

from ddpm.clips import Clips, frame_mean
from ddpm.skeleton import Skeleton

CONTACT_HEIGHT = 0.05
"""Metres: a foot joint below it stands (Karunratanakul et al. 2023, GMD)."""

SKATING_SPEED = 0.5
"""Metres per second along the ground, above which a standing foot skates (GMD: 2.5 cm a frame at 20 frames per second)."""


def has_floor(skeleton: Skeleton) -> bool:
    """Whether feet and a floor at height 0 are known: a 3-D skeleton with feet."""
    return skeleton.coords == 3 and len(skeleton.feet) > 0


def speed(clips: Clips) -> Tensor:
    """Mean speed of the joints, m/s."""
    return _mean_norm(clips, 1)


def freeze_score(reference: Tensor, generated: Tensor) -> float:
    """Share of generated clips that hardly move: their ``(m,)`` `speed` is below that of 99 in 100 real ones, ``(n,)``."""
    return float((generated < reference.quantile(0.01)).double().mean())


def acceleration(clips: Clips) -> Tensor:
    """Mean length of the joints' acceleration, m/s^2."""
    return _mean_norm(clips, 2)


def jerk(clips: Clips) -> Tensor:
    """Mean length of the joints' jerk, m/s^3."""
    return _mean_norm(clips, 3)


def bone_variation(clips: Clips) -> Tensor:
    """Standard deviation over mean of a bone's length within a clip, averaged over the bones."""
    if not clips.skeleton.bones:
        raise ValueError("metrics: bone_variation needs a skeleton of more than one joint")
    lengths = bone_lengths(clips)
    mean = frame_mean(lengths, clips.mask)
    spread = frame_mean((lengths - mean[:, None]).square(), clips.mask).sqrt()
    return (spread / mean.clamp(min=1e-6)).mean(1)


def asymmetry(clips: Clips) -> Tensor:
    """Difference between a left and a right bone over their mean length, averaged over the pairs of bones."""
    if not (pairs := clips.skeleton.bone_pairs):
        raise ValueError("metrics: asymmetry needs left_right pairs of bones in the skeleton")
    mean = frame_mean(bone_lengths(clips), clips.mask)
    left, right = (mean[:, list(side)] for side in zip(*pairs, strict=True))
    return ((left - right).abs() / ((left + right) / 2).clamp(min=1e-6)).mean(1)


def skating_ratio(clips: Clips) -> Tensor:
    """Share of the steps between frames in which a foot joint stays within 5 cm of the floor and moves along it at over 0.5 m/s.

    Real clips do not have 0: feet swing close to the floor, and tracked ones shake.
    """
    standing, ground = _contacts(clips)
    velocity = ground.diff(dim=1).norm(dim=-1) * clips.fps
    skates = (standing[:, 1:] & standing[:, :-1] & (velocity > SKATING_SPEED)).any(2)
    return frame_mean(skates.double(), clips.mask[:, 1:])


def skating_distance(clips: Clips) -> Tensor:
    """How far a standing foot slides, cm: between the first and last frame of a contact, averaged over the contacts of a clip.

    The length of the path would add up the tremor of a tracked foot. Contacts of a single frame do not count; a clip without
    contacts has 0.
    """
    standing, ground = _contacts(clips)
    frame = torch.arange(standing.shape[1])[None, :, None].expand_as(standing)
    before, after = torch.zeros_like(standing), torch.zeros_like(standing)
    before[:, 1:], after[:, :-1] = standing[:, :-1], standing[:, 1:]
    start = torch.where(standing & ~before, frame, 0).cummax(1).values
    ends = standing & ~after & (frame > start)
    slid = (ground - ground.gather(1, start[..., None].expand_as(ground))).norm(dim=-1)
    return 100 * (slid * ends).sum((1, 2)) / ends.sum((1, 2)).clamp(min=1)


def penetration(clips: Clips) -> Tensor:
    """Depth of the lowest joint below the floor, cm, averaged over the frames; 0 where it is above."""
    _need_floor(clips.skeleton)
    return 100 * frame_mean((-clips.heights.amin(2)).clamp(min=0), clips.mask)


def pfc(clips: Clips) -> Tensor:
    """Physical foot contact score (Tseng et al. 2022, EDGE, as in their code): bodies speed up only on a standing foot.

    10^4 mean_i(|a_i| l_i r_i) / max_i |a_i|, where a is the acceleration of the root with falling taken out, and l and r how far
    the slower joint of the left and right foot moves along the ground in one frame. It depends on the frame rate and the size
    of the person: values compare only between clips of the same data.
    """
    skeleton = clips.skeleton
    if not has_sided_feet(skeleton):
        raise ValueError("metrics: PFC needs a 3-D skeleton with a left and a right foot among its feet and left_right pairs")
    force, mask = clips.derivative(2)
    force = force[:, :, skeleton.root]
    upwards = (skeleton.up_sign * force[..., skeleton.up_axis]).clamp(min=0)
    force = (upwards.square() + force[..., list(skeleton.ground_axes)].square().sum(-1)).sqrt() * mask
    step = clips.positions[..., list(skeleton.ground_axes)].diff(dim=1).norm(dim=-1)[:, 1:]
    left, right = (step[..., feet].amin(2) for feet in _sided_feet(skeleton))
    return 1e4 * frame_mean(force * left * right, mask) / force.amax(1).clamp(min=1e-9)


def has_sided_feet(skeleton: Skeleton) -> bool:
    """Whether a floor is known and each side has a foot."""
    return has_floor(skeleton) and all(_sided_feet(skeleton))


def _sided_feet(skeleton: Skeleton) -> tuple[list[int], list[int]]:
    feet = [skeleton.index(name) for name in skeleton.feet]
    return [j for j in feet if skeleton.side(j) == "left"], [j for j in feet if skeleton.side(j) == "right"]


def _mean_norm(clips: Clips, order: int) -> Tensor:
    values, mask = clips.derivative(order)
    return frame_mean(values.norm(dim=-1).mean(2), mask)


def bone_lengths(clips: Clips) -> Tensor:
    """``(n, frames, bones)`` metres."""
    child, parent = (list(ends) for ends in zip(*clips.skeleton.bones, strict=True))
    return (clips.positions[:, :, child] - clips.positions[:, :, parent]).norm(dim=-1)


def _contacts(clips: Clips) -> tuple[Tensor, Tensor]:
    """Whether a foot joint is in contact, ``(n, frames, feet)``, and its place on the ground, ``(n, frames, feet, 2)``."""
    _need_floor(clips.skeleton)
    feet = [clips.skeleton.index(name) for name in clips.skeleton.feet]
    standing = (clips.heights[..., feet] < CONTACT_HEIGHT) & clips.mask[..., None]
    return standing, clips.positions[:, :, feet][..., list(clips.skeleton.ground_axes)]


def _need_floor(skeleton: Skeleton) -> None:
    if not has_floor(skeleton):
        raise ValueError("metrics: contact with the floor needs a 3-D skeleton with feet")
