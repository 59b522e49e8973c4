"""Samplers: pure functions from noise to clips, given a denoiser.

A sampler owns the loop over diffusion steps and nothing else: prediction, guidance and constraints are all inside ``denoise``,
randomness is all in its arguments. All samplers take

    denoise     see `Denoise`
    noise       x_T, ``(batch, ...)``
    alpha_bar   ``(T,)``
    randn       the next standard normal draw, shaped like noise; called where noise is added, never after the last step
    steps       number of network calls, None to visit all T steps
    spacing     timestep spacing, see `ddpm.process.spacing.spaced_steps`
    observer    see `Observer`

and return x0, shaped like noise. After the last visited step comes the clean clip, where alpha_bar is 1 and the rules of all
samplers give x0_hat itself.
"""

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ddpm.process.diffusion import Denoised, reverse_mean
from ddpm.process.spacing import Level, levels
from ddpm.process.variance import reverse_variance

Denoise = Callable[[Tensor, Tensor], tuple[Tensor, Tensor] | Denoised]
"""``(xt, t) -> (x0_hat, eps_hat)``, or a `Denoised`, with t int64 ``(batch,)``."""
Observer = Callable[[int, Tensor, Tensor], None]
"""Called once at every visited step with ``(t, xt, x0_hat)``, after the network and before the update."""
Sampler = Callable[..., Tensor]
"""``(denoise, noise, alpha_bar, *, randn, observer) -> x0``, its other arguments bound by the configuration."""


class SeededNoise:
    """Standard normal noise with one generator a clip ``shape``: the noise of a clip does not depend on the clips beside it.

    Drawn on the CPU, so that a seed means the same clip on every device.
    """

    def __init__(self, seeds: Iterable[int], shape: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.shape = tuple(shape)
        self.device = device

    def __call__(self) -> Tensor:
        """The next ``(clips, *shape)`` draw."""
        noise = torch.stack([torch.randn(self.shape, generator=g) for g in self.generators])
        return noise.to(self.device, non_blocking=True)


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

    Between two visited steps t > s the one-step rule holds with alpha = alpha_bar_t / alpha_bar_s, beta = 1 - alpha and the
    variance of the model (`ddpm.process.variance`).
    """

    def rule(x: Tensor, found: Denoised, here: Level, there: Level) -> Tensor:
        alpha = here.alpha_bar / there.alpha_bar
        mean = reverse_mean(found.x0_hat, found.eps_hat, alpha, here.alpha_bar, there.alpha_bar)
        sigma2 = reverse_variance(alpha, (there.sigma / here.sigma) ** 2, found.fraction)
        return mean + sigma2**0.5 * randn()

    return _walk(denoise, noise, levels(alpha_bar, steps, spacing), observer, rule)


def ddim(
    denoise: Denoise,
    noise: Tensor,
    alpha_bar: Tensor,
    *,
    randn: Callable[[], Tensor],
    steps: int | None = 50,
    spacing: str = "logsnr",
    eta: float = 0.0,
    observer: Observer | None = None,
) -> Tensor:
    """DDIM, equations 12 and 16 of Song et al. 2021 (arXiv 2010.02502): first order.

    ``eta`` in 0..1 is the share of the noise: 0 draws none and follows the probability flow; 1 is ancestral sampling with the
    posterior's own variance, beta-tilde.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"sampler.eta={eta} must be in [0, 1]")

    def rule(x: Tensor, found: Denoised, here: Level, there: Level) -> Tensor:
        # Share of the next step's noise that is new: equation 16 over 1 - alpha_bar, which only rounding can take above 1.
        fresh = eta**2 * min((1 - here.alpha_bar / there.alpha_bar) / (1 - here.alpha_bar), 1.0)
        mean = there.signal * found.x0_hat + there.sigma * (1 - fresh) ** 0.5 * found.eps_hat
        return mean if eta == 0 else mean + there.sigma * fresh**0.5 * randn()

    return _walk(denoise, noise, levels(alpha_bar, steps, spacing), observer, rule)


def heun(
    denoise: Denoise,
    noise: Tensor,
    alpha_bar: Tensor,
    *,
    randn: Callable[[], Tensor],
    steps: int | None = 21,
    spacing: str = "logsnr",
    observer: Observer | None = None,
) -> Tensor:
    """Heun's method on the probability flow, as Algorithm 1 of Karras et al. 2022 (arXiv 2206.00364): second order.

    Where they integrate d(x / signal) = eps d(sigma / signal), this integrates d(x / sigma) = x0 d(signal / sigma), the same
    flow. In theirs a stride that divides sigma / signal by n multiplies a change of x0_hat by n / 2, and the last gap of the
    sigmoid schedule alone divides it by 500; here it is never multiplied.

    An interval takes two network calls and the last step one: ``steps`` = 2k + 1 calls visit k + 1 diffusion steps, an even
    number leaves one call unused, and None is 2T - 1 calls. The observer sees the visited steps, not the trial points.
    """

    def rule(x: Tensor, found: Denoised, here: Level, there: Level) -> Tensor:
        trial = _exponential_step(x, found.x0_hat, here, there)
        x0_there = denoise(trial, batch_of(there.t, trial))[0]
        return _exponential_step(x, (found.x0_hat + x0_there) / 2, here, there)

    # Fewer than one is refused by spaced_steps, which names the number given.
    visits = steps if steps is None or steps < 1 else (steps + 1) // 2
    return _walk(denoise, noise, levels(alpha_bar, visits, spacing), observer, rule)


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
    """DPM-Solver++(2M), algorithm 2 of Lu et al. 2022 (arXiv 2211.01095): second order, no noise."""
    past: _Past = deque(maxlen=2)

    def rule(x: Tensor, found: Denoised, here: Level, there: Level) -> Tensor:
        past.append((here, found.x0_hat))
        return _exponential_step(x, _midway(past, there), here, there)

    return _walk(denoise, noise, levels(alpha_bar, steps, spacing), observer, rule)


def dpmpp_2m_sde(
    denoise: Denoise,
    noise: Tensor,
    alpha_bar: Tensor,
    *,
    randn: Callable[[], Tensor],
    steps: int | None = 20,
    spacing: str = "logsnr",
    observer: Observer | None = None,
) -> Tensor:
    """SDE-DPM-Solver++(2M) of Lu et al. 2022 (arXiv 2211.01095), with the midpoint rule that k-diffusion uses.

    It follows the reverse SDE instead of the probability flow: fresh noise replaces the errors of earlier steps.
    """
    past: _Past = deque(maxlen=2)

    def rule(x: Tensor, found: Denoised, here: Level, there: Level) -> Tensor:
        past.append((here, found.x0_hat))
        std = there.sigma * (-math.expm1(2 * (here.half_logsnr - there.half_logsnr))) ** 0.5
        return _exponential_step(x, _midway(past, there), here, there, eta=1.0) + std * randn()

    return _walk(denoise, noise, levels(alpha_bar, steps, spacing), observer, rule)


def unipc(
    denoise: Denoise,
    noise: Tensor,
    alpha_bar: Tensor,
    *,
    randn: Callable[[], Tensor],
    steps: int | None = 20,
    spacing: str = "logsnr",
    observer: Observer | None = None,
) -> Tensor:
    """UniPC-2 of Zhao et al. 2023 (arXiv 2302.04867), multistep, in data prediction with B_2(h) = e^h - 1.

    UniP-2, which for this B is the rule of DPM-Solver++(2M), predicts x at the next step; the network's output there also
    corrects the step that led to it (UniC-2), at no further call, which raises the order from two to three.
    """
    past: _Past = deque(maxlen=2)
    corrected = noise

    def rule(x: Tensor, found: Denoised, here: Level, there: Level) -> Tensor:
        nonlocal corrected
        if past:
            corrected = _exponential_step(corrected, _unic_drift(past, found.x0_hat, here), past[-1][0], here)
        past.append((here, found.x0_hat))
        return _exponential_step(corrected, _midway(past, there), here, there)

    return _walk(denoise, noise, levels(alpha_bar, steps, spacing), observer, rule)


_Rule = Callable[[Tensor, Denoised, Level, Level], Tensor]
"""``(xt, its estimates, here, there) -> x`` at the next visited step."""
_Past = deque[tuple[Level, Tensor]]
"""The latest levels and their x0_hat, newest last."""


def _walk(denoise: Denoise, noise: Tensor, path: list[Level], observer: Observer | None, rule: _Rule) -> Tensor:
    """The loop that all samplers share: denoise at every level, carry x from level to level by the rule, end with x0_hat."""

    def estimate(x: Tensor, t: int) -> Denoised:
        found = denoise(x, batch_of(t, x))
        found = found if isinstance(found, Denoised) else Denoised(*found)
        if observer is not None:
            observer(t, x, found.x0_hat)
        return found

    x = noise
    for here, there in pairwise(path):
        x = rule(x, estimate(x, here.t), here, there)
    return estimate(x, path[-1].t).x0_hat


def _exponential_step(x: Tensor, drift: Tensor, here: Level, there: Level, eta: float = 0.0) -> Tensor:
    """x at ``there`` if x0_hat were ``drift`` all the way from ``here``: proposition 4.1 of Lu et al. 2022 (arXiv 2211.01095).

    ``eta`` is 0 on the probability flow, and 1 for the mean of a step of the reverse SDE.
    """
    h = there.half_logsnr - here.half_logsnr
    kept = math.exp(-eta * h) if eta > 0 else 1.0  # h is infinite where a schedule ends without signal
    return there.sigma / here.sigma * kept * x - there.signal * math.expm1(-(1 + eta) * h) * drift


def _midway(past: _Past, there: Level) -> Tensor:
    """x0_hat half-way from the latest level to ``there``, on the line through the latest two x0_hat."""
    here, x0_hat = past[-1]
    if len(past) == 1:
        return x0_hat
    before, x0_before = past[-2]
    reach = (there.half_logsnr - here.half_logsnr) / (2 * (here.half_logsnr - before.half_logsnr))
    return x0_hat + reach * (x0_hat - x0_before)


def _unic_drift(past: _Past, x0_new: Tensor, there: Level) -> Tensor:
    """The drift with which UniC repeats the step from the latest level to ``there``, where x0_hat is now known.

    Its weights make the integral of exp(lambda) x0_hat(lambda) exact for parabolas through three x0_hat. The very first step
    has two, which Zhao et al. weigh alike.
    """
    here, x0_hat = past[-1]
    if len(past) == 1:
        return x0_hat + (x0_new - x0_hat) / 2
    before, x0_before = past[-2]
    h = there.half_logsnr - here.half_logsnr
    r = (before.half_logsnr - here.half_logsnr) / h
    # With s from 0 here to 1 there, b_n is the mean of s^n under the weight exp(h s) of the integral. The weights of the two
    # differences must give the same for s and s^2: rho_1 + rho_2 = b_1 and r rho_1 + rho_2 = b_2.
    b_1 = -1 / math.expm1(-h) - 1 / h
    b_2 = -1 / math.expm1(-h) - 2 * b_1 / h
    rho_1 = (b_1 - b_2) / (1 - r)
    return x0_hat + rho_1 / r * (x0_before - x0_hat) + (b_1 - rho_1) * (x0_new - x0_hat)


def batch_of(t: int, x: Tensor) -> Tensor:
    """``(batch,)`` int64, all t."""
    return torch.full((len(x),), t, dtype=torch.long, device=x.device)


class Cost(NamedTuple):
    """Diffusion steps that a sampler visits, each of which its observer sees, and its network calls."""

    visits: int
    calls: int


def cost(sampler: Sampler, alpha_bar: Tensor, calls_at: Callable[[int], int] = lambda t: 1) -> Cost:
    """The cost of a sampler that takes ``calls_at(t)`` network calls at step t, found by running it on a single number.

    Raises the sampler's own ValueError if its arguments are wrong.
    """
    noise, seen, calls = torch.zeros(1, 1), [], []

    def denoise(xt: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(calls_at(int(t)))
        return xt, xt

    sampler(denoise, noise, alpha_bar, randn=lambda: noise, observer=lambda t, xt, x0_hat: seen.append(t))
    return Cost(len(seen), sum(calls))


@contextlib.contextmanager
def progress_bar(
    sampler: Sampler, alpha_bar: Tensor, batches: int, label: str, observer: Observer | None = None, hidden: bool = False
) -> Iterator[Observer | None]:
    """An observer for ``batches`` runs of a sampler that moves a labelled progress bar, unless hidden, and calls another one."""
    if hidden:
        yield observer
        return
    with tqdm(total=batches * cost(sampler, alpha_bar).visits, desc=label, unit="step", leave=False, mininterval=0.5) as bar:

        def observe(t: int, xt: Tensor, x0_hat: Tensor) -> None:
            bar.update()
            if observer is not None:
                observer(t, xt, x0_hat)

        yield observe
