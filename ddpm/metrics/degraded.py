"""Degraded motion: sets that are wrong in a known way, to show what a metric says of them, ``Clips -> Clips``."""

import torch

from ddpm.clips import Clips
from ddpm.metrics.alignment import anchored, local_poses


def mean_pose(motions: Clips) -> Clips:
    """Every clip stands in the mean of all poses, seen from the body: what a model that only learned the average draws.

    Raises:
        ValueError: a 3-D skeleton without left/right pairs.
    """
    mean = local_poses(motions)[motions.mask].mean(0)
    return motions.replace(mean.expand_as(motions.positions))


def frozen(motions: Clips) -> Clips:
    """Every clip stays in the pose of its middle frame."""
    middle = motions.positions[torch.arange(len(motions)), motions.lengths // 2]
    return motions.replace(middle[:, None].expand_as(motions.positions))


def shuffled_frames(motions: Clips, generator: torch.Generator) -> Clips:
    """The frames of each clip in random order: every pose is real, no movement is."""
    key = torch.rand(motions.mask.shape, generator=generator, dtype=torch.float64)
    order = torch.where(motions.mask, key, 2).argsort(1)
    return motions.replace(motions.positions[torch.arange(len(motions))[:, None], order])


def gaussian(motions: Clips, generator: torch.Generator) -> Clips:
    """Draws from the normal distribution with the mean and covariance of the anchored clips: what a linear model could know.

    A normal mixture of the deviations from the mean has exactly their covariance, whatever its rank.

    Raises:
        ValueError: a 3-D skeleton without left/right pairs, or a single clip.
    """
    if len(motions) < 2:
        raise ValueError("metrics: a covariance needs at least 2 clips")
    x = anchored(motions).flatten(1)
    weights = torch.randn(len(x), len(x), generator=generator, dtype=torch.float64) / (len(x) - 1) ** 0.5
    return motions.replace((x.mean(0) + weights @ (x - x.mean(0))).reshape(motions.positions.shape))


def noisy(motions: Clips, generator: torch.Generator, metres: float = 0.01) -> Clips:
    """Independent normal noise on every coordinate."""
    noise = torch.randn(motions.positions.shape, generator=generator, dtype=torch.float64)
    return motions.replace(motions.positions + metres * noise)
