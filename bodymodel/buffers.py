"""The constants of a body model laid out for speed: vertices as planes, joints as bones beside them."""

from __future__ import annotations

import numpy as np

from .data import BodyModelData
from .kinematics import bones_of

# Numbers: matrix products of some processors lose up to a third of their speed where rows start off this grid.
ALIGNED = 64


def arrays_for_speed(data: BodyModelData) -> dict[str, np.ndarray]:
    """Return the arrays that a forward pass reads.

    Rest bodies are one row: the planes of the vertices (all x, all y, all z), then the bones, then the joints. One
    product shapes all of them, and a few columns of it shape the bones alone.

    Returns:
        rest_template (3 V + 6 J,), rest_directions (S, 3 V + 6 J), pose_directions (P, W), whose rows end with zeros
        from 3 V on, with P = 0 where the model has no pose correctives, and weights (J, V).
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
    template = (data.v_template.T, bones_of(joints, data.skeleton), joints)
    directions = (_planes(shapedirs), _rows(bones_of(joint_directions, data.skeleton)), _rows(joint_directions))
    return {
        "rest_template": np.concatenate([part.reshape(-1) for part in template]),
        "rest_directions": np.concatenate(directions, axis=1),
        "pose_directions": _aligned(_planes(posedirs[:, :, :width])),
        "weights": data.lbs_weights.T.copy(),
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
