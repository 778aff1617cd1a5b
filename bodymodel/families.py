"""The table of model families: what differs between SMPL, SMPL-H, SMPL-X, MANO, FLAME and STAR."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from .skeleton import Skeleton

PoseFeature = Literal["matrix", "quaternion"]


@dataclass(frozen=True)
class Part:
    """A named run of consecutive joints that one pose argument drives.

    A part of one joint takes (*B, 3); a part of several takes (*B, count, 3).
    """

    name: str
    count: int
    single: bool = False


@dataclass(frozen=True)
class Family:
    """A row of the table.

    Attributes:
        name: key of the row.
        skeleton: parents and names of the joints, in file order.
        parts: the pose arguments in joint order; their counts add up to the number of joints.
        pose_feature: what drives the pose correctives: the rotation matrix minus the identity (9 numbers a non-root
            joint), or STAR's half-angle quaternion (4 numbers a non-root joint).
    """

    name: str
    skeleton: Skeleton
    parts: tuple[Part, ...]
    pose_feature: PoseFeature = "matrix"

    @cached_property
    def part_names(self) -> tuple[str, ...]:
        """Names of the pose arguments, in joint order."""
        return tuple(part.name for part in self.parts)

    @property
    def feature_width(self) -> int:
        """Columns of `posedirs` that the joint rotations drive."""
        return (self.skeleton.num_joints - 1) * (9 if self.pose_feature == "matrix" else 4)


def _hand(side: str) -> tuple[str, ...]:
    return tuple(
        f"{side}{finger}{bone}" for finger in ("index", "middle", "pinky", "ring", "thumb") for bone in (1, 2, 3)
    )


def _hand_parents(wrist: int, first: int) -> tuple[int, ...]:
    return tuple(parent for finger in range(5) for parent in (wrist, first + 3 * finger, first + 3 * finger + 1))


_BODY_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
_BODY_NAMES = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle"),
    *("spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder"),
    *("right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
)

_SMPL = Skeleton((*_BODY_PARENTS, 20, 21), (*_BODY_NAMES, "left_hand", "right_hand"))
_SMPLH = Skeleton(
    (*_BODY_PARENTS, *_hand_parents(20, 22), *_hand_parents(21, 37)),
    (*_BODY_NAMES, *_hand("left_"), *_hand("right_")),
)
_SMPLX = Skeleton(
    (*_BODY_PARENTS, 15, 15, 15, *_hand_parents(20, 25), *_hand_parents(21, 40)),
    (*_BODY_NAMES, "jaw", "left_eye_smplhf", "right_eye_smplhf", *_hand("left_"), *_hand("right_")),
)
_MANO = Skeleton((-1, *_hand_parents(0, 1)), ("wrist", *_hand("")))
_FLAME = Skeleton((-1, 0, 1, 1, 1), ("root", "neck", "jaw", "left_eye", "right_eye"))

_ROOT = Part("global_orient", 1, single=True)
_HANDS = (Part("left_hand_pose", 15), Part("right_hand_pose", 15))
_FACE = (Part("jaw_pose", 1, single=True), Part("leye_pose", 1, single=True), Part("reye_pose", 1, single=True))

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("smpl", _SMPL, (_ROOT, Part("body_pose", 23))),
        Family("smplh", _SMPLH, (_ROOT, Part("body_pose", 21), *_HANDS)),
        Family("smplx", _SMPLX, (_ROOT, Part("body_pose", 21), *_FACE, *_HANDS)),
        Family("mano", _MANO, (_ROOT, Part("hand_pose", 15))),
        Family("flame", _FLAME, (_ROOT, Part("neck_pose", 1, single=True), *_FACE)),
        Family("star", _SMPL, (_ROOT, Part("body_pose", 23)), pose_feature="quaternion"),
    )
}


def family_by_name(name: str) -> Family:
    """Return the row called `name`; a wrong name raises a ValueError that lists the right ones."""
    try:
        return FAMILIES[name]
    except KeyError:
        raise ValueError(f"family: expected one of {', '.join(FAMILIES)}, got {name!r}; check the name") from None
