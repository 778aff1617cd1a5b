"""Run all steps from the built-in body to the triangles of its atlas."""

from __future__ import annotations

from typing import Any

import numpy as np

from .atlas_charts import Chart
from .atlas_flatten import flatten, signed_areas
from .atlas_mesh import Mesh
from .atlas_parts import MIRROR_PART, TORSO_BACK, TORSO_FRONT, divide
from .atlas_tidy import tidy

STEPS = 1 << 15
"""Coordinates are whole multiples of 1 / STEPS: exact in float32, and so is 1 − u."""


def build(body: Any) -> dict[str, Any]:
    """Return faces (F,), part (F,), uv (F, 3, 2) and num_faces for the `BodyModelData` of the built-in body.

    Raises:
        ValueError: a triangle is flat or turned over, or a chart does not fill its square.
    """
    points = body.v_template.astype(np.float64)
    mesh = Mesh(points, body.faces, body.extras["vert_sym_idxs"], body.lbs_weights, dict(body.vertex_ids))
    layout = tidy(mesh, divide(mesh))
    steps = np.zeros((*mesh.faces.shape, 2), dtype=np.int64)
    for number, corners in sorted(layout.corners.items()):
        faces = np.flatnonzero(layout.part == number)
        chart = Chart.cut_out(mesh.faces[faces], layout.cuts, corners)
        uv = np.rint(flatten(chart, points) * STEPS).astype(np.int64)
        if number in (TORSO_BACK, TORSO_FRONT):
            uv[np.isin(chart.vertices, mesh.middle), 0] = STEPS // 2
        steps[faces] = uv[chart.faces]
    _mirror(mesh, steps)
    for number in range(1, len(MIRROR_PART)):
        twice = signed_areas(
            np.arange(3 * (layout.part == number).sum()).reshape(-1, 3), steps[layout.part == number].reshape(-1, 2)
        )
        if twice.min() <= 0 or twice.sum() != 2 * STEPS**2:
            raise ValueError(
                f"part {number}: expected positive areas that fill the square, got {twice.min()} at the least and "
                f"{twice.sum() / (2 * STEPS**2)} of it; refine STEPS or the layout"
            )
    return {"faces": np.arange(len(steps)), "part": layout.part, "uv": steps / STEPS, "num_faces": len(steps)}


def _mirror(mesh: Mesh, steps: np.ndarray) -> None:
    """Overwrite the right side with the reflection of the left: (u, v) becomes (1 − u, v)."""
    right = np.flatnonzero(~mesh.left)
    source = mesh.mirror_face[right]
    same = mesh.mirror[mesh.faces[right]][:, :, None] == mesh.faces[source][:, None, :]
    steps[right] = np.take_along_axis(steps[source], same.argmax(axis=2)[:, :, None], axis=1)
    steps[right, :, 0] = STEPS - steps[right, :, 0]
