"""A clip set as a directory whose files are mapped into memory: read where needed, whatever their size."""

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from datamodules.clip_set import ClipSet, Names, Recording, check_recording, stacked, with_subjects
from datamodules.outliers import SET, outliers_among
from ddpm.errors import DataError
from ddpm.files import write_durably
from ddpm.skeleton import Skeleton

VERSION = 2
READ_IN_FULL = 2**28  # bytes that are read from beginning to end in about a second, and so compared with their checksum
FRAMES, INDEX, SUBJECTS, SOURCES, META = "frames.f4", "index.npy", "subjects.npy", "sources.npy", "meta.json"
CONDITIONS = "conditions.npy"  # where recordings have vectors


@dataclass(frozen=True)
class StoredClips(ClipSet):
    """A clip set whose tensors are mapped read-only from a directory; pickled as the path, so that processes share the files."""

    directory: Path = field(kw_only=True)

    def __reduce__(self) -> tuple[Callable[[Path], ClipSet], tuple[Path]]:
        return open_store, (self.directory,)


def store(skeleton: Skeleton, root: str, subject: str | None = None, on_outlier: Literal["refuse", "keep"] = "refuse") -> ClipSet:
    """The recordings that `write_store` wrote to a directory.

    Args:
        subject: see `datamodules.clip_set.with_subjects`.
        on_outlier: if the store has no recorded flaws, whether bodies of another size than the others, or along another axis,
            are refused, or kept.

    Raises:
        DataError: no store, another skeleton, outliers to refuse, or see `datamodules.clip_set.with_subjects`.
        ValueError: neither refuse nor keep.
    """
    if on_outlier not in ("refuse", "keep"):
        raise ValueError(f"data.on_outlier={on_outlier} must be refuse or keep")
    clips = open_store(Path(root).expanduser())
    if clips.skeleton.to_config() != skeleton.to_config():
        raise DataError(
            f"{root}: written with the joints {list(clips.skeleton.names)}, up={clips.skeleton.up}, and the configuration has "
            f"{list(skeleton.names)}, up={skeleton.up}; choose the skeleton of the store (skeleton=...), or write it anew"
        )
    if clips.flaws is None and on_outlier == "refuse" and (severe := outliers_among(clips).severe):
        raise DataError(
            f"{root}: {'; '.join(flaw.split(SET)[0] for flaw in severe)}; correct the recordings and write them anew, or set "
            "data.on_outlier=keep to take them as they are"
        )
    return with_subjects(clips, subject)


def write_store(
    recordings: Iterable[Recording],
    directory: str | Path,
    *,
    fps: float,
    skeleton: Skeleton,
    notes: Sequence[str] = (),
    flaws: Sequence[str] | None = None,
) -> StoredClips:
    """`ClipSet.from_recordings` with only one recording in memory at a time. The new directory appears when it is complete.

    A `DataError` for no recordings, a recording that cannot be used, or an existing directory.
    """
    directory = Path(directory)
    if directory.exists():
        raise DataError(f"{directory}: is there already; remove it, or choose another directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    rows, vectors = [], []
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.tmp-", dir=directory.parent) as temporary:
        stage = Path(temporary, directory.name)
        stage.mkdir()
        with (stage / FRAMES).open("wb") as file:
            for r in recordings:
                check_recording(r, skeleton)
                file.write(np.ascontiguousarray(r.positions, dtype="<f4").data)
                rows.append((len(r.positions), r.label, r.subject, r.source))
                vectors.append(r.condition)
            file.flush()
            os.fsync(file.fileno())
        if not rows:
            raise DataError(f"{directory}: no recordings: nothing to write")
        lengths, *columns = zip(*rows, strict=True)
        length = torch.tensor(lengths)
        labels, subjects, sources = (Names.of(column) for column in columns)
        index = torch.stack([length.cumsum(0) - length, length, labels.codes, subjects.codes, sources.codes], dim=1)
        arrays = {INDEX: index.numpy().astype("<i8", copy=False)}
        arrays |= {SUBJECTS: np.array(subjects.values, dtype=str), SOURCES: np.array(sources.values, dtype=str)}
        if (conditions := stacked(vectors, columns[2])) is not None:
            arrays[CONDITIONS] = conditions.numpy().astype("<f4", copy=False)
        for name, array in arrays.items():
            np.save(stage / name, array)
        meta: dict[str, Any] = {"version": VERSION, "files": {n: _size_and_checksum(stage / n) for n in (FRAMES, *arrays)}}
        meta |= {"class_names": labels.values, "fps": float(fps), "skeleton": skeleton.to_config(), "notes": tuple(notes)}
        meta |= {"flaws": None if flaws is None else tuple(flaws)}
        meta["sha256"] = hashlib.sha256(json.dumps(meta).encode()).hexdigest()
        write_durably(stage / META, json.dumps(meta, indent=1).encode())
        os.replace(stage, directory)
    return open_store(directory)


def open_store(directory: str | Path) -> StoredClips:
    """Map a store into memory; a `DataError` if there is none, or it has another version or is damaged.

    Files up to 256 MB are compared with their checksums, larger ones with their size.
    """
    directory = Path(directory)
    try:
        meta = json.loads((directory / META).read_bytes())
        if meta.pop("sha256") != hashlib.sha256(json.dumps(meta).encode()).hexdigest():
            raise ValueError(f"{META} fails its checksum")
        if meta["version"] != VERSION:
            raise ValueError(f"it has version {meta['version']}, expected {VERSION}")
        for name, expected in meta["files"].items():
            if name not in (FRAMES, INDEX, SUBJECTS, SOURCES, CONDITIONS) or not (directory / name).is_file():
                raise ValueError(f"{name} is no file of a store")
            if _size_and_checksum(directory / name) != expected:
                raise ValueError(f"{name} was cut short or changed")
        skeleton = Skeleton(**meta["skeleton"])
        frames = np.memmap(directory / FRAMES, dtype="<f4", mode="r").reshape(-1, len(skeleton.names), skeleton.coords)
        index, subjects, sources = (np.load(directory / name, mmap_mode="r") for name in (INDEX, SUBJECTS, SOURCES))
        places = np.asarray(index)
        rows, kinds = len(frames), (len(meta["class_names"]), len(subjects), len(sources))
        if (
            not np.issubdtype(places.dtype, np.int64) or places.ndim != 2 or places.shape[1] != 5 or not len(places)
            or places[:, 0].min() < 0 or places[:, 1].min() < 1 or (places[:, 0] > rows - places[:, 1]).any()
            or places[:, 2:].min() < -1 or (places[:, 2:] >= kinds).any() or {subjects.dtype.kind, sources.dtype.kind} != {"U"}
        ):  # fmt: skip
            raise ValueError(f"{INDEX} names frames, labels or names that are not there")
        if not isinstance(meta["fps"], float) or not 0 < meta["fps"] < np.inf:
            raise ValueError(f"fps is {meta['fps']!r}")
        if not all(isinstance(text, str) for key in ("class_names", "notes", "flaws") for text in meta.get(key) or ()):
            raise ValueError(f"class_names, notes and flaws of {META} must be texts")
        # Mapped writable, Linux would count all of it as memory in use.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            start, length, label, subject, source = torch.from_numpy(index).unbind(1)
            return StoredClips(
                torch.from_numpy(frames), start, length, label, Names(subjects, subject), Names(sources, source),
                tuple(meta["class_names"]), meta["fps"], skeleton, tuple(meta["notes"]),
                None if meta.get("flaws") is None else tuple(meta["flaws"]), directory=directory,
                conditions=torch.from_numpy(np.load(directory / CONDITIONS)) if CONDITIONS in meta["files"] else None,
            )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = "Python objects" if "pickle" in str(error) else error  # not NumPy's advice to load them
        raise DataError(f"{directory}: no usable store of clips ({reason}); write it with {__name__}.write_store") from error


def _size_and_checksum(path: Path) -> list[int | str | None]:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        return [size, hashlib.file_digest(file, "sha256").hexdigest() if size <= READ_IN_FULL else None]
