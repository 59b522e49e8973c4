"""BVH files that are written: read back, they are the motion; a line is what the format says; angles are continuous."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from datamodules.readers.bvh_file import read, skeleton_of
from datamodules.sets.synthetic import synthetic
from ddpm.clips import Clips
from ddpm.skeleton import Skeleton
from ddpm.viz.bvh_out import RoundTrip, write_bvh, write_bvh_files
from tests.datamodules.test_bvh import SMALL, posed_by_scipy


def random_skeleton(rng: np.random.Generator, joints: int = 14) -> Skeleton:
    """Names in the order of a file are not needed: a parent may come after its child."""
    parents = {f"j{i}": f"j{rng.integers(max(0, i - 3), i)}" if i else None for i in range(joints)}
    return Skeleton({name: parents[name] for name in rng.permutation(list(parents)).tolist()})


def smooth(rng: np.random.Generator, frames: int, size: float, *shape: int) -> np.ndarray:
    """``(frames, *shape)`` slow sums of sines."""
    t = np.arange(frames).reshape(-1, *[1] * len(shape))
    return size * sum(rng.normal(size=shape) * np.sin(t * rng.uniform(0.02, 0.08) + 6 * rng.random(shape)) for _ in range(3))


def random_motion(rng: np.random.Generator, skeleton: Skeleton, frames: int, rigid: bool) -> np.ndarray:
    """Bones of constant length; if rigid, the children of a joint keep their angles to each other, else every bone is free."""
    out = np.zeros((frames, len(skeleton.names), 3))
    out[:, skeleton.root] = smooth(rng, frames, 0.5, 3)
    turns = {skeleton.root: Rotation.from_rotvec(smooth(rng, frames, 0.7, 3))}
    for name in sorted(skeleton.names, key=lambda name: int(name[1:]))[1:]:
        joint = skeleton.index(name)
        parent = skeleton.parents[joint]
        own = Rotation.from_rotvec(smooth(rng, frames, 0.3, 3))
        bone = rng.normal(size=3) * 0.3
        out[:, joint] = out[:, parent] + (turns[parent] if rigid else turns[parent] * own).apply(bone)
        turns[joint] = turns[parent] * own
    return out


def there_and_back(path: Path, positions: np.ndarray, skeleton: Skeleton, fps: float = 20.0) -> tuple[RoundTrip, np.ndarray]:
    """What was reported, and ``(frames, joints)`` how far the file's joints are from the positions, mm."""
    report = write_bvh(path, positions, skeleton, fps)
    recording = read(path)
    assert recording.fps == fps
    index = [(recording.joints or ()).index(name) for name in skeleton.names]
    away = 1000 * np.linalg.norm(recording.positions[:, index] - positions, axis=-1)
    np.testing.assert_allclose(list(report.worst.values()), away.max(0), atol=0.01)  # float32 in one of them
    np.testing.assert_allclose(list(report.mean.values()), away.mean(0), atol=0.01)
    return report, away


def angles(path: Path) -> np.ndarray:
    """``(frames, joints, 3)`` degrees about z, x and y, of all joints of a file."""
    rows = path.read_text().split("Frame Time")[1].splitlines()[1:]
    return np.array([row.split()[3:] for row in rows], dtype=float).reshape(len(rows), -1, 3)


@pytest.mark.parametrize("seed", range(6))
def test_rigid_motion_comes_back_exactly(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    skeleton = random_skeleton(rng)
    positions = random_motion(rng, skeleton, 150, rigid=True)
    _, away = there_and_back(tmp_path / "a.bvh", positions, skeleton)
    assert away.max() < 0.2
    assert "_to_" not in (tmp_path / "a.bvh").read_text(), "nothing moves against its siblings: no joint is needed between"
    text = (tmp_path / "a.bvh").read_text()
    for name, place in posed_by_scipy(text).items():
        if name in skeleton.names:
            np.testing.assert_allclose(place / 100, positions[:, skeleton.index(name)], atol=2e-4)


@pytest.mark.parametrize("seed", range(6))
def test_bones_of_constant_length_come_back(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    skeleton = random_skeleton(rng)
    _, away = there_and_back(tmp_path / "a.bvh", random_motion(rng, skeleton, 150, rigid=False), skeleton)
    assert away.max() < 5


def test_the_synthetic_set_comes_back(tmp_path: Path, skeleton: Skeleton) -> None:
    clips = synthetic(skeleton, n=39)
    for i in range(len(clips)):
        _, away = there_and_back(tmp_path / "a.bvh", clips.recording(i).numpy(), skeleton)
        assert away.max() < 2, clips.sources[i]
    step = np.abs(np.diff(angles(tmp_path / "a.bvh"), axis=0))
    assert step.max() < 60


def test_a_bone_that_changes_its_length_is_off_by_the_change(tmp_path: Path) -> None:
    lengths = 0.4 + 0.05 * np.sin(np.arange(40) / 3)
    bone = Rotation.from_rotvec(smooth(np.random.default_rng(0), 40, 0.5, 3)).apply([0, 1, 0]) * lengths[:, None]
    positions = np.stack([np.zeros_like(bone), bone], axis=1)
    report, away = there_and_back(tmp_path / "a.bvh", positions, Skeleton({"hip": None, "knee": "hip"}))
    np.testing.assert_allclose(away[:, 1], 1000 * np.abs(lengths - lengths.mean()), atol=1e-2)
    other = RoundTrip({"hip": 0.0, "knee": 0.0}, {"hip": 0.0, "knee": 99.0})
    hip, knee = RoundTrip.lines([report, other])
    assert hip.split() == "hip 0.00 mm off on average, 0.00 mm at most".split()
    assert knee.split() == f"knee {report.mean['knee'] / 2:.2f} mm off on average, 99.00 mm at most".split()


def test_errors_of_length_do_not_add_up(tmp_path: Path) -> None:
    """Every bone aims at its end: in a chain of which one bone is too long, the joints behind it are no further off."""
    rng = np.random.default_rng(3)
    chain = Skeleton({f"j{i}": f"j{i - 1}" if i else None for i in range(6)})
    positions = random_motion(rng, chain, 100, rigid=False)
    stretch = (positions[:, 2] - positions[:, 1]) * smooth(rng, 100, 0.1, 1)
    positions[:, 2:] += stretch[:, None]
    _, away = there_and_back(tmp_path / "a.bvh", positions, chain)
    assert away[:, 2].max() > 10
    assert (away[:, 3:].mean(0) < 0.8 * away[:, 2].mean()).all()


def test_a_bone_that_points_everywhere_in_turn_has_a_length(tmp_path: Path) -> None:
    """A propeller: the mean direction of its blade is none."""
    mill = Skeleton({"ground": None, "tower": "ground", "door": "ground", "blade": "tower"})
    positions = np.zeros((72, 4, 3)) + np.array([[0.0, 0, 0], [0, 2, 0], [0, 0, 1], [0, 2, 0]])
    around = np.radians(10 * np.arange(72))
    positions[:, 3, 0] += np.cos(around)
    positions[:, 3, 1] += np.sin(around)
    _, away = there_and_back(tmp_path / "a.bvh", positions, mill)
    assert away.max() < 0.1


def test_one_bone_turns_the_shortest_way(tmp_path: Path) -> None:
    """The axis of the smallest rotation that takes one direction to another is perpendicular to both: there is no twist."""
    rng = np.random.default_rng(1)
    bone = Rotation.from_rotvec(smooth(rng, 80, 0.6, 3)).apply([0.1, -0.5, 0.2])
    write_bvh(tmp_path / "a.bvh", np.stack([np.zeros_like(bone), bone], axis=1), Skeleton({"a": None, "b": "a"}), 30)
    rest = np.array(re.findall(r"OFFSET (\S+) (\S+) (\S+)", (tmp_path / "a.bvh").read_text())[1], dtype=float) / 100
    turn = Rotation.from_euler("ZXY", angles(tmp_path / "a.bvh")[:, 0], degrees=True)
    np.testing.assert_allclose(turn.apply(rest), bone, atol=1e-4)
    axis = turn.as_rotvec()
    assert np.linalg.norm(axis, axis=1).max() > 0.5
    np.testing.assert_allclose(axis @ rest, 0, atol=1e-4)


@pytest.mark.parametrize("axis", [(0, 1, 0), (1, 0, 0), (0, 0, 1), (1, 1, 1)])
def test_turning_round_and_round_has_no_leaps(tmp_path: Path, skeleton: Skeleton, axis: tuple[int, int, int]) -> None:
    body = synthetic(skeleton, n=1).recording(0)[:1].numpy()
    body = body - body[:, [skeleton.root]]
    turn = np.arange(300)[:, None] * np.radians(4) * np.array(axis) / np.linalg.norm(axis)
    positions = np.einsum("fab,jb->fja", Rotation.from_rotvec(turn).as_matrix(), body[0])
    _, away = there_and_back(tmp_path / "a.bvh", positions, skeleton)
    found = angles(tmp_path / "a.bvh")
    assert away.max() < 1
    assert np.abs(np.diff(found[:, 0], axis=0)).max() < 30
    assert np.abs(found[:, 1:]).max() < 1, "only the root turns"
    if axis in ((0, 1, 0), (0, 0, 1)):
        assert np.ptp(found[:, 0], axis=0).max() == pytest.approx(299 * 4, abs=1)


def test_all_clips_have_the_same_joints(tmp_path: Path, skeleton: Skeleton) -> None:
    clips = synthetic(skeleton, n=2)
    motions = torch.stack([clips.recording(0)[:30], clips.recording(1)[:1].repeat(30, 1, 1)])  # the second is rigid
    files = list(write_bvh_files(tmp_path / "a.bvh", Clips.whole(motions, 20.0, skeleton)))
    first, second = (read(file) for file in files)
    assert first.joints == second.joints and any("_to_" in joint for joint in first.joints or ())
    index = [(second.joints or ()).index(name) for name in skeleton.names]
    np.testing.assert_allclose(second.positions[:, index], motions[1], atol=1e-4)


def test_the_body_faces_z_in_the_rest_pose(tmp_path: Path, skeleton: Skeleton) -> None:
    clips = synthetic(skeleton, n=13)
    for i in range(13):
        path = tmp_path / "a.bvh"
        write_bvh(path, clips.recording(i).numpy(), skeleton, 20)
        head, _, _ = path.read_text().partition("MOTION")
        width = 3 * head.count("CHANNELS") + 3
        path.write_text(head + "MOTION\nFrames: 1\nFrame Time: 1\n" + "0 " * width)
        rest = read(path)
        at = {name: rest.positions[0, j] for j, name in enumerate(rest.joints or ())}
        across = at["left_hip"] - at["right_hip"]
        assert across[0] > 0.9 * np.linalg.norm(across), "left is towards x"
        assert at["head"][1] > at["left_hip"][1] > at["left_knee"][1] and at["shoulder_center"][1] > at["spine"][1]
        assert (at["left_foot"] - at["left_ankle"])[2] > 0


@pytest.mark.parametrize("up", ["x", "y", "z", "-x", "-y", "-z"])
def test_up_becomes_y_and_nobody_is_mirrored(tmp_path: Path, skeleton: Skeleton, up: str) -> None:
    other = Skeleton(skeleton.joints, skeleton.left_right, skeleton.feet, up=up)
    upright = synthetic(skeleton, n=1).recording(0).numpy().astype(np.float64)
    # The rotation that takes y to the direction that is up there.
    to = np.zeros(3)
    to[other.up_axis] = other.up_sign
    turn = Rotation.align_vectors([to], [[0, 1, 0]])[0]
    write_bvh(tmp_path / "a.bvh", turn.apply(upright.reshape(-1, 3)).reshape(upright.shape), other, 20)
    recording = read(tmp_path / "a.bvh")
    back = recording.positions[:, [(recording.joints or ()).index(name) for name in skeleton.names]].astype(np.float64)
    np.testing.assert_allclose(back[..., 1], upright[..., 1], atol=2e-3)
    # The same motion but for a turn about y.
    best, distance = Rotation.align_vectors(back.reshape(-1, 3), upright.reshape(-1, 3))
    assert distance / np.sqrt(back[..., 0].size) < 2e-3
    np.testing.assert_allclose(best.apply([0, 1, 0]), [0, 1, 0], atol=1e-4)


def test_every_line_is_one_of_the_format(tmp_path: Path, skeleton: Skeleton) -> None:
    renamed = Skeleton({"hip center": None, "left {knee}": "hip center", "right\tknee": "hip center"})
    positions = np.zeros((3, 3, 3)) + np.array([[0, 1, 0], [0.1, 0.5, 0], [-0.1, 0.5, 0]])
    write_bvh(tmp_path / "b.bvh", positions, renamed, 30)
    assert read(tmp_path / "b.bvh").joints == ("hip_center", "left_knee_", "right_knee")
    write_bvh(tmp_path / "a.bvh", synthetic(skeleton, n=1).recording(0).numpy()[:7], skeleton, 30)
    number = r"-?\d+\.\d{6}"
    for name in ("a.bvh", "b.bvh"):
        head, tail = (tmp_path / name).read_bytes().decode("ascii").split("MOTION\n")
        lines = head.splitlines()
        assert lines[0] == "HIERARCHY" and re.fullmatch(r"ROOT \S+", lines[1])
        depth = 0
        for line in lines[1:]:
            depth -= line.strip() == "}"
            assert re.fullmatch(
                rf"\t{{{depth}}}(ROOT \S+|JOINT \S+|End Site|\{{|\}}|OFFSET {number} {number} {number}"
                r"|CHANNELS (6 Xposition Yposition Zposition|3) Zrotation Xrotation Yrotation)",
                line,
            ), line
            depth += line.strip() == "{"
        assert depth == 0 and head.count("CHANNELS 6") == 1
        leaves = len(
            re.findall(r"JOINT \S+\n\t+\{\n\t+OFFSET.*\n\t+CHANNELS.*\n\t+End Site\n\t+\{\n\t+OFFSET.*\n\t+\}\n\t+\}", head)
        )
        assert leaves == head.count("End Site") > 0
        frames, seconds, *rows = tail.splitlines()
        assert frames == f"Frames: {len(rows)}" and seconds == "Frame Time: 0.033333333"
        width = 3 + 3 * head.count("CHANNELS")
        assert all(re.fullmatch(" ".join([number] * width), row) for row in rows)


def test_end_sites_stay_end_sites(tmp_path: Path) -> None:
    skeleton, recording = skeleton_of(SMALL), read(SMALL)
    positions = recording.positions[:, [(recording.joints or ()).index(name) for name in skeleton.names]]
    _, away = there_and_back(tmp_path / "a.bvh", positions, skeleton, fps=30.0)
    assert away[:, [skeleton.index("LeftFoot_end")]].max() < 2
    text = (tmp_path / "a.bvh").read_text()
    assert "_end" not in text and text.count("End Site") == 3
    assert set(skeleton_of(tmp_path / "a.bvh").names) >= set(skeleton.names)


@pytest.mark.parametrize("frames", [1, 2, 50])
def test_bodies_that_hardly_are_ones(tmp_path: Path, frames: int) -> None:
    """A single joint, joints in one place, bones that turn over or all lie in one line: no number is lost."""
    zero = np.zeros((frames, 1, 3))
    there_and_back(tmp_path / "a.bvh", zero, Skeleton({"a": None}))
    star = Skeleton({"a": None, "b": "a", "c": "a", "d": "b"})
    there_and_back(tmp_path / "a.bvh", np.repeat(zero, 4, axis=1), star)
    line = np.array([[0.0, 0, 0], [0, 1, 0], [0, -1, 0], [0, 2, 0]])
    flipping = line * (-1.0) ** np.arange(frames)[:, None, None]
    _, away = there_and_back(tmp_path / "a.bvh", flipping, star)
    assert away.max() < 0.1
    over = np.arange(frames)[:, None] * np.array([np.pi / 2, 0, 0])  # x = 90: z and y turn about one axis
    spinning = np.einsum(
        "fab,jb->fja", Rotation.from_rotvec(over).as_matrix(), [[0.0, 0, 0], [0.3, 1, 0], [0, 1, 0.4], [1, 1, 0]]
    )
    _, away = there_and_back(tmp_path / "a.bvh", spinning, star)
    assert away.max() < 0.1


def test_what_cannot_be_written_is_named(tmp_path: Path, skeleton: Skeleton) -> None:
    path = tmp_path / "a.bvh"
    sound = np.zeros((2, 20, 3))
    with pytest.raises(ValueError, match="coords: 2"):
        write_bvh(path, np.zeros((2, 2, 2)), Skeleton({"a": None, "b": "a"}, up="-y", coords=2), 30)
    with pytest.raises(ValueError, match=r"\(2, 19, 3\), expected \(frames >= 1, 20, 3\)"):
        write_bvh(path, sound[:, 1:], skeleton, 30)
    with pytest.raises(ValueError, match="expected"):
        write_bvh(path, sound[:0], skeleton, 30)
    for value in (np.nan, np.inf, -2e9):
        broken = sound.copy()
        broken[1, 3, 2] = value
        with pytest.raises(ValueError, match="frame 1, joint head"):
            write_bvh(path, broken, skeleton, 30)
    for fps, scale in ((0, 100), (float("nan"), 100), (1e5, 100), (30, 0), (30, float("inf"))):
        with pytest.raises(ValueError, match=r"fps=.*scale="):
            write_bvh(path, sound, skeleton, fps, scale)
    with pytest.raises(ValueError, match=r"one name in the file: \['a_b'\]"):
        write_bvh(path, np.zeros((1, 2, 3)), Skeleton({"a b": None, "a_b": "a b"}), 30)
    assert not list(tmp_path.iterdir())
