"""NumPy files: ``.npy`` with one clip or several, ``.npz`` with names, lengths and labels besides, as ``sample.py`` writes it."""

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from datamodules.clip_set import Recording
from datamodules.joints import plan, presets
from datamodules.outliers import BODY, SIZES
from datamodules.readers.numpy_file import read_arrays
from ddpm.clips import Clips
from ddpm.errors import DataError
from ddpm.skeleton import UNITS, Skeleton

FEATURES = {251: "KIT-ML", 263: "HumanML3D"}
SPELLINGS = {
    f"{prefix}{word}": unit
    for unit, prefix in {"m": "", "dm": "deci", "cm": "centi", "mm": "milli"}.items()
    for word in ("meter", "meters", "metre", "metres")
} | {"inch": "in", "inches": "in", "foot": "ft", "feet": "ft", "pixel": "px", "pixels": "px"}
LARGEST = 10 * SIZES[1]
"""Metres along the bones beyond which the unit of clips is wrong: bodies that a poor model sampled may be large."""
MAX_CROWD, MIN_CROWDED = 3, 20  # so few frames in so many clips are bodies in frames


def read(path: Path, coords: int = 3, joints: Collection[int] = ()) -> list[Recording]:
    """The clips of a file.

    ``.npy``: ``(frames, joints, coords)``, ``(clips, frames, joints, coords)``, ``(frames, joints * coords)``, or, as in the
    results of MDM, ``(clips, joints, coords, frames)``. ``.npz``: that under one of the names in ``CLIPS`` and, each optional,
    ``lengths`` ``(clips,)`` the frames that count, ``fps``, ``joint_names`` ``(joints,)``, ``labels`` ``(clips,)`` text, or
    numbers that may index ``class_names``, ``subjects`` ``(clips,)`` text or numbers, in both of which the number -1 is unknown;
    ``confidence`` ``(clips, frames, joints)``, ``units``, ``condition`` ``(clips, width)``, of one clip also ``(width,)``, what
    describes it; others are ignored.

    Args:
        coords: numbers per joint where a frame is a row of numbers.
        joints: numbers of joints that are expected, by which the axes of an array are told where names do not.

    Raises:
        DataError: the file is damaged, holds Python objects, promises more than it has, or its arrays do not fit together.
    """
    return _recordings(path, read_arrays(path), coords, joints)


def read_vectors(path: Path) -> torch.Tensor:
    """The numbers of an .npy, of any shape, as float32; a DataError for any other file."""
    values = read_arrays(path)["clips"] if path.suffix.lower() == ".npy" else None
    if values is None or values.dtype.kind not in "fiu":
        raise DataError(f"{path}: vectors are numbers in a .npy; save them with numpy.save")
    return torch.from_numpy(values.astype(np.float32))


def read_clips(path: Path, skeleton: Skeleton | None = None, fps: float | None = None) -> Clips:
    """The clips of a .npz in metres; for the arguments and errors see `ddpm.clips.Clips.load`."""
    if path.suffix.lower() != ".npz":
        raise DataError(f"{path}: clips are read from .npz; other motion is data for data=folder")
    arrays = read_arrays(path, ("parents", "seeds", "skeleton"))
    expected = () if skeleton is None else (len(skeleton.names),)
    recordings = _recordings(path, arrays, 0 if skeleton is None else skeleton.coords, expected)
    first, n = recordings[0], len(recordings)
    rate = fps if first.fps is None else first.fps
    if rate is None:
        raise DataError(f"{path}: does not say its frame rate; save fps with it, or give fps=")
    seeds = arrays.get("seeds")
    if seeds is not None and (
        seeds.dtype.kind not in "iu" or seeds.shape != (n,) or not 0 <= int(seeds.min()) <= int(seeds.max()) < 2**63
    ):
        raise DataError(f"{path}: seeds must be {n} whole numbers in 0..2^63-1, found {seeds.reshape(-1)[:5].tolist()}")
    try:
        skeleton = _skeleton(path, first, arrays.get("parents"), arrays.get("skeleton")) if skeleton is None else skeleton
        if UNITS[first.units or skeleton.units] is None and skeleton.units != "px":
            known = ", ".join(unit for unit, metres in UNITS.items() if metres is not None)
            raise DataError(f"{path}: units {first.units!r} are no length; expected one of {known}; convert the file")
        weights = plan(replace(first, source=str(path)), skeleton, {})[0].astype(np.float64)
        lengths = [len(recording.positions) for recording in recordings]
        positions = torch.zeros(n, max(lengths), len(skeleton.names), skeleton.coords, dtype=torch.float64)
        sizes = []
        for clip, recording in zip(positions, recordings, strict=True):
            finite = np.asarray(np.isfinite(recording.positions).all(-1))
            found = weights @ np.where(finite[..., None], recording.positions, 0).astype(np.float64)
            found[np.asarray(~finite @ (weights.T > 0))] = np.nan  # and not where another joint of the file is not finite
            size = _size(found, skeleton)
            metres = UNITS[first.units or skeleton.units] or BODY / (size or BODY)
            clip[: len(found)] = torch.from_numpy(found * metres)
            sizes.append(size * metres)
        size = float(np.median(sizes))
        if size > 0 and len(skeleton.names) > 2 and not SIZES[0] <= size <= LARGEST:
            raise DataError(
                f"{path}: half of the bodies are {'over' if size > 1 else 'under'} {size:.3g} m along their bones, expected "
                f"{SIZES[0]} to {LARGEST:g} m; {first.units or skeleton.units} was taken as their unit, save units with the clips"
            )
        numbers = None if seeds is None else torch.from_numpy(seeds.astype(np.int64))
        labels = tuple(recording.label or "" for recording in recordings) if "labels" in arrays else None
        return Clips(positions, torch.tensor(lengths), rate, skeleton, numbers, labels).require_finite()
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def _size(positions: np.ndarray, skeleton: Skeleton) -> float:
    """The longest way along the bones from the root, in the unit of the positions ``(frames, joints, coords)``."""
    ways = dict.fromkeys([skeleton.root], 0.0)
    while len(ways) < len(skeleton.names):  # a parent may come after its child
        for child, parent in skeleton.bones:
            if parent in ways and child not in ways:
                long = np.percentile(np.linalg.norm(positions[:, child] - positions[:, parent], axis=-1), 90)
                ways[child] = ways[parent] + float(long)
    return max(ways.values())


def _skeleton(path: Path, recording: Recording, parents: np.ndarray | None, described: np.ndarray | None) -> Skeleton:
    """The skeleton that a file describes: whole, or as names and parents, for which a shipped one is taken if there is one."""
    names, coords = recording.joints, recording.positions.shape[2]
    if described is not None:
        try:
            skeleton = Skeleton(**json.loads(_texts(described)[0]))
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            raise DataError(f"{path}: its skeleton cannot be built ({error}); give skeleton=, or save the clips anew") from error
        if (skeleton.names, skeleton.coords) != (names, coords):
            raise DataError(f"{path}: its skeleton has other joints than joint_names and clips; give skeleton=")
        return skeleton
    if names is None or parents is None:
        raise DataError(f"{path}: does not say its joint_names and parents; give skeleton=")
    if parents.dtype.kind not in "iu" or parents.shape != (len(names),) or parents.min() < -1 or parents.max() >= len(names):
        found = parents.reshape(-1)[:30].tolist()
        raise DataError(f"{path}: parents must be {len(names)} indices of joints, -1 for the root, found {found}")
    for preset in presets().values():
        if (preset.names, preset.parents, preset.coords) == (names, tuple(parents.tolist()), coords):
            return preset
    return Skeleton({name: None if k < 0 else names[k] for name, k in zip(names, parents, strict=True)}, coords=coords)


def _laid_out(path: Path, clips: np.ndarray, coords: int, joints: Collection[int]) -> np.ndarray:
    """Positions of any known order of axes as ``(frames, joints, coords)``, or that with the clips before."""
    shape = clips.shape
    if clips.ndim > 1 and shape[-1] in FEATURES:
        raise DataError(
            f"{path}: positions have shape {shape}: {shape[-1]} numbers a frame are the features of {FEATURES[shape[-1]]}, "
            "velocities "
            "and rotations; use new_joints, not new_joint_vecs (recover_from_ric of HumanML3D makes the one of the other)"
        )
    if clips.ndim == 2 and shape[1] == coords and len(clips) in joints and 1 not in joints:
        return clips[None]  # one pose
    if clips.ndim == 2 and coords > 0 and shape[1] % coords == 0:
        return clips.reshape(len(clips), -1, coords)
    if clips.ndim in (3, 4) and shape[-1] not in (2, 3) and shape[-2] in (2, 3):
        first, last = shape[-3] in joints, shape[-1] in joints
        if first and last:
            raise DataError(
                f"{path}: positions have shape {shape}, where {shape[-3]} or {shape[-1]} may be the joints; save them as "
                "(frames, joints, coords): numpy.moveaxis(x, -1, -3) if the joints are first, x.swapaxes(-1, -2) if they are last"
            )
        return clips.swapaxes(-1, -2) if last else np.moveaxis(clips, -1, -3)
    if clips.ndim not in (3, 4) or clips.size == 0:
        graph = " (N, C, T, V, M of ST-GCN: x.transpose(0, 4, 2, 3, 1).reshape(-1, T, V, C))" if clips.ndim == 5 else ""
        raise DataError(
            f"{path}: positions have shape {shape}, expected (frames, joints, coords), (clips, frames, joints, coords), (clips, "
            f"joints, coords, frames) or (frames, joints * {coords}), not empty{graph}; remove what is no motion"
        )
    return clips


def _recordings(path: Path, arrays: Mapping[str, np.ndarray], coords: int, expected: Collection[int]) -> list[Recording]:
    """One recording per clip, all arrays checked against each other."""
    clips = arrays["clips"]
    if clips.dtype.kind not in "fiu":
        raise DataError(f"{path}: positions are {clips.dtype}, expected numbers")
    names = tuple(_texts(arrays["joint_names"])) if "joint_names" in arrays else None
    clips = _laid_out(path, clips, coords, expected if names is None else (len(names),))
    single = clips.ndim == 3
    clips = clips[None] if single else clips
    n, frames, joints = clips.shape[:3]
    if frames <= MAX_CROWD < MIN_CROWDED <= n and "lengths" not in arrays:
        raise DataError(
            f"{path}: positions have shape {clips.shape}, {n} clips of {frames} frames; if these are {n} frames of {frames} "
            "bodies, save x.swapaxes(0, 1); if they are clips, save their lengths with them"
        )
    lengths = arrays.get("lengths", np.full(n, frames)).reshape(-1)
    if lengths.dtype.kind not in "iu" or len(lengths) != n or lengths.min() < 1 or lengths.max() > frames:
        raise DataError(f"{path}: lengths must be {n} whole numbers from 1 to {frames}, found {lengths.tolist()[:5]}")
    fps = arrays.get("fps")
    if fps is not None and (fps.dtype.kind not in "fiu" or fps.size != 1):
        raise DataError(f"{path}: fps must be one number, found {fps.dtype} {fps.shape}")
    if names is not None and len(names) != joints:
        raise DataError(f"{path}: joint_names holds {len(names)} names for {joints} joints")
    if (confidence := arrays.get("confidence")) is not None:
        if confidence.dtype.kind not in "fiub" or confidence.size != n * frames * joints:
            raise DataError(f"{path}: confidence has shape {confidence.shape}, expected {(n, frames, joints)[single:]}")
        confidence = confidence.reshape(n, frames, joints).astype(np.float32)
    units = _texts(arrays["units"])[0] if arrays.get("units", np.empty(0)).size == 1 else None
    units = units and SPELLINGS.get(units.lower(), units.lower())
    if units is not None and units not in UNITS:
        raise DataError(f"{path}: units {units!r} are no length; expected one of {', '.join(UNITS)}; correct the file")
    labels, subjects = (_column(path, arrays, key, n) for key in ("labels", "subjects"))
    if (vectors := arrays.get("condition")) is not None:
        vectors = vectors[None] if vectors.ndim == n == 1 else vectors
        if vectors.dtype.kind not in "fiu" or vectors.ndim != 2 or len(vectors) != n or vectors.shape[1] == 0:
            shape = f"{vectors.dtype} {vectors.shape}"
            raise DataError(f"{path}: condition must be numbers (clips, width) = ({n}, width), a vector a clip, found {shape}")
    with np.errstate(over="ignore"):  # what becomes infinite is named later, with its frame and joint
        positions = [clip[:length].astype(np.float32, copy=False) for clip, length in zip(clips, lengths, strict=True)]
        told = [None] * n if vectors is None else vectors.astype(np.float32)
    sources = [path.name] if single else [f"{path.name}, clip {k}" for k in range(n)]
    rate = None if fps is None else float(fps.reshape(()))
    seen = [None] * n if confidence is None else [own[:length] for own, length in zip(confidence, lengths, strict=True)]
    rows = zip(positions, sources, labels, subjects, seen, told, strict=True)
    return [Recording(x, source, label, who, names, rate, c, units, condition=v) for x, source, label, who, c, v in rows]


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
