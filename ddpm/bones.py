"""Bones of constant length: what a body has and a network only approximates."""

import torch
from torch import Tensor

from ddpm.skeleton import Skeleton


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
    bone = bone * (length.median(dim=3, keepdim=True).values / length.clamp(min=1e-6))
    # A joint is the root and all bones on the way to it.
    above = torch.zeros(len(skeleton.names), len(child), device=clips.device, dtype=clips.dtype)
    for joint in range(len(skeleton.names)):
        place = joint
        while skeleton.parents[place] >= 0:
            above[joint, [c for c, _ in skeleton.bones].index(place)] = 1
            place = skeleton.parents[place]
    with torch.autocast(clips.device.type, enabled=False):
        return clips[:, skeleton.root : skeleton.root + 1] + torch.einsum("jb,nbcf->njcf", above, bone)
