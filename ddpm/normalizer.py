"""Normalizer: metres <-> the space in which the diffusion runs: a linear map in the checkpoint, invertible for anchored clips."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Normalizer(nn.Module):
    """Joints relative to the root, each coordinate shifted to mean 0, root and body each divided by one scale.

    One scale for the whole body keeps its geometry (Bjorkstrand et al. 2025, arXiv 2510.12537): a bone is as stiff in the one
    space as in the other. Relative positions are free of the travel of the whole body. Clips are
    ``(batch, joint, coord, frame)``.

    Args:
        n_joints: J.
        n_coords: C.
        root: index of the root joint.
        travel: coordinates of the root that become steps from frame to frame, with a scale of their own; () for none. The way of
            a walker is a ramp, which no stationary process has, and beside it a person who stands is lost in the noise. The step
            of the first frame is that of the second; `inverse` starts at 0, where clips are anchored.
    """

    ways: Tensor
    mean: Tensor
    scale: Tensor
    fitted: Tensor

    def __init__(self, n_joints: int, n_coords: int, root: int = 0, travel: Sequence[int] = ()) -> None:
        super().__init__()
        self.root = root
        self.travel = list(travel)
        # The same on the device: to index with a list would copy it there, and wait, at every step.
        self.register_buffer("ways", torch.tensor(self.travel, dtype=torch.long), persistent=False)
        self.register_buffer("mean", torch.zeros(n_joints, n_coords, 1))
        self.register_buffer("scale", torch.ones(n_joints, n_coords if travel else 1, 1))
        self.register_buffer("fitted", torch.tensor(False))

    def fit(self, clips: Tensor, mask: Tensor | None = None) -> None:
        """Measure mean and scales of clips in metres; ``mask`` is ``(batch, 1, 1, frame)``, 1 where a frame is real.

        Raises:
            ValueError: no real frame, or clips in which nothing differs.
        """
        weight = torch.ones_like(clips[:, :1, :1], dtype=torch.float64) if mask is None else mask.double()
        count = weight.sum()
        if count == 0:
            raise ValueError("normalizer: no frames to measure")
        local = self._local(clips.double())
        mean = (local * weight).sum(dim=(0, 3), keepdim=True) / count
        var = ((local - mean).square() * weight).sum(dim=(0, 3)) / count
        root, steps = torch.zeros_like(var, dtype=torch.bool), torch.zeros_like(var, dtype=torch.bool)
        root[self.root], steps[self.root, self.travel] = True, True
        scale = torch.ones_like(var)
        for group in (steps, root & ~steps, ~root):
            spread = var[group].mean().sqrt() if group.any() else var.new_ones(())
            # A root that never moves (a root-centred data set) has no scale of its own: leave it in metres.
            scale[group] = spread if spread > 1e-6 else 1.0
        if bool((var.mean().sqrt() <= 1e-6).item()):
            raise ValueError("normalizer: all clips are the same single pose; nothing can be learned from them")
        self.mean.copy_(mean[0])
        self.scale.copy_(scale[:, : self.scale.shape[1], None])
        self.fitted.fill_(True)

    def forward(self, clips: Tensor) -> Tensor:
        """Metres -> normalised."""
        return (self._local(clips) - self.mean) / self.scale

    def inverse(self, x: Tensor) -> Tensor:
        """Normalised -> metres."""
        local = x * self.scale + self.mean
        if self.travel:
            steps = local[:, self.root, self.ways, 1:]
            local[:, self.root, self.ways] = F.pad(steps.cumsum(dim=-1), (1, 0))
        return local + self._others(local)

    def _local(self, clips: Tensor) -> Tensor:
        local = clips - self._others(clips)
        if self.travel and clips.shape[-1] > 1:
            steps = local[:, self.root, self.ways].diff(dim=-1)
            local[:, self.root, self.ways] = torch.cat([steps[..., :1], steps], dim=-1)
        return local

    def _others(self, clips: Tensor) -> Tensor:
        """The root's position at every joint but the root itself, where it is 0."""
        root = clips[:, self.root : self.root + 1].expand_as(clips).clone()
        root[:, self.root] = 0
        return root
