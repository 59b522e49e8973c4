"""Gaussian mixtures, whose exact epsilon is known: every sampler with every prediction and schedule draws from them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor

from ddpm.process.diffusion import DenoiseDiffusion
from ddpm.process.prediction import EDM, X0, Epsilon, Prediction, Velocity
from ddpm.process.samplers import Denoise, Sampler, ddim, ddpm, dpmpp_2m, dpmpp_2m_sde, heun, unipc
from ddpm.process.schedules import cosine, linear, sigmoid, zero_terminal_snr

N = 3000
T = 1000

SAMPLERS = {
    "ddpm": partial(ddpm, steps=250, spacing="logsnr"),
    "ddim": partial(ddim, steps=150, spacing="logsnr"),
    "ddim-eta1": partial(ddim, steps=300, eta=1.0, spacing="logsnr"),
    "heun": partial(heun, steps=101),
    "dpmpp_2m": partial(dpmpp_2m, steps=40),
    "dpmpp_2m_sde": partial(dpmpp_2m_sde, steps=60),
    "unipc": partial(unipc, steps=40),
}
CASES = [
    *((p, schedule, dims) for p in (Epsilon(), X0(), Velocity()) for schedule in (linear, cosine, sigmoid) for dims in (2, 60)),
    *((EDM(), schedule, 60) for schedule in (cosine, zero_terminal_snr)),
    *((p, zero_terminal_snr, dims) for p, dims in ((X0(), 2), (Velocity(), 2), (Velocity(), 60))),
]


@dataclass(frozen=True)
class Mixture:
    """Gaussians of unequal weight and width around separate means, about as large as normalised data.

    Attributes:
        weights: ``(modes,)``.
        means: ``(modes, dims)``.
        stds: ``(modes,)``, the same in all dimensions.
    """

    weights: Tensor
    means: Tensor
    stds: Tensor

    def x0_hat(self, xt: Tensor, alpha_bar: Tensor) -> Tensor:
        """E[x0 | xt]: the posterior means of all modes, weighed with the modes' posterior probabilities."""
        var = alpha_bar * self.stds**2 + 1 - alpha_bar
        distance = torch.cdist(xt, alpha_bar.sqrt() * self.means)
        p = (self.weights.log() - distance**2 / (2 * var) - xt.shape[1] / 2 * var.log()).softmax(dim=1)
        pull = alpha_bar.sqrt() * self.stds**2 / var  # of one mode: mean + pull (xt - sqrt(alpha_bar) mean)
        return (p * (1 - pull * alpha_bar.sqrt())) @ self.means + (p @ pull)[:, None] * xt

    def distance(self, x: Tensor) -> float:
        """How far samples are from the mixture: the largest of three errors, each 1 at its tolerance.

        Every sample belongs to the nearest mean. The weights of the modes may be wrong by 0.04, the means by 0.2 widths in any
        dimension and the widths by 8 % in two dimensions and 4 % in many. These are four to five standard errors of as many
        exact draws, whose distance is about 0.5. Samples that are not numbers are infinitely far.
        """
        mode = torch.cdist(x, self.means).argmin(dim=1)
        errors = []
        for k, (weight, std) in enumerate(zip(self.weights.tolist(), self.stds.tolist(), strict=True)):
            members = (x[mode == k] - self.means[k]) / std
            if len(members) < 2 or not bool(members.isfinite().all()):
                return math.inf
            errors.append(abs(len(members) / len(x) - weight) / 0.04)
            errors.append(float(members.mean(dim=0).abs().max()) / 0.2)
            errors.append(abs(float(members.var(dim=0).mean()) ** 0.5 - 1) / (0.08 if x.shape[1] == 2 else 0.04))
        return max(errors)

    def draw(self, n: int) -> Tensor:
        """Exact samples ``(n, dims)``."""
        g = torch.Generator().manual_seed(7)
        mode = torch.multinomial(self.weights, n, replacement=True, generator=g)
        z = torch.randn(n, self.means.shape[1], generator=g, dtype=torch.float64)
        return self.means[mode] + self.stds[mode, None] * z


def mixture_of(dims: int) -> Mixture:
    g = torch.Generator().manual_seed(dims)
    corners = torch.tensor([[1.0, 1.0], [-1.0, 0.8], [0.1, -1.2]], dtype=torch.float64)
    means = corners if dims == 2 else 0.7 * torch.randn(3, dims, generator=g, dtype=torch.float64)
    return Mixture(torch.tensor([0.5, 0.3, 0.2]).double(), means, torch.tensor([0.3, 0.15, 0.2]).double())


MIXTURES = {dims: mixture_of(dims) for dims in (2, 60)}


def diffusion_of(mixture: Mixture, prediction: Prediction, schedule: Callable[[int], Tensor]) -> DenoiseDiffusion:
    """A diffusion in float64 around the network that answers exactly, in the terms of the prediction."""

    def network(xt: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        alpha_bar = diffusion.alpha_bar[t[0]]  # samplers ask for one t at a time
        x0_hat = mixture.x0_hat(xt, alpha_bar)
        return prediction.target(x0_hat, (xt - alpha_bar.sqrt() * x0_hat) / (1 - alpha_bar).sqrt(), alpha_bar)

    diffusion = DenoiseDiffusion(network, T, beta_schedule=schedule, prediction=prediction).double()
    return diffusion


def drawn(sampler: Sampler, diffusion: DenoiseDiffusion, dims: int) -> Tensor:
    g = torch.Generator().manual_seed(0)

    def randn() -> Tensor:
        return torch.randn(N, dims, generator=g).double()

    return sampler(diffusion.denoise, randn(), diffusion.alpha_bar, randn=randn)


PAIRS = [(name, *case) for name in SAMPLERS for case in CASES]


@pytest.mark.parametrize(
    ("name", "prediction", "schedule", "dims"),
    [pytest.param(*pair, marks=pytest.mark.slow) if k % 5 else pair for k, pair in enumerate(PAIRS)],
    ids=lambda x: x if isinstance(x, str) else getattr(x, "__name__", None) or repr(x).split()[0],
)
def test_samplers_draw_from_the_mixture(name: str, prediction: Prediction, schedule: Callable[[int], Tensor], dims: int) -> None:
    mixture = MIXTURES[dims]
    x0 = drawn(SAMPLERS[name], diffusion_of(mixture, prediction, schedule), dims)
    assert mixture.distance(x0) < 1


def louder(sampler: Sampler, factor: float) -> Sampler:
    """The sampler with every z, but not x_T, multiplied."""

    def with_louder_noise(denoise: Denoise, noise: Tensor, alpha_bar: Tensor, *, randn: Callable[[], Tensor]) -> Tensor:
        return sampler(denoise, noise, alpha_bar, randn=lambda: factor * randn())

    return with_louder_noise


def with_answers(sampler: Sampler, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Sampler:
    """The sampler with the network's (x0_hat, eps_hat) changed."""

    def with_changed_answers(denoise: Denoise, noise: Tensor, alpha_bar: Tensor, *, randn: Callable[[], Tensor]) -> Tensor:
        return sampler(lambda xt, t: change(*denoise(xt, t)[:2]), noise, alpha_bar, randn=randn)

    return with_changed_answers


def late(sampler: Sampler, steps: int) -> Sampler:
    """The sampler with a network that is told a t that is too low."""

    def with_late_network(denoise: Denoise, noise: Tensor, alpha_bar: Tensor, *, randn: Callable[[], Tensor]) -> Tensor:
        return sampler(lambda xt, t: denoise(xt, (t - steps).clamp(min=0)), noise, alpha_bar, randn=randn)

    return with_late_network


BROKEN = {
    "10 % too much noise": louder(SAMPLERS["ddpm"], 1.1),
    "no noise": louder(SAMPLERS["ddpm"], 0.0),
    "half the noise of eta 1": louder(SAMPLERS["ddim-eta1"], 0.5),
    "10 % too much noise in the SDE": louder(SAMPLERS["dpmpp_2m_sde"], 1.1),
    "eps 5 % too large": with_answers(SAMPLERS["ddim"], lambda x0_hat, eps_hat: (x0_hat, 1.05 * eps_hat)),
    "x0 5 % too large": with_answers(SAMPLERS["dpmpp_2m"], lambda x0_hat, eps_hat: (1.05 * x0_hat, eps_hat)),
    "x0 5 % too small in Heun's rule": with_answers(SAMPLERS["heun"], lambda x0_hat, eps_hat: (0.95 * x0_hat, eps_hat)),
    "t too low by 20": late(SAMPLERS["ddim"], 20),
    "the mean of all data": partial(ddpm, steps=1),
    "too few steps": partial(ddim, steps=5),
}


@pytest.mark.parametrize("dims", MIXTURES)
@pytest.mark.parametrize("name", BROKEN)
def test_the_distance_sees_a_broken_sampler(name: str, dims: int) -> None:
    mixture = MIXTURES[dims]
    assert mixture.distance(drawn(BROKEN[name], diffusion_of(mixture, Epsilon(), linear), dims)) > 1


@pytest.mark.parametrize("dims", MIXTURES)
def test_the_distance_accepts_exact_draws(dims: int) -> None:
    mixture = MIXTURES[dims]
    x = mixture.draw(N)
    assert mixture.distance(x) < 0.7
    assert mixture.distance(x + 0.3 * mixture.stds.min()) > 1 and mixture.distance(1.1 * x) > 1
    assert mixture.distance(x.where(torch.arange(N)[:, None] > 0, torch.nan)) == math.inf
