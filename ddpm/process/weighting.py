"""Weight of each noise level in the loss: SNR = alpha_bar / (1 - alpha_bar) -> weight on ||x0 - x0_hat||^2.

Weights are on the error of x0_hat, whatever the network outputs, so that a weighting means the same for every prediction and is
finite where the signal ends. On the paper's own error, that of epsilon, the weight is the same divided by SNR.
"""

from torch import Tensor


def simple(snr: Tensor) -> Tensor:
    """L_simple, equation 14 of Ho et al. 2020: SNR, that is every noise level alike on epsilon."""
    return snr


def min_snr(snr: Tensor, gamma: float = 5.0) -> Tensor:
    """Min-SNR-gamma, Hang et al. 2023: min(SNR, gamma), L_simple capped at low noise; gamma is positive."""
    if not gamma > 0:
        raise ValueError(f"weighting.gamma={gamma} must be positive")
    return snr.clamp(max=gamma)


def p2(snr: Tensor, k: float = 1.0, gamma: float = 1.0) -> Tensor:
    """P2, Choi et al. 2022 (arXiv 2204.00227): L_simple divided by (k + SNR)^gamma, with k > 0 and gamma >= 0."""
    if not k > 0 or not gamma >= 0:
        raise ValueError(f"weighting.k={k} must be positive, and weighting.gamma={gamma} at least 0")
    return snr * (k + snr) ** -gamma


def velocity(snr: Tensor) -> Tensor:
    """SNR + 1, Salimans & Ho 2022, section 4: every noise level alike on the velocity.

    The only one here that also trains the step without signal with which `schedule=zero_terminal_snr` ends.
    """
    return snr + 1
