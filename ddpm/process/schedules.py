"""Noise schedules: number of diffusion steps -> beta, in float64.

A schedule is defined by its reference curve of alpha_bar over 1000 steps, the paper's own T. Any other T reads the same curve
at T equally spaced places (`respace`): the amount of noise at the end, and at every fraction of the way, does not depend on T.
All return ``(T,)`` float64 betas in (0, 1), and raise a ValueError where T is below 2 or a parameter is outside its limits.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

REFERENCE_STEPS = 1000


def linear(n_steps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """Linear schedule of Ho et al. 2020, section 4: exactly the paper's betas at T=1000."""
    if not 0 < beta_start <= beta_end < 1:
        raise ValueError(f"schedule: needs 0 < beta_start <= beta_end < 1, got beta_start={beta_start}, beta_end={beta_end}")
    beta = torch.linspace(beta_start, beta_end, REFERENCE_STEPS, dtype=torch.float64)
    return respace(torch.log1p(-beta).cumsum(0), n_steps)


def cosine(n_steps: int, s: float = 0.008, beta_max: float = 0.999) -> Tensor:
    """Cosine schedule of Nichol & Dhariwal 2021, equation 17: exactly theirs at T=1000.

    The offset s keeps the first betas from vanishing; beta_max limits those of the 1000 steps, for the curve ends at 0.
    """
    if not s > 0 or not 0 < beta_max < 1:
        raise ValueError(f"schedule.cosine: needs s > 0 and 0 < beta_max < 1, got s={s} and beta_max={beta_max}")
    u = torch.linspace(0, 1, REFERENCE_STEPS + 1, dtype=torch.float64)
    f = torch.cos((u + s) / (1 + s) * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=beta_max)
    return respace(torch.log1p(-beta).cumsum(0), n_steps)


def sigmoid(n_steps: int, start: float = -3.0, end: float = 3.0, tau: float = 1.0, alpha_bar_min: float = 1e-9) -> Tensor:
    """Sigmoid schedule of Jabri, Fleet & Chen 2022 (arXiv 2212.11972), as Algorithm 1 of Chen 2023 (arXiv 2301.10972) writes it.

    alpha_bar(u) = (S(end) - S(start + u (end - start))) / (S(end) - S(start)) with S(v) = sigmoid(v / tau), u from 0 to 1; the
    last one is alpha_bar_min.
    """
    if not start < end or not tau > 0 or not alpha_bar_min > 0:
        raise ValueError(
            "schedule.sigmoid: needs start < end, tau > 0 and alpha_bar_min > 0, "
            f"got start={start}, end={end}, tau={tau} and alpha_bar_min={alpha_bar_min}"
        )
    # 1 - S(v) = S(-v): the small differences at the noisy end are then of small numbers.
    falling = torch.sigmoid(-torch.linspace(start, end, REFERENCE_STEPS + 1, dtype=torch.float64) / tau)
    alpha_bar = ((falling[1:] - falling[-1]) / (falling[0] - falling[-1])).clamp(min=alpha_bar_min)
    if not (alpha_bar[0] < 1 and bool((alpha_bar.diff() < 0).all())):
        raise ValueError(
            "schedule.sigmoid: alpha_bar must fall at every step, which is lost to rounding or to the floor with "
            f"start={start}, end={end}, tau={tau} and alpha_bar_min={alpha_bar_min}"
        )
    return respace(alpha_bar.log(), n_steps)


def zero_terminal_snr(n_steps: int, base: Callable[[int], Tensor] = linear) -> Tensor:
    """A schedule whose last step keeps no signal, Algorithm 1 of Lin et al. 2023 (arXiv 2305.08891).

    sqrt(alpha_bar) of another schedule is shifted until it ends at 0 and stretched until it begins at 1 again. (Theirs stretches
    until the first step is what it was, which is the same to 1e-6 at T=1000 and goes wrong for large T.)
    The last beta is 1. The paper's ``base`` is `linear`.
    """
    signal = torch.log1p(-base(n_steps)).cumsum(0).div(2).exp()
    alpha_bar = ((signal - signal[-1]) / (1 - signal[-1])).square()
    return 1 - alpha_bar / torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])


def respace(log_alpha_bar: Tensor, n_steps: int) -> Tensor:
    """Betas of T steps that follow a curve of log(alpha_bar), ``(reference_steps,)`` float64, falling from below 0.

    It is interpolated linearly, which keeps alpha_bar strictly falling and so every beta inside (0, 1) for any T, while scaling
    the betas by 1000/T passes 1 below T=20.
    """
    if n_steps < 2:
        raise ValueError(f"T={n_steps}: a diffusion needs at least 2 steps")
    knots = torch.cat([log_alpha_bar.new_zeros(1), log_alpha_bar])
    place = torch.arange(n_steps + 1, dtype=torch.float64) * (len(log_alpha_bar) / n_steps)
    left = place.floor().long().clamp(max=len(log_alpha_bar) - 1)
    curve = torch.lerp(knots[left], knots[left + 1], place - left)
    return -torch.expm1(curve.diff())
