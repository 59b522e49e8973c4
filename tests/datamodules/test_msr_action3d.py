"""MSR Action3D: synthetic files in the published layout, damaged files, and the real set where it is at hand."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datamodules.clip_set import ClipSet
from datamodules.sets.msr_action3d import ACTIONS, msr_action3d, read
from ddpm.errors import DataError
from ddpm.skeleton import Skeleton
from tests.skeletons import shipped

# The list as published. Its sides are those of a mirror: its right joints are the person's left ones.
PUBLISHED = (
    *("right_shoulder", "left_shoulder", "shoulder_center", "spine", "right_hip", "left_hip", "hip_center"),
    *("right_elbow", "left_elbow", "right_wrist", "left_wrist", "right_hand", "left_hand", "right_knee", "left_knee"),
    *("right_ankle", "left_ankle", "right_foot", "left_foot", "head"),
)
OTHER_SIDE = {"right": "left", "left": "right"}
FILE_ORDER = ["_".join(OTHER_SIDE.get(word, word) for word in name.split("_")) for name in PUBLISHED]
GOOD = "a01_s02_e03_skeleton3D.txt"


SKELETON = shipped("kinect20")


def table(frames: int = 12) -> np.ndarray:
    """``(frames, 20, 4)`` in the order of the file: joint j stays near x = j / 100, moving slowly."""
    rows = np.ones((frames, 20, 4))
    rows[..., 0] = np.arange(20) / 100
    rows[..., 1] = np.linspace(-1, 1, 20)
    rows[..., 2] = 2.5 + 0.01 * np.arange(frames)[:, None]
    return rows


def text(rows: np.ndarray) -> str:
    return "".join(f"{x:.6f} {y:.6f} {z:.6f} {c:.6f}\n" for x, y, z, c in rows.reshape(-1, 4))


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_joints_go_by_name_and_sides_are_the_persons(tmp_path: Path, ending: str) -> None:
    rows = table()
    (tmp_path / GOOD).write_text(text(rows) + "\n", newline=ending)
    recording = read(tmp_path / GOOD, SKELETON)
    positions = recording.positions
    assert (recording.source, recording.label, recording.subject) == (GOOD, "high_arm_wave", "s02")
    assert positions.shape == (12, 20, 3) and positions.dtype == np.float32
    for j, name in enumerate(SKELETON.names):
        np.testing.assert_allclose(positions[:, j], rows[:, FILE_ORDER.index(name), :3], atol=1e-6)
    back = positions[:, [SKELETON.index(name) for name in FILE_ORDER]]
    np.testing.assert_allclose(back, rows[..., :3], atol=1e-6)
    few = Skeleton({"hip_center": None, "left_hand": "hip_center"}, feet=["hip_center"])
    assert (read(tmp_path / GOOD, few).positions == positions[:, [SKELETON.index(n) for n in few.names]]).all()


def test_a_joint_that_the_file_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / GOOD).write_text(text(table()))
    with pytest.raises(DataError, match=r"a01_s02.*\['left_toe'\].*kinect20"):
        read(tmp_path / GOOD, Skeleton({"spine": None, "left_toe": "spine"}))
    with pytest.raises(DataError, match="coords: 2"):
        read(tmp_path / GOOD, Skeleton({"spine": None}, coords=2))


def with_value(value: float) -> Callable[[], bytes]:
    def damaged() -> bytes:
        rows = table()
        rows[7, 11, 1] = value
        return text(rows).encode()

    return damaged


LINES = text(table()).splitlines(keepends=True)
DAMAGED = {
    "a lost tail": (lambda: "".join(LINES[:-3]).encode(), r"237 lines.*frame 11 \(line 221\) has 17 joints.*truncated"),
    "a cut line": (
        lambda: "".join([*LINES[:-1], "0.1 0.2 0.3"]).encode(),
        r"line 240 \(frame 11, joint head\).*0.1 0.2",
    ),
    "three columns": (lambda: b"1 2 3\n" * 40, r"line 1 .*'1 2 3'.*four numbers"),
    "a blank line": (lambda: "".join([*LINES[:20], "\n", *LINES[20:]]).encode(), r"line 21 \(frame 1, joint left_shou"),
    "words": (lambda: b"joint,x,y,z\nhead,1,2,3\n", r"line 1 .*'joint,x,y,z'"),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(range(256)), r"byte 0 is no ASCII"),
    "zero bytes": (lambda: bytes(1000), r"line 1 "),
    "nothing": (lambda: b"", r"line 1 .*''"),
    "NaN": (with_value(np.nan), r"frame 7, joint left_hand \(line 152\): y is nan.*±100"),
    "infinity": (with_value(-np.inf), r"frame 7, joint left_hand.*y is -inf"),
    "millimetres": (with_value(1234.5), r"frame 7, joint left_hand.*y is 1234.5.*±100"),
    "a huge file": (lambda: b" " * (9 << 20), r"9437184 bytes, at most 8388608"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_located(tmp_path: Path, kind: str) -> None:
    make, message = DAMAGED[kind]
    (tmp_path / GOOD).write_bytes(make())
    with pytest.raises(DataError, match=message) as e:
        msr_action3d(SKELETON, str(tmp_path))
    assert GOOD in str(e.value) and "remove" in str(e.value)


def test_missing_and_empty_directories(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone: no such file or directory.*data\.root"):
        msr_action3d(SKELETON, str(tmp_path / "gone"))
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"there \(1\) ends with _skeleton3d\.txt"):
        msr_action3d(SKELETON, str(tmp_path))
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / GOOD, SKELETON)
    os.mkfifo(tmp_path / GOOD)
    with pytest.raises(DataError, match="not a regular file"):
        msr_action3d(SKELETON, str(tmp_path))


@pytest.mark.parametrize("name", ["a21_s01_e01", "a00_s01_e01", "a1_s01_e01", "b01"])
def test_unknown_file_names_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}_skeleton3D.txt").write_text(text(table()))
    with pytest.raises(DataError, match=rf"{name}_skeleton3D.*01\.\.20.*rename or remove"):
        msr_action3d(SKELETON, str(tmp_path))


def test_a_directory_becomes_a_clip_set(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    gap = table(20)
    gap[5:7, :, :3] = 0
    for name, rows in {"a20_s10_e01": gap, "a01_s02_e03": table(9), "a03_s01_e01": np.zeros((10, 20, 4))}.items():
        (tmp_path / f"{name}_skeleton3D.txt").write_text(text(rows))
    monkeypatch.chdir(tmp_path.parent)
    with caplog.at_level(logging.INFO):
        clips = msr_action3d(SKELETON, tmp_path.name)
    assert clips.sources == ("a01_s02_e03_skeleton3D.txt", "a20_s10_e01_skeleton3D.txt")
    assert clips.lengths.tolist() == [9, 20] and clips.subjects == ("s02", "s10") and clips.fps == 15
    assert [clips.class_names[i] for i in clips.labels] == ["high_arm_wave", "pick_up_and_throw"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "3 recordings, 39 frames: kept 2 with 29 frames" in line and "a03_s01_e01" in line
    assert "interpolated 40 lost and 0 spiking joint positions in 1 recordings" in line
    with pytest.raises(DataError, match=r"cleaning left nothing.*limits of gaps, lengths"):
        msr_action3d(SKELETON, tmp_path.name, min_frames=21)


def test_levelling_turns_rigidly_and_leaves_x_alone(tmp_path: Path) -> None:
    (tmp_path / GOOD).write_text(text(table()))
    camera = msr_action3d(SKELETON, str(tmp_path), camera_pitch=0.0).frames
    level = msr_action3d(SKELETON, str(tmp_path), camera_pitch=7.0).frames
    assert (level[..., 0] == camera[..., 0]).all()
    a, b = camera - camera[:, :1], level - level[:, :1]
    np.testing.assert_allclose(a.norm(dim=-1), b.norm(dim=-1), atol=1e-5)
    # A body that leans by 7 degrees towards the camera stands upright afterwards.
    rows = table()
    rows[..., 1:3] = np.linspace(0, 1, 20)[:, None] * (np.cos(np.radians(7)), -np.sin(np.radians(7))) + (0.0, 2.5)
    (tmp_path / GOOD).write_text(text(rows))
    depth = msr_action3d(SKELETON, str(tmp_path)).frames[..., 2]
    assert float(depth.max() - depth.min()) < 1e-4


@pytest.fixture(scope="module")
def real() -> tuple[ClipSet, str]:
    """The real set and the line that its loading logs."""
    sibling = Path(__file__).resolve().parents[3] / "shared" / "data" / "msr_action3d"
    root = Path(os.environ.get("POSE_DDPM_MSR") or sibling)
    if not root.is_dir():
        pytest.skip("the MSR Action3D files are not here; set POSE_DDPM_MSR to their directory")
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("datamodules.sets.msr_action3d")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        return msr_action3d(SKELETON, str(root)), "\n".join(lines)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_real_files_are_all_accounted_for(real: tuple[ClipSet, str]) -> None:
    clips, line = real
    assert "\n" not in line
    assert f"567 recordings, 23478 frames: kept {len(clips)} with {len(clips.frames)} frames; dropped 1 " in line
    assert len(clips) == 566 and "a13_s09_e02" in line and "removed 1113 frames with lost joints" in line
    assert clips.frames.isfinite().all()
    assert not (clips.frames == 0).all(-1).any()
    assert len(set(clips.subjects)) == 10 and set(clips.class_names) == set(ACTIONS) and len(ACTIONS) == 20
    assert int(clips.lengths.min()) >= 8


def test_real_people_stand_upright_on_the_floor(real: tuple[ClipSet, str]) -> None:
    clips, _ = real
    joint = SKELETON.index
    feet = clips.frames[:, [joint(name) for name in SKELETON.feet], 1].amin(1)
    assert abs(float(feet.median())) < 0.01
    ankles = 0.5 * (clips.frames[:, joint("left_ankle")] + clips.frames[:, joint("right_ankle")])
    lean = (clips.frames[:, joint("head")] - ankles).median(0).values
    assert 1.3 < float(lean[1]) < 1.8 and abs(float(lean[2])) < 0.05


def test_real_sides_are_the_persons(real: tuple[ClipSet, str]) -> None:
    """In a right-handed frame left is up × forward; and a one-armed gesture is made with the right arm."""
    clips, _ = real
    joint, frames = SKELETON.index, clips.frames
    left = frames[:, joint("left_shoulder")] - frames[:, joint("right_shoulder")]
    toes = sum(frames[:, joint(f"{s}_foot")] - frames[:, joint(f"{s}_ankle")] for s in ("left", "right"))
    up = frames[:, joint("shoulder_center")] - frames[:, joint("hip_center")]
    assert float(((up.cross(toes, dim=-1) * left).sum(-1) > 0).float().mean()) > 0.98

    one_armed = {clips.class_names.index(name) for name in ACTIONS[:9]}
    right_handed = []
    for i in range(len(clips)):
        if int(clips.labels[i]) in one_armed:
            hands = clips.recording(i)[:, [joint("left_hand"), joint("right_hand")]]
            relative = hands - clips.recording(i)[:, [joint("shoulder_center")]]
            spread = relative.var(0).sum(-1)
            right_handed.append(bool(spread[1] > spread[0]))
    assert len(right_handed) > 200 and np.mean(right_handed) > 0.95
