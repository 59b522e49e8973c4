"""The tree of joints, what is derived from it, and the shipped skeletons."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ddpm.skeleton import Skeleton
from tests.skeletons import CONF, SHIPPED

PRESETS = [CONF / f"{name}.yaml" for name in SHIPPED]


def preset(path: Path) -> Skeleton:
    config = OmegaConf.to_container(OmegaConf.load(path))
    return Skeleton(**{key: value for key, value in config.items() if key != "_target_"})


def test_what_follows_from_the_tree(skeleton: Skeleton) -> None:
    assert len(skeleton.names) == 20 and len(skeleton.bones) == 19
    assert skeleton.names[skeleton.root] == "hip_center"
    assert all(skeleton.names[p] == skeleton.joints[skeleton.names[c]] for c, p in skeleton.bones)
    assert skeleton.side(skeleton.index("left_knee")) == "left"
    assert skeleton.side(skeleton.index("right_hand")) == "right"
    assert skeleton.side(skeleton.index("head")) == "centre"
    assert (skeleton.up_axis, skeleton.up_sign, skeleton.ground_axes) == (1, 1, (0, 2))


def test_image_coordinates_point_down() -> None:
    flat = Skeleton({"a": None, "b": "a"}, up="-y", coords=2)
    assert (flat.up_axis, flat.up_sign, flat.ground_axes) == (1, -1, (0,))


def test_round_trip(skeleton: Skeleton) -> None:
    assert Skeleton(**skeleton.to_config()) == skeleton  # type: ignore[arg-type]


def test_the_order_of_joints_is_free() -> None:
    assert Skeleton({"tip": "root", "root": None}).parents == (1, -1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"joints": {"a": None, "b": "c"}}, "c"),
        ({"joints": {"a": None, "b": None}}, r"\['a', 'b'\]"),
        ({"joints": {"a": None, "b": "c", "c": "b"}}, "cycle"),
        ({"joints": {"a": None}, "feet": ["toe"]}, "toe"),
        ({"joints": {"a": None}, "left_right": [["a"]]}, "left_right"),
        ({"joints": {"a": None, "b": "b"}}, "the parents of 'b' form a cycle"),
        ({"joints": {"a": None, "b": "a"}, "left_right": [["b", "b"]]}, r"'b' is twice in left_right, in \[\['b', 'b'\]\]"),
        (
            {"joints": {"a": None, **dict.fromkeys("bcd", "a")}, "left_right": [["b", "c"], ["b", "d"]]},
            "'b' is twice in left_right",
        ),
        (
            {"joints": {"a": None, **dict.fromkeys("bcd", "a")}, "left_right": [["b", "c"], ["c", "d"]]},
            "'c' is twice in left_right",
        ),
        ({"joints": ["a", "b"]}, r"joints must map each joint to its parent.*got \['a', 'b'\]"),
        ({"joints": {"a": None}, "up": 1}, "up must be one of .* got 1"),
        ({"joints": {"a": None}, "up": "w"}, "'w'"),
        ({"joints": {"a": None}, "up": "z", "coords": 2}, "'z'"),
        ({"joints": {"a": None}, "coords": 4}, "4"),
        ({"joints": {"a": None}, "units": "inch"}, "'inch'"),
        ({"joints": {"a": None}, "parts": {"tail": ["b"]}}, r"\['b'\]"),
        ({"joints": {"0": None, **{str(k): str(k - 1) for k in range(1, 1001)}}}, "1001 joints, at most 1000"),
        ({"joints": {"a": None, "b" * 201: "a"}}, "at most 200 characters"),
    ],
)
def test_what_is_no_skeleton_is_named(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Skeleton(**arguments)


def test_an_unknown_joint_is_named(skeleton: Skeleton) -> None:
    with pytest.raises(ValueError, match="tail"):
        skeleton.index("tail")


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_are_symmetric_and_complete(path: Path) -> None:
    skeleton = preset(path)
    assert len(skeleton.names) == int("".join(c for c in path.stem if c.isdigit())[-2:])
    assert skeleton.side(skeleton.root) == "centre" and bool(skeleton.feet) == bool(skeleton.left_right)
    other = {left: right for left, right in skeleton.left_right}
    other |= {right: left for left, right in other.items()}
    for name, parent in skeleton.joints.items():
        assert ("left_" in name) == (skeleton.side(skeleton.index(name)) == "left")
        assert ("right_" in name) == (skeleton.side(skeleton.index(name)) == "right")
        mirrored = skeleton.joints[other.get(name, name)]
        assert mirrored == other.get(parent or "", parent), f"{name}: the tree is not its own mirror image"
    assert sorted(joint for part in skeleton.parts.values() for joint in part) == sorted(skeleton.names)
    for part, members in skeleton.parts.items():
        if part.startswith("left_"):
            assert {other[joint] for joint in members} == set(skeleton.parts[part.replace("left", "right")])
        tops = [joint for joint in members if skeleton.joints[joint] not in members]
        assert len(tops) == 1 or part == "face", f"{part} falls apart: {tops}"


def test_what_is_kept_stays_a_skeleton(skeleton: Skeleton) -> None:
    lower = Skeleton(**{**skeleton.to_config(), "keep": ["hip_center", "left_leg", "right_leg"]})  # type: ignore[arg-type]
    assert lower.names == (
        "hip_center", "left_hip", "left_knee", "left_ankle", "left_foot", "right_hip", "right_knee", "right_ankle", "right_foot",
    )  # fmt: skip
    assert lower.feet == skeleton.feet and len(lower.left_right) == 4
    assert list(lower.parts) == ["trunk", "left_leg", "right_leg"] and lower.parts["trunk"] == ("hip_center",)
    assert Skeleton(**lower.to_config()) == lower  # type: ignore[arg-type]

    ends = Skeleton(**{**skeleton.to_config(), "keep": ["right_hand", "hip_center", "left_hand", "head"]})  # type: ignore[arg-type]
    assert ends.joints == {"hip_center": None, "head": "hip_center", "left_hand": "hip_center", "right_hand": "hip_center"}
    assert ends.left_right == (("left_hand", "right_hand"),) and ends.feet == ()

    arm = Skeleton(**{**skeleton.to_config(), "keep": ["left_arm"]})  # type: ignore[arg-type]
    assert arm.names[arm.root] == "left_shoulder" and arm.left_right == ()


@pytest.mark.parametrize(
    ("keep", "named"),
    [
        (["left_leg", "right_leg"], r"\['left_hip', 'right_hip'\] without a common root; keep 'hip_center' too"),
        (["left_arm", "right_arm", "head"], "keep 'shoulder_center' too"),
        (["left_wing"], r"\['left_wing'\] is no joint and no part.*left_arm"),
        ([], "nothing"),
    ],
)
def test_what_cannot_be_kept_is_named(skeleton: Skeleton, keep: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Skeleton(**{**skeleton.to_config(), "keep": keep})  # type: ignore[arg-type]


@pytest.mark.parametrize("form", [tuple, list])
def test_equal_skeletons_compare_equal_whatever_they_are_built_of(form: type) -> None:
    joints = {"root": None, "l": "root", "r": "root"}
    built = Skeleton(joints, form([form(["l", "r"])]), form(["l"]), parts={"legs": form(["l", "r"])})
    assert built == Skeleton(**built.to_config()) == Skeleton(joints, [("l", "r")], ("l",), parts={"legs": ["l", "r"]})  # type: ignore[arg-type]
    assert built != Skeleton(joints, [("l", "r")], ("r",), parts={"legs": ["l", "r"]})
