"""ClipSet: recorded motion in memory."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ddpm.errors import DataError
from ddpm.skeleton import Skeleton


@dataclass(frozen=True)
class Recording:
    """One recorded motion, as a reader returns it."""

    positions: np.ndarray  # (frames, joints, coords) float32, in the unit of their file
    source: str  # file name, or generator and number; for messages
    label: str | None = None  # name of the action, None if unknown
    subject: str | None = None  # the person, None if unknown
    joints: tuple[str, ...] | None = None  # name of every joint of positions; None: those of the skeleton, in its order
    fps: float | None = None  # frames per second, None if the file does not say
    confidence: np.ndarray | None = None  # (frames, joints) float32 in 0..1, 0 where a joint was not seen; None: all were seen
    units: str | None = None  # one of `ddpm.skeleton.UNITS`; None: that of the skeleton
    note: str | None = None  # what the reader took for granted
    condition: np.ndarray | None = None  # (width,) float32 that describes it, such as the embedding of a text; None if unknown
    fps_counts: bool = False  # fps is 1 as a column of time goes 0, 1, 2, ...; it may count frames, and data.fps goes first


class Names(Sequence[str | None]):
    """One name per recording, or None: ``(recordings,)`` int64 codes index the sorted values, -1 for None."""

    def __init__(self, values: Sequence[str], codes: Tensor) -> None:
        self.values = values
        self.codes = codes

    @classmethod
    def of(cls, names: Sequence[str | None]) -> "Names":
        """From one name per recording."""
        values = sorted({name for name in names if name is not None})
        index: dict[str | None, int] = {name: i for i, name in enumerate(values)} | {None: -1}
        return cls(tuple(values), torch.tensor([index[name] for name in names], dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, i: int) -> str | None:  # type: ignore[override]  # slices are not needed
        code = int(self.codes[i])
        return None if code < 0 else str(self.values[code])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class ClipSet:
    """Recordings of any length, laid end to end so that a window of any of them is one indexed read."""

    frames: Tensor  # (total_frames, joints, coords) float32 in metres, all recordings one after another
    starts: Tensor  # (recordings,) int64, first row of each recording in frames
    lengths: Tensor  # (recordings,) int64, frames of each recording, at least 1
    labels: Tensor  # (recordings,) int64 index into class_names, -1 where unknown
    subjects: Names  # one name per recording, None where unknown
    sources: Names  # one name per recording, for messages and for splitting by sequence
    class_names: tuple[str, ...]
    fps: float  # frames per second, the same for all
    skeleton: Skeleton
    notes: tuple[str, ...] = ()  # how the recordings were prepared, a sentence each
    flaws: tuple[str, ...] | None = None  # what is wrong with them, a sentence each; None: they were not judged
    conditions: Tensor | None = None  # (recordings, width) float32 vector of each, nan where unknown; None: none has one

    @classmethod
    def from_recordings(
        cls, recordings: Sequence[Recording], *, fps: float, skeleton: Skeleton, notes: Sequence[str] = ()
    ) -> "ClipSet":
        """Lay recordings end to end. Class names are the labels in sorted order.

        Raises:
            DataError: no recordings, or see `check_recording` and `stacked`.
        """
        if not recordings:
            raise DataError("no recordings: nothing to train on")
        for r in recordings:
            check_recording(r, skeleton)
        lengths = torch.tensor([len(r.positions) for r in recordings])
        frames = torch.from_numpy(np.concatenate([r.positions for r in recordings]).astype(np.float32, copy=False))
        labels, subjects, sources = (Names.of([getattr(r, of) for r in recordings]) for of in ("label", "subject", "source"))
        vectors = stacked([r.condition for r in recordings], [r.source for r in recordings])
        starts, classes = torch.cumsum(lengths, 0) - lengths, tuple(labels.values)
        about = (classes, float(fps), skeleton, tuple(notes))
        return cls(frames, starts, lengths, labels.codes, subjects, sources, *about, conditions=vectors)

    def __len__(self) -> int:
        return len(self.sources)

    def recording(self, i: int) -> Tensor:
        """``(frames, joints, coords)`` of recording ``i``, a view."""
        return self.frames[int(self.starts[i]) : int(self.starts[i] + self.lengths[i])]

    def recordings(self) -> Iterator[Recording]:
        """The inverse of `from_recordings`."""
        for i, (source, label, subject) in enumerate(zip(self.sources, self.labels.tolist(), self.subjects, strict=True)):
            vector = None if self.conditions is None or self.conditions[i].isnan().any() else self.conditions[i].numpy()
            name = self.class_names[label] if label >= 0 else None
            yield Recording(self.recording(i).numpy(), source or "", name, subject, condition=vector)

    def fingerprint(self) -> str:
        """SHA-256 of all positions, lengths and vectors, little-endian: the same for the same motion, wherever its files are."""
        digest = hashlib.sha256(self.frames.numpy().astype("<f4").tobytes())
        digest.update(self.lengths.numpy().astype("<i8").tobytes())
        if self.conditions is not None:
            digest.update(self.conditions.numpy().astype("<f4").tobytes())
        return digest.hexdigest()


def with_subjects(clips: ClipSet, pattern: str | None) -> ClipSet:
    """With the people that a regular expression finds in the names of the recordings, ``S(\\d+)``; None changes nothing.

    A person is what the first group matches, or all of it without one. Where nothing matches, it is the one that the file says.

    Raises:
        ValueError: no regular expression.
        DataError: it matches no name.
    """
    if pattern is None:
        return clips
    try:
        found = [re.search(pattern, str(source)) for source in clips.sources.values]
    except re.error as e:
        raise ValueError(f"data.subject={pattern!r} is no regular expression: {e}") from e
    if not any(found):
        raise DataError(f"data.subject={pattern!r} matches no name of a recording, which are as {clips.sources[0]}")
    people = [None if match is None else match[1 if match.re.groups else 0] for match in found]
    own = [people[k] or said for k, said in zip(clips.sources.codes.tolist(), clips.subjects, strict=True)]
    return replace(clips, subjects=Names.of(own))


def stacked(vectors: Sequence[np.ndarray | None], sources: Sequence[str]) -> Tensor | None:
    """``(recordings, width)`` float32 from one ``(width,)`` per recording, nan where it is None; None if all are.

    A `DataError` for several widths, or a value that is not finite.
    """
    if not (known := [(vector, source) for vector, source in zip(vectors, sources, strict=True) if vector is not None]):
        return None
    first, where = known[0]
    for vector, source in known:
        if vector.shape != first.shape or vector.ndim != 1:
            raise DataError(
                f"{source}: condition has the width {vector.size}, and in {where} {first.size}; save all of one width"
            )
        if not np.isfinite(vector).all():
            place = int(np.argmin(np.isfinite(vector)))
            raise DataError(f"{source}: condition, element {place} is {vector[place]}, no finite number; correct or remove it")
    unknown = np.full(first.shape, np.nan, np.float32)
    return torch.from_numpy(np.stack([unknown if vector is None else vector for vector in vectors]).astype(np.float32))


def check_recording(recording: Recording, skeleton: Skeleton) -> None:
    """Raise a `DataError` for a wrong shape, no frames, or a value that is not finite."""
    shape = (len(skeleton.names), skeleton.coords)
    positions = recording.positions
    if positions.ndim != 3 or positions.shape[1:] != shape or len(positions) == 0:
        raise DataError(
            f"{recording.source}: positions have shape {positions.shape}, expected (frames >= 1, {shape[0]} joints, "
            f"{shape[1]} coords); choose the skeleton that matches the data (skeleton=...)"
        )
    if len(bad := np.argwhere(~np.isfinite(positions))):
        frame, joint, _ = bad[0]
        raise DataError(
            f"{recording.source}: frame {frame}, joint {skeleton.names[joint]}: {positions[tuple(bad[0])]} is not a "
            "position; repair or remove the recording"
        )


def anchored(clips: Tensor, skeleton: Skeleton) -> Tensor:
    """Clips ``(batch, joint, coord, frame)``, each moved so that its root starts at the origin of the ground; heights stay."""
    anchor = clips[:, skeleton.root : skeleton.root + 1, :, :1].clone()
    anchor[:, :, skeleton.up_axis] = 0
    return clips - anchor
