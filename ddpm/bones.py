"""Bones of constant length: what a body has and a network only approximates."""

import torch
from torch import Tensor

from ddpm.skeleton import Skeleton


def _above(skeleton: Skeleton) -> list[list[int]]:
    """``[joint][bone]``, 1 where a bone lies between the root and a joint, which is the root and all of these bones."""
    column = {child: number for number, (child, _) in enumerate(skeleton.bones)}
    rows = [[0] * len(column) for _ in skeleton.names]
    for joint, row in enumerate(rows):
        place = joint
        while skeleton.parents[place] >= 0:
            row[column[place]] = 1
            place = skeleton.parents[place]
    return rows


def rigid_bones(clips: Tensor, skeleton: Skeleton) -> Tensor:
    """Clips in which every bone keeps its direction and has one length, its median in the clip. The root stays where it is.

    Args:
        clips: ``(batch, joint, coord, frame)`` in metres.
        skeleton: what the joints are.
    """
    if not skeleton.bones:
        return clips
    child, parent = (torch.tensor(ends, device=clips.device) for ends in zip(*skeleton.bones, strict=True))
    bone = clips[:, child] - clips[:, parent]
    length = torch.linalg.vector_norm(bone, dim=2, keepdim=True)
    # The lower median, which median() computes too, but not deterministically on every device.
    median = length.sort(dim=3).values[..., (clips.shape[-1] - 1) // 2, None]
    bone = bone * (median / length.clamp(min=1e-6))
    above = torch.tensor(_above(skeleton), device=clips.device, dtype=clips.dtype)
    with torch.autocast(clips.device.type, enabled=False):
        return clips[:, skeleton.root : skeleton.root + 1] + torch.einsum("jb,nbcf->njcf", above, bone)
