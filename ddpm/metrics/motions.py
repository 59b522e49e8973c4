"""Motions: clips in metres with their frame rate and skeleton, the one argument of every feature and physics function."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm.skeleton import Skeleton


@dataclass(frozen=True)
class Motions:
    """Clips of one skeleton and frame rate, padded to a common length. Whatever is behind a clip's length is overwritten.

    Args:
        positions: ``(n, frames, joints, coords)`` in metres; kept as float64 on the CPU.
        lengths: ``(n,)`` int64, frames of each clip that count; the others repeat its last pose.
        fps: frames per second.
        skeleton: what the joints are.

    Raises:
        ValueError: shapes that do not belong together, no clips, a length outside 1..frames, fps that is not positive, or a
            position that is not finite.
    """

    positions: Tensor
    lengths: Tensor
    fps: float
    skeleton: Skeleton

    def __post_init__(self) -> None:
        x, lengths = self.positions.detach().cpu().double(), self.lengths.detach().cpu().long()
        shape = (len(self.skeleton.names), self.skeleton.coords)
        if x.ndim != 4 or x.shape[2:] != shape or 0 in x.shape:
            raise ValueError(
                f"motions: positions have shape {tuple(x.shape)}, expected (n >= 1, frames >= 1, {shape[0]} joints, "
                f"{shape[1]} coords)"
            )
        if lengths.shape != x.shape[:1]:
            raise ValueError(f"motions: {len(x)} clips need as many lengths, got shape {tuple(lengths.shape)}")
        if lengths.min() < 1 or lengths.max() > x.shape[1]:
            raise ValueError(f"motions: lengths run from {lengths.min()} to {lengths.max()}, they must be in 1..{x.shape[1]}")
        if not self.fps > 0:
            raise ValueError(f"motions: fps={self.fps} must be positive")
        place = torch.minimum(torch.arange(x.shape[1]), lengths[:, None] - 1)
        x = x[torch.arange(len(x))[:, None], place]
        bad = (~x.isfinite()).nonzero()
        if len(bad):
            clip, frame, joint, coord = bad[0].tolist()
            raise ValueError(
                f"motions: clip {clip}, frame {frame}, joint {self.skeleton.names[joint]} is at {x[clip, frame, joint, coord]}; "
                f"{len(bad[:, 0].unique())} of {len(x)} clips are not finite and cannot be measured"
            )
        object.__setattr__(self, "positions", x)
        object.__setattr__(self, "lengths", lengths)

    @classmethod
    def from_batch(cls, clips: Tensor, mask: Tensor | None, *, fps: float, skeleton: Skeleton) -> "Motions":
        """From the form in which batches are trained on.

        Args:
            clips: ``(batch, joint, coord, frame)`` in metres.
            mask: ``(batch, 1, 1, frame)``, 1 for the real frames, which come first; None where all are.
            fps: frames per second.
            skeleton: what the joints are.
        """
        lengths = torch.full((len(clips),), clips.shape[-1]) if mask is None else mask.flatten(1).sum(1).long()
        return cls(clips.permute(0, 3, 1, 2), lengths, fps, skeleton)

    @classmethod
    def whole(cls, positions: Tensor, fps: float, skeleton: Skeleton) -> "Motions":
        """Clips ``(n, frames, joints, coords)`` of which every frame counts, as a model samples them."""
        return cls(positions, torch.full((len(positions),), positions.shape[1]), fps, skeleton)

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.positions)

    def take(self, index: Tensor) -> "Motions":
        """The clips at ``index``: int64 numbers, or a bool for each clip."""
        return Motions(self.positions[index], self.lengths[index], self.fps, self.skeleton)

    def replace(self, positions: Tensor) -> "Motions":
        """Other positions with the same lengths, frame rate and skeleton."""
        return Motions(positions, self.lengths, self.fps, self.skeleton)

    @property
    def mask(self) -> Tensor:
        """``(n, frames)`` bool, True for the frames that count."""
        return torch.arange(self.positions.shape[1]) < self.lengths[:, None]

    @property
    def heights(self) -> Tensor:
        """``(n, frames, joints)`` metres above the floor, which is at 0."""
        return self.skeleton.up_sign * self.positions[..., self.skeleton.up_axis]

    def derivative(self, order: int) -> tuple[Tensor, Tensor]:
        """Finite differences of consecutive frames: velocity, acceleration, jerk for the orders 1, 2, 3.

        Args:
            order: number of differences.

        Returns:
            ``(n, frames - order, joints, coords)`` in metres per second to the power of ``order``, and ``(n, frames - order)``
            bool, True where all frames involved count.

        Raises:
            ValueError: a clip too short to have it.
        """
        short = int(self.lengths.min())
        if short <= order:
            raise ValueError(
                f"motions: clip {int(self.lengths.argmin())} has {short} frames; difference number {order} needs {order + 1}"
            )
        return self.positions.diff(order, dim=1) * self.fps**order, self.mask[:, order:]


def frame_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the frames that count.

    Args:
        values: ``(n, frames, ...)``.
        mask: ``(n, frames)`` bool, at least one True in each row.

    Returns:
        ``(n, ...)`` float64.
    """
    weight = mask.double() / mask.sum(1, keepdim=True)
    return (values * weight.reshape(*mask.shape, *[1] * (values.ndim - 2))).sum(1)
