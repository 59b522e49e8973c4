"""Where a clip stands and which way it faces, and clips without that: places and headings are no quality of a motion."""

import torch
from torch import Tensor

from ddpm.clips import Clips
from ddpm.skeleton import Skeleton


def has_heading(skeleton: Skeleton) -> bool:
    """Whether a body of this skeleton can be turned to face one way: in 3-D by its left/right pairs, in 2-D there is no turn."""
    return skeleton.coords == 2 or len(skeleton.left_right) > 0


def local_poses(motions: Clips) -> Tensor:
    """``(n, frames, joints, coords)``: every frame with its root above the origin of the ground and facing one way.

    Raises:
        ValueError: a 3-D skeleton without left/right pairs.
    """
    return _turned(_on_the_spot(motions, motions.positions[:, :, motions.skeleton.root]), motions, per_frame=True)


def anchored(motions: Clips) -> Tensor:
    """``(n, frames, joints, coords)``: every clip with its first root above the origin and facing one way on average.

    Raises:
        ValueError: a 3-D skeleton without left/right pairs.
    """
    return _turned(_on_the_spot(motions, motions.positions[:, :1, motions.skeleton.root]), motions, per_frame=False)


def _on_the_spot(motions: Clips, place: Tensor) -> Tensor:
    offset = place.clone()
    offset[..., motions.skeleton.up_axis] = 0
    return motions.positions - offset[:, :, None]


def _turned(x: Tensor, motions: Clips, per_frame: bool) -> Tensor:
    """Turned about the vertical so that the person's left lies along the first ground axis."""
    skeleton = motions.skeleton
    if skeleton.coords == 2:
        return x
    if not has_heading(skeleton):
        raise ValueError("metrics: a heading needs left_right pairs in the skeleton")
    left, right = skeleton.across
    a, b = skeleton.ground_axes
    across = (x[:, :, left] - x[:, :, right]).sum(2)
    if not per_frame:
        across = (across * motions.mask[..., None]).sum(1, keepdim=True)
    angle = torch.atan2(across[..., b], across[..., a])[..., None]
    turned = x.clone()
    turned[..., a] = angle.cos() * x[..., a] + angle.sin() * x[..., b]
    turned[..., b] = angle.cos() * x[..., b] - angle.sin() * x[..., a]
    return turned
