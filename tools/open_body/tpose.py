"""Bring MakeHuman bodies from their A-pose into SMPL's T-pose."""

from __future__ import annotations

import numpy as np

from .rig import JOINT_NAMES, PARENTS

LEG_ABDUCTION = np.radians(3.5)
"""Angle of the line from hip to ankle to the vertical: the feet a little apart, so that the thighs of the mean body do
not touch."""


def t_pose(vertices: np.ndarray, joints: np.ndarray, knuckles: np.ndarray, weights: np.ndarray):
    """Straighten the arms along ±x with the palms down, and the legs along −y.

    The result is the T-pose from which linear blend skinning with `weights` leads back to the given A-pose: at each
    vertex the blended T-to-A transform is inverted. The sculpted shape of shoulders and elbows is thus kept for arms
    that hang half down, where people mostly hold them, instead of being lost to a forward skinning step.

    Args:
        vertices: (V, 3) A-pose.
        joints: (24, 3) A-pose.
        knuckles: (2, 3, 3) left and right: index, middle and little knuckle, A-pose.
        weights: (V, 24).

    Returns:
        Vertices (V, 3) and joints (24, 3), pelvis at the origin.
    """
    rotations, posed = _segment_rotations(joints, knuckles), np.zeros_like(joints)
    for joint, parent in enumerate(PARENTS):
        posed[joint] = 0.0 if parent < 0 else posed[parent] + rotations[parent] @ (joints[joint] - joints[parent])
    # T to A: x = R^T (y - posed) + joint
    inverse = rotations.transpose(0, 2, 1)
    shift = joints - np.einsum("jab,jb->ja", inverse, posed)
    blended = np.einsum("vj,jab->vab", weights, inverse)
    return np.linalg.solve(blended, (vertices - weights @ shift)[..., None])[..., 0], posed


def _segment_rotations(joints: np.ndarray, knuckles: np.ndarray) -> np.ndarray:
    """Return the (24, 3, 3) rotation of every joint's segment from the A-pose to the T-pose."""
    at = {name: joints[k] for k, name in enumerate(JOINT_NAMES)}
    rotations = {name: np.eye(3) for name in JOINT_NAMES}
    for side, sign, (index, middle, little) in (("left", 1.0, knuckles[0]), ("right", -1.0, knuckles[1])):
        leg = at[f"{side}_ankle"] - at[f"{side}_hip"]
        now = np.arctan2(leg[0], -leg[1])
        rotations[f"{side}_hip"] = rotations[f"{side}_knee"] = _about_z(sign * LEG_ABDUCTION - now)
        upper = at[f"{side}_elbow"] - at[f"{side}_shoulder"]
        fore = at[f"{side}_wrist"] - at[f"{side}_elbow"]
        hand = middle - at[f"{side}_wrist"]
        along = np.array([sign, 0.0, 0.0])
        # the elbow's hinge becomes vertical, so that flexion carries the hand forward
        hinge = np.cross(upper, fore)
        rotations[f"{side}_shoulder"] = _align(upper, hinge, along, np.array([0.0, -sign, 0.0]))
        rotations[f"{side}_elbow"] = _align(fore, hinge, along, np.array([0.0, -sign, 0.0]))
        turn = _align(hand, index - little, along, np.array([0.0, 0.0, 1.0]))
        rotations[f"{side}_wrist"] = rotations[f"{side}_hand"] = turn
    return np.stack([rotations[name] for name in JOINT_NAMES])


def _about_z(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _frame(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    a = first / np.linalg.norm(first)
    b = second - a * (a @ second)
    b = b / np.linalg.norm(b)
    return np.stack([a, b, np.cross(a, b)], axis=1)


def _align(first: np.ndarray, second: np.ndarray, to_first: np.ndarray, to_second: np.ndarray) -> np.ndarray:
    """Return the rotation that takes `first` to `to_first` and the plane of both to that of their targets."""
    return _frame(to_first, to_second) @ _frame(first, second).T
