"""The tables of keypoint sets: names in order, left-right flips, bones to draw, and which point of the body each is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .families import FAMILIES
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


# A point that its data set defines as the mean of two others.
MIDPOINTS: dict[str, tuple[str, str]] = {
    "neck_openpose": ("left_shoulder", "right_shoulder"),
    "mid_hip": ("left_hip", "right_hip"),
    "pelvis_h36m": ("left_hip_h36m", "right_hip_h36m"),
    "chest_openpose": ("pelvis_mpii", "thorax_mpii"),
}

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
_FINGERS = ("thumb", "index", "middle", "ring", "pinky")

# The 68-point face markup from the subject's right ear along the jaw, then brows, nose, eyes, outer and inner lips.
FACE_MARKUP: tuple[str, ...] = (
    *(f"right_jaw{k}" for k in range(1, 9)),
    "chin",
    *(f"left_jaw{k}" for k in range(8, 0, -1)),
    *(f"right_brow{k}" for k in range(1, 6)),
    *(f"left_brow{k}" for k in range(5, 0, -1)),
    *(f"nose_bridge{k}" for k in range(1, 5)),
    *("right_nostril1", "right_nostril2", "nose_base", "left_nostril2", "left_nostril1"),
    *(f"right_lid{k}" for k in range(1, 7)),
    *(f"left_lid{k}" for k in (4, 3, 2, 1, 6, 5)),
    *("right_lip1", "right_lip2", "right_lip3", "upper_lip", "left_lip3", "left_lip2", "left_lip1"),
    *("left_lip4", "left_lip5", "lower_lip", "right_lip5", "right_lip4"),
    *("right_inner_lip1", "right_inner_lip2", "upper_inner_lip", "left_inner_lip2", "left_inner_lip1"),
    *("left_inner_lip3", "lower_inner_lip", "right_inner_lip3"),
)

_COCO_SIGMAS = (0.026, *(0.025,) * 2, *(0.035,) * 2, *(0.079,) * 2, *(0.072,) * 2, *(0.062,) * 2)
_COCO_SIGMAS = (*_COCO_SIGMAS, *(0.107,) * 2, *(0.087,) * 2, *(0.089,) * 2)
_FOOT_SIGMAS = (0.068, 0.066, 0.066, 0.092, 0.094, 0.094)
_FACE_SIGMAS = (
    *(0.042, 0.043, 0.044, 0.043, 0.040, 0.035, 0.031, 0.025, 0.020, 0.023, 0.029, 0.032, 0.037, 0.038, 0.043, 0.041),
    *(0.045, 0.013, 0.012, 0.011, 0.011, 0.012, 0.012, 0.011, 0.011, 0.013, 0.015, 0.009, 0.007, 0.007, 0.007, 0.012),
    *(0.009, 0.008, 0.016, 0.010, 0.017, 0.011, 0.009, 0.011, 0.009, 0.007, 0.013, 0.008, 0.011, 0.012, 0.010, 0.034),
    *(0.008, 0.008, 0.009, 0.008, 0.008, 0.007, 0.010, 0.008, 0.009, 0.009, 0.009, 0.007, 0.007, 0.008, 0.011, 0.008),
    *(0.008, 0.008, 0.010, 0.008),
)
_HAND_SIGMAS = (
    *(0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024, 0.022, 0.026, 0.017, 0.021, 0.021),
    *(0.032, 0.020, 0.019, 0.022, 0.031),
)

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


def _hand(side: str) -> str:
    fingers = " ".join(f"{side}{finger}{k}" for finger in _FINGERS for k in ("1", "2", "3", "_tip"))
    return f"{side}hand_root {fingers}"


HAND_POINTS: tuple[str, ...] = (*_hand("left_").split(), *_hand("right_").split())


def _hand_bones(side: str) -> str:
    bones = [f"{side}hand_root-{side}{finger}1" for finger in _FINGERS]
    for finger in _FINGERS:
        chain = [f"{side}{finger}{k}" for k in ("1", "2", "3", "_tip")]
        bones += [f"{a}-{b}" for a, b in zip(chain, chain[1:], strict=False)]
    return " ".join([*bones, *([f"{side}wrist-{side}hand_root"] if side else [])])


def _face_bones() -> str:
    runs = ((0, 17), (17, 22), (22, 27), (27, 31), (31, 36), (36, 42), (42, 48), (48, 60), (60, 68))
    closed = (36, 42, 48, 60)
    bones = []
    for start, stop in runs:
        ids = [*range(start, stop), *([start] if start in closed else [])]
        bones += [f"{FACE_MARKUP[a]}-{FACE_MARKUP[b]}" for a, b in zip(ids, ids[1:], strict=False)]
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
    _set("coco17", _COCO, _COCO_BONES, _COCO_SIGMAS),
    _set(
        "coco_wholebody133",
        " ".join((_COCO, _FEET, *FACE_MARKUP, *HAND_POINTS)),
        f"{_COCO_BONES} {_face_bones()} {_hand_bones('left_')} {_hand_bones('right_')}",
        (*_COCO_SIGMAS, *_FOOT_SIGMAS, *_FACE_SIGMAS, *_HAND_SIGMAS, *_HAND_SIGMAS),
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
    _set("hand21", _hand("").replace("hand_root", "hand_root=wrist_mano"), _hand_bones(""), _HAND_SIGMAS),
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
