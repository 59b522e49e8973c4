"""MotionLoss: geometric errors of a predicted clip, in metres and seconds."""

import torch
from torch import Tensor

from ddpm.skeleton import Skeleton


class MotionLoss:
    """Weighted mean squared errors of x0_hat's velocities, accelerations, bone lengths and standing feet.

    As the geometric losses of MDM (Tevet et al. 2022, equations 3 to 5), but from positions alone, without a body model. Each
    term is weighted by noise level like the error of x0_hat itself: where little signal is left, a plausible x0_hat is not the
    posterior mean that a sampler needs (Bjorkstrand et al. 2025, arXiv 2510.12537).

    Args:
        skeleton: of the clips.
        fps: frames per second.
        velocity: weight of the squared error of velocities, in (m/s)^2.
        acceleration: of accelerations, in (m/s^2)^2.
        bone_length: of bone lengths, in m^2.
        foot_contact: of the squared velocity, in (m/s)^2, of feet that stand in the real clip.
        contact_speed: m/s; a foot stands while it is slower than this, and
        contact_height: m; lower than this above the lowest point that it or the same joint of the other foot reaches in its clip.

    Raises:
        ValueError: a negative weight, a limit that is not positive, or a term for bones or feet that the skeleton has not.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        fps: float,
        velocity: float = 0.0,
        acceleration: float = 0.0,
        bone_length: float = 0.0,
        foot_contact: float = 0.0,
        contact_speed: float = 0.3,
        contact_height: float = 0.08,
    ) -> None:
        terms = ("velocity", "acceleration", "bone_length", "foot_contact")
        self.weights = dict(zip(terms, (velocity, acceleration, bone_length, foot_contact), strict=True))
        for name, weight in self.weights.items():
            if not weight >= 0:
                raise ValueError(f"motion_loss.{name}={weight} must not be negative")
        if not (contact_speed > 0 and contact_height > 0):
            raise ValueError(
                f"motion_loss: contact_speed={contact_speed} and contact_height={contact_height} must be positive, in m/s and m"
            )
        if bone_length > 0 and not skeleton.bones:
            raise ValueError(f"motion_loss.bone_length={bone_length}: a skeleton of one joint has no bones; set it to 0")
        if foot_contact > 0 and not skeleton.feet:
            raise ValueError(f"motion_loss.foot_contact={foot_contact}: the skeleton names no feet; name them, or set it to 0")
        self.skeleton = skeleton
        self.fps = fps
        self.contact_speed = contact_speed
        self.contact_height = contact_height
        self.feet = torch.tensor([skeleton.index(name) for name in skeleton.feet], dtype=torch.long)
        self.other_feet = torch.tensor(skeleton.mirrored)[self.feet]
        self.bones = torch.tensor(skeleton.bones, dtype=torch.long).reshape(-1, 2).T

    def __call__(self, clips: Tensor, real: Tensor, weight: Tensor, mask: Tensor | None) -> Tensor:
        """The sum of all terms, each times its own weight and that of the noise level of its clip, ``(batch, 1, 1, 1)``.

        Predicted and real clips are ``(batch, joint, coord, frame)`` in metres, the mask is ``(batch, 1, 1, frame)`` or None.
        """
        if mask is not None:  # padding must not be the lowest place that a foot reaches
            real = torch.where(mask.bool(), real, real[..., :1])
        total = weight.new_zeros(())
        for name, factor in self.weights.items():
            if factor > 0:
                error = getattr(self, name)(clips, real)
                # A difference between frames is real where its last frame is: padding is at the end.
                seen = torch.ones_like(error) if mask is None else mask[..., mask.shape[-1] - error.shape[-1] :].expand_as(error)
                total = total + factor * (weight * error * seen).sum() / seen.sum().clamp(min=1)
        return total

    def velocity(self, clips: Tensor, real: Tensor) -> Tensor:
        """Squared errors of velocities, ``(batch, joint, coord, frame - 1)``."""
        return (clips - real).diff(dim=-1).mul(self.fps).square()

    def acceleration(self, clips: Tensor, real: Tensor) -> Tensor:
        """Squared errors of accelerations, ``(batch, joint, coord, frame - 2)``."""
        return (clips - real).diff(n=2, dim=-1).mul(self.fps**2).square()

    def bone_length(self, clips: Tensor, real: Tensor) -> Tensor:
        """Squared errors of bone lengths, ``(batch, bone, 1, frame)``."""
        child, parent = self.bones
        a, b = (torch.linalg.vector_norm(joints(x, child) - joints(x, parent), dim=2, keepdim=True) for x in (clips, real))
        return (a - b).square()

    def foot_contact(self, clips: Tensor, real: Tensor) -> Tensor:
        """Squared velocities of the feet while they stand, 0 while they do not, ``(batch, foot, coord, frame - 1)``."""
        return joints(clips, self.feet).diff(dim=-1).mul(self.fps).square() * self.standing(real)

    def standing(self, real: Tensor) -> Tensor:
        """``(batch, foot, 1, frame - 1)`` bool: between which frames of real clips each foot stands."""
        height = self.skeleton.up_sign * real[:, :, self.skeleton.up_axis : self.skeleton.up_axis + 1]
        lowest = height.amin(dim=-1, keepdim=True)
        floor = torch.minimum(joints(lowest, self.feet), joints(lowest, self.other_feet))
        low = joints(height, self.feet) - floor < self.contact_height
        speed = torch.linalg.vector_norm(joints(real, self.feet).diff(dim=-1).mul(self.fps), dim=2, keepdim=True)
        return (speed < self.contact_speed) & low[..., 1:] & low[..., :-1]


def joints(x: Tensor, which: Tensor) -> Tensor:
    """``(batch, joint, ...)`` with the joints ``(n,)`` int64, whose copy to a device is not waited for."""
    return x.index_select(1, which.to(x.device, non_blocking=True))
