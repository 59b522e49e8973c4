"""The variance of reverse steps: exact posteriors, exact Gaussians, and the bound from which it is learned."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from ddpm.networks.transformer import MotionTransformer
from ddpm.networks.unet import MDM_UNetModel
from ddpm.process.diffusion import Denoised, DenoiseDiffusion, reverse_mean
from ddpm.process.prediction import X0, Epsilon, Prediction, Velocity
from ddpm.process.samplers import SeededNoise, ddim, ddpm
from ddpm.process.schedules import cosine, linear, zero_terminal_snr
from ddpm.process.spacing import SPACINGS, spaced_steps
from ddpm.process.variance import Fixed, Learned, reverse_variance

SCHEDULES = [linear, cosine, zero_terminal_snr]


def alpha_bar_of(schedule: Callable[[int], Tensor], T: int) -> Tensor:
    return (1 - schedule(T)).cumprod(0)


def levels(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(alpha_bar, before): random pairs of noise levels, each ``(n, 1)`` float64; the first has no signal."""
    g = torch.Generator().manual_seed(seed)
    pairs = torch.rand(n, 2, generator=g, dtype=torch.float64).sort(dim=1).values * 0.98 + 0.01
    pairs[0, 0] = 0
    return pairs[:, :1], pairs[:, 1:]


def posterior(x0: Tensor, xt: Tensor, alpha_bar: Tensor, before: Tensor) -> Normal:
    """q(x_{t-1} | xt, x0) by Bayes' rule: the product of q(x_{t-1} | x0) and q(xt | x_{t-1}), precisions added."""
    alpha = alpha_bar / before
    precision = 1 / (1 - before) + alpha / (1 - alpha)
    mean = (before.sqrt() * x0 / (1 - before) + alpha.sqrt() * xt / (1 - alpha)) / precision
    return Normal(mean, precision**-0.5)


# --- closed forms


def test_the_ends_are_beta_and_the_posterior() -> None:
    alpha_bar, before = levels(50)
    x0, xt = torch.randn(2, 50, 3, dtype=torch.float64)
    alpha, ratio = alpha_bar / before, (1 - before) / (1 - alpha_bar)
    eps = (xt - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()
    exact = posterior(x0, xt, alpha_bar, before)
    torch.testing.assert_close(reverse_variance(alpha, ratio, 1.0), 1 - alpha)
    torch.testing.assert_close(reverse_variance(alpha, ratio, 0.0).expand(-1, 3), exact.variance)
    torch.testing.assert_close(reverse_mean(x0, eps, alpha, alpha_bar, before), exact.mean)


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0, 1.4])
def test_between_them_it_is_a_line_in_the_logarithm(fraction: float) -> None:
    """Nichol & Dhariwal 2021, equation 15."""
    alpha_bar, before = levels(50)
    beta = 1 - alpha_bar / before
    tilde = (1 - before) / (1 - alpha_bar) * beta
    expected = (fraction * beta.log() + (1 - fraction) * tilde.log()).exp()
    got = reverse_variance(alpha_bar / before, (1 - before) / (1 - alpha_bar), torch.full((50, 1), fraction).double())
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
def test_the_table_holds_it(fraction: float, schedule: Callable[[int], Tensor]) -> None:
    beta, alpha_bar = schedule(30), alpha_bar_of(schedule, 30)
    diffusion = DenoiseDiffusion(nn.Identity(), 30, beta_schedule=schedule, prediction=X0(), variance=Fixed(fraction))
    tilde = (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:]) * beta[1:]
    expected = beta[1:] ** fraction * tilde ** (1 - fraction)
    torch.testing.assert_close(diffusion.sigma2[1:].double(), expected, rtol=1e-6, atol=0)
    assert diffusion.sigma2.isfinite().all()


@pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan])
def test_an_impossible_fraction_is_named(fraction: float) -> None:
    with pytest.raises(ValueError, match=rf"variance\.fraction={fraction}.*0\.\.1"):
        Fixed(fraction)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan])
def test_an_impossible_weight_is_named(weight: float) -> None:
    with pytest.raises(ValueError, match=rf"variance\.vlb_weight={weight}.*positive"):
        Learned(weight)


# --- sampling


def answering(alpha_bar: Tensor, fraction: Callable[[int], float] | float, mu: float, s: float) -> Callable[..., Denoised]:
    """The exact denoiser of N(mu, s^2), with a fraction."""

    def denoise(xt: Tensor, t: Tensor) -> Denoised:
        ab = alpha_bar[t].reshape(-1, *[1] * (xt.ndim - 1))
        surprise = (xt - ab.sqrt() * mu) / (ab * s**2 + 1 - ab)
        f = fraction(int(t[0])) if callable(fraction) else fraction
        return Denoised(mu + ab.sqrt() * s**2 * surprise, (1 - ab).sqrt() * surprise, f)

    return denoise


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [None, 7])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_beta_tilde_is_ddim_with_eta_1(schedule: Callable[[int], Tensor], steps: int | None, spacing: str) -> None:
    alpha_bar = alpha_bar_of(schedule, 40)
    noise = torch.randn(3, 2, dtype=torch.float64)

    def x0(sampler: Callable[..., Tensor]) -> Tensor:
        g = torch.Generator().manual_seed(0)
        randn = partial(torch.randn, noise.shape, generator=g, dtype=torch.float64)
        return sampler(answering(alpha_bar, 0.0, 0.4, 0.7), noise, alpha_bar, randn=randn, steps=steps, spacing=spacing)

    torch.testing.assert_close(x0(ddpm), x0(partial(ddim, eta=1.0)), rtol=1e-9, atol=1e-9)


def variances(denoise: Callable[..., Denoised], alpha_bar: Tensor, steps: int | None, spacing: str) -> dict[int, float]:
    """The exact variance of x at every visited step: it is linear in x_T and all z, one row of the batch for each."""
    visited = spaced_steps(alpha_bar, steps, spacing)
    noise = torch.zeros(len(visited) + 1, 1, dtype=torch.float64)
    noise[1] = 1
    place = iter(range(2, len(visited) + 1))
    found: dict[int, float] = {}

    def impulse() -> Tensor:
        z = torch.zeros_like(noise)
        z[next(place)] = 1
        return z

    def observer(t: int, xt: Tensor, x0_hat: Tensor) -> None:
        found[t] = (xt[1:] - xt[0]).square().sum().item()

    ddpm(denoise, noise, alpha_bar, randn=impulse, steps=steps, spacing=spacing, observer=observer)
    assert list(found) == visited
    return found


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [None, 20, 3])
@pytest.mark.parametrize("s", [0.0, 0.3, 1.0, 2.5])
def test_the_right_fraction_makes_every_step_exact(s: float, steps: int | None, spacing: str) -> None:
    """Ancestral steps of any length then leave x_t as the forward process has it: variance alpha_bar s^2 + 1 - alpha_bar.

    The start is exact too where no signal is left. For s = 0 the fraction is 0, for s = 1 it is 1, and above 1 for wider data.
    """
    alpha_bar = alpha_bar_of(zero_terminal_snr, 200)
    following = dict(pairwise(spaced_steps(alpha_bar, steps, spacing)))
    fractions = []

    def fraction(t: int) -> float:
        if t not in following:
            return math.nan  # after the last step no noise is added
        now, then = alpha_bar[t].item(), alpha_bar[following[t]].item()
        var_now, var_then = (ab * s**2 + 1 - ab for ab in (now, then))
        exact = var_then * (1 - now / then) / var_now  # of two jointly Gaussian numbers, the one given the other
        ratio = (1 - then) / (1 - now)
        fractions.append(1 - math.log(exact / (1 - now / then)) / math.log(ratio))
        return fractions[-1]

    for t, var in variances(answering(alpha_bar, fraction, 0.4, s), alpha_bar, steps, spacing).items():
        assert var == pytest.approx(alpha_bar[t].item() * s**2 + 1 - alpha_bar[t].item(), rel=1e-9)
    low, high = min(fractions), max(fractions)
    assert (0 <= low < high < 1) == (s == 0.3) and (low > 1) == (s > 1)
    if s in (0.0, 1.0):
        assert low == pytest.approx(s, abs=1e-9) and high == pytest.approx(s, abs=1e-9)


def test_other_fractions_do_not() -> None:
    alpha_bar = alpha_bar_of(zero_terminal_snr, 200)
    for s, fraction in ((0.0, 0.2), (0.3, 0.0), (0.3, 1.0), (1.0, 0.9)):
        found = variances(answering(alpha_bar, fraction, 0.4, s), alpha_bar, 20, "logsnr")
        assert max(abs(v / (alpha_bar[t].item() * (s**2 - 1) + 1) - 1) for t, v in found.items()) > 0.01


# --- learning


@pytest.mark.parametrize(("T", "weight"), [(1000, 0.001), (40, 0.3)])
def test_the_bound_is_the_divergence_of_two_gaussians(T: int, weight: float) -> None:
    """T weight KL(q(x_{t-1} | xt, x0) || p(x_{t-1} | xt)), with the means of both from the same xt."""
    alpha_bar, before = levels(200)
    x0, x0_hat, xt, fraction = torch.randn(4, 200, 3, dtype=torch.float64)
    fraction = (0.5 + 0.5 * fraction).clamp(max=1)  # beyond beta the variance of a step is bounded, and the loss is not
    alpha, ratio = alpha_bar / before, (1 - before) / (1 - alpha_bar)
    eps_hat = (xt - alpha_bar.sqrt() * x0_hat) / (1 - alpha_bar).sqrt()
    mean = reverse_mean(x0_hat, eps_hat, alpha, alpha_bar, before)
    p = Normal(mean, reverse_variance(alpha, ratio, fraction) ** 0.5)
    expected = T * weight * kl_divergence(posterior(x0, xt, alpha_bar, before), p)
    torch.testing.assert_close(Learned(weight).loss(fraction, x0 - x0_hat, alpha_bar, before, T), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("s", [0.1, 0.7, 1.0, 3.0])
def test_the_bound_is_least_at_the_exact_reverse_variance(s: float) -> None:
    """For data N(mu, s^2), whose x0 given xt has variance s^2 (1 - alpha_bar) / (alpha_bar s^2 + 1 - alpha_bar)."""
    alpha_bar, before = levels(30)
    wide = alpha_bar * s**2 + 1 - alpha_bar
    exact = (before * s**2 + 1 - before) * (1 - alpha_bar / before) / wide
    beta, ratio = 1 - alpha_bar / before, (1 - before) / (1 - alpha_bar)
    best = 1 - (exact / beta).log() / ratio.log()
    x0_error = (s**2 * (1 - alpha_bar) / wide).sqrt()  # the bound is linear in its square, so its mean is all that counts

    def bound(fraction: Tensor) -> Tensor:
        return Learned(0.001).loss(fraction, x0_error, alpha_bar, before, 1000)

    fraction = best.clone().requires_grad_()
    (slope,) = torch.autograd.grad(bound(fraction).sum(), fraction)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-9)
    assert (bound(best + 0.05) > bound(best)).all() and (bound(best - 0.05) > bound(best)).all()


class Knowing(nn.Module):
    """The exact network of N(0, s^2) whose mean is a factor off, with a learned fraction, the same at every t."""

    def __init__(self, s: float, prediction: Prediction, fraction: float = 0.5) -> None:
        super().__init__()
        self.s = s
        self.prediction = prediction
        self.factor = nn.Parameter(torch.tensor(1.0).double())
        self.place = nn.Parameter(torch.tensor(2 * fraction - 1).double())
        self.alpha_bar = torch.zeros(0)

    def forward(self, xt: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        ab = self.alpha_bar[t][:, None]
        x0_hat = ab.sqrt() * self.s**2 * xt / (ab * self.s**2 + 1 - ab)
        output = self.factor * self.prediction.target(x0_hat, (xt - ab.sqrt() * x0_hat) / (1 - ab).sqrt(), ab)
        return torch.cat([output, self.place.expand_as(output)], dim=1)


def knowing(s: float, prediction: Prediction, variance: Learned | None = None) -> DenoiseDiffusion:
    network = Knowing(s, prediction)
    diffusion = DenoiseDiffusion(network, 20, beta_schedule=cosine, prediction=prediction, variance=variance or Learned())
    network.alpha_bar = diffusion.double().alpha_bar
    return diffusion


@pytest.mark.parametrize("prediction", [Epsilon(), X0(), Velocity()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("t", [1, 10, 19])
def test_training_would_find_it(t: int, prediction: Prediction) -> None:
    """Through the whole loss, on drawn data: its slope by the fraction is 0 at the right one, and not beside it."""
    s, n = 0.4, 40_000
    diffusion = knowing(s, prediction)
    ab, before = diffusion.alpha_bar[t].item(), diffusion.alpha_bar[t - 1].item()
    exact = (before * s**2 + 1 - before) / (ab * s**2 + 1 - ab)
    best = 1 - math.log(exact) / math.log((1 - before) / (1 - ab))
    x0, eps = (
        torch.randn(2, n, 1, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        * torch.tensor([s, 1.0])[:, None, None]
    )

    def slope(fraction: float) -> float:
        diffusion.eps_model.place.data.fill_(2 * fraction - 1)
        (grad,) = torch.autograd.grad(diffusion.loss(x0, eps, t=torch.full((n,), t)), diffusion.eps_model.place)
        return grad.item()

    beside = slope(best - 0.1), slope(best + 0.1)
    assert beside[0] < 0 < beside[1] and abs(slope(best)) < 0.1 * min(-beside[0], beside[1])


@pytest.mark.parametrize("prediction", [Epsilon(), X0(), Velocity()], ids=lambda p: type(p).__name__)
def test_the_bound_moves_the_fraction_alone(prediction: Prediction) -> None:
    x0, eps = torch.randn(2, 20, 1, dtype=torch.float64)
    t = torch.arange(20)
    grads = {}
    for weight in (1e-3, 1.0):
        diffusion = knowing(0.5, prediction, Learned(weight))
        diffusion.eps_model.factor.data.fill_(0.8)
        diffusion.loss(x0, eps, t=t).backward()
        grads[weight] = diffusion.eps_model.factor.grad.item(), diffusion.eps_model.place.grad.item()
    assert grads[1.0][0] == grads[1e-3][0] != 0
    assert grads[1.0][1] == pytest.approx(1e3 * grads[1e-3][1], rel=1e-9) and grads[1.0][1] != 0


def test_at_the_first_step_there_is_nothing_to_learn() -> None:
    diffusion = knowing(0.5, X0(), Learned(1.0))
    x0, eps, t = torch.randn(4, 1, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64), torch.zeros(4, dtype=torch.long)
    loss = diffusion.loss(x0, eps, t=t)
    x0_hat = diffusion.denoise(diffusion.q_sample(x0, t, eps), t).x0_hat
    snr = diffusion.alpha_bar[0] / (1 - diffusion.alpha_bar[0])
    torch.testing.assert_close(loss, snr * (x0 - x0_hat).square().mean())
    loss.backward()
    assert diffusion.eps_model.place.grad == 0


@pytest.mark.parametrize("fraction", [-0.5, 0.0, 1.0, 3.0])
def test_what_is_said_of_the_first_step_does_not_matter(fraction: float) -> None:
    """No noise is added and the network is untrained there; beta-tilde is 0, its negative power is not finite."""
    diffusion = knowing(0.5, X0())
    diffusion.eps_model.place.data.fill_(2 * fraction - 1)
    x, t = torch.randn(3, 1, dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    torch.testing.assert_close(diffusion.p_sample(x, t), diffusion.denoise(x, t).x0_hat, rtol=1e-4, atol=1e-6)


# --- networks with a second set of channels

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet": lambda: MDM_UNetModel(8, 6, 8, 12, 1, [2], channel_mult=(1, 2), num_heads=2),
    "transformer": lambda: MotionTransformer(8, 6, 16, 12, 2, 2),
}


@pytest.mark.parametrize("prediction", [X0(), Velocity()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_say_mean_and_variance(name: str, prediction: Prediction) -> None:
    """The sampler and p_sample take the same steps, whose noise is as large as the second half of the channels says."""
    torch.manual_seed(0)
    network = NETWORKS[name]()
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    variance: Any = Learned()
    diffusion = DenoiseDiffusion(network, 6, beta_schedule=zero_terminal_snr, prediction=prediction, variance=variance).double()
    randn = SeededNoise([0, 1], (3, 2, 8))
    path: list[Tensor] = []
    x0 = ddpm(
        diffusion.denoise, randn().double(), diffusion.alpha_bar, randn=lambda: randn().double(),
        observer=lambda t, xt, x0_hat: path.append(xt),
    )  # fmt: skip
    path.append(x0)
    again = SeededNoise([0, 1], (3, 2, 8))
    again()
    for i, t in enumerate(range(5, -1, -1)):
        z = again().double() if t > 0 else torch.full_like(x0, 99.0)
        at = torch.full((2,), t)
        torch.testing.assert_close(diffusion.p_sample(path[i], at, z), path[i + 1], rtol=1e-4, atol=1e-4)
        if t == 0:
            break
        halves = network(path[i], at).detach().chunk(2, dim=1)
        fraction = (halves[1].reshape(path[i].shape) + 1) / 2
        beta, ab = 1 - diffusion.alpha[t], diffusion.alpha_bar
        sigma2 = beta * ((1 - ab[t - 1]) / (1 - ab[t])) ** (1 - fraction)
        spread = path[i + 1] - diffusion.p_sample(path[i], at, torch.zeros_like(z))
        torch.testing.assert_close(spread.detach(), sigma2**0.5 * z, rtol=1e-3, atol=1e-4)
        assert fraction.std() > 0.01, "it differs between the numbers of a clip"
    loss = diffusion.loss(path[-1].detach(), t=torch.tensor([2, 5]))
    loss.backward()
    assert loss.isfinite() and all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_a_fraction_above_1_stays_within_reason_over_few_steps() -> None:
    """Two steps of the cosine schedule: beta-tilde is 4e-5 of beta, and fraction 1.5 would be 150 times beta."""
    alpha_bar = (1 - cosine(1000)).cumprod(0)
    seen: dict[float, Tensor] = {}
    for fraction in (1.0, 1.1, 1.5):

        def denoise(xt: Tensor, t: Tensor, fraction: float = fraction) -> Denoised:
            return Denoised(torch.zeros_like(xt), torch.zeros_like(xt), torch.full_like(xt, fraction))

        def observer(t: int, xt: Tensor, x0_hat: Tensor, fraction: float = fraction) -> None:
            seen[fraction] = xt

        ddpm(denoise, torch.zeros(1, 1).double(), alpha_bar, randn=lambda: torch.ones(1, 1), steps=2, observer=observer)
    beta = 1 - (alpha_bar[-1] / alpha_bar[0]).item()
    ratio = ((1 - alpha_bar[0]) / (1 - alpha_bar[-1])).item()
    assert [x.item() ** 2 / beta for x in seen.values()] == pytest.approx([1.0, ratio**-0.1, 10.0], rel=1e-6)


@pytest.mark.parametrize("fraction", [1.0, 2.0, 9.0])
def test_one_step_and_the_sampler_limit_it_alike(fraction: float) -> None:
    """At t = 1 of a schedule that starts gently, beta-tilde is a small part of beta."""
    variance: Any = Learned()
    diffusion = DenoiseDiffusion(
        lambda xt, t, cond=None: torch.cat([torch.zeros_like(xt), torch.full_like(xt, 2 * fraction - 1)], dim=1),
        2, beta_schedule=lambda T: torch.tensor([1e-4, 0.5], dtype=torch.float64), prediction=X0(), variance=variance,
    )  # fmt: skip
    seen: list[Tensor] = []
    x, ones = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    ddpm(diffusion.denoise, x, diffusion.alpha_bar, randn=lambda: ones, observer=lambda t, xt, x0_hat: seen.append(xt))
    stepped = diffusion.p_sample(x, torch.ones(1, dtype=torch.long), ones)
    torch.testing.assert_close(stepped, seen[-1], rtol=1e-5, atol=0.0)
    assert stepped.item() ** 2 == pytest.approx(0.5 if fraction == 1 else 10 * 0.5, rel=1e-4)
