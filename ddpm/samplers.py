"""Samplers: pure functions from noise to clips, over anything that can denoise.

A sampler is ``(denoise, noise, alpha_bar, randn, ...) -> x0``. It owns the loop over diffusion steps and nothing else: what the
network predicts, guidance and constraints are all inside ``denoise``, randomness is all in its arguments.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ddpm.diffusion import reverse_mean

Denoise = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""``(xt, t) -> (x0_hat, eps_hat)`` with t int64 ``(batch,)``."""
Observer = Callable[[int, Tensor, Tensor], None]
"""Called once a step with ``(t, xt, x0_hat)``, after the network and before the update."""
Sampler = Callable[..., Tensor]
"""``(denoise, noise, alpha_bar, *, randn, observer) -> x0``, its other arguments bound by the configuration."""

SPACINGS = ("uniform", "logsnr")


class SeededNoise:
    """Standard normal noise with one generator a clip: the noise of a clip does not depend on the clips beside it.

    Drawn on the CPU, so that a seed means the same clip on every device.

    Args:
        seeds: one per clip.
        shape: of one clip.
        device: where the noise is wanted.
    """

    def __init__(self, seeds: Iterable[int], shape: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.shape = tuple(shape)
        self.device = device

    def __call__(self) -> Tensor:
        """The next ``(clips, *shape)`` draw."""
        noise = torch.stack([torch.randn(self.shape, generator=g) for g in self.generators])
        return noise.to(self.device, non_blocking=True)


def spaced_steps(alpha_bar: Tensor, steps: int | None, spacing: str) -> list[int]:
    """Which diffusion steps to visit, from T-1 down to 0.

    Args:
        alpha_bar: ``(T,)``.
        steps: how many; None, or more than T, means all of them.
        spacing: ``uniform`` in t, or ``logsnr``, uniform in the logarithm of the signal-to-noise ratio. Where the latter asks for
            the same t twice, as it does at both ends of the cosine schedule, the neighbouring t is taken.

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
    logsnr = _logsnr(alpha_bar)
    wanted = torch.linspace(float(logsnr[-1]), float(logsnr[0]), steps, dtype=torch.float64)
    nearest = (logsnr[None] - wanted[:, None]).abs().argmin(dim=1).tolist()
    chosen = [T - 1]
    for i, t in enumerate(nearest[1:], start=1):
        chosen.append(max(min(t, chosen[-1] - 1), steps - 1 - i))
    return chosen


def ddpm(
    denoise: Denoise,
    noise: Tensor,
    alpha_bar: Tensor,
    *,
    randn: Callable[[], Tensor],
    steps: int | None = None,
    spacing: str = "uniform",
    observer: Observer | None = None,
) -> Tensor:
    """Ancestral sampling, Algorithm 2 of Ho et al. 2020, over all steps or any subset of them.

    Between two visited steps t > s the one-step rule holds with alpha = alpha_bar_t / alpha_bar_s and sigma^2 = beta = 1 - alpha.

    Args:
        denoise: see `Denoise`.
        noise: x_T, ``(batch, ...)``.
        alpha_bar: ``(T,)``.
        randn: the next z, shaped like noise. Not called after the last step, which adds no noise.
        steps: how many steps, None for all.
        spacing: see `spaced_steps`.
        observer: see `Observer`.

    Returns:
        x0, shaped like noise.
    """
    x = noise
    visited = spaced_steps(alpha_bar, steps, spacing)
    alpha_bar_at = alpha_bar.tolist()
    for t, s in zip(visited, [*visited[1:], None], strict=True):
        x0_hat, eps_hat = denoise(x, _batch_of(t, x))
        if observer is not None:
            observer(t, x, x0_hat)
        alpha = alpha_bar_at[t] / (1.0 if s is None else alpha_bar_at[s])
        x = reverse_mean(x, eps_hat, alpha, alpha_bar_at[t])
        if s is not None:
            x = x + (1 - alpha) ** 0.5 * randn()
    return x


def dpmpp_2m(
    denoise: Denoise,
    noise: Tensor,
    alpha_bar: Tensor,
    *,
    randn: Callable[[], Tensor],
    steps: int | None = 20,
    spacing: str = "logsnr",
    observer: Observer | None = None,
) -> Tensor:
    """DPM-Solver++(2M), algorithm 2 of Lu et al. 2022 (arXiv 2211.01095): second order, one network call a step, no noise.

    Args:
        denoise: see `Denoise`.
        noise: x_T, ``(batch, ...)``.
        alpha_bar: ``(T,)``.
        randn: not used, the solver is deterministic; here so that samplers are interchangeable.
        steps: how many steps, None for all.
        spacing: see `spaced_steps`.
        observer: see `Observer`.

    Returns:
        x0, shaped like noise.
    """
    x = noise
    visited = spaced_steps(alpha_bar, steps, spacing)
    exact = alpha_bar.cpu().double()  # not every device has float64
    signal, sigma = exact.sqrt().tolist(), (1 - exact).sqrt().tolist()
    lambdas = (_logsnr(alpha_bar) / 2).tolist()
    previous: tuple[Tensor, float] | None = None
    for t, s in zip(visited, [*visited[1:], None], strict=True):
        x0_hat, _ = denoise(x, _batch_of(t, x))
        if observer is not None:
            observer(t, x, x0_hat)
        if s is None:
            # Before step 0 there is no noise: h is infinite, and the exponential integrator returns x0_hat itself.
            return x0_hat
        h = lambdas[s] - lambdas[t]
        d = x0_hat
        if previous is not None:
            last_x0_hat, last_h = previous
            d = x0_hat + h / (2 * last_h) * (x0_hat - last_x0_hat)
        x = sigma[s] / sigma[t] * x - signal[s] * math.expm1(-h) * d
        previous = (x0_hat, h)
    return x


def _logsnr(alpha_bar: Tensor) -> Tensor:
    """log(alpha_bar / (1 - alpha_bar)) in float64."""
    alpha_bar = alpha_bar.cpu().double()
    return alpha_bar.log() - torch.log1p(-alpha_bar)


def _batch_of(t: int, x: Tensor) -> Tensor:
    """``(batch,)`` int64, all t."""
    return torch.full((len(x),), t, dtype=torch.long, device=x.device)
