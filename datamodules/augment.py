"""Augment: every training clip turned, mirrored, resized and played at another speed, a whole batch at once on its device."""

import math
from typing import Any

import torch
from torch import Tensor

from datamodules.clip_set import anchored
from ddpm.skeleton import Skeleton


class Augment:
    """Draws one change for each clip of a batch and applies it; a place in the recording is drawn by `RandomWindows` already.

    Nothing here loops over clips or makes the processor wait for the device. Where everything is 0, nothing is changed.

    Args:
        skeleton: the up axis, the ground, and which joints are each other's mirror image.
        frames: length of the clips that come out.
        yaw: degrees; clips are turned about the up axis by an angle uniform in -yaw..yaw, 180 for any direction.
        mirror: probability with which left and right are exchanged, and the first ground axis reflected.
        scale: clips are resized by a factor uniform in 1 - scale..1 + scale; the floor stays at 0.
        speed: clips are played faster by a factor uniform in 1 - speed..1 + speed. Between frames positions are interpolated on
            straight lines, so a bone that turns by an angle a from frame to frame is shorter there, by cos(a / 2) at the most.

    Raises:
        ValueError: a value outside its limits, yaw in 2-D, or mirror where the skeleton names no pairs.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        frames: int,
        yaw: float = 0.0,
        mirror: float = 0.0,
        scale: float = 0.0,
        speed: float = 0.0,
    ) -> None:
        for name, value, good, limit in (
            ("yaw", yaw, 0 <= yaw <= 180, "degrees in [0, 180]"),
            ("mirror", mirror, 0 <= mirror <= 1, "a probability in [0, 1]"),
            ("scale", scale, 0 <= scale < 1, "in [0, 1)"),
            ("speed", speed, 0 <= speed < 1, "in [0, 1)"),
        ):
            if not good:
                raise ValueError(f"augment.{name}={value} must be {limit}")
        if yaw > 0 and skeleton.coords == 2:
            raise ValueError(f"augment.yaw={yaw} needs 3-D clips, and the skeleton has coords=2; set augment.yaw=0")
        if mirror > 0 and not skeleton.left_right:
            raise ValueError(f"augment.mirror={mirror}: the skeleton names no left_right pairs; name them, or set it to 0")
        self.skeleton = skeleton
        self.frames = frames
        self.yaw = yaw
        self.mirror = mirror
        self.scale = scale
        self.speed = speed
        self.other_side = torch.arange(len(skeleton.names))
        for left, right in skeleton.left_right:
            i, j = skeleton.index(left), skeleton.index(right)
            self.other_side[i], self.other_side[j] = j, i

    @property
    def active(self) -> bool:
        """Whether anything is ever changed."""
        return any((self.yaw, self.mirror, self.scale, self.speed))

    @property
    def span(self) -> int:
        """Frames of a recording that the fastest clip covers: the length of the clips that go in."""
        return self.frames + math.ceil((self.frames - 1) * self.speed)

    def __call__(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
        """Change every clip of a batch.

        Args:
            batch: ``clips`` ``(batch, joint, coord, span)`` and their ``mask``, see `datamodules.pose.Windows`.
            generator: of the device of the clips; all randomness comes from it.

        Returns:
            The batch with clips and mask of ``frames`` frames, and what else was in it.
        """
        clips, mask = batch["clips"], batch["mask"]
        draws = torch.rand(5, len(clips), generator=generator, device=clips.device)
        angle, scale, speed = 2 * draws[:3] - 1
        if self.speed > 0:
            clips, mask = self.resampled(clips, mask, 1 + self.speed * speed, draws[4])
        clips = self.placed(clips, math.radians(self.yaw) * angle, draws[3] < self.mirror, 1 + self.scale * scale)
        return {**batch, "clips": clips, "mask": mask}

    def resampled(self, clips: Tensor, mask: Tensor | None, speed: Tensor, place: Tensor) -> tuple[Tensor, Tensor | None]:
        """Clips at another speed.

        Args:
            clips: ``(batch, joint, coord, span)``.
            mask: ``(batch, 1, 1, span)``, 1 where a frame is real, these first; None where all are.
            speed: ``(batch,)`` frames of the recording per frame of the clip.
            place: ``(batch,)`` in [0, 1): where the clip begins in the frames that it leaves over. Without it, the end of a
                recording would be seen in the fastest clips only.

        Returns:
            Clips and mask of ``frames`` frames. What lies behind the last real frame is that frame, and masked.
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
        """Clips mirrored, turned and resized, with the root at the origin of the ground in the first frame.

        Args:
            clips: ``(batch, joint, coord, frame)``.
            angle: ``(batch,)`` radians about the up axis, counter-clockwise seen from above; 0 in 2-D.
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
