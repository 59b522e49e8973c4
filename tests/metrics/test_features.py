"""Features: definitions by independent loops, invariances, padding."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.metrics.features import Projection, kinetic, log_kinetic
from ddpm.metrics.motions import Motions
from ddpm.skeleton import Skeleton

FEATURES: list[Callable[[Motions], Tensor]] = [kinetic, log_kinetic]


def moved(motions: Motions) -> Motions:
    """Every clip elsewhere in the room and facing another way."""
    yaw = torch.linspace(0.3, 6, len(motions), dtype=torch.float64)
    turn = torch.zeros(len(motions), 3, 3, dtype=torch.float64)
    turn[:, 0, 0] = turn[:, 2, 2] = yaw.cos()
    turn[:, 0, 2], turn[:, 2, 0] = yaw.sin(), -yaw.sin()
    turn[:, 1, 1] = 1
    shift = torch.stack([yaw, 0 * yaw, 5 - yaw], -1)[:, None, None]
    return motions.replace(torch.einsum("nij,nfkj->nfki", turn, motions.positions) + shift)


def by_the_book(x: np.ndarray, fps: float, window: int, legacy: bool) -> list[float]:
    """AIST++'s definition, one joint ``(frames, 3)`` of one clip, loop for loop."""
    dt, energies = 1 / fps, []
    for i in range(1, len(x)):
        steps = [x[j] - x[j - 1] for j in range(i - window, i + window + 1) if 1 <= j < len(x)]
        velocity = np.mean(steps, axis=0) / dt
        turns = []
        for j in range(i - window, i + window + 1):
            if 1 <= j < len(x) - 1:
                before = x[j] - x[j - 1] / dt if legacy else (x[j] - x[j - 1]) / dt
                turns.append(((x[j + 1] - x[j]) / dt - before) / dt)
        acceleration = float(np.linalg.norm(np.mean(turns, axis=0))) if turns else math.nan
        energies.append((velocity[0] ** 2 + velocity[2] ** 2, velocity[1] ** 2, acceleration))
    return np.nanmean(energies, axis=0).tolist()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("fps", "window"), [(20.0, 0), (30.0, 1), (60.0, 2)])
def test_kinetic_is_the_published_definition(motions: Motions, fps: float, window: int, legacy: bool) -> None:
    motions = Motions(motions.positions, motions.lengths, fps, motions.skeleton)
    features = kinetic(motions, legacy=legacy).reshape(40, 20, 3)
    for clip in (0, 7, 13):
        x = motions.positions[clip, : motions.lengths[clip]].numpy()
        expected = [by_the_book(x[:, j], fps, 2 if legacy else window, legacy) for j in range(20)]
        np.testing.assert_allclose(features[clip], expected, rtol=1e-9)


def test_kinetic_of_a_known_motion(skeleton: Skeleton) -> None:
    """3 m/s along the ground and 4 m/s^2 upwards."""
    time = torch.arange(8, dtype=torch.float64) / 20
    x = torch.stack([3 * time, 2 * time**2, 0 * time], -1)[None, :, None].expand(1, 8, 20, 3)
    features = kinetic(Motions(x, torch.tensor([8]), 20.0, skeleton)).reshape(20, 3)
    vertical = (2 * time**2).diff().mul(20).square().mean()
    torch.testing.assert_close(
        features, torch.stack([torch.tensor(9.0).double(), vertical, torch.tensor(4.0).double()]).expand(20, 3)
    )


@pytest.mark.parametrize("feature", FEATURES)
def test_place_and_heading_do_not_matter(motions: Motions, feature: Callable[[Motions], Tensor]) -> None:
    torch.testing.assert_close(feature(moved(motions)), feature(motions), rtol=1e-8, atol=1e-9)


def test_the_published_form_depends_on_the_place(motions: Motions) -> None:
    """The reason why it is not the default."""
    change = kinetic(moved(motions), legacy=True) / kinetic(motions, legacy=True)
    assert float(change.reshape(40, 20, 3)[..., 2].median()) > 1.5


@pytest.mark.parametrize("feature", FEATURES)
def test_each_clip_stands_for_itself(motions: Motions, feature: Callable[[Motions], Tensor]) -> None:
    """Neither other clips nor the padding change it."""
    everything = feature(motions)
    for clip in (0, 3, 39):
        length = int(motions.lengths[clip])
        alone = Motions(motions.positions[clip : clip + 1, :length], torch.tensor([length]), 20.0, motions.skeleton)
        torch.testing.assert_close(feature(alone)[0], everything[clip], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("feature", FEATURES)
def test_two_dimensions(flat: Motions, feature: Callable[[Motions], Tensor]) -> None:
    assert feature(flat).shape[0] == 40 and feature(flat).isfinite().all()


def test_a_frozen_clip_is_finite_and_an_outlier(motions: Motions) -> None:
    frozen = motions.replace(motions.positions[:, :1].expand_as(motions.positions))
    real, still = log_kinetic(motions), log_kinetic(frozen)
    assert still.isfinite().all() and (still < real.min(0).values).all()


def test_projection_standardises_and_keeps_the_leading_axes() -> None:
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(300, 2, generator=generator, dtype=torch.float64)
    x = common @ torch.randn(2, 50, generator=generator, dtype=torch.float64) * torch.logspace(-3, 3, 50) + 7
    project = Projection.fit(x)
    assert project(x).shape == (300, 24)
    torch.testing.assert_close(project(x).mean(0), torch.zeros(24, dtype=torch.float64), atol=1e-9, rtol=0)
    spread = project(x).var(0)
    torch.testing.assert_close(spread.sum(), torch.tensor(50.0).double())  # nothing is lost: there are 2 directions
    assert (spread[2:] < 1e-9).all() and spread[0] > spread[1] > 1


@pytest.mark.parametrize(("n", "dim", "kept"), [(1000, 60, 24), (150, 60, 15), (1000, 8, 8), (5, 60, 1)])
def test_projection_keeps_the_dimension_below_the_number_of_clips(n: int, dim: int, kept: int) -> None:
    x = torch.randn(n, dim, generator=torch.Generator().manual_seed(0))
    assert Projection.fit(x)(x).shape == (n, kept)


def test_projection_ignores_what_never_varies() -> None:
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 2] = 0.1
    project = Projection.fit(x)
    y = x.clone()
    y[:, 2] += 1e-12
    assert torch.equal(project(x), project(y))


def test_projection_refuses_too_little() -> None:
    with pytest.raises(ValueError, match="got 1 and 24"):
        Projection.fit(torch.zeros(1, 3))
