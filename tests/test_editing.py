"""Variations: great circles, and the way back from a clip to its noise."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm.editing import between, ddim_inverse, edit, given_by, interpolate, invert, slerp, vary
from ddpm.module import build_module
from ddpm.process.samplers import Denoise, SeededNoise, ddim, ddpm, dpmpp_2m
from ddpm.process.schedules import cosine, linear, zero_terminal_snr


def gaussian(alpha_bar: Tensor, mu: float, s: float) -> Denoise:
    """The exact answers for data of N(mu, s^2)."""

    def denoise(xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        ab = alpha_bar[t].reshape(-1, *[1] * (xt.ndim - 1))
        surprise = (xt - ab.sqrt() * mu) / (ab * s**2 + 1 - ab)
        return mu + ab.sqrt() * s**2 * surprise, (1 - ab).sqrt() * surprise

    return denoise


def two_modes(alpha_bar: Tensor) -> Denoise:
    """The exact answers for data that are half N(-1, 0.4^2) and half N(1, 0.4^2) in every number: curved."""

    def denoise(xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        ab = alpha_bar[t].reshape(-1, *[1] * (xt.ndim - 1))
        var = 0.16 * ab + 1 - ab
        mode = (ab.sqrt() * xt / var).tanh()
        x0_hat = mode * (1 - ab) / var + 0.16 * ab.sqrt() * xt / var
        return x0_hat, (xt - ab.sqrt() * x0_hat) / (1 - ab).sqrt()

    return denoise


def alpha_bar_of(schedule: object, T: int = 1000) -> Tensor:
    return (1 - schedule(T)).cumprod(0)  # type: ignore[operator]


# --- great circles


def test_slerp_keeps_to_the_circle() -> None:
    """Between two orthogonal unit vectors: cos and sin of the angle, in even strides."""
    a, b = torch.eye(5, dtype=torch.float64)[:2]
    weight = torch.linspace(0, 1, 7, dtype=torch.float64)
    got = slerp(a, b, weight)
    expected = torch.outer((weight * math.pi / 2).cos(), a) + torch.outer((weight * math.pi / 2).sin(), b)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_slerp_keeps_noise_as_long_as_noise() -> None:
    """A straight line between two noises is shorter in the middle by sqrt(2): no sampler has seen such noise."""
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 20, 3, 32, generator=g, dtype=torch.float64)
    path = slerp(a, b, torch.linspace(0, 1, 11, dtype=torch.float64))
    assert path.shape == (11, 20, 3, 32)
    torch.testing.assert_close(path[0], a)
    torch.testing.assert_close(path[-1], b)
    lengths = path.flatten(1).norm(dim=1)
    low, high = sorted((a.norm().item(), b.norm().item()))
    assert 0.98 * low < lengths.min() and lengths.max() < 1.02 * high
    assert torch.lerp(a, b, 0.5).norm() < 0.75 * low


def test_slerp_of_the_same_noise_is_the_noise() -> None:
    a = torch.randn(4, 3)
    torch.testing.assert_close(slerp(a, a.clone(), torch.tensor([0.0, 0.3, 1.0])), a.expand(3, -1, -1))
    assert slerp(a, -a, torch.tensor([0.5])).isfinite().all()


@pytest.mark.parametrize("sampler", [partial(dpmpp_2m, steps=6), partial(ddpm, steps=9), partial(ddim, steps=5, eta=1.0)])
def test_the_ends_of_an_interpolation_are_the_clips_of_its_seeds(sampler: object) -> None:
    """Also where the sampler draws noise on its way."""
    alpha_bar = alpha_bar_of(cosine).float()
    denoise = two_modes(alpha_bar)
    shape = (4, 3, 6)

    def clip(seed: int) -> Tensor:
        randn = SeededNoise([seed], shape)
        return sampler(denoise, randn(), alpha_bar, randn=randn)  # type: ignore[operator]

    randn = between(SeededNoise([3], shape), SeededNoise([8], shape), torch.linspace(0, 1, 5))
    path = sampler(denoise, randn(), alpha_bar, randn=randn)  # type: ignore[operator]
    torch.testing.assert_close(path[0], clip(3)[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(path[-1], clip(8)[0], rtol=1e-4, atol=1e-4)
    assert (path[2] - path[0]).abs().max() > 0.1 and (path[2] - path[-1]).abs().max() > 0.1


# --- inversion


@pytest.mark.parametrize("schedule", [linear, cosine, zero_terminal_snr])
@pytest.mark.parametrize("steps", [120, 300])
def test_sampling_from_the_inverted_noise_returns_the_clip(schedule: object, steps: int) -> None:
    """With the same steps, far closer than the error that the steps themselves make."""
    alpha_bar = alpha_bar_of(schedule)
    denoise = two_modes(alpha_bar)
    g = torch.Generator().manual_seed(0)
    x0 = torch.where(torch.rand(6, 5, generator=g) < 0.5, -1.0, 1.0).double() + 0.4 * torch.randn(6, 5, generator=g).double()
    noise = ddim_inverse(denoise, x0, alpha_bar, steps=steps, refinements=8)
    again = ddim(denoise, noise, alpha_bar, randn=lambda: noise, steps=steps)
    assert (again - x0).abs().max() < 1e-3


def test_refinements_bring_it_closer() -> None:
    alpha_bar = alpha_bar_of(linear)
    denoise = two_modes(alpha_bar)
    x0 = torch.linspace(-1.8, 1.8, 9, dtype=torch.float64)[:, None]

    def error(refinements: int) -> float:
        noise = ddim_inverse(denoise, x0, alpha_bar, steps=30, refinements=refinements)
        return (ddim(denoise, noise, alpha_bar, randn=lambda: noise, steps=30) - x0).abs().max().item()

    errors = [error(k) for k in (0, 1, 3, 6)]
    assert errors[1] < 0.5 * errors[0] and errors[2] < 0.5 * errors[1] and errors[3] < 0.5 * errors[2]


def test_the_noise_of_a_gaussian_clip_is_its_distance_from_the_mean() -> None:
    """Along the probability flow (x - mean) / deviation stays: the noise is (x0 - mu) / s, but for the discrete steps."""
    alpha_bar = alpha_bar_of(cosine, 4000)
    x0 = torch.tensor([[0.3], [0.8], [-0.7]], dtype=torch.float64)
    noise = ddim_inverse(gaussian(alpha_bar, 0.3, 0.5), x0, alpha_bar, steps=1500, refinements=2)
    torch.testing.assert_close(noise, (x0 - 0.3) / 0.5, rtol=0.02, atol=5e-3)


def test_noise_of_no_use_is_called_so(tiny_config: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """An untrained network leaves the exact denoiser of a Gaussian: its clips are noise of deviation 1, ten times them of ten."""
    prediction = {"_target_": "ddpm.process.gaussian.Gaussian", "channels": 60, "frames": 8}
    model = build_module({**tiny_config, "T": 300, "prediction": prediction}, 20.0)
    model.diffusion.eps_model.forward = lambda xt, *_, **__: torch.zeros_like(xt)  # as it says, only sooner
    clips = torch.randn(40, 8, 20, 3, generator=torch.Generator().manual_seed(0)).cumsum(1) / 4
    model.fit({"clips": clips.permute(0, 2, 3, 1), "mask": None})
    again, noise = invert(model, clips[:4], 100)
    assert not caplog.records and float((again.positions - clips[:4]).abs().max()) < 0.01
    assert noise.flatten(1).std(dim=1).sub(1).abs().max() < 0.3
    invert(model, torch.cat([clips[:3], 10 * clips[3:4]]), 100)
    assert "the noise of 1 of 4 clips is of no use: the deviations are 1.01 to 10.1" in caplog.text
    caplog.clear()
    invert(model, clips[:4], 15)
    assert [record.getMessage()[:60] for record in caplog.records] == [
        "invert: 15 calls are too few: clips sampled again are off by"
    ]


def test_negative_refinements_are_named() -> None:
    alpha_bar = alpha_bar_of(linear)
    with pytest.raises(ValueError, match="refinements=-1"):
        ddim_inverse(gaussian(alpha_bar, 0, 1), torch.zeros(1, 1), alpha_bar, refinements=-1)


def test_the_network_sees_clips_as_long_as_in_training(tiny_config: dict[str, Any]) -> None:
    """Also where a clip is longer: it is made of windows."""
    model = build_module(tiny_config, 20.0)
    clip = torch.randn(20, 20, 3, generator=torch.Generator().manual_seed(0)).cumsum(0) / 10
    model.fit({"clips": clip.unfold(0, 8, 4), "mask": None})
    seen: list[int] = []
    model.diffusion.eps_model.register_forward_pre_hook(lambda network, given: seen.append(given[0].shape[-1]))
    made = [
        model.sample(1, frames=20),
        vary(model, clip, 0.5, [0]),
        invert(model, clip[None], 2)[0],
        interpolate(model, (0, 1), 3, frames=20),
        edit(model, clip, given_by(["0:9"], model.skeleton, 20), [0]),
    ]
    assert [clips.positions.shape[1] for clips in made] == [20] * 5
    assert set(seen) == {8}
