"""NoiseLevels: loss and error of the clean clip by noise level, added up on the device during a validation."""

import torch
from torch import Tensor

from ddpm.process.diffusion import ClipLosses


class NoiseLevels:
    """Sums over clips in ``bins`` equal parts of the diffusion steps, at most T: number, loss, and error in centimetres."""

    def __init__(self, n_steps: int, bins: int, device: torch.device) -> None:
        self.n_steps = n_steps
        self.bins = min(bins, n_steps)
        self.sums = torch.zeros(3, self.bins, device=device)

    def add(self, t: Tensor, losses: ClipLosses, x0_hat: Tensor, clips: Tensor, mask: Tensor | None) -> None:
        """Add a batch at steps ``(batch,)`` t; x0_hat and clips are ``(batch, joint, coord, frame)`` in metres.

        A clip's loss counts by its share of the real elements of the batch, so that the mean over all clips is the batch's loss.
        """
        loss = losses.total * len(t) / losses.count.sum()
        values = torch.stack([torch.ones_like(loss), loss, centimetres(x0_hat, clips, mask)]).to(self.sums.dtype)
        self.sums.index_add_(1, t * self.bins // self.n_steps, values)

    def means(self, sums: Tensor | None = None) -> dict[str, tuple[float, float]]:
        """Middle of a part with clips, as a fraction of T -> (loss, centimetres); from ``sums`` over all processes if given."""
        count, loss, centimetres = (self.sums if sums is None else sums).cpu().double().tolist()
        parts = ((k + 0.5) / self.bins for k in range(self.bins))
        return {f"{part:.3f}": (b / n, c / n) for part, n, b, c in zip(parts, count, loss, centimetres, strict=True) if n > 0}


def centimetres(x0_hat: Tensor, clips: Tensor, mask: Tensor | None) -> Tensor:
    """``(batch,)`` mean distances of the joints from where they really are; both ``(batch, joint, coord, frame)`` in metres."""
    distance = torch.linalg.vector_norm(x0_hat - clips, dim=2)
    real = torch.ones_like(distance) if mask is None else mask[:, 0].expand_as(distance)
    return 100 * (distance * real).sum((1, 2)) / real.sum((1, 2))
