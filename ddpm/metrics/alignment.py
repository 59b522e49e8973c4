"""Clips without their place on the ground and their heading, which say nothing about the quality of a motion."""

from torch import Tensor

from ddpm.clips import Clips, turned
from ddpm.skeleton import Skeleton


def has_heading(skeleton: Skeleton) -> bool:
    """Whether clips can be turned to one heading: in 3-D this needs left/right pairs, in 2-D nothing is turned."""
    return skeleton.coords == 2 or len(skeleton.left_right) > 0


def local_poses(clips: Clips) -> Tensor:
    """``(n, frames, joints, coords)``: every frame with its root above the origin and the same heading.

    Raises:
        ValueError: a 3-D skeleton without left/right pairs. The same holds for `anchored`.
    """
    return turned(_centred(clips, clips.positions[:, :, clips.skeleton.root]), clips.skeleton, None)


def anchored(clips: Clips) -> Tensor:
    """``(n, frames, joints, coords)``: every clip with its first root above the origin and the same mean heading."""
    return turned(_centred(clips, clips.positions[:, :1, clips.skeleton.root]), clips.skeleton, clips.mask)


def _centred(clips: Clips, place: Tensor) -> Tensor:
    if not has_heading(clips.skeleton):
        raise ValueError("metrics: a heading needs left_right pairs in the skeleton")
    offset = place.clone()
    offset[..., clips.skeleton.up_axis] = 0
    return clips.positions - offset[:, :, None]
