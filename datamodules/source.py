"""Clips to start from: those of a file, at the frame rate and in the windows that a model was trained on."""

from dataclasses import replace
from pathlib import Path

import torch

from datamodules.cleaning import set_floor
from datamodules.clip_set import ClipSet
from datamodules.clip_windows import Windows
from datamodules.prepare import Floor, prepare
from datamodules.sets.folder import read_file
from ddpm.clips import Clips
from ddpm.errors import DataError
from ddpm.skeleton import Skeleton

SUNK = 0.05
"""Metres from the floor at 0 to where the feet of a clip may stand most of the time, before its own floor is looked for."""


def read_source(path: str, skeleton: Skeleton, fps: float, frames: int, first: int, n: int, turned: bool = False) -> Clips:
    """Clips ``first`` to ``first + n`` of a file that data=folder reads, resampled, from their first frame on, all as long as the
    shortest of them, and as ``frames`` at most; ``turned`` as the model's ``loader.facing`` is.

    Raises:
        DataError: a file that cannot be read, joints that the skeleton has and the file has not, or no clip of that number.
    """
    found = _read(path, skeleton, fps, first)
    used = torch.arange(len(found))[first : first + n]
    frames = min([frames, *found.lengths[used].tolist()])
    if frames < 2:
        raise DataError(f"source={path}: a clip of {frames} frame is no motion; choose another with source_clip=")
    batch = Windows(found, frames, turned).__getitems__(torch.stack([used, torch.zeros_like(used)], dim=1))
    return Clips.from_batch(batch["clips"], None, fps=fps, skeleton=skeleton)


def read_whole(path: str, skeleton: Skeleton, fps: float, number: int) -> tuple[torch.Tensor, float, str]:
    """``(frames, joints, coords)``: one clip of a file that data=folder reads, whole, resampled, and where it is in the file; the
    coordinate of the floor along the vertical, 0 if it is near it; and the action, "" if unknown. Errors as for `read_source`."""
    found = _read(path, skeleton, fps, number, floor=False)
    clip, label = found.recording(number), int(found.labels[number])
    standing = torch.as_tensor(set_floor(clip.numpy(), skeleton))
    floor = float((clip - standing)[0, 0, skeleton.up_axis])
    return clip, floor if abs(floor) > SUNK else 0.0, found.class_names[label] if label >= 0 else ""


def _read(path: str, skeleton: Skeleton, fps: float, first: int, floor: Floor = "recording") -> ClipSet:
    recordings = read_file(Path(path), skeleton.coords)
    recordings = [replace(r, fps=fps) if r.fps is None or r.fps_counts else r for r in recordings]
    found = prepare(
        recordings, skeleton, name=path, target_fps=fps, min_seconds=0.0, max_speed=None, longest=True, floor=floor,
        on_outlier="keep",
    )  # fmt: skip
    refuse_beyond(first, len(found), path)
    return found


def refuse_beyond(first: int, n: int, source: str) -> None:
    """Raise a DataError unless ``source`` with its ``n`` clips has one of this number."""
    if first >= n:
        raise DataError(f"source_clip={first}: {source} has {n} clips that can be used, the first is 0")
