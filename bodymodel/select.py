"""Keep some vertices of a body model."""

from __future__ import annotations

import numpy as np

from .data import BodyModelData


def select_vertices(data: BodyModelData, ids: np.ndarray) -> BodyModelData:
    """Return the model of the vertices `ids`, in that order; the joints stay exactly where they were.

    Args:
        data: any model.
        ids: (N,) vertex indices, at least one; repeats are allowed, and then name the first.

    Returns:
        A model whose faces are those with all three corners kept, whose named vertices and anchors are those that lie
        wholly in the selection, and whose joints come from the joint bases (its J_regressor is None).

    Raises:
        ValueError: no id, or an id out of range.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1 or ids.size == 0 or ids.dtype.kind not in "iu":
        raise ValueError(
            f"ids: expected (N,) integers, N >= 1, got {ids.shape} {ids.dtype}; pass a flat list of vertex ids"
        )
    if ids.min() < 0 or ids.max() >= data.num_vertices:
        raise ValueError(f"ids: expected 0 to {data.num_vertices - 1}, got {ids.min()} to {ids.max()}; check the ids")
    position = np.full(data.num_vertices, -1)
    position[ids[::-1]] = np.arange(ids.size)[::-1]
    faces = position[data.faces]
    return BodyModelData(
        family=data.family,
        v_template=data.v_template[ids],
        faces=faces[(faces >= 0).all(axis=1)],
        lbs_weights=data.lbs_weights[ids],
        shapedirs=data.shapedirs[ids],
        posedirs=None if data.posedirs is None else data.posedirs[ids],
        J_template=data.J_template,
        J_shapedirs=data.J_shapedirs,
        coefficients=data.coefficients,
        vertex_ids={name: int(position[i]) for name, i in data.vertex_ids.items() if position[i] >= 0},
        anchors={
            name: (position[anchor_ids], weights)
            for name, (anchor_ids, weights) in data.anchors.items()
            if (position[anchor_ids] >= 0).all()
        },
        extras={name: array for name, array in data.extras.items() if name.startswith("hands_")},
    )
