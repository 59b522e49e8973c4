"""NTU RGB+D: files in the published layout, several bodies and none, damage, and the way to a ClipSet."""

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from datamodules.readers.ntu import JOINTS, read
from datamodules.sets.folder import folder
from ddpm.config import construct
from ddpm.errors import DataError
from tests.configs import compose
from tests.skeletons import people, shipped

NAME = "S001C002P003R002A013.skeleton"
KINECT = shipped("kinect20")
V1 = {"spine_base": "hip_center", "spine_mid": "spine", "spine_shoulder": "shoulder_center"}
MORE = {
    "neck": "shoulder_center",
    **{f"{side}_{tip}": f"{side}_hand" for side in ("left", "right") for tip in ("hand_tip", "thumb")},
}


def widened(motion: np.ndarray) -> np.ndarray:
    """Kinect's 20 joints -> NTU's 25, the five new ones beside the nearest old one."""
    near = [V1.get(name, MORE.get(name, name)) for name in JOINTS]
    offset = np.array([[0.0, 0.04 * (name in MORE), 0.0] for name in JOINTS])
    return (motion[:, [KINECT.index(name) for name in near]] + offset).astype(np.float32)


def text(*bodies: tuple[str, int, np.ndarray], frames: int, states: np.ndarray | None = None) -> str:
    """A file with bodies ``(id, first frame, (frames, 25, 3))``; ``states`` ``(frames, 25)`` is the tracking of all of them."""
    lines = [str(frames)]
    for f in range(frames):
        there = [(name, motion[f - first]) for name, first, motion in bodies if first <= f < first + len(motion)]
        lines.append(str(len(there)))
        for name, pose in there:
            lines += [f"{name} 0 1 1 0 0 0 0.01 -0.2 2", "25"]
            for j, (x, y, z) in enumerate(pose):
                state = 2 if states is None else states[f, j]
                lines.append(f"{x:.7g} {y:.7g} {z:.7g} 277.4 191.8 1036.2 519.1 -0.2 0.05 0.96 -0.12 {state}")
    return "\r\n".join(lines) + "\r\n"


A, B = (widened(motion) for motion in people(2, 30.0))


def test_one_body(tmp_path: Path) -> None:
    states = np.full((40, 25), 2)
    states[3, 5], states[4, 6] = 1, 0
    (tmp_path / NAME).write_text(text(("72057594037931101", 0, A[:40]), frames=40, states=states), newline="")
    (r,) = read(tmp_path / NAME)
    assert (r.source, r.label, r.subject, r.fps, r.units) == (NAME, "A013", "P003", 30.0, "m")
    assert r.joints == shipped("ntu25").names
    np.testing.assert_allclose(r.positions, A[:40], atol=1e-6)
    assert r.confidence is not None and r.confidence.dtype == r.positions.dtype == np.float32
    assert r.confidence[3, 5] == 0.5 and r.confidence[4, 6] == 0 and (r.confidence == 1).sum() == 998


def test_bodies_are_told_apart_by_their_long_numbers(tmp_path: Path) -> None:
    """They come and go, and their numbers differ in a digit that a float64 does not hold."""
    content = text(
        ("72057594037931101", 0, A[:20]), ("72057594037931102", 5, B[:10]), ("72057594037931101", 25, A[25:30]), frames=32
    )
    (tmp_path / NAME).write_text(content)
    first, second = read(tmp_path / NAME)
    assert (first.source, second.source) == (f"{NAME}, body 1", f"{NAME}, body 2")
    assert len(first.positions) == 30 and len(second.positions) == 10
    assert first.confidence is not None and (first.confidence[20:25] == 0).all() and (first.confidence[25:] == 1).all()
    np.testing.assert_allclose(first.positions[25:], A[25:30], atol=1e-6)
    np.testing.assert_allclose(second.positions, B[:10], atol=1e-6)


def test_no_body_is_counted_and_not_hidden(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(text(frames=12))
    (tmp_path / "S001C002P004R002A002.skeleton").write_text(text(("1", 0, A), ("2", 0, B[:5]), frames=len(A)))
    (nothing,) = read(tmp_path / NAME)
    assert nothing.positions.shape == (12, 25, 3) and nothing.confidence is not None and not nothing.confidence.any()
    clips = folder(shipped("ntu25"), str(tmp_path))
    assert clips.sources == ("S001C002P004R002A002.skeleton, body 1",) and clips.subjects == ("P004",)
    assert f"3 recordings, {12 + len(A) + 5} frames: kept 1 with {len(A)} frames; dropped 2" in clips.notes[0]
    assert f"1 without a tracked frame: {NAME}" in clips.notes[0] and "body 2" in clips.notes[0]


def test_ntu_trains_kinect20(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(text(("1", 0, A), frames=len(A)))
    clips = folder(KINECT, str(tmp_path), floor=False)
    np.testing.assert_allclose(clips.frames.numpy(), people(2, 30.0)[0], atol=1e-5)
    assert clips.fps == 30 and clips.class_names == ("A013",)
    assert "hip_center is spine_base" in clips.notes[1] and "left_thumb" in clips.notes[2]


def test_inferred_joints_can_count_as_lost(tmp_path: Path) -> None:
    states = np.full((len(A), 25), 2)
    states[10:12, 5] = 1
    (tmp_path / NAME).write_text(text(("1", 0, A), frames=len(A), states=states))
    cfg = compose("config", ["data=ntu", f"data.root={tmp_path}", "skeleton=ntu25", "data.min_confidence=0.6"])
    assert (cfg.loader.split, cfg.frames) == ("subject", 48)
    clips = construct(OmegaConf.to_container(cfg.data, resolve=True), "data")
    assert "interpolated 2 lost" in clips.notes[0]


def test_a_body_of_which_nothing_was_tracked_is_a_ghost(tmp_path: Path) -> None:
    ghost = text(("2", 0, B), frames=len(B), states=np.random.default_rng(0).integers(0, 2, (len(B), 25)))
    (tmp_path / NAME).write_text(ghost)
    (tmp_path / NAME.replace("P003", "P004")).write_text(text(("1", 0, A), frames=len(A)))
    (r,) = read(tmp_path / NAME)
    assert r.confidence is not None and not r.confidence.any()
    clips = folder(shipped("ntu25"), str(tmp_path))
    assert clips.subjects == ("P004",) and f"1 without a tracked frame: {NAME} (all joints inferred)" in clips.notes[0]
    assert any(NAME in flaw and "nothing is used" in flaw for flaw in clips.flaws or ())


GOOD = text(("1", 0, A[:3]), frames=3).splitlines()  # line 1, then 28 lines a frame: bodies, body, joints, 25 joints


def changed(number: int, to: str) -> list[str]:
    return [*GOOD[: number - 1], to, *GOOD[number:]]


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (changed(1, "4"), "it ends after 85 lines, expected the number of bodies in frame 3"),
        (changed(1, "2"), "2 frames end at line 57, there are 85 lines"),
        (changed(1, "1000000000"), "line 1 is '1000000000', expected the number of frames, at most 85"),
        (changed(1, "99999999999999999999"), "line 1 is"),
        (changed(1, "-3"), "line 1 is '-3'"),
        (changed(2, "1000000000"), "line 2 is '1000000000', expected the number of bodies in frame 0"),
        (changed(2, "0"), "line 3 is '1 0 1 1 .*expected the number of bodies in frame 1"),
        (changed(4, "20"), r"line 4 \(frame 0\): 20 joints, expected 25"),
        (changed(4, "10000"), "line 4 is '10000', expected the number of joints"),
        (changed(7, "1 2 3"), "line 7 is '1 2 3', expected the 12 values of a joint in frame 0"),
        (changed(7, "nan 2 3 0 0 0 0 0 0 0 0 2"), "line 7, joint neck: x, y, z and tracking state are nan 2 3 2"),
        (changed(35, "1 inf 3 0 0 0 0 0 0 0 0 2"), "line 35, joint neck"),
        (changed(8, "1 2 three 0 0 0 0 0 0 0 0 2"), "line 8, joint head.*three"),
        (changed(8, "1 2 3 0 0 0 0 0 0 0 0 3"), "line 8, joint head.*0, 1 or 2"),
        (GOOD[:-1], "it ends after 84 lines, expected the 12 values of a joint in frame 2"),
        ([], "it ends after 0 lines"),
        (["<html>"], "line 1 is '<html>'"),
        ([*GOOD[:1], "2", *GOOD[2:29], *GOOD[2:29], *GOOD[29:]], "body 1 is there twice"),
    ],
)
def test_damage_is_located(tmp_path: Path, lines: list[str], named: str) -> None:
    (tmp_path / NAME).write_text("\n".join(lines))
    with pytest.raises(DataError, match=named) as e:
        read(tmp_path / NAME)
    assert str(e.value).startswith(str(tmp_path / NAME)) and ("remove" in str(e.value) or "expected 25" in str(e.value))


def test_crowds_are_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(text(*((str(k), k, A[:1]) for k in range(101)), frames=101))
    with pytest.raises(DataError, match="more than 100 bodies"):
        read(tmp_path / NAME)
