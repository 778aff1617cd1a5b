"""The points of the body that several keypoint sets share: hands, the face markup, midpoints; and OKS constants."""

from __future__ import annotations

# A point that its data set defines as the mean of two others.
MIDPOINTS: dict[str, tuple[str, str]] = {
    "neck_openpose": ("left_shoulder", "right_shoulder"),
    "mid_hip": ("left_hip", "right_hip"),
    "pelvis_h36m": ("left_hip_h36m", "right_hip_h36m"),
    "chest_openpose": ("pelvis_mpii", "thorax_mpii"),
}

FINGERS = ("thumb", "index", "middle", "ring", "pinky")

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

COCO_SIGMAS = (0.026, *(0.025,) * 2, *(0.035,) * 2, *(0.079,) * 2, *(0.072,) * 2, *(0.062,) * 2)
COCO_SIGMAS = (*COCO_SIGMAS, *(0.107,) * 2, *(0.087,) * 2, *(0.089,) * 2)
FOOT_SIGMAS = (0.068, 0.066, 0.066, 0.092, 0.094, 0.094)
FACE_SIGMAS = (
    *(0.042, 0.043, 0.044, 0.043, 0.040, 0.035, 0.031, 0.025, 0.020, 0.023, 0.029, 0.032, 0.037, 0.038, 0.043, 0.041),
    *(0.045, 0.013, 0.012, 0.011, 0.011, 0.012, 0.012, 0.011, 0.011, 0.013, 0.015, 0.009, 0.007, 0.007, 0.007, 0.012),
    *(0.009, 0.008, 0.016, 0.010, 0.017, 0.011, 0.009, 0.011, 0.009, 0.007, 0.013, 0.008, 0.011, 0.012, 0.010, 0.034),
    *(0.008, 0.008, 0.009, 0.008, 0.008, 0.007, 0.010, 0.008, 0.009, 0.009, 0.009, 0.007, 0.007, 0.008, 0.011, 0.008),
    *(0.008, 0.008, 0.010, 0.008),
)
HAND_SIGMAS = (
    *(0.029, 0.022, 0.035, 0.037, 0.047, 0.026, 0.025, 0.024, 0.035, 0.018, 0.024, 0.022, 0.026, 0.017, 0.021, 0.021),
    *(0.032, 0.020, 0.019, 0.022, 0.031),
)


def hand_points(side: str) -> str:
    """Return the 21 points of a hand, "left_", "right_" or one without a side, in the order of OpenPose."""
    fingers = " ".join(f"{side}{finger}{k}" for finger in FINGERS for k in ("1", "2", "3", "_tip"))
    return f"{side}hand_root {fingers}"


HAND_POINTS: tuple[str, ...] = (*hand_points("left_").split(), *hand_points("right_").split())


def hand_bones(side: str) -> str:
    """Return the bones of a hand; those of a body join its wrist."""
    bones = [f"{side}hand_root-{side}{finger}1" for finger in FINGERS]
    for finger in FINGERS:
        chain = [f"{side}{finger}{k}" for k in ("1", "2", "3", "_tip")]
        bones += [f"{a}-{b}" for a, b in zip(chain, chain[1:], strict=False)]
    return " ".join([*bones, *([f"{side}wrist-{side}hand_root"] if side else [])])


def face_bones() -> str:
    """Return the lines of the face markup."""
    runs = ((0, 17), (17, 22), (22, 27), (27, 31), (31, 36), (36, 42), (42, 48), (48, 60), (60, 68))
    closed = (36, 42, 48, 60)
    bones = []
    for start, stop in runs:
        ids = [*range(start, stop), *([start] if start in closed else [])]
        bones += [f"{FACE_MARKUP[a]}-{FACE_MARKUP[b]}" for a, b in zip(ids, ids[1:], strict=False)]
    return " ".join(bones)
