"""Clips between two seeds, variations of a clip, clips of which a part is given, and the noise from which clips come."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from ddpm.clips import Clips, heading, rotated
from ddpm.guide import Autoguidance
from ddpm.model import LONGEST, MotionModel, evaluating
from ddpm.process.constraints import Known
from ddpm.process.samplers import Denoise, Observer, Sampler, SeededNoise, batch_of, ddim, progress_bar
from ddpm.process.spacing import levels
from ddpm.seeding import seeds_of
from ddpm.skeleton import Skeleton

log = logging.getLogger(__name__)

NOISE = 2.0
"""Largest factor, up or down, between the deviation of usable noise and that of the model's own."""
NEAR = 0.05
"""Largest mean error of the joints of clips sampled again, in metres; above it the inversion had too few calls."""

PATH = "path"
"""Name in ``keep`` of the way of the root over the ground."""


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


def interpolate(
    model: MotionModel,
    ends: Sequence[int],
    n: int,
    *,
    frames: int | None = None,
    labels: Tensor | None = None,
    guidance: float | Autoguidance | None = None,
    project: str | None = "",
    sampler: Sampler | None = None,
    batch_size: int = 64,
) -> Clips:
    """Clips from one seed to another, both included; for the other arguments see `ddpm.model.MotionModel.sample`.

    Args:
        model: trained.
        ends: the two seeds.
        n: number of clips.
        labels: ``(n,)``, all alike; None goes in a straight line from the condition of the one seed to that of the other.
    """
    windows = model.windows(frames or model.frames)
    conditions = model.conditions(ends, None if labels is None else labels[[0, 0]])
    parts = torch.linspace(0, 1, n).split(batch_size)
    clips = []
    with progress_bar(sampler or model.sampler, model.diffusion.alpha_bar, len(parts), "interpolating") as observer:
        for weight in parts:
            randn = between(model.noise([ends[0]], frames), model.noise([ends[1]], frames), weight)
            cond = None if conditions is None else torch.lerp(conditions[:1], conditions[1:], weight[:, None].to(conditions))
            options = partial(model.generate, cond=cond, guidance=guidance, project=project, sampler=sampler, windows=windows)
            clips.append(options(randn(), randn, observer=observer))
    return model.as_clips(torch.cat(clips), labels=labels)


def vary(
    model: MotionModel,
    clip: Tensor,
    strength: float,
    seeds: Sequence[int],
    *,
    labels: Tensor | None = None,
    guidance: float | Autoguidance | None = None,
    project: str | None = "",
    sampler: Sampler | None = None,
    batch_size: int = 64,
) -> Clips:
    """Clips like a given one: noised up to a diffusion step, and denoised from there (SDEdit, Meng et al. 2022).

    For the other arguments see `ddpm.model.MotionModel.sample`.

    Args:
        model: trained.
        clip: ``(frames, joints, coords)`` in metres.
        strength: the diffusion step as a fraction of all of them, in (0, 1].
        seeds: of the noise, one per clip.
        labels: ``(n,)``; None leaves the action to the noisy clip.
        sampler: its steps are spread over what is left to denoise.
    """
    seeds, clip = seeds_of(seeds), clip_of(model, clip)
    if not 0 < strength <= 1:
        raise ValueError(f"strength={strength} must be in (0, 1]: 1 keeps nothing of the clip")
    start = max(round(strength * model.diffusion.n_steps) - 1, 1)
    conditions = None if labels is None else model.conditions(seeds, labels)
    x0, windows = model.normalised(clip[None]), model.windows(len(clip))

    def generate(randn: SeededNoise, cond: Tensor | None, seen: Observer | None) -> Tensor:
        noise = randn()
        xt = model.diffusion.q_sample(x0.expand_as(noise), torch.full((len(noise),), start, device=model.device), noise)
        options = partial(model.generate, cond=cond, guidance=guidance, project=project, sampler=sampler)
        return options(xt, randn, start=start, windows=windows, observer=seen)

    clips = model.in_batches(generate, seeds, len(clip), conditions, sampler, batch_size, "varying", start)
    return model.as_clips(clips, torch.tensor(seeds), labels)


def clip_of(model: MotionModel, clip: Tensor) -> Tensor:
    """The clip as a tensor; a ValueError unless it is ``(frames, joints, coords)`` of the model's skeleton."""
    clip, skeleton = torch.as_tensor(clip), model.skeleton
    if clip.ndim != 3 or clip.shape[1:] != (len(skeleton.names), skeleton.coords) or not 1 < len(clip) <= LONGEST:
        raise ValueError(
            f"clip: shape {tuple(clip.shape)}, expected (frames, {len(skeleton.names)}, {skeleton.coords}) with 2 to {LONGEST} "
            f"frames, in metres, of the joints {', '.join(skeleton.names)}"
        )
    return clip


def given_by(keep: str | int | Sequence[str | int], skeleton: Skeleton, frames: int) -> Tensor:
    """``(frames, joints, coords)`` bool: the coordinates that are kept of a clip.

    Args:
        keep: ``JOINT``, ``PART`` or ``path``, the way of the root over the ground, in all frames; ``FRAME`` or ``FIRST:END``, all
            joints in these frames; or ``JOINT@FIRST:END``. Frames count from 0, negative ones from the end, and END is left out.
        skeleton: of the clip.
        frames: its length.

    Raises:
        ValueError: a name or a frame that is not there, or all or nothing is kept.
    """
    given = torch.zeros(frames, len(skeleton.names), skeleton.coords, dtype=torch.bool)
    keep = [keep] if isinstance(keep, str | int | float | None) else keep
    for item in map(str, keep):
        what, at, when = item.rpartition("@")
        if not at and (item in skeleton.names or item in skeleton.parts or item == PATH):
            what, when = item, ":"
        first, colon, end = when.partition(":")
        try:
            if not when or (at and what not in (*skeleton.names, *skeleton.parts, PATH)):
                raise ValueError
            limits = [int(number) if number else None for number in (first, end)]
        except ValueError:
            raise ValueError(
                f"keep={item} is no joint, no part, not {PATH!r}, and no frames such as 7, :8 or -8:, which may stand behind one "
                f"of these as in {skeleton.names[0]}@:8; joints: {', '.join(skeleton.names)}; parts: {', '.join(skeleton.parts)}"
            ) from None
        if not colon:
            limits[1] = None if limits[0] == -1 else (limits[0] or 0) + 1
        if any(number is not None and not -frames <= number <= frames for number in limits):
            raise ValueError(f"keep={item}: the clip has the frames 0 to {frames - 1}")
        names = skeleton.parts.get(
            what, skeleton.names if what == "" else [skeleton.names[skeleton.root] if what == PATH else what]
        )
        coords = list(skeleton.ground_axes) if what == PATH else list(range(skeleton.coords))
        chosen = torch.arange(frames)[slice(*limits)]
        given[chosen[:, None, None], torch.tensor([skeleton.index(name) for name in names])[:, None], torch.tensor(coords)] = True
    if not given.any() or given.all():
        raise ValueError(f"keep={list(keep)} keeps {'nothing' if not given.any() else 'all'} of the clip: keep a part of it")
    return given


def edit(
    model: MotionModel,
    clip: Tensor,
    given: Tensor,
    seeds: Sequence[int],
    *,
    facing: bool = False,
    floor: float = 0.0,
    labels: Tensor | None = None,
    guidance: float | Autoguidance | None = None,
    project: str | None = "",
    sampler: Sampler | None = None,
    batch_size: int = 64,
) -> Clips:
    """Clips of which a part is given and comes back as it is, and the rest is sampled: `ddpm.process.constraints.Known`.

    For the other arguments see `ddpm.model.MotionModel.sample`.

    Args:
        model: trained.
        clip: ``(frames, joints, coords)`` in metres; what is not given of it is not looked at, unless nothing else shows its
            heading.
        given: bool, shaped alike, see `given_by`.
        seeds: of the noise, one per clip.
        facing: whether the model was trained on clips that face one way (``loader.facing``).
        floor: its coordinate along the vertical.
        labels: ``(n,)``; None leaves the action to what is given.
    """
    skeleton, seeds, clip = model.skeleton, seeds_of(seeds), clip_of(model, clip)
    if given.shape != clip.shape or given.dtype != torch.bool or not given.any() or given.all():
        raise ValueError(
            f"given: {given.dtype} of shape {tuple(given.shape)}, {int(given.bool().sum())} true; expected bool of shape "
            f"{tuple(clip.shape)}, some true and not all: see given_by"
        )
    if not clip[given].isfinite().all():
        frame, joint, coord = (given & ~clip.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"clip: frame {frame}, joint {skeleton.names[joint]} is {clip[frame, joint, coord]}, and is to be kept")
    angle = None
    if facing:
        across = [joint for side in skeleton.across for joint in side]
        seen = given[:, across].flatten(1).all(1)
        angle = heading(clip[None].float(), skeleton, (seen if seen.any() else torch.ones_like(seen))[None])
    turned = clip[None] if angle is None else rotated(clip[None], skeleton, angle)
    place = given.nonzero()[0, 0]
    anchor = turned[:, place : place + 1, skeleton.root : skeleton.root + 1].clone()
    anchor = anchor.nan_to_num()
    anchor[..., skeleton.up_axis] = floor
    inside = (turned - anchor)[0].permute(1, 2, 0).cpu().double()
    device = torch.device("cpu") if model.device.type == "mps" else model.device  # which has no float64
    known = Known(inside.to(device), given.permute(1, 2, 0).to(device), model.normalizer, model.diffusion.prediction, skeleton)
    windows = model.windows(len(clip))
    conditions = None if labels is None else model.conditions(seeds, labels)

    def generate(randn: SeededNoise, cond: Tensor | None, seen: Observer | None) -> Tensor:
        options = partial(model.generate, cond=cond, guidance=guidance, project=project, sampler=sampler)
        return options(randn(), randn, known=known, windows=windows, observer=seen)

    made = model.in_batches(generate, seeds, len(clip), conditions, sampler, batch_size, "editing")
    made = made + anchor if angle is None else rotated(made + anchor, skeleton, -angle)
    made[:, given] = clip[given].to(made)  # turned there and back they would differ in the last digit
    return replace(model.as_clips(made, torch.tensor(seeds), labels), given=given.cpu().expand(len(made), -1, -1, -1))


def invert(model: MotionModel, clips: Tensor, steps: int, batch_size: int = 64) -> tuple[Clips, Tensor]:
    """The noise of clips by DDIM inversion, and the clips that DDIM samples from it.

    The log says how far they are from the given ones. A warning says where the noise is of no use: it is not noise as the model
    draws it, or does not lead back to its clip.

    Args:
        model: trained.
        clips: ``(n, frames, joints, coords)`` in metres.
        steps: of DDIM.
        batch_size: clips per network call.

    Returns:
        The clips sampled again, and the noise ``(n, joints, coords, frames)``.
    """
    windows, alpha_bar = model.windows(clips.shape[1]), model.diffusion.alpha_bar
    denoise = model.denoiser(None, None, None, windows=windows)
    again, noises = [], []
    with torch.no_grad(), evaluating(model):
        for part in clips.split(batch_size):
            noise = ddim_inverse(denoise, model.normalised(part), alpha_bar, steps=steps)
            noises.append(noise.cpu())
            again.append(
                model.generate(
                    noise, partial(torch.zeros_like, noise), project=None, sampler=partial(ddim, steps=steps), windows=windows
                )
            )
    made, noise = torch.cat(again), torch.cat(noises)
    deviation, errors = noise.flatten(1).std(dim=1), (made - clips.to(made)).norm(dim=-1)
    off = float(errors.mean())
    log.info(
        "sampled again from their noise, joints are %.2f cm off on average, %.2f cm at worst; the noise has the deviation "
        "%.2f (1 is what the model draws clips from; more is detail that it cannot explain)",
        100 * off, 100 * errors.max(), noise.std(),
    )  # fmt: skip
    if not off <= NEAR:  # also nan
        log.warning(
            "invert: %d calls are too few: clips sampled again are off by %.0f cm on average, their noise is of no use; try %d",
            steps, 100 * off, 5 * steps,
        )  # fmt: skip
    elif bad := int((deviation.log().abs() > math.log(NOISE)).sum()):
        log.warning(
            "invert: the noise of %d of %d clips is of no use: the deviations are %.2f to %.2f, that of the model's own is 1. It "
            "gives its clip back, but changed or blended it leads to no motion; prediction=gaussian explains more",
            bad, len(clips), deviation.min(), deviation.max(),
        )  # fmt: skip
    return model.as_clips(made), noise
