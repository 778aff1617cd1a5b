"""Sparse non-negative regressors: the 24 joints by least squares, the keypoint anchors as mixtures."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from .rig import JOINT_MIRROR, JOINT_NAMES

NEIGHBOURS = 400
"""How many of the nearest vertices a joint may use."""

# each anchor: shares of joints and of named vertices
_SIDED_ANCHORS: dict[str, dict[str, float]] = {
    "{}_hip": {"{}_hip": 0.48, "{}_trochanterion": 0.32, "pelvis": 0.20},
    "{}_knee": {"{}_knee": 1.0},
    "{}_ankle": {"{}_ankle": 1.0},
    "{}_shoulder": {"{}_shoulder": 0.85, "{}_acromion": 0.15},
    "{}_elbow": {"{}_elbow": 1.0},
    "{}_wrist": {"{}_wrist": 1.0},
    "{}_clavicle_3dhp": {"{}_collar": 0.6, "{}_shoulder": 0.4},
    "{}_hand_3dhp": {"{}_hand": 1.0},
    "{}_toe_3dhp": {"{}_big_toe": 0.5, "{}_small_toe": 0.1, "{}_foot": 0.4},
}
_SHOULDERS = {"left_shoulder": 0.425, "right_shoulder": 0.425, "left_acromion": 0.075, "right_acromion": 0.075}
_HIPS = {
    "left_hip": 0.24,
    "right_hip": 0.24,
    "left_trochanterion": 0.16,
    "right_trochanterion": 0.16,
    "pelvis": 0.20,
}
_MIDDLE_ANCHORS: dict[str, dict[str, float]] = {
    "neck_openpose": _SHOULDERS,
    "mid_hip": _HIPS,
    "neck_lsp": {"neck": 0.6, "head": 0.4},
    "head_top": {"head_top": 1.0},
    "thorax_mpii": {"neck": 0.6, "left_collar": 0.2, "right_collar": 0.2},
    "pelvis_mpii": {"pelvis": 0.3, "left_hip": 0.35, "right_hip": 0.35},
    "spine_h36m": {"spine1": 0.3, "spine2": 0.7},
    "jaw": {"head": 0.5, "chin": 0.5},
    "head_h36m": {"head_top": 0.75, "head": 0.25},
    "nose_h36m": {"nose": 0.6, "head": 0.4},
    "spine_3dhp": {"pelvis": 0.3, "spine1": 0.7},
    "spine2_3dhp": {"spine1": 0.4, "spine2": 0.6},
    "spine3_3dhp": {"spine3": 1.0},
    "spine4_3dhp": {"spine3": 0.4, "neck": 0.6},
    "neck_3dhp": {"neck": 1.0},
    "head_3dhp": {"head": 1.0},
}


def joint_regressor(
    template: np.ndarray, directions: np.ndarray, joints: np.ndarray, joint_directions: np.ndarray, mirror: np.ndarray
) -> np.ndarray:
    """Fit (24, V) non-negative rows that sum to 1 and reproduce the joints over the whole shape space.

    Args:
        template: (V, 3); `directions`: (V, 3, S).
        joints: (24, 3) wanted; `joint_directions`: (24, 3, S) wanted.
        mirror: (V,); the fit is made on the middle and the left and then mirrored, so symmetry is exact.
    """
    regressor = np.zeros((len(joints), len(template)))
    values = np.concatenate([template[..., None], directions], axis=-1)
    wanted = np.concatenate([joints[..., None], joint_directions], axis=-1)
    # the template matters as much as a body three standard deviations away
    emphasis = np.r_[3.0, np.ones(directions.shape[-1])]
    for joint, name in enumerate(JOINT_NAMES):
        if name.startswith("right_"):
            continue
        near = np.argsort(np.linalg.norm(template - joints[joint], axis=1), kind="stable")[:NEIGHBOURS]
        central = JOINT_MIRROR[joint] == joint
        if central:
            near = np.unique(np.minimum(near, mirror[near]))
        columns = 0.5 * (values[near] + values[mirror[near]]) if central else values[near]
        system = (columns * emphasis).reshape(len(near), -1).T
        # the last row makes the weights sum to 1
        system = np.concatenate([system, np.full((1, len(near)), 100.0)])
        solution = nnls(system, np.r_[(wanted[joint] * emphasis).ravel(), 100.0], maxiter=20 * len(near))[0]
        solution[solution < 1e-4] = 0.0
        solution /= solution.sum()
        np.add.at(regressor[joint], near, 0.5 * solution if central else solution)
        if central:
            np.add.at(regressor[joint], mirror[near], 0.5 * solution)
        else:
            regressor[JOINT_MIRROR[joint], mirror[near]] = solution
    return regressor


def anchors(regressor: np.ndarray, vertex_ids: dict[str, int]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the anchors' names and rows (A, V): mixtures of joint rows and named vertices."""
    recipes = dict(_MIDDLE_ANCHORS)
    for name, recipe in _SIDED_ANCHORS.items():
        for side in ("left", "right"):
            recipes[name.format(side)] = {part.format(side): share for part, share in recipe.items()}
    rows = np.zeros((len(recipes), regressor.shape[1]))
    for row, recipe in zip(rows, recipes.values(), strict=True):
        for part, share in recipe.items():
            if part in JOINT_NAMES:
                row += share * regressor[JOINT_NAMES.index(part)]
            else:
                row[vertex_ids[part]] += share
    return tuple(recipes), rows
