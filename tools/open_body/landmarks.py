"""Choose the named vertices: fingertips, toes, face points and the landmarks that measuring needs."""

from __future__ import annotations

import numpy as np

from .makehuman import MakeHuman
from .rig import JOINT_NAMES
from .topology import ClosedMesh, lid_margin

FINGERS = ("thumb", "index", "middle", "ring", "pinky")


def named_vertices(source: MakeHuman, mesh: ClosedMesh, vertices: np.ndarray, joints: np.ndarray) -> dict[str, int]:
    """Return {name: vertex id} on the closed mesh.

    Args:
        source: bone weights and the eye cubes are used.
        mesh: the closed mesh.
        vertices: (V, 3) T-posed mean body, metres.
        joints: (24, 3) its joints, metres.
    """
    merge, mirror = mesh.merge, mesh.mirror
    at = {name: joints[k] for k, name in enumerate(JOINT_NAMES)}
    x, y, z = vertices.T
    middle = mirror == np.arange(len(vertices))

    def of_bones(*bones: str) -> np.ndarray:
        weight = np.zeros(merge.shape[1])
        for bone in bones:
            for vertex, value in source.bone_weights[bone]:
                weight[vertex] += value
        return merge @ weight > 0.5

    def best(score: np.ndarray, where: np.ndarray) -> int:
        return int(np.flatnonzero(where)[np.argmax(score[where])])

    def near(point: np.ndarray) -> int:
        return int(np.argmin(np.linalg.norm(vertices - point, axis=1)))

    def slab(axis: np.ndarray, value: float, half: float) -> np.ndarray:
        return np.abs(axis - value) < half

    above_neck = y > at["neck"][1]
    nose = best(z, above_neck & middle)
    ids = {"head_top": best(y, middle), "nose": nose}
    ids["chin"] = best(z - 0.7 * y, middle & (y < y[nose] - 0.055) & (y > at["neck"][1] + 0.02) & (z > at["head"][2]))
    ids["crotch"] = best(-y, middle & slab(y, at["left_hip"][1], 0.2) & (np.abs(z - at["left_hip"][2]) < 0.1))

    lids = merge @ np.isin(np.arange(merge.shape[1]), lid_margin(source)) > 0.5
    ids["left_eye"] = best(z, lids & slab(x, x[lids].mean(), 0.006))
    side_of_head = above_neck & (x > np.quantile(x[above_neck], 0.97))
    ids["left_ear"] = near(vertices[side_of_head].mean(axis=0))

    for k, finger in enumerate(FINGERS, start=1):
        # fingers spread: each points from its knuckle joint outwards
        tip = of_bones(f"finger{k}-3.L")
        root = vertices[of_bones(f"finger{k}-2.L")].mean(axis=0)
        along = vertices[tip].mean(axis=0) - root
        ids[f"left_{finger}"] = best((vertices - root) @ along, tip)
    ids["left_big_toe"] = best(z, of_bones("toe1-2.L"))
    ids["left_small_toe"] = best(z, of_bones("toe5-3.L", "toe5-2.L"))
    ids["left_heel"] = best(-z, of_bones("foot.L") & (y < at["left_ankle"][1] - 0.02))

    shoulder, elbow, wrist = at["left_shoulder"], at["left_elbow"], at["left_wrist"]
    # skin that comes to lie over the acromion, 2 cm lateral of the joint, when the arm is lowered out of the T-pose
    over_joint = np.hypot(x - shoulder[0] + 0.037, z - shoulder[2] + 0.012)
    ids["left_acromion"] = best(-over_joint, (y > shoulder[1] + 0.02) & (y < at["neck"][1] + 0.05))
    ids["left_radiale"] = best(z, slab(x, elbow[0] + 0.012, 0.012) & slab(y, elbow[1], 0.06))
    ids["left_stylion"] = best(z, slab(x, wrist[0] - 0.005, 0.012) & slab(y, wrist[1], 0.06))
    ids["left_trochanterion"] = best(x, slab(y, at["left_hip"][1], 0.015) & (x < 0.3))
    ids["left_patella"] = best(z, slab(y, at["left_knee"][1], 0.012) & slab(x, at["left_knee"][0], 0.01))
    ids["left_malleolus"] = best(x, slab(y, at["left_ankle"][1], 0.012))
    right = {name.replace("left_", "right_"): int(mirror[k]) for name, k in ids.items() if name.startswith("left_")}
    return {**ids, **right}
