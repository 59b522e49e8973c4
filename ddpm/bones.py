"""Bones of constant length."""

import functools

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
    # What is traced, by torch.export or torch.compile, has no numbers that could be kept.
    tables = _tables.__wrapped__ if torch.compiler.is_compiling() else _tables
    child, parent, sides, above = tables(skeleton.parents, tuple(skeleton.bone_pairs), clips.device)
    bone = clips[:, child] - clips[:, parent]
    length = torch.linalg.vector_norm(bone, dim=2, keepdim=True)
    # The lower median, which median() computes too, but not deterministically on every device.
    median = length.sort(dim=3).values[..., (clips.shape[-1] - 1) // 2, None]
    if sides.numel() > 0:
        median[:, sides] = median[:, sides].mean(1, keepdim=True)
    bone = bone * (median / length.clamp(min=1e-6))
    with torch.autocast(clips.device.type, enabled=False):
        return clips[:, skeleton.root : skeleton.root + 1] + torch.einsum("jb,nbcf->njcf", above.to(clips.dtype), bone)


@functools.cache
@torch.inference_mode(False)  # what is made in one could not be differentiated through later
def _tables(
    parents: tuple[int, ...], pairs: tuple[tuple[int, int], ...], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The joints at the ends and at the beginnings of bones, the pairs of bones ``(2, pair)``, and ``(joint, bone)``: 1 where a
    bone lies between the root and a joint, which is at the root plus the sum of these bones."""
    children = [joint for joint, parent in enumerate(parents) if parent >= 0]
    above = torch.zeros(len(parents), len(children))
    for joint in range(len(parents)):
        place = joint
        while parents[place] >= 0:
            above[joint, children.index(place)] = 1
            place = parents[place]
    ends, beginnings = torch.tensor(children), torch.tensor([parents[joint] for joint in children])
    sides = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    return ends.to(device), beginnings.to(device), sides.to(device), above.to(device)
