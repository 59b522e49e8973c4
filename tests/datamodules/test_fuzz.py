"""Files of every kind, damaged in every way: each ends in a DataError or in clips that can be trained on, and soon."""

import io
import json
import math
import os
import re
import time
import warnings
import zipfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from datamodules.clip_set import ClipSet
from datamodules.joints import PRESETS
from datamodules.sets.bvh import bvh, skeleton
from datamodules.sets.folder import folder
from datamodules.sets.msr_action3d import msr_action3d
from ddpm.clips import Clips
from ddpm.command import expected, message, plain
from ddpm.errors import DataError
from ddpm.skeleton import Skeleton
from tests.datamodules.test_folder import table
from tests.datamodules.test_keypoints2d import COCO, mmpose, openpose, pictured
from tests.datamodules.test_ntu import NAME, widened
from tests.datamodules.test_ntu import text as ntu
from tests.skeletons import people, shipped

KINECT = shipped("kinect20")


def trc(motion: np.ndarray) -> str:
    """A table of markers that are the joints of Kinect, in metres."""
    names = [cell for name in KINECT.names for cell in (name, "", "")]
    axes = [f"{axis}{k + 1}" for k in range(20) for axis in "XYZ"]
    rows = [[str(k), str(k / 15), *map("{:.4f}".format, row)] for k, row in enumerate(motion.reshape(len(motion), -1).tolist())]
    lines = [["PathFileType", "4", "(X/Y/Z)", "a.trc"], ["DataRate", "NumFrames", "Units"], ["15", str(len(motion)), "m"]]
    return "\n".join("\t".join(line) for line in [*lines, ["Frame#", "Time", *names], ["", "", *axes], [""], *rows]) + "\n"


SECONDS = 5.0
NUMBERS = (
    *(b"nan", b"inf", b"-inf", b"1e999", b"-1", b"0", b"1", b"2", b"25", b"1e5", b"1e30", b"1e-30", b"0.5"),
    *(b"999999999", b"99999999999999999999", b"-0", b"1_0", b"0x10", b""),
)
TOKENS = (
    *(*NUMBERS, b"\x00", b"\xff\xfe", b"{", b"}", b"[" * 40, b"]", b'"', b",", b":", b"null", b"true", b"\n", b"\r", b" ", b";"),
    *(b"JOINT", b"End Site", b"OFFSET", b"CHANNELS", b"MOTION", b"9" * 30),
    *(b"\t", b"(", b")", b"'", b"|O", b"people", b"keypoints", b"image_id", b"lengths.npy", b"<f8", b"True", b"frame", b"_x"),
)
HEADER = b"\x93NUMPY\x01\x00\x76\x00"
SHAPES = tuple(
    f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    for kind, shape in (
        *(
            ("'<f4'", shape)
            for shape in ("(-1, 64, 20, 3)", "(2**62, 20, 3)", "(0, 9999999999999, 3)", "(2.0, 20, 3)", "'a'", "((")
        ),
        *(
            ("'<U2147483647'", "(1,)"),
            ("'<U2147483647'", "(0,)"),
            ("'|O'", "(2,)"),
            ("[('a', '<f4')]", "(2,)"),
            ("'<f4000'", "(2,)"),
        ),
    )
)
"""Headers of NumPy arrays that lie."""
VALUES = (
    *(None, True, False, 0, -1, 1, 7, 1e30, 1e300, -1e-30, float("nan"), float("inf"), 10**19, "", "x", "7", "nan", "ü" * 300),
    *([], {}, [[]], [1], [1, 2], [[1, 2, 3]], [["a"]], {"people": [{}]}, {"x": 1}, {"keypoints": [1, 2, 3], "image_id": 3}),
)
"""What a value in a JSON file may turn into."""


@cache
def sound() -> dict[str, bytes]:
    """A sound file of every kind by its name; motions of real people where they are at hand."""
    motion = people(1, 15.0)[0][:24]
    real = sorted(Path(os.environ.get("POSE_DDPM_MSR", "nowhere")).glob("a0[1-5]_s01_e01_skeleton3D.txt"))
    if real:
        lines = np.loadtxt(real[0]).reshape(-1, 20, 4)[:24, :, :3]
        motion = lines.astype(np.float32)
    arrays, plain = io.BytesIO(), io.BytesIO()
    extra = {"labels": ["walk", "run"], "subjects": [1, 2], "confidence": np.ones((2, len(motion), 20), np.float32)}
    np.savez_compressed(
        arrays,
        clips=np.stack([motion, motion]),
        fps=15.0,
        joint_names=KINECT.names,
        lengths=[len(motion), 20],
        **extra,
        parents=KINECT.parents,
        seeds=[3, 14],
    )  # type: ignore[arg-type]
    np.save(plain, motion)
    flat = pictured(motion, COCO)
    results = [
        {"image_id": f"{k}.jpg", "keypoints": np.concatenate([b, np.ones((17, 1))], 1).ravel().round(1).tolist()}
        for k, b in enumerate(flat)
    ]
    marks = [{"landmarks": [{"x": x, "y": y, "visibility": 0.9} for x, y in (b / 2000).round(4).tolist()]} for b in flat]
    names = list(COCO)
    wide = widened(motion)
    world = [{"worldLandmarks": [[{"x": x, "y": y, "z": z} for x, y, z in body]]} for body in motion.round(3).tolist()]
    spread = {"x": flat[..., 0].round(1), "y": flat[..., 1].round(1), "likelihood": np.ones(flat.shape[:2])}
    cells = np.stack(list(spread.values()), -1).reshape(len(flat), -1).astype(str).tolist()
    columns = [(name, kind) for name in names for kind in spread]
    dlc = [["scorer", *["Me"] * len(columns)], ["bodyparts", *(c[0] for c in columns)], ["coords", *(c[1] for c in columns)]]
    sleap = [["track", "frame_idx", "instance.score", *(f"{c[0]}.{'score' if c[1] == 'likelihood' else c[1]}" for c in columns)]]
    sleap += [[track, str(k), "0.9", *row] for track in "ab" for k, row in enumerate(cells)]
    return {
        "a.npy": plain.getvalue(),
        "a.npz": arrays.getvalue(),
        "a.csv": table(motion, 15).encode(),
        NAME: ntu(("7", 0, wide), ("8", 3, wide[:14]), frames=len(wide)).encode(),
        "openpose.json": json.dumps([openpose(body, body + 300) for body in flat]).encode(),
        "coco.json": json.dumps({"annotations": results}).encode(),
        "mediapipe.json": json.dumps({"width": 2000, "height": 2000, "fps": 15, "joint_names": names, "frames": marks}).encode(),
        "a01_s01_e01_skeleton3D.txt": "".join(
            f"{x:.4f} {y:.4f} {z + 2:.4f} 1\n" for x, y, z in motion.reshape(-1, 3).tolist()
        ).encode(),
        "a.trc": trc(motion).encode(),
        "dlc.csv": "\n".join(",".join(row) for row in [*dlc, *([str(k), *row] for k, row in enumerate(cells))]).encode(),
        "sleap.csv": "\n".join(map(",".join, sleap)).encode(),
        "mmpose.json": json.dumps({"instance_info": mmpose(flat, track_id=[3.0])}).encode(),
        "world.json": json.dumps({"joint_names": KINECT.names, "fps": 15, "frames": world}).encode(),
        "small.bvh": (Path(__file__).parents[1] / "bvh" / "small.bvh").read_bytes(),
    }  # fmt: skip


def in_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """An accident of a disk, a transfer or an editor."""
    kind = draw(st.sampled_from(["number", "number", "number", "cut", "bytes", "token", "delete", "double", "foreign"]))
    place = draw(st.one_of(st.integers(0, len(content)), st.integers(0, min(300, len(content)))))
    length = draw(st.sampled_from([1, 2, 8, 40, 400]))
    if kind == "cut":
        return content[:place]
    if kind == "bytes":
        new = draw(st.binary(min_size=1, max_size=4))
        return content[:place] + new + content[place + len(new) :]
    if kind == "token":
        return content[:place] + draw(st.sampled_from(TOKENS)) + content[place:]
    if kind == "number":
        number = re.compile(rb"-?[\d.]+").search(content, place)
        a, b = number.span() if number else (place, place)
        return content[:a] + draw(st.sampled_from(NUMBERS)) + content[b:]
    if kind == "delete":
        return content[:place] + content[place + length :]
    if kind == "double":
        return content[:place] + content[place : place + length] * 2 + content[place + length :]
    other = sound()[draw(st.sampled_from(sorted(sound())))]
    return content[:place] + other[place : place + length] + content[place:]


def in_json(draw: st.DrawFn, content: bytes) -> bytes:
    """One value, at any depth, is another or is gone."""
    document = json.loads(content)
    node = document
    for _ in range(draw(st.integers(0, 6))):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = draw(st.sampled_from(keys)) if keys else None
        inner = node[key] if key is not None else None
        if not isinstance(inner, dict | list) or not inner:
            break
        node = inner
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    key = draw(st.sampled_from(keys))
    if draw(st.booleans()):
        node[key] = draw(st.sampled_from(VALUES))
    elif draw(st.booleans()):
        del node[key]
    else:
        new = draw(st.sampled_from(["fps", "joint_names", "track_id", "label", "person_id", "width"]))
        target = node if isinstance(node, dict) else document if isinstance(document, dict) else node[key]
        if isinstance(target, dict):
            target[new] = draw(st.sampled_from(VALUES))
    return json.dumps(document).encode()


def in_arrays(draw: st.DrawFn, content: bytes, packed: bool) -> bytes:
    """One array has other values, another type or shape, or is gone."""
    loaded = np.load(io.BytesIO(content))
    arrays = {key: loaded[key] for key in loaded.files} if packed else {"clips": loaded}
    key = draw(st.sampled_from(sorted(arrays)))
    array = arrays[key]
    kind = draw(st.sampled_from(["value", "value", "type", "shape", "drop", "less", "objects", "order", "single", "header"]))
    if kind == "value" and array.size and array.dtype.kind in "fiu":
        value = draw(st.sampled_from([0, -1, 1, 1000, 2**31 - 1, *([np.nan, np.inf, 1e30] if array.dtype.kind == "f" else [])]))
        start = draw(st.integers(0, array.size - 1))
        array = array.copy()
        array.reshape(-1)[start : start + draw(st.sampled_from([1, 3, 60, 10**6]))] = value
    elif kind == "type":
        kinds = ["f2", "f8", ">f4", "i2", "i8", "u1", "?", "S5", "U3", "c8"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                array = array.astype(draw(st.sampled_from(kinds)))
            except ValueError:
                array = array[None]
    elif kind == "shape":
        array = draw(st.sampled_from([array[None], array.reshape(-1), array.reshape(-1, 1), array[..., None], array.T]))
    elif kind == "less" and array.ndim:
        array = array[..., : draw(st.integers(0, array.shape[-1]))]
    elif kind == "objects":
        array = array.astype(object)
    elif kind == "order":
        array = np.asfortranarray(array)
    elif kind == "single":
        array = draw(st.sampled_from([np.array(3), np.array(math.nan), np.array("x"), np.array(["a"]), np.empty((0, 20, 3))]))
    arrays[key] = array
    if kind == "drop":
        del arrays[key]
    buffer = io.BytesIO()
    if packed:
        np.savez_compressed(buffer, **arrays)
        if kind == "header":
            with zipfile.ZipFile(buffer, "a") as archive, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # there is one of this name
                archive.writestr(f"{key}.npy", HEADER + draw(st.sampled_from(SHAPES)).ljust(117) + b"\n")
    elif kind == "header":
        buffer.write(HEADER + draw(st.sampled_from(SHAPES)).ljust(117) + b"\n")
    else:
        np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@dataclass(frozen=True)
class Damaged:
    """A file; hypothesis prints how to make the same again, so its content need not be."""

    name: str
    content: bytes = field(repr=False)


@st.composite
def damage(draw: st.DrawFn) -> Damaged:
    """The name of a file and its content after one to three accidents."""
    name = draw(st.sampled_from(sorted(sound())))
    content = sound()[name]
    ending = Path(name).suffix
    if ending in (".json", ".npy", ".npz") and draw(st.integers(0, 2)):
        for _ in range(draw(st.integers(1, 3))):
            if ending == ".json":
                content = in_json(draw, content) if isinstance(json.loads(content) or None, dict | list) else content
            else:
                return Damaged(name, in_arrays(draw, content, ending == ".npz"))
    else:
        for _ in range(draw(st.integers(1, 3))):
            content = in_bytes(draw, content)
    return Damaged(name, content)


def load(path: Path) -> ClipSet:
    """What training would load."""
    if path.name.endswith("skeleton3D.txt"):
        return msr_action3d(KINECT, str(path.parent))
    if path.suffix == ".bvh":
        return bvh(skeleton(str(path)), str(path))
    if (path.suffix == ".json" and path.stem != "world") or path.name in ("dlc.csv", "sleap.csv"):
        return folder(shipped("coco17"), str(path), fps=15, min_seconds=0.2)
    if path.suffix == ".skeleton":  # at 30 frames per second, all of them
        return folder(shipped("ntu25"), str(path), lost="zeros", min_seconds=0.2)
    return folder(KINECT, str(path), fps=15, lost="zeros", min_seconds=0.2)


def survives(place: Path, case: Damaged) -> None:
    """Read it, and check what comes of it."""
    path = place / case.name
    path.write_bytes(case.content)
    began = time.monotonic()
    if path.suffix == ".npz":
        for skeleton in (KINECT, None):
            loads(path, skeleton)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an overflow or an empty mean on the way is a case that nobody thought of
            clips = load(path)
    except DataError as e:
        assert case.name in str(e) or str(place) in str(e), f"the file is not named: {e}"
        assert len(str(e)) < 5000 and str(e).replace("\n", "").isprintable()
    else:
        assert len(clips) >= 1 and clips.frames.shape[1:] == (len(clips.skeleton.names), clips.skeleton.coords)
        assert clips.frames.isfinite().all() and clips.frames.abs().max() <= 1001 and 0.1 <= clips.fps <= 10_000
        assert int(clips.lengths.sum()) == len(clips.frames) and int(clips.lengths.min()) >= 1
    finally:
        path.unlink()
    assert time.monotonic() - began < SECONDS


def loads(path: Path, skeleton: Skeleton | None) -> None:
    """Clips.load gives clips, or names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = Clips.load(path, skeleton)
    except DataError as e:
        assert path.name in str(e) and len(str(e)) < 5000 and str(e).replace("\n", "").isprintable()
    else:
        assert len(found) >= 1 and found.finite.all()


@pytest.mark.parametrize("name", sorted(sound()))
def test_sound_files_are_clips(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(sound()[name])
    assert len(load(tmp_path / name)) >= 1


RELAXED = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(RELAXED, max_examples=300)
@given(case=damage())
def test_no_damage_escapes(tmp_path: Path, case: Damaged) -> None:
    survives(tmp_path, case)


@settings(RELAXED, max_examples=60)
@given(draws=st.data())
def test_no_damaged_array_escapes(tmp_path: Path, draws: st.DataObject) -> None:
    survives(tmp_path, Damaged("a.npz", in_arrays(draws.draw, sound()["a.npz"], packed=True)))


MARKS = (
    *(
        b"\t",
        b"\xff",
        b"&a [*a]",
        b"*b",
        b"{",
        b"[",
        b": :",
        b"!!python/name:os.system",
        b"<<: *x",
        b"- ",
        b"\n---\n",
        b"%TAG ! x\n",
    ),
    *(
        b"\x00",
        b"${oc.env:HOME}",
        b"${skeleton}",
        b"1e999",
        b"9" * 999,
        b"'",
        b"|",
        b"!!binary aGk=",
        b"2026-11-28",
        b"null: 1\n",
    ),
    *(b"coords: 2\ncoords: 3\n", b"joints: []\n", b"up: {}\n", b"feet: nobody\n", b"left_right: [[a]]\n", b"parts: {x: 1}\n"),
)
"""What is out of place in a YAML file."""


@settings(RELAXED, max_examples=60)
@given(lines=st.lists(st.tuples(st.integers(0, 45), st.integers(0, 20), st.sampled_from([*MARKS, "twice", "gone"])), min_size=1))
def test_no_damaged_skeleton_escapes(tmp_path: Path, lines: list[tuple[int, int, bytes | str]]) -> None:
    content = (PRESETS / "kinect20.yaml").read_bytes().split(b"\n")
    for number, place, mark in lines[:2]:
        line = content[number % len(content)]
        new = {"twice": line + b"\n" + line, "gone": b""}
        content[number % len(content)] = new[mark] if isinstance(mark, str) else line[:place] + mark + line[place:]
    path = tmp_path / "own.yaml"
    path.write_bytes(b"\n".join(content))
    began = time.monotonic()
    try:
        plain(OmegaConf.create({"skeleton": OmegaConf.load(path)}))
    except expected() as e:
        said = message(e)
        assert "Error: " in said and said.count("\n") <= 2 and len(said) < 5000 and said.replace("\n", "").isprintable()
    assert time.monotonic() - began < SECONDS


@pytest.mark.slow
@settings(RELAXED, max_examples=2000, derandomize=False)
@given(case=damage())
def test_no_damage_escapes_at_length(tmp_path: Path, case: Damaged) -> None:
    survives(tmp_path, case)
