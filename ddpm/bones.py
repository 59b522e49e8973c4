"""Bones of constant length."""

import torch
from torch import Tensor

from ddpm.skeleton import Skeleton


def rigid_bones(clips: Tensor, skeleton: Skeleton) -> Tensor:
    """Clips in which every bone keeps its direction and has one length: its median in the clip, and of a left and a right bone
    that are each other's mirror image the mean of both. The root stays where it is.

    Clips are ``(batch, joint, coord, frame)`` in metres.
    """
    if not skeleton.bones:
        return clips
    child, parent = (torch.tensor(ends, device=clips.device) for ends in zip(*skeleton.bones, strict=True))
    bone = clips[:, child] - clips[:, parent]
    length = torch.linalg.vector_norm(bone, dim=2, keepdim=True)
    # The lower median, which median() computes too, but not deterministically on every device.
    median = length.sort(dim=3).values[..., (clips.shape[-1] - 1) // 2, None]
    if skeleton.bone_pairs:
        sides = torch.tensor(skeleton.bone_pairs, device=clips.device).T
        median[:, sides] = median[:, sides].mean(1, keepdim=True)
    bone = bone * (median / length.clamp(min=1e-6))
    # [joint][bone], 1 where a bone lies between the root and a joint, which is at the root plus the sum of these bones.
    above = torch.zeros(len(skeleton.names), len(skeleton.bones), dtype=clips.dtype)
    column = {joint: number for number, (joint, _) in enumerate(skeleton.bones)}
    for joint in range(len(skeleton.names)):
        place = joint
        while place != skeleton.root:
            above[joint, column[place]] = 1
            place = skeleton.parents[place]
    with torch.autocast(clips.device.type, enabled=False):
        return clips[:, skeleton.root : skeleton.root + 1] + torch.einsum("jb,nbcf->njcf", above.to(clips.device), bone)
