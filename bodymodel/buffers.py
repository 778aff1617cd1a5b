"""The constants of a body model laid out for speed: vertices as planes, joints as bones beside them."""

from __future__ import annotations

import numpy as np

from .data import BodyModelData
from .kinematics import bones_of

# Numbers: matrix products of some processors lose up to a third of their speed where rows start off this grid.
ALIGNED = 64


def arrays_for_speed(data: BodyModelData) -> dict[str, np.ndarray]:
    """Return the arrays that a forward pass reads.

    Vertices are planes: all x, all y, all z. One product with the directions of pose correctives and of shape, one
    after the other, moves them all.

    Returns:
        template (3 V,), directions (P + S, W), whose rows end with zeros from 3 V on, with P = 0 where the model has no
        pose correctives, weights (J, V), and of bones, then rest joints: lever_template (6 J,), lever_directions
        (S, 6 J).
    """
    assert data.J_template is not None and data.J_shapedirs is not None
    width = data.table_row.feature_width
    posedirs = np.zeros((data.num_vertices, 3, 0)) if data.posedirs is None else data.posedirs
    shapedirs = data.shapedirs.astype(np.float64)
    if posedirs.shape[2] > width:
        # STAR's last corrective is driven by betas[1] alone: to the vertices, but not to the joints, it is shape.
        names = [name for name, count in data.coefficients for _ in range(count)]
        shapedirs[:, :, names.index("betas") + 1] += posedirs[:, :, width]
    # Bones are differences, so they are taken in double precision.
    joints, joint_directions = data.J_template.astype(np.float64), data.J_shapedirs.astype(np.float64)
    lever_directions = _rows(bones_of(joint_directions, data.skeleton)), _rows(joint_directions)
    return {
        "template": data.v_template.T.reshape(-1),
        "directions": _aligned(np.concatenate((_planes(posedirs[:, :, :width]), _planes(shapedirs)))),
        "weights": data.lbs_weights.T.copy(),
        "lever_template": np.concatenate((bones_of(joints, data.skeleton), joints)).reshape(-1),
        "lever_directions": np.concatenate(lever_directions, axis=1),
    }


def _aligned(rows: np.ndarray) -> np.ndarray:
    """Return rows filled up with zeros to a multiple of `ALIGNED`."""
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % ALIGNED)))


def _planes(directions: np.ndarray) -> np.ndarray:
    """Return directions (V, 3, K) as rows of planes (K, 3 V)."""
    return directions.transpose(2, 1, 0).reshape(directions.shape[2], 3 * directions.shape[0])


def _rows(directions: np.ndarray) -> np.ndarray:
    """Return directions (J, 3, K) as rows (K, 3 J)."""
    return directions.transpose(2, 0, 1).reshape(directions.shape[2], 3 * directions.shape[0])
