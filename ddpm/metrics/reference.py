"""Reference: the real clips of a data module that generated ones are compared with."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from ddpm.clips import Clips

ENOUGH = 64
"""Held-out recordings that suffice as a reference: half of them has 32."""


class RealData(Protocol):
    """What the metrics use of :class:`datamodules.pose.PoseDataModule`; ``clips`` is its ClipSet."""

    clips: Any
    train_recordings: Tensor
    val_recordings: Tensor

    def middle_windows(self, recordings: Tensor) -> Mapping[str, Any]:
        """A batch with one window from the middle of each of ``(n,)`` int64 recordings."""
        ...


class Reference(NamedTuple):
    """Real clips to compare with.

    Attributes:
        motions: one window from the middle of each recording.
        subjects: the person in each, None where one is unknown or all are the same.
        held_out: whether the model was trained on none of them.
    """

    motions: Clips
    subjects: list[str] | None
    held_out: bool


def held_out(data: RealData) -> Tensor:
    """``(n,)`` numbers of the recordings that no model was trained on; empty if validation uses those of training."""
    return data.val_recordings[~torch.isin(data.val_recordings, data.train_recordings)]


def reference(data: RealData, which: Literal["auto", "held_out", "all"] = "auto") -> Reference:
    """The held-out recordings, all recordings, or ``auto``: the held-out ones if there are 64 of them, else all.

    Raises:
        ValueError: another value of ``which``, or no recordings are held out.
    """
    if which not in ("auto", "held_out", "all"):
        raise ValueError(f"reference={which!r} must be auto, held_out or all")
    unseen = held_out(data)
    if which == "held_out" and len(unseen) == 0:
        raise ValueError("reference=held_out: no recordings are held out (loader.val_fraction=0); use reference=all")
    use_unseen = which == "held_out" or (which == "auto" and len(unseen) >= ENOUGH)
    chosen = unseen if use_unseen else torch.arange(len(data.clips))
    names = [data.clips.subjects[i] for i in chosen.tolist()]
    known = [name for name in names if name is not None]
    return Reference(middles(data, chosen), known if len(known) == len(names) and len(set(known)) > 1 else None, use_unseen)


def middles(data: RealData, recordings: Tensor) -> Clips:
    """One window from the middle of each of ``(n,)`` recordings."""
    batch = data.middle_windows(recordings)
    return Clips.from_batch(batch["clips"], batch["mask"], fps=data.clips.fps, skeleton=data.clips.skeleton)


def whole(data: RealData, recordings: Tensor) -> Clips:
    """``(n,)`` recordings in their full length."""
    clips = data.clips
    lengths = clips.lengths[recordings]
    place = torch.minimum(torch.arange(int(lengths.max())), lengths[:, None] - 1)
    return Clips(clips.frames[clips.starts[recordings][:, None] + place], lengths, clips.fps, clips.skeleton)
