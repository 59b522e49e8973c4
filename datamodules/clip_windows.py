"""Windows of recordings, a batch of them gathered in one indexed read."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.clip_set import ClipSet, anchored
from ddpm.clips import turned

Batch = dict[str, Any]  # clips, mask and labels, see `Windows.__getitems__`


class Windows(Dataset[Batch]):
    """Windows of ``frames`` frames, with the root at the origin of the ground in the first.

    A shorter recording is continued by its last pose, which the mask excludes from the loss. With ``turned`` every window faces
    one way, see `ddpm.clips.turned`.
    """

    def __init__(self, clips: ClipSet, frames: int, turned: bool = False) -> None:
        self.clips, self.frames, self.turned = clips, frames, turned
        self.padded = bool((clips.lengths < frames).any())

    def __getitems__(self, index: Tensor) -> Batch:
        """A whole batch, from its ``(batch, 2)`` int64 recordings and first frames.

        Returns:
            ``clips`` ``(batch, joint, coord, frame)`` float32 metres, ``mask`` ``(batch, 1, 1, frame)`` float32, or None if no
            recording is shorter than a window, ``labels`` ``(batch,)`` int64, -1 where unknown; and, if recordings have vectors,
            ``conditions`` ``(batch, width)`` float32, nan where unknown.
        """
        recording, first = index.unbind(1)
        place = first[:, None] + torch.arange(self.frames)
        length = self.clips.lengths[recording][:, None]
        rows = self.clips.starts[recording][:, None] + torch.minimum(place, length - 1)
        windows = anchored(self.clips.frames[rows].permute(0, 2, 3, 1), self.clips.skeleton)
        if self.turned:
            windows = turned(windows.permute(0, 3, 1, 2), self.clips.skeleton, place < length).permute(0, 2, 3, 1)
        return {
            "clips": windows.contiguous(),
            "mask": (place < length).float()[:, None, None] if self.padded else None,
            "labels": self.clips.labels[recording],
            **({} if self.clips.conditions is None else {"conditions": self.clips.conditions[recording]}),
        }
