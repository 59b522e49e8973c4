"""Schedules: the papers' numbers at the papers' T, and the same amount of noise at every other T."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from ddpm.process.schedules import cosine, linear, respace, sigmoid, zero_terminal_snr

SCHEDULES = [linear, cosine, sigmoid]
WITHOUT_SIGNAL = [zero_terminal_snr, partial(zero_terminal_snr, base=cosine), partial(zero_terminal_snr, base=sigmoid)]
MANY_T = [2, 5, 7, 20, 50, 250, 1000, 4000]


def alpha_bar_of(beta: Tensor) -> Tensor:
    return (1 - beta).cumprod(0)


def test_linear_is_the_papers_at_1000() -> None:
    expected = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    torch.testing.assert_close(linear(1000), expected, rtol=0, atol=1e-12)
    expected = torch.linspace(0.001, 0.5, 1000, dtype=torch.float64)
    torch.testing.assert_close(linear(1000, beta_start=0.001, beta_end=0.5), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("s", "beta_max"), [(0.008, 0.999), (0.1, 0.6)])
def test_cosine_is_the_papers_at_1000(s: float, beta_max: float) -> None:
    """Nichol & Dhariwal 2021, equation 17: beta_t = min(1 - f(t) / f(t - 1), beta_max), step by step in plain floats."""

    def f(t: int) -> float:
        return math.cos((t / 1000 + s) / (1 + s) * math.pi / 2) ** 2

    expected = [min(1 - f(t) / f(t - 1), beta_max) for t in range(1, 1001)]
    assert expected[-1] == beta_max
    torch.testing.assert_close(cosine(1000, s, beta_max), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("start", "end", "tau", "alpha_bar_min"), [(-3.0, 3.0, 1.0, 1e-9), (0.0, 3.0, 0.3, 1e-9), (-3.0, 3.0, 0.9, 1e-5)]
)
def test_sigmoid_is_the_papers_at_1000(start: float, end: float, tau: float, alpha_bar_min: float) -> None:
    """Chen 2023, Algorithm 1 (the schedule of Jabri et al. 2022), one step at a time in plain floats."""

    def gamma(u: float) -> float:
        v_start, v_end, v = (1 / (1 + math.exp(-x / tau)) for x in (start, end, start + u * (end - start)))
        return min(max((v_end - v) / (v_end - v_start), alpha_bar_min), 1.0)

    expected = torch.tensor([gamma(t / 1000) for t in range(1, 1001)], dtype=torch.float64)
    assert expected[-1] == alpha_bar_min
    got = alpha_bar_of(sigmoid(1000, start, end, tau, alpha_bar_min))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
    if (start, end, tau) == (-3.0, 3.0, 1.0):
        assert torch.equal(sigmoid(1000), sigmoid(1000, start, end, tau, alpha_bar_min))
        assert got[499].item() == pytest.approx(0.5, abs=1e-12)  # the middle of a symmetric sigmoid


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("n_steps", MANY_T)
def test_any_number_of_steps_adds_the_same_noise(schedule: Callable[[int], Tensor], n_steps: int) -> None:
    beta = schedule(n_steps)
    assert beta.shape == (n_steps,) and beta.dtype == torch.float64
    assert ((beta > 0) & (beta < 1)).all()
    alpha_bar = alpha_bar_of(beta)
    assert (alpha_bar.diff() < 0).all() and 0 < alpha_bar[-1] < alpha_bar[0] < 1
    reference = alpha_bar_of(schedule(1000))
    assert alpha_bar[-1].item() == pytest.approx(reference[-1].item(), rel=1e-9)
    # Step k of T is at fraction k / T of the way; where step 1000 k / T of the reference exists, it is the same noise.
    for k in range(1, n_steps + 1):
        if 1000 * k % n_steps == 0:
            expected = reference[1000 * k // n_steps - 1].item()
            assert alpha_bar[k - 1].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("schedule", WITHOUT_SIGNAL)
def test_zero_terminal_snr_ends_without_signal(schedule: Callable[[int], Tensor]) -> None:
    for n_steps in (*range(2, 40), *range(40, 4000, 97), 4000):
        beta = schedule(n_steps)
        assert beta.shape == (n_steps,) and beta.dtype == torch.float64
        assert beta[-1] == 1 and ((beta[:-1] > 0) & (beta[:-1] < 1)).all()
        for alpha_bar in (alpha_bar_of(beta), torch.log1p(-beta).cumsum(0).exp()):
            assert alpha_bar[-1] == 0 and 0 < alpha_bar[-2] and alpha_bar[0] < 1 and (alpha_bar.diff() < 0).all()


@pytest.mark.parametrize("base", SCHEDULES)
@pytest.mark.parametrize("n_steps", MANY_T)
def test_zero_terminal_snr_is_its_base_stretched(n_steps: int, base: Callable[[int], Tensor]) -> None:
    """sqrt(alpha_bar) is a line in that of the base, 1 where it is 1 (before the first step) and 0 where it ends."""
    before, after = (alpha_bar_of(beta).sqrt() for beta in (base(n_steps), zero_terminal_snr(n_steps, base)))
    end = before[-1].item()
    expected = torch.tensor([(signal - end) / (1 - end) for signal in before.tolist()], dtype=torch.float64)
    torch.testing.assert_close(after, expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("schedule", [*SCHEDULES, *WITHOUT_SIGNAL])
def test_half_as_many_steps_are_every_second_one(schedule: Callable[[int], Tensor]) -> None:
    torch.testing.assert_close(alpha_bar_of(schedule(500)), alpha_bar_of(schedule(1000))[1::2], rtol=1e-9, atol=0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_more_steps_lie_between_the_reference_ones(schedule: Callable[[int], Tensor]) -> None:
    """Every fourth step of 4000 is one of the 1000, and the other betas split that step's log(alpha) evenly."""
    log_alpha = torch.log1p(-schedule(4000)).reshape(1000, 4)
    expected = torch.log1p(-schedule(1000))[:, None].expand(1000, 4) / 4
    torch.testing.assert_close(log_alpha, expected, rtol=1e-7, atol=1e-13)


def test_respace_reads_a_line_exactly() -> None:
    """Constant beta: log(alpha_bar) is a line, so T steps are T equal betas with the same product."""
    log_alpha_bar = torch.arange(1, 11, dtype=torch.float64) * math.log(0.9)
    torch.testing.assert_close(respace(log_alpha_bar, 7), torch.full((7,), 1 - 0.9 ** (10 / 7), dtype=torch.float64))


@pytest.mark.parametrize("schedule", [*SCHEDULES, *WITHOUT_SIGNAL])
@pytest.mark.parametrize("n_steps", [1, 0, -3])
def test_too_few_steps_are_refused(schedule: Callable[[int], Tensor], n_steps: int) -> None:
    with pytest.raises(ValueError, match=rf"T={n_steps}\b.*at least 2"):
        schedule(n_steps)


@pytest.mark.parametrize(
    ("schedule", "arguments"),
    [
        (linear, {"beta_start": 0.0}),
        (linear, {"beta_start": -0.1}),
        (linear, {"beta_end": 1.0}),
        (linear, {"beta_start": 0.03}),  # above beta_end
        (linear, {"beta_end": math.nan}),
        (cosine, {"s": 0.0}),
        (cosine, {"s": -0.5}),
        (cosine, {"beta_max": 0.0}),
        (cosine, {"beta_max": 1.0}),
        (cosine, {"beta_max": math.nan}),
        (cosine, {"s": math.nan}),
        (sigmoid, {"start": 3.0}),
        (sigmoid, {"end": -4.0}),
        (sigmoid, {"tau": 0.0}),
        (sigmoid, {"tau": math.nan}),
        (sigmoid, {"alpha_bar_min": 0.0}),
        (sigmoid, {"alpha_bar_min": 0.5}),  # a floor that the curve reaches long before its end
        (sigmoid, {"alpha_bar_min": 1.0}),
        (sigmoid, {"tau": 0.01}),  # a step, flat to rounding on both sides
    ],
)
def test_bad_parameters_are_named(schedule: Callable[..., Tensor], arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="schedule") as e:
        schedule(10, **arguments)
    for key, value in arguments.items():
        assert key in str(e.value) and str(value) in str(e.value)
