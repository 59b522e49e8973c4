"""Distances between two sets of feature vectors, deterministic and in float64."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """A kernel or distance between all pairs from two sets, so that it is evaluated once for many subsets of them.

    Args:
        aa: ``(n, n)`` within the first set, symmetric.
        ab: ``(n, m)`` from the first to the second.
        bb: ``(m, m)`` within the second, symmetric.
    """

    aa: Tensor
    ab: Tensor
    bb: Tensor

    @classmethod
    def of(cls, function: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> "Pairs":
        """``function`` of (n, dim) and (m, dim) gives (n, m)."""
        return cls(function(a, a), function(a, b), function(b, b))


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
    a, b = checked(a, b, 2)
    cov_a, cov_b = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(b.shape[1], -1)
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return float(distance.clamp(min=0))


def cubic(a: Tensor, b: Tensor) -> Tensor:
    """The kernel (x.y / dim + 1)^3 of all pairs, ``(n, m)``."""
    x = a @ b.T / a.shape[1] + 1
    return x * x * x


def mean_within(matrix: Tensor, chosen: Tensor) -> Tensor:
    """Mean over the pairs of two different members of each subset.

    Args:
        matrix: ``(n, n)``.
        chosen: ``(subsets, n)`` float64, 1 for the members, of which each subset has 2 or more, and 0 for the others.

    Returns:
        ``(subsets,)``.
    """
    size = chosen.sum(1)
    return ((chosen @ matrix * chosen).sum(1) - chosen @ matrix.diagonal()) / (size * (size - 1))


def unbiased_mmd(kernel: Pairs, chosen_a: Tensor, chosen_b: Tensor) -> Tensor:
    """Squared maximum mean discrepancy, the U-statistic of Gretton et al. 2012, equation 3: 0 on average for equal distributions.

    It can be negative. No vector is paired with itself, which is what makes it unbiased: subsets must not hold one twice.

    Args:
        kernel: of all vectors.
        chosen_a: ``(subsets, n)`` float64, 1 for the members of each subset of the first set, 0 for the others.
        chosen_b: ``(subsets, m)``, the same of the second.

    Returns:
        ``(subsets,)``.
    """
    across = (chosen_a @ kernel.ab * chosen_b).sum(1) / (chosen_a.sum(1) * chosen_b.sum(1))
    return mean_within(kernel.aa, chosen_a) + mean_within(kernel.bb, chosen_b) - 2 * across


def kid(a: Tensor, b: Tensor) -> float:
    """Kernel distance (Binkowski et al. 2018): `unbiased_mmd` with the kernel (x.y / dim + 1)^3, of all vectors at once.

    Args:
        a: ``(n, dim)``, n >= 2.
        b: ``(m, dim)``, m >= 2.

    Raises:
        ValueError: different dimensions, or fewer than 2 vectors.
    """
    a, b = checked(a, b, 2)
    return float(unbiased_mmd(Pairs.of(cubic, a, b), a.new_ones(1, len(a)), b.new_ones(1, len(b))))


def gaussian_kernel(distances: Pairs) -> Pairs:
    """exp(-d^2 / 2 s^2) of distances d, with s their median within the first set, the reference."""
    row, column = torch.triu_indices(len(distances.aa), len(distances.aa), 1)
    width = 2 * distances.aa[row, column].median().clamp(min=1e-12).square()

    def kernel(distance: Tensor) -> Tensor:
        return (-distance.square() / width).exp()

    return Pairs(kernel(distances.aa), kernel(distances.ab), kernel(distances.bb))


def mmd(reference: Tensor, generated: Tensor) -> float:
    """`unbiased_mmd` with a Gaussian kernel whose width is the median distance within the reference.

    Args:
        reference: ``(n, dim)``, n >= 2.
        generated: ``(m, dim)``, m >= 2.

    Raises:
        ValueError: different dimensions, or fewer than 2 vectors.
    """
    a, b = checked(reference, generated, 2)
    kernel = gaussian_kernel(Pairs.of(torch.cdist, a, b))
    return float(unbiased_mmd(kernel, a.new_ones(1, len(a)), b.new_ones(1, len(b))))


def diversity(features: Tensor) -> float:
    """Mean distance over all pairs of ``(n, dim)``: other implementations draw a few hundred pairs at random.

    Raises:
        ValueError: fewer than 2 vectors.
    """
    features, _ = checked(features, features, 2)
    return float(mean_within(torch.cdist(features, features), features.new_ones(1, len(features))))


def wasserstein1(a: Tensor, b: Tensor) -> float:
    """Distance between two distributions of one number, in its unit: the area between their cumulative distributions.

    Args:
        a: ``(n,)``.
        b: ``(m,)``.
    """
    a, b = a.double().sort().values, b.double().sort().values
    everything = torch.cat([a, b]).sort().values
    below_a, below_b = (torch.searchsorted(s, everything[:-1], right=True).double() / len(s) for s in (a, b))
    return float(((below_a - below_b).abs() * everything.diff()).sum())


def spectral_distance(a: Tensor, b: Tensor) -> float:
    """Mean difference in decibels between the energies of two sets, over joints and bands.

    Energies are averaged as decibels (a geometric mean over the clips): the arithmetic mean is that of the most vigorous clips,
    in which shaking by a centimetre drowns. 0.001 (m/s)^2, rest, is added, so that bands in which nothing moves do not count.

    Args:
        a: ``(n, joints, bands)`` energies in (m/s)^2.
        b: ``(m, joints, bands)``.
    """
    level = [(10 * (energy + 1e-3).log10()).mean(0) for energy in (a, b)]
    return float((level[0] - level[1]).abs().mean())


def checked(a: Tensor, b: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Both in float64.

    Raises:
        ValueError: different dimensions, or fewer than ``least`` vectors in either set.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"metrics: two sets (n, dim) of one dim are compared, got {tuple(a.shape)} and {tuple(b.shape)}")
    if min(len(a), len(b)) < least:
        raise ValueError(f"metrics: at least {least} clips on each side are needed, got {len(a)} and {len(b)}")
    return a.double(), b.double()
