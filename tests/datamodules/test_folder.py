"""Folders of anything: found, read, labelled, and the same clips whatever the format."""

import logging
import os
import re
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from datamodules.clip_set import ClipSet
from datamodules.readers import raw_files
from datamodules.readers.raw_files import find_files, read_bytes
from datamodules.sets.folder import folder
from ddpm.config import construct
from ddpm.errors import DataError
from ddpm.skeleton import Skeleton
from tests.configs import compose
from tests.skeletons import people, shipped

SKELETON = shipped("kinect20")
MOTIONS = people()


def table(motion: np.ndarray, fps: float) -> str:
    header = ",".join(["time", *(f"{name}_{axis}" for name in SKELETON.names for axis in "xyz")])
    rows = (",".join(f"{v:.9g}" for v in (k / fps, *row)) for k, row in enumerate(motion.reshape(len(motion), -1)))
    return "\n".join([header, *rows])


def same(clips: ClipSet) -> bool:
    return all(np.allclose(clips.recording(i).numpy(), motion, atol=1e-6) for i, motion in enumerate(MOTIONS))


def test_one_motion_in_every_format_is_one_motion(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for k, motion in enumerate(MOTIONS):
        for kind in ("npy", "npz", "csv"):
            (tmp_path / kind).mkdir(exist_ok=True)
        np.save(tmp_path / "npy" / f"{k}.npy", motion)
        np.savez(tmp_path / "npz" / f"{k}.npz", positions=motion[:, ::-1], joint_names=SKELETON.names[::-1], fps=20)
        (tmp_path / "csv" / f"{k}.CSV").write_text(table(motion, 20))
    for kind in ("npy", "npz", "csv"):
        with caplog.at_level(logging.INFO):
            clips = folder(SKELETON, str(tmp_path / kind), fps=20 if kind == "npy" else None, floor=False)
        assert len(clips) == 3 and clips.fps == 20 and clips.class_names == () and same(clips)
        assert "kept 3 with" in caplog.records[-1].getMessage() and str(tmp_path / kind) in caplog.records[-1].getMessage()
    together = folder(SKELETON, str(tmp_path), fps=20, floor=False)
    assert len(together) == 9 and together.class_names == ("csv", "npy", "npz")
    assert together.sources[0] == "csv/0.CSV" and together.sources[-1] == "npz/2.npz"
    single = folder(SKELETON, str(tmp_path / "npz" / "1.npz"), floor=False)
    assert single.sources == ("1.npz",) and single.class_names == ()


def test_the_clips_of_sample_py_are_read_back(tmp_path: Path) -> None:
    clips = np.stack([motion[:40] for motion in MOTIONS])
    np.savez_compressed(
        tmp_path / "clips.npz", clips=clips, fps=np.float64(20), joint_names=np.array(SKELETON.names),
        parents=np.array(SKELETON.parents), seeds=np.arange(3),
    )  # fmt: skip
    back = folder(SKELETON, str(tmp_path / "clips.npz"), floor=False)
    assert len(back) == 3 and (back.frames.numpy() == clips.reshape(-1, 20, 3)).all()


def test_the_third_coordinate_may_be_a_confidence(tmp_path: Path) -> None:
    flat = shipped("kinect20", coords=2, up="-y", units="px")
    scores = np.ones((len(MOTIONS[0]), 20, 1), np.float32)
    scores[10:12, 3] = 0.1
    scores[20:30] = np.nan  # not said
    np.save(tmp_path / "a.npy", np.concatenate([MOTIONS[0][..., :2] * (300, -300), scores], -1))
    clips = folder(flat, str(tmp_path), fps=20, last_is_confidence=True, min_confidence=0.3)
    assert clips.frames.shape[2] == 2 and "interpolated 2 lost" in clips.notes[0]
    with pytest.raises(DataError, match=r"last_is_confidence=true"):
        folder(flat, str(tmp_path), fps=20)
    np.save(tmp_path / "b.npy", MOTIONS[0][..., :2])
    with pytest.raises(DataError, match=r"b\.npy.*found 2 coordinates"):
        folder(flat, str(tmp_path), fps=20, last_is_confidence=True)


def test_bvh_is_scaled_once(tmp_path: Path) -> None:
    """Whatever the unit of other files."""
    small = Path(__file__).parents[1] / "bvh" / "small.bvh"
    joints = {"Hips": None, "LeftLeg": "Hips", "LeftFoot": "LeftLeg"}
    clips = folder(Skeleton(joints, units="cm"), str(small), min_seconds=0, floor=False)
    thigh = (clips.frames[:, 1] - clips.frames[:, 0]).norm(dim=-1)
    np.testing.assert_allclose(thigh, 0.1, atol=1e-5)  # OFFSET 10 0 0, in centimetres
    (tmp_path / "metres.bvh").write_text(re.sub(r"OFFSET.*", "OFFSET 0 2000 0", small.read_text()))
    with pytest.raises(DataError, match=r"not m: .*data=bvh data\.scale="):
        folder(Skeleton(joints), str(tmp_path), min_seconds=0)


def test_names_for_files_that_have_none(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", MOTIONS[0])
    lower = shipped("kinect20", keep=["hip_center", "left_leg", "right_leg"])
    with pytest.raises(DataError, match=r"20 joints without names, the skeleton has 9.*data\.joints=kinect20.*kinect20 fits"):
        folder(lower, str(tmp_path), fps=20)
    clips = folder(lower, str(tmp_path), fps=20, joints="kinect20", floor=False)
    chosen = [SKELETON.index(name) for name in lower.names]
    assert (clips.frames.numpy() == MOTIONS[0][:, chosen]).all()
    assert (folder(lower, str(tmp_path), fps=20, joints=SKELETON.names, floor=False).frames == clips.frames).all()


def test_other_files_are_counted_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for name in ("a.npy", ".b.npy", ".cache/c.npy", "notes.txt", "below/far/d.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    paths, others = find_files(tmp_path, [".npy"])
    assert [str(path.relative_to(tmp_path)) for path in paths] == ["a.npy", "below/far/d.npy"] and others == 1


def test_links_do_not_lead_in_circles(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "again").symlink_to(tmp_path)
    np.save(tmp_path / "in" / "a.npy", MOTIONS[0])
    assert len(folder(SKELETON, str(tmp_path), fps=20)) == 1
    (tmp_path / "b.npy").symlink_to(tmp_path / "b.npy")
    (tmp_path / "c.npy").symlink_to(tmp_path / "in" / "a.npy")
    clips = folder(SKELETON, str(tmp_path), fps=20)
    assert clips.sources == ("in/a.npy",) and clips.notes[-1] == "2 other files were not looked at"
    assert len(folder(SKELETON, str(tmp_path / "c.npy"), fps=20)) == 1, "a link that was asked for"
    with pytest.raises(DataError, match=r"no such file or directory.*data\.root"):
        folder(SKELETON, str(tmp_path / "b.npy"), fps=20)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(DataError, match=r"a\.npy: not a regular file"):
        folder(SKELETON, str(tmp_path), fps=20)
    (tmp_path / "large").write_bytes(bytes(100))
    with pytest.raises(DataError, match="100 bytes, at most 99"):
        read_bytes(tmp_path / "large", 99)
    monkeypatch.setattr(raw_files, "MAX_FILES", 1)
    with pytest.raises(DataError, match="more than 1 files"):
        find_files(tmp_path, [".npy"])


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone: no such file or directory.*data\.root"):
        folder(SKELETON, str(tmp_path / "gone"))
    (tmp_path / "a.dat").touch()
    with pytest.raises(DataError, match=r"none of the files there \(1\) ends with \.npy"):
        folder(SKELETON, str(tmp_path))
    with pytest.raises(DataError, match=r"unknown ending '\.dat'"):
        folder(SKELETON, str(tmp_path / "a.dat"))


def test_the_configuration_builds(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", MOTIONS[0])
    cfg = compose(
        "config", ["data=folder", f"data.root={tmp_path}", "data.fps=20", "skeleton.keep=[trunk]", "data.joints=kinect20"]
    )
    assert cfg.loader.split == "sequence"
    clips = construct(OmegaConf.to_container(cfg.data, resolve=True) | {"skeleton": shipped("kinect20", keep=["trunk"])}, "data")
    assert clips.skeleton.names == ("hip_center", "spine", "shoulder_center", "head") and len(clips) == 1


def test_own_names_from_the_command_line(tmp_path: Path) -> None:
    """A skeleton that nobody has seen, joints under names that nobody knows."""
    names = [f"j{k}" for k in range(20)]
    np.savez(tmp_path / "a.npz", clips=MOTIONS[0], joint_names=names, fps=20)
    given = [f"+data.retarget.{name}=j{k}" for k, name in enumerate(SKELETON.names) if name != "spine"]
    cfg = compose("config", ["data=folder", f"data.root={tmp_path}", "data.floor=false", "+data.retarget.spine=[j0,j2]", *given])
    clips = construct(OmegaConf.to_container(cfg.data, resolve=True), "data")
    spine = SKELETON.index("spine")
    assert np.allclose(clips.frames[:, spine], MOTIONS[0][:, [0, 2]].mean(1), atol=1e-6)
    assert (np.delete(clips.frames.numpy(), spine, 1) == np.delete(MOTIONS[0], spine, 1)).all()
