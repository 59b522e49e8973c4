"""Clip sets as a directory that is mapped into memory: read where it is needed, whatever its size."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from datamodules.clip_set import ClipSet, Names, Recording, check_recording
from ddpm.errors import DataError
from ddpm.files import write_durably
from ddpm.skeleton import Skeleton

VERSION = 1
READ_IN_FULL = 2**28
"""Bytes that are read from beginning to end in about a second, and so are compared with their checksum."""
FRAMES, INDEX, TEXT, ENDS, META = "frames.npy", "index.npy", "text.npy", "ends.npy", "meta.json"


@dataclass(frozen=True)
class StoredClips(ClipSet):
    """A clip set whose tensors are memory mapped and must not be written to.

    Args:
        directory: where it is. Other processes are sent this path and map the files themselves.
        key: that it was saved with, see `open_store`.
    """

    directory: Path = field(kw_only=True)
    key: str = field(kw_only=True)

    def __reduce__(self) -> tuple[Callable[[Path, str], ClipSet], tuple[Path, str]]:
        """How to make it again."""
        return open_store, (self.directory, self.key)


class _Texts(Sequence[str]):
    """Texts laid end to end in UTF-8, decoded when they are asked for; number i ends before byte ``ends[i]``."""

    def __init__(self, text: np.ndarray, ends: np.ndarray, first: int, number: int) -> None:
        self.text = text
        self.ends = ends
        self.first = first
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, i: int) -> str:  # type: ignore[override]  # slices are not needed
        if not 0 <= i < self.number:
            raise IndexError(i)
        k = self.first + i
        return self.text[self.ends[k - 1] if k else 0 : self.ends[k]].tobytes().decode(errors="surrogatepass")


def store(skeleton: Skeleton, root: str) -> ClipSet:
    """The recordings of a store that `write_store` wrote, of any size.

    Args:
        skeleton: must be the one the store was written with.
        root: its directory.

    Raises:
        DataError: see `open_store`; or another skeleton.
    """
    clips = open_store(Path(root).expanduser())
    if clips.skeleton.to_config() != skeleton.to_config():
        raise DataError(
            f"{root}: written with the joints {list(clips.skeleton.names)}, up={clips.skeleton.up}, and the configuration has "
            f"{list(skeleton.names)}, up={skeleton.up}; choose the skeleton of the store (skeleton=...), or write it anew"
        )
    return clips


def write_store(recordings: Iterable[Recording], directory: str | Path, *, fps: float, skeleton: Skeleton) -> ClipSet:
    """Write recordings one after another, and open what was written. Never more than one of them is in memory.

    Args:
        recordings: any number; they may be made while they are asked for.
        directory: a new one. It appears when all is on the disk.
        fps: frames per second, the same for all.
        skeleton: what the joints are.

    Returns:
        The clip set that `ClipSet.from_recordings` would make of them.

    Raises:
        DataError: no recordings, a recording that cannot be used, or a directory that is there already.
    """
    lengths, labels, subjects, sources = [], [], [], []

    def positions() -> Iterator[np.ndarray]:
        for r in recordings:
            check_recording(r, skeleton)
            for names, name in ((labels, r.label), (subjects, r.subject), (sources, r.source)):
                names.append(name)
            lengths.append(len(r.positions))
            yield r.positions

    with _staged(Path(directory)) as stage:
        _write_frames(stage / FRAMES, positions(), (len(skeleton.names), skeleton.coords))
        if not lengths:
            raise DataError(f"{directory}: no recordings: nothing to write")
        length, label = torch.tensor(lengths), Names.of(labels)
        columns = (torch.cumsum(length, 0) - length, length, label.codes)
        _write_rest(stage, columns, Names.of(subjects), Names.of(sources), label.values, float(fps), skeleton, "", ())
    return open_store(directory)


def save_store(clips: ClipSet, directory: str | Path, key: str = "") -> None:
    """Write a clip set that is in memory.

    Args:
        clips: what to write.
        directory: a new one. It appears when all is on the disk.
        key: kept in it, see `open_store`.

    Raises:
        DataError: a directory that is there already.
    """
    with _staged(Path(directory)) as stage:
        _write_frames(stage / FRAMES, [clips.frames.numpy()], tuple(clips.frames.shape[1:]))
        columns = (clips.starts, clips.lengths, clips.labels)
        _write_rest(stage, columns, clips.subjects, clips.sources, clips.class_names, clips.fps, clips.skeleton, key, clips.notes)


def open_store(directory: str | Path, key: str = "") -> StoredClips:
    """Map a store into memory after looking at it: no file of it can run code.

    Checksums are compared of all files up to 256 MB; of larger ones, shape and size.

    Args:
        directory: that `write_store` or `save_store` wrote.
        key: that it must have been saved with.

    Raises:
        DataError: no store, one of another version or key, or a damaged one.
    """
    directory = Path(directory)
    remedy = "write the store again"
    try:
        document = json.loads((directory / META).read_bytes())
        meta = document["content"]
        if document["sha256"] != _digest(meta):
            raise DataError(f"{directory / META}: fails its checksum; {remedy}")
        if (meta["version"], meta["key"]) != (VERSION, key):
            raise DataError(f"{directory}: of version {meta['version']} and key {meta['key']!r}; expected {VERSION}, {key!r}")
        arrays = {name: _map(directory / name, expected) for name, expected in meta["files"].items()}
        skeleton = Skeleton(**meta["skeleton"])
        frames, index, text, ends = (arrays[name] for name in (FRAMES, INDEX, TEXT, ENDS))
        subjects = meta["subjects"]
        if meta["shape"] != [list(a.shape) for a in (frames, index, text, ends)]:
            raise DataError(f"{directory}: its arrays have other shapes than {meta['shape']}; {remedy}")
        start, length, label, subject, source = _tensor(index).unbind(1)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(
            f"{directory}: no store of clips: there is no {error.filename}; see datamodules.sets.store.write_store"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{directory}: damaged ({error}); {remedy}") from error
    return StoredClips(
        frames=_tensor(frames), starts=start, lengths=length, labels=label,
        subjects=Names(_Texts(text, ends, 0, subjects), subject),
        sources=Names(_Texts(text, ends, subjects, len(ends) - subjects), source),
        class_names=tuple(meta["class_names"]), fps=meta["fps"], skeleton=skeleton,
        notes=tuple(meta["notes"]), directory=directory, key=key,
    )  # fmt: skip


@contextlib.contextmanager
def _staged(directory: Path) -> Iterator[Path]:
    """A directory to write into, which takes its final name when all went well and is gone otherwise."""
    if directory.exists():
        raise DataError(f"{directory}: is there already; remove it, or choose another directory")
    stage = directory.with_name(f".{directory.name}.tmp-{uuid.uuid4().hex}")
    stage.mkdir(parents=True)
    try:
        yield stage
        os.replace(stage, directory)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _write_frames(path: Path, pieces: Iterable[np.ndarray], shape: tuple[int, ...]) -> None:
    """A .npy file whose first axis is as long as all pieces together: its header has room for the number, written last."""
    with path.open("wb") as file:
        _write_header(file, (0, *shape))
        total = 0
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, dtype="<f4").data)
            total += len(piece)
        file.seek(0)
        _write_header(file, (total, *shape))
        file.flush()
        os.fsync(file.fileno())


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})


def _write_rest(
    stage: Path,
    columns: Sequence[Tensor],
    subjects: Names,
    sources: Names,
    class_names: Sequence[str],
    fps: float,
    skeleton: Skeleton,
    key: str,
    notes: Sequence[str],
) -> None:
    """Everything but the frames; meta.json, which says that all is there, comes last."""
    texts = [value.encode(errors="surrogatepass") for names in (subjects, sources) for value in names.values]
    arrays = {
        INDEX: torch.stack([*columns, subjects.codes, sources.codes], dim=1).numpy().astype("<i8", copy=False),
        TEXT: np.frombuffer(b"".join(texts), dtype=np.uint8),
        ENDS: np.cumsum([len(text) for text in texts], dtype="<i8"),
    }
    for name, array in arrays.items():
        content = io.BytesIO()
        np.save(content, array, allow_pickle=False)
        write_durably(stage / name, content.getbuffer())
    sizes = {name: (stage / name).stat().st_size for name in (FRAMES, *arrays)}
    files = {n: {"bytes": size, "sha256": _sha256(stage / n) if size <= READ_IN_FULL else None} for n, size in sizes.items()}
    frames = np.load(stage / FRAMES, mmap_mode="r", allow_pickle=False)
    meta = {
        "version": VERSION,
        "key": key,
        "files": files,
        "shape": [list(array.shape) for array in (frames, *arrays.values())],
        "subjects": len(subjects.values),
        "class_names": list(class_names),
        "fps": fps,
        "skeleton": skeleton.to_config(),
        "notes": list(notes),
    }
    write_durably(stage / META, json.dumps({"sha256": _digest(meta), "content": meta}, indent=1).encode())


def _map(path: Path, expected: Mapping[str, Any]) -> np.ndarray:
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise DataError(f"{path}: has {size} bytes, expected {expected['bytes']}; it was cut short or changed, write it again")
    if size <= READ_IN_FULL and _sha256(path) != expected["sha256"]:
        raise DataError(f"{path}: fails its checksum; it was damaged or changed, write it again")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _tensor(array: np.ndarray) -> Tensor:
    """A tensor on mapped memory. Mapped for reading only: memory that could be written must be there, as Linux counts it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
