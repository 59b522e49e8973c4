"""Weight of each noise level in the loss: SNR = alpha_bar / (1 - alpha_bar) -> weight on ||eps - eps_hat||^2.

Weights are on the paper's own loss, the one in epsilon, so that a weighting means the same for every prediction.
"""

import torch
from torch import Tensor


def simple(snr: Tensor) -> Tensor:
    """L_simple, equation 14 of Ho et al. 2020: every noise level alike."""
    return torch.ones_like(snr)


def min_snr(snr: Tensor, gamma: float = 5.0) -> Tensor:
    """Min-SNR-gamma, Hang et al. 2023: weight min(SNR, gamma) on ||x0 - x0_hat||^2, that is min(SNR, gamma) / SNR on epsilon.

    Args:
        snr: any shape, positive.
        gamma: cap, positive.

    Raises:
        ValueError: gamma is not positive.
    """
    if not gamma > 0:
        raise ValueError(f"weighting.min_snr: gamma must be positive, got {gamma}")
    return (gamma / snr).clamp(max=1.0)
