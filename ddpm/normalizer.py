"""Normalizer: metres <-> the space in which the diffusion runs, an invertible linear map kept in the checkpoint."""

import torch
from torch import Tensor, nn


class Normalizer(nn.Module):
    """Joints relative to the root, each coordinate shifted to mean 0, root and body each divided by one scale.

    One scale for the whole body keeps its geometry (Bjorkstrand et al. 2025, arXiv 2510.12537): a bone is as stiff in the one
    space as in the other. Relative positions are free of the travel of the whole body. Clips are
    ``(batch, joint, coord, frame)``.
    """

    mean: Tensor
    scale: Tensor
    fitted: Tensor

    def __init__(self, n_joints: int, n_coords: int, root: int = 0) -> None:
        super().__init__()
        self.root = root
        self.register_buffer("mean", torch.zeros(n_joints, n_coords, 1))
        self.register_buffer("scale", torch.ones(n_joints, 1, 1))
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
        local = clips.double() - self._others(clips.double())
        mean = (local * weight).sum(dim=(0, 3), keepdim=True) / count
        var = ((local - mean).square() * weight).sum(dim=(0, 3)) / count
        is_root = torch.zeros(len(var), dtype=torch.bool)
        is_root[self.root] = True
        scale = torch.ones(len(var), dtype=torch.float64)
        for group in (is_root, ~is_root):
            spread = var[group].mean().sqrt() if group.any() else var.new_ones(())
            # A root that never moves (a root-centred data set) has no scale of its own: leave it in metres.
            scale[group] = spread if spread > 1e-6 else 1.0
        if bool((var.mean().sqrt() <= 1e-6).item()):
            raise ValueError("normalizer: all clips are the same single pose; nothing can be learned from them")
        self.mean.copy_(mean[0])
        self.scale.copy_(scale[:, None, None])
        self.fitted.fill_(True)

    def forward(self, clips: Tensor) -> Tensor:
        """Metres -> normalised."""
        return (clips - self._others(clips) - self.mean) / self.scale

    def inverse(self, x: Tensor) -> Tensor:
        """Normalised -> metres."""
        local = x * self.scale + self.mean
        return local + self._others(local)

    def _others(self, clips: Tensor) -> Tensor:
        """The root's position at every joint but the root itself, where it is 0."""
        root = clips[:, self.root : self.root + 1].expand_as(clips).clone()
        root[:, self.root] = 0
        return root
