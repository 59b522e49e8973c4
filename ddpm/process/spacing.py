"""Timestep spacing: which diffusion steps a sampler visits, and how much noise there is at each."""

from typing import NamedTuple

import torch
from torch import Tensor

SPACINGS = ("uniform", "trailing", "logsnr", "karras")
KARRAS_RHO = 7


class Level(NamedTuple):
    """A visited diffusion step and its amount of noise, float64 numbers computed on the CPU."""

    t: int
    alpha_bar: float
    signal: float  # sqrt(alpha_bar)
    sigma: float  # sqrt(1 - alpha_bar)
    half_logsnr: float  # log(signal / sigma), the lambda of Lu et al. 2022


def levels(alpha_bar: Tensor, steps: int | None, spacing: str) -> list[Level]:
    """The steps that `spaced_steps` chooses, with their amounts of noise."""
    exact = alpha_bar.cpu().double()  # not every device has float64
    columns = (exact, exact.sqrt(), (1 - exact).sqrt(), _logsnr(alpha_bar) / 2)
    table = torch.stack(columns, dim=1).tolist()
    return [Level(t, *table[t]) for t in spaced_steps(alpha_bar, steps, spacing)]


def spaced_steps(alpha_bar: Tensor, steps: int | None, spacing: str) -> list[int]:
    """Diffusion steps to visit, falling from T-1.

    All end at 0 but ``trailing``, which ends a stride before the clean clip. Where a spacing in noise asks for the same t twice,
    as ``logsnr`` does at both ends of the cosine schedule, the neighbouring t is taken.

    Args:
        alpha_bar: ``(T,)``.
        steps: how many; None, or more than T, means all of them.
        spacing: ``uniform`` in t; ``trailing``, in t with equal strides down to the clean clip (Lin et al. 2023, table 2);
            ``logsnr``, uniform in the logarithm of the signal-to-noise ratio; ``karras``, uniform in (sigma / signal)^(1/7)
            (Karras et al. 2022, equation 5, rho = 7).

    Raises:
        ValueError: steps below 1, or an unknown spacing.
    """
    T = len(alpha_bar)
    if spacing not in SPACINGS:
        raise ValueError(f"sampler.spacing={spacing!r} must be one of {SPACINGS}")
    if steps is not None and steps < 1:
        raise ValueError(f"sampler.steps={steps} must be at least 1")
    if steps is None or steps >= T:
        return list(range(T - 1, -1, -1))
    if steps == 1:
        return [T - 1]
    if spacing == "uniform":
        return torch.linspace(T - 1, 0, steps, dtype=torch.float64).round().long().tolist()
    if spacing == "trailing":
        return [round(T - i * T / steps) - 1 for i in range(steps)]
    scale = _logsnr(alpha_bar)
    # A schedule that ends without signal is infinitely far from its last but one step, from where even strides can be taken.
    scale[-1] = scale[-2] if scale[-1].isinf() else scale[-1]
    scale = scale if spacing == "logsnr" else (scale / (-2 * KARRAS_RHO)).exp()
    wanted = torch.linspace(float(scale[-1]), float(scale[0]), steps, dtype=torch.float64)
    parts = wanted.split(max(1, 10**7 // T))  # all at once would be steps x T numbers
    nearest = torch.cat([(scale[None] - part[:, None]).abs().argmin(dim=1) for part in parts]).tolist()
    chosen = [T - 1]
    for i, t in enumerate(nearest[1:], start=1):
        chosen.append(max(min(t, chosen[-1] - 1), steps - 1 - i))
    return chosen


def _logsnr(alpha_bar: Tensor) -> Tensor:
    """log(alpha_bar / (1 - alpha_bar)) in float64."""
    alpha_bar = alpha_bar.cpu().double()
    return alpha_bar.log() - torch.log1p(-alpha_bar)
