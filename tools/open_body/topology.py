"""Turn the MakeHuman quads into one closed triangle mesh without mouth and eye cavities.

The body group is already closed and of genus 0: eyes and mouth are bags that go inwards. Each bag is cut off along an
edge loop at the lid or lip margin, and the upper half of the loop is merged with the lower half, vertex by vertex, at
the mean position. Every new vertex is thus a mean of old ones: the step is a linear map, the same for all bodies.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from .makehuman import BODY_VERTICES, MakeHuman
from .smoothing import smoothing

EYE_LOOP = (13353, 13358)
"""First two vertices of the edge loop round the left lid margin (28 vertices)."""
EYE_FOLD = 12
"""Loop positions that add up to this (modulo the length) meet when the lids close."""
MOUTH_LOOP = (474, 7229)
"""First two vertices of the edge loop round the lip margin (38), from the middle of the upper lip leftwards."""
MOUTH_FOLD = 19
"""As EYE_FOLD: the middle of the upper lip, position 0, meets that of the lower lip, position 19."""
EYE_BAG_SEED = 11915
"""A vertex at the bottom of the left eye bag."""
MOUTH_BAG_SEED = 537
"""A vertex inside the mouth, on the midline."""


@dataclass(frozen=True)
class ClosedMesh:
    """The final topology.

    Attributes:
        merge: (V, 19158) sparse means, rows sum to 1: what MakeHuman's vertices carry (weights, marks) goes through it.
        place: (V, 19158) sparse: final vertices = place @ MakeHuman vertices, smoothed where detail is unwanted.
        faces: (F, 3), counter-clockwise seen from outside; the left half first, then its reflection.
        mirror: (V,) vertex that is the reflection of each vertex.
    """

    merge: sparse.csr_matrix
    place: sparse.csr_matrix
    faces: np.ndarray
    mirror: np.ndarray


def closed_mesh(source: MakeHuman) -> ClosedMesh:
    """Remove the bags, zip their openings and triangulate the quads symmetrically."""
    quads, mirror = source.quads, source.mirror
    eye = _edge_loop(quads, *EYE_LOOP)
    mouth = _edge_loop(quads, *MOUTH_LOOP)
    bag = _enclosed(quads, eye, EYE_BAG_SEED) | _enclosed(quads, mouth, MOUTH_BAG_SEED)
    bag |= set(mirror[sorted(bag)].tolist())
    kept = quads[[not any(corner in bag for corner in quad) for quad in quads.tolist()]]

    representative = np.arange(len(source.vertices))
    for kept_one, merged_one in _fold(eye, EYE_FOLD) + _fold(mouth, MOUTH_FOLD):
        if source.vertices[kept_one, 0] >= 0:
            representative[merged_one] = kept_one
            representative[mirror[merged_one]] = mirror[kept_one]

    left = kept[source.vertices[kept].mean(axis=1)[:, 0] > 0]
    triangles = _split_quads(left, source.vertices)
    triangles = np.concatenate([triangles, mirror[triangles][:, [0, 2, 1]]])
    merged = representative[triangles]
    whole = (merged != np.roll(merged, 1, axis=1)).all(axis=1)
    triangles, merged = triangles[whole], merged[whole]
    used, faces = np.unique(merged, return_inverse=True)
    faces = faces.reshape(-1, 3)

    old = np.flatnonzero(np.isin(representative, used) & np.isin(np.arange(len(representative)), np.unique(triangles)))
    new = np.searchsorted(used, representative[old])
    merge = sparse.csr_matrix((np.ones(len(old)), (new, old)), shape=(len(used), len(source.vertices)))
    merge = sparse.diags(1.0 / np.asarray(merge.sum(axis=1)).ravel()) @ merge
    new_of_old = np.full(len(source.vertices), -1)
    new_of_old[old] = new
    merge, reflection = merge.tocsr(), new_of_old[mirror[used]]
    return ClosedMesh(merge, smoothing(source, merge, faces, reflection) @ merge, faces, reflection)


def lid_margin(source: MakeHuman) -> list[int]:
    """Return the MakeHuman vertices along the margin of the left lids."""
    return _edge_loop(source.quads, *EYE_LOOP)


def _edge_loop(quads: np.ndarray, first: int, second: int) -> list[int]:
    """Follow the edge loop that starts with the edge (first, second), straight across 4-valent vertices."""
    around = defaultdict(set)
    faces_at = defaultdict(list)
    for quad in quads.tolist():
        for k in range(4):
            around[quad[k]].add(quad[(k + 1) % 4])
            around[quad[(k + 1) % 4]].add(quad[k])
            faces_at[quad[k]].append(quad)
    loop = [first, second]
    while True:
        before, here = loop[-2:]
        beside = {corner for quad in faces_at[here] if before in quad for corner in quad}
        (onward,) = around[here] - beside
        if onward == first:
            return loop
        loop.append(onward)


def _enclosed(quads: np.ndarray, loop: list[int], seed: int) -> set[int]:
    """Return the vertices reached from `seed` over edges without crossing `loop`."""
    around = defaultdict(set)
    for quad in quads.tolist():
        for k in range(4):
            around[quad[k]].add(quad[(k + 1) % 4])
            around[quad[(k + 1) % 4]].add(quad[k])
    barrier, reached, front = set(loop), {int(seed)}, [int(seed)]
    while front:
        front = [
            n for here in front for n in around[here] if n not in barrier and n not in reached and not reached.add(n)
        ]
    if len(reached) > BODY_VERTICES // 4:
        raise ValueError("loop: expected one that encloses a bag, got one that lets the search reach the whole body")
    return reached


def _fold(loop: list[int], total: int) -> list[tuple[int, int]]:
    """Pair the vertices of a loop whose positions add up to `total` modulo its length; fixed positions are left out."""
    partner = [(total - k) % len(loop) for k in range(len(loop))]
    return [(loop[k], loop[partner[k]]) for k in range(len(loop)) if k < partner[k]]


def _split_quads(quads: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Split each quad along its shorter diagonal."""
    corners = vertices[quads]
    first = np.linalg.norm(corners[:, 0] - corners[:, 2], axis=1)
    second = np.linalg.norm(corners[:, 1] - corners[:, 3], axis=1)
    rolled = np.where((first <= second)[:, None], quads, np.roll(quads, -1, axis=1))
    return np.concatenate([rolled[:, [0, 1, 2]], rolled[:, [0, 2, 3]]])
