"""NumPy files: what was written is read, and what promises more than it holds is refused before it is read."""

import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from datamodules.joints import presets
from datamodules.readers.arrays import read
from ddpm.errors import DataError

CLIPS = np.random.default_rng(0).normal(size=(3, 7, 4, 3)).astype(np.float32)
NAMES = np.array(["hip", "knee", "foot", "toe"])


def saved(path: Path, **arrays: object) -> Path:
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "<i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_one_clip(tmp_path: Path, dtype: str, order: str) -> None:
    clip = np.asarray(CLIPS[0] * 8, dtype=dtype, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "a.npy", clip)
    (r,) = read(tmp_path / "a.npy")
    assert r.source == "a.npy" and r.positions.dtype == np.float32 and r.joints is r.fps is r.label is None
    assert (r.positions == clip.astype(np.float32)).all()
    np.save(tmp_path / "flat.npy", clip.reshape(7, 12))
    assert (read(tmp_path / "flat.npy")[0].positions == r.positions).all()
    assert read(tmp_path / "flat.npy", coords=2)[0].positions.shape == (7, 6, 2)


def test_clips_with_everything(tmp_path: Path) -> None:
    confidence = np.random.default_rng(1).random((3, 7, 4)).astype(np.float32)
    path = saved(
        tmp_path / "many.npz", clips=CLIPS, lengths=[7, 3, 1], fps=25, joint_names=NAMES, labels=[1, -1, 0], units="cm",
        class_names=["walk", "run"], subjects=["p1", "", "p2"], confidence=confidence, seeds=[1, 2, 3],
    )  # fmt: skip
    recordings = read(path)
    assert [len(r.positions) for r in recordings] == [7, 3, 1]
    assert [r.label for r in recordings] == ["run", None, "walk"] and [r.subject for r in recordings] == ["p1", None, "p2"]
    assert [r.source for r in recordings] == ["many.npz, clip 0", "many.npz, clip 1", "many.npz, clip 2"]
    for k, r in enumerate(recordings):
        assert r.fps == 25 and r.joints == tuple(NAMES) and r.units == "cm" and r.confidence is not None
        assert (r.positions == CLIPS[k, : len(r.positions)]).all()
        assert (r.confidence == confidence[k, : len(r.positions)]).all()


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32])
def test_numbers_without_names_are_unknown_at_minus_one(tmp_path: Path, dtype: type) -> None:
    numbers = np.array([2, -1, 0], dtype)
    recordings = read(saved(tmp_path / "a.npz", clips=CLIPS, labels=numbers, subjects=numbers))
    expected = [str(numbers[0]), None, str(numbers[2])]
    assert [r.label for r in recordings] == expected and [r.subject for r in recordings] == expected


@pytest.mark.parametrize("key", ["clips", "positions", "keypoints", "arr_0"])
def test_names_of_the_positions(tmp_path: Path, key: str) -> None:
    (r,) = read(saved(tmp_path / "a.npz", **{key: CLIPS[0]}, labels="walk", subjects=4))
    assert (r.positions == CLIPS[0]).all() and (r.label, r.subject, r.source) == ("walk", "4", "a.npz")


@pytest.mark.parametrize(("joints", "frames"), [(22, 40), (22, 22), (40, 22), (5, 7)])
def test_axes_are_told_by_the_number_of_joints(tmp_path: Path, joints: int, frames: int) -> None:
    """(clips, joints, coords, frames), as MDM writes them, (frames, coords, joints), and one pose."""
    clips = np.random.default_rng(0).normal(size=(2, frames, joints, 3)).astype(np.float32)
    np.save(tmp_path / "mdm.npy", clips.transpose(0, 2, 3, 1))
    np.save(tmp_path / "one.npy", clips[0].transpose(1, 2, 0))
    np.save(tmp_path / "channels.npy", clips[1].transpose(0, 2, 1))
    if frames == joints:
        with pytest.raises(DataError, match=r"\(22, 3, 22\), where 22 or 22 may be the joints.*moveaxis"):
            read(tmp_path / "one.npy", joints={joints})
        return
    assert (np.stack([r.positions for r in read(tmp_path / "mdm.npy", joints={joints})]) == clips).all()
    assert (read(tmp_path / "mdm.npy")[0].positions == clips[0]).all(), "joints first unless something is known"
    assert (read(tmp_path / "one.npy", joints={joints})[0].positions == clips[0]).all()
    assert (read(tmp_path / "channels.npy", joints={joints})[0].positions == clips[1]).all()
    np.save(tmp_path / "pose.npy", clips[0, 0])
    assert (read(tmp_path / "pose.npy", joints={joints})[0].positions == clips[0, :1]).all()
    path = saved(tmp_path / "named.npz", clips=clips[1].transpose(0, 2, 1), joint_names=[str(k) for k in range(joints)])
    assert (read(path)[0].positions == clips[1]).all()


@pytest.mark.parametrize(("key", "joints"), [("joints", 52), ("Jtr", 55), ("Jtr", 24), ("joints", 22)])
def test_amass_with_joints(tmp_path: Path, key: str, joints: int) -> None:
    """The body comes first in SMPL, SMPL-H and SMPL-X; other arrays may be Python objects."""
    motion = np.random.default_rng(0).normal(size=(9, joints, 3)).astype(np.float32)
    other = {"gender": np.array(b"male"), "betas": np.zeros(16), "marker_labels": np.array([None], dtype=object)}
    amass = {"poses": np.zeros((9, 156)), "trans": np.zeros((9, 3)), **other}
    (r,) = read(saved(tmp_path / "a.npz", **amass, **{key: motion}, mocap_framerate=120.0))
    assert (r.positions == motion).all() and r.fps == 120
    assert r.joints is None if joints <= 24 else r.joints[:22] == presets()["smpl22"].names and len(set(r.joints)) == joints
    assert read(saved(tmp_path / "b.npz", **amass, joints=motion, mocap_frame_rate=60, labels=["M1"] * 67))[0].fps == 60
    with pytest.raises(DataError, match=r"AMASS, rotations of SMPL; without a body model .* joints beside poses"):
        read(saved(tmp_path / "bare.npz", **amass, mocap_framerate=120.0))


def test_kimodo(tmp_path: Path) -> None:
    motion = np.random.default_rng(0).normal(size=(9, 30, 3)).astype(np.float32)
    (r,) = read(
        saved(tmp_path / "a.npz", posed_joints=motion, global_rot_mats=np.zeros((9, 30, 3, 3)), foot_contacts=motion[0] > 0)
    )
    assert r.joints is not None and set(presets()["smpl22"].names) < set(r.joints) and len(set(r.joints)) == 30
    assert (r.positions[:, r.joints.index("left_hip")] == motion[:, 22]).all(), "which it calls LeftLeg"
    assert read(saved(tmp_path / "b.npz", posed_joints=motion[:, :22]))[0].joints is None


@pytest.mark.parametrize(("said", "unit"), [("millimeters", "mm"), ("Metres", "m"), ("CM", "cm"), ("pixels", "px")])
def test_units_may_be_written_out(tmp_path: Path, said: str, unit: str) -> None:
    assert read(saved(tmp_path / "a.npz", clips=CLIPS, units=said))[0].units == unit


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"S": CLIPS, "part": CLIPS, "imgname": ["a"]}, "annotations of MMPose for single pictures of Human3.6M"),
        ({"pose_body": np.zeros((9, 63)), "root_orient": np.zeros((9, 3))}, "AMASS, rotations of SMPL"),
        (
            {"clips": np.zeros((90, 2, 4, 3))},
            r"90 clips of 2 frames; if these are 90 frames of 2 bodies, save x\.swapaxes\(0, 1\)",
        ),
        ({"clips": CLIPS, "joint_names": NAMES.astype(object)}, r"joint_names: holds object.*dtype=str\)"),
        ({"clips": np.zeros((5, 40, 251))}, r"251 numbers a frame are the features of KIT-ML"),
        ({"clips": np.zeros((2, 3, 9, 25, 2))}, r"ST-GCN: x\.transpose\(0, 4, 2, 3, 1\)"),
        ({"poses": CLIPS}, r"holds \['poses'\].*clips or positions"),
        ({"clips": CLIPS, "lengths": [7, 8, 1]}, r"lengths must be 3 whole numbers from 1 to 7.*8"),
        ({"clips": CLIPS, "lengths": [7, 0, 1]}, "lengths must be"),
        ({"clips": CLIPS, "lengths": [7.0, 1.0, 1.0]}, "whole numbers"),
        ({"clips": CLIPS, "labels": ["a"]}, "labels holds 1 values for 3 clips"),
        ({"clips": CLIPS, "labels": [0, 1, 2], "class_names": ["a", "b"]}, "labels go from 0 to 2, class_names has 2"),
        ({"clips": CLIPS, "fps": [20, 30]}, "fps must be one number"),
        ({"clips": CLIPS, "fps": "fast"}, "fps must be one number"),
        ({"clips": CLIPS, "units": "ell"}, "units 'ell' are no length; expected one of m, dm, cm, mm, in, ft, px"),
        ({"clips": CLIPS, "joint_names": NAMES[:3]}, "joint_names holds 3 names for 4 joints"),
        ({"clips": CLIPS, "confidence": np.ones((3, 7, 5))}, r"confidence has shape \(3, 7, 5\), expected \(3, 7, 4\)"),
        ({"clips": np.array(["a"])}, "positions are <U1"),
        ({"clips": np.zeros((0, 4, 3))}, r"shape \(0, 4, 3\)"),
        ({"clips": np.zeros((10, 263))}, r"\(10, 263\).*new_joints, not new_joint_vecs"),
        ({"clips": np.zeros(5)}, r"shape \(5,\)"),
        ({"clips": np.array({"a": 1}, dtype=object)}, "(?s)clips: holds .*Python objects.*can run code"),
        ({"clips": np.zeros(3, dtype=[("x", "f4")])}, "holds"),
        ({"clips": CLIPS.astype(complex)}, "holds complex"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, arrays: dict, named: str) -> None:
    with pytest.raises(DataError, match=named) as e:
        read(saved(tmp_path / "bad.npz", **arrays))
    assert str(e.value).startswith(str(tmp_path / "bad.npz"))


def header(shape: str, dtype: str = "<f4", data: bytes = b"", rest: str = "") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, {rest}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data


def npy(content: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (header("(1000000000, 22, 3)"), r"promises \(1000000000, 22, 3\), 264000000000 bytes, but 0 are there"),
        (header("(1000000000, 0, 22, 3)"), "not empty"),
        (header("(-1, -4, 3)", data=bytes(48)), "promises|no sound"),
        (header("(9999999999999999999999, 1, 3)"), "promises"),
        (header("(2, 2, 3)", "|O", bytes(96)), "holds .*Python objects"),
        (header("(2, 2, 3)", "<c8", bytes(96)), "holds complex numbers, complex64; save real ones"),
        (header("(2, 2, 3)", "<q9", bytes(48)), "not a valid NumPy file"),
        (header("'abc'"), "not a valid NumPy file"),
        (header("(" * 60), "not a valid NumPy file"),
        (header("(1, 1, 3)", rest="'x': 1"), "not a valid NumPy file"),
        (npy(CLIPS)[:-1], "truncated|damaged"),
        (npy(CLIPS) + b"x", "damaged"),
        (npy(CLIPS)[:50], "not a valid NumPy file"),
        (b"\x93NUMPY\x09\x00" + npy(CLIPS)[8:], "no sound|version"),
        (b"", "not a valid NumPy file"),
        (b"\x89PNG\r\n\x1a\n", "not a valid NumPy file"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_lies_and_damage(tmp_path: Path, content: bytes, named: str, packed: bool) -> None:
    path = tmp_path / ("bad.npz" if packed else "bad.npy")
    if packed:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("clips.npy", content)
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=named):
        read(path)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("clips.npy", "w", force_zip64=True) as stream:
            stream.write(header("(1000000, 20, 3)"))
            for _ in range(240):
                stream.write(bytes(1_000_000))
    opened: list[str] = []
    original = zipfile.ZipFile.open
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda self, *a, **k: opened.append("") or original(self, *a, **k))
    with pytest.raises(DataError, match=r"unpack to 240000\d+.*remove it"):
        read(path)
    assert not opened, "a member was opened"


def test_a_member_that_is_longer_than_it_says_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", clips=CLIPS)
    content = bytearray(path.read_bytes())
    size = len(npy(CLIPS)).to_bytes(4, "little")
    assert content.count(size) >= 1
    path.write_bytes(bytes(content).replace(size, (len(npy(CLIPS)) - 48).to_bytes(4, "little")))
    with pytest.raises(DataError):
        read(path)


def test_a_file_of_one_array_is_mapped(tmp_path: Path) -> None:
    """Of up to 4 GiB: nothing of it is in memory before it is used."""
    for order in ("C", "F"):
        motion = np.asarray(np.arange(8 * 20 * 3, dtype=np.float32).reshape(8, 20, 3), order=order)  # type: ignore[call-overload]
        np.save(tmp_path / "a.npy", motion)
        (recording,) = read(tmp_path / "a.npy")
        assert np.array_equal(recording.positions, motion) and not recording.positions.flags.owndata
        assert isinstance(recording.positions, np.memmap)


def test_truncated_archives(tmp_path: Path) -> None:
    whole = saved(tmp_path / "a.npz", clips=CLIPS, fps=20).read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(DataError, match=re.escape("cut.npz")):
            read(tmp_path / "cut.npz")


def test_no_code_runs(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    np.save(tmp_path / "evil.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="run code"):
        read(tmp_path / "evil.npy")
    assert not (tmp_path / "ran").exists()
