"""Measure a T-posed body the way ANSUR II measured people. NumPy only; tests may load this file alone.

Definitions, on the left side (bodies are symmetric); each is one number a body, in metres or kilograms:

- stature, crotch_height: heights above the sole of the highest vertex and of the crotch.
- acromion_height: with **hanging** arms. Lowering the arm from the T-pose about the shoulder joint carries the skin at
  the acromion along by its skin weight; `ACROMION_FOLLOWS` is that weight, so the measure is that of the posed body.
- weight: volume of the closed mesh times 1010 kg/m³.
- span: distance of the two middle fingertips; ANSUR measured it in this very pose.
- upper_arm: acromion to radiale of the hanging arm, vertically.
- forearm: radiale to stylion along the arm.
- thigh, shank: differences of heights of the trochanter, the middle of the patella and the lateral malleolus.

Five further measures only steer the calibration, so that proportions that are not claimed stay natural too.
"""

from __future__ import annotations

import numpy as np

DENSITY = 1010.0
"""Body density, kg/m³."""

ANSUR_COLUMNS: dict[str, tuple[str, ...]] = {
    "stature": ("stature",),
    "weight": ("weightkg",),
    "crotch_height": ("crotchheight",),
    "acromion_height": ("acromialheight",),
    "span": ("span",),
    "upper_arm": ("acromionradialelength",),
    "forearm": ("radialestylionlength",),
    "thigh": ("trochanterionheight", "kneeheightmidpatella"),
    "shank": ("kneeheightmidpatella", "lateralmalleolusheight"),
}
"""ANSUR II column of each measure; where there are two, the first minus the second."""

FURTHER_COLUMNS: dict[str, tuple[str, ...]] = {
    "hip_breadth": ("hipbreadth",),
    "hand_length": ("handlength",),
    "foot_length": ("footlength",),
    "head_breadth": ("headbreadth",),
    "head_length": ("headlength",),
}
"""ANSUR II column of each further measure."""

LEFT_HIP, LEFT_SHOULDER = 1, 16
ACROMION_FOLLOWS = 0.62
"""Skin weight of the shoulder joint at `left_acromion`."""


def measure(vertices: np.ndarray, joints: np.ndarray, faces: np.ndarray, vertex_ids: dict[str, int]) -> dict:
    """Measure bodies in the T-pose.

    Args:
        vertices: (*batch, V, 3) metres, x = subject's left, y up, z forward.
        joints: (*batch, 24, 3) metres.
        faces: (F, 3), closed and counter-clockwise seen from outside.
        vertex_ids: named vertices; `left_acromion`, `left_radiale` and the like are used.

    Returns:
        Measures named as in `ANSUR_COLUMNS`, each (*batch,).
    """

    def at(name: str) -> np.ndarray:
        return vertices[..., vertex_ids[name], :]

    def height(name: str) -> np.ndarray:
        return at(name)[..., 1] - sole

    sole, top = vertices[..., 1].min(axis=-1), vertices[..., 1].max(axis=-1)
    shoulder = joints[..., LEFT_SHOULDER, :]

    def hanging(name: str) -> np.ndarray:
        """Height in the body's frame of a point of the left arm when the arm points straight down."""
        return shoulder[..., 1] - (at(name)[..., 0] - shoulder[..., 0])

    raised = at("left_acromion")[..., 1]
    acromion = raised + ACROMION_FOLLOWS * (hanging("left_acromion") - raised)
    return {
        "stature": top - sole,
        "weight": volume(vertices, faces) * DENSITY,
        "crotch_height": height("crotch"),
        "acromion_height": acromion - sole,
        "span": at("left_middle")[..., 0] - at("right_middle")[..., 0],
        "upper_arm": acromion - hanging("left_radiale"),
        "forearm": at("left_stylion")[..., 0] - at("left_radiale")[..., 0],
        "thigh": height("left_trochanterion") - height("left_patella"),
        "shank": height("left_patella") - height("left_malleolus"),
    }


def measure_further(vertices: np.ndarray, joints: np.ndarray, vertex_ids: dict[str, int]) -> dict:
    """Measure what `FURTHER_COLUMNS` names; arguments and result as those of `measure`.

    Hip breadth is the widest of the pelvis near the hip joints, hand length from the stylion to the middle fingertip,
    foot length from the heel to the great toe, head breadth and head length the largest of the skull above the ears.
    """

    def at(name: str) -> np.ndarray:
        return vertices[..., vertex_ids[name], :]

    x, y, z = np.moveaxis(vertices, -1, 0)
    hip = joints[..., LEFT_HIP, 1, None]
    pelvis = (y > hip - 0.06) & (y < hip + 0.04) & (np.abs(x) < 0.35)
    eye, top = at("left_eye")[..., 1, None], at("head_top")[..., 1, None]
    skull = y > eye + 0.35 * (top - eye)
    deepest = np.where(skull, z, -np.inf).max(axis=-1) - np.where(skull, z, np.inf).min(axis=-1)
    return {
        "hip_breadth": 2.0 * np.where(pelvis, x, 0.0).max(axis=-1),
        "hand_length": np.linalg.norm(at("left_middle") - at("left_stylion"), axis=-1),
        "foot_length": at("left_big_toe")[..., 2] - at("left_heel")[..., 2],
        "head_breadth": 2.0 * np.where(skull, x, 0.0).max(axis=-1),
        "head_length": deepest,
    }


def volume(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the signed volume (*batch,) enclosed by a closed mesh, in cubic units of the vertices."""
    a, b, c = (vertices[..., faces[:, k], :] for k in range(3))
    return np.einsum("...fi,...fi->...", a, np.cross(b, c)) / 6.0
