"""Timestep samplers: (batch, T, device) -> the diffusion steps t of a training batch, and the weight of each clip's loss.

Weights are 1 over T times the probability of t: whatever is drawn, the expected loss is that of Algorithm 1, with t uniform.
"""

import torch
from torch import Tensor, nn


class Uniform:
    """Independent draws, as in Algorithm 1 of Ho et al. 2020."""

    def __call__(self, batch: int, n_steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """``(batch,)`` int64 t in 0..n_steps-1, and ``(batch,)`` float32 weights with mean 1."""
        return torch.randint(n_steps, (batch,), device=device), torch.ones(batch, device=device)

    def observe(self, t: Tensor, n_steps: int, loss: Tensor) -> None:
        """Learn from ``(batch,)`` drawn steps and their losses, before weights, without gradient: here nothing."""


class Stratified(Uniform):
    """One draw from each of ``batch`` equal parts of 0..T-1, in random order.

    Every clip's t is still uniform, but no batch sees mostly noise or mostly motion: the loss of a batch varies less (the
    low-discrepancy sampler of Kingma et al. 2021, with independent offsets).
    """

    def __call__(self, batch: int, n_steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """See `Uniform`."""
        return _step(_strata(batch, device), n_steps), torch.ones(batch, device=device)


class Importance(nn.Module):
    """Steps whose loss is large are drawn more often, in proportion to the root of its mean square, and weighed less.

    The probability with the least variance (Nichol & Dhariwal 2021, section 3.3), estimated for equal parts of 0..T-1 by moving
    averages. Draws are stratified, and uniform until every part has been seen. The averages are buffers: they are in the
    checkpoint, and the same in all processes.

    Args:
        bins: parts, in 1..T.
        decay: of an average, each time its part is seen, in [0, 1).
        uniform: share of the draws that is uniform, in (0, 1]; bounds the weights by its inverse.
    """

    square: Tensor
    seen: Tensor

    def __init__(self, bins: int = 50, decay: float = 0.98, uniform: float = 0.2) -> None:
        super().__init__()
        if bins < 1 or not 0 <= decay < 1 or not 0 < uniform <= 1:
            raise ValueError(
                "timesteps.importance: needs bins >= 1, decay in [0, 1) and uniform in (0, 1], "
                f"got bins={bins}, decay={decay} and uniform={uniform}"
            )
        self.decay = decay
        self.uniform = uniform
        self.register_buffer("square", torch.zeros(bins))
        self.register_buffer("seen", torch.zeros(bins, dtype=torch.bool))

    def density(self) -> Tensor:
        """``(bins,)`` probability of each part, without waiting for the device."""
        root = self.square.sqrt()
        known = self.seen.all() & (root.sum() > 0)
        share = torch.where(known, root / root.sum().clamp(min=1e-30), 1 / len(root))
        return (1 - self.uniform) * share + self.uniform / len(root)

    def __call__(self, batch: int, n_steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """See `Uniform`."""
        bins = len(self.square)
        if bins > n_steps:
            raise ValueError(
                f"timesteps.bins={bins} must be at most T={n_steps}, for every part needs a step: set timesteps.bins={n_steps}"
            )
        density = self.density()
        ends = density.cumsum(0)
        place = _strata(batch, device) * ends[-1]
        part = torch.searchsorted(ends, place, right=True).clamp(max=bins - 1)
        within = (place - (ends - density)[part]) / density[part]
        t = _step((part + within.clamp(0, 1)) / bins, n_steps)
        # T times the probability of t. A part may end within a step, whose ``bins`` pieces of 1 / (bins T) are then in two parts.
        first = t * bins // n_steps
        here = ((first + 1) * n_steps - t * bins).clamp(max=bins)
        return t, ends[-1] / (here * density[first] + (bins - here) * density[(first + 1).clamp(max=bins - 1)])

    def observe(self, t: Tensor, n_steps: int, loss: Tensor) -> None:
        """Move the averages of the parts that were seen; losses that are not finite are left out."""
        part = t * len(self.square) // n_steps
        square = loss.to(self.square).square()
        sound = square.isfinite()
        count = torch.zeros_like(self.square).index_add_(0, part, sound.to(square))
        total = torch.zeros_like(self.square).index_add_(0, part, torch.where(sound, square, 0.0))
        now, here = total / count.clamp(min=1), count > 0
        moved = torch.where(self.seen, torch.lerp(now, self.square, self.decay), now)
        self.square.copy_(torch.where(here, moved, self.square))
        self.seen.logical_or_(here)


Timesteps = Uniform | Importance


def _strata(batch: int, device: torch.device) -> Tensor:
    """``(batch,)`` places in [0, 1], one in each of as many equal parts, in random order."""
    return (torch.randperm(batch, device=device) + torch.rand(batch, device=device)) / batch


def _step(place: Tensor, n_steps: int) -> Tensor:
    """Places in [0, 1] -> int64 steps; float32 can round the last place up to 1."""
    return (place * n_steps).long().clamp(max=n_steps - 1)
