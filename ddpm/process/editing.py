"""Editing: noise between two seeds, and the noise from which a sampler returns a clip."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from ddpm.process.samplers import Denoise, batch_of
from ddpm.process.spacing import levels


def slerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Spherical interpolation ``(n, ...)`` from noise ``(...)`` a to b for ``(n,)`` weights: noise of the same norm."""
    cosine = (a.flatten() @ b.flatten() / (a.norm() * b.norm())).clamp(-1, 1)
    angle = torch.acos(cosine)
    weight = weight.reshape(-1, *[1] * a.ndim).to(a)
    if angle.sin() < 1e-4:  # the same noise, or its opposite, where the great circle is undefined
        return torch.lerp(a, b, weight)
    return torch.sin((1 - weight) * angle) / angle.sin() * a + torch.sin(weight * angle) / angle.sin() * b


def between(first: Callable[[], Tensor], second: Callable[[], Tensor], weight: Tensor) -> Callable[[], Tensor]:
    """A source of noise ``(n, ...)``, interpolated between two sources of ``(1, ...)``, such as `SeededNoise`, at n weights.

    All noise is interpolated, also what a sampler draws on its way, so that weights 0 and 1 are the clips of the two sources with
    any sampler.
    """
    return lambda: slerp(first()[0], second()[0], weight)


def ddim_inverse(denoise: Denoise, x0: Tensor, alpha_bar: Tensor, *, steps: int | None = 50, refinements: int = 3) -> Tensor:
    """The noise from which `ddpm.process.samplers.ddim` with as many steps, evenly spaced in log(SNR), returns a clip.

    DDIM's step from xt to the next level is x = (sigma_next / sigma) xt + (signal_next - signal sigma_next / sigma) x0_hat(xt).
    In the inverse, xt is on both sides: a fixed-point iteration starts from x0_hat at the level already reached. (Song et al.
    2021, section 4.3, stop at that first guess, whose error is of first order in the step.) It converges where sigma grows by
    less than about 2 in a step, as over enough steps of even log(SNR). The last step of a sampler, to the clean clip, is x0_hat
    itself and is solved by adding the residual.

    ``refinements`` is the number of additional network calls for each step. For the other arguments and errors see the samplers.
    """
    if refinements < 0:
        raise ValueError(f"refinements={refinements} must not be negative")
    path = levels(alpha_bar, steps, "logsnr")[::-1]

    def x0_hat(x: Tensor, t: int) -> Tensor:
        return denoise(x, batch_of(t, x))[0]

    first = path[0]
    x = first.signal * x0
    for _ in range(refinements + 1):
        clean = x0_hat(x, first.t)
        x = x + first.signal * (x0 - clean)
    clean = x0_hat(x, first.t)
    for here, there in pairwise(path):
        stretch = there.sigma / here.sigma
        begin = x
        for _ in range(refinements + 1):
            x = stretch * begin + (there.signal - here.signal * stretch) * clean
            clean = x0_hat(x, there.t)
    return x
