"""The built-in body's mesh with what dividing it into charts needs: edges, fans, reflections, shortest ways."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components, dijkstra

Edge = tuple[int, int]


@dataclass(frozen=True)
class Mesh:
    """A closed mesh that is its own reflection.

    Attributes:
        points: (V, 3) T-posed mean body; `faces`: (F, 3) counter-clockwise; `mirror`: (V,) reflected vertices.
        weights: (V, 24) skin weights; `ids`: named vertices.
    """

    points: np.ndarray
    faces: np.ndarray
    mirror: np.ndarray
    weights: np.ndarray
    ids: dict[str, int]

    @cached_property
    def edges(self) -> dict[Edge, tuple[int, int]]:
        """The two faces at each edge (a, b), a < b."""
        found: dict[Edge, list[int]] = defaultdict(list)
        for face, corners in enumerate(self.faces.tolist()):
            for edge in edges_of(corners):
                found[edge].append(face)
        return {edge: (faces[0], faces[1]) for edge, faces in found.items()}

    @cached_property
    def fans(self) -> list[list[int]]:
        """The faces round each vertex."""
        found: list[list[int]] = [[] for _ in self.points]
        for face, corners in enumerate(self.faces.tolist()):
            for corner in corners:
                found[corner].append(face)
        return found

    @cached_property
    def left(self) -> np.ndarray:
        """(F,) whether a face lies on the subject's left; no face crosses the middle."""
        return self.points[self.faces].mean(axis=1)[:, 0] > 0

    @cached_property
    def middle(self) -> np.ndarray:
        """The vertices that are their own reflections."""
        return np.flatnonzero(self.mirror == np.arange(len(self.mirror)))

    @cached_property
    def mirror_face(self) -> np.ndarray:
        """(F,) the reflection of each face."""
        place = {tuple(sorted(corners)): face for face, corners in enumerate(self.faces.tolist())}
        return np.array([place[tuple(sorted(corners))] for corners in self.mirror[self.faces].tolist()])

    def way(self, edges: list[Edge], *stops: int) -> list[int]:
        """Return the shortest way from stop to stop over `edges`, as vertices."""
        a, b = np.array(edges).T
        length = np.linalg.norm(self.points[a] - self.points[b], axis=1)
        graph = sparse.csr_matrix((length, (a, b)), shape=(len(self.points),) * 2)
        _, before = dijkstra(graph, directed=False, indices=stops[1], return_predecessors=True)
        way = [stops[0]]
        while way[-1] != stops[1]:
            way.append(int(before[way[-1]]))
            if way[-1] < 0:
                raise ValueError(f"stops: expected a way from {stops[0]} to {stops[1]}, got none")
        return way

    def pieces(self, faces: np.ndarray, seams: set[Edge]) -> list[np.ndarray]:
        """Return the groups of faces (ids) that remain when `faces` are cut along `seams`."""
        place = {face: k for k, face in enumerate(faces.tolist())}
        joined = [
            (place[f], place[g])
            for edge, (f, g) in self.edges.items()
            if f in place and g in place and edge not in seams
        ]
        graph = sparse.csr_matrix((np.ones(len(joined)), np.array(joined).T), shape=(len(faces),) * 2)
        count, label = connected_components(graph, directed=False)
        return [faces[label == k] for k in range(count)]


def edges_of(corners: list[int]) -> list[Edge]:
    """Return a triangle's edges (a, b), a < b."""
    a, b, c = corners
    return [(min(a, b), max(a, b)), (min(b, c), max(b, c)), (min(c, a), max(c, a))]


def edges_along(way: list[int]) -> set[Edge]:
    """Return the edges (a, b), a < b, of a way."""
    return {(min(a, b), max(a, b)) for a, b in zip(way[:-1], way[1:], strict=True)}
