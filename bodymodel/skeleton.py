"""The kinematic tree: parents and names of joints, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Skeleton:
    """A tree of joints, each parent listed before its children.

    Attributes:
        parents: the parent of each joint; joint 0 is the only root and has -1.
        names: one distinct name a joint.

    Raises:
        ValueError: no joint, a second root, a parent that does not come before its child, or names that do not fit.

    Example:
        >>> Skeleton(parents=(-1, 0, 1), names=("pelvis", "spine", "head")).depth
        (0, 1, 2)
    """

    parents: tuple[int, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check the tree and the names."""
        if not self.parents or self.parents[0] != -1:
            raise ValueError(f"parents: expected -1 first, got {self.parents[:4]}; put the root joint first")
        for joint, parent in enumerate(self.parents[1:], start=1):
            if not 0 <= parent < joint:
                raise ValueError(
                    f"parents: expected 0 <= parents[{joint}] < {joint}, got {parent}; "
                    "list each parent before its children, with one root"
                )
        if len(self.names) != len(self.parents) or len(set(self.names)) != len(self.names):
            raise ValueError(
                f"names: expected {len(self.parents)} distinct names, got {len(self.names)} "
                f"({len(set(self.names))} distinct); give one name a joint"
            )

    @property
    def num_joints(self) -> int:
        """Number of joints J, the root included."""
        return len(self.parents)

    def index(self, name: str) -> int:
        """Return the index of the joint called `name`."""
        try:
            return self.names.index(name)
        except ValueError:
            raise ValueError(f"joint: expected one of {', '.join(self.names)}, got {name!r}; check the name") from None

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """The children of each joint."""
        lists: list[list[int]] = [[] for _ in self.parents]
        for joint, parent in enumerate(self.parents[1:], start=1):
            lists[parent].append(joint)
        return tuple(map(tuple, lists))

    @cached_property
    def depth(self) -> tuple[int, ...]:
        """Number of bones between each joint and the root."""
        depths = [0]
        for parent in self.parents[1:]:
            depths.append(depths[parent] + 1)
        return tuple(depths)

    @cached_property
    def mirror(self) -> tuple[int, ...]:
        """For each joint its left-right counterpart by name (`left_`, `right_` swapped), itself where there is none."""
        swapped = []
        for joint, name in enumerate(self.names):
            other = swap_sides(name)
            swapped.append(self.names.index(other) if other in self.names else joint)
        return tuple(swapped)

    @cached_property
    def ancestors(self) -> np.ndarray:
        """Boolean (J, J): entry [j, k] is true where k lies on the path from the root to j, both ends included."""
        table = np.eye(self.num_joints, dtype=bool)
        for joint, parent in enumerate(self.parents[1:], start=1):
            table[joint] |= table[parent]
        return table


def swap_sides(name: str) -> str:
    """Return `name` with `left` and `right` exchanged."""
    if "left" in name:
        return name.replace("left", "right")
    return name.replace("right", "left")
