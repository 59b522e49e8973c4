"""Skeleton: joint names, the bone tree, sides, feet and axes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

AXES = ("x", "y", "z")
UNITS = {"m": 1.0, "dm": 0.1, "cm": 0.01, "mm": 0.001, "in": 0.0254, "ft": 0.3048, "px": None}
"""Unit of length -> metres, which a pixel has not."""
MAX_JOINTS = 1000
"""Joints of a skeleton; the largest in use have 144, with hands and face 543."""
LONGEST_NAME = 200


@dataclass(frozen=True)
class Skeleton:
    """A tree of named joints, in the order in which a clip stores them.

    Args:
        joints: joint name -> name of its parent; exactly one parent is None, the root. A parent may come after its child.
        left_right: pairs (left joint, right joint) of the joints that have a mirror image.
        feet: joints that touch the ground.
        up: axis that points away from the ground, one of ``x y z -x -y -z`` (image coordinates have ``-y``).
        coords: numbers per joint, 2 or 3.
        units: of positions in files that have none, one of `UNITS`; with ``px`` every body is scaled to one size. In memory they
            are metres.
        parts: name of a part of the body -> its joints.
        keep: joints and parts to keep, None for all; a joint without its parent is attached to the next ancestor that is kept.
            The others are removed from all fields.

    Raises:
        ValueError: an unknown joint, unit or part, a cycle, no root or several, a joint in two pairs, an axis that they
            do not have.
    """

    joints: Mapping[str, str | None]
    left_right: Sequence[Sequence[str]] = ()
    feet: Sequence[str] = ()
    up: str = "y"
    coords: int = 3
    units: str = "m"
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    keep: Sequence[str] | None = None
    names: tuple[str, ...] = field(init=False, repr=False)
    parents: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.joints, Mapping):
            raise ValueError(
                f"skeleton: joints must map each joint to its parent, as in {{hip: null, knee: hip}}, got {self.joints!r}"
            )
        names = tuple(self.joints)
        if len(names) > MAX_JOINTS or any(len(group) > 10 * MAX_JOINTS for group in (self.left_right, self.feet, self.parts)):
            raise ValueError(f"skeleton: {len(names)} joints, at most {MAX_JOINTS} are possible; leave some out")
        mentioned = [j for j in (*self.joints.values(), *self.feet) if j is not None]
        mentioned += [j for group in (*self.left_right, *self.parts.values()) for j in group]
        if bad := next((j for j in (*names, *mentioned) if not isinstance(j, str) or len(j) > LONGEST_NAME), None):
            raise ValueError(f"skeleton: {bad!r} must be a name of at most {LONGEST_NAME} characters")
        unknown = sorted(set(mentioned) - set(names))
        if unknown:
            raise ValueError(f"skeleton: {unknown} are mentioned but are not among its joints {list(names)}")
        roots = [j for j, parent in self.joints.items() if parent is None]
        if len(roots) != 1:
            raise ValueError(f"skeleton: exactly one joint must have the parent null, found {roots}")
        if any(len(pair) != 2 for pair in self.left_right):
            raise ValueError(f"skeleton: left_right must hold pairs [left, right], got {list(self.left_right)}")
        sided = [joint for pair in dict.fromkeys(tuple(sorted(pair)) for pair in self.left_right) for joint in pair]
        if twice := next((joint for i, joint in enumerate(sided) if joint in sided[:i]), None):
            among = [list(pair) for pair in self.left_right if twice in pair]
            raise ValueError(
                f"skeleton: {twice!r} is twice in left_right, in {among}; a joint has one mirror image, leave one out"
            )
        if self.coords not in (2, 3):
            raise ValueError(f"skeleton: coords must be 2 or 3, got {self.coords}")
        if not isinstance(self.up, str) or self.up.removeprefix("-") not in AXES[: self.coords]:
            raise ValueError(f"skeleton: up must be one of {AXES[: self.coords]} or its negative, got {self.up!r}")
        if self.units not in UNITS:
            raise ValueError(f"skeleton: units must be one of {list(UNITS)}, got {self.units!r}")
        lines: dict[str, dict[str, None]] = {}  # joint -> itself, its parent, and so on up to the root
        for name in names:
            lines[name], parent = {name: None}, self.joints[name]
            while parent is not None:
                if parent in lines[name]:
                    raise ValueError(f"skeleton: the parents of {name!r} form a cycle")
                lines[name][parent], parent = None, self.joints[parent]
        kept = set(names) if self.keep is None else self._kept(self.keep)
        joints = {
            name: next((above for above in lines[name] if above in kept and above != name), None)
            for name in names
            if name in kept
        }
        tops = [name for name, parent in joints.items() if parent is None]
        if len(tops) > 1:
            common = next(joint for joint in lines[tops[0]] if all(joint in lines[top] for top in tops))
            raise ValueError(f"skeleton.keep={list(self.keep or ())} leaves {tops} without a common root; keep {common!r} too")
        place = {name: k for k, name in enumerate(joints)}
        parts = {part: tuple(joint for joint in members if joint in kept) for part, members in self.parts.items()}
        # One form whatever it was built with, so that equal skeletons compare equal.
        for name, value in {
            "joints": joints,
            "left_right": tuple(tuple(pair) for pair in self.left_right if kept.issuperset(pair)),
            "feet": tuple(joint for joint in self.feet if joint in kept),
            "parts": {part: members for part, members in parts.items() if members},
            "keep": None,
            "names": tuple(joints),
            "parents": tuple(-1 if parent is None else place[parent] for parent in joints.values()),
        }.items():
            object.__setattr__(self, name, value)

    def _kept(self, keep: Sequence[str]) -> set[str]:
        unknown = [name for name in keep if name not in self.joints and name not in self.parts]
        if unknown or not keep:
            raise ValueError(
                f"skeleton.keep={list(keep)}: {unknown or 'nothing'} is no joint and no part; the joints are "
                f"{list(self.joints)}, the parts are {list(self.parts)}"
            )
        return {joint for name in keep for joint in self.parts.get(name, [name])}

    @property
    def root(self) -> int:
        """Index of the root joint."""
        return self.parents.index(-1)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(child, parent) index pairs, one for every joint but the root."""
        return tuple((child, parent) for child, parent in enumerate(self.parents) if parent >= 0)

    @property
    def bone_pairs(self) -> list[tuple[int, int]]:
        """Numbers in `bones` of the (left, right) bones whose two ends are each other's mirror image."""
        mirror = self.mirrored
        number = {bone: i for i, bone in enumerate(self.bones)}
        reflected = {bone: (mirror[bone[0]], mirror[bone[1]]) for bone in self.bones if self.side(bone[0]) == "left"}
        return [(number[bone], number[other]) for bone, other in reflected.items() if other in number]

    @property
    def up_axis(self) -> int:
        """Index of the coordinate that measures height."""
        return AXES.index(self.up[-1])

    @property
    def up_sign(self) -> int:
        """+1 if height grows with that coordinate, -1 if it falls."""
        return -1 if self.up.startswith("-") else 1

    @property
    def ground_axes(self) -> tuple[int, ...]:
        """Indices of the other coordinates: the ground plane in 3-D, the horizontal in 2-D."""
        return tuple(axis for axis in range(self.coords) if axis != self.up_axis)

    @property
    def mirrored(self) -> list[int]:
        """For every joint the index of its mirror image, its own where it has none."""
        other = {name: image for pair in self.left_right for name, image in (pair, reversed(pair))}
        return [self.index(other.get(name, name)) for name in self.names]

    @property
    def across(self) -> tuple[list[int], list[int]]:
        """Indices of left and of right joints whose distance shows where the body faces: hips, shoulders and the like.

        These hang on one joint of the trunk; hands and feet may cross, and count only where there is nothing better.
        """
        pairs = [(self.index(left), self.index(right)) for left, right in self.left_right]
        trunk = [(left, right) for left, right in pairs if self.parents[left] == self.parents[right]] or pairs
        return [left for left, _ in trunk], [right for _, right in trunk]

    def index(self, name: str) -> int:
        """Index of the joint called ``name``; a ValueError if there is none."""
        if name not in self.joints:
            raise ValueError(f"skeleton: no joint {name!r}; its joints are {list(self.names)}")
        return self.names.index(name)

    def side(self, joint: int) -> str:
        """``"left"``, ``"right"`` or ``"centre"`` for the joint with this index."""
        for left, right in self.left_right:
            if self.names[joint] in (left, right):
                return "left" if self.names[joint] == left else "right"
        return "centre"

    def to_config(self) -> dict[str, object]:
        """The constructor's arguments as plain containers, for checkpoints and files."""
        return {
            "joints": dict(self.joints),
            "left_right": [list(pair) for pair in self.left_right],
            "feet": list(self.feet),
            "up": self.up,
            "coords": self.coords,
            "units": self.units,
            "parts": {part: list(members) for part, members in self.parts.items()},
        }
