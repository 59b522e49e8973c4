"""What is trained on and what is held out."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from datamodules.clip_set import ClipSet, Names, Recording, with_subjects
from datamodules.sets.bvh import bvh
from datamodules.sets.bvh import skeleton as bvh_skeleton
from datamodules.sets.folder import folder
from datamodules.sets.msr_action3d import JOINTS, msr_action3d
from datamodules.sets.store import store, write_store
from datamodules.split import list_digest, scenes, split_recordings
from ddpm.errors import DataError
from tests.configs import compose
from tests.datamodules.test_pose import counted
from tests.skeletons import people, shipped


def named(sources: list[str]) -> ClipSet:
    clips = counted([9] * len(sources))
    return ClipSet(**{**vars(clips), "sources": Names.of(sources)})


@pytest.mark.parametrize("split", ["subject", "sequence"])
def test_nothing_is_on_both_sides(split: str) -> None:
    clips = counted([9] * 40, [f"s{i % 8}" for i in range(40)])
    train, val = split_recordings(clips, 0.2, split, seed=3)
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(40))
    assert len(val) >= 8
    if split == "subject":
        assert not {clips.subjects[i] for i in train} & {clips.subjects[i] for i in val}
    assert torch.equal(val, split_recordings(clips, 0.2, split, seed=3)[1])


def test_impossible_splits_are_refused() -> None:
    with pytest.raises(DataError, match=r"r0.*split=sequence"):
        split_recordings(counted([9, 9]), 0.5, "subject", 0)
    with pytest.raises(DataError, match="one side stays empty"):
        split_recordings(counted([9, 9], ["s", "s"]), 0.5, "subject", 0)
    with pytest.raises(ValueError, match="room"):
        split_recordings(counted([9, 9]), 0.5, "room", 0)


def test_what_holds_most_of_the_motion_is_trained_on(caplog: pytest.LogCaptureFixture) -> None:
    for seed in range(10):
        train, val = split_recordings(counted([1000, *[9] * 9]), 0.3, "sequence", seed)
        assert 0 in train and len(val) == 3
        assert len(split_recordings(counted([5, 9]), 0.9, "sequence", seed)[0]) == 1
    assert "r0 holds 93 % of all frames and is trained on; only 2.5 % are held out" in caplog.text


def test_without_held_out_data_training_data_validate() -> None:
    train, val = split_recordings(counted([9]), 0.0, "subject", 0)
    assert train.tolist() == val.tolist() == [0]


@pytest.mark.parametrize(
    ("together", "apart"),
    [
        (["a/S1.skeleton, body 1", "a/S1.skeleton, body 2"], ["a/S2.skeleton", "b/S1.skeleton, body 1"]),
        (["v.json, person 1", "v.json, person 2 (late)"], ["w.json, person 1"]),
        (["n/012345.npy", "n/M012345.npy"], ["n/M000001.npy", "n/000002.npy", "m/012345.npy"]),
        (["walk.bvh", "walk_mirrored.bvh", "mirror_walk.bvh", "walk-flip.bvh", "walk_M.bvh"], ["walk2.bvh", "swim.bvh"]),
        (["run.npy", "mirror/run.npy", "M_run.npy"], ["back/run.npy", "Mrun.npy"]),
        (["a.csv, mouse.A", "a.csv, mouse.B", "mirror/a.csv, mouse.B"], ["b.csv, mouse.A", "a, c.csv", "a, b.csv"]),
        (["take.1, slow.CSV, A", "take.1, slow.CSV, B.2"], ["take.1, fast.csv, A", "take.1, x.npz, clip 1", "take.csv, old.csv"]),
        (["7.json, person 1", "7.json, person 2", "m7.json, person 2"], ["8.json, person 1"]),
        (["a/run.npy", "flipped/run.npy", "a/run_LR.npy", "a/runMirrored.npy", "a/run (mirrored).npy"], ["b/walk.npy"]),
        (
            ["a_1.bvh", "a_1m.bvh", "a_1_x0.9.bvh", "a_1_speed1.25.bvh", "a_1_aug2.bvh", "a_1_aug2_flip.bvh"],
            ["a_2.bvh", "a_12.bvh"],
        ),
        ([], ["f/1.npy", "m/1.npy", "left.npy", "1_F.npy", "1_M.npy", "take_1.npy", "take.npy"]),
        ([], ["walk, slow.npy", "walk, fast.npy", "c.npz, clip 1", "c.npz, clip 2", "d.npy, clip 1", "synthetic/walk_1"]),
    ],
)
def test_what_belongs_together_is_one_scene(together: list[str], apart: list[str]) -> None:
    found = list(scenes(Names.of([*together, *apart])))
    assert len(set(found[: len(together)])) == min(1, len(together))
    assert len(set(found)) == min(1, len(together)) + len(apart)


@pytest.mark.parametrize("seed", range(5))
def test_bodies_and_mirrored_copies_are_on_one_side(seed: int) -> None:
    clips = named([f"{m}{k:06d}.skeleton, body {b}" for k in range(10) for m in ("", "M") for b in (1, 2)])
    train, val = split_recordings(clips, 0.1, "sequence", seed)
    sides = [{clips.sources[i][-22:-16] for i in side.tolist()} for side in (train, val)]  # type: ignore[index]
    assert len(sides[0]) == 9 and len(sides[1]) == 1 and not sides[0] & sides[1]


def lists(root: Path, **files: str) -> None:
    for name, content in files.items():
        (root / f"{name}.txt").write_text(content)


def test_an_official_list_decides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    clips = named(["n/0.npy", "n/M0.npy", "n/1.npy", "n/2.npy", "n/3.npy"])

    def sides(path: Path) -> list[list[int]]:
        return [side.tolist() for side in split_recordings(clips, 0.1, str(path), 0)]

    for held in ('"0"\n2.npy 7\n', "0.npy,walk\n2.npy,run\n", "/there/n/0.npy\nn\\2.npy\n"):
        lists(tmp_path, held=held)
        assert sides(tmp_path / "held.txt") == [[2, 4], [0, 1, 3]]
    before = list_digest(str(tmp_path / "held.txt"))
    lists(tmp_path, held="\ufeff# ours\n0\r\n\nn/2.npy\nunknown\n")
    after = list_digest(str(tmp_path / "held.txt"))
    assert after and after.startswith("3 names") and after != before and list_digest("subject") is None
    assert sides(tmp_path / "held.txt") == [[2, 4], [0, 1, 3]], "a mirrored copy goes with its original"
    assert "1 of its 3 names are not in the data" in caplog.text
    lists(tmp_path, train="./n/1\n3.npy\n")
    assert sides(tmp_path / "train.txt") == [[2, 4], [0, 1, 3]], "the rest is held out"
    lists(tmp_path, test="2\n")
    for name in ("train.txt", "test.txt", ""):
        assert sides(tmp_path / name) == [[2, 4], [3]]
    assert "2 recordings are in neither list" in caplog.text
    lists(tmp_path, val="M0\n")
    for name in ("train.txt", "val.txt", ""):
        assert sides(tmp_path / name) == [[2, 4], [0, 1]]
    people = with_subjects(clips, r"(\d)\.npy")
    assert split_recordings(people, 0.1, str(tmp_path / "val.txt"), 0)[1].tolist() == [0, 1]
    lists(tmp_path, pose_train="1\n2\n", pose_val="2\n3\n", nobody="x\n", all="0\n1\n2\n3\n")
    with pytest.raises(DataError, match=r"pose_val\.txt: n/2\.npy .*pose_train\.txt"):
        sides(tmp_path / "pose_train.txt")
    with pytest.raises(DataError, match=r"nobody\.txt: none of its 1 names.*n/0\.npy"):
        sides(tmp_path / "nobody.txt")
    with pytest.raises(DataError, match="none is left to train"):
        sides(tmp_path / "all.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"train\.txt and val\.txt"):
        sides(tmp_path / "empty")


def test_people_are_read_from_names() -> None:
    clips = named(["S01_walk.npy", "S01_run.npy, clip 2", "S2_run.npy", "x.npy"])
    assert list(with_subjects(clips, r"S(\d+)").subjects) == ["01", "01", "2", None]
    assert list(with_subjects(clips, r"^\w\d").subjects) == ["S0", "S0", "S2", None]
    assert with_subjects(clips, None) is clips
    with pytest.raises(DataError) as error:
        split_recordings(clips, 0.1, "subject", 0)
    (remedy,) = shlex.split(re.search(r'"data\.subject=.*"', str(error.value))[0])  # type: ignore[index]
    assert OverridesParser.create().parse_override(remedy).value() == r"S(\d+)", "as a shell hands it over"
    with pytest.raises(DataError, match=r"data\.subject='P.*S01_walk\.npy"):
        with_subjects(clips, r"P(\d+)")
    with pytest.raises(ValueError, match="no regular expression"):
        with_subjects(clips, "(")


def test_the_pattern_of_people_works_as_it_is_printed() -> None:
    with pytest.raises(DataError) as e:
        split_recordings(counted([9, 9]), 0.5, "subject", 0)
    root = Path(__file__).parents[2]
    for text in (str(e.value), *(p.read_text() for p in (root / "docs" / "data.md", *(root / "conf" / "data").glob("*.yaml")))):
        for shown in re.findall(r"""[^\s`]*data\.subject=[^\s`;]*""", text):
            (argument,) = shlex.split(shown)  # as a shell does
            assert compose("config", ["data=folder", "data.root=x", argument]).data.subject == r"S(\d+)"


def test_every_group_of_files_reads_people_from_names(tmp_path: Path) -> None:
    skeleton = shipped("kinect20")
    motion = people(1)[0]
    for name in ("S1_a", "S1_b", "S2_a"):
        np.save(tmp_path / f"{name}.npy", motion)
        (tmp_path / f"{name}.bvh").write_text((Path(__file__).parents[1] / "bvh" / "small.bvh").read_text())
        lines = "".join(f"{x} {y} {z} 1\n" for x, y, z in motion[:, [skeleton.index(n) for n in JOINTS]].reshape(-1, 3))
        (tmp_path / f"a01_s0{name[1]}_e0{name.count('a')}_skeleton3D.txt").write_text(lines)
    pattern = r"[Ss](0?\d)_"
    own = folder(skeleton, str(tmp_path / "S2_a.npy"), fps=20.0, subject=pattern)
    assert list(own.subjects) == ["2"]
    write_store([Recording(motion, f"S{k}_.npy") for k in range(2)], tmp_path / "store", fps=20.0, skeleton=skeleton)
    assert list(store(skeleton, str(tmp_path / "store"), subject=pattern).subjects) == ["0", "1"]
    assert list(bvh(bvh_skeleton(str(tmp_path)), str(tmp_path), subject=pattern).subjects) == ["1", "1", "2"]
    assert list(msr_action3d(skeleton, str(tmp_path), subject=r"_(e\d+)").subjects) == ["e00", "e01", "e01"]
    for group in (Path(__file__).parents[2] / "conf" / "data").glob("*.yaml"):
        data = compose("config", [f"data={group.stem}", "data.root=x"] if group.stem != "synthetic" else []).data
        assert "subject" in data or group.stem == "synthetic"
