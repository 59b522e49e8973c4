"""The tree of joints, and what is derived from it."""

import pytest

from ddpm.skeleton import Skeleton


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
        ({"joints": {"a": None}, "up": "w"}, "'w'"),
        ({"joints": {"a": None}, "up": "z", "coords": 2}, "'z'"),
        ({"joints": {"a": None}, "coords": 4}, "4"),
    ],
)
def test_what_is_no_skeleton_is_named(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Skeleton(**arguments)


def test_an_unknown_joint_is_named(skeleton: Skeleton) -> None:
    with pytest.raises(ValueError, match="tail"):
        skeleton.index("tail")
