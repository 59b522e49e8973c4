"""Augmentation of training batches on their device: rotation, mirroring, scale and speed."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from datamodules.clip_set import anchored
from ddpm.skeleton import Skeleton


@dataclass(eq=False)
class Augment:
    """Draws one change for each clip of a batch and applies it, without a loop over clips or a synchronisation with the device.

    Positions at another speed are interpolated linearly between frames, which shortens a bone that turns by an angle a per frame
    by a factor of cos(a / 2) at most.

    Raises:
        ValueError: a value outside its limits, yaw in 2-D, or mirror where the skeleton names no pairs.
    """

    skeleton: Skeleton
    frames: int  # length of the clips that are returned
    yaw: float = 0.0  # degrees; clips are turned about the up axis by an angle uniform in -yaw..yaw
    mirror: float = 0.0  # probability with which left and right are exchanged, and the first ground axis reflected
    scale: float = 0.0  # positions are multiplied by a factor uniform in 1 - scale..1 + scale; the floor stays at 0
    speed: float = 0.0  # clips are played faster by a factor uniform in 1 - speed..1 + speed

    def __post_init__(self) -> None:
        for name, good, limit in (
            ("yaw", 0 <= self.yaw <= 180, "degrees in [0, 180]"),
            ("mirror", 0 <= self.mirror <= 1, "a probability in [0, 1]"),
            ("scale", 0 <= self.scale < 1, "in [0, 1)"),
            ("speed", 0 <= self.speed < 1, "in [0, 1)"),
        ):
            if not good:
                raise ValueError(f"augment.{name}={getattr(self, name)} must be {limit}")
        if self.yaw > 0 and self.skeleton.coords == 2:
            raise ValueError(f"augment.yaw={self.yaw} needs 3-D clips, and the skeleton has coords=2; set augment.yaw=0")
        if self.mirror > 0 and not self.skeleton.left_right:
            raise ValueError(f"augment.mirror={self.mirror}: the skeleton names no left_right pairs; name them, or set it to 0")
        self.other_side = torch.tensor(self.skeleton.mirrored)

    @property
    def active(self) -> bool:
        """Whether anything is ever changed."""
        return any((self.yaw, self.mirror, self.scale, self.speed))

    @property
    def span(self) -> int:
        """Length of the clips that are given: the frames that the fastest clip covers."""
        return self.frames + math.ceil((self.frames - 1) * self.speed)

    def __call__(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
        """The batch (see `datamodules.clip_windows`) with ``clips`` and ``mask`` of ``frames`` instead of ``span`` frames.

        All randomness comes from the generator, which is on the device of the clips.
        """
        clips, mask = batch["clips"], batch["mask"]
        draws = torch.rand(5, len(clips), generator=generator, device=clips.device)
        angle, scale, speed = 2 * draws[:3] - 1
        if self.speed > 0:
            clips, mask = self.resampled(clips, mask, 1 + self.speed * speed, draws[4])
        clips = self.placed(clips, math.radians(self.yaw) * angle, draws[3] < self.mirror, 1 + self.scale * scale)
        return {**batch, "clips": clips, "mask": mask}

    def resampled(self, clips: Tensor, mask: Tensor | None, speed: Tensor, place: Tensor) -> tuple[Tensor, Tensor | None]:
        """Clips and mask of ``frames`` frames at another speed; after the last real frame it is repeated, and masked.

        Args:
            clips: ``(batch, joint, coord, span)``.
            mask: ``(batch, 1, 1, span)``, 1 in real frames, these first; None if all are real.
            speed: ``(batch,)`` frames of the recording per frame of the clip.
            place: ``(batch,)`` in [0, 1), where the clip begins among the frames that it does not need; with 0, only the
                fastest clips would contain the end of a recording.
        """
        last = clips.new_full((len(clips),), clips.shape[-1] - 1.0) if mask is None else mask.sum(dim=(1, 2, 3)) - 1
        left_over = (last - speed * (self.frames - 1)).clamp(min=0).floor()
        # Clips begin on a frame, so that at speed 1 nothing is interpolated.
        first = torch.minimum((place * (left_over + 1)).floor(), left_over)
        time = first[:, None] + speed[:, None] * torch.arange(self.frames, device=clips.device)
        seen = torch.minimum(time, last[:, None])
        before = seen.floor()
        after = torch.minimum(before + 1, last[:, None])
        a, b = (clips.gather(3, i.long()[:, None, None].expand(-1, *clips.shape[1:3], -1)) for i in (before, after))
        real = None if mask is None else (time <= last[:, None]).to(mask.dtype)[:, None, None]
        return torch.lerp(a, b, (seen - before)[:, None, None]), real

    def placed(self, clips: Tensor, angle: Tensor, mirrored: Tensor, scale: Tensor) -> Tensor:
        """Clips ``(batch, joint, coord, frame)`` mirrored, turned and scaled, then anchored again.

        Args:
            angle: ``(batch,)`` radians about the up axis, counter-clockwise seen from above; ignored in 2-D.
            mirrored: ``(batch,)`` bool.
            scale: ``(batch,)`` factor on all positions.
        """
        up, coords = self.skeleton.up_axis, self.skeleton.coords
        factors = scale[:, None].repeat(1, coords)
        factors[:, self.skeleton.ground_axes[0]] *= torch.where(mirrored, -1, 1)
        matrix = torch.diag_embed(torch.ones_like(factors))
        if coords == 3:
            i, j = (up + 1) % 3, (up + 2) % 3
            cos, sin = angle.cos(), angle.sin() * self.skeleton.up_sign
            matrix[:, i, i], matrix[:, i, j], matrix[:, j, i], matrix[:, j, j] = cos, -sin, sin, cos
        matrix = matrix * factors[:, None]
        mirror_image = clips.index_select(1, self.other_side.to(clips.device, non_blocking=True))
        sides = torch.where(mirrored[:, None, None, None], mirror_image, clips)
        # Not a matrix product: those may be computed in 10 bits (TF32), a millimetre in a metre.
        return anchored((matrix[:, None, :, :, None] * sides[:, :, None]).sum(dim=3), self.skeleton)
