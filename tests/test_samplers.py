"""Samplers: exact on what can be solved by hand, and no randomness that was not handed to them."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ddpm.diffusion import DenoiseDiffusion
from ddpm.prediction import X0, Epsilon
from ddpm.samplers import SPACINGS, Denoise, Sampler, SeededNoise, ddpm, dpmpp_2m, spaced_steps
from ddpm.schedules import cosine, linear

SAMPLERS = [ddpm, dpmpp_2m]


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
@pytest.mark.parametrize("schedule", [linear, cosine])
@pytest.mark.parametrize("T", [2, 3, 5, 8, 50, 1000])
def test_steps_fall_from_the_last_to_the_first(T: int, schedule: Callable[[int], Tensor], spacing: str) -> None:
    alpha_bar = alpha_bar_of(schedule, T)
    for steps in {2, 3, 5, 20, 49, T // 2 + 1, T - 1, T, T + 1, 5000} - {0, 1}:
        visited = spaced_steps(alpha_bar, steps, spacing)
        assert len(visited) == min(steps, T)
        assert visited[0] == T - 1 and visited[-1] == 0
        assert all(isinstance(t, int) and t > s for t, s in pairwise(visited))
    assert spaced_steps(alpha_bar, None, spacing) == list(reversed(range(T)))
    assert spaced_steps(alpha_bar, 1, spacing) == [T - 1]


def test_more_steps_than_there_are_means_all() -> None:
    assert spaced_steps(alpha_bar_of(cosine, 5), 20, "logsnr") == [4, 3, 2, 1, 0]


def test_uniform_is_even_in_t() -> None:
    assert spaced_steps(alpha_bar_of(linear, 1000), 4, "uniform") == [999, 666, 333, 0]


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


@pytest.mark.parametrize(("steps", "spacing", "message"), [(0, "uniform", "steps=0"), (-4, "logsnr", "steps=-4")])
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
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_single_point_is_returned_exactly(sampler: Sampler, T: int, steps: int | None, spacing: str) -> None:
    alpha_bar = alpha_bar_of(cosine, T)
    noise = 2 * torch.randn(3, 4, dtype=torch.float64)
    point = exact(alpha_bar, -0.6, 0.0)
    x0 = sampler(point, noise, alpha_bar, randn=standard_normal(noise), steps=steps, spacing=spacing)
    torch.testing.assert_close(x0, torch.full_like(x0, -0.6), rtol=0, atol=1e-9)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_prediction_type_does_not_matter(sampler: Sampler) -> None:
    """The same denoiser as an epsilon-model and as an x0-model: the same trajectory, step by step."""
    T = 40
    tables = DenoiseDiffusion(lambda *_: None, T).double()
    denoise = curved(tables.alpha_bar)
    noise = torch.randn(2, 3, dtype=torch.float64)
    trajectories = []
    for prediction, which in ((X0(), 0), (Epsilon(), 1)):
        diffusion = DenoiseDiffusion(lambda xt, t, cond, which=which: denoise(xt, t)[which], T, prediction=prediction).double()
        path: list[Tensor] = []
        x0 = sampler(
            diffusion.denoise, noise, diffusion.alpha_bar, randn=standard_normal(noise), steps=None,
            observer=lambda t, xt, x0_hat, path=path: path.extend([xt, x0_hat]),
        )  # fmt: skip
        trajectories.append(torch.stack([*path, x0]))
    assert len(trajectories[0]) == 2 * T + 1
    torch.testing.assert_close(*trajectories, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("T", "steps"), [(10, None), (100, 7), (100, 1)])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_observer_sees_every_network_call(sampler: Sampler, T: int, steps: int | None, spacing: str) -> None:
    alpha_bar = alpha_bar_of(cosine, T)
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
    assert [t for t, *_ in seen] == [t for t, *_ in calls] == spaced_steps(alpha_bar, steps, spacing)
    for (_, xt, x0_hat), (_, given, answer) in zip(seen, calls, strict=True):
        assert torch.equal(xt, given) and torch.equal(x0_hat, answer[0])
    unobserved = sampler(curved(alpha_bar), noise, alpha_bar, **{**arguments, "randn": standard_normal(noise)})
    assert x0.shape == noise.shape and torch.equal(x0, unobserved)


@pytest.mark.parametrize("sampler", [ddpm, partial(dpmpp_2m, steps=5)])
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


@pytest.mark.parametrize(("steps", "draws"), [(None, 29), (30, 29), (10, 9), (2, 1), (1, 0)])
def test_ddpm_draws_once_between_two_steps(steps: int | None, draws: int) -> None:
    alpha_bar = alpha_bar_of(linear, 30)
    noise, count = torch.randn(2, 3, dtype=torch.float64), []

    def randn() -> Tensor:
        count.append(1)
        return torch.zeros_like(noise)

    ddpm(exact(alpha_bar, 0.0, 1.0), noise, alpha_bar, randn=randn, steps=steps)
    assert len(count) == draws


def ddpm_moments(alpha_bar: Tensor, mu: float, s: float, steps: int | None, spacing: str) -> tuple[float, float]:
    """Exact mean and variance of what ddpm draws for data of N(mu, s^2): see `test_diffusion.sampled_moments`."""
    visits = len(spaced_steps(alpha_bar, steps, spacing))
    noise = torch.zeros(visits + 1, 1, dtype=torch.float64)
    noise[1] = 1
    places = iter(range(2, visits + 1))

    def impulse() -> Tensor:
        z = torch.zeros_like(noise)
        z[next(places)] = 1
        return z

    x0 = ddpm(exact(alpha_bar, mu, s), noise, alpha_bar, randn=impulse, steps=steps, spacing=spacing)
    return x0[0].item(), (x0[1:] - x0[0]).square().sum().item()


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [None, 250, 20, 3])
def test_ddpm_keeps_a_standard_gaussian_for_any_steps(steps: int | None, spacing: str) -> None:
    """For s = 1 the step's variance is the exact one, however far it goes; the last step leaves step 0's noise out."""
    alpha_bar = alpha_bar_of(linear, 1000)
    mean, var = ddpm_moments(alpha_bar, 0.5, 1.0, steps, spacing)
    assert var == pytest.approx(alpha_bar[0].item(), rel=1e-9)
    # x_T starts at 0 instead of at sqrt(alpha_bar_T) mu; that is what remains of the mean's error.
    assert mean == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("s", [0.5, 2.0])
def test_ddpm_returns_any_gaussian_with_enough_steps(s: float) -> None:
    mean, var = ddpm_moments(alpha_bar_of(linear, 4000), 0.5, s, None, "uniform")
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
        before = alpha_bar[visited[i + 1]].item() if t > 0 else 1.0
        beta = 1 - alpha_bar[t].item() / before
        _, eps = curved(alpha_bar)(x, torch.full((3,), t))
        x = (x - beta / (1 - alpha_bar[t].item()) ** 0.5 * eps) / (1 - beta) ** 0.5
        x = x + beta**0.5 * randn() if t > 0 else x
    got = ddpm(curved(alpha_bar), noise, alpha_bar, randn=standard_normal(noise), steps=steps, spacing=spacing)
    torch.testing.assert_close(got, x, rtol=1e-9, atol=1e-9)


# --- DPM-Solver++(2M)


def flow(alpha_bar: Tensor, noise: Tensor, mu: float, s: float) -> Tensor:
    """x0_hat at the end of the exact probability flow of N(mu, s^2), along which (x - mean) / deviation is constant."""
    first, last = alpha_bar[0], alpha_bar[-1]
    deviation = [(ab * s**2 + 1 - ab).sqrt() for ab in (first, last)]
    x = first.sqrt() * mu + (noise - last.sqrt() * mu) * deviation[0] / deviation[1]
    return exact(alpha_bar, mu, s)(x, torch.zeros(len(x), dtype=torch.long))[0]


@pytest.mark.parametrize(("mu", "s"), [(0.3, 0.5), (-1.0, 0.2), (0.5, 2.0)])
def test_dpmpp_2m_converges_to_the_flow_with_second_order(mu: float, s: float) -> None:
    alpha_bar = even_logsnr(2881)
    noise = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    truth = flow(alpha_bar, noise, mu, s)
    errors = []
    for steps in (46, 91, 181, 361):  # 45, 90, 180 and 360 equal intervals
        x0 = dpmpp_2m(exact(alpha_bar, mu, s), noise, alpha_bar, randn=forbidden, steps=steps)
        errors.append((x0 - truth).abs().max())
    orders = (torch.stack(errors[:-1]) / torch.stack(errors[1:])).log2()
    assert ((orders > 1.8) & (orders < 2.3)).all(), orders
    assert errors[-1] < 2e-3 * truth.abs().max()


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
