"""Memorisation: how close generated clips come to single training clips, beside how close held-out real clips come."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm.clips import Clips
from ddpm.skeleton import Skeleton

BLOCK = 2048  # training clips compared at once: some 100 MB for 1,000 samples


def nearest(samples: Clips, training: Clips, stride: int = 1) -> tuple[Tensor, Tensor]:
    """The training clip with the window that is closest to each sample.

    The distance is the root mean square distance of the joints after the best translation along the ground and the best rotation
    about the vertical (in 2-D none). With the ground as complex numbers the best rotation is the phase of an inner product, so
    that one matrix product compares all pairs.

    A sample is compared with every window of its own length, and with the whole of a shorter clip, unless that covers less than
    half of what the longest clip would.

    Args:
        training: clips of the same skeleton and frame rate, whole: a copy may begin anywhere in them.
        stride: frames between the windows. Already two frames from its source a fast copy looks like new motion.

    Returns:
        Distances in metres ``(n,)`` float64 and numbers of training clips ``(n,)`` int64.

    Raises:
        ValueError: another skeleton or frame rate, a stride below 1, or samples that are not finite.
    """
    samples.require_finite()
    if samples.skeleton != training.skeleton or samples.fps != training.fps or stride < 1:
        raise ValueError(
            f"metrics: clips of one skeleton and frame rate are compared at a stride of at least 1, got {samples.fps} and "
            f"{training.fps} frames per second, {len(samples.skeleton.names)} and {len(training.skeleton.names)} joints, "
            f"stride={stride}"
        )
    needed = samples.lengths.clamp(max=int(training.lengths.max()))
    best = torch.full((len(samples),), torch.inf, dtype=torch.float64)
    index = torch.zeros(len(samples), dtype=torch.long)
    own = _Sums.of(samples.positions, samples.mask, samples.skeleton)
    for block in torch.arange(len(training)).split(BLOCK):
        for start in range(0, int(training.lengths[block].max()), stride):
            left = training.lengths[block] - start
            some = block[(left > 0) if start == 0 else (left >= samples.lengths.min())]
            if len(some) == 0:
                break
            part = slice(start, start + samples.positions.shape[1])
            distance = own.distances(_Sums.of(training.positions[some, part], training.mask[some, part], samples.skeleton))
            left = training.lengths[some] - start
            fits = 2 * torch.minimum(left, samples.lengths[:, None]) >= needed[:, None]
            if start > 0:
                fits &= left >= samples.lengths[:, None]
            value, place = torch.where(fits, distance, torch.inf).min(1)
            closer = value < best
            best, index = torch.where(closer, value, best), torch.where(closer, some[place], index)
    return best, index


@dataclass(frozen=True)
class _Sums:
    """Clips with padding at 0, and sums over their first 1, 2, ... frames, from which aligned distances follow."""

    ground: Tensor  # (n, frames * joints) complex in 3-D, real in 2-D
    height: Tensor  # (n, frames * joints)
    centre: Tensor  # (n, frames) sums of ground
    square: Tensor  # (n, frames) sums of the squares of both
    lengths: Tensor  # (n,)
    joints: int

    @classmethod
    def of(cls, positions: Tensor, mask: Tensor, skeleton: Skeleton) -> "_Sums":
        """Of ``(n, frames, joints, coords)``."""
        # Relative to the first root, so that no digits are lost to the place of a clip.
        x = positions[..., list(skeleton.ground_axes)]
        x = (x - x[:, :1, skeleton.root : skeleton.root + 1]) * mask[..., None, None]
        ground = torch.view_as_complex(x.contiguous()) if skeleton.coords == 3 else x[..., 0]
        height = positions[..., skeleton.up_axis] * mask[..., None]
        square = (ground.abs().square() + height.square()).sum(2).cumsum(1)
        return cls(ground.flatten(1), height.flatten(1), ground.sum(2).cumsum(1), square, mask.sum(1), x.shape[2])

    def distances(self, other: "_Sums") -> Tensor:
        """``(n, m)`` root mean square distances over the frames that both have."""
        size = other.ground.shape[1]  # never longer than the samples
        inner, upright = self.ground[:, :size] @ other.ground.mH, self.height[:, :size] @ other.height.T
        common = torch.minimum(self.lengths[:, None], other.lengths)
        rows, columns = torch.arange(len(self.lengths))[:, None], torch.arange(len(other.lengths))
        a, b, count = self.centre[rows, common - 1], other.centre[columns, common - 1], common * self.joints
        inner = inner - a * b.conj() / count
        spread = self.square[rows, common - 1] + other.square[columns, common - 1]
        spread = spread - (a.abs().square() + b.abs().square()) / count
        aligned = inner.abs() if inner.is_complex() else inner
        return ((spread - 2 * (aligned + upright)).clamp(min=0) / count).sqrt()


@dataclass(frozen=True)
class Memorisation:
    """How close samples and held-out clips come to the training clips."""

    samples: Tensor  # (n,) metres to the nearest training clip
    neighbours: Tensor  # (n,) int64, that training clip
    held_out: Tensor  # (m,) metres from held-out real clips to theirs
    limit: float  # metres, the 1 % quantile of held_out

    @property
    def suspects(self) -> Tensor:
        """Samples below the limit, nearest first."""
        order = self.samples.argsort()
        return order[self.samples[order] < self.limit]

    @property
    def closer_than_held_out(self) -> float:
        """Probability that a sample is closer to training than a held-out clip is: 0.5 for real clips, 1 for copies."""
        below = (self.samples[:, None] < self.held_out).double() + 0.5 * (self.samples[:, None] == self.held_out).double()
        return float(below.mean())


def memorisation(samples: Clips, training: Clips, held_out: Clips) -> Memorisation:
    """Compare the distances to training of generated and of held-out real clips.

    Held-out clips of other people have bones of other lengths: samples then come closer than they do without being copies.

    For the arguments see `nearest`: the recordings that the model was trained on, and clips that it was not trained on.

    Raises:
        ValueError: another skeleton or frame rate, or held-out clips that are training clips.
    """
    distance, index = nearest(samples, training)
    reference, _ = nearest(held_out, training)
    copies = int((reference < 1e-4).sum())
    if 2 * copies > len(reference):
        raise ValueError(f"metrics: {copies} of {len(reference)} held-out clips are training clips; hold out others")
    return Memorisation(distance, index, reference, float(reference.quantile(0.01)))
