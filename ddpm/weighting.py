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


def p2(snr: Tensor, k: float = 1.0, gamma: float = 1.0) -> Tensor:
    """P2, Choi et al. 2022 (arXiv 2204.00227): 1 / (k + SNR)^gamma times the weight of L_simple, which is 1 on epsilon.

    Args:
        snr: any shape, positive.
        k: keeps the weight at high noise finite, positive.
        gamma: how strongly low noise is weighed down, not negative; 0 is `simple`.

    Raises:
        ValueError: k is not positive, or gamma is negative.
    """
    if not k > 0 or not gamma >= 0:
        raise ValueError(f"weighting.p2: needs k > 0 and gamma >= 0, got k={k} and gamma={gamma}")
    return (k + snr) ** -gamma
