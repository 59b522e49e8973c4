"""Features: what a clip is reduced to, ``Clips -> (n, dim)`` float64, before two sets of clips are compared."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.clips import Clips, frame_mean
from ddpm.metrics.alignment import anchored, local_poses


def kinetic(clips: Clips, *, legacy: bool = False) -> Tensor:
    """Energy of each joint: mean squared horizontal speed, mean squared vertical speed, mean length of the acceleration.

    The kinetic features of fairmotion (Facebook) and AIST++ (Li et al. 2021), in which velocity and acceleration are averaged
    over a window of +-2 frames at 60 frames per second. Two things differ here:

    - The window is the same time at every frame rate, +-1/30 s (rounded down to whole frames: none below 30 frames per second).
    - The acceleration is the second difference. Theirs misplaces a parenthesis, (p[i+1] - p[i]) / dt - (p[i] - p[i-1] / dt), so
      that it depends on where in the room the clip stands.

    ``legacy`` computes theirs, parenthesis and +-2 frames included, to compare with published numbers (with the true frame rate;
    theirs is always 60).

    Args:
        clips: clips of at least 3 frames.
        legacy: the published form, see above.

    Returns:
        ``(n, 3 * joints)``, three numbers a joint: (m/s)^2, (m/s)^2, m/s^2. Unless legacy, neither the place nor the heading of a
        clip matters.
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

    Energies are heavy-tailed: the few most vigorous clips decide their mean and covariance. Between random halves of MSR Action3D
    (283 clips each) the Fréchet distance of the projected raw features is 2.1 +- 0.8, and 1 cm of noise makes it 6 times as
    large, a fifth less movement 2 times; of their logarithms it is 0.46 +- 0.20, and these make it 45 and 7 times as large. A
    frozen clip stays finite, and far from every living one.

    Args:
        clips: clips of at least 3 frames.
    """
    return rested_log(kinetic(clips))


def rested_log(energy: Tensor) -> Tensor:
    """``log(energy + 0.001)``: 0.001 (m/s)^2 is a speed of 3 cm/s, which counts as rest and keeps the logarithm finite."""
    return (energy + 1e-3).log()


def _window_mean(values: Tensor, mask: Tensor, half: int, centres: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean over the frames that count within +-``half`` frames, and where there are any among ``centres`` (default: mask)."""
    width = 2 * half + 1
    weighted = F.pad(values * mask[..., None, None], (0, 0, 0, 0, half, half)).unfold(1, width, 1).sum(-1)
    count = F.pad(mask.double(), (half, half)).unfold(1, width, 1).sum(-1)
    return weighted / count.clamp(min=1)[..., None, None], (count > 0) & (mask if centres is None else centres)


def pose(clips: Clips) -> Tensor:
    """Which poses a clip takes: mean and standard deviation over its frames of every joint seen from the body.

    Frames have the root above the origin and face one way, so that neither travel nor turning counts.

    Args:
        clips: clips of a 2-D skeleton, or of a 3-D one with left/right pairs.

    Returns:
        ``(n, 2 * joints * coords)`` metres.

    Raises:
        ValueError: a 3-D skeleton without left/right pairs.
    """
    local = local_poses(clips).flatten(2)
    mean = frame_mean(local, clips.mask)
    spread = frame_mean((local - mean[:, None]).square(), clips.mask).sqrt()
    return torch.cat([mean, spread], dim=1)


def coordinates(clips: Clips, frames: int = 16) -> Tensor:
    """The clip itself, anchored, at ``frames`` moments from its first to its last frame.

    Scaled so that the Euclidean distance of two vectors is the root mean square distance of their joints in metres.

    Args:
        clips: clips of a 2-D skeleton, or of a 3-D one with left/right pairs.
        frames: moments, evenly spaced, between frames by linear interpolation. Clips of different lengths are compared by phase.

    Returns:
        ``(n, frames * joints * coords)``.

    Raises:
        ValueError: a 3-D skeleton without left/right pairs.
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
    """``(bands + 1,)`` Hz: octaves from 1 Hz up, the last of them to the Nyquist frequency; the first band begins at 0."""
    octaves = max(1, math.floor(math.log2(fps / 3)) + 1)  # the last edge leaves it a third of an octave at least
    return torch.tensor([0.0, *(2.0**i for i in range(octaves)), math.inf], dtype=torch.float64)


def band_energy(clips: Clips) -> Tensor:
    """Mean squared speed of each joint, split by frequency: the DCT-II of the velocity in octaves.

    Joints move relative to the root, and the root relative to the ground. The bands add up to the mean squared speed.

    Args:
        clips: clips of at least 2 frames; the band at frequency f says something of clips of at least 1 / f seconds.

    Returns:
        ``(n, joints, bands)`` in (m/s)^2, bands as in `band_edges`.
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


def spectrum(clips: Clips) -> Tensor:
    """``log(band_energy + 0.001)``, ``(n, joints * bands)``: how fast which joint swings, and whether it shakes."""
    return rested_log(band_energy(clips)).flatten(1)


@dataclass(frozen=True)
class Projection:
    """Features scaled by the spread of a reference and reduced to its leading principal components.

    The Fréchet distance of n clips is biased by about dim / n: with 60 features and 500 clips the bias exceeds what is to be
    measured. Fitting on the reference alone makes the space the same for everything that is compared with it.

    A feature is divided by its standard deviation, except that one which hardly varies counts as varying by a tenth of the
    others (root mean square): else it would outweigh all of them as soon as something is generated that is a little off. The
    components keep the ratios of their variances: whitened, a change of everything (a fifth less movement) would weigh no more
    than noise. Their mean variance is 1, so that a kernel of inner products sees numbers of that size.

    Args:
        mean: ``(dim,)`` of the reference.
        scale: ``(dim,)`` by which features are divided.
        axes: ``(dim, kept)`` orthogonal columns.
    """

    mean: Tensor
    scale: Tensor
    axes: Tensor

    @classmethod
    def fit(cls, reference: Tensor, limit: int = 24) -> "Projection":
        """Measure a reference.

        Args:
            reference: ``(n, dim)`` features of the reference, all in comparable units (logarithms, metres, fractions).
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
