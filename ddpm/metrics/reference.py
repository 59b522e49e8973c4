"""Reference: the real clips of a data module that generated ones are compared with."""

from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from ddpm.clips import Clips

LEAST = 16  # clips in either set that are compared, at least: half of them must have more than 5 neighbours
ENOUGH = 64  # held-out windows that suffice as a reference: half of them has 32
MOST = 1024  # windows of a reference, at most


class RealData(Protocol):
    """What the metrics use of :class:`datamodules.pose.PoseDataModule`."""

    clips: Any  # a ClipSet; that and its windows are classes of the data, which the metrics do not import
    frames: int
    windows: Any
    train_recordings: Tensor
    val_recordings: Tensor

    def whole_windows(self, recordings: Tensor, most: int | None = None) -> Tensor:
        """``(windows, 2)`` int64 recordings and first frames of the windows that ``(n,)`` int64 recordings hold."""
        ...


class Reference(NamedTuple):
    """Real clips to compare with."""

    clips: Clips  # the whole windows of the recordings, evenly spread over each
    subjects: list[str] | None  # the person in each, None where one is unknown or all are the same
    held_out: bool  # whether the model was trained on none of them


def held_out(data: RealData) -> Tensor:
    """``(n,)`` numbers of the recordings that no model was trained on; empty if validation uses those of training."""
    return data.val_recordings[~torch.isin(data.val_recordings, data.train_recordings)]


def holds_out_enough(data: RealData) -> bool:
    """Whether the held-out recordings alone suffice as a reference."""
    return len(data.whole_windows(held_out(data), ENOUGH)) >= ENOUGH


def reference(data: RealData, which: Literal["auto", "held_out", "all"] = "auto") -> Reference:
    """The held-out windows, all windows, or ``auto``: the held-out ones if there are 64 of them, else all.

    Raises:
        ValueError: another value of ``which``, or no recordings are held out.
    """
    if which not in ("auto", "held_out", "all"):
        raise ValueError(f"reference={which!r} must be auto, held_out or all")
    unseen = held_out(data)
    if which == "held_out" and len(unseen) == 0:
        raise ValueError("reference=held_out: no recordings are held out (loader.val_fraction=0); use reference=all")
    use_unseen = which == "held_out" or (which == "auto" and holds_out_enough(data))
    clips, chosen = windows(data, unseen if use_unseen else torch.arange(len(data.clips)), MOST)
    names = [data.clips.subjects[i] for i in chosen.tolist()]
    known = [name for name in names if name is not None]
    return Reference(clips, known if len(known) == len(names) and len(set(known)) > 1 else None, use_unseen)


def too_little(data: RealData, real: Reference) -> str | None:
    """Why nothing can be measured against a reference, and how much that takes; None if it can."""
    if len(real.clips) >= LEAST:
        return None
    return (
        f"motion can be measured against at least {LEAST} windows of {data.frames} frames, as {LEAST * data.frames} frames of "
        f"recordings hold, and the {'held-out ' if real.held_out else ''}recordings hold {len(real.clips)}; use more data, or "
        "shorter clips (frames=)"
    )


def windows(data: RealData, recordings: Tensor, most: int) -> tuple[Clips, Tensor]:
    """The whole windows of ``(n,)`` recordings, at most ``most``, and the ``(windows,)`` int64 recording of each."""
    index = data.whole_windows(recordings, most)
    return windows_at(data, index), index[:, 0]


def windows_at(data: RealData, index: Tensor) -> Clips:
    """The windows at ``(windows, 2)`` int64 recordings and first frames, as a model is trained on them."""
    batch = data.windows.__getitems__(index)
    return Clips.from_batch(batch["clips"], batch["mask"], fps=data.clips.fps, skeleton=data.clips.skeleton)


def full_recordings(data: RealData, recordings: Tensor) -> Clips:
    """``(n,)`` recordings in their full length; longer ones than 8 windows in pieces, with every window whole in one of them."""
    clips, longest = data.clips, 8 * data.frames
    step = longest - data.frames + 1
    number = (clips.lengths[recordings] - data.frames).clamp(min=0) // step + 1
    owner = recordings.repeat_interleave(number)
    first = (torch.arange(len(owner)) - (number.cumsum(0) - number).repeat_interleave(number)) * step
    lengths = (clips.lengths[owner] - first).clamp(max=longest)
    place = torch.minimum(torch.arange(int(lengths.max())), lengths[:, None] - 1)
    return Clips(clips.frames[(clips.starts[owner] + first)[:, None] + place], lengths, clips.fps, clips.skeleton)
