"""Distances against closed forms and independent implementations."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.metrics.distances import Pairs, cubic, frechet, gaussian_kernel, mean_within, spectral_distance, unbiased_mmd
from ddpm.metrics.neighbours import Neighbours


def draw(n: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everything(x: Tensor) -> Tensor:
    """One subset of all vectors."""
    return torch.ones(1, len(x), dtype=torch.float64)


def kid(a: Tensor, b: Tensor) -> float:
    return float(unbiased_mmd(Pairs.of(cubic, a, b), everything(a), everything(b)))


def mmd(a: Tensor, b: Tensor) -> float:
    return float(unbiased_mmd(gaussian_kernel(Pairs.of(torch.cdist, a, b)), everything(a), everything(b)))


def diversity(x: Tensor) -> float:
    return float(mean_within(torch.cdist(x, x), everything(x)))


def precision_recall(reference: Tensor, generated: Tensor, k: int = 3) -> tuple[float, float]:
    near = Neighbours(Pairs.of(torch.cdist, reference, generated))
    return near.precision_recall(everything(reference)[0].bool(), everything(generated)[0].bool(), k)


def density_coverage(reference: Tensor, generated: Tensor) -> tuple[float, float]:
    near = Neighbours(Pairs.of(torch.cdist, reference, generated))
    return near.density_coverage(everything(reference)[0].bool(), everything(generated)[0].bool())


def with_moments(x: Tensor, mean: Tensor, cov: Tensor) -> Tensor:
    """A linear map of x whose sample mean and covariance are exactly these."""
    white = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    return white @ torch.linalg.cholesky(cov).T + mean


def test_frechet_of_gaussians_that_commute_is_closed_form() -> None:
    """|m|^2 + sum (s_a - s_b)^2 in the common eigenbasis."""
    basis = torch.linalg.qr(draw(6, 6, 1)).Q
    s, r = torch.tensor([0.1, 0.5, 1, 2, 3, 9]).double(), torch.tensor([2, 0.5, 0.2, 1, 4, 3]).double()
    mean = draw(1, 6, 2)[0]
    a = with_moments(draw(500, 6, 3), mean, basis @ s.square().diag() @ basis.T)
    b = with_moments(draw(300, 6, 4), 0 * mean, basis @ r.square().diag() @ basis.T)
    assert frechet(a, b) == pytest.approx(float(mean.square().sum() + (s - r).square().sum()), rel=1e-9)


def test_frechet_agrees_with_scipys_matrix_square_root() -> None:
    linalg = pytest.importorskip("scipy.linalg")
    a, b = draw(200, 8, 1) @ draw(8, 8, 2), draw(150, 8, 3) @ draw(8, 8, 4) + 1
    s, r = np.cov(a.numpy().T), np.cov(b.numpy().T)
    root = linalg.sqrtm(s @ r)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item() + np.trace(s + r - 2 * root.real)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-8)


def test_frechet_agrees_with_torchmetrics() -> None:
    image = pytest.importorskip("torchmetrics.image.fid")
    a, b = draw(200, 8, 1) @ draw(8, 8, 2), draw(150, 8, 3) @ draw(8, 8, 4) + 1
    metric = image.FrechetInceptionDistance(feature=Features(), normalize=True, input_img_size=(1, 1, 8)).set_dtype(torch.float64)
    metric.update(a, real=True)
    metric.update(b, real=False)
    assert frechet(a, b) == pytest.approx(float(metric.compute()), rel=1e-5)


class Features(torch.nn.Module):
    """Vectors as they are: torchmetrics asks for a network."""

    num_features = 8

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1)[:, :8]


def test_frechet_is_symmetric_and_zero_only_for_equal_moments() -> None:
    a, b = draw(50, 5, 1), 2 * draw(60, 5, 2)
    assert frechet(a, a) == pytest.approx(0, abs=1e-10)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-10)
    assert frechet(a, b) > 1


def test_frechet_exists_for_singular_covariances() -> None:
    a = torch.zeros(10, 4, dtype=torch.float64)
    assert frechet(a, a + 3) == pytest.approx(36)
    assert frechet(draw(3, 40, 1), draw(3, 40, 1)) == pytest.approx(0, abs=1e-6)


def test_sets_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(4, 2\)"):
        frechet(torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="at least 2 clips on each side are needed, got 4 and 1"):
        frechet(torch.zeros(4, 3), torch.zeros(1, 3))


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_kid_agrees_with_torchmetrics() -> None:
    image = pytest.importorskip("torchmetrics.image.kid")
    a, b = draw(100, 8, 1), draw(100, 8, 2) + 0.5
    metric = image.KernelInceptionDistance(feature=Features(), subsets=1, subset_size=100, normalize=True).set_dtype(
        torch.float64
    )
    metric.update(a, real=True)
    metric.update(b, real=False)
    assert kid(a, b) == pytest.approx(float(metric.compute()[0]), rel=1e-6)


@pytest.mark.parametrize("distance", [kid, mmd])
def test_kernel_distances_are_unbiased(distance: Callable[[Tensor, Tensor], float]) -> None:
    """0 within its error, on average over draws from one distribution; 20 vectors a set, where a biased estimate is far off."""
    values = torch.tensor([distance(draw(20, 4, s), draw(25, 4, 10_000 + s)) for s in range(400)])
    error = float(values.std()) / 20
    assert abs(float(values.mean())) < 3 * error
    assert distance(draw(100, 4, 1), draw(100, 4, 2) + 1) > 20 * error


def test_subsets_at_once_equal_subsets_alone() -> None:
    a, b = draw(30, 5, 1), draw(40, 5, 2) + 0.3
    kernel, distances = Pairs.of(cubic, a, b), Pairs.of(torch.cdist, a, b)
    near = Neighbours(distances, share=0.5)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        i, j = torch.randperm(30, generator=generator)[:15], torch.randperm(40, generator=generator)[:20]
        mine, theirs = torch.zeros(1, 30).double(), torch.zeros(1, 40).double()
        mine[0, i], theirs[0, j] = 1, 1
        assert float(unbiased_mmd(kernel, mine, theirs)) == pytest.approx(kid(a[i], b[j]), rel=1e-9)
        assert float(mean_within(distances.bb, theirs)) == pytest.approx(diversity(b[j]), rel=1e-6)
        assert near.precision_recall(mine[0].bool(), theirs[0].bool()) == precision_recall(a[i], b[j])
        assert near.density_coverage(mine[0].bool(), theirs[0].bool()) == density_coverage(a[i], b[j])


def grid(*at: float) -> Tensor:
    return torch.tensor(at, dtype=torch.float64)[:, None]


def test_precision_and_recall_of_constructed_sets() -> None:
    """Reference 0..9 on a line: balls reach to the 3rd neighbour, 2 inside (distance 1, 1, 2) and 3 at the ends."""
    reference = grid(*range(10))
    inside, outside = grid(0.5, 4.5, 11.9, -2.9), grid(20, 21, 22, 23)
    assert precision_recall(reference, inside)[0] == 1
    assert precision_recall(reference, torch.cat([inside, outside]))[0] == 0.5
    assert precision_recall(reference, grid(12.1, -3.1, 12.2, -3.2))[0] == 0
    # The third neighbours of 0, 1, 2, 3, 4 are 3, 2, 2, 2, 3 away, so their balls reach up to 7.
    assert precision_recall(reference, grid(0, 1, 2, 3, 4)) == (1, 0.8)


def test_density_and_coverage_of_constructed_sets() -> None:
    """Two clusters, of which the generated set knows one."""
    cluster = grid(0, 1, 2, 3, 4, 5)
    reference = torch.cat([cluster, cluster + 1000])
    density, coverage = density_coverage(reference, cluster + 0.1)
    assert coverage == 0.5
    assert density == pytest.approx(sum(abs(a + 0.1 - b) <= max(b, 5 - b) for a in range(6) for b in range(6)) / 30)
    assert density_coverage(reference, cluster + 500) == (0, 0)


def test_neighbours_by_brute_force() -> None:
    a, b, k = draw(40, 3, 1).tolist(), (1.3 * draw(30, 3, 2)).tolist(), 3
    ra = [sorted(math.dist(x, y) for y in a)[k] for x in a]
    rb = [sorted(math.dist(x, y) for y in b)[k] for x in b]
    precision = sum(any(math.dist(x, y) <= r for x, r in zip(a, ra, strict=True)) for y in b) / 30
    recall = sum(any(math.dist(x, y) <= r for y, r in zip(b, rb, strict=True)) for x in a) / 40
    assert precision_recall(torch.tensor(a).double(), torch.tensor(b).double(), k) == (precision, recall)


def test_diversity_of_a_constructed_set() -> None:
    assert diversity(torch.tensor([[0.0, 0], [3, 4], [0, 4]]).double()) == pytest.approx((5 + 4 + 3) / 3)


def test_spectral_distance_is_in_decibels() -> None:
    energy = 100 + draw(10, 8).abs().reshape(10, 4, 2)
    assert spectral_distance(energy, 10 * energy) == pytest.approx(10, rel=1e-4)
    assert spectral_distance(energy, energy) == 0
