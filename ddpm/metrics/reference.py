"""Reference: the real clips of a data module with which generated ones are compared, and its recordings as a whole."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ddpm.clips import Clips

ENOUGH = 64
"""Held-out recordings that suffice as a reference: half of them has 32."""


class Reference(NamedTuple):
    """Real clips to compare with.

    Attributes:
        motions: one window from the middle of each recording.
        subjects: who moves in each, None where somebody is unknown or all are one person.
        held_out: whether the model was trained on none of them.
    """

    motions: Clips
    subjects: list[str] | None
    held_out: bool


def held_out(data: Any) -> Tensor:
    """Numbers of the recordings of a data module that nothing was trained on; none where validation uses those of training."""
    return data.val_recordings[~torch.isin(data.val_recordings, data.train_recordings)]


def reference(data: Any, which: Literal["auto", "held_out", "all"] = "auto") -> Reference:
    """The real clips of a data module to compare with.

    Args:
        data: with ``clips``, ``train_recordings``, ``val_recordings`` and ``middle_windows``, see datamodules/pose.py.
        which: the held-out recordings, all recordings, or ``auto``: the held-out ones if there are 64 of them, else all.

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
    batch = data.middle_windows(chosen)
    motions = Clips.from_batch(batch["clips"], batch["mask"], fps=data.clips.fps, skeleton=data.clips.skeleton)
    names = [data.clips.subjects[i] for i in chosen.tolist()]
    known = [name for name in names if name is not None]
    return Reference(motions, known if len(known) == len(names) and len(set(known)) > 1 else None, use_unseen)


def whole(data: Any, chosen: Tensor) -> Clips:
    """Whole recordings of a data module.

    Args:
        data: with ``clips``.
        chosen: ``(n,)`` their numbers.
    """
    clips = data.clips
    lengths = clips.lengths[chosen]
    place = torch.minimum(torch.arange(int(lengths.max())), lengths[:, None] - 1)
    return Clips(clips.frames[clips.starts[chosen][:, None] + place], lengths, clips.fps, clips.skeleton)
