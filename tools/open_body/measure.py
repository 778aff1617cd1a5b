"""Measure a T-posed body the way ANSUR II measured people. NumPy only; tests may load this file alone.

Definitions, on the left side (bodies are symmetric); each is one number a body, in metres or kilograms:

- stature, crotch_height, acromion_height: heights above the sole. Stature is to the highest vertex. The shoulder
  joints were raised into the T-pose without the collar bones, so the acromion is where it is with hanging arms.
- weight: volume of the closed mesh times 1010 kg/m³.
- span: distance of the two middle fingertips; ANSUR measured it in this very pose.
- upper_arm: acromion to radiale of the **hanging** arm: acromion above the shoulder joint, plus radiale from the
  shoulder joint along the arm. A T-posed arm measured directly would be short by the height of the acromion.
- forearm: radiale to stylion along the arm.
- thigh, shank: differences of heights of the trochanter, the middle of the patella and the lateral malleolus.
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

LEFT_SHOULDER = 16


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
    return {
        "stature": top - sole,
        "weight": volume(vertices, faces) * DENSITY,
        "crotch_height": height("crotch"),
        "acromion_height": height("left_acromion"),
        "span": at("left_middle")[..., 0] - at("right_middle")[..., 0],
        "upper_arm": at("left_acromion")[..., 1] - shoulder[..., 1] + at("left_radiale")[..., 0] - shoulder[..., 0],
        "forearm": at("left_stylion")[..., 0] - at("left_radiale")[..., 0],
        "thigh": height("left_trochanterion") - height("left_patella"),
        "shank": height("left_patella") - height("left_malleolus"),
    }


def volume(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the signed volume (*batch,) enclosed by a closed mesh, in cubic units of the vertices."""
    a, b, c = (vertices[..., faces[:, k], :] for k in range(3))
    return np.einsum("...fi,...fi->...", a, np.cross(b, c)) / 6.0
