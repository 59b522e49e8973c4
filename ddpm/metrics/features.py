"""Features: what a clip is reduced to, ``Motions -> (n, dim)`` float64, before two sets of clips are compared."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.metrics.motions import Motions, frame_mean


def kinetic(motions: Motions, *, legacy: bool = False) -> Tensor:
    """Energy of each joint: mean squared horizontal speed, mean squared vertical speed, mean length of the acceleration.

    The kinetic features of fairmotion (Facebook) and AIST++ (Li et al. 2021), in which velocity and acceleration are averaged
    over a window of +-2 frames at 60 frames per second. Two things differ here:

    - The window is the same time at every frame rate, +-1/30 s (rounded down to whole frames: none below 30 frames per second).
    - The acceleration is the second difference. Theirs misplaces a parenthesis, (p[i+1] - p[i]) / dt - (p[i] - p[i-1] / dt), so
      that it depends on where in the room the clip stands.

    ``legacy`` computes theirs, parenthesis and +-2 frames included, to compare with published numbers (with the true frame rate;
    theirs is always 60).

    Args:
        motions: clips of at least 3 frames.
        legacy: the published form, see above.

    Returns:
        ``(n, 3 * joints)``, three numbers a joint: (m/s)^2, (m/s)^2, m/s^2. Unless legacy, neither the place nor the heading of a
        clip matters.
    """
    half = 2 if legacy else int(motions.fps // 30)
    velocity, moving = motions.derivative(1)
    velocity, moving = _window_mean(velocity, moving, half)
    acceleration, turning = motions.derivative(2)
    if legacy:
        before, here, after = (motions.positions[:, i : i + acceleration.shape[1]] for i in range(3))
        acceleration = ((after - here) * motions.fps - (here - before * motions.fps)) * motions.fps
    acceleration, turning = F.pad(acceleration, (0, 0, 0, 0, 0, 1)), F.pad(turning, (0, 1))
    acceleration, turning = _window_mean(acceleration, turning, half, centres=moving)
    squared = velocity.square()
    horizontal = squared[..., list(motions.skeleton.ground_axes)].sum(-1)
    vertical = squared[..., motions.skeleton.up_axis]
    parts = [frame_mean(horizontal, moving), frame_mean(vertical, moving), frame_mean(acceleration.norm(dim=-1), turning)]
    return torch.stack(parts, dim=-1).flatten(1)


def log_kinetic(motions: Motions) -> Tensor:
    """``log(kinetic + 0.001)``, ``(n, 3 * joints)``: the form to compare sets with.

    Energies are heavy-tailed: the few most vigorous clips decide their mean and covariance. Between random halves of MSR Action3D
    (283 clips each) the Fréchet distance of the raw features is 6.3 +- 3.6 and 1 cm of noise raises it 4.5 times; of their
    logarithms it is 1.1 +- 0.5 and the noise raises it 45 times. 0.001 (m/s)^2 is a speed of 3 cm/s, which counts as rest: a
    frozen clip stays finite, and far from every living one.

    Args:
        motions: clips of at least 3 frames.
    """
    return (kinetic(motions) + 1e-3).log()


def _window_mean(values: Tensor, mask: Tensor, half: int, centres: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean over the frames that count within +-``half`` frames, and where there are any among ``centres`` (default: mask)."""
    width = 2 * half + 1
    weighted = F.pad(values * mask[..., None, None], (0, 0, 0, 0, half, half)).unfold(1, width, 1).sum(-1)
    count = F.pad(mask.double(), (half, half)).unfold(1, width, 1).sum(-1)
    return weighted / count.clamp(min=1)[..., None, None], (count > 0) & (mask if centres is None else centres)


@dataclass(frozen=True)
class Projection:
    """Features standardised by the spread of a reference and reduced to its leading principal components.

    The Fréchet distance of n clips is biased by about dim / n: with 60 features and 500 clips the bias exceeds what is to be
    measured. Fitting on the reference alone makes the space the same for everything that is compared with it.

    Args:
        mean: ``(dim,)`` of the reference.
        scale: ``(dim,)`` standard deviation of the reference.
        axes: ``(dim, kept)`` orthonormal columns.
    """

    mean: Tensor
    scale: Tensor
    axes: Tensor

    @classmethod
    def fit(cls, reference: Tensor, limit: int = 24) -> "Projection":
        """Measure a reference.

        Args:
            reference: ``(n, dim)`` features of the reference.
            limit: components at most; never more than n / 10 or dim, never fewer than 1.

        Raises:
            ValueError: fewer than 2 clips, or a limit below 1.
        """
        if len(reference) < 2 or limit < 1:
            raise ValueError(f"metrics: a projection needs 2 clips and a limit of at least 1, got {len(reference)} and {limit}")
        x = reference.double()
        mean, scale = x.mean(0), x.std(0)
        # A feature that never varies carries only rounding errors: dividing by its spread would make them loud.
        scale = torch.where(scale > 1e-9 * (1 + mean.abs()), scale, torch.inf)
        vectors = torch.linalg.eigh(torch.cov(((x - mean) / scale).T).reshape(x.shape[1], -1)).eigenvectors
        kept = max(1, min(limit, len(x) // 10, x.shape[1]))
        return cls(mean, scale, vectors.flip(1)[:, :kept])

    def __call__(self, features: Tensor) -> Tensor:
        """``(n, dim)`` -> ``(n, kept)``, in standard deviations of the reference."""
        return (features.double() - self.mean) / self.scale @ self.axes
