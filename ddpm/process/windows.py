"""Clips of any length from a network for short ones: overlapping windows are denoised side by side and blended."""

from collections.abc import Callable

import torch
from torch import Tensor

from ddpm.process.diffusion import Denoised


class Windows:
    """Where the windows of a long clip lie, and what each of them counts in every frame.

    All windows see the same noisy clip. Their estimates are averaged where they overlap, at every step of the sampler
    (Bar-Tal et al. 2023, MultiDiffusion, arXiv 2302.08113), with weights that fall to the ends of a window and sum to 1. The cost
    is linear in the length.

    Args:
        length: frames of the clip.
        frames: of a window, at most as many.
        loop: the clip goes on at its beginning, where a window crosses its end.
    """

    def __init__(self, length: int, frames: int, loop: bool = False) -> None:
        if not 1 < frames <= length:
            raise ValueError(f"windows of {frames} frames need a clip of at least as many, and 2; it has {length}")
        hop = max(frames // 2, 1)
        ends = length if loop else length - frames
        first = list(range(0, ends, hop)) + ([] if loop else [ends])
        self.place = (torch.tensor(first)[:, None] + torch.arange(frames)) % length
        """``(windows, frames)`` int64, the frames of the clip."""
        ramp = torch.minimum(torch.arange(frames), torch.arange(frames).flip(0)) + 1.0
        total = torch.zeros(length).index_add_(0, self.place.flatten(), ramp.repeat(len(first)))
        self.weight = ramp / total[self.place]
        self.length = length

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.place)

    @property
    def middles(self) -> Tensor:
        """``(windows,)`` the frame in the middle of each."""
        return self.place[:, self.place.shape[1] // 2]

    def denoise(self, estimate: Callable[..., Denoised], xt: Tensor, t: Tensor, cond: Tensor | None, batch_size: int) -> Denoised:
        """Estimates of the whole clips ``(batch, joint, coord, length)``.

        Args:
            estimate: ``(xt, t, cond)`` -> estimates of windows.
            cond: ``(batch, windows, clip_dim)``, or ``(batch, clip_dim)`` for all windows of a clip, or None.
            batch_size: windows per network call.
        """
        place, weight = self.place.to(xt.device), self.weight.to(xt)
        parts = xt[..., place].movedim(-2, 1).flatten(0, 1)
        if cond is not None:
            cond = (cond if cond.ndim == 3 else cond[:, None].expand(-1, len(self), -1)).flatten(0, 1)
        steps = t.repeat_interleave(len(self))
        found = [
            estimate(parts[k : k + batch_size], steps[k : k + batch_size], None if cond is None else cond[k : k + batch_size])
            for k in range(0, len(parts), batch_size)
        ]

        def blend(values: list[Tensor]) -> Tensor:
            windows = torch.cat(values).unflatten(0, (len(xt), len(self))) * weight[:, None, None]
            return torch.zeros_like(xt).index_add_(3, place.flatten(), windows.movedim(1, -2).flatten(-2))

        x0_hat, eps_hat, fraction = zip(*found, strict=True)
        shared = blend(list(fraction)) if isinstance(fraction[0], Tensor) else fraction[0]
        return Denoised(blend(list(x0_hat)), blend(list(eps_hat)), shared)
