"""NoiseLevels: how large the loss and the error of the clean clip are at which diffusion steps, added up on the device."""

import torch
from torch import Tensor

from ddpm.process.diffusion import ClipLosses


class NoiseLevels:
    """Sums over the clips of a validation, in equal parts of the diffusion steps.

    Args:
        n_steps: T.
        bins: parts; never more than T.
        device: where the clips are.
    """

    def __init__(self, n_steps: int, bins: int, device: torch.device) -> None:
        self.n_steps = n_steps
        self.bins = min(bins, n_steps)
        self.sums = torch.zeros(3, self.bins, device=device)
        """Numbers of clips, their losses, and their errors in centimetres."""

    def add(self, t: Tensor, losses: ClipLosses, x0_hat: Tensor, clips: Tensor, mask: Tensor | None) -> None:
        """Add a batch, without waiting for the device.

        Args:
            t: ``(batch,)`` diffusion steps.
            losses: of the clips. A clip counts by its share of the real elements of the batch, so that the mean over all clips of
                all parts is the loss.
            x0_hat: the clips as the network sees them, ``(batch, joint, coord, frame)`` in metres.
            clips: as they are, shaped alike.
            mask: ``(batch, 1, 1, frame)``, 1 where a frame is real; None where all are.
        """
        distance = torch.linalg.vector_norm(x0_hat - clips, dim=2)
        real = torch.ones_like(distance) if mask is None else mask[:, 0].expand_as(distance)
        centimetres = 100 * (distance * real).sum((1, 2)) / real.sum((1, 2))
        loss = losses.total * len(t) / losses.count.sum()
        values = torch.stack([torch.ones_like(loss), loss, centimetres]).to(self.sums.dtype)
        self.sums.index_add_(1, t * self.bins // self.n_steps, values)

    def means(self, sums: Tensor | None = None) -> dict[str, tuple[float, float]]:
        """Name of a part, its middle as a fraction of T -> (loss, centimetres); parts without clips are left out.

        Args:
            sums: those of all processes added up; None for those of this one.
        """
        count, loss, centimetres = (self.sums if sums is None else sums).cpu().double().tolist()
        parts = ((k + 0.5) / self.bins for k in range(self.bins))
        return {f"{part:.3f}": (b / n, c / n) for part, n, b, c in zip(parts, count, loss, centimetres, strict=True) if n > 0}
