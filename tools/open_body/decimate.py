"""Decimate the body symmetrically by half-edge collapses: the vertices left are a subset of the full body's.

Only the left half, with the midline as its boundary, is decimated; the right half is its reflection. A midline vertex
moves only along the midline, so that both halves still meet there.
"""

from __future__ import annotations

import heapq

import numpy as np

FLAT = 0.2
"""A collapse may not turn a face's normal by more than the angle with this cosine."""


def decimate(
    vertices: np.ndarray,
    faces: np.ndarray,
    mirror: np.ndarray,
    weights: np.ndarray,
    importance: np.ndarray,
    keep: set[int],
    count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the kept vertex ids (sorted) and the faces between them, in the ids of the full mesh.

    Args:
        vertices: (V, 3) metres; `mirror`: (V,).
        faces: (F, 3), the left half first; x does not tell the sides apart where thighs touch.
        weights: (V, J) skin weights; vertices across which they change stay longer.
        importance: (V,) factor of the error, larger where detail matters.
        keep: vertices that must stay, on both sides.
        count: number of vertices wanted.
    """
    middle = mirror == np.arange(len(mirror))
    half = _Half(vertices, faces[: len(faces) // 2], middle, weights, importance, keep | {int(mirror[k]) for k in keep})
    half.collapse_to(count)
    kept = np.array(sorted(half.face_of.values()))
    both = np.concatenate([kept, mirror[kept][:, [0, 2, 1]]])
    return np.unique(both), both


class _Half:
    def __init__(self, vertices, faces, middle, weights, importance, keep):
        self.vertices, self.middle, self.weights = vertices, middle, weights
        self.importance, self.keep = importance, keep
        self.face_of = {k: tuple(face) for k, face in enumerate(faces.tolist())}
        self.faces_at: dict[int, set[int]] = {}
        for k, face in self.face_of.items():
            for corner in face:
                self.faces_at.setdefault(corner, set()).add(k)
        self.alive = np.zeros(len(vertices), dtype=bool)
        self.alive[list(self.faces_at)] = True
        self.quadrics = self._face_quadrics(faces)
        self.stamp = dict.fromkeys(self.faces_at, 0)

    def _face_quadrics(self, faces: np.ndarray) -> np.ndarray:
        a, b, c = (self.vertices[faces[:, k]] for k in range(3))
        normal = np.cross(b - a, c - a)
        area = np.linalg.norm(normal, axis=1, keepdims=True)
        normal = normal / np.maximum(area, 1e-12)
        plane = np.concatenate([normal, -(normal * a).sum(axis=1, keepdims=True)], axis=1)
        quadric = np.einsum("fi,fj->fij", plane, plane) * area[:, :, None]
        total = np.zeros((len(self.vertices), 4, 4))
        for k in range(3):
            np.add.at(total, faces[:, k], quadric)
        # the other half meets the midline with reflected planes
        flip = np.diag([-1.0, 1.0, 1.0, 1.0])
        total[self.middle] += flip @ total[self.middle] @ flip
        return total

    def neighbours(self, vertex: int) -> set[int]:
        return {corner for k in self.faces_at[vertex] for corner in self.face_of[k]} - {vertex}

    def cost(self, gone: int, stays: int) -> float:
        point = np.append(self.vertices[stays], 1.0)
        flatness = point @ (self.quadrics[gone] + self.quadrics[stays]) @ point
        edge = self.vertices[gone] - self.vertices[stays]
        bend = self.weights[gone] - self.weights[stays]
        length = edge @ edge
        # the small terms spread the vertices evenly over flat regions and keep rings where limbs bend
        return self.importance[gone] * (flatness + length * length * (3e-4 + 3e-2 * (bend @ bend)))

    def allowed(self, gone: int, stays: int) -> bool:
        if self.middle[gone] and not self.middle[stays]:
            return False
        around_gone, around_stays = self.neighbours(gone), self.neighbours(stays)
        shared_faces = self.faces_at[gone] & self.faces_at[stays]
        along_midline = bool(self.middle[gone])
        if len(shared_faces) != (1 if along_midline else 2):
            return False
        if len(around_gone & around_stays) != len(shared_faces):
            return False
        if not along_midline and self.middle[stays]:
            # no face edge may join two midline vertices across the inside of the half
            if any(self.middle[k] and len(self.faces_at[k] & self.faces_at[stays]) != 1 for k in around_gone - {stays}):
                return False
        if len(self.faces_at[stays] | self.faces_at[gone]) - 2 < 3:
            return False
        for k in self.faces_at[gone] - shared_faces:
            before = self.vertices[list(self.face_of[k])]
            after = self.vertices[[stays if corner == gone else corner for corner in self.face_of[k]]]
            old, new = (np.cross(t[1] - t[0], t[2] - t[0]) for t in (before, after))
            size = np.sqrt((old @ old) * (new @ new))
            longest = max(((after[i] - after[i - 1]) ** 2).sum() for i in range(3))
            if old @ new < FLAT * size or np.sqrt(new @ new) < 0.06 * longest:
                return False
        return True

    def push(self, heap: list, vertex: int) -> None:
        """Queue the collapses of `vertex` onto its neighbours."""
        if vertex in self.keep:
            return
        for other in self.neighbours(vertex):
            entry = (self.cost(vertex, other), vertex, other, self.stamp[vertex], self.stamp[other])
            heapq.heappush(heap, entry)

    def collapse_to(self, count: int) -> None:
        """Collapse the cheapest edges until the whole body has `count` vertices."""
        heap: list = []
        for vertex in sorted(self.faces_at):
            self.push(heap, vertex)
        own = int(np.count_nonzero(self.alive & self.middle))
        whole = 2 * int(np.count_nonzero(self.alive)) - own
        while heap and whole > count:
            _, gone, stays, stamp_gone, stamp_stays = heapq.heappop(heap)
            if not (self.alive[gone] and self.alive[stays]):
                continue
            if (self.stamp[gone], self.stamp[stays]) != (stamp_gone, stamp_stays) or not self.allowed(gone, stays):
                continue
            whole -= 1 if self.middle[gone] else 2
            touched = self.neighbours(gone) | {stays}
            for k in list(self.faces_at[gone]):
                face = self.face_of[k]
                if stays in face:
                    for corner in face:
                        self.faces_at[corner].discard(k)
                    del self.face_of[k]
                else:
                    self.face_of[k] = tuple(stays if corner == gone else corner for corner in face)
                    self.faces_at[stays].add(k)
            self.alive[gone] = False
            del self.faces_at[gone]
            self.quadrics[stays] += self.quadrics[gone]
            for vertex in touched:
                self.stamp[vertex] += 1
            for vertex in sorted(touched | {n for v in touched for n in self.neighbours(v)}):
                self.push(heap, vertex)
