"""What the columns of a clip mean: joint names, the bone tree, sides, feet and axes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

AXES = ("x", "y", "z")


@dataclass(frozen=True)
class Skeleton:
    """A tree of named joints, in the order in which a clip stores them.

    Args:
        joints: joint name -> name of its parent; exactly one parent is None, the root. A parent may come after its child.
        left_right: pairs (left joint, right joint) of the joints that have a mirror image.
        feet: joints that touch the ground.
        up: axis that points away from the ground, one of ``x y z -x -y -z`` (image coordinates have ``-y``).
        coords: numbers per joint, 2 or 3.

    Raises:
        ValueError: an unknown joint, a cycle, no root or several, an axis that the coordinates do not have.
    """

    joints: Mapping[str, str | None]
    left_right: Sequence[Sequence[str]] = ()
    feet: Sequence[str] = ()
    up: str = "y"
    coords: int = 3
    names: tuple[str, ...] = field(init=False, repr=False)
    parents: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = tuple(self.joints)
        mentioned = [j for j in (*self.joints.values(), *self.feet) if j is not None]
        mentioned += [j for pair in self.left_right for j in pair]
        unknown = sorted(set(mentioned) - set(names))
        if unknown:
            raise ValueError(f"skeleton: {unknown} are mentioned but are not among its joints {list(names)}")
        roots = [j for j, parent in self.joints.items() if parent is None]
        if len(roots) != 1:
            raise ValueError(f"skeleton: exactly one joint must have the parent null, found {roots}")
        if any(len(pair) != 2 for pair in self.left_right):
            raise ValueError(f"skeleton: left_right must hold pairs [left, right], got {list(self.left_right)}")
        if self.coords not in (2, 3):
            raise ValueError(f"skeleton: coords must be 2 or 3, got {self.coords}")
        if self.up.removeprefix("-") not in AXES[: self.coords]:
            raise ValueError(f"skeleton: up must be one of {AXES[: self.coords]} or its negative, got {self.up!r}")
        object.__setattr__(self, "names", names)
        index = {name: i for i, name in enumerate(names)}
        object.__setattr__(self, "parents", tuple(-1 if p is None else index[p] for p in self.joints.values()))
        for name in names:
            joint, steps = self.joints[name], 0
            while joint is not None:
                joint, steps = self.joints[joint], steps + 1
                if steps > len(names):
                    raise ValueError(f"skeleton: the parents of {name!r} form a cycle")

    @property
    def root(self) -> int:
        """Index of the root joint."""
        return self.parents.index(-1)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(child, parent) index pairs, one for every joint but the root."""
        return tuple((child, parent) for child, parent in enumerate(self.parents) if parent >= 0)

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

    def index(self, name: str) -> int:
        """Index of the joint called ``name``.

        Raises:
            ValueError: there is no such joint.
        """
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
        }
