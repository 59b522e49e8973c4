"""Neighbours: precision, recall, density and coverage of many subsets of two sets, from one search for neighbours."""

import math

import torch
from torch import Tensor

from ddpm.metrics.distances import Pairs


class Neighbours:
    """Nearest neighbours within and across a reference (a) and a generated set (b).

    Subsets are ``(n,)`` or ``(m,)`` bool, True for the members, of which they need more than k. A ball is centred on a member and
    reaches to its k-th neighbour in the same subset.

    Args:
        share: the least share of a set that a subset will have. So many neighbours are kept that 48 of them are members on
            average, which makes sure that the k nearest members are among them.
    """

    def __init__(self, distances: Pairs, share: float = 1.0) -> None:
        self.across = distances.ab
        depth = math.ceil(48 / share)
        self.a, self.b = (d.topk(min(depth, len(d)), dim=1, largest=False) for d in (distances.aa, distances.bb))

    def precision_recall(self, a: Tensor, b: Tensor, k: int = 3) -> tuple[float, float]:
        """Improved precision and recall (Kynkäänniemi et al. 2019).

        Precision is the share of generated vectors in any ball of the reference; recall the same with the sets exchanged.
        """
        in_reference = (self.across <= _radii(*self.a, a, k)[:, None]).any(0)
        in_generated = (self.across <= _radii(*self.b, b, k)).any(1)
        return float(in_reference[b].double().mean()), float(in_generated[a].double().mean())

    def density_coverage(self, a: Tensor, b: Tensor, k: int = 5) -> tuple[float, float]:
        """Density and coverage (Naeem et al. 2020): steadier than precision and recall where the reference has outliers.

        Density is the mean number of balls of the reference that hold a generated vector, over k: 1 for equal distributions,
        more is possible. Coverage is the share of balls of the reference that hold at least one.
        """
        inside = (self.across <= _radii(*self.a, a, k)[:, None]) & b
        return float(inside.sum() / (k * b.sum())), float(inside.any(1)[a].double().mean())


def _radii(values: Tensor, index: Tensor, members: Tensor, k: int) -> Tensor:
    """``(n,)`` distance from each member to its k-th neighbour among them, -1 for the others.

    ``values`` and ``index`` ``(n, depth)`` are the nearest vectors in order, the first of them the vector itself.
    """
    place = (members[index].cumsum(1) > k).byte().argmax(1, keepdim=True)
    return torch.where(members, values.gather(1, place)[:, 0], -1)
