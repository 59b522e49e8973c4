"""Distances against closed forms and independent implementations."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.metrics.distances import frechet


def draw(n: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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
