"""Joints by name, by another name, or as the middle of several."""

from pathlib import Path

import numpy as np
import pytest

from datamodules.clip_set import Recording
from datamodules.joints import SUBSTITUTES, fitting, named, plan, presets
from ddpm.errors import DataError
from tests.skeletons import SHIPPED, shipped


def frame(names: tuple[str, ...], coords: int = 3) -> Recording:
    """One frame in which joint k is at (k, k, ...)."""
    return Recording(np.arange(len(names), dtype=np.float32)[None, :, None].repeat(coords, -1), "a.npz", joints=names)


def test_the_shipped_skeletons_are_known() -> None:
    assert set(presets()) == set(SHIPPED)
    assert all(preset == shipped(name) for name, preset in presets().items())
    assert fitting(22, 3) == ["smpl22"] and fitting(17, 2) == ["coco17"] and fitting(23, 3) == []
    assert fitting(24, 3) == ["smpl24"] and fitting(21, 3) == ["hand21"] and fitting(shipped("ap10k17").names, 2) == ["ap10k17"]
    assert fitting(shipped("ntu25").names[::-1], 3) == ["ntu25"]
    assert fitting((*shipped("coco17").names, "left_heel"), 2) == ["coco17"]
    assert named("coco17") == shipped("coco17").names and named(["a", "b"]) == ("a", "b") and named(None) is None
    with pytest.raises(DataError, match=r"data\.joints=coco18.*coco17"):
        named("coco18")


def test_a_skeleton_of_ones_own_is_known_and_one_in_the_making_hurts_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {
        "dog": "_target_: ddpm.skeleton.Skeleton\njoints: {hip: null, head: hip, tail: hip}",
        "legs": "defaults: [kinect20]\nkeep: [hip_center, left_leg, right_leg]",
        "torn": "_target_: ddpm.skeleton.Skeleton\njoints: {hip: null, head: neck}",
        "mistyped": "_target_: ddpm.skeleton.Skeleton\njoint: {hip: null}",
        "empty": "",
        "half": "_target_: ddpm.skeleton.Skeleton\njoints: {a: [",
        "list": "_target_: ddpm.skeleton.Skeleton\njoints: [a, b]",
        "number": "_target_: ddpm.skeleton.Skeleton\njoints: {b: 5}",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "gone.yaml").symlink_to("nowhere")
    monkeypatch.setattr("datamodules.joints.PRESETS", tmp_path)
    assert list(presets()) == fitting(("tail", "head", "hip"), 3) == ["dog"]


def test_ntu_becomes_kinect() -> None:
    """Kinect v2 has all joints of v1; three have other names, and five are more."""
    ntu, kinect = shipped("ntu25"), shipped("kinect20")
    weights, replaced, spare = plan(frame(ntu.names), kinect, {})
    assert replaced == {"hip_center": "spine_base", "spine": "spine_mid", "shoulder_center": "spine_shoulder"}
    assert spare == ["neck", "left_hand_tip", "left_thumb", "right_hand_tip", "right_thumb"]
    for row, name in zip(weights, kinect.names, strict=True):
        assert row.tolist() == np.eye(25)[ntu.index(replaced.get(name, name))].tolist()


def test_every_table_row_is_used_by_some_pair_of_skeletons_or_a_bvh_name() -> None:
    names = {name for preset in presets().values() for name in preset.names}
    for joint, ways in SUBSTITUTES.items():
        assert joint in names
        for way in ways:
            known = set(way.split("+")) <= names | {"left_index", "right_index", "left_foot_index", "right_foot_index"}
            assert known or way.lower() == "hips" or any(c.isupper() for c in way), f"{joint}: {way}"
            sides = {side for side in ("left", "right") if side in way.lower() or way.endswith(f"_{side[0].upper()}")}
            own = {side for side in ("left", "right") if side in joint}
            assert sides == own or (own == set() and sides in (set(), {"left", "right"})), f"{joint}: {way} is of another side"


@pytest.mark.parametrize(
    ("source", "target"), [("smpl22", "h36m17"), ("openpose25", "coco17"), ("ntu25", "kinect20"), ("kinect20", "kinect20")]
)
def test_pairs_that_need_no_help(source: str, target: str) -> None:
    skeleton = shipped(target)
    keep = [name for name in skeleton.names if name not in ("nose", "left_hand", "right_hand")] if target == "h36m17" else None
    weights, _, _ = plan(frame(shipped(source).names, skeleton.coords), shipped(target, keep=keep), {})
    np.testing.assert_allclose(weights.sum(1), 1)


def test_means_of_joints() -> None:
    coco = shipped("coco17")
    target = shipped("h36m17", coords=2, up="-y", keep=["pelvis", "thorax", "left_leg"])
    weights, replaced, _ = plan(frame(coco.names, 2), target, {})
    assert replaced["pelvis"] == "left_hip + right_hip"
    assert weights[target.index("pelvis")] @ np.arange(17) == (coco.index("left_hip") + coco.index("right_hip")) / 2


def test_own_mappings_go_first() -> None:
    target = shipped("kinect20", keep=["head", "spine", "hip_center"])
    source = frame(("Hips", "Belly", "Chest", "Skull", "head"))
    own = {"spine": ["Belly", "Chest"], "head": "Skull"}
    weights, replaced, spare = plan(source, target, own)
    assert (weights @ np.arange(5)).tolist() == [0.0, 1.5, 3.0]
    assert replaced == {"hip_center": "Hips", "spine": "Belly + Chest", "head": "Skull"} and spare == ["head"]
    with pytest.raises(DataError, match=r"data\.retarget: \['tail'\]"):
        plan(source, target, {"tail": "Hips"})
    with pytest.raises(DataError, match="has no joint spine of the skeleton; its joints are Hips, Belly"):
        plan(source, target, {"spine": "Waist"})


def test_a_missing_joint_names_both_lists_and_what_fits() -> None:
    with pytest.raises(DataError) as e:
        plan(frame(shipped("kinect20").names), shipped("ntu25"), {})
    for words in ("a.npz", "left_thumb", "hip_center", "skeleton=..., kinect20 fits", "skeleton.keep", "data.retarget"):
        assert words in str(e.value)


def test_counts_without_names() -> None:
    nameless = Recording(np.zeros((1, 25, 3), np.float32), "a.npy")
    with pytest.raises(
        DataError, match=r"25 joints without names, the skeleton has 20: hip_center.*data\.joints=ntu25.*ntu25 fits"
    ):
        plan(nameless, shipped("kinect20"), {})
    assert plan(nameless, shipped("ntu25"), {})[0].tolist() == np.eye(25).tolist()
    with pytest.raises(DataError, match=r"none of .*smpl24 fits"):
        plan(Recording(np.zeros((1, 23, 3), np.float32), "a.npy"), shipped("kinect20"), {})


def test_advice_is_to_be_typed_as_it_is() -> None:
    world = frame((*shipped("coco17").names, "left_heel"))
    with pytest.raises(DataError, match=r"skeleton=\.\.\., coco17 skeleton\.coords=3 fits"):
        plan(world, shipped("kinect20"), {})
    plan(world, shipped("coco17", coords=3), {})
    with pytest.raises(DataError, match=r"data\.joints=\[\.\.\.\], data\.joints=kinect20\), or"):
        plan(Recording(np.zeros((1, 20, 3), np.float32), "a.npy"), shipped("kinect20", keep=["left_leg", "hip_center"]), {})
    with pytest.raises(DataError) as e:
        plan(frame(("snout", "tail"), 2), shipped("kinect20"), {})
    assert "skeleton.coords" not in str(e.value)


def test_coordinates_and_doubled_names() -> None:
    with pytest.raises(DataError, match=r"3 coordinates per joint, the skeleton has 2.*data\.last_is_confidence"):
        plan(frame(shipped("coco17").names), shipped("coco17"), {})
    with pytest.raises(DataError, match=r"\['a'\] more than once"):
        plan(frame(("a", "b", "a")), shipped("kinect20"), {})
