"""The arrays of a NumPy file, by their meaning, each checked before it is unpacked."""

import math
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal

import numpy as np

from datamodules.joints import presets
from datamodules.readers.raw_files import check_file
from datamodules.readers.refused import ROTATIONS, pickled
from ddpm.errors import DataError

CLIPS = (
    *("clips", "positions", "keypoints", "arr_0", "posed_joints", "joints", "Jtr", "joints3d", "joints_3d", "keypoints3d"),
    *("keypoints_3d", "positions_3d", "positions_2d", "motion"),
)
"""Names under which an .npz may hold the positions."""
KEYS = ("lengths", "fps", "joint_names", "labels", "class_names", "subjects", "confidence", "units", "condition")
RATES = ("mocap_framerate", "mocap_frame_rate", "framerate", "frame_rate")  # fps, as AMASS and others call it
POSES = frozenset({"poses", "pose_body", "body_pose", "smpl_poses", "fullpose"})
SMPL = frozenset({"trans", "transl", "smpl_trans", "betas", "root_orient", "global_orient"})
"""Rotations of SMPL, and what is saved beside them."""
SOMA30 = (
    *("pelvis", "spine1", "spine2", "spine3", "neck", "neck2", "head", "jaw", "left_eye", "right_eye"),
    *("left_collar left_shoulder left_elbow left_wrist left_thumb left_middle_tip".split()),
    *("right_collar right_shoulder right_elbow right_wrist right_thumb right_middle_tip".split()),
    *("left_hip left_knee left_ankle left_foot right_hip right_knee right_ankle right_foot".split()),
)
"""The joints of Kimodo, which calls a hip LeftLeg and an ankle LeftFoot, under the names of smpl22."""
MAX_BYTES = 4 << 30
MAX_RATIO, UNSUSPICIOUS = 100, 64 << 20
"""An archive that grows more than so many times, and beyond so many bytes, is no motion: zeros packed to fill the memory."""
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
BROKEN = (
    *(ValueError, TypeError, SyntaxError, OverflowError, MemoryError, RecursionError, RuntimeError, EOFError, OSError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError, NotImplementedError, KeyError, IndexError),
)
"""What NumPy and zipfile raise on damaged input."""


def read_arrays(path: Path, more: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of a file that have a meaning, and those named in ``more``, each checked before it is unpacked."""
    check_file(path, MAX_BYTES)
    try:
        with path.open("rb") as stream:
            if path.suffix.lower() == ".npz":
                return _unpack(stream, path, more)
            return {"clips": _array(stream, path.stat().st_size, path)}
    except DataError:
        raise
    except BROKEN as e:
        raise DataError(f"{path}: not a valid NumPy file ({str(e).splitlines()[0][:80] if str(e) else type(e).__name__}); "
                        "it is damaged or truncated, replace or remove it") from e  # fmt: skip


def _unpack(stream: IO[bytes], path: Path, more: Sequence[str]) -> dict[str, np.ndarray]:
    packed = path.stat().st_size
    with zipfile.ZipFile(stream) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        total = sum(member.file_size for member in archive.infolist())
        if total > MAX_BYTES or (total > UNSUSPICIOUS and total > MAX_RATIO * packed):
            raise DataError(
                f"{path}: {packed} bytes that unpack to {total}; at most {MAX_BYTES} are read, and at most {MAX_RATIO} "
                "times the size of the file; remove it"
            )
        if (name := next((name for name in CLIPS if name in members), None)) is None:
            holds = f"{path}: holds {sorted(members)[:20]}"
            if POSES & members.keys() and SMPL & members.keys():
                raise DataError(f"{holds}: AMASS, rotations of SMPL; {ROTATIONS} joints beside poses")
            if {"S", "part", "imgname"} <= members.keys():
                raise DataError(
                    f"{holds}: annotations of MMPose for single pictures of Human3.6M, which are no motion; use sequences"
                )
            raise DataError(
                f"{holds}, none of them {' or '.join(CLIPS[:2])}; save the positions (frames, joints, coords) under one of these "
                f"names: numpy.savez(NEW, clips=numpy.load({str(path)!r})[NAME], fps=FPS)"
            )
        rate = next((key for key in RATES if key in members), None)
        smpl = bool(POSES & members.keys() and SMPL & members.keys())  # where labels are those of markers
        sources = {key: key for key in (*KEYS, *more) if key in members and not (smpl and key == "labels")}
        sources = sources if rate is None else {"fps": rate} | sources
        arrays = {}
        for key, source in {"clips": name, **sources}.items():
            with archive.open(members[source]) as member:
                arrays[key] = _array(member, members[source].file_size, path, source)
        joints = arrays["clips"].shape[-2] if arrays["clips"].ndim > 2 else 0
        if "joint_names" not in arrays and name == "posed_joints" and joints == len(SOMA30):
            arrays["joint_names"] = np.array(SOMA30)
        if "joint_names" not in arrays and smpl and joints > 24:  # the hands of SMPL-H, the face of SMPL-X
            body = presets()["smpl22"].names
            arrays["joint_names"] = np.array([*body, *(f"joint_{k}" for k in range(len(body), joints))])
        return arrays


def _array(stream: IO[bytes], size: int, path: Path, key: str = "") -> np.ndarray:
    """The array of a stream in NumPy's format with ``size`` bytes, refused before it is read if its header lies."""
    where = f"{path}: {key}" if key else str(path)
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise DataError(f"{where}: version {version} of the NumPy format; save it again with numpy.save")
    shape, fortran, dtype = HEADERS[version](stream)
    if dtype.hasobject and key in ("", *CLIPS):
        load = f"numpy.load({str(path)!r}, allow_pickle=True)" + (f"[{key!r}]" if key else "")
        raise pickled(path, key.encode() + stream.read(UNSUSPICIOUS), where, load, several=shape != ())
    if dtype.hasobject or dtype.kind not in "fiubUS":
        kind = "str" if key in ("joint_names", "labels", "class_names", "subjects", "units") else "'float32'"
        if dtype.kind == "c":
            raise DataError(f"{where}: holds complex numbers, {dtype}; save real ones, numpy.asarray(x.real, dtype='float32')")
        why = "since Python objects can run code" if dtype.hasobject else "since these are no plain numbers or texts"
        raise DataError(
            f"{where}: holds {dtype}, which is not read {why}; save plain numbers or texts, numpy.asarray(x, dtype={kind})"
        )
    promised, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if promised != there or any(length < 0 for length in shape):
        raise DataError(
            f"{where}: its header promises {shape}, {promised} bytes, but {there} are there; it is damaged, replace it"
        )
    if promised == 0:
        return np.empty(shape, dtype) if max(shape, default=0) <= 1 << 20 else np.empty(0, dtype)
    order: Literal["F", "C"] = "F" if fortran else "C"
    if not key:  # a file of its own, of up to 4 GiB
        return np.memmap(path, dtype, "r", stream.tell(), shape, order)
    return np.frombuffer(stream.read(promised), dtype).reshape(shape, order=order)
