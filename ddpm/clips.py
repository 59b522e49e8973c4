"""Clips: motion in metres with frame rate and skeleton, from sampler or file to metric, picture or file."""

import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ddpm.errors import DataError
from ddpm.files import write_durably
from ddpm.resampling import resample, resample_turn
from ddpm.skeleton import Skeleton

ENDINGS = (".npz", ".gif", ".bvh", ".csv", ".glb", ".mp4", ".html")
"""What `Clips.save` can write."""
FASTEST, TEMPO = 1000.0, 10.0
"""Frames per second, and times as fast or as slow, that `Clips.resampled` makes at most."""


@dataclass(frozen=True)
class Clips:
    """Clips of one skeleton and frame rate, padded to a common length by repeating their last pose.

    Args:
        positions: ``(n, frames, joints, coords)`` in metres, kept as float64 on the CPU; samples may be not finite.
        lengths: ``(n,)`` int64, real frames of each clip; the others are overwritten.
        fps: frames per second.
        skeleton: of all clips.
        seeds: ``(n,)`` int64 from which they were sampled, None if they were not.
        labels: name of the action of each clip, ``""`` where unknown; None if no clip has one.
        given: bool, shaped like ``positions``, True where they were not sampled but given; None if none was.

    Raises:
        ValueError: shapes that do not match, no clips, a length outside 1..frames, or fps that is not positive.
    """

    positions: Tensor
    lengths: Tensor
    fps: float
    skeleton: Skeleton
    seeds: Tensor | None = None
    labels: tuple[str, ...] | None = None
    given: Tensor | None = None

    def __post_init__(self) -> None:
        x = self.positions.detach().cpu().to(torch.float64, copy=True)
        lengths = self.lengths.detach().cpu().long()
        shape = (len(self.skeleton.names), self.skeleton.coords)
        if x.ndim != 4 or x.shape[2:] != shape or 0 in x.shape:
            raise ValueError(
                f"clips: positions have shape {tuple(x.shape)}, expected (n >= 1, frames >= 1, {shape[0]} joints, "
                f"{shape[1]} coords)"
            )
        for name, values in (("lengths", lengths), ("seeds", self.seeds), ("labels", self.labels)):
            if values is not None and (len(values) != len(x) or (isinstance(values, Tensor) and values.ndim != 1)):
                raise ValueError(f"clips: {len(x)} clips need as many {name}, got {len(values)}")
        if self.given is not None and self.given.shape != x.shape:
            raise ValueError(f"clips: given has shape {tuple(self.given.shape)}, expected that of positions, {tuple(x.shape)}")
        if lengths.min() < 1 or lengths.max() > x.shape[1]:
            raise ValueError(f"clips: lengths run from {lengths.min()} to {lengths.max()}, they must be in 1..{x.shape[1]}")
        if not 0 < self.fps < math.inf:
            raise ValueError(f"clips: fps={self.fps} must be a positive number")
        if lengths.min() < x.shape[1]:
            place = torch.minimum(torch.arange(x.shape[1]), lengths[:, None] - 1)
            x = x[torch.arange(len(x))[:, None], place]
        object.__setattr__(self, "positions", x)
        object.__setattr__(self, "lengths", lengths)
        object.__setattr__(self, "seeds", None if self.seeds is None else self.seeds.detach().cpu().long())
        labels = None if self.labels is None else tuple(self.labels)
        if isinstance(self.labels, str) or not all(isinstance(label, str | None) for label in labels or ()):
            raise ValueError(f"clips: labels={self.labels!s:.100} must be a text for each clip, '' where it is unknown")
        object.__setattr__(self, "labels", None if labels is None else tuple(label or "" for label in labels))

    @classmethod
    def from_batch(cls, clips: Tensor, mask: Tensor | None, *, fps: float, skeleton: Skeleton) -> "Clips":
        """From a training batch: ``(batch, joint, coord, frame)`` clips in metres and ``(batch, 1, 1, frame)`` mask or None."""
        lengths = torch.full((len(clips),), clips.shape[-1]) if mask is None else mask.flatten(1).sum(1).long()
        return cls(clips.permute(0, 3, 1, 2), lengths, fps, skeleton)

    @classmethod
    def whole(cls, positions: Tensor, fps: float, skeleton: Skeleton) -> "Clips":
        """Clips ``(n, frames, joints, coords)`` without padding, as a model samples them."""
        return cls(positions, torch.full((len(positions),), positions.shape[1]), fps, skeleton)

    @classmethod
    def load(cls, path: str | Path, skeleton: Skeleton | None = None, fps: float | None = None) -> "Clips":
        """Read a .npz as `save` writes it, or another with the keys of `datamodules.readers.arrays.read`.

        Args:
            path: of the file, in its ``units``, or else in those of the skeleton.
            skeleton: joints wanted, which are found by name, in any order and as ``data=folder`` finds them, where the file names
                its joints; None takes that of the file; where it has only names and parents, the shipped skeleton with these, or
                one that is made of them, with y up. Clips in pixels, whose bodies are scaled to one size, need one in pixels.
            fps: frames per second if the file has none.

        Raises:
            DataError: a file that is damaged, is of another kind or does not fit the skeleton; without frame rate or, if
                ``skeleton`` is None, joints; with bodies of no plausible size, or with positions that are not finite.
        """
        from datamodules.readers.arrays import read_clips  # reading and drawing lie above, and are loaded only where needed

        return read_clips(Path(path), skeleton, fps)

    def save(
        self, path: str | Path, *, titles: Sequence[str] | None = None, arrays: Mapping[str, np.ndarray] | None = None
    ) -> list[Path]:
        """Write the clips in the format of the ending, each file whole or not at all, and return the files.

        ``.npz``: ``clips`` float32 ``(n, frames, joints, coords)``, ``fps``, ``joint_names``, ``parents`` (-1 for the root),
        ``units``, ``skeleton`` (JSON), ``lengths``; ``seeds`` and ``labels`` if there are any; and the additional ``arrays``.
        ``.gif``, ``.mp4`` (with the extra ``video``): all clips in a grid, under ``titles``, by default seed and label.
        ``.html``: the same as a page to turn, zoom and scrub (`ddpm.viz.viewer.viewer`).
        ``.bvh``: a file a clip, ``NAME_000.bvh`` and so on. ``.glb``: likewise, animated glTF, see `ddpm.viz.gltf.glb`. ``.csv``:
        likewise, ``time_s`` and ``JOINT_x`` and so on in metres.

        Raises:
            ValueError: another ending, what the format cannot hold, such as a BVH file of two dimensions, or, but for pictures,
                numbers that are not finite.
            WriteError: the file cannot be written.
        """
        from ddpm.viz import bvh_out, gltf, render, viewer

        path, positions, lengths = Path(path), self.positions.numpy(), self.lengths.tolist()
        match path.suffix.lower():
            case ".npz":
                self.require_finite()
                if bad := [key for key, values in (arrays or {}).items() if not np.isfinite(values).all()]:
                    raise ValueError(f"{path}: not written, {bad[0]} is not finite: the model has diverged")
                content = io.BytesIO()
                named: dict[str, np.ndarray] = {
                    "fps": np.float64(self.fps),  # type: ignore[dict-item]
                    "joint_names": np.array(self.skeleton.names),
                    "parents": np.array(self.skeleton.parents, dtype=np.int64),
                    "units": np.array("m"),
                    "skeleton": np.array(json.dumps(self.skeleton.to_config())),
                    "lengths": self.lengths.numpy(),
                }
                named |= {} if self.seeds is None else {"seeds": self.seeds.numpy()}
                named |= {} if self.labels is None else {"labels": np.array(self.labels)}
                named |= {"clips": positions.astype(np.float32), **(arrays or {})}
                np.savez_compressed(content, **named)  # pyright: ignore[reportArgumentType]
                write_durably(path, content.getbuffer())
            case ".gif" | ".mp4" as ending:
                titles = self.titles if titles is None else titles
                given = None if self.given is None else self.given.numpy()
                frames = render.draw_clips(positions, self.skeleton, titles=titles, lengths=lengths, given=given, fps=self.fps)
                write_durably(path, (render.gif_bytes if ending == ".gif" else render.mp4_bytes)(frames, self.fps))
            case ".html":
                write_durably(path, viewer.viewer(self, titles, name=path.stem).encode())
            case ".bvh":
                self.require_finite()
                return list(bvh_out.write_bvh_files(path, self))
            case ".glb":
                self.require_finite()
                return gltf.write_glb_files(path, self)
            case ".csv":
                self.require_finite()
                axes = "xyz"[: self.skeleton.coords]
                names = ",".join(["time_s", *(f"{name}_{axis}" for name in self.skeleton.names for axis in axes)])
                for file, clip, length in zip(self.files(path), positions, lengths, strict=True):
                    text = io.StringIO()
                    rows = np.column_stack([np.arange(length) / self.fps, clip[:length].reshape(length, -1)])
                    np.savetxt(text, rows, "%.6f", ",", header=names, comments="")
                    write_durably(file, text.getvalue().encode())
                return self.files(path)
            case ending:
                raise ValueError(f"{path}: unknown ending {ending!r}; clips are written as {', '.join(ENDINGS)}")
        return [path]

    def _repr_html_(self) -> str:
        """How a notebook shows clips: the first 16 as the page that `save` writes."""
        from ddpm.viz import viewer

        page = html.escape(viewer.viewer(self.take(slice(16))))
        return f'<iframe srcdoc="{page}" width="100%" height="480" style="border:0"></iframe>'

    def files(self, path: str | Path) -> list[Path]:
        """``NAME_000.EXT`` and so on, where each clip has a file of its own."""
        path = Path(path)
        return [path.with_name(f"{path.stem}_{k:03d}{path.suffix}") for k in range(len(self))]

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.positions)

    def take(self, index: Tensor | slice) -> "Clips":
        """The clips at ``index``: int64 numbers, a bool for each clip, or a slice."""
        seeds = None if self.seeds is None else self.seeds[index]
        labels = None if self.labels is None else tuple(self.labels[i] for i in torch.arange(len(self))[index].tolist())
        chosen = {"seeds": seeds, "labels": labels, "given": None if self.given is None else self.given[index]}
        return replace(self, positions=self.positions[index], lengths=self.lengths[index], **chosen)

    def replace(self, positions: Tensor) -> "Clips":
        """The same with other positions."""
        return replace(self, positions=positions)

    def of_rate(self, fps: float, source: str) -> "Clips":
        """The same clips with exactly this frame rate, which theirs rounds to; a DataError if it is another one."""
        if not math.isclose(self.fps, fps, rel_tol=1e-3):
            raise DataError(f"{source}: {self.fps:g} frames per second, the real motion has {fps:g}; resample one of them")
        return replace(self, fps=fps)

    def resampled(self, fps: float | None = None, tempo: float = 1.0, cycle: Sequence[int] | None = None) -> "Clips":
        """The same motion at another rate, and faster or slower, from the same first frames (`ddpm.resampling.resample`).

        Args:
            fps: frames per second, None for the present ones.
            tempo: 2 is twice as fast, with half as many frames.
            cycle: of clips whose last frame leads to the first, the coordinates along which the next turn goes on where the last
                one ended; a turn then lasts a whole number of frames. None for clips that end.

        Raises:
            ValueError: a rate that is not in 1..`FASTEST`, or a tempo that is not in 1/`TEMPO`..`TEMPO`.
        """
        fps = self.fps if fps is None else float(fps)
        if fps == self.fps and tempo == 1:
            return self
        if not 1 <= fps <= FASTEST:
            raise ValueError(f"fps={fps} must be in 1..{FASTEST:g} frames per second")
        if not 1 / TEMPO <= tempo <= TEMPO:
            raise ValueError(f"tempo={tempo} must be in {1 / TEMPO:g}..{TEMPO:g}; 2 is twice as fast")
        ratio, made = self.fps * tempo / fps, []
        for padded, length in zip(self.positions.numpy(), self.lengths.tolist(), strict=True):
            clip = padded[:length]
            if cycle is None or length < 2:
                made.append(torch.from_numpy(resample(clip, ratio, 1.0)))
            else:
                made.append(torch.from_numpy(resample_turn(clip, ratio, self.skeleton.root, cycle)))
        lengths = torch.tensor([len(clip) for clip in made])
        given = self.given
        if given is not None:
            given = given[:, (torch.arange(int(lengths.max())) * ratio).round().long().clamp(max=given.shape[1] - 1)]
        return replace(self, positions=pad_sequence(made, batch_first=True), lengths=lengths, fps=fps, given=given)

    @property
    def titles(self) -> list[str] | None:
        """Seed and label of each clip in a line, None if they have neither."""
        seeds = [] if self.seeds is None else [f"seed {seed}" for seed in self.seeds.tolist()]
        return [" ".join(filter(None, pair)) for pair in zip_longest(seeds, self.labels or ())] or None

    def label_codes(self, class_names: Sequence[str]) -> Tensor | None:
        """``(n,)`` int64 index of each label into ``class_names``, -1 where unknown; None if no clip has a label.

        A ValueError for a label that is none of them.
        """
        if self.labels is None:
            return None
        unknown = sorted(set(self.labels) - {"", *class_names})
        if unknown:
            raise ValueError(f"clips: label {unknown[0]!r} is no class of the real motion ({', '.join(class_names[:20])})")
        return torch.tensor([class_names.index(label) if label else -1 for label in self.labels])

    @property
    def finite(self) -> Tensor:
        """``(n,)`` bool, True for the clips of which every position is finite, also as the float32 that files hold."""
        return self.positions.float().isfinite().flatten(1).all(1)

    def require_finite(self) -> "Clips":
        """The same clips; a ValueError names the first position that is not finite."""
        bad = (~self.positions.float().isfinite()).nonzero()
        if len(bad):
            clip, frame, joint, coord = bad[0].tolist()
            raise ValueError(
                f"clips: clip {clip}, frame {frame}, joint {self.skeleton.names[joint]} is at "
                f"{self.positions[clip, frame, joint, coord]}; {len(bad[:, 0].unique())} of {len(self)} clips are not finite: "
                "they are neither written nor measured"
            )
        return self

    @property
    def mask(self) -> Tensor:
        """``(n, frames)`` bool, True for the real frames."""
        return torch.arange(self.positions.shape[1]) < self.lengths[:, None]

    @property
    def heights(self) -> Tensor:
        """``(n, frames, joints)`` metres above the floor, which is at 0."""
        return self.skeleton.up_sign * self.positions[..., self.skeleton.up_axis]

    def derivative(self, order: int) -> tuple[Tensor, Tensor]:
        """Finite differences of consecutive frames: velocity, acceleration, jerk for the orders 1, 2, 3.

        Returns ``(n, frames - order, joints, coords)`` in m/s^order, and ``(n, frames - order)`` bool, True where all frames
        involved are real. A ValueError for a clip too short to have it.
        """
        short = int(self.lengths.min())
        if short <= order:
            raise ValueError(
                f"clips: clip {int(self.lengths.argmin())} has {short} frames; difference number {order} needs {order + 1}"
            )
        return self.positions.diff(order, dim=1) * self.fps**order, self.mask[:, order:]


def frame_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean ``(n, ...)`` float64 of values ``(n, frames, ...)`` over the frames where ``mask`` ``(n, frames)`` is True."""
    weight = mask.double() / mask.sum(1, keepdim=True)
    return (values * weight.reshape(*mask.shape, *[1] * (values.ndim - 2))).sum(1)


def turned(positions: Tensor, skeleton: Skeleton, real: Tensor | None) -> Tensor:
    """Positions turned about the vertical so that the person's left lies along the first ground axis.

    Args:
        positions: ``(n, frames, joints, coords)``; in 2-D, or without left/right pairs, they are returned as they are.
        skeleton: of the joints.
        real: ``(n, frames)`` bool, the frames over which the heading of a clip is averaged; None turns each frame by itself.
    """
    angle = heading(positions, skeleton, real)
    return positions if angle is None else rotated(positions, skeleton, angle)


def heading(positions: Tensor, skeleton: Skeleton, real: Tensor | None) -> Tensor | None:
    """``(n, frames or 1)`` angles of the person's left in the plane of the ground, None where there are none; see `turned`."""
    left, right = skeleton.across
    if skeleton.coords == 2 or not left:
        return None
    a, b = skeleton.ground_axes
    across = (positions[:, :, left] - positions[:, :, right]).sum(dim=2)
    if real is not None:
        # Contiguous, so that the sum does not depend on how positions lie in memory.
        across = (across * real[..., None]).transpose(1, 2).contiguous().sum(dim=2)[:, None]
    return torch.atan2(across[..., b], across[..., a])


def rotated(positions: Tensor, skeleton: Skeleton, angle: Tensor) -> Tensor:
    """Positions turned back about the vertical by angles ``(n, frames or 1)``."""
    a, b = skeleton.ground_axes
    angle = angle[..., None]
    out = positions.clone()
    out[..., a] = angle.cos() * positions[..., a] + angle.sin() * positions[..., b]
    out[..., b] = angle.cos() * positions[..., b] - angle.sin() * positions[..., a]
    return out
