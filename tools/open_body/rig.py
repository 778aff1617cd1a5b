"""Map MakeHuman's rig to the 24 SMPL joints: names, joint positions and skin weights."""

from __future__ import annotations

import re

import numpy as np
from scipy import sparse

from .makehuman import MakeHuman

JOINT_NAMES = (
    "pelvis left_hip right_hip spine1 left_knee right_knee spine2 left_ankle right_ankle spine3 left_foot right_foot "
    "neck left_collar right_collar head left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist "
    "left_hand right_hand"
).split()
PARENTS = np.array([-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21])
JOINT_MIRROR = np.array([0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22])

_KNUCKLES = {f"{{}}-finger-{k}-1": 0.85 / 4 for k in (2, 3, 4, 5)}
# SMPL's pelvis joint lies well above the hip line, its hand joint a little short of the knuckles;
# MakeHuman's hip cubes lie somewhat lateral of real hip centres
_JOINT_CUBES: dict[str, dict[str, float]] = {
    "pelvis": {"pelvis": 0.55, "spine-3": 0.45},
    "spine1": {"spine-3": 0.6, "spine-2": 0.4},
    "spine2": {"spine-2": 0.7, "spine-1": 0.3},
    "spine3": {"spine-1": 1.0},
    "neck": {"neck": 1.0},
    "head": {"head": 1.0},
    "hip": {"{}-upper-leg": 0.94, "{other}-upper-leg": 0.06},
    "knee": {"{}-knee": 1.0},
    "ankle": {"{}-ankle": 1.0},
    "foot": {f"{{}}-toe-{k}-1": 0.2 for k in range(1, 6)},
    "collar": {"{}-clavicle": 1.0},
    "shoulder": {"{}-shoulder": 1.0},
    "elbow": {"{}-elbow": 1.0},
    "wrist": {"{}-hand": 1.0},
    "hand": {"{}-hand": 0.15, **_KNUCKLES},
}
# first match wins; a bone that none matches is a part of the face
_BONE_PATTERNS = (
    (r"root|pelvis|spine05|spine04", "pelvis"),
    (r"spine03", "spine1"),
    (r"spine02", "spine2"),
    (r"spine01|breast", "spine3"),
    (r"neck0.", "neck"),
    (r"upperleg0.", "hip"),
    (r"lowerleg0.", "knee"),
    (r"foot", "ankle"),
    (r"toe.*", "foot"),
    (r"clavicle|shoulder01", "collar"),
    (r"upperarm0.", "shoulder"),
    (r"lowerarm0.", "elbow"),
    (r"wrist|metacarpal.|finger1-.", "wrist"),
    (r"finger[2-5]-.", "hand"),
)


def joint_operator(source: MakeHuman) -> sparse.csr_matrix:
    """Return (24, 19158) non-negative rows that sum to 1: joints = operator @ MakeHuman vertices."""
    rows = np.zeros((len(JOINT_NAMES), len(source.vertices)))
    for row, name in zip(rows, JOINT_NAMES, strict=True):
        side, _, part = name.rpartition("_")
        for cube, share in _JOINT_CUBES[part].items():
            corners = source.cube(cube.format(side[:1], other={"left": "r", "right": "l"}.get(side)))
            row[corners] += share / len(corners)
    return sparse.csr_matrix(rows)


def skin_weights(source: MakeHuman) -> np.ndarray:
    """Return (19158, 24) weights of the 24 joints, summed from MakeHuman's bones; rows of the body sum to 1."""
    weights = np.zeros((len(source.vertices), len(JOINT_NAMES)))
    for bone, pairs in source.bone_weights.items():
        stem, _, side = bone.partition(".")
        part = next((part for pattern, part in _BONE_PATTERNS if re.fullmatch(pattern, stem)), "head")
        name = part if part in JOINT_NAMES else {"L": "left_", "R": "right_"}[side] + part
        for vertex, weight in pairs:
            weights[vertex, JOINT_NAMES.index(name)] += weight
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
