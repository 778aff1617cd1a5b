"""Smooth away surface detail: replace a patch by the thin plate that its surroundings span, as a linear map."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from .makehuman import MakeHuman

NIPPLE_TARGETS = ("breast/nipple-size-incr", "breast/nipple-point-incr")
"""The vertices that these targets move are the patches."""
GROWTH = 4
"""Rings of vertices added round a patch."""


def smoothing(source: MakeHuman, merge: sparse.csr_matrix, faces: np.ndarray, mirror: np.ndarray) -> sparse.csr_matrix:
    """Return (V, V) that maps vertices to vertices without nipples.

    A patch minimises the squared Laplacian given the vertices around it; all else stays. The Laplacian is that of the
    base mesh pressed flat: in the flat layout the dense rings of the patch do not let a cone pass for smooth.
    """
    count = merge.shape[0]
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    adjacency = sparse.coo_matrix((np.ones(len(edges)), edges.T), shape=(count, count)).tocsr()
    base = merge @ source.vertices
    moved = sum(np.abs(source.target(name)).sum(axis=1) for name in NIPPLE_TARGETS) > 1e-4
    patch = (merge @ moved > 0.5) & (base[:, 0] > 0)
    for _ in range(GROWTH):
        patch = patch | (adjacency @ patch > 0)
    around = patch
    for _ in range(2):
        around = around | (adjacency @ around > 0)

    plate = _plate_energy(base, faces[around[faces].all(axis=1)])
    inside, outside = np.flatnonzero(patch), np.flatnonzero(around & ~patch)
    filled = spsolve(plate[inside][:, inside].tocsc(), -plate[inside][:, outside].tocsc()).toarray()
    result = sparse.identity(count).tolil()
    for rows, columns in ((inside, outside), (mirror[inside], mirror[outside])):
        result[rows, rows] = 0.0
        result[np.ix_(rows, columns)] = filled
    return result.tocsr()


def _plate_energy(vertices: np.ndarray, faces: np.ndarray) -> sparse.csr_matrix:
    """Return the quadratic form (V, V) of the squared Laplacian of the faces, pressed flat along their mean normal."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a).sum(axis=0)
    normal /= np.linalg.norm(normal)
    flat = vertices - np.outer(vertices @ normal, normal)
    count = len(vertices)
    mass, rows, columns, values = np.zeros(count), [], [], []
    for k in range(3):
        apex, one, two = faces[:, k], faces[:, (k + 1) % 3], faces[:, (k + 2) % 3]
        u, v = flat[one] - flat[apex], flat[two] - flat[apex]
        doubled = np.maximum(np.linalg.norm(np.cross(u, v), axis=1), 1e-6)
        np.add.at(mass, apex, doubled / 6.0)
        # half the cotangent of the angle at the apex; where the base overhangs, a small positive number
        weight = np.maximum(0.5 * (u * v).sum(axis=1) / doubled, 1e-3)
        rows += [one, two, one, two]
        columns += [two, one, one, two]
        values += [-weight, -weight, weight, weight]
    shape = (count, count)
    stiffness = sparse.coo_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape)
    return (stiffness.T @ sparse.diags(1.0 / np.maximum(mass, 1e-12)) @ stiffness).tocsr()
