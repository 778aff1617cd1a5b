"""Smooth away surface detail: replace a patch by the thin plate that its surroundings span, as a linear map."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from .makehuman import MakeHuman

NIPPLE_TARGETS = ("breast/nipple-size-incr", "breast/nipple-point-incr")
"""The vertices that these targets move are the patch."""
GROWTH = 3
"""Rings of vertices added round the patch."""


def smoothing(source: MakeHuman, merge: sparse.csr_matrix, faces: np.ndarray) -> sparse.csr_matrix:
    """Return (V, V) that maps vertices to vertices without nipples.

    The patch minimises the squared uniform Laplacian given the vertices around it; all else stays.
    """
    count = merge.shape[0]
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    adjacency = sparse.coo_matrix((np.ones(len(edges)), edges.T), shape=(count, count)).tocsr()
    moved = sum(np.abs(source.target(name)).sum(axis=1) for name in NIPPLE_TARGETS) > 1e-4
    patch = merge @ moved > 0.5
    for _ in range(GROWTH):
        patch = patch | (adjacency @ patch > 0)

    laplacian = sparse.identity(count) - sparse.diags(1.0 / np.asarray(adjacency.sum(axis=1)).ravel()) @ adjacency
    plate = (laplacian.T @ laplacian).tocsr()
    inside, outside = np.flatnonzero(patch), np.flatnonzero(~patch)
    filled = spsolve(plate[inside][:, inside].tocsc(), -plate[inside][:, outside].tocsc())
    result = sparse.lil_matrix((count, count))
    result[outside, outside] = 1.0
    result[np.ix_(inside, outside)] = filled
    return result.tocsr()
