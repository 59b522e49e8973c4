"""Distances between two sets of feature vectors, deterministic and in float64."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """A kernel or distance of all pairs from two sets, evaluated once for many subsets of them."""

    aa: Tensor  # (n, n) within the first set
    ab: Tensor  # (n, m) from the first to the second
    bb: Tensor  # (m, m) within the second

    @classmethod
    def of(cls, function: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> "Pairs":
        """``function`` maps (n, dim) and (m, dim) to (n, m)."""
        return cls(function(a, a), function(a, b), function(b, b))


def frechet(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet distance between the Gaussians with the means and covariances of two sets (Heusel et al. 2017, FID).

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^(1/2) S_b S_a^(1/2))^(1/2)), by symmetric eigendecompositions, which also exist for
    singular covariances. It is biased upwards by about dim / n: compare only values of equally many vectors. The sets are
    ``(n, dim)`` and ``(m, dim)`` float64.

    Raises:
        ValueError: different dimensions, or fewer than 2 vectors.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"metrics: two sets (n, dim) of one dim are compared, got {tuple(a.shape)} and {tuple(b.shape)}")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"metrics: at least 2 clips on each side are needed, got {len(a)} and {len(b)}")
    cov_a, cov_b = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(b.shape[1], -1)
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return float(distance.clamp(min=0))


def cubic(a: Tensor, b: Tensor) -> Tensor:
    """The kernel (x.y / dim + 1)^3 of the kernel distance (Binkowski et al. 2018, KID), ``(n, m)``."""
    x = a @ b.T / a.shape[1] + 1
    return x * x * x


def gaussian_kernel(distances: Pairs) -> Pairs:
    """exp(-d^2 / 2 s^2) of distances d, with s their median within the first set, the reference."""
    row, column = torch.triu_indices(len(distances.aa), len(distances.aa), 1)
    width = 2 * distances.aa[row, column].median().clamp(min=1e-12).square()

    def kernel(distance: Tensor) -> Tensor:
        return (-distance.square() / width).exp()

    return Pairs(kernel(distances.aa), kernel(distances.ab), kernel(distances.bb))


def mean_within(matrix: Tensor, chosen: Tensor) -> Tensor:
    """``(subsets,)`` mean over the pairs of two different members of each subset.

    Args:
        matrix: ``(n, n)``.
        chosen: ``(subsets, n)`` float64, 1 for the members, of which each subset has 2 or more, and 0 for the others.
    """
    size = chosen.sum(1)
    return ((chosen @ matrix * chosen).sum(1) - chosen @ matrix.diagonal()) / (size * (size - 1))


def unbiased_mmd(kernel: Pairs, chosen_a: Tensor, chosen_b: Tensor) -> Tensor:
    """``(subsets,)`` squared maximum mean discrepancy, the U-statistic of Gretton et al. 2012, equation 3.

    It is 0 on average for equal distributions and can be negative. No vector may be twice in a subset.

    Args:
        chosen_a: ``(subsets, n)`` members of the first set in each subset, as for `mean_within`.
        chosen_b: ``(subsets, m)`` those of the second.
    """
    across = (chosen_a @ kernel.ab * chosen_b).sum(1) / (chosen_a.sum(1) * chosen_b.sum(1))
    return mean_within(kernel.aa, chosen_a) + mean_within(kernel.bb, chosen_b) - 2 * across


def spectral_distance(a: Tensor, b: Tensor) -> float:
    """Mean difference in decibels between the energies of two sets, over joints and bands.

    Energies are averaged over the clips as decibels: in the arithmetic mean the most vigorous clips would hide a tremor of a
    centimetre. 0.001 (m/s)^2, rest, is added, so that bands without movement do not count. The sets are
    ``(n, joints, bands)`` and ``(m, joints, bands)`` in (m/s)^2.
    """
    level = [(10 * (energy + 1e-3).log10()).mean(0) for energy in (a, b)]
    return float((level[0] - level[1]).abs().mean())
