"""Prediction=gaussian: around a network that outputs 0, everything is the one Gaussian process that was measured, exactly."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddpm import load
from ddpm.build import with_channels
from ddpm.checkpoint_io import DurableCheckpointIO
from ddpm.module import build_module
from ddpm.process.diffusion import DenoiseDiffusion
from ddpm.process.gaussian import FLOOR, PRIOR, Gaussian
from ddpm.process.prediction import EDM, X0, Velocity
from ddpm.process.samplers import Sampler, ddim, ddpm, dpmpp_2m, dpmpp_2m_sde, heun, unipc
from ddpm.process.schedules import cosine, respace, zero_terminal_snr
from ddpm.process.variance import Learned
from ddpm.process.weighting import min_snr, p2, simple, velocity

BINS = 8
LENGTHS = range(3, BINS + 1)
ALPHA_BAR = [1 - 1e-6, 0.99, 0.5, 0.02, 1e-8, 0.0]
WEIGHTINGS = [simple, partial(min_snr, gamma=0.7), p2, velocity]


def known(joints: int = 2, coords: int = 3, bins: int = BINS, emphasis: float = 0.0) -> Gaussian:
    """A process in float64 whose components lie across the joints, with variances from 0.03 to 20, all of them different."""
    g = torch.Generator().manual_seed(0)
    channels = joints * coords
    gaussian = Gaussian(channels, bins, emphasis).double()
    gaussian.basis.copy_(torch.linalg.qr(torch.randn(channels, channels, generator=g, dtype=torch.float64)).Q)
    level = torch.linspace(3, -1, channels, dtype=torch.float64)[:, None] - torch.linspace(0, 3, bins, dtype=torch.float64)
    gaussian.log_power.copy_(level + 0.5 * torch.rand(channels, bins, generator=g, dtype=torch.float64))
    return gaussian


def dct(length: int) -> Tensor:
    """The orthonormal DCT-II, ``(frequency, frame)``, from its formula."""
    m, frame = np.arange(length)[:, None], np.arange(length)
    return torch.from_numpy(np.cos(np.pi * m * (2 * frame + 1) / (2 * length)) * np.sqrt(np.where(m == 0, 1, 2) / length))


def power(gaussian: Gaussian, length: int) -> Tensor:
    """``(component, frequency)`` variances of the modes of a clip: the logarithm goes in straight lines from bin to bin."""
    bins = gaussian.log_power.shape[1]
    place = np.arange(length) * bins / length
    rows = [np.interp(place, np.arange(bins), row) for row in gaussian.log_power.double().numpy()]
    return torch.from_numpy(np.exp(np.stack(rows)))


def modes(gaussian: Gaussian, clips: Tensor) -> Tensor:
    """``(clips, joint, coord, frame)`` without padding -> ``(clips, component, frequency)``."""
    return gaussian.basis.T @ clips.flatten(1, 2) @ dct(clips.shape[-1]).T


def clips_of(gaussian: Gaussian, y: Tensor, coords: int = 3) -> Tensor:
    """The way back."""
    return (gaussian.basis @ y @ dct(y.shape[-1])).unflatten(1, (-1, coords))


def unit_modes(gaussian: Gaussian, length: int) -> Tensor:
    """As many clips as there are modes, each 1 in one of them and 0 in the others."""
    channels = len(gaussian.basis)
    return clips_of(gaussian, torch.eye(channels * length, dtype=torch.float64).reshape(-1, channels, length))


def covariance(gaussian: Gaussian, length: int) -> Tensor:
    """Of the numbers of a clip, ``(channels length, channels length)``."""
    to_numbers = unit_modes(gaussian, length).flatten(1)
    return to_numbers.T @ (power(gaussian, length).flatten()[:, None] * to_numbers)


def implied(gaussian: Gaussian) -> Tensor:
    """Covariance of poses at every bin, ``(bin, channels, channels)``: what is left when order and sign of components are not."""
    return torch.einsum("ik,km,jk->mij", gaussian.basis, gaussian.log_power.exp(), gaussian.basis)


def padded(groups: list[Tensor], filler: float = 9.0) -> tuple[Tensor, Tensor]:
    """Clips of several lengths in one batch, with something wild behind their ends; and their mask."""
    frames = max(clips.shape[-1] for clips in groups)
    batch = [torch.nn.functional.pad(clips, (0, frames - clips.shape[-1]), value=filler) for clips in groups]
    mask = [(torch.arange(frames) < clips.shape[-1]).double().expand(len(clips), 1, 1, frames) for clips in groups]
    return torch.cat(batch), torch.cat(mask)


def drawn(gaussian: Gaussian, n: int, length: int, seed: int = 0) -> Tensor:
    """``n`` clips of the process."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randn(n, len(gaussian.basis), length, generator=g, dtype=torch.float64)
    return clips_of(gaussian, power(gaussian, length).sqrt() * y)


def root(gaussian: Gaussian, length: int) -> Tensor:
    """`unit_modes` times the deviation of each: a square root of the covariance, one clip a column."""
    return power(gaussian, length).flatten().sqrt().reshape(-1, 1, 1, 1) * unit_modes(gaussian, length)


def designed(gaussian: Gaussian, length: int, coords: int = 3) -> Tensor:
    """64 clips with exactly the second moments of the process: every mode has one size in all, and signs that are orthogonal."""
    channels = len(gaussian.basis)
    signs = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(6):  # Sylvester's Hadamard matrices
        signs = torch.cat([torch.cat([signs, signs], dim=1), torch.cat([signs, -signs], dim=1)])
    signs = signs[:, : channels * length].reshape(64, channels, length)
    return clips_of(gaussian, power(gaussian, length).sqrt() * signs, coords)


def log_snr(n_steps: int) -> Tensor:
    """A schedule whose log(SNR) falls evenly, so that all samplers take even steps."""
    return respace(F.logsigmoid(torch.linspace(10, -10, 1000, dtype=torch.float64)), n_steps)


def silent(gaussian: Gaussian, schedule: Callable[[int], Tensor] = log_snr, **parts: Any) -> DenoiseDiffusion:
    """A diffusion around a network that outputs 0."""

    def network(seen: Tensor, t: Tensor, cond: Tensor | None, mask: Tensor | None = None) -> Tensor:
        return torch.zeros_like(seen)

    return DenoiseDiffusion(network, 1000, beta_schedule=schedule, prediction=gaussian, **parts).double()


def closed_form(diffusion: DenoiseDiffusion, gaussian: Gaussian, length: int, t: int) -> Tensor:
    """``(component, frequency)`` expected loss of each mode around a network that outputs 0."""
    snr = diffusion.alpha_bar[t] / (1 - diffusion.alpha_bar[t]) * power(gaussian, length)
    emphasis = power(gaussian, length) ** gaussian.emphasis / gaussian.log_power.exp().pow(gaussian.emphasis).mean()
    return emphasis * diffusion.weighting(snr) / (1 + snr)


def everything(
    gaussian: Gaussian, output: Tensor, x: Tensor, eps: Tensor, alpha_bar: Tensor, mask: Tensor | None
) -> list[Tensor]:
    """What it says of a clip."""
    error = gaussian.for_clips(x, mask, None).error(output, x, eps, alpha_bar, p2)
    return [
        gaussian.for_clips(x, mask, None).network_input(x, alpha_bar),
        *gaussian.for_clips(x, mask, None).convert(output, x, alpha_bar),
        error,
    ]


def tensor(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


# --- a network that outputs 0 is the exact denoiser


@pytest.mark.parametrize("schedule", [log_snr, partial(zero_terminal_snr, base=cosine)], ids=["log_snr", "zero"])
@pytest.mark.parametrize(
    "sampler",
    [partial(ddim, steps=600), partial(heun, steps=161), partial(dpmpp_2m, steps=80), partial(unipc, steps=40)],
    ids=lambda s: s.func.__name__,
)
def test_samplers_return_the_process(sampler: Sampler, schedule: Callable[[int], Tensor]) -> None:
    """A sampler is then a linear map of the noise. What it makes of noise of 1 in one mode is its gain, without sampling error.

    All lengths are in one batch. The gain is the deviation of the mode and no mode reaches another, so covariances and spectra
    are those of the process; the mean, that of no noise, is 0.
    """
    truth = known(joints=1)
    groups = [torch.cat([unit_modes(truth, n), torch.zeros(1, 1, 3, n).double()]) for n in LENGTHS]
    noise, mask = padded(groups)
    diffusion = silent(truth, schedule)
    clips = sampler(partial(diffusion.denoise, mask=mask), noise, diffusion.alpha_bar, randn=None)
    assert not (clips * (1 - mask)).any()
    start = 0
    for n, group in zip(LENGTHS, groups, strict=True):
        found = clips[start : start + len(group), ..., :n]
        start += len(group)
        assert not found[-1].any()
        gain = modes(truth, found[:-1]).flatten(1)
        torch.testing.assert_close(gain.diagonal(), power(truth, n).flatten().sqrt(), rtol=0.01, atol=0)
        assert (gain - gain.diagonal().diag()).abs().max() < 1e-9
        numbers = found[:-1].flatten(1)
        wanted = covariance(truth, n)
        assert torch.linalg.matrix_norm(numbers.T @ numbers - wanted) < 0.02 * torch.linalg.matrix_norm(wanted)
        spectrum = gain.diagonal().square().reshape(-1, n).sum(0)
        torch.testing.assert_close(spectrum, power(truth, n).sum(0), rtol=0.02, atol=0)


def test_a_sampler_with_noise_returns_it_too() -> None:
    """One clip a draw: x_T in the first, every z in one of the others; their squares add up to the variances."""
    truth, visits = known(), 150
    noise = torch.zeros(visits, 2, 3, BINS).double()
    one = clips_of(truth, torch.ones(1, 6, BINS).double())[0]
    noise[0] = one
    places = iter(range(1, visits))

    def impulse() -> Tensor:
        z = torch.zeros_like(noise)
        z[next(places)] = one
        return z

    diffusion = silent(truth)
    clips = dpmpp_2m_sde(diffusion.denoise, noise, diffusion.alpha_bar, randn=impulse, steps=visits)
    torch.testing.assert_close(modes(truth, clips).square().sum(0), power(truth, BINS), rtol=0.02, atol=0)


@pytest.mark.parametrize("alpha_bar", ALPHA_BAR)
def test_no_output_is_the_conditional_mean(alpha_bar: float) -> None:
    """E[x0 | xt] = a C (a^2 C + s^2)^-1 xt with the covariance of all numbers of a clip."""
    truth = known()
    for n in LENGTHS:
        xt = torch.randn(4, 2, 3, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
        x0_hat, _ = truth.for_clips(xt, None, None).convert(torch.zeros_like(xt), xt, tensor(alpha_bar))
        C = covariance(truth, n)
        noisy = alpha_bar * C + (1 - alpha_bar) * torch.eye(len(C)).double()
        expected = math.sqrt(alpha_bar) * torch.linalg.solve(noisy, xt.flatten(1).T).T @ C
        torch.testing.assert_close(x0_hat.flatten(1), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("emphasis", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("t", [0, 300, 500, 999])
def test_the_loss_of_no_output_is_known(t: int, emphasis: float, weighting: Callable[[Tensor], Tensor]) -> None:
    """The sum of w(SNR S) / (1 + SNR S) over the modes, each with its emphasis; exactly, for it is quadratic in clip and noise.

    Its expectation is what the square roots of both covariances add up to, one clip a column of either.
    """
    truth = known(emphasis=emphasis)
    diffusion = silent(truth, weighting=weighting)
    x0, mask = padded([drawn_ for n in LENGTHS for drawn_ in (root(truth, n), 0 * root(truth, n))], 0.0)
    eps, _ = padded([units for n in LENGTHS for units in (0 * unit_modes(truth, n), unit_modes(truth, n))], 0.0)
    losses = diffusion.clip_losses(x0, eps, t=torch.full((len(x0),), t), mask=mask)
    lengths = mask.sum(dim=(1, 2, 3)).long()
    for n in LENGTHS:
        found = losses.total[lengths == n].sum()
        torch.testing.assert_close(found, closed_form(diffusion, truth, n, t).sum(), rtol=1e-6, atol=0)
        assert (losses.count[lengths == n] == 6 * n).all()


@pytest.mark.parametrize("weighting", [simple, partial(min_snr, gamma=0.7)])
@pytest.mark.parametrize("t", [300, 500, 700])
def test_the_loss_of_drawn_clips_is_that(t: int, weighting: Callable[[Tensor], Tensor]) -> None:
    """As in training, with noise that the diffusion draws; every squared error is a chi-square. Within 5 standard errors."""
    truth = known()
    diffusion = silent(truth, weighting=weighting)
    n, lengths = 1500, (BINS, 3, 5)
    x0, mask = padded([drawn(truth, n, length, seed=length) for length in lengths])
    torch.manual_seed(t)
    losses = diffusion.clip_losses(x0, t=torch.full((len(x0),), t), mask=mask)
    for length, found in zip(lengths, losses.total.split(n), strict=True):
        expected = closed_form(diffusion, truth, length, t)
        assert abs(found.mean() - expected.sum()) < 5 * (2 * expected.square().sum() / n).sqrt()


# --- conversion


@pytest.mark.parametrize("alpha_bar", ALPHA_BAR)
def test_any_output_explains_xt(alpha_bar: float) -> None:
    truth, ab = known(), tensor(alpha_bar)
    xt, mask = padded([torch.randn(2, 2, 3, n, dtype=torch.float64) for n in LENGTHS])
    for real in (mask, mask.bool(), mask.expand(-1, 2, 3, -1)):
        x0_hat, eps_hat = truth.for_clips(xt, real, None).convert(torch.randn_like(xt), xt, ab)
        torch.testing.assert_close(ab.sqrt() * x0_hat + (1 - ab).sqrt() * eps_hat, xt * mask, rtol=0, atol=1e-10)
    x0_hat, eps_hat = truth.for_clips(xt, None, None).convert(torch.randn_like(xt), xt, ab)
    torch.testing.assert_close(ab.sqrt() * x0_hat + (1 - ab).sqrt() * eps_hat, xt, rtol=0, atol=1e-10)


@pytest.mark.parametrize("masked", [True, False])
def test_the_simple_error_is_that_of_epsilon(masked: bool) -> None:
    """SNR ||x0 - x0_hat||^2 over the real numbers, also of every clip by itself, each at its own noise level."""
    truth = known()
    groups = [torch.randn(2, 2, 3, n, dtype=torch.float64) for n in (LENGTHS if masked else [BINS] * len(LENGTHS))]
    x0, mask = padded(groups)
    eps, output = torch.randn_like(x0), torch.randn_like(x0)
    ab = torch.linspace(0.01, 0.9999, len(x0), dtype=torch.float64).reshape(-1, 1, 1, 1)
    xt = ab.sqrt() * x0 + (1 - ab).sqrt() * eps
    given = mask if masked else None
    error = truth.for_clips(x0, given, None).error(output, x0, eps, ab, simple)
    x0_hat, _ = truth.for_clips(xt, given, None).convert(output, xt, ab)
    assert error.shape == x0.shape and (error >= 0).all()
    expected = (ab / (1 - ab) * (x0 - x0_hat).square() * mask).sum(dim=(1, 2, 3))
    torch.testing.assert_close((error * mask).sum(dim=(1, 2, 3)), expected, rtol=1e-8, atol=0)
    torch.testing.assert_close(error.sum(dim=(1, 2, 3)), expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("alpha_bar", ALPHA_BAR)
@pytest.mark.parametrize("sigma_data", [0.03, 0.5, 1.0, 2.0])
def test_one_variance_is_edm(sigma_data: float, alpha_bar: float) -> None:
    """Whatever the components: theirs is the output times sigma_data, for they leave that factor of c_out away."""
    gaussian, ab = known(), tensor(alpha_bar)
    gaussian.log_power.fill_(2 * math.log(sigma_data))
    output, xt = torch.randn(2, 5, 2, 3, 7, dtype=torch.float64)
    for ours, theirs in zip(
        gaussian.for_clips(xt, None, None).convert(output, xt, ab),
        EDM(sigma_data).convert(sigma_data * output, xt, ab),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    total = alpha_bar * sigma_data**2 + 1 - alpha_bar
    torch.testing.assert_close(gaussian.for_clips(xt, None, None).network_input(xt, ab), xt / total**0.5, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("alpha_bar", ALPHA_BAR)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_variance_1_is_the_velocity_but_for_the_sign(weighting: Callable[[Tensor], Tensor], alpha_bar: float) -> None:
    """Nothing is measured before `fit`: so is an unfitted one."""
    ab = tensor(alpha_bar)
    x0, eps, output = torch.randn(3, 5, 2, 3, 7, dtype=torch.float64)
    xt = ab.sqrt() * x0 + (1 - ab).sqrt() * eps
    turned = known()
    turned.log_power.zero_()
    for gaussian in (Gaussian(6, 7).double(), turned):
        torch.testing.assert_close(gaussian.for_clips(xt, None, None).network_input(xt, ab), xt)
        for ours, theirs in zip(
            gaussian.for_clips(xt, None, None).convert(output, xt, ab), Velocity().convert(-output, xt, ab), strict=True
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
        ours, theirs = (
            prediction.for_clips(x0, None, None).error(sign * output, x0, eps, ab, weighting).sum(dim=(1, 2, 3))
            for prediction, sign in ((gaussian, 1), (Velocity(), -1))
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_a_shift_of_all_variances_is_a_shift_of_the_signal() -> None:
    """c x0 with the variances c^2 S is x0 with S where the signal-to-noise ratio is c^2 times as large."""
    truth, louder, c = known(), known(), 3.0
    louder.log_power.add_(2 * math.log(c))
    output, xt = torch.randn(2, 5, 2, 3, 7, dtype=torch.float64)
    snr = 0.7
    there = tensor(c**2 * snr / (1 + c**2 * snr))
    scale = ((1 - there) * (1 + snr)).sqrt()  # of the noise of the one xt to that of the other
    x0_hat, eps_hat = louder.for_clips(xt, None, None).convert(output, xt, tensor(snr / (1 + snr)))
    expected, same = truth.for_clips(scale * xt, None, None).convert(output, scale * xt, there)
    torch.testing.assert_close(x0_hat, c * expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(eps_hat, same, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", [ddpm, ddim, partial(ddim, eta=1.0), heun, dpmpp_2m, dpmpp_2m_sde, unipc])
def test_samplers_need_not_know_what_the_network_outputs(sampler: Sampler) -> None:
    """A denoiser that is no straight line, worn as an x0-model and as this one, which is shown another input: one trajectory."""
    truth = known()
    S, D = power(truth, BINS), dct(BINS)

    def curved(xt: Tensor) -> Tensor:
        return (2 * xt).tanh() + 0.1 * xt.flip(1, 3) + 0.1

    def network(seen: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        ab = as_gaussian.alpha_bar[t][:, None, None]
        total = ab * S + 1 - ab
        xt = clips_of(truth, total.sqrt() * modes(truth, seen))
        y, wanted = modes(truth, xt), modes(truth, curved(xt))
        output = (wanted - ab.sqrt() * S / total * y) / ((1 - ab) * S / total).sqrt()
        return (truth.basis @ output @ D).reshape(seen.shape)

    as_gaussian = DenoiseDiffusion(network, 40, beta_schedule=cosine, prediction=truth).double()
    as_x0 = DenoiseDiffusion(lambda xt, t, cond: curved(xt), 40, beta_schedule=cosine, prediction=X0()).double()
    noise = torch.randn(3, 2, 3, BINS, dtype=torch.float64)
    trajectories = []
    for diffusion in (as_gaussian, as_x0):
        g, path = torch.Generator().manual_seed(0), []

        def randn(g: torch.Generator = g) -> Tensor:
            return torch.randn(noise.shape, generator=g, dtype=torch.float64)

        x0 = sampler(
            diffusion.denoise, noise, diffusion.alpha_bar, randn=randn, steps=20,
            observer=lambda t, xt, x0_hat, path=path: path.extend([xt, x0_hat]),
        )  # fmt: skip
        trajectories.append(torch.stack([*path, x0]))
    torch.testing.assert_close(*trajectories, rtol=1e-8, atol=1e-8)


# --- padding


def test_a_padded_clip_is_what_it_is_alone() -> None:
    truth = known()
    x0, mask = padded([torch.randn(1, 2, 3, n, dtype=torch.float64) for n in LENGTHS])
    eps, output = torch.randn_like(x0), torch.randn_like(x0)
    ab = torch.linspace(0.01, 0.99, len(x0), dtype=torch.float64).reshape(-1, 1, 1, 1)
    for real in (mask, mask.bool(), mask.expand(-1, 2, 3, -1)):
        seen = truth.for_clips(x0, real, None).network_input(x0, ab)
        answers = truth.for_clips(x0, real, None).convert(output, x0, ab)
        error = truth.for_clips(x0, real, None).error(output, x0, eps, ab, p2)
        for i, n in enumerate(LENGTHS):
            one, frames = slice(i, i + 1), (..., slice(n))
            a, b, c = (x[one][frames] for x in (x0, eps, output))
            torch.testing.assert_close(seen[one][frames], truth.for_clips(a, None, None).network_input(a, ab[one]))
            for together, alone in zip(answers, truth.for_clips(a, None, None).convert(c, a, ab[one]), strict=True):
                torch.testing.assert_close(together[one][frames], alone)
                assert not together[one][..., n:].any()
            torch.testing.assert_close(error[one][frames], truth.for_clips(a, None, None).error(c, a, b, ab[one], p2))
            assert not seen[one][..., n:].any() and not error[one][..., n:].any()


def test_what_padding_holds_changes_nothing() -> None:
    x0, mask = padded([torch.randn(4, 2, 3, n, dtype=torch.float64) for n in LENGTHS])
    eps, output, ab = torch.randn_like(x0), torch.randn_like(x0), tensor(0.3)
    wild = [torch.where(mask.bool(), x, -1e6 * torch.rand_like(x)) for x in (x0, eps, output)]
    found = []
    for clips, noise, said in ((x0, eps, output), wild):
        gaussian = Gaussian(6, BINS).double()
        gaussian.fit(clips, mask)
        found.append([*gaussian.buffers(), *everything(gaussian, said, clips, noise, ab, mask)])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_a_mask_of_ones_is_no_mask() -> None:
    x0, eps, output = torch.randn(3, 5, 2, 3, BINS, dtype=torch.float64)
    ab, fitted = tensor(0.3), []
    for mask in (torch.ones(5, 1, 1, BINS), None):
        gaussian = Gaussian(6, BINS).double()
        gaussian.fit(x0, mask)
        fitted.append([*gaussian.buffers(), *everything(gaussian, output, x0, eps, ab, mask)])
    for a, b in zip(*fitted, strict=True):
        torch.testing.assert_close(a, b)


# --- what is measured


def blended(covariances: Tensor, n: int) -> Tensor:
    """What n clips and one more of the mean variance say; the mean variance is the same."""
    mean = torch.diagonal(covariances, dim1=1, dim2=2).mean(dim=1)
    return (n * covariances + mean[:, None, None] * torch.eye(covariances.shape[1]).double()) / (n + 1)


@pytest.mark.parametrize("coords", [2, 3])
def test_the_process_is_found(coords: int) -> None:
    """From clips with exactly its second moments, up to the one clip more; which sign a component has is nobody's business."""
    truth, fitted = known(coords=coords), Gaussian(2 * coords, BINS).double()
    clips = designed(truth, BINS, coords)
    fitted.fit(clips, None)
    torch.testing.assert_close(implied(fitted), blended(implied(truth), len(clips)), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(fitted.basis.T @ fitted.basis, torch.eye(2 * coords).double())
    pose = fitted.log_power.exp().sum(1)
    assert (pose.diff() < 0).all(), "the largest component comes first"


@pytest.mark.parametrize("frames", [4, 10])
def test_clips_of_any_length_say_what_poses_are(frames: int) -> None:
    """Poses without memory have one variance at every frequency: clips of all lengths agree, also those longer than the grid."""
    truth, fitted = known(), Gaussian(6, BINS).double()
    truth.log_power.copy_(truth.log_power[:, :1].expand(-1, BINS))
    groups = [designed(truth, n) for n in (*LENGTHS, frames)]
    fitted.fit(*padded(groups))
    torch.testing.assert_close(implied(fitted), blended(implied(truth), sum(map(len, groups))), rtol=1e-6, atol=1e-9)


def test_the_process_is_found_in_drawn_clips() -> None:
    """2500 clips, of mixed lengths; 5 standard errors of a variance, and 10 % for what mixing neighbouring frequencies costs."""
    truth, fitted = known(), Gaussian(6, BINS).double()
    slow = torch.linspace(0, 3, BINS, dtype=torch.float64)
    truth.log_power.copy_(torch.linspace(3, -1, 6, dtype=torch.float64)[:, None] - slow)
    fitted.fit(*padded([drawn(truth, 500, n, seed=n) for n in (4, 5, 6, 7, BINS)]))
    found, wanted = (torch.diagonal(truth.basis.T @ implied(g) @ truth.basis, dim1=1, dim2=2) for g in (fitted, truth))
    assert ((found / wanted).log().abs() < 5 * (2 / 500) ** 0.5 + 0.1).all()
    assert ((found / wanted).log().mean(dim=0).abs() < 0.1).all()


def test_turned_clips_have_a_turned_covariance() -> None:
    """By any rotation of all channels; nothing is special about the axes."""
    truth, g = known(), torch.Generator().manual_seed(1)
    clips = drawn(truth, 7, BINS)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=g, dtype=torch.float64)).Q
    turned = (turn @ clips.flatten(1, 2)).reshape(clips.shape)
    one, other = Gaussian(6, BINS).double(), Gaussian(6, BINS).double()
    one.fit(clips, None)
    other.fit(turned, None)
    torch.testing.assert_close(implied(other), turn @ implied(one) @ turn.T, rtol=1e-8, atol=1e-9)
    ab = tensor(0.4)
    xt = torch.randn(3, 2, 3, BINS, generator=g, dtype=torch.float64)
    a, b = (p.for_clips(x, None, None).convert(torch.zeros_like(x), x, ab)[0] for p, x in (
        (one, xt), (other, (turn @ xt.flatten(1, 2)).reshape(xt.shape))))  # fmt: skip
    torch.testing.assert_close(b.flatten(1, 2), turn @ a.flatten(1, 2), rtol=1e-8, atol=1e-9)


def test_short_clips_leave_frequencies_out() -> None:
    """Those between lie on the line of the logarithm through their neighbours, those above are the highest that was seen."""
    truth, fitted = known(bins=16), Gaussian(6, 16).double()
    clips = designed(truth, 4)
    fitted.fit(clips, None)
    seen = implied(truth)[[0, 4, 8, 12]]
    torch.testing.assert_close(implied(fitted)[[0, 4, 8, 12]], blended(seen, len(clips)), rtol=1e-9, atol=1e-9)
    for left in (0, 4, 8):
        for i in range(1, 4):
            line = torch.lerp(fitted.log_power[:, left], fitted.log_power[:, left + 4], i / 4)
            torch.testing.assert_close(fitted.log_power[:, left + i], line)
    assert torch.equal(fitted.log_power[:, 13:], fitted.log_power[:, 12:13].expand(-1, 3))


def test_a_mode_counts_for_both_frequencies_beside_its_own() -> None:
    """Of 8 bins the modes of 3 frames lie at 0, 2 2/3 and 5 1/3. Where others are too, each counts by its nearness."""
    truth, fitted = known(), Gaussian(6, BINS).double()
    short, whole = designed(truth, 3), designed(truth, BINS)
    fitted.fit(short, None)
    S = power(truth, 3)
    seen = torch.einsum("ik,km,jk->mij", truth.basis, S[:, [0, 1, 1, 2, 2]], truth.basis)
    torch.testing.assert_close(implied(fitted)[[0, 2, 3, 5, 6]], blended(seen, 64), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(fitted.log_power[:, 7], fitted.log_power[:, 6])
    fitted.fit(*padded([whole, short]))
    expected = truth.log_power.exp()
    for i, mode, near in ((0, 0, 1), (2, 1, 1 / 3), (3, 1, 2 / 3), (5, 2, 2 / 3), (6, 2, 1 / 3)):
        expected[:, i] = (expected[:, i] + near * S[:, mode]) / (1 + near)
    seen = torch.einsum("ik,km,jk->mij", truth.basis, expected, truth.basis)
    torch.testing.assert_close(implied(fitted), blended(seen, 128), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_shortest_clips_can_be_measured(length: int) -> None:
    fitted = Gaussian(6, 16).double()
    clips = torch.randn(9, 2, 3, length, dtype=torch.float64)
    fitted.fit(clips, None)
    assert fitted.log_power.isfinite().all()
    behind_padding = Gaussian(6, 16).double()
    mask = (torch.arange(16) < length).expand(9, 1, 1, 16)
    behind_padding.fit(torch.nn.functional.pad(clips, (0, 16 - length), value=9.0), mask)
    torch.testing.assert_close(implied(behind_padding), implied(fitted))
    xt = torch.randn(4, 2, 3, 16, dtype=torch.float64)
    assert all(x.isfinite().all() for x in fitted.for_clips(xt, None, None).convert(xt, xt, tensor(0.5)))


def test_coordinates_that_never_move_are_not_certain() -> None:
    """They have the share of the one clip more, and the others are what they are without them."""
    clips = torch.randn(40, 2, 3, BINS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clips[:, 1, 1:] = 0
    fitted = Gaussian(6, BINS).double()
    fitted.fit(clips, None)
    alone = Gaussian(4, BINS).double()
    alone.fit(clips.flatten(1, 2)[:, :4, None], None)
    own = alone.log_power.exp().mean(dim=0)
    mean = own * 4 / 6
    C = implied(fitted)
    expected = (mean / 41)[:, None, None] * torch.eye(2).double()
    torch.testing.assert_close(C[:, 4:, 4:], expected.expand(BINS, 2, 2), rtol=1e-9, atol=1e-12)
    assert C[:, :4, 4:].abs().max() < 1e-9
    expected = implied(alone) - ((own - mean) / 41)[:, None, None] * torch.eye(4).double()
    torch.testing.assert_close(C[:, :4, :4], expected, rtol=1e-9, atol=1e-12)


def test_clips_that_stand_still_have_a_floor() -> None:
    """No frequency but 0 was ever seen to have power; what is divided by is never 0."""
    still = torch.randn(5, 2, 3, 1, dtype=torch.float64).expand(-1, -1, -1, BINS)
    fitted = Gaussian(6, BINS).double()
    fitted.fit(still, None)
    S = fitted.log_power.exp()
    torch.testing.assert_close(S[:, 1:], FLOOR * S[:, :1].mean().div(BINS).expand(6, BINS - 1), rtol=1e-6, atol=0)
    said = torch.randn(3, 2, 3, BINS, dtype=torch.float64)
    error = fitted.for_clips(still[:3], None, None).error(said, still[:3], torch.randn_like(said), tensor(0.5), p2)
    assert error.isfinite().all()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_clips_leave_no_mode_without_variance(n: int) -> None:
    """What was never seen has the share of the one clip more; variances are finite and, at every frequency, of the same mean."""
    clips = drawn(known(), n, BINS, seed=3)
    fitted, more = Gaussian(6, BINS).double(), Gaussian(6, BINS).double()
    fitted.fit(clips, None)
    S = fitted.log_power.exp()
    assert S.isfinite().all() and (S >= S.mean(dim=0) / (n + 1) * (1 - 1e-9)).all()
    more.fit(clips.repeat(1000, 1, 1, 1), None)
    torch.testing.assert_close(more.log_power.exp().mean(dim=0), S.mean(dim=0), rtol=1e-9, atol=0)
    torch.testing.assert_close(implied(fitted), blended(implied(more), n), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("coords", [2, 3])
def test_one_joint_and_one_frame(coords: int) -> None:
    truth, fitted = known(1, coords, bins=1), Gaussian(coords, 1).double()
    fitted.fit(designed(truth, 1, coords), None)
    torch.testing.assert_close(implied(fitted), blended(implied(truth), 64))
    diffusion = silent(fitted)
    noise = torch.eye(coords, dtype=torch.float64).reshape(coords, 1, coords, 1)
    numbers = unipc(diffusion.denoise, noise, diffusion.alpha_bar, randn=None, steps=60).flatten(1)
    torch.testing.assert_close(numbers.T @ numbers, implied(fitted)[0], rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("arguments", [(0, 4), (4, 0), (-3, 4)])
def test_impossible_sizes_are_named(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"prediction\.gaussian: channels={arguments[0]} and frames={arguments[1]}"):
        Gaussian(*arguments)


@pytest.mark.parametrize("emphasis", [-0.1, 1.5, float("nan")])
def test_an_impossible_emphasis_is_named(emphasis: float) -> None:
    with pytest.raises(ValueError, match=rf"prediction\.emphasis={emphasis} must be in \[0, 1\]"):
        Gaussian(6, 8, emphasis)


# --- what the network sees


@pytest.mark.parametrize("alpha_bar", ALPHA_BAR)
def test_the_network_sees_unit_variance_in_every_mode(alpha_bar: float) -> None:
    """Of a linear map: the squares for every mode of the clip and of the noise, alone, add up."""
    truth, ab = known(), tensor(alpha_bar)
    for n in LENGTHS:
        signal, noise = ab.sqrt() * root(truth, n), (1 - ab).sqrt() * unit_modes(truth, n)
        seen = modes(truth, truth.for_clips(torch.cat([signal, noise]), None, None).network_input(torch.cat([signal, noise]), ab))
        torch.testing.assert_close(seen.square().sum(dim=0), torch.ones(6, n).double())
        numbers = truth.for_clips(torch.cat([signal, noise]), None, None).network_input(torch.cat([signal, noise]), ab).flatten(1)
        torch.testing.assert_close(numbers.T @ numbers, torch.eye(6 * n).double())


def test_the_network_is_shown_that() -> None:
    """And what it says is converted with the same mask."""
    truth, seen = known(), []

    def network(x: Tensor, t: Tensor, cond: Tensor | None, mask: Tensor | None = None) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    diffusion = DenoiseDiffusion(network, 10, beta_schedule=cosine, prediction=truth).double()
    x0, mask = padded([torch.randn(1, 2, 3, n, dtype=torch.float64) for n in LENGTHS])
    eps, t = torch.randn_like(x0), torch.tensor([0, 3, 5, 6, 8, 9])
    ab = diffusion.alpha_bar[t].reshape(-1, 1, 1, 1)
    xt = diffusion.q_sample(x0, t, eps)
    for real in (mask, None):
        said = diffusion.denoise(xt, t, mask=real)
        losses = diffusion.clip_losses(x0, eps, t=t, mask=real)
        for x0_hat in (said.x0_hat, losses.x0_hat):
            assert torch.equal(x0_hat, truth.for_clips(xt, real, None).convert(torch.zeros_like(xt), xt, ab)[0])
        for shown in seen[-2:]:
            assert torch.equal(shown, truth.for_clips(xt, real, None).network_input(xt, ab))
        diffusion.p_sample(xt, t)
        assert torch.equal(seen[-1], truth.for_clips(xt, None, None).network_input(xt, ab))


@pytest.mark.parametrize("masked", [True, False])
def test_half_precision_stays_out_of_it(masked: bool) -> None:
    """Autocast would round the matrices of both transforms; here it reaches the network alone, whose answer it has rounded."""
    gaussian = known().float()
    x0, mask = padded([torch.randn(1, 2, 3, n) for n in LENGTHS])
    eps, output = torch.randn_like(x0), torch.randn_like(x0).bfloat16()
    ab, real = torch.tensor(0.3), mask.float() if masked else None

    def answers() -> list[Tensor]:
        fitted = Gaussian(6, BINS)
        fitted.fit(x0, real)
        return [fitted.log_power, *everything(gaussian, output, x0, eps, ab, real)]

    plain = answers()
    with torch.autocast("cpu", torch.bfloat16):
        cast = answers()
    assert all(a.dtype == torch.float32 and torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


# --- with the other parts


def test_a_schedule_may_end_without_signal() -> None:
    truth = known()
    diffusion = silent(truth, zero_terminal_snr, weighting=velocity)
    x = torch.randn(4, 2, 3, BINS, dtype=torch.float64)
    last = torch.full((4,), 999)
    said = diffusion.denoise(x, last)
    assert not truth.needs_signal and not said.x0_hat.any()
    torch.testing.assert_close(said.eps_hat, x)
    losses = diffusion.clip_losses(root(truth, BINS), t=torch.full((6 * BINS,), 999))
    assert losses.total.sum().item() == pytest.approx(6 * BINS), "the weight of the velocity: 1 for every mode"


@pytest.mark.parametrize("masked", [True, False])
def test_a_learned_variance_adds_its_bound(masked: bool) -> None:
    """To the same loss: the bound of the errors of x0_hat, number by number, real ones only."""
    truth = known()
    x0, mask = padded([torch.randn(2, 2, 3, n, dtype=torch.float64) for n in LENGTHS])
    real = mask if masked else None
    eps, t = torch.randn_like(x0), torch.linspace(0, 19, len(x0)).long()
    place = 0.3 * torch.randn_like(x0)

    def network(seen: Tensor, t: Tensor, cond: Tensor | None, mask: Tensor | None = None) -> Tensor:
        return torch.cat([seen.tanh(), place], dim=1)

    learned = DenoiseDiffusion(network, 20, beta_schedule=cosine, prediction=truth, variance=Learned()).double()
    fixed = DenoiseDiffusion(lambda *a: network(*a)[:, :2], 20, beta_schedule=cosine, prediction=truth).double()
    a, b = (diffusion.clip_losses(x0, eps, t=t, mask=real) for diffusion in (learned, fixed))
    torch.testing.assert_close(a.x0_hat, b.x0_hat)
    ab, before = (learned.alpha_bar[s].reshape(-1, 1, 1, 1) for s in (t, (t - 1).clamp(min=0)))
    bound = Learned().loss((1 + place) / 2, x0 - a.x0_hat, ab, before, 20)
    torch.testing.assert_close(a.total - b.total, (bound * (mask if masked else 1)).sum(dim=(1, 2, 3)), rtol=1e-8, atol=1e-9)
    x = ddpm(partial(learned.denoise, mask=real), eps, learned.alpha_bar, randn=lambda: torch.zeros_like(eps))
    assert x.isfinite().all()


def config_of(tiny_config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    model = tiny_config["model"] | {"in_channels": None, "out_channels": None}
    prediction = {"_target_": "ddpm.process.gaussian.Gaussian", "channels": None, "frames": tiny_config["frames"]}
    return with_channels(tiny_config | {"model": model, "prediction": prediction} | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"schedule": {"_target_": "ddpm.process.schedules.zero_terminal_snr", "_partial_": True}},
        {"variance": {"_target_": "ddpm.process.variance.Learned"}},
    ],
)
def test_what_was_measured_is_in_the_checkpoint(tiny_config: dict[str, Any], changes: dict[str, Any], tmp_path: Path) -> None:
    config = config_of(tiny_config, **changes)
    assert config["prediction"]["channels"] == 60
    module = build_module(config, fps=15.0, trainable=True)
    g = torch.Generator().manual_seed(0)
    for parameter in module.diffusion.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=g))
    mask = (torch.arange(8) < torch.tensor([8, 5, 7, 8])[:, None]).float()[:, None, None]
    batch = {"clips": torch.randn(4, 20, 3, 8, generator=g), "mask": mask}
    module.fit(batch)
    measured = Gaussian(60, 8)
    measured.fit(module.normalizer(batch["clips"]), mask)
    for name in ("basis", "log_power"):
        assert torch.equal(getattr(module.diffusion.prediction, name), getattr(measured, name)) and measured.log_power.any()
    module.loss(batch, t=torch.tensor([0, 3, 5, 7])).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())
    checkpoint = {"state_dict": module.state_dict(), "hyper_parameters": config}
    module.on_save_checkpoint(checkpoint)
    DurableCheckpointIO().save_checkpoint(checkpoint, tmp_path / "x.ckpt")
    loaded = load(tmp_path / "x.ckpt")
    assert not list(loaded.diffusion.prediction.parameters()), "nothing of it is learned"
    for arguments in ({}, {"frames": 5}, {"frames": 13}):
        clips = module.sample([3, 14], **arguments).positions
        assert clips.isfinite().all() and torch.equal(loaded.sample([3, 14], **arguments).positions, clips)
    del checkpoint["state_dict"]["diffusion.prediction.basis"]
    DurableCheckpointIO().save_checkpoint(checkpoint, tmp_path / "y.ckpt")
    with pytest.raises(RuntimeError, match=r"diffusion\.prediction\.basis"):
        load(tmp_path / "y.ckpt")


def test_training_without_measuring_is_refused(tiny_config: dict[str, Any]) -> None:
    """It would silently train the velocity; predictions that measure nothing need only the normaliser."""
    module, plain = build_module(config_of(tiny_config), fps=15.0), build_module(tiny_config, fps=15.0)
    clips = torch.randn(4, 20, 3, 8)
    for unfitted in (module, plain):
        with pytest.raises(RuntimeError, match=r"the normalizer is not fitted: call module\.fit"):
            unfitted.on_fit_start()
        unfitted.normalizer.fit(clips)
    plain.on_fit_start()
    with pytest.raises(RuntimeError, match=r"the prediction is not fitted: call module\.fit"):
        module.on_fit_start()
    module.fit({"clips": clips, "mask": None})
    module.on_fit_start()


def test_a_network_that_was_never_trained_moves_like_the_clips(tiny_config: dict[str, Any]) -> None:
    """The last layer begins at 0: the first clips that are sampled have the poses and the speed of the data, in metres."""
    torch.manual_seed(0)
    config = config_of(tiny_config, T=200, schedule={"_target_": "ddpm.process.schedules.cosine", "_partial_": True})
    module = build_module(config, fps=15.0)
    clips = 0.9 * torch.randn(20, 1, 1).abs() + 0.1 * torch.randn(200, 20, 3, 8).cumsum(-1)
    module.fit({"clips": clips, "mask": None})
    sampled = module.sample(range(200), sampler=partial(unipc, steps=20)).positions.permute(0, 2, 3, 1)
    for what in (lambda x: x - x[:, :1], lambda x: x.diff(dim=-1)):
        ours, theirs = what(sampled), what(clips)
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.06)
    torch.testing.assert_close(sampled.float().mean(dim=(0, 3)), clips.mean(dim=(0, 3)), rtol=0, atol=0.08)


# --- the steps of the root, by action

STEPS = [0, 2]


def apart(still: bool = False) -> Gaussian:
    """A process whose first two components are channels 0 and 2, with fine variances of a hundredth in a person who stands."""
    g = torch.Generator().manual_seed(3)
    process, others = known(), [1, 3, 4, 5]
    process.basis.zero_()
    for channels, components in ((STEPS, slice(0, 2)), (others, slice(2, 6))):
        n = len(channels)
        process.basis[channels, components] = torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64)).Q
    if still:
        process.log_power[:2] -= torch.linspace(2, 4, BINS, dtype=torch.float64)
    return process


def labelled() -> tuple[Gaussian, Tensor, Tensor]:
    """A Gaussian fitted to clips of two actions, the clips, and the condition that names their actions; a third has no clips."""
    clips = torch.cat([designed(apart(still), BINS).repeat(6, 1, 1, 1) for still in (False, True)])
    clips[: len(clips) // 2].flatten(1, 2)[:, STEPS] += 2 * apart().basis[STEPS, :1]  # along a component
    cond = F.one_hot(torch.arange(2).repeat_interleave(len(clips) // 2), 3).double()
    fitted = Gaussian(6, BINS, travel_by_label=True).double()
    fitted.prepare(STEPS, 3)
    fitted.fit(clips, None, cond)
    return fitted, clips, cond


def mean_of(fitted: Gaussian, cond: Tensor) -> Tensor:
    """``(batch, 2, 3, BINS)`` the constant steps that an action has on average."""
    assert fitted.class_mean is not None
    steps = torch.zeros(len(cond), 6, BINS, dtype=torch.float64)
    steps[:, STEPS] = (cond @ fitted.class_mean)[..., None].expand(-1, -1, BINS)
    return steps.unflatten(1, (2, 3))


def test_half_precision_stays_out_of_actions_too() -> None:
    fitted, clips, cond = (part.float() for part in labelled())
    plain = fitted.for_clips(clips, None, cond)
    with torch.autocast("cpu", torch.bfloat16):
        cast = fitted.for_clips(clips, None, cond.bfloat16())
    assert torch.equal(cast.power, plain.power) and torch.equal(cast.mean, plain.mean) and cast.mean.dtype == torch.float32


def test_steps_have_a_mean_for_each_action() -> None:
    """As far as its clips count beside the one of the prior, which is 0, the mean of all."""
    fitted, clips, _ = labelled()
    n = len(clips) // 2
    means = clips.flatten(1, 2)[:, STEPS].unflatten(0, (2, n)).mean((1, 3))
    assert fitted.class_mean is not None and means[0].norm() > 1
    expected = torch.cat([means * n / (n + PRIOR), 0 * means[:1]])
    torch.testing.assert_close(fitted.class_mean, expected, atol=1e-12, rtol=1e-9)


def test_variances_of_earlier_versions_had_no_means() -> None:
    fitted, _, _ = labelled()
    state = fitted.state_dict()
    del state["class_mean"]
    other, _, _ = labelled()
    other.load_state_dict(state)
    assert other.class_mean is not None and not other.class_mean.any() and torch.equal(other.class_power, fitted.class_power)


def test_steps_have_variances_for_each_action_and_poses_one_for_all() -> None:
    """Up to the weight of all clips. An action without clips has those of all, and so have clips without a label."""
    fitted, clips, cond = labelled()
    assert not fitted.basis[STEPS, 2:].any() and not fitted.basis[[1, 3, 4, 5], :2].any()
    torch.testing.assert_close(fitted.basis.T @ fitted.basis, torch.eye(6).double())
    one = torch.zeros(3, 2, 3, BINS).double()
    powers = fitted.for_clips(one, None, torch.eye(3).double()).power
    pooled = fitted.for_clips(one, None, None).power
    n = len(clips) // 2
    for k in range(2):
        alone = Gaussian(6, BINS, travel_by_label=True).double()
        alone.prepare(STEPS, 3)
        own, lengths = (clips - mean_of(fitted, cond))[cond[:, k] > 0].flatten(1, 2), torch.full((n,), BINS)
        expected = torch.lerp(fitted.log_power[:2], alone._log_power(own, lengths, fitted.basis, added=0)[:2], n / (n + PRIOR))
        torch.testing.assert_close(powers[k, :2].log(), expected, rtol=0, atol=1e-6)
    assert (powers[1, :2, 1:] < 0.2 * powers[0, :2, 1:]).all()
    torch.testing.assert_close(powers[:, 2:], pooled[:, 2:].expand(3, -1, -1))
    torch.testing.assert_close(powers[2], pooled[0])
    torch.testing.assert_close(fitted.for_clips(one, None, torch.zeros(3, 3).double()).power, pooled.expand(3, -1, -1))


def test_an_action_is_sampled_with_its_variances() -> None:
    """Around a network that outputs 0, clips of an action are those of its own Gaussian process."""
    fitted, _, _ = labelled()
    diffusion, noise = silent(fitted), unit_modes(fitted, BINS)
    for k in range(3):
        cond = F.one_hot(torch.tensor([k]), 3).double()
        own = fitted.for_clips(torch.zeros(1, 2, 3, BINS).double(), None, cond)
        denoise = partial(diffusion.denoise, cond=cond.expand(len(noise) + 1, -1))
        clips = unipc(denoise, torch.cat([noise, 0 * noise[:1]]), diffusion.alpha_bar, randn=lambda: noise, steps=40)
        gain = modes(fitted, clips[:-1] - clips[-1:]).flatten(1).diagonal()
        torch.testing.assert_close(gain, own.power[0].flatten().sqrt(), rtol=0.01, atol=0.005)  # one mode does not move at all
        # The last step of the schedule holds a little signal, which noise has not.
        torch.testing.assert_close(clips[-1:], mean_of(fitted, cond), rtol=0, atol=0.02)


def test_the_loss_uses_the_variances_of_the_action() -> None:
    """The loss of no output for an action, and for clips whose label is hidden, is that of a process with these variances."""
    fitted, clips, cond = labelled()
    diffusion, clips = silent(fitted, weighting=partial(min_snr, gamma=0.7)), clips[:64]
    eps = torch.randn(clips.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.full((len(clips),), 400)
    for told in (cond[: len(clips)], torch.zeros(len(clips), 3).double()):
        one = Gaussian(6, BINS).double()
        one.basis.copy_(fitted.basis)
        one.log_power.copy_(fitted.for_clips(clips[:1], None, told[:1]).power[0].log())
        around = clips - mean_of(fitted, told)
        expected = silent(one, weighting=partial(min_snr, gamma=0.7)).clip_losses(around, eps, t=t).total
        torch.testing.assert_close(diffusion.clip_losses(clips, eps, t=t, cond=told).total, expected)


@pytest.mark.parametrize(("by_label", "travel", "classes"), [(False, STEPS, 3), (True, [], 3), (True, STEPS, 0)])
def test_otherwise_there_is_one_set_of_variances(by_label: bool, travel: list[int], classes: int) -> None:
    """Without the option, steps or actions a Gaussian is what it is without any of it, also in its state."""
    plain, other = Gaussian(6, BINS).double(), Gaussian(6, BINS, travel_by_label=by_label).double()
    other.prepare(travel, classes)
    clips, cond = drawn(known(), 9, BINS), torch.eye(3).double()[torch.arange(9) % 3]
    plain.fit(clips, None)
    other.fit(clips, None, cond)
    assert set(plain.state_dict()) == set(other.state_dict()) == {"basis", "log_power"}
    assert torch.equal(plain.log_power, other.log_power) and torch.equal(plain.basis, other.basis)
    with_all = Gaussian(6, BINS, travel_by_label=True)
    with_all.prepare(STEPS, 3)
    assert with_all.state_dict()["class_power"].shape == (3, 2, BINS)
