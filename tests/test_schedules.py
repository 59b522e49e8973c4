"""Schedules: the papers' numbers at the papers' T, and the same amount of noise at every other T."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ddpm.schedules import cosine, linear, respace

SCHEDULES = [linear, cosine]
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


@pytest.mark.parametrize("schedule", SCHEDULES)
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


@pytest.mark.parametrize("schedule", SCHEDULES)
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
    ],
)
def test_bad_parameters_are_named(schedule: Callable[..., Tensor], arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=schedule.__name__) as e:
        schedule(10, **arguments)
    for key, value in arguments.items():
        assert key in str(e.value) and str(value) in str(e.value)
