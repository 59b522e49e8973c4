"""Which diffusion steps a training batch sees: (batch, T, device) -> t, each clip's t uniform over 0..T-1."""

import torch
from torch import Tensor


def uniform(batch: int, n_steps: int, device: torch.device) -> Tensor:
    """Independent draws, as in Algorithm 1 of Ho et al. 2020.

    Args:
        batch: clips.
        n_steps: T.
        device: of the result.

    Returns:
        ``(batch,)`` int64.
    """
    return torch.randint(n_steps, (batch,), device=device)


def stratified(batch: int, n_steps: int, device: torch.device) -> Tensor:
    """One draw from each of ``batch`` equal parts of 0..T-1.

    Every clip's t is still uniform, so the expected loss is that of Algorithm 1, but no batch sees mostly noise or mostly motion:
    the loss of a batch varies less (the low-discrepancy sampler of Kingma et al. 2021, with independent offsets).

    Args:
        batch: clips.
        n_steps: T.
        device: of the result.

    Returns:
        ``(batch,)`` int64, in random order.
    """
    place = (torch.randperm(batch, device=device) + torch.rand(batch, device=device)) / batch
    # float32 can round the last place up to 1.
    return (place * n_steps).long().clamp(max=n_steps - 1)
