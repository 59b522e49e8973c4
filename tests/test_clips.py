"""Clips: what is refused, what padding may hold, derivatives, and files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.readers.bvh_file import read as read_bvh
from datamodules.sets.folder import folder, read_file
from ddpm.clips import ENDINGS, Clips, frame_mean
from ddpm.errors import DataError
from ddpm.metrics.comparison import Measured
from ddpm.metrics.memorisation import nearest
from ddpm.skeleton import Skeleton
from tests.skeletons import people, shipped


def test_padding_is_overwritten_by_the_last_pose(motions: Clips) -> None:
    garbage = torch.where(motions.mask[..., None, None], motions.positions, torch.nan)
    again = motions.replace(garbage)
    assert torch.equal(again.positions, motions.positions)
    for clip, length in zip(again.positions, again.lengths, strict=True):
        assert torch.equal(clip[length:], clip[length - 1].expand_as(clip[length:]))


def test_from_batch_is_the_inverse_of_the_batch_layout(motions: Clips) -> None:
    mask = motions.mask.float()[:, None, None]
    again = Clips.from_batch(motions.positions.permute(0, 2, 3, 1), mask, fps=20.0, skeleton=motions.skeleton)
    assert torch.equal(again.positions, motions.positions) and torch.equal(again.lengths, motions.lengths)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": torch.zeros(2, 5, 19, 3)}, r"\(2, 5, 19, 3\), expected \(n >= 1, frames >= 1, 20 joints, 3 coords\)"),
        ({"positions": torch.zeros(0, 5, 20, 3), "lengths": torch.zeros(0)}, "n >= 1"),
        ({"lengths": torch.tensor([5])}, "2 clips need as many lengths"),
        ({"lengths": torch.tensor([0, 5])}, r"from 0 to 5, they must be in 1\.\.5"),
        ({"lengths": torch.tensor([6, 5])}, r"from 5 to 6, they must be in 1\.\.5"),
        ({"fps": 0.0}, "fps=0"),
        ({"fps": float("nan")}, "fps=nan"),
        ({"fps": float("inf")}, "fps=inf"),
        ({"seeds": torch.arange(3)}, "2 clips need as many seeds, got 3"),
        ({"labels": ("walk",)}, "2 clips need as many labels, got 1"),
    ],
)
def test_what_does_not_belong_together_is_refused(skeleton: Skeleton, change: dict[str, object], message: str) -> None:
    good = {"positions": torch.zeros(2, 5, 20, 3), "lengths": torch.tensor([5, 4]), "fps": 20.0, "skeleton": skeleton}
    with pytest.raises(ValueError, match=message):
        Clips(**{**good, **change})


def test_a_position_that_is_not_finite_is_named_and_not_saved(motions: Clips, tmp_path: Path) -> None:
    x = motions.positions.clone()
    x[7, 2, 4, 1] = torch.inf
    broken = motions.replace(x)
    for ending in ("npz", "bvh"):
        with pytest.raises(ValueError, match="clip 7, frame 2"):
            broken.save(tmp_path / f"x.{ending}")
    with pytest.raises(ValueError, match="noise is not finite"):
        motions.save(tmp_path / "x.npz", arrays={"noise": np.array([np.nan])})
    assert not list(tmp_path.iterdir())
    assert broken.finite.tolist() == [i != 7 for i in range(40)]
    assert motions.finite.all() and motions.require_finite() is motions
    for measured in (Clips.require_finite, Measured.of, lambda clips: nearest(clips, motions)):
        with pytest.raises(ValueError, match="clip 7, frame 2, joint left_shoulder is at inf; 1 of 40 clips"):
            measured(broken)


def test_a_position_that_float32_cannot_hold_is_not_saved(motions: Clips, tmp_path: Path) -> None:
    """Files hold float32, in which it would be infinite."""
    large = motions.positions.clone()
    large[2, 0] = 1e39
    with pytest.raises(ValueError, match="1 of 40 clips are not finite"):
        motions.replace(large).save(tmp_path / "a.npz")


def test_the_skeleton_comes_back_whole(tmp_path: Path) -> None:
    """Also one that is not shipped: sides, feet, parts and the vertical, on which pictures and heights depend."""
    own = Skeleton(
        {"hip": None, "left_toe": "hip", "right_toe": "hip", "nose": "hip"}, left_right=[["left_toe", "right_toe"]],
        feet=["left_toe", "right_toe"], up="-z", parts={"head": ["nose"]},
    )  # fmt: skip
    clips = Clips.whole(torch.randn(2, 5, 4, 3), 20.0, own)
    clips.save(tmp_path / "a.npz")
    again = Clips.load(tmp_path / "a.npz")
    assert again.skeleton == own and torch.equal(again.heights, Clips.load(tmp_path / "a.npz", own).heights)
    with np.load(tmp_path / "a.npz") as content:
        arrays = dict(content)
    for text, named in (("{", "cannot be built"), ("[1]", "cannot be built"), ('{"joints": {"a": null}}', "other joints")):
        np.savez(tmp_path / "b.npz", **(arrays | {"skeleton": np.array(text)}))
        with pytest.raises(DataError, match=rf"b\.npz: its skeleton .*{named}"):
            Clips.load(tmp_path / "b.npz")


def test_a_label_is_a_text_or_unknown(motions: Clips, tmp_path: Path) -> None:
    replace(motions, labels=("walk", None, *[""] * 38)).save(tmp_path / "a.npz")  # type: ignore[arg-type]
    assert Clips.load(tmp_path / "a.npz").labels[:3] == ("walk", "", "")
    for labels in ("a" * 40, (1,) * 40):
        with pytest.raises(ValueError, match=r"labels=.* must be a text for each clip"):
            replace(motions, labels=labels)


def test_many_clips_of_few_frames_are_loaded_as_such(skeleton: Skeleton, tmp_path: Path) -> None:
    """Without their lengths 30 clips of 2 frames could be 30 frames of 2 bodies."""
    clips = Clips.whole(torch.arange(30 * 2 * 20 * 3).reshape(30, 2, 20, 3) / 2000, 20.0, skeleton)
    clips.save(tmp_path / "a.npz")
    assert torch.equal(Clips.load(tmp_path / "a.npz").positions, clips.positions.float().double())


def test_derivatives_of_a_polynomial_are_exact(skeleton: Skeleton) -> None:
    time = torch.arange(9, dtype=torch.float64) / 25
    x = (2 * time**3)[None, :, None, None].expand(2, 9, 20, 3)
    motions = Clips(x, torch.tensor([9, 6]), 25.0, skeleton)
    jerk, mask = motions.derivative(3)
    assert mask.sum(1).tolist() == [6, 3]
    torch.testing.assert_close(jerk[mask], torch.full_like(jerk[mask], 12.0))
    torch.testing.assert_close(frame_mean(jerk, mask), torch.full((2, 20, 3), 12.0, dtype=torch.float64))


def test_a_clip_too_short_for_a_derivative_is_named(motions: Clips) -> None:
    with pytest.raises(ValueError, match="clip 0 has 5 frames; difference number 5 needs 6"):
        motions.derivative(5)


def test_heights_follow_the_up_axis(motions: Clips, flat: Clips) -> None:
    assert torch.equal(motions.heights, motions.positions[..., 1])
    assert torch.equal(flat.heights, -flat.positions[..., 1])


def test_what_is_taken_keeps_its_seed_label_and_length(motions: Clips) -> None:
    labels = tuple("walk" if i % 3 else "" for i in range(40))
    known = replace(motions, seeds=torch.arange(100, 140), labels=labels)
    for index in (torch.tensor([5, 3]), torch.arange(40) == 7, slice(2, 9, 2)):
        numbers = torch.arange(40)[index].tolist()
        some = replace(known, given=known.positions > 0).take(index)
        assert torch.equal(some.given, some.positions > 0)
        assert some.seeds.tolist() == [100 + i for i in numbers] and some.labels == tuple(labels[i] for i in numbers)
        assert torch.equal(some.positions, motions.positions[numbers]) and torch.equal(some.lengths, motions.lengths[numbers])
    assert known.replace(known.positions + 1).labels == labels
    assert known.titles[:2] == ["seed 100", "seed 101 walk"] and motions.titles is None
    assert replace(motions, labels=labels).titles[:2] == ["", "walk"]
    assert known.label_codes(("run", "walk")).tolist() == [1 if i % 3 else -1 for i in range(40)]


def test_another_rate_and_tempo_show_the_same_motion(skeleton: Skeleton) -> None:
    """A straight way at even speed is met exactly, and lasts as long as it should; frames that were given stay marked."""
    way = torch.arange(9.0)[None, :, None, None].expand(2, 9, 20, 3).double()
    given = torch.zeros(way.shape, dtype=torch.bool)
    given[:, 4] = True
    known = Clips(way, torch.tensor([9, 5]), 20.0, skeleton, seeds=torch.tensor([3, 4]), given=given)
    for fps, tempo, frames, step in (
        (60, 1, [25, 13], 1 / 3),
        (None, 2, [5, 3], 2),
        (30, 0.5, [25, 13], 1 / 3),
        (50, 1.5, [14, 7], 0.6),
    ):
        got = known.resampled(fps, tempo)
        assert got.fps == (fps or 20) and got.lengths.tolist() == frames and got.seeds.tolist() == [3, 4]
        for clip, n in zip(got.positions, frames, strict=True):
            torch.testing.assert_close(clip[:n, 0, 0], torch.arange(n) * step, rtol=0, atol=1e-6, check_dtype=False)
        assert (got.given[0, :, 0, 0].nonzero().flatten() * step - 4).abs().max() <= 0.5
    assert known.resampled(20, 1) is known is known.resampled()
    for wrong, named in (
        ({"fps": 0}, r"fps=0\.0 must be in 1\.\.1000"),
        ({"fps": 1e9}, "fps="),
        ({"tempo": 0}, r"tempo=0 must be in 0\.1"),
    ):
        with pytest.raises(ValueError, match=named):
            known.resampled(**wrong)


@pytest.mark.parametrize("travels", [False, True])
def test_a_cycle_at_another_rate_is_a_cycle(skeleton: Skeleton, travels: bool) -> None:
    """A turn goes on where the last ended: the step across its end is as long as any other."""
    angle = torch.arange(24) * (2 * torch.pi / 24)
    turn = torch.stack([angle.cos(), angle.sin(), 0 * angle], -1)[None, :, None].expand(1, 24, 20, 3).clone()
    ahead = 0.1 * torch.arange(24)[:, None]
    turn[..., 2] += ahead if travels else 0
    got = Clips(turn, torch.tensor([24]), 20.0, skeleton).resampled(50, cycle=[2] if travels else [])
    x = got.positions[0, :, 0]
    assert len(x) == 60
    over = (x[0] - x[-1] + torch.tensor([0, 0, 2.4 if travels else 0])).norm()
    steps = x.diff(dim=0).norm(dim=-1)
    assert steps.min() * 0.97 < over < steps.max() * 1.03 and (x[:, :2].norm(dim=-1) - 1).abs().max() < 0.02


# --- files


def test_what_is_saved_is_loaded(motions: Clips, flat: Clips, tmp_path: Path) -> None:
    """To the precision of the file, whose keys are those that data=folder reads too."""
    motions = motions.replace(motions.positions.float())
    labels = tuple("walk" if i % 3 else "" for i in range(40))
    known = replace(motions, seeds=torch.arange(100, 140), labels=labels)
    assert known.save(tmp_path / "new" / "a.npz") == [tmp_path / "new" / "a.npz"]
    for skeleton in (None, motions.skeleton):
        again = Clips.load(tmp_path / "new" / "a.npz", skeleton)
        assert torch.equal(again.positions, known.positions) and torch.equal(again.lengths, known.lengths)
        assert again.seeds.tolist() == known.seeds.tolist() and again.labels == labels and again.fps == 20.0
        assert again.skeleton == motions.skeleton, "the shipped one, with sides and feet"
    whole = Clips.whole(flat.positions, 12.5, flat.skeleton)
    whole.save(tmp_path / "flat.npz", arrays={"noise": np.ones(3)})
    with np.load(tmp_path / "flat.npz", allow_pickle=False) as content:
        assert set(content.files) == {"clips", "fps", "joint_names", "parents", "units", "skeleton", "lengths", "noise"}
        assert content["clips"].dtype == np.float32 and content["units"] == "m"
    again = Clips.load(tmp_path / "flat.npz")
    assert (again.seeds, again.labels, again.fps) == (None, None, 12.5)
    assert again.skeleton.joints == flat.skeleton.joints and again.skeleton.coords == 2
    assert Clips.load(tmp_path / "flat.npz", flat.skeleton).skeleton == flat.skeleton


@pytest.mark.parametrize(("units", "metres"), [("mm", 0.001), ("cm", 0.01), ("m", 1.0), (None, 1.0)])
def test_units_become_metres(motions: Clips, tmp_path: Path, units: str | None, metres: float) -> None:
    said = {} if units is None else {"units": units}
    np.savez(tmp_path / "a.npz", clips=(motions.positions / metres).numpy(), **said)
    found = Clips.load(tmp_path / "a.npz", motions.skeleton, 20.0)
    torch.testing.assert_close(found.positions, motions.replace(motions.positions).positions, atol=1e-6, rtol=1e-6)


NTU = {"hip_center": "spine_base", "spine": "spine_mid", "shoulder_center": "spine_shoulder"}


@pytest.mark.parametrize("units", ["mm", "Centimeters", "m", None, "px"])
@pytest.mark.parametrize("own", ["m", "mm", "px"])
@pytest.mark.parametrize("names", [False, True])
def test_clips_are_read_as_a_folder_of_them_is(tmp_path: Path, units: str | None, own: str, names: bool) -> None:
    """Joints in any order, under names of other skeletons, and units, or those of the skeleton where the file has none."""
    flat = own == "px"
    skeleton = shipped("kinect20", units=own, coords=2 if flat else 3)
    metres = {"mm": 1000, "Centimeters": 100, "m": 1, "px": 300}[units or own]
    clips = np.stack([motion[:30] for motion in people(3)])[..., : skeleton.coords] * metres
    order = np.random.default_rng(0).permutation(20) if names else np.arange(20)
    arrays = {"clips": clips[:, :, order], "fps": 20.0, "lengths": [30, 20, 9]} | ({} if units is None else {"units": units})
    if names:
        arrays["joint_names"] = [NTU.get(skeleton.names[k], skeleton.names[k]) for k in order]
    np.savez(tmp_path / "a.npz", **arrays)
    if units == "px" and not flat:
        with pytest.raises(DataError, match="units 'px' are no length"):
            Clips.load(tmp_path / "a.npz", skeleton)
        return
    found = Clips.load(tmp_path / "a.npz", skeleton)
    read = folder(skeleton, str(tmp_path / "a.npz"), floor=False, max_speed=None, min_seconds=0)
    assert found.lengths.tolist() == read.lengths.tolist() == [30, 20, 9]
    for k in range(3):
        np.testing.assert_allclose(found.positions[k, : found.lengths[k]], read.recording(k), atol=2e-5)


def test_a_unit_that_cannot_be_right_is_named(motions: Clips, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", clips=1e4 * motions.positions.numpy(), fps=20.0)
    with pytest.raises(
        DataError, match=r"a\.npz: half of the bodies are over .* m was taken as their unit, save units with the clips"
    ):
        Clips.load(tmp_path / "a.npz", motions.skeleton)


def test_a_joint_that_is_not_wanted_may_be_lost(motions: Clips, tmp_path: Path) -> None:
    tail = np.full((*motions.positions.shape[:2], 1, 3), np.nan)
    names = [*motions.skeleton.names, "tail"]
    np.savez(tmp_path / "a.npz", clips=np.concatenate([motions.positions.numpy(), tail], 2), joint_names=names, fps=20.0)
    assert Clips.load(tmp_path / "a.npz", motions.skeleton).finite.all()


def test_joints_are_found_by_name_in_any_order(motions: Clips, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(20)
    names = np.array([*np.array(motions.skeleton.names)[order], "tail"])
    clips = np.concatenate([motions.positions.float().numpy()[:, :, order], np.ones((40, 12, 1, 3), np.float32)], axis=2)
    np.savez(tmp_path / "a.npz", clips=clips, joint_names=names, fps=20, lengths=motions.lengths.numpy())
    found = Clips.load(tmp_path / "a.npz", motions.skeleton)
    assert torch.equal(found.positions.float(), motions.positions.float()) and torch.equal(found.lengths, motions.lengths)


def test_a_skeleton_that_is_not_shipped_comes_from_the_file(tmp_path: Path) -> None:
    chain = Skeleton({"tip": "middle", "base": None, "middle": "base"})
    clips = Clips.whole(torch.rand(2, 3, 3, 3), 30.0, chain)
    clips.save(tmp_path / "a.npz")
    assert Clips.load(tmp_path / "a.npz").skeleton == chain


GOOD: dict[str, Any] = {"clips": np.zeros((2, 5, 3, 3)), "fps": 20.0, "joint_names": ["a", "b", "c"], "parents": [-1, 0, 1]}


@pytest.mark.parametrize(
    ("change", "skeleton", "named"),
    [
        ({"units": "px"}, True, r"units 'px' are no length; expected one of m, dm, cm, mm, in, ft"),
        ({"units": "ells"}, True, "units 'ells'"),
        ({"fps": None}, True, "does not say its frame rate"),
        ({"fps": -1.0}, True, "fps=-1.0 must be a positive number"),
        ({"joint_names": None}, False, "does not say its joint_names and parents; give skeleton="),
        ({"parents": None}, False, "give skeleton="),
        ({"parents": [-1, 0]}, False, "parents must be 3 indices of joints"),
        ({"parents": 3}, False, "parents must be 3 indices of joints"),
        ({"parents": [-1, 0, 3]}, False, "parents must be 3 indices of joints"),
        ({"parents": [1, 2, 0]}, False, "exactly one joint must have the parent null"),
        ({"parents": np.array([None] * 3)}, False, "can run code"),
        ({"joint_names": ["a", "b", "d"]}, True, "has no joint c of the skeleton; its joints are a, b, d"),
        ({"joint_names": ["a", "b", "b"]}, True, r"\['b'\] more than once; every joint needs a name of its own"),
        ({"clips": np.zeros((2, 5, 3, 2))}, True, "2 coordinates per joint, the skeleton has 3"),
        ({"clips": np.zeros((2, 5, 2, 3)), "joint_names": None}, True, "2 joints without names, the skeleton has 3"),
        ({"clips": np.full((2, 5, 3, 3), np.nan)}, True, "clip 0, frame 0, joint a is at nan; 2 of 2 clips"),
        ({"seeds": [1]}, True, "seeds must be 2 whole numbers"),
        ({"seeds": [1, -1]}, True, "seeds must be 2 whole numbers in"),
        ({"seeds": np.array([1, 2**63], np.uint64)}, True, "seeds must be 2 whole numbers in"),
        ({"lengths": [6, 5]}, True, "lengths must be 2 whole numbers from 1 to 5"),
        ({"labels": ["walk"]}, True, "labels holds 1 values for 2 clips"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path: Path, change: dict[str, Any], skeleton: bool, named: str) -> None:
    arrays = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=named) as error:
        Clips.load(tmp_path / "bad.npz", Skeleton({"a": None, "b": "a", "c": "b"}) if skeleton else None)
    assert str(error.value).startswith(str(tmp_path / "bad.npz"))


def test_other_endings_are_refused_with_those_there_are(motions: Clips, tmp_path: Path) -> None:
    for name in ("a.fbx", "a"):
        with pytest.raises(ValueError, match=rf"unknown ending '.*'; clips are written as {', '.join(ENDINGS)}$"):
            motions.save(tmp_path / name)
    with pytest.raises(DataError, match=r"clips are read from \.npz"):
        Clips.load(tmp_path / "a.bvh")
    assert not list(tmp_path.iterdir())


def test_a_table_is_read_back_as_the_clip(motions: Clips, tmp_path: Path) -> None:
    files = motions.save(tmp_path / "a.csv")
    assert [file.name for file in files][:2] == ["a_000.csv", "a_001.csv"] and len(files) == len(motions)
    for file, clip, length in zip(files, motions.positions, motions.lengths.tolist(), strict=True):
        (found,) = read_file(file, motions.skeleton.coords)
        assert found.joints == motions.skeleton.names and found.fps == pytest.approx(motions.fps, rel=1e-3)
        np.testing.assert_allclose(found.positions, clip[:length], atol=1e-6)


def test_a_picture_shows_every_clip_for_as_long_as_it_plays(motions: Clips, tmp_path: Path) -> None:
    x = motions.positions[:3].clone()
    x[1, 2] = torch.nan  # what a diverged model samples can be looked at
    assert Clips.whole(x, 20.0, motions.skeleton).save(tmp_path / "a.GIF") == [tmp_path / "a.GIF"]
    with Image.open(tmp_path / "a.GIF") as picture:
        assert picture.n_frames == 12 and picture.size == (600, 226)
    replace(motions.take(slice(3)), seeds=torch.arange(3)).save(tmp_path / "b.gif")
    with Image.open(tmp_path / "b.gif") as picture:
        assert picture.size[0] == 600 and picture.size[1] > 200, "with titles"


def test_bvh_files_hold_a_clip_each_as_long_as_it_is(motions: Clips, flat: Clips, tmp_path: Path) -> None:
    some = motions.take(slice(3))
    paths = some.save(tmp_path / "walk.bvh")
    assert [path.name for path in paths] == ["walk_000.bvh", "walk_001.bvh", "walk_002.bvh"]
    for path, length, clip in zip(paths, some.lengths.tolist(), some.positions, strict=True):
        found = read_bvh(path)
        assert len(found.positions) == length and found.fps == pytest.approx(20)
        root = found.joints.index(some.skeleton.names[some.skeleton.root])
        np.testing.assert_allclose(found.positions[:, root], clip[:length, some.skeleton.root], atol=1e-4)
    with pytest.raises(ValueError, match="rotations need three dimensions"):
        flat.save(tmp_path / "flat.bvh")
