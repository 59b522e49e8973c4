"""Degraded clips, wrong in a known way, to show how each metric reacts: ``Clips -> Clips``."""

import torch

from ddpm.clips import Clips
from ddpm.metrics.alignment import anchored, local_poses


def mean_pose(clips: Clips) -> Clips:
    """Every clip stands in the mean of all `local_poses`: the output of a model that predicts the mean."""
    mean = local_poses(clips)[clips.mask].mean(0)
    return clips.replace(mean.expand_as(clips.positions))


def frozen(clips: Clips) -> Clips:
    """Every clip stays in the pose of its middle frame."""
    middle = clips.positions[torch.arange(len(clips)), clips.lengths // 2]
    return clips.replace(middle[:, None].expand_as(clips.positions))


def shuffled_frames(clips: Clips, generator: torch.Generator) -> Clips:
    """The frames of each clip in random order: real poses, no real movement."""
    key = torch.rand(clips.mask.shape, generator=generator, dtype=torch.float64)
    order = torch.where(clips.mask, key, 2).argsort(1)
    return clips.replace(clips.positions[torch.arange(len(clips))[:, None], order])


def gaussian(clips: Clips, generator: torch.Generator) -> Clips:
    """Draws from the normal distribution with the mean and covariance of the `anchored` clips: the best linear model.

    Random normal combinations of the deviations from the mean have exactly their covariance, whatever its rank.

    Raises:
        ValueError: a 3-D skeleton without left/right pairs, or a single clip.
    """
    if len(clips) < 2:
        raise ValueError("metrics: a covariance needs at least 2 clips")
    x = anchored(clips).flatten(1)
    weights = torch.randn(len(x), len(x), generator=generator, dtype=torch.float64) / (len(x) - 1) ** 0.5
    return clips.replace((x.mean(0) + weights @ (x - x.mean(0))).reshape(clips.positions.shape))


def noisy(clips: Clips, generator: torch.Generator, metres: float = 0.01) -> Clips:
    """Independent normal noise on every coordinate."""
    noise = torch.randn(clips.positions.shape, generator=generator, dtype=torch.float64)
    return clips.replace(clips.positions + metres * noise)
