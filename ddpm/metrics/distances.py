"""Distances between two sets of feature vectors, all of them deterministic and in float64."""

import torch
from torch import Tensor


def frechet(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance between the Gaussians with the means and covariances of two sets (Heusel et al. 2017, FID).

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^(1/2) S_b S_a^(1/2))^(1/2)), by symmetric eigendecompositions: unlike the square root of
    the product S_a S_b it has no imaginary part to drop, and it exists for singular covariances.

    It is biased upwards by about the number of dimensions over the number of vectors: compare only values of equally many.

    Args:
        a: ``(n, dim)``, n >= 2.
        b: ``(m, dim)``, m >= 2.

    Raises:
        ValueError: different dimensions, or fewer than 2 vectors.
    """
    a, b = _pair(a, b, 2)
    cov_a, cov_b = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(b.shape[1], -1)
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return float(distance.clamp(min=0))


def _pair(a: Tensor, b: Tensor, least: int) -> tuple[Tensor, Tensor]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"metrics: two sets (n, dim) of one dim are compared, got {tuple(a.shape)} and {tuple(b.shape)}")
    if min(len(a), len(b)) < least:
        raise ValueError(f"metrics: at least {least} clips on each side are needed, got {len(a)} and {len(b)}")
    return a.double(), b.double()
