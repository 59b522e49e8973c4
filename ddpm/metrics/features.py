"""Features of clips, ``Clips -> (n, dim)`` float64, by which two sets are compared."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.clips import Clips, frame_mean
from ddpm.metrics.alignment import anchored, local_poses


def kinetic(clips: Clips, *, legacy: bool = False) -> Tensor:
    """Energy of each joint: mean squared horizontal speed, mean squared vertical speed, mean length of the acceleration.

    The kinetic features of fairmotion and AIST++ (Li et al. 2021), averaged over +-2 frames at 60 frames per second. Two things
    differ here: the window is +-1/30 s at every frame rate (whole frames, none below 30 frames per second), and the acceleration
    is the second difference. Theirs is (p[i+1] - p[i]) / dt - (p[i] - p[i-1] / dt), a misplaced parenthesis that makes it depend
    on the place of the clip.

    Args:
        clips: of at least 3 frames.
        legacy: theirs, to compare with published numbers, but with the true frame rate (theirs is always 60).

    Returns:
        ``(n, 3 * joints)``, three numbers a joint: (m/s)^2, (m/s)^2, m/s^2. Unless legacy, they depend neither on the place nor
        on the heading of a clip.
    """
    half = 2 if legacy else int(clips.fps // 30)
    velocity, moving = clips.derivative(1)
    velocity, moving = _window_mean(velocity, moving, half)
    acceleration, turning = clips.derivative(2)
    if legacy:
        before, here, after = (clips.positions[:, i : i + acceleration.shape[1]] for i in range(3))
        acceleration = ((after - here) * clips.fps - (here - before * clips.fps)) * clips.fps
    acceleration, turning = F.pad(acceleration, (0, 0, 0, 0, 0, 1)), F.pad(turning, (0, 1))
    acceleration, turning = _window_mean(acceleration, turning, half, centres=moving)
    squared = velocity.square()
    horizontal = squared[..., list(clips.skeleton.ground_axes)].sum(-1)
    vertical = squared[..., clips.skeleton.up_axis]
    parts = [frame_mean(horizontal, moving), frame_mean(vertical, moving), frame_mean(acceleration.norm(dim=-1), turning)]
    return torch.stack(parts, dim=-1).flatten(1)


def log_kinetic(clips: Clips) -> Tensor:
    """``log(kinetic + 0.001)``, ``(n, 3 * joints)``: the form to compare sets with.

    Energies are heavy-tailed: a few vigorous clips dominate their mean and covariance. On MSR Action3D (halves of 283 clips) 1 cm
    of noise makes the Fréchet distance of raw features 6 times that between real halves, that of the logarithms 45 times.
    """
    return rested_log(kinetic(clips))


def rested_log(energy: Tensor) -> Tensor:
    """``log(energy + 0.001)``: 0.001 (m/s)^2 is a speed of 3 cm/s, which counts as rest."""
    return (energy + 1e-3).log()


def _window_mean(values: Tensor, mask: Tensor, half: int, centres: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean over the valid frames within +-``half`` frames, and at which ``centres`` (default: mask) there are any."""
    width = 2 * half + 1
    weighted = F.pad(values * mask[..., None, None], (0, 0, 0, 0, half, half)).unfold(1, width, 1).sum(-1)
    count = F.pad(mask.double(), (half, half)).unfold(1, width, 1).sum(-1)
    return weighted / count.clamp(min=1)[..., None, None], (count > 0) & (mask if centres is None else centres)


def pose(clips: Clips) -> Tensor:
    """Mean and standard deviation over the frames of every joint in `local_poses`, ``(n, 2 * joints * coords)`` metres.

    Raises:
        ValueError: a 3-D skeleton without left/right pairs. The same holds for `coordinates`.
    """
    local = local_poses(clips).flatten(2)
    mean = frame_mean(local, clips.mask)
    spread = frame_mean((local - mean[:, None]).square(), clips.mask).sqrt()
    return torch.cat([mean, spread], dim=1)


def coordinates(clips: Clips, frames: int = 16) -> Tensor:
    """``(n, frames * joints * coords)``: the anchored clip, resampled linearly to ``frames`` frames whatever its length.

    Scaled so that the Euclidean distance of two vectors is the root mean square distance of their joints in metres.
    """
    x = anchored(clips)
    place = (clips.lengths[:, None] - 1) * torch.linspace(0, 1, frames, dtype=torch.float64)
    before = place.floor().long()
    after = torch.minimum(before + 1, clips.lengths[:, None] - 1)
    part = (place - before)[..., None, None]
    clip = torch.arange(len(x))[:, None]
    resampled = (1 - part) * x[clip, before] + part * x[clip, after]
    return resampled.flatten(1) / (frames * x.shape[2]) ** 0.5


def band_edges(fps: float) -> Tensor:
    """``(bands + 1,)`` Hz: 0, octaves from 1 Hz, and infinity: the last band ends at the Nyquist frequency."""
    octaves = max(1, math.floor(math.log2(fps / 3)) + 1)  # the last edge leaves it a third of an octave at least
    return torch.tensor([0.0, *(2.0**i for i in range(octaves)), math.inf], dtype=torch.float64)


def band_energy(clips: Clips) -> Tensor:
    """``(n, joints, bands)`` mean squared speed of each joint in (m/s)^2, split into `band_edges` by the DCT-II of the velocity.

    Joints move relative to the root, and the root relative to the ground. The bands add up to the mean squared speed. The band
    at frequency f is informative for clips of at least 1 / f seconds.
    """
    skeleton = clips.skeleton
    x = clips.positions - clips.positions[:, :, skeleton.root : skeleton.root + 1]
    x[:, :, skeleton.root] = clips.positions[:, :, skeleton.root]
    velocity, mask = clips.replace(x).derivative(1)
    count = mask.sum(1).double()[:, None, None]
    order = torch.arange(mask.shape[1], dtype=torch.float64)
    # Orthonormal for each clip's own length: sqrt(2/N) cos(pi k (t + 1/2) / N), and sqrt(1/N) for k = 0.
    basis = torch.cos(torch.pi / count * order[:, None] * (order + 0.5)) * ((2 - (order == 0).double())[:, None] / count).sqrt()
    basis = basis * (mask[:, None] & mask[:, :, None])
    energy = torch.einsum("nkt,ntd->nkd", basis, velocity.flatten(2)).reshape(velocity.shape).square().sum(-1) / count
    band = torch.bucketize(order * clips.fps / (2 * count[:, 0]), band_edges(clips.fps), right=True) - 1
    bands = torch.arange(len(band_edges(clips.fps)) - 1)
    return torch.einsum("nkj,nkb->njb", energy, (band[..., None] == bands).double())


@dataclass(frozen=True)
class Projection:
    """Features scaled by the spread of a reference and reduced to its leading principal components.

    This reduces the bias of the Fréchet distance, about dim / n. A feature is divided by its standard deviation; one that hardly
    varies counts as varying by a tenth of the others (root mean square), else it would outweigh them. The components are not
    whitened, so that a change of all features weighs more than noise. Their mean variance is 1.
    """

    mean: Tensor  # (dim,) of the reference
    scale: Tensor  # (dim,) by which features are divided
    axes: Tensor  # (dim, kept) orthogonal columns

    @classmethod
    def fit(cls, reference: Tensor, limit: int = 24) -> "Projection":
        """Fit to the ``(n, dim)`` features of a reference.

        Args:
            reference: all features in comparable units (logarithms, metres, fractions).
            limit: components at most; never more than n / 10 or dim, never fewer than 1.

        Raises:
            ValueError: fewer than 2 clips, clips that do not differ, or a limit below 1.
        """
        if len(reference) < 2 or limit < 1:
            raise ValueError(f"metrics: a projection needs 2 clips and a limit of at least 1, got {len(reference)} and {limit}")
        x = reference.double()
        mean, var = x.mean(0), x.var(0)
        if var.mean().sqrt() <= 1e-9 * (1 + mean.abs().max()):
            raise ValueError("metrics: all clips of the reference are alike; nothing can be measured against them")
        scale = (var + 0.01 * var.mean()).sqrt()
        values, vectors = torch.linalg.eigh(torch.cov(((x - mean) / scale).T).reshape(x.shape[1], -1))
        kept = max(1, min(limit, len(x) // 10, x.shape[1]))
        return cls(mean, scale, vectors.flip(1)[:, :kept] / values.flip(0)[:kept].mean().sqrt())

    def __call__(self, features: Tensor) -> Tensor:
        """``(n, dim)`` -> ``(n, kept)``."""
        return (features.double() - self.mean) / self.scale @ self.axes
