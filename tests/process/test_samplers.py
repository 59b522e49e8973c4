"""Samplers: exact on what can be solved by hand, and no randomness that was not handed to them."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ddpm.process.diffusion import DenoiseDiffusion
from ddpm.process.prediction import X0, Epsilon, Prediction, Velocity
from ddpm.process.samplers import (
    Denoise,
    Sampler,
    SeededNoise,
    ddim,
    ddpm,
    dpmpp_2m,
    dpmpp_2m_sde,
    heun,
    unipc,
)
from ddpm.process.schedules import cosine, linear, sigmoid, zero_terminal_snr
from ddpm.process.spacing import SPACINGS, spaced_steps

DETERMINISTIC = [ddim, heun, dpmpp_2m, unipc]
STOCHASTIC = [ddpm, partial(ddim, eta=1.0), partial(ddim, eta=0.3), dpmpp_2m_sde]
SAMPLERS = [*DETERMINISTIC, *STOCHASTIC]
SCHEDULES = [linear, cosine, sigmoid]


def visits_of(sampler: Sampler, alpha_bar: Tensor, steps: int | None, spacing: str) -> list[int]:
    """The diffusion steps that a number of network calls is enough for: Heun's method asks twice at all but the first."""
    return spaced_steps(alpha_bar, (steps + 1) // 2 if sampler is heun and steps is not None else steps, spacing)


def alpha_bar_of(schedule: Callable[[int], Tensor], T: int) -> Tensor:
    return (1 - schedule(T)).cumprod(0)


def even_logsnr(T: int, extent: float = 9.0) -> Tensor:
    """A process whose log(SNR) falls evenly from +extent to -extent, so that n steps of equal size exist for every n | T - 1."""
    return torch.sigmoid(torch.linspace(extent, -extent, T, dtype=torch.float64))


def exact(alpha_bar: Tensor, mu: float, s: float) -> Denoise:
    """(E[x0 | xt], E[eps | xt]) for data of N(mu, s^2)."""

    def denoise(xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        ab = alpha_bar[t].reshape(-1, *[1] * (xt.ndim - 1))
        surprise = (xt - ab.sqrt() * mu) / (ab * s**2 + 1 - ab)
        return mu + ab.sqrt() * s**2 * surprise, (1 - ab).sqrt() * surprise

    return denoise


def curved(alpha_bar: Tensor) -> Denoise:
    """A denoiser that is no straight line in xt; its two answers belong together."""

    def denoise(xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        ab = alpha_bar[t].reshape(-1, *[1] * (xt.ndim - 1))
        x0_hat = (2 * xt).tanh() + 0.1
        return x0_hat, (xt - ab.sqrt() * x0_hat) / (1 - ab).sqrt()

    return denoise


def forbidden() -> Tensor:
    raise AssertionError("no noise may be drawn here")


def standard_normal(x: Tensor, seed: int = 0) -> Callable[[], Tensor]:
    g = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(x.shape, generator=g, dtype=x.dtype)


# --- noise


def test_the_noise_of_a_clip_is_its_own() -> None:
    alone, among = SeededNoise([7], (3, 2)), SeededNoise([4, 7, 9], (3, 2))
    for _ in range(3):
        assert torch.equal(alone()[0], among()[1])


def test_draws_differ_between_clips_and_calls() -> None:
    noise = SeededNoise([1, 2, 1], (50,))
    first, second = noise(), noise()
    assert first.shape == (3, 50) and first.dtype == torch.float32
    assert torch.equal(first[0], first[2])
    assert (first[0] != first[1]).all() and (first != second).all()


def test_noise_is_standard_normal_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    draws = SeededNoise(range(100), (200,))()
    assert torch.equal(torch.get_rng_state(), before)
    assert abs(draws.mean().item()) < 5 / 20_000**0.5 and abs(draws.var().item() - 1) < 5 * (2 / 20_000) ** 0.5
    assert torch.corrcoef(draws).fill_diagonal_(0).abs().max() < 0.4  # seeds that follow each other are unrelated


def test_noise_goes_to_the_device() -> None:
    assert SeededNoise([0], (2,), "meta")().device.type == "meta"


# --- which steps


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("schedule", [*SCHEDULES, zero_terminal_snr])
@pytest.mark.parametrize("T", [2, 3, 5, 8, 50, 1000])
def test_steps_fall_from_the_last_to_the_first(T: int, schedule: Callable[[int], Tensor], spacing: str) -> None:
    alpha_bar = alpha_bar_of(schedule, T)
    for steps in {2, 3, 5, 20, 49, T // 2 + 1, T - 1, T, T + 1, 5000} - {0, 1}:
        visited = spaced_steps(alpha_bar, steps, spacing)
        assert len(visited) == min(steps, T)
        assert visited[0] == T - 1
        assert visited[-1] == (round(T / steps) - 1 if spacing == "trailing" and steps < T else 0)
        assert all(isinstance(t, int) and t > s for t, s in pairwise(visited))
    assert spaced_steps(alpha_bar, None, spacing) == list(reversed(range(T)))
    assert spaced_steps(alpha_bar, 1, spacing) == [T - 1]


def test_more_steps_than_there_are_means_all() -> None:
    assert spaced_steps(alpha_bar_of(cosine, 5), 20, "logsnr") == [4, 3, 2, 1, 0]


def test_uniform_is_even_in_t() -> None:
    assert spaced_steps(alpha_bar_of(linear, 1000), 4, "uniform") == [999, 666, 333, 0]


def test_trailing_strides_alike_down_to_the_clean_clip() -> None:
    """Lin et al. 2023, table 2: 1000 steps, of which 10, counted from 1: 100, 200, ..., 1000."""
    alpha_bar = alpha_bar_of(linear, 1000)
    assert [t + 1 for t in spaced_steps(alpha_bar, 10, "trailing")] == list(range(1000, 0, -100))
    assert spaced_steps(alpha_bar, 3, "trailing") == [999, 666, 332]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [5, 10, 18])
def test_karras_is_even_in_the_seventh_root(schedule: Callable[[int], Tensor], steps: int) -> None:
    """Karras et al. 2022, equation 5, in plain floats; of many t the nearest one is near."""
    alpha_bar = alpha_bar_of(schedule, 20_000)
    ratio = ((1 - alpha_bar) / alpha_bar).sqrt()
    high, low = ratio[-1].item() ** (1 / 7), ratio[0].item() ** (1 / 7)
    wanted = [(high + i / (steps - 1) * (low - high)) ** 7 for i in range(steps)]
    visited = spaced_steps(alpha_bar, steps, "karras")
    for i, t in enumerate(visited):
        either_side = ratio[max(t - 1, 0)].item(), ratio[min(t + 1, 19_999)].item()
        assert either_side[0] * (1 - 1e-9) <= wanted[i] <= either_side[1] * (1 + 1e-9)


@pytest.mark.parametrize("steps", [5, 9, 11])
def test_logsnr_is_even_in_logsnr(steps: int) -> None:
    """On a process that is even in log(SNR) it is even in t; on the cosine schedule it is the nearest there is."""
    assert spaced_steps(even_logsnr(361), steps, "logsnr") == torch.linspace(360, 0, steps).round().long().tolist()
    alpha_bar = alpha_bar_of(cosine, 4000)
    logsnr = torch.logit(alpha_bar)
    visited = logsnr[spaced_steps(alpha_bar, steps, "logsnr")]
    wanted = torch.linspace(logsnr[-1].item(), logsnr[0].item(), steps, dtype=torch.float64)
    inner = (wanted > logsnr[-2]) & (wanted < logsnr[1])  # beyond them the last and the first step are all there is
    assert inner.sum() >= steps // 2
    widest = -logsnr[1:-1].diff().min()
    assert (visited - wanted)[inner].abs().max() <= widest / 2


@pytest.mark.parametrize(("spacing", "power"), [("logsnr", None), ("karras", 1 / 7)])
@pytest.mark.parametrize("steps", [4, 9, 16])
def test_without_signal_at_the_end_strides_are_even_from_the_step_before(steps: int, spacing: str, power: float | None) -> None:
    """The last step, infinitely far away, takes the first place; the others are the nearest to the places that are left."""
    alpha_bar = alpha_bar_of(zero_terminal_snr, 20_000)
    ratio = ((1 - alpha_bar) / alpha_bar)[:-1].sqrt()
    scale = ratio.log() if power is None else ratio**power
    high, low = scale[-1].item(), scale[0].item()
    visited = spaced_steps(alpha_bar, steps, spacing)
    assert visited[0] == 19_999
    for i, t in enumerate(visited[1:-1], start=1):
        wanted = high + i / (steps - 1) * (low - high)
        assert abs(scale[t] - wanted) <= min(abs(scale[t - 1] - wanted), abs(scale[t + 1] - wanted))


@pytest.mark.parametrize(("steps", "spacing", "message"), [(0, "uniform", "steps=0"), (-4, "karras", "steps=-4")])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_bad_numbers_of_steps_are_named(sampler: Sampler, steps: int, spacing: str, message: str) -> None:
    alpha_bar = alpha_bar_of(linear, 10)
    with pytest.raises(ValueError, match=f"sampler.{message}.*at least 1"):
        sampler(exact(alpha_bar, 0, 1), torch.zeros(1, 2), alpha_bar, randn=forbidden, steps=steps, spacing=spacing)


@pytest.mark.parametrize("steps", [3, None, 1, 1000])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_unknown_spacings_are_named(sampler: Sampler, steps: int | None) -> None:
    alpha_bar = alpha_bar_of(linear, 10)
    with pytest.raises(ValueError, match=r"sampler.spacing='loud'.*uniform.*logsnr"):
        sampler(exact(alpha_bar, 0, 1), torch.zeros(1, 2), alpha_bar, randn=forbidden, steps=steps, spacing="loud")


# --- what all samplers promise


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("T", "steps"), [(2, None), (50, 3), (50, 1), (1000, 20), (30, None)])
@pytest.mark.parametrize("schedule", [cosine, zero_terminal_snr])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_single_point_is_returned_exactly(
    sampler: Sampler, schedule: Callable[[int], Tensor], T: int, steps: int | None, spacing: str
) -> None:
    alpha_bar = alpha_bar_of(schedule, T)
    noise = 2 * torch.randn(3, 4, dtype=torch.float64)
    point = exact(alpha_bar, -0.6, 0.0)
    x0 = sampler(point, noise, alpha_bar, randn=standard_normal(noise), steps=steps, spacing=spacing)
    torch.testing.assert_close(x0, torch.full_like(x0, -0.6), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("schedule", "predictions"), [(linear, [X0(), Velocity(), Epsilon()]), (zero_terminal_snr, [X0(), Velocity()])]
)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_prediction_type_does_not_matter(
    sampler: Sampler, schedule: Callable[[int], Tensor], predictions: list[Prediction]
) -> None:
    """The same denoiser as an epsilon-model, an x0-model and a v-model: the same trajectory, step by step."""
    T = 40
    tables = DenoiseDiffusion(lambda *_: None, T, beta_schedule=schedule, prediction=X0()).double()
    denoise = curved(tables.alpha_bar)
    noise = torch.randn(2, 3, dtype=torch.float64)
    trajectories = []
    for prediction in predictions:

        def network(xt: Tensor, t: Tensor, cond: Tensor | None, prediction: Prediction = prediction) -> Tensor:
            return prediction.target(*denoise(xt, t), tables.alpha_bar[t][:, None])

        diffusion = DenoiseDiffusion(network, T, beta_schedule=schedule, prediction=prediction).double()
        path: list[Tensor] = []
        x0 = sampler(
            diffusion.denoise, noise, diffusion.alpha_bar, randn=standard_normal(noise), steps=None,
            observer=lambda t, xt, x0_hat, path=path: path.extend([xt, x0_hat]),
        )  # fmt: skip
        trajectories.append(torch.stack([*path, x0]))
    assert len(trajectories[0]) == 2 * T + 1
    for other in trajectories[1:]:
        torch.testing.assert_close(other, trajectories[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("T", "steps"), [(10, None), (100, 7), (100, 1)])
@pytest.mark.parametrize("schedule", [cosine, zero_terminal_snr])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_observer_sees_every_visited_step(
    sampler: Sampler, schedule: Callable[[int], Tensor], T: int, steps: int | None, spacing: str
) -> None:
    alpha_bar = alpha_bar_of(schedule, T)
    noise = torch.randn(3, 2, 2, dtype=torch.float64)
    calls, seen = [], []

    def network(xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        assert t.shape == (3,) and t.dtype == torch.int64 and (t == t[0]).all()
        calls.append((int(t[0]), xt, curved(alpha_bar)(xt, t)))
        return calls[-1][2]

    before = noise.clone()
    arguments = {"randn": standard_normal(noise), "steps": steps, "spacing": spacing}
    x0 = sampler(network, noise, alpha_bar, **arguments, observer=lambda t, xt, x0_hat: seen.append((t, xt, x0_hat)))
    assert torch.equal(noise, before) and torch.equal(seen[0][1], before)
    visited = visits_of(sampler, alpha_bar, steps, spacing)
    if sampler is heun:  # each step but the last is followed by a trial of the next one, which is no step yet
        assert [t for t, *_ in calls] == [visited[0], *(t for t in visited[1:] for _ in range(2))]
        calls = calls[::2]
    assert [t for t, *_ in seen] == [t for t, *_ in calls] == visited
    for (_, xt, x0_hat), (_, given, answer) in zip(seen, calls, strict=True):
        assert torch.equal(xt, given) and torch.equal(x0_hat, answer[0])
    assert torch.equal(x0, seen[-1][2])  # after the last step comes the clean clip
    unobserved = sampler(curved(alpha_bar), noise, alpha_bar, **{**arguments, "randn": standard_normal(noise)})
    assert x0.shape == noise.shape and x0.isfinite().all() and torch.equal(x0, unobserved)


@pytest.mark.parametrize("steps", [1, 2, 5, 6, 11, 29, 59, 60, None])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_steps_are_network_calls(sampler: Sampler, steps: int | None) -> None:
    """One a visited step; Heun's method has use for an odd number, up to twice as many as there are steps."""
    alpha_bar, calls = alpha_bar_of(linear, 30), []
    noise = torch.randn(2, 3, dtype=torch.float64)

    def network(xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(int(t[0]))
        return exact(alpha_bar, 0.0, 0.5)(xt, t)

    sampler(network, noise, alpha_bar, randn=standard_normal(noise), steps=steps)
    at_most = 59 if sampler is heun else 30
    wanted = at_most if steps is None else min(steps, at_most)
    assert len(calls) == (wanted - 1 + wanted % 2 if sampler is heun else wanted)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("steps", "draws"), [(None, 29), (30, 29), (10, 9), (2, 1), (1, 0)])
def test_noise_is_drawn_between_two_steps_only(sampler: Sampler, steps: int | None, draws: int) -> None:
    alpha_bar = alpha_bar_of(linear, 30)
    noise, count = torch.randn(2, 3, dtype=torch.float64), []

    def randn() -> Tensor:
        count.append(1)
        return torch.zeros_like(noise)

    sampler(exact(alpha_bar, 0.0, 1.0), noise, alpha_bar, randn=randn, steps=steps)
    assert len(count) == (draws if sampler in STOCHASTIC else 0)


@pytest.mark.parametrize("sampler", [ddpm, *(partial(s, steps=5) for s in (ddim, heun, dpmpp_2m, dpmpp_2m_sde, unipc))])
def test_a_clip_does_not_depend_on_its_neighbours(sampler: Sampler) -> None:
    alpha_bar = alpha_bar_of(cosine, 12)

    def clips(seeds: list[int]) -> Tensor:
        randn = SeededNoise(seeds, (2, 3))
        return sampler(curved(alpha_bar.float()), randn(), alpha_bar, randn=randn)

    assert torch.equal(clips([3, 8, 1])[1:2], clips([8]))


# --- ancestral


def test_ddpm_over_all_steps_is_algorithm_2() -> None:
    T = 25
    diffusion = DenoiseDiffusion(lambda xt, t, cond: (2 * xt).tanh() + 0.1 * t[:, None], T).double()
    noise = torch.randn(4, 3, dtype=torch.float64)
    randn = standard_normal(noise)
    x = noise
    for t in reversed(range(T)):
        x = diffusion.p_sample(x, torch.full((4,), t), randn() if t > 0 else torch.full_like(x, 99.0))
    got = ddpm(diffusion.denoise, noise, diffusion.alpha_bar, randn=standard_normal(noise))
    # p_sample reads beta from a float32 table, ddpm divides two float32 numbers near 1: four digits of the first betas.
    torch.testing.assert_close(got, x, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(
        got, ddpm(diffusion.denoise, noise, diffusion.alpha_bar, randn=standard_normal(noise, 1)), atol=1e-2
    )


def moments(sampler: Sampler, alpha_bar: Tensor, mu: float, s: float, steps: int | None, spacing: str) -> tuple[float, float]:
    """Exact mean and variance of what a sampler draws for data of N(mu, s^2): see `test_diffusion.sampled_moments`."""
    visits = len(spaced_steps(alpha_bar, steps, spacing))
    noise = torch.zeros(visits + 1, 1, dtype=torch.float64)
    noise[1] = 1
    places = iter(range(2, visits + 1))

    def impulse() -> Tensor:
        z = torch.zeros_like(noise)
        z[next(places)] = 1
        return z

    x0 = sampler(exact(alpha_bar, mu, s), noise, alpha_bar, randn=impulse, steps=steps, spacing=spacing)
    return x0[0].item(), (x0[1:] - x0[0]).square().sum().item()


@pytest.mark.parametrize("spacing", sorted({*SPACINGS} - {"trailing"}))
@pytest.mark.parametrize("steps", [None, 250, 20, 3])
@pytest.mark.parametrize("schedule", [linear, zero_terminal_snr])
def test_ddpm_keeps_a_standard_gaussian_for_any_steps(schedule: Callable[[int], Tensor], steps: int | None, spacing: str) -> None:
    """For s = 1 the step's variance is the exact one, however far it goes; the last step leaves step 0's noise out."""
    alpha_bar = alpha_bar_of(schedule, 1000)
    mean, var = moments(ddpm, alpha_bar, 0.5, 1.0, steps, spacing)
    assert var == pytest.approx(alpha_bar[0].item(), rel=1e-9)
    # x_T starts at 0 instead of at sqrt(alpha_bar_T) mu; that is what remains of the mean's error.
    assert mean == pytest.approx(0.5, rel=0.01 if schedule is linear else 1e-9)


@pytest.mark.parametrize("s", [0.5, 2.0])
def test_ddpm_returns_any_gaussian_with_enough_steps(s: float) -> None:
    mean, var = moments(ddpm, alpha_bar_of(linear, 4000), 0.5, s, None, "uniform")
    assert mean == pytest.approx(0.5, rel=0.01) and var == pytest.approx(s**2, rel=0.01)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [4, 30])
def test_ddpm_over_some_steps_is_algorithm_2_of_a_shorter_process(steps: int, spacing: str) -> None:
    """Visiting some steps is the process whose alpha_bar is that of the visited steps: written with its own betas."""
    alpha_bar = alpha_bar_of(linear, 200)
    visited = spaced_steps(alpha_bar, steps, spacing)
    noise = torch.randn(3, 2, dtype=torch.float64)
    randn, x = standard_normal(noise), noise
    for i, t in enumerate(visited):
        last = i == len(visited) - 1
        beta = 1 - alpha_bar[t].item() / (1.0 if last else alpha_bar[visited[i + 1]].item())
        _, eps = curved(alpha_bar)(x, torch.full((3,), t))
        x = (x - beta / (1 - alpha_bar[t].item()) ** 0.5 * eps) / (1 - beta) ** 0.5
        x = x if last else x + beta**0.5 * randn()
    got = ddpm(curved(alpha_bar), noise, alpha_bar, randn=standard_normal(noise), steps=steps, spacing=spacing)
    torch.testing.assert_close(got, x, rtol=1e-9, atol=1e-9)


# --- DDIM


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [7, None])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_is_equations_12_and_16(eta: float, steps: int | None, spacing: str) -> None:
    alpha_bar = alpha_bar_of(linear, 60)
    visited = spaced_steps(alpha_bar, steps, spacing)
    noise = torch.randn(3, 2, dtype=torch.float64)
    randn, x = standard_normal(noise), noise
    for i, t in enumerate(visited):
        a = alpha_bar[t].item()  # the paper's alpha is the product
        a_next = alpha_bar[visited[i + 1]].item() if i + 1 < len(visited) else 1.0
        sigma = eta * ((1 - a_next) / (1 - a)) ** 0.5 * (1 - a / a_next) ** 0.5
        _, eps = curved(alpha_bar)(x, torch.full((3,), t))
        z = randn() if a_next < 1 else torch.zeros_like(x)
        x0_hat = (x - (1 - a) ** 0.5 * eps) / a**0.5
        x = a_next**0.5 * x0_hat + max(1 - a_next - sigma**2, 0.0) ** 0.5 * eps + sigma * z
    got = ddim(curved(alpha_bar), noise, alpha_bar, randn=standard_normal(noise), steps=steps, spacing=spacing, eta=eta)
    torch.testing.assert_close(got, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [7, None])
def test_ddim_with_eta_1_is_ancestral_with_the_posterior_variance(steps: int | None, spacing: str) -> None:
    """Equation 7 of Ho et al. 2020: the mean in x0_hat and xt, and beta-tilde, with the betas of the visited steps."""
    alpha_bar = alpha_bar_of(linear, 60)
    visited = spaced_steps(alpha_bar, steps, spacing)
    noise = torch.randn(3, 2, dtype=torch.float64)
    randn, x = standard_normal(noise), noise
    for t, s in pairwise(visited):
        now, then = alpha_bar[t].item(), alpha_bar[s].item()
        beta = 1 - now / then
        x0_hat, _ = curved(alpha_bar)(x, torch.full((3,), t))
        mean = then**0.5 * beta / (1 - now) * x0_hat + (1 - beta) ** 0.5 * (1 - then) / (1 - now) * x
        x = mean + ((1 - then) / (1 - now) * beta) ** 0.5 * randn()
    x0, _ = curved(alpha_bar)(x, torch.full((3,), visited[-1]))
    got = ddim(curved(alpha_bar), noise, alpha_bar, randn=standard_normal(noise), steps=steps, spacing=spacing, eta=1.0)
    torch.testing.assert_close(got, x0, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_an_impossible_eta_is_named(eta: float) -> None:
    alpha_bar = alpha_bar_of(linear, 10)
    with pytest.raises(ValueError, match=rf"sampler\.eta={eta} must be in \[0, 1\]"):
        ddim(exact(alpha_bar, 0, 1), torch.zeros(1, 2), alpha_bar, randn=forbidden, eta=eta)


# --- solvers of the SDE


@pytest.mark.parametrize("s", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("alpha_bar", [even_logsnr(1500, 11.0), alpha_bar_of(zero_terminal_snr, 1000)], ids=["even", "zero"])
@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_any_gaussian_is_returned_with_enough_steps(sampler: Sampler, alpha_bar: Tensor, s: float) -> None:
    """Mean and variance without any sampling error. The processes start where hardly any signal is left, or none."""
    mean, var = moments(sampler, alpha_bar, 0.5, s, None, "uniform")
    assert mean == pytest.approx(0.5, rel=0.01) and var == pytest.approx(s**2, rel=0.02)


@pytest.mark.parametrize("s", [0.3, 2.0])
def test_the_sde_solver_has_second_order_in_distribution(s: float) -> None:
    """The error of the deviation falls with the square of the steps, where ancestral steps gain one power."""
    alpha_bar = even_logsnr(2881)
    truth = moments(dpmpp_2m_sde, alpha_bar, 0.0, s, None, "uniform")[1] ** 0.5
    errors = {
        sampler: [abs(moments(sampler, alpha_bar, 0.0, s, n + 1, "logsnr")[1] ** 0.5 - truth) for n in (40, 80, 160)]
        for sampler in (dpmpp_2m_sde, ddpm)
    }
    assert slope((40, 80, 160), errors[dpmpp_2m_sde]) == pytest.approx(2, abs=0.3)
    assert slope((40, 80, 160), errors[ddpm]) == pytest.approx(1, abs=0.3)


# --- solvers of the flow


def slope(steps: Sequence[int], errors: Sequence[float]) -> float:
    """Order: the fitted power of 1 / steps with which the error falls."""
    x, y = (torch.tensor(values, dtype=torch.float64).log() for values in (steps, errors))
    return -((x - x.mean()) @ (y - y.mean()) / (x - x.mean()).square().sum()).item()


def flow(alpha_bar: Tensor, noise: Tensor, mu: float, s: float) -> Tensor:
    """x0_hat at the end of the exact probability flow of N(mu, s^2), along which (x - mean) / deviation is constant."""
    first, last = alpha_bar[0], alpha_bar[-1]
    deviation = [(ab * s**2 + 1 - ab).sqrt() for ab in (first, last)]
    x = first.sqrt() * mu + (noise - last.sqrt() * mu) * deviation[0] / deviation[1]
    return exact(alpha_bar, mu, s)(x, torch.zeros(len(x), dtype=torch.long))[0]


def flow_errors(sampler: Sampler, alpha_bar: Tensor, mu: float, s: float, spacing: str) -> list[float]:
    """How far the sampler with these numbers of intervals is from the exact flow, relative to its largest number."""
    noise = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    truth, errors = flow(alpha_bar, noise, mu, s), []
    for n in INTERVALS:
        steps = 2 * n + 1 if sampler is heun else n + 1
        x0 = sampler(exact(alpha_bar, mu, s), noise, alpha_bar, randn=forbidden, steps=steps, spacing=spacing)
        errors.append(((x0 - truth).abs().max() / truth.abs().max()).item())
    return errors


INTERVALS = (45, 90, 180, 360)
# Even, but for a step without signal behind the others: the first interval of every solver is infinite.
FROM_NOTHING = torch.cat([torch.sigmoid(torch.linspace(9, -24, 2881, dtype=torch.float64)), torch.zeros(1).double()])


@pytest.mark.parametrize("alpha_bar", [even_logsnr(2881), FROM_NOTHING], ids=["finite", "infinite"])
@pytest.mark.parametrize(("mu", "s"), [(0.3, 0.5), (-1.0, 0.2), (0.5, 2.0)])
@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (dpmpp_2m, 2), (heun, 2), (unipc, 3)])
def test_solvers_converge_to_the_flow_with_their_order(
    sampler: Sampler, order: int, mu: float, s: float, alpha_bar: Tensor
) -> None:
    """UniPC-2 has a predictor of order 2, which its corrector raises to 3 (Zhao et al. 2023)."""
    errors = flow_errors(sampler, alpha_bar, mu, s, "logsnr")
    assert slope(INTERVALS, errors) == pytest.approx(order, abs=0.3)
    assert errors[-1] < 0.03


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 0.9), (dpmpp_2m, 1.5), (heun, 1.5), (unipc, 1.5)])
def test_solvers_converge_where_the_first_stride_gains_much_signal(sampler: Sampler, order: float) -> None:
    """Strides even in t on a cosine that ends at 0: with 45 of them the infinite interval ends at an SNR of 1e-3."""
    alpha_bar = alpha_bar_of(partial(zero_terminal_snr, base=cosine), 2881)
    assert alpha_bar[2880 - 2880 // 45] > 1e-3
    errors = flow_errors(sampler, alpha_bar, 0.3, 0.5, "uniform")
    assert slope(INTERVALS, errors) > order and errors[-1] < 0.02


def test_solvers_agree_on_a_curved_flow() -> None:
    """Where the first-order one goes with all steps, the others go with a tenth."""
    alpha_bar = even_logsnr(2881, 7.0)
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    truth = dpmpp_2m(curved(alpha_bar), noise, alpha_bar, randn=forbidden, steps=None)
    for sampler, steps, tolerance in ((ddim, None, 2e-3), (dpmpp_2m, 289, 2e-3), (heun, 577, 2e-3), (unipc, 289, 2e-3)):
        x0 = sampler(curved(alpha_bar), noise, alpha_bar, randn=forbidden, steps=steps, spacing="logsnr")
        assert (x0 - truth).abs().max() < tolerance, sampler


def test_dpmpp_2m_is_good_with_its_default_steps() -> None:
    """20 steps of the shipped configuration on the cosine schedule: the deviation of the samples within 3 %."""
    alpha_bar = alpha_bar_of(cosine, 1000)
    noise = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    x0 = dpmpp_2m(exact(alpha_bar, 0.3, 0.5), noise, alpha_bar, randn=forbidden)
    assert x0.mean().item() == pytest.approx(0.3, rel=0.03)
    assert (x0[1] - x0[0]).item() / 2 == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("steps", [2, 3, 7])
def test_dpmpp_2m_is_algorithm_2_of_lu(steps: int) -> None:
    """Lu et al. 2022, arXiv 2211.01095, algorithm 2, in plain floats for one number: r_i = h_{i-1} / h_i."""
    alpha_bar = alpha_bar_of(linear, 60)
    visited = spaced_steps(alpha_bar, steps, "uniform")
    a = {t: alpha_bar[t].item() ** 0.5 for t in visited}
    sigma = {t: (1 - alpha_bar[t].item()) ** 0.5 for t in visited}
    lam = {t: torch.log(torch.tensor(a[t] / sigma[t], dtype=torch.float64)).item() for t in visited}

    def x0_hat(x: float, t: int) -> float:
        return curved(alpha_bar)(torch.tensor([[x]], dtype=torch.float64), torch.tensor([t]))[0].item()

    x, outputs = 1.1, []
    for i, t in enumerate(visited[:-1]):
        s = visited[i + 1]
        h = lam[s] - lam[t]
        outputs.append(x0_hat(x, t))
        d = outputs[-1]
        if i > 0:
            r = (lam[t] - lam[visited[i - 1]]) / h
            d = (1 + 1 / (2 * r)) * outputs[-1] - 1 / (2 * r) * outputs[-2]
        x = sigma[s] / sigma[t] * x - a[s] * (2.718281828459045 ** (-h) - 1) * d
    got = dpmpp_2m(
        curved(alpha_bar),
        torch.tensor([[1.1]], dtype=torch.float64),
        alpha_bar,
        randn=forbidden,
        steps=steps,
        spacing="uniform",
    )
    assert got.item() == pytest.approx(x0_hat(x, 0), rel=1e-9)


def test_unipc_begins_as_published() -> None:
    """Three steps of Zhao et al. 2023 in plain floats: UniP-1, then UniC-1 with both answers weighed alike, then UniP-2."""
    alpha_bar = alpha_bar_of(linear, 60)
    visited = spaced_steps(alpha_bar, 3, "uniform")
    a = [alpha_bar[t].item() ** 0.5 for t in visited]
    sigma = [(1 - alpha_bar[t].item()) ** 0.5 for t in visited]
    lam = [math.log(a[i] / sigma[i]) for i in range(3)]

    def x0_hat(x: float, i: int) -> float:
        return curved(alpha_bar)(torch.tensor([[x]], dtype=torch.float64), torch.tensor([visited[i]]))[0].item()

    def step(x: float, i: int, d: float) -> float:
        return sigma[i + 1] / sigma[i] * x - a[i + 1] * math.expm1(lam[i] - lam[i + 1]) * d

    first = x0_hat(1.1, 0)
    second = x0_hat(step(1.1, 0, first), 1)
    x = step(1.1, 0, (first + second) / 2)
    r = (lam[0] - lam[1]) / (lam[2] - lam[1])
    x = step(x, 1, second + (first - second) / r / 2)
    noise = torch.tensor([[1.1]], dtype=torch.float64)
    got = unipc(curved(alpha_bar), noise, alpha_bar, randn=forbidden, steps=3, spacing="uniform")
    assert got.item() == pytest.approx(x0_hat(x, 2), rel=1e-9)
