"""The tables of keypoint sets: names in order, left-right flips, bones to draw, and which point of the body each is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .families import FAMILIES
from .keypoint_points import (
    COCO_SIGMAS,
    FACE_MARKUP,
    FACE_SIGMAS,
    FINGERS,
    FOOT_SIGMAS,
    HAND_POINTS,
    HAND_SIGMAS,
    face_bones,
    hand_bones,
    hand_points,
)
from .skeleton import Skeleton, swap_sides


@dataclass(frozen=True)
class KeypointSet:
    """A named, ordered set of keypoints.

    Attributes:
        name: key of the set, such as "coco17".
        keypoints: the point of the body that each keypoint is, under one vocabulary for all sets. Two keypoints with
            the same entry are the same point; where data sets define a part differently (the neck of LSP and of
            OpenPose) the entries differ.
        names: what the set itself calls them, in snake case.
        bones: pairs of indices to draw.
        sigmas: the OKS constants of COCO, one a keypoint; None elsewhere.
        joints: the model's joint that each keypoint is, by name, and "" where it is none; None for sets that are
            annotated on the surface.

    Example:
        >>> from physique.bodymodel import keypoint_set
        >>> coco = keypoint_set("coco17")
        >>> coco.names[:3], coco.flip[:3]
        (('nose', 'left_eye', 'right_eye'), (0, 2, 1))
    """

    name: str
    keypoints: tuple[str, ...]
    names: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...] | None = None
    joints: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Return the number of keypoints K."""
        return len(self.names)

    def index(self, name: str) -> int:
        """Return the index of the keypoint that the set calls `name`."""
        try:
            return self.names.index(name)
        except ValueError:
            raise ValueError(
                f"keypoint: expected one of {', '.join(self.names)}, got {name!r}; check the name"
            ) from None

    @cached_property
    def flip(self) -> tuple[int, ...]:
        """Permutation that exchanges left and right: mirrored points are `points[..., flip, :]` with x negated."""
        return tuple(self.keypoints.index(swap_sides(point)) for point in self.keypoints)


# Bones of every set that has both ends, for each side.
_LIMBS = (
    *("shoulder-elbow", "elbow-wrist", "hip-knee", "knee-ankle", "ankle-heel", "ankle-big_toe", "big_toe-small_toe"),
    *("eye-ear", "ankle-foot", "foot-toe", "wrist-hand"),
)
_TORSO = "left_shoulder-left_hip right_shoulder-right_hip left_hip-right_hip"
_FACE = "nose-left_eye nose-right_eye"
_NECK = "neck-left_shoulder neck-right_shoulder"

_COCO = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
)
_FEET = "left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel"
_OPENPOSE_ARMS = "right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist"
_OPENPOSE_LEGS = "right_hip right_knee right_ankle left_hip left_knee left_ankle"
_OPENPOSE_FACE = "right_eye left_eye right_ear left_ear"
_LSP_LEGS = "right_ankle right_knee right_hip left_hip left_knee left_ankle"
_LSP_ARMS = "right_wrist right_elbow right_shoulder left_shoulder left_elbow left_wrist"
_LSP = f"{_LSP_LEGS} {_LSP_ARMS} neck=neck_lsp head_top"
# The joints of the models that no data set annotates: a hip of SMPL is not where annotators click.
_MODEL_POINTS = ("pelvis", "hip", "spine1", "spine2", "spine3", "neck", "head", "collar", "foot", "hand", "jaw")


def _set(
    name: str,
    text: str,
    bones: str = "",
    sigmas: tuple[float, ...] | None = None,
    joints: tuple[str, ...] | None = None,
) -> KeypointSet:
    """Make a set from "name=point name ..."; a bare name is its point too."""
    entries = [entry.partition("=") for entry in text.split()]
    names = tuple(entry[0] for entry in entries)
    points = tuple(entry[2] or entry[0] for entry in entries)
    sided = [f"{side}_{bone.replace('-', f'-{side}_')}" for bone in _LIMBS for side in ("left", "right")]
    pairs = [tuple(bone.split("-")) for bone in (*bones.split(), *(sided if joints is None else []))]
    indices = tuple((names.index(a), names.index(b)) for a, b in pairs if a in names and b in names)
    return KeypointSet(name, points, names, indices, sigmas, joints)


def _joint_point(joint: str) -> str:
    """Return the point that a model's joint is; joints that data sets annotate too keep the shared point."""
    if joint.removeprefix("left_").removeprefix("right_") in _MODEL_POINTS:
        return f"{joint}_smpl"
    return f"{joint}_smplhf" if joint in ("left_eye", "right_eye") else joint


def _joint_set(name: str, skeleton: Skeleton, root: str = "") -> KeypointSet:
    """Make the set of a family's own joints."""
    first, *others = skeleton.names
    entries = [f"{first}={root or _joint_point(first)}", *(f"{joint}={_joint_point(joint)}" for joint in others)]
    bones = " ".join(
        f"{skeleton.names[parent]}-{child}"
        for child, parent in zip(skeleton.names, skeleton.parents, strict=True)
        if parent >= 0
    )
    return _set(name, " ".join(entries), bones, joints=skeleton.names)


# The bones of CMU's motion capture: the model's joint at a bone's end, or none.
_CMU_LEG = {"hipjoint": "hip", "femur": "knee", "tibia": "ankle", "foot": "foot", "toes": ""}
_CMU_TRUNK = {"lowerback": "spine1", "upperback": "spine2", "thorax": "spine3", "lowerneck": "neck"}
_CMU_TRUNK = {**_CMU_TRUNK, "upperneck": "head", "head": ""}
_CMU_ARM = {"clavicle": "shoulder", "humerus": "elbow", "radius": "wrist", "wrist": "", "hand": "", "fingers": ""}
_CMU_ARM = {**_CMU_ARM, "thumb": ""}


def _cmu_set() -> KeypointSet:
    joints, points, bones = {"root": "pelvis"}, {"root": "pelvis_smpl"}, []
    for start, chain, sides in (
        ("root", _CMU_LEG, ("left_", "right_")),
        ("root", _CMU_TRUNK, ("",)),
        ("thorax", _CMU_ARM, ("left_", "right_")),
    ):
        for side in sides:
            parent = start
            for bone, joint in chain.items():
                name = f"{side[:1]}{bone}"
                joints[name] = joint and f"{side}{joint}"
                points[name] = _joint_point(joints[name]) if joint else f"{side}{bone}_cmu"
                bones.append(f"{parent}-{name}")
                parent = name if bone != "fingers" else f"{side[:1]}wrist"
    text = " ".join(f"{name}={point}" for name, point in points.items())
    return _set("cmu31", text, " ".join(bones), joints=tuple(joints.values()))


_MHR_BODY = _COCO.replace(" left_wrist right_wrist", "")
_MHR_EXTRA = ("olecranon", "cubital_fossa", "acromion")
_MHR_FINGER = {"tip": "_tip", "first_joint": "3", "second_joint": "2", "third_joint": "1"}


def _mhr_hand(side: str) -> str:
    """Return a hand of MHR: fingers from the tip to the knuckle, then the wrist."""
    fingers = [f"{side}{f}_{name}={side}{f}{end}" for f in FINGERS for name, end in _MHR_FINGER.items()]
    return " ".join((*fingers, f"{side}wrist"))


def _mhr_bones() -> str:
    bones = ["neck-left_acromion", "neck-right_acromion"]
    for side in ("left_", "right_"):
        bones += [f"{side}{a}-{side}{b}" for a, b in zip(("elbow", "elbow", "shoulder"), _MHR_EXTRA, strict=True)]
        for finger in FINGERS:
            chain = [f"{side}wrist", *(f"{side}{finger}_{name}" for name in reversed(_MHR_FINGER))]
            bones += [f"{a}-{b}" for a, b in zip(chain, chain[1:], strict=False)]
    return " ".join(bones)


_COCO_BONES = f"{_FACE} {_TORSO} left_shoulder-right_shoulder"
_LSP_BONES = f"{_NECK} neck-head_top {_TORSO}"
_MPI_TRUNK = "pelvis-spine spine-spine2 spine2-spine3 spine3-spine4 spine4-neck neck-head head-head_top"
_MPI_TEXT = (
    "spine3=spine3_3dhp spine4=spine4_3dhp spine2=spine2_3dhp spine=spine_3dhp pelvis=pelvis_3dhp neck=neck_3dhp "
    "head=head_3dhp head_top=head_top left_clavicle=left_clavicle_3dhp left_shoulder left_elbow left_wrist "
    "left_hand=left_hand_3dhp right_clavicle=right_clavicle_3dhp right_shoulder right_elbow right_wrist "
    "right_hand=right_hand_3dhp left_hip=left_hip_3dhp left_knee left_ankle left_foot=left_foot_3dhp "
    "left_toe=left_toe_3dhp right_hip=right_hip_3dhp right_knee right_ankle right_foot=right_foot_3dhp "
    "right_toe=right_toe_3dhp"
)
_H36M_TEXT = (
    "pelvis=pelvis_h36m right_hip=right_hip_h36m right_knee right_ankle left_hip=left_hip_h36m left_knee left_ankle "
    "spine=spine_h36m thorax=thorax_h36m nose=nose_h36m head=head_h36m left_shoulder left_elbow left_wrist "
    "right_shoulder right_elbow right_wrist"
)

_SETS = (
    _set("coco17", _COCO, _COCO_BONES, COCO_SIGMAS),
    _set(
        "coco_wholebody133",
        " ".join((_COCO, _FEET, *FACE_MARKUP, *HAND_POINTS)),
        f"{_COCO_BONES} {face_bones()} {hand_bones('left_')} {hand_bones('right_')}",
        (*COCO_SIGMAS, *FOOT_SIGMAS, *FACE_SIGMAS, *HAND_SIGMAS, *HAND_SIGMAS),
    ),
    _set(
        "openpose15",
        f"head=head_top neck=neck_lsp {_OPENPOSE_ARMS} {_OPENPOSE_LEGS} chest=chest_openpose",
        f"{_NECK} head-neck neck-chest chest-left_hip chest-right_hip",
    ),
    _set(
        "openpose18",
        f"nose neck=neck_openpose {_OPENPOSE_ARMS} {_OPENPOSE_LEGS} {_OPENPOSE_FACE}",
        f"{_FACE} {_NECK} nose-neck neck-left_hip neck-right_hip",
    ),
    _set(
        "openpose25",
        f"nose neck=neck_openpose {_OPENPOSE_ARMS} mid_hip {_OPENPOSE_LEGS} {_OPENPOSE_FACE} {_FEET}",
        f"{_FACE} {_NECK} nose-neck neck-mid_hip mid_hip-left_hip mid_hip-right_hip",
    ),
    _set(
        "openpose25b",
        f"{_COCO} upper_neck=neck_lsp head_top {_FEET}",
        f"{_FACE} {_TORSO} upper_neck-head_top upper_neck-left_shoulder upper_neck-right_shoulder",
    ),
    _set(
        "h36m17",
        _H36M_TEXT,
        "pelvis-left_hip pelvis-right_hip pelvis-spine spine-thorax thorax-nose nose-head thorax-left_shoulder "
        "thorax-right_shoulder",
    ),
    _set("lsp14", _LSP, _LSP_BONES),
    _set(
        "mpii16",
        f"{_LSP_LEGS} pelvis=pelvis_mpii thorax=thorax_mpii upper_neck=neck_lsp head_top {_LSP_ARMS}",
        "pelvis-left_hip pelvis-right_hip pelvis-thorax thorax-upper_neck upper_neck-head_top thorax-left_shoulder "
        "thorax-right_shoulder",
    ),
    _set(
        "mpi_inf_3dhp28",
        _MPI_TEXT,
        f"{_MPI_TRUNK} pelvis-left_hip pelvis-right_hip spine4-left_clavicle spine4-right_clavicle "
        "left_clavicle-left_shoulder right_clavicle-right_shoulder",
    ),
    _set("hmr19", f"{_LSP} nose left_eye right_eye left_ear right_ear", f"{_LSP_BONES} {_FACE} neck-nose"),
    _set("hand21", hand_points("").replace("hand_root", "hand_root=wrist_mano"), hand_bones(""), HAND_SIGMAS),
    _set(
        "mhr70",
        " ".join(
            (
                *(_MHR_BODY, _FEET, _mhr_hand("right_"), _mhr_hand("left_")),
                *(f"{side}_{point}={side}_{point}_mhr" for point in _MHR_EXTRA for side in ("left", "right")),
                "neck=neck_mhr",
            )
        ),
        f"{_COCO_BONES} {_mhr_bones()}",
    ),
    _cmu_set(),
    _joint_set("smpl24", FAMILIES["smpl"].skeleton),
    _joint_set("smplh52", FAMILIES["smplh"].skeleton),
    _joint_set("smplx55", FAMILIES["smplx"].skeleton),
    _joint_set("mano16", FAMILIES["mano"].skeleton, root="wrist_mano"),
    _joint_set("flame5", FAMILIES["flame"].skeleton, root="root_flame"),
)

KEYPOINT_SETS: dict[str, KeypointSet] = {entry.name: entry for entry in _SETS}


def keypoint_set(name: str) -> KeypointSet:
    """Return the set called `name`; a wrong name raises a ValueError that lists the right ones."""
    try:
        return KEYPOINT_SETS[name]
    except (KeyError, TypeError):
        listed = ", ".join(KEYPOINT_SETS)
        raise ValueError(f"keypoint_set: expected one of {listed}, got {name!r}; check the name") from None
