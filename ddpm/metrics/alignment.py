"""Clips without their place on the ground and their heading, which say nothing about the quality of a motion."""

import torch
from torch import Tensor

from ddpm.clips import Clips
from ddpm.skeleton import Skeleton


def has_heading(skeleton: Skeleton) -> bool:
    """Whether clips can be turned to one heading: in 3-D this needs left/right pairs, in 2-D nothing is turned."""
    return skeleton.coords == 2 or len(skeleton.left_right) > 0


def local_poses(clips: Clips) -> Tensor:
    """``(n, frames, joints, coords)``: every frame with its root above the origin and the same heading.

    Raises:
        ValueError: a 3-D skeleton without left/right pairs. The same holds for `anchored`.
    """
    return _turned(_centred(clips, clips.positions[:, :, clips.skeleton.root]), clips, per_frame=True)


def anchored(clips: Clips) -> Tensor:
    """``(n, frames, joints, coords)``: every clip with its first root above the origin and the same mean heading."""
    return _turned(_centred(clips, clips.positions[:, :1, clips.skeleton.root]), clips, per_frame=False)


def _centred(clips: Clips, place: Tensor) -> Tensor:
    offset = place.clone()
    offset[..., clips.skeleton.up_axis] = 0
    return clips.positions - offset[:, :, None]


def _turned(x: Tensor, clips: Clips, per_frame: bool) -> Tensor:
    """Turned about the vertical so that the person's left lies along the first ground axis."""
    skeleton = clips.skeleton
    if skeleton.coords == 2:
        return x
    if not has_heading(skeleton):
        raise ValueError("metrics: a heading needs left_right pairs in the skeleton")
    left, right = skeleton.across
    a, b = skeleton.ground_axes
    across = (x[:, :, left] - x[:, :, right]).sum(2)
    if not per_frame:
        across = (across * clips.mask[..., None]).sum(1, keepdim=True)
    angle = torch.atan2(across[..., b], across[..., a])[..., None]
    turned = x.clone()
    turned[..., a] = angle.cos() * x[..., a] + angle.sin() * x[..., b]
    turned[..., b] = angle.cos() * x[..., b] - angle.sin() * x[..., a]
    return turned
