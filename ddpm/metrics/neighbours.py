"""Neighbours: precision, recall, density and coverage, for many subsets of two sets at the cost of one."""

import math

import torch
from torch import Tensor

from ddpm.metrics.distances import Pairs, checked


class Neighbours:
    """Who is near whom, within and across a reference (a) and a generated set (b).

    Subsets are ``(n,)`` or ``(m,)`` bool, True for the members, of which they need more than k.

    Args:
        distances: between all vectors.
        share: the least share of a set that a subset will have. Only as many neighbours are kept as hold 48 members on average,
            so that the few needed are among them.
    """

    def __init__(self, distances: Pairs, share: float = 1.0) -> None:
        self.across = distances.ab
        depth = math.ceil(48 / share)
        self.a, self.b = (d.topk(min(depth, len(d)), dim=1, largest=False) for d in (distances.aa, distances.bb))

    def precision_recall(self, a: Tensor, b: Tensor, k: int = 3) -> tuple[float, float]:
        """See the function `precision_recall`."""
        in_reference = (self.across <= _radii(*self.a, a, k)[:, None]).any(0)
        in_generated = (self.across <= _radii(*self.b, b, k)).any(1)
        return float(in_reference[b].double().mean()), float(in_generated[a].double().mean())

    def density_coverage(self, a: Tensor, b: Tensor, k: int = 5) -> tuple[float, float]:
        """See the function `density_coverage`."""
        inside = (self.across <= _radii(*self.a, a, k)[:, None]) & b
        return float(inside.sum() / (k * b.sum())), float(inside.any(1)[a].double().mean())


def precision_recall(reference: Tensor, generated: Tensor, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019).

    Precision is the share of generated vectors that lie in the ball of some reference vector, which reaches as far as its k-th
    neighbour in the reference; recall is the same with the sets exchanged.

    Args:
        reference: ``(n, dim)``, n > k.
        generated: ``(m, dim)``, m > k.
        k: neighbours.

    Raises:
        ValueError: different dimensions, or not more than k vectors.
    """
    a, b = checked(reference, generated, k + 1)
    return Neighbours(Pairs.of(torch.cdist, a, b)).precision_recall(_all(a), _all(b), k)


def density_coverage(reference: Tensor, generated: Tensor, k: int = 5) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020): steadier than precision and recall where the reference has outliers.

    Density is the mean number of reference balls that hold a generated vector, over k (1 for equal distributions, and it may
    exceed 1); coverage the share of reference balls that hold at least one.

    Args:
        reference: ``(n, dim)``, n > k.
        generated: ``(m, dim)``, m > k.
        k: neighbours.

    Raises:
        ValueError: different dimensions, or not more than k vectors.
    """
    a, b = checked(reference, generated, k + 1)
    return Neighbours(Pairs.of(torch.cdist, a, b)).density_coverage(_all(a), _all(b), k)


def _all(x: Tensor) -> Tensor:
    return torch.ones(len(x), dtype=torch.bool)


def _radii(values: Tensor, index: Tensor, members: Tensor, k: int) -> Tensor:
    """``(n,)`` distance from each member to its k-th neighbour among them, -1 for the others.

    ``values`` and ``index`` ``(n, depth)`` are the nearest vectors in order, the first of them the vector itself.
    """
    place = (members[index].cumsum(1) > k).byte().argmax(1, keepdim=True)
    return torch.where(members, values.gather(1, place)[:, 0], -1)
