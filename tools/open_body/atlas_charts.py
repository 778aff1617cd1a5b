"""Cut a part out of the body as a disc whose rim has four corners."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from .atlas_mesh import Edge, edges_of


@dataclass(frozen=True)
class Chart:
    """A disc.

    Attributes:
        faces: (F, 3) triangles over the chart's own vertices, counter-clockwise.
        vertices: (N,) the model vertex of each.
        rim: (n,) the boundary, counter-clockwise, from the corner at (0, 0).
        corners: positions in `rim` of the corners at (0, 0), (1, 0), (1, 1), (0, 1); the first is 0.
    """

    faces: np.ndarray
    vertices: np.ndarray
    rim: np.ndarray
    corners: tuple[int, ...]

    @classmethod
    def cut_out(cls, faces: np.ndarray, cuts: frozenset[Edge], corners: tuple[int, ...]) -> Chart:
        """Return the chart of model faces (F, 3), open along `cuts`.

        Args:
            faces: model vertices.
            cuts: edges along which it is open.
            corners: model vertices at (0, 0), (1, 0), (1, 1), (0, 1) or, if the rim has them only in the reverse order,
                at (1, 0), (0, 0), (0, 1), (1, 1). A vertex on both sides of a cut may be named twice.

        Raises:
            ValueError: the faces make no disc, or its rim lacks the corners.
        """
        local, vertices = _split(faces, cuts)
        rim = _rim(local)
        names = vertices[rim].tolist()
        places = [k for k, name in enumerate(names) if name in corners]
        a, b, c, d = corners
        for wanted in ([a, b, c, d], [b, a, d, c]):
            for turn in range(len(places)):
                turned = places[turn:] + places[:turn]
                if [names[k] for k in turned] == wanted:
                    start = turned[0]
                    return cls(local, vertices, np.roll(rim, -start), tuple((k - start) % len(rim) for k in turned))
        raise ValueError(f"corners: expected {corners} on the rim, got {[names[k] for k in places]}")

    def lids(self) -> list[int]:
        """Return the faces that hang on the rest by an edge with both ends on one side of the square."""
        rank = {int(vertex): k for k, vertex in enumerate(self.rim)}
        ends = (*self.corners, len(self.rim))
        at = defaultdict(list)
        for face, corners in enumerate(self.faces.tolist()):
            for edge in edges_of(corners):
                at[edge].append(face)
        inner = {edge: pair for edge, pair in at.items() if len(pair) == 2}
        found: set[int] = set()
        for edge in inner:
            if edge[0] not in rank or edge[1] not in rank:
                continue
            low, high = sorted(rank[v] for v in edge)
            # the first corner also ends the fourth side
            if any(ends[k] <= low and high <= ends[k + 1] for k in range(4)) or (low == 0 and high >= ends[3]):
                found |= self._beyond(edge, inner)
        return sorted(found)

    def _beyond(self, edge: Edge, inner: dict[Edge, list[int]]) -> set[int]:
        """Return the smaller piece that cutting along an edge leaves."""
        joined = np.array([pair for other, pair in inner.items() if other != edge]).reshape(-1, 2)
        graph = sparse.csr_matrix((np.ones(len(joined)), joined.T), shape=(len(self.faces),) * 2)
        _, label = connected_components(graph, directed=False)
        return set(np.flatnonzero(label == np.argmin(np.bincount(label))).tolist())


def _split(faces: np.ndarray, cuts: frozenset[Edge]) -> tuple[np.ndarray, np.ndarray]:
    """Return faces over new vertices, one for each fan of faces that no cut or rim interrupts, and the old vertices."""
    at = defaultdict(list)
    for face, corners in enumerate(faces.tolist()):
        for edge in edges_of(corners):
            at[edge].append(face)
    joined = []
    for edge, pair in at.items():
        if len(pair) == 2 and edge not in cuts:
            for vertex in edge:
                joined.append([3 * face + faces[face].tolist().index(vertex) for face in pair])
    pairs = np.array(joined).reshape(-1, 2)
    graph = sparse.csr_matrix((np.ones(len(pairs)), pairs.T), shape=(faces.size,) * 2)
    _, label = connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)
    return label.reshape(-1, 3), faces.ravel()[first]


def _rim(faces: np.ndarray) -> np.ndarray:
    """Return the boundary vertices of a disc in order, counter-clockwise."""
    edges = {(corners[k], corners[(k + 1) % 3]) for corners in faces.tolist() for k in range(3)}
    follows = {a: b for a, b in edges if (b, a) not in edges}
    around, inside = len(follows), (len(edges) - len(follows)) // 2
    if not follows or len(np.unique(faces)) - around - inside + len(faces) != 1:
        raise ValueError("faces: expected a disc, got another shape")
    rim = [min(follows)]
    while follows[rim[-1]] != rim[0] and len(rim) < around:
        rim.append(follows[rim[-1]])
    if len(rim) != around:
        raise ValueError("faces: expected one rim, got more")
    return np.array(rim)
