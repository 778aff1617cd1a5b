"""How each point of the body is made on a model: from its anchors, named vertices, landmarks and joints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from .data import BodyModelData
from .keypoint_points import FACE_MARKUP, FINGERS, HAND_POINTS, MIDPOINTS
from .keypoint_sets import KEYPOINT_SETS
from .landmarks import NUM_STATIC, landmark_arrays
from .skeleton import swap_sides

# The weight of each vertex and joint in a point; the weights sum to 1.
Recipe = dict[tuple[Literal["vertex", "joint"], int], float]

# Named vertices of the official meshes, by number of vertices. Data that names its own vertices comes first.
OFFICIAL_VERTEX_IDS: dict[int, dict[str, int]] = {
    6890: {
        **{"nose": 332, "right_eye": 6260, "left_eye": 2800, "right_ear": 4071, "left_ear": 583, "head_top": 411},
        **{"left_big_toe": 3216, "left_small_toe": 3226, "left_heel": 3387},
        **{"right_big_toe": 6617, "right_small_toe": 6624, "right_heel": 6787},
        **{"left_thumb": 2746, "left_index": 2319, "left_middle": 2445, "left_ring": 2556, "left_pinky": 2673},
        **{"right_thumb": 6191, "right_index": 5782, "right_middle": 5905, "right_ring": 6016, "right_pinky": 6133},
    },
    10475: {
        **{"nose": 9120, "right_eye": 9929, "left_eye": 9448, "right_ear": 616, "left_ear": 6},
        **{"left_big_toe": 5770, "left_small_toe": 5780, "left_heel": 8846},
        **{"right_big_toe": 8463, "right_small_toe": 8474, "right_heel": 8635},
        **{"left_thumb": 5361, "left_index": 4933, "left_middle": 5058, "left_ring": 5169, "left_pinky": 5286},
        **{"right_thumb": 8079, "right_index": 7669, "right_middle": 7794, "right_ring": 7905, "right_pinky": 8022},
    },
    778: {"thumb": 744, "index": 320, "middle": 443, "ring": 554, "pinky": 671},
}

# What each row of a published regressor is; "a|b" serves as both. The rows of J_regressor_h36m.npy are left leg first.
REGRESSOR_ROWS: dict[str, tuple[str, ...]] = {
    "h36m": (
        *("pelvis_h36m", "left_hip_h36m|left_hip", "left_knee", "left_ankle"),
        *("right_hip_h36m|right_hip", "right_knee", "right_ankle"),
        *("spine_h36m", "thorax_h36m|neck_lsp", "nose_h36m", "head_h36m|head_top"),
        *("left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist"),
    ),
    "cocoplus": KEYPOINT_SETS["hmr19"].keypoints,
    "spin_extra": (
        *("right_hip", "left_hip", "neck_lsp", "head_top", "pelvis_mpii", "thorax_mpii"),
        *("spine_h36m", "nose_h36m", "head_h36m"),
    ),
}

_LIMBS = ("left_shoulder", "left_elbow", "left_wrist", "left_hip", "left_knee", "left_ankle")
_FINGERS = tuple(f"{side}{finger}" for side in ("left_", "") for finger in FINGERS)

_FINGER_POINTS = frozenset(point for point in HAND_POINTS if not point.endswith("_hand_root"))

# Tried in order after an anchor, a vertex and a landmark of the point's own name. "joint a+b" is the mean of joints,
# "point a+b" the mean of other points, "vertex a" another name, "highest" the top of the template.
_LEFT_AND_MIDDLE: dict[str, tuple[str, ...]] = {
    **{point: (f"joint {point}",) for point in _LIMBS},
    **{f"{finger}{k}": (f"joint {finger}{k}",) for finger in _FINGERS for k in (1, 2, 3)},
    **{f"{finger}_tip": (f"vertex {finger}",) for finger in _FINGERS},
    **{point: (f"point {'+'.join(ends)}",) for point, ends in MIDPOINTS.items()},
    "left_hand_root": ("point left_wrist",),
    "wrist_mano": ("joint wrist",),
    "head_top": ("highest",),
    "neck_lsp": ("joint neck",),
    "pelvis_mpii": ("point mid_hip",),
    "thorax_mpii": ("point left_shoulder+right_shoulder",),
    "left_hip_h36m": ("point left_hip",),
    "spine_h36m": ("joint spine2",),
    "thorax_h36m": ("joint neck",),
    "nose_h36m": ("point nose",),
    "head_h36m": ("point head_top",),
    "pelvis_3dhp": ("joint pelvis",),
    "spine_3dhp": ("joint spine1",),
    "spine2_3dhp": ("joint spine2",),
    "spine3_3dhp": ("joint spine3",),
    "spine4_3dhp": ("joint spine3+neck",),
    "neck_3dhp": ("joint neck",),
    "head_3dhp": ("joint head",),
    "left_hip_3dhp": ("point left_hip",),
    "left_clavicle_3dhp": ("joint left_collar",),
    "left_hand_3dhp": ("joint left_hand", "joint left_middle1"),
    "left_foot_3dhp": ("joint left_foot",),
    "left_toe_3dhp": ("point left_big_toe",),
}
RECIPES: dict[str, tuple[str, ...]] = {
    **{
        swap_sides(point): tuple(map(swap_sides, recipes))
        for point, recipes in _LEFT_AND_MIDDLE.items()
        if "left" in point
    },
    **_LEFT_AND_MIDDLE,
}


def recipe_of_point(point: str, data: BodyModelData) -> Recipe | None:
    """Return how `point` is made on this body, or None where the body has no such point.

    A rigid hand has no finger points: its surface has fingertips, but they cannot follow those of a picture.
    """
    if point in _FINGER_POINTS and "left_index1" not in data.skeleton.names:
        return None
    if point in data.anchors:
        ids, weights = data.anchors[point]
        return _merge([({("vertex", int(i)): 1.0}, float(w)) for i, w in zip(ids, weights, strict=True)])
    for alternative in (f"vertex {point}", f"landmark {point}", *RECIPES.get(point, ())):
        recipe = _recipe(alternative, data)
        if recipe is not None:
            return recipe
    return None


def recipe_of_joint(name: str, data: BodyModelData) -> Recipe | None:
    """Return the model's own joint called `name`, or None where it has none."""
    names = data.skeleton.names
    return {("joint", names.index(name)): 1.0} if name in names else None


def _recipe(alternative: str, data: BodyModelData) -> Recipe | None:
    kind, _, text = alternative.partition(" ")
    names = text.split("+")
    if kind == "joint":
        return _mean([recipe_of_joint(name, data) for name in names])
    if kind == "point":
        return _mean([recipe_of_point(name, data) for name in names])
    if kind == "vertex":
        vertex = _vertex_ids(data).get(text)
        return None if vertex is None else {("vertex", vertex): 1.0}
    if kind == "landmark":
        return _landmark(text, data)
    # The rest pose stands upright with the arms out, so the crown is the highest vertex of a body that has a head.
    if "head" not in data.skeleton.names:
        return None
    return {("vertex", int(data.v_template[:, 1].argmax())): 1.0}


def _vertex_ids(data: BodyModelData) -> Mapping[str, int]:
    return {**OFFICIAL_VERTEX_IDS.get(data.num_vertices, {}), **data.vertex_ids}


def _landmark(point: str, data: BodyModelData) -> Recipe | None:
    """Return a face point from the 51 static landmarks of SMPL-X and FLAME: entries 17 to 67 of the face markup."""
    if point not in FACE_MARKUP[17:] or not {"lmk_faces_idx", "lmk_bary_coords"} <= data.extras.keys():
        return None
    faces, weights = landmark_arrays(data, {"lmk_faces_idx": None, "lmk_bary_coords": None}, (NUM_STATIC,))
    k = FACE_MARKUP.index(point) - 17
    corners = zip(data.faces[faces[k]], weights[k], strict=True)
    return _merge([({("vertex", int(i)): 1.0}, float(w)) for i, w in corners])


def _mean(recipes: list[Recipe | None]) -> Recipe | None:
    found = [recipe for recipe in recipes if recipe is not None]
    return _merge([(recipe, 1 / len(found)) for recipe in found]) if len(found) == len(recipes) else None


def _merge(parts: list[tuple[Recipe, float]]) -> Recipe:
    total: Recipe = {}
    for recipe, weight in parts:
        for key, value in recipe.items():
            total[key] = total.get(key, 0.0) + weight * value
    return total
