"""What a sampler calls: the network's estimates with guidance, windows, rigid bones and given coordinates."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ddpm.bones import rigid_bones
from ddpm.normalizer import Normalizer
from ddpm.process.condition import LabelCondition, VectorCondition, guided
from ddpm.process.diffusion import Denoised, DenoiseDiffusion, gather
from ddpm.process.windows import Windows
from ddpm.skeleton import Skeleton

RIGID_SNR = 8.0
"""Signal-to-noise ratio from which on ``project=bones`` acts; where there is more noise, x0_hat is no body yet."""

WINDOWS = 256
"""Windows of long clips per network call."""

Denoiser = Callable[[Tensor, Tensor], Denoised]
"""``(batch, joint, coord, frame)`` and diffusion steps ``(batch,)`` -> estimates of clip and noise."""
Estimate = Callable[[Tensor, Tensor, Tensor | None], Denoised]
"""The same, with the condition ``(batch, clip_dim)``, None for none."""


def guided_network(
    diffusion: DenoiseDiffusion,
    normalizer: Normalizer,
    condition: LabelCondition | VectorCondition | None,
    weight: float,
    worse: DenoiseDiffusion | None = None,
) -> Estimate:
    """Guided estimates: away from those without a condition, or from those of a ``worse`` network with the same one."""
    device = normalizer.mean.device
    nothing = None if condition is None else torch.zeros(1, condition.width, device=device)
    weights = torch.full_like(normalizer.mean, weight)
    # Guidance of the root's steps would make people faster than any that were recorded.
    weights[normalizer.root, normalizer.travel] = min(weight, 1.0)

    def estimate(xt: Tensor, t: Tensor, cond: Tensor | None) -> Denoised:
        alpha_bar, free = gather(diffusion.alpha_bar, t, xt), None if nothing is None else nothing.expand(len(xt), -1)
        cond = free if cond is None else cond
        found = diffusion.denoise(xt, t, cond)
        if weight == 1:
            return found
        here = torch.ones_like(alpha_bar, dtype=torch.bool) if condition is None else condition.guides(alpha_bar)
        if not bool(here.any()):
            return found
        other = diffusion.denoise(xt, t, free) if worse is None else worse.denoise(xt, t, cond)
        moved = guided(found, other, weights.to(found.x0_hat))
        return _where(here, moved.x0_hat, moved.eps_hat, found)

    return estimate


def whole_clips(estimate: Estimate, cond: Tensor | None, windows: Windows | None) -> Denoiser:
    """Estimates of whole clips; of longer ones than those of training window by window."""
    if windows is None:
        return lambda xt, t: estimate(xt, t, cond)
    return lambda xt, t: windows.denoise(estimate, xt, t, cond, WINDOWS)


def with_rigid_bones(denoise: Denoiser, alpha_bar: Tensor, normalizer: Normalizer, skeleton: Skeleton) -> Denoiser:
    """Estimates whose bones keep their lengths, at little noise."""

    def rigid(xt: Tensor, t: Tensor) -> Denoised:
        found, level = denoise(xt, t), gather(alpha_bar, t, xt)
        late = level > RIGID_SNR * (1 - level)
        if not bool(late.any()):
            return found
        x0_hat = normalizer(rigid_bones(normalizer.inverse(found.x0_hat), skeleton))
        return _where(late, x0_hat, _eps_hat(xt, x0_hat, level), found)

    return rigid


def moved_by(denoise: Denoiser, alpha_bar: Tensor, moves: Sequence[Callable[[Tensor, Tensor], Tensor]]) -> Denoiser:
    """Estimates to which further ``(x0_hat, alpha_bar) -> x0_hat`` are applied, in this order."""

    def moved(xt: Tensor, t: Tensor) -> Denoised:
        found, level = denoise(xt, t), gather(alpha_bar, t, xt)
        for move in moves:
            x0_hat = move(found.x0_hat, level)
            found = Denoised(x0_hat, _eps_hat(xt, x0_hat, level), found.fraction)
        return found

    return moved


def _eps_hat(xt: Tensor, x0_hat: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noise that is left of ``xt`` beside this clip."""
    return (xt - alpha_bar.sqrt() * x0_hat) / (1 - alpha_bar).sqrt()


def _where(here: Tensor, x0_hat: Tensor, eps_hat: Tensor, otherwise: Denoised) -> Denoised:
    x0_hat, eps_hat = torch.where(here, x0_hat, otherwise.x0_hat), torch.where(here, eps_hat, otherwise.eps_hat)
    return Denoised(x0_hat, eps_hat, otherwise.fraction)
