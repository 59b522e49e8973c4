"""NumPy files: ``.npy`` with one clip or several, ``.npz`` with names, lengths and labels besides, as ``sample.py`` writes it."""

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch

from datamodules.clip_set import Recording
from datamodules.joints import presets
from datamodules.readers.files import read_bytes
from ddpm.clips import Clips
from ddpm.errors import DataError
from ddpm.skeleton import UNITS, Skeleton

CLIPS = ("clips", "positions", "keypoints", "arr_0")
"""Names under which an .npz may hold the positions."""
KEYS = ("lengths", "fps", "joint_names", "labels", "class_names", "subjects", "confidence", "units")
MAX_BYTES = 4 << 30
MAX_RATIO, UNSUSPICIOUS = 100, 64 << 20
"""An archive that grows more than so many times, and beyond so many bytes, is no motion: zeros packed to fill the memory."""
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
BROKEN = (
    *(ValueError, TypeError, SyntaxError, OverflowError, MemoryError, RecursionError, RuntimeError, EOFError, OSError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError, NotImplementedError, KeyError, IndexError),
)
"""What NumPy and zipfile raise on damaged input."""


def read(path: Path, coords: int = 3) -> list[Recording]:
    """The clips of a file.

    ``.npy``: ``(frames, joints, coords)``, ``(clips, frames, joints, coords)`` or ``(frames, joints * coords)``. ``.npz``: that
    as ``clips`` or ``positions`` and, each optional, ``lengths`` ``(clips,)`` the frames that count, ``fps``, ``joint_names``
    ``(joints,)``, ``labels`` ``(clips,)`` text, or numbers that may index ``class_names``, ``subjects`` ``(clips,)`` text or
    numbers, in both of which the number -1 is unknown; ``confidence`` ``(clips, frames, joints)``, ``units``; others are ignored.

    Raises:
        DataError: the file is damaged, holds Python objects, promises more than it has, or its arrays do not fit together.
    """
    return _recordings(path, _arrays(path), coords)


def read_clips(path: Path, skeleton: Skeleton | None = None, fps: float | None = None) -> Clips:
    """The clips of a .npz in metres; for the arguments and errors see `ddpm.clips.Clips.load`."""
    if path.suffix.lower() != ".npz":
        raise DataError(f"{path}: clips are read from .npz; other motion is data for data=folder")
    arrays = _arrays(path, ("parents", "seeds"))
    recordings = _recordings(path, arrays, 0 if skeleton is None else skeleton.coords)
    first, n = recordings[0], len(recordings)
    joints, coords = first.positions.shape[1:]
    scale = UNITS[first.units or "m"]
    if scale is None:
        known = ", ".join(unit for unit, metres in UNITS.items() if metres is not None)
        raise DataError(f"{path}: units {first.units!r} are no length; expected one of {known}; convert the file")
    rate = fps if first.fps is None else first.fps
    if rate is None:
        raise DataError(f"{path}: does not say its frame rate; save fps with it, or give fps=")
    seeds = arrays.get("seeds")
    if seeds is not None and (
        seeds.dtype.kind not in "iu" or seeds.shape != (n,) or not 0 <= int(seeds.min()) <= int(seeds.max()) < 2**63
    ):
        raise DataError(f"{path}: seeds must be {n} whole numbers in 0..2^63-1, found {seeds.tolist()}")
    try:
        skeleton = _skeleton(path, first, arrays.get("parents")) if skeleton is None else skeleton
        names = first.joints or skeleton.names
        missing = [name for name in skeleton.names if name not in names]
        if coords != skeleton.coords:
            raise DataError(
                f"{path}: {coords} coordinates per joint, the skeleton has {skeleton.coords}; give the skeleton of the file"
            )
        if first.joints is None and joints != len(skeleton.names):
            raise DataError(
                f"{path}: {joints} joints without names, the skeleton has {len(skeleton.names)} joints; save joint_names too"
            )
        if missing or len(set(names)) != joints:
            raise DataError(
                f"{path}: its joints are {list(names)}, of which each needs a name of its own, and {missing} of the skeleton are "
                "missing"
            )
        positions = torch.zeros(
            n, arrays["clips"].shape[arrays["clips"].ndim == 4], len(skeleton.names), coords, dtype=torch.float64
        )
        order = [names.index(name) for name in skeleton.names]
        for clip, recording in zip(positions, recordings, strict=True):
            clip[: len(recording.positions)] = torch.from_numpy(recording.positions[:, order].astype(np.float64) * scale)
        return Clips(
            positions,
            torch.tensor([len(recording.positions) for recording in recordings]),
            rate,
            skeleton,
            None if seeds is None else torch.from_numpy(seeds.astype(np.int64)),
            tuple(recording.label or "" for recording in recordings) if "labels" in arrays else None,
        ).require_finite()
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _skeleton(path: Path, recording: Recording, parents: np.ndarray | None) -> Skeleton:
    """The skeleton that a file describes: the shipped one with these joints, or one with nothing but names and parents."""
    names, coords = recording.joints, recording.positions.shape[2]
    if names is None or parents is None:
        raise DataError(f"{path}: does not say its joint_names and parents; give skeleton=")
    if parents.dtype.kind not in "iu" or parents.shape != (len(names),) or parents.min() < -1 or parents.max() >= len(names):
        raise DataError(f"{path}: parents must be {len(names)} indices of joints, -1 for the root, found {parents.tolist()[:30]}")
    for preset in presets().values():
        if (preset.names, preset.parents, preset.coords) == (names, tuple(parents.tolist()), coords):
            return preset
    return Skeleton({name: None if k < 0 else names[k] for name, k in zip(names, parents, strict=True)}, coords=coords)


def _arrays(path: Path, more: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of a file that have a meaning, and those named in ``more``, each checked before it is unpacked."""
    content = read_bytes(path, MAX_BYTES)
    try:
        if path.suffix.lower() == ".npz":
            return _unpack(content, path, more)
        return {"clips": _array(io.BytesIO(content), len(content), str(path))}
    except DataError:
        raise
    except BROKEN as e:
        raise DataError(f"{path}: no sound NumPy file ({str(e).splitlines()[0][:80] if str(e) else type(e).__name__}); "
                        "it is damaged or truncated, replace or remove it") from e  # fmt: skip


def _unpack(content: bytes, path: Path, more: Sequence[str]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        total = sum(member.file_size for member in archive.infolist())
        if total > MAX_BYTES or (total > UNSUSPICIOUS and total > MAX_RATIO * len(content)):
            raise DataError(
                f"{path}: {len(content)} bytes that unpack to {total}; at most {MAX_BYTES} are read, and at most {MAX_RATIO} "
                "times the size of the file; remove it"
            )
        name = next((name for name in CLIPS if name in members), None)
        if name is None:
            raise DataError(
                f"{path}: holds {sorted(members)[:20]}, none of them {' or '.join(CLIPS[:2])}; save the positions (frames, "
                "joints, coords) under one of these names"
            )
        arrays = {}
        for key, source in {"clips": name, **{key: key for key in (*KEYS, *more) if key in members}}.items():
            with archive.open(members[source]) as stream:
                arrays[key] = _array(stream, members[source].file_size, f"{path}: {source}")
        return arrays


def _array(stream: IO[bytes], size: int, where: str) -> np.ndarray:
    """The array of a stream in NumPy's format with ``size`` bytes, refused before it is read if its header lies."""
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise DataError(f"{where}: version {version} of the NumPy format; save it again with numpy.save")
    shape, fortran, dtype = HEADERS[version](stream)
    if dtype.hasobject or dtype.kind not in "fiubUS":
        raise DataError(
            f"{where}: holds {dtype}, which is not read since Python objects can run code; save plain numbers, e.g. "
            "numpy.save(path, numpy.asarray(x, dtype='float32'))"
        )
    promised, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if promised != there or any(length < 0 for length in shape):
        raise DataError(
            f"{where}: its header promises {shape}, {promised} bytes, but {there} are there; it is damaged, replace it"
        )
    if promised == 0:
        return np.empty(shape, dtype) if max(shape, default=0) <= 1 << 20 else np.empty(0, dtype)
    return np.frombuffer(stream.read(promised), dtype).reshape(shape, order="F" if fortran else "C")


def _recordings(path: Path, arrays: Mapping[str, np.ndarray], coords: int) -> list[Recording]:
    """One recording per clip, all arrays checked against each other."""
    clips = arrays["clips"]
    if clips.dtype.kind not in "fiu":
        raise DataError(f"{path}: positions are {clips.dtype}, expected numbers")
    if clips.ndim == 2 and coords > 0 and clips.shape[1] % coords == 0:
        clips = clips.reshape(len(clips), -1, coords)
    if clips.ndim not in (3, 4) or clips.size == 0:
        features = " (HumanML3D: use new_joints, not new_joint_vecs)" if clips.ndim == 2 and clips.shape[1] in (251, 263) else ""
        raise DataError(
            f"{path}: positions have shape {clips.shape}, expected (frames, joints, coords), (clips, frames, joints, coords) or "
            f"(frames, joints * {coords}), not empty{features}"
        )
    single = clips.ndim == 3
    clips = clips[None] if single else clips
    n, frames, joints = clips.shape[:3]
    lengths = arrays.get("lengths", np.full(n, frames)).reshape(-1)
    if lengths.dtype.kind not in "iu" or len(lengths) != n or lengths.min() < 1 or lengths.max() > frames:
        raise DataError(f"{path}: lengths must be {n} whole numbers from 1 to {frames}, found {lengths.tolist()[:5]}")
    fps = arrays.get("fps")
    if fps is not None and (fps.dtype.kind not in "fiu" or fps.size != 1):
        raise DataError(f"{path}: fps must be one number, found {fps.dtype} {fps.shape}")
    names = tuple(_texts(arrays["joint_names"])) if "joint_names" in arrays else None
    if names is not None and len(names) != joints:
        raise DataError(f"{path}: joint_names holds {len(names)} names for {joints} joints")
    confidence = arrays.get("confidence")
    if confidence is not None:
        if confidence.dtype.kind not in "fiub" or confidence.size != n * frames * joints:
            raise DataError(f"{path}: confidence has shape {confidence.shape}, expected {(n, frames, joints)[single:]}")
        confidence = confidence.reshape(n, frames, joints).astype(np.float32)
    units = _texts(arrays["units"])[0] if arrays.get("units", np.empty(0)).size == 1 else None
    if units is not None and units not in UNITS:
        raise DataError(f"{path}: units {units!r} are no length; expected one of {', '.join(UNITS)}; correct the file")
    labels, subjects = (_column(path, arrays, key, n) for key in ("labels", "subjects"))
    with np.errstate(over="ignore"):  # what becomes infinite is named later, with its frame and joint
        positions = [clip[:length].astype(np.float32) for clip, length in zip(clips, lengths, strict=True)]
    return [
        Recording(
            positions[k],
            path.name if single else f"{path.name}, clip {k}",
            labels[k],
            subjects[k],
            joints=names,
            fps=None if fps is None else float(fps.reshape(())),
            confidence=None if confidence is None else confidence[k, : lengths[k]],
            units=units,
        )
        for k in range(n)
    ]


def _column(path: Path, arrays: Mapping[str, np.ndarray], key: str, n: int) -> list[str | None]:
    """``labels`` or ``subjects``: a name for each of the ``n`` clips, None where unknown."""
    if key not in arrays:
        return [None] * n
    values = arrays[key].reshape(-1)
    if len(values) != n:
        raise DataError(f"{path}: {key} holds {len(values)} values for {n} clips")
    unknown = values == -1 if values.dtype.kind in "if" else np.zeros(n, bool)
    if key == "labels" and "class_names" in arrays and values.dtype.kind in "iu":
        names = _texts(arrays["class_names"])
        if values.min() < -1 or values.max() >= len(names):
            raise DataError(f"{path}: labels go from {values.min()} to {values.max()}, class_names has {len(names)}")
        return [None if no else names[value] for value, no in zip(values, unknown, strict=True)]
    return [None if no or text in ("", "None") else text for text, no in zip(_texts(values), unknown, strict=True)]


def _texts(values: np.ndarray) -> list[str]:
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values.reshape(-1)]
