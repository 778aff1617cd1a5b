"""Divide the built-in body into DensePose's 24 parts, and say where each is cut open and where its corners are.

Skin weights separate head, torso and limbs. Shortest ways over the surface separate the halves: front and back of the
torso (neck to shoulder, armpit to hip, through the crotch) and of the legs, inside (the palm's side) and outside of
the arms; the head is halved in the middle. Hands and feet are single parts, cut open from the wrist's thumb side to
the tip of the index finger, and from the heel's side of the ankle to the big toe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from physique.bodymodel import surface_parts

from .atlas_mesh import Edge, Mesh, edges_along

MIRROR_PART = np.array(surface_parts.MIRROR_PART)
TORSO_BACK, TORSO_FRONT, LEFT_HAND, LEFT_FOOT, LEFT_HEAD = 1, 2, 4, 5, 24

SEGMENT_JOINTS = {
    "head": (12, 15),
    "upper_arm": (16, 18, 20, 22),
    "forearm": (18, 20, 22),
    "hand": (20, 22),
    "thigh": (1, 4, 7, 10),
    "shank": (4, 7, 10),
    "foot": (7, 10),
}
"""A vertex is on a segment, or beyond it, where the weights of these joints exceed one half."""

LIMBS = {
    "upper_arm": ("torso", "forearm", (15, 17)),
    "forearm": ("upper_arm", "hand", (19, 21)),
    "thigh": ("torso", "shank", (8, 10)),
    "shank": ("thigh", "foot", (12, 14)),
}
"""The segments above and below, and the left parts: inside and outside of the arm, back and front of the leg."""

_X, _Y, _Z = np.eye(3)


@dataclass(frozen=True)
class Layout:
    """Where each face belongs and how charts are opened.

    Attributes:
        part: (F,) 1 to 24.
        cuts: edges inside a part along which its chart is open.
        corners: for the torso's and each left part the vertices at (0, 0), (1, 0), (1, 1), (0, 1) of its square, in
            this order or, where the rim runs the other way round, at (1, 0), (0, 0), (0, 1), (1, 1).
    """

    part: np.ndarray
    cuts: frozenset[Edge]
    corners: dict[int, tuple[int, int, int, int]]


def divide(mesh: Mesh) -> Layout:
    """Return the parts of the body, the same on both sides."""
    segments = _Segments(mesh)
    part = np.zeros(len(mesh.faces), dtype=np.int64)
    corners, cuts = {}, set()
    for name, (above, below, halves) in LIMBS.items():
        across, order = (_Z, 1) if "arm" in name else (_X, 2)
        (high, low), (high_other, low_other) = (
            (segments.gate(name, above, sign * across), segments.gate(name, below, sign * across)) for sign in (1, -1)
        )
        seams = edges_along(segments.way(name, high, low)) | edges_along(segments.way(name, high_other, low_other))
        for number, piece in zip(halves, _halves(mesh, segments.faces(name), seams, order), strict=True):
            part[piece] = number
            corners[number] = (low_other, low, high, high_other)
    for name, number, rim, start, end in (
        ("hand", LEFT_HAND, "forearm", _Z, "left_index"),
        ("foot", LEFT_FOOT, "shank", -_Z, "left_big_toe"),
    ):
        part[segments.faces(name)] = number
        way = segments.way(name, segments.gate(name, rim, start), mesh.ids[end])
        cuts |= edges_along(way)
        turn = way[2 * len(way) // 5]
        corners[number] = (way[0], way[0], turn, turn)
    part[segments.faces("head")] = LEFT_HEAD
    corners[LEFT_HEAD] = segments.head_corners()
    part[~mesh.left] = MIRROR_PART[part[mesh.mirror_face[~mesh.left]]]

    shoulder, armpit = (segments.gate("torso", "upper_arm", sign * _Y) for sign in (1, -1))
    hip, groin = (segments.gate("torso", "thigh", sign * _X) for sign in (1, -1))
    seams = set()
    for start, end in (
        (segments.gate("torso", "head", _X), shoulder),
        (armpit, hip),
        (groin, mesh.ids["crotch"]),
    ):
        way = segments.way("torso", start, end)
        seams |= edges_along(way) | edges_along([int(mesh.mirror[v]) for v in way])
    back, front = _halves(mesh, segments.faces("torso"), seams, 2)
    part[back], part[front] = TORSO_BACK, TORSO_FRONT
    right_hip, right_shoulder = int(mesh.mirror[hip]), int(mesh.mirror[shoulder])
    corners[TORSO_FRONT] = (right_hip, hip, shoulder, right_shoulder)
    corners[TORSO_BACK] = (hip, right_hip, right_shoulder, shoulder)
    return Layout(part, frozenset(cuts), corners)


def _halves(mesh: Mesh, faces: np.ndarray, seams: set[Edge], axis: int) -> list[np.ndarray]:
    """Return the two pieces of `faces` that seams separate, lower along `axis` first."""
    pieces = mesh.pieces(faces, seams)
    if len(pieces) != 2:
        raise ValueError(f"seams: expected two halves, got {len(pieces)} pieces")
    return sorted(pieces, key=lambda piece: mesh.points[mesh.faces[piece], axis].mean())


class _Segments:
    """Head, torso and limbs, before they are halved; those of the right limbs are called "right"."""

    def __init__(self, mesh: Mesh):
        self.mesh = mesh
        self.names = np.full(len(mesh.faces), "torso", dtype=object)
        for name, joints in SEGMENT_JOINTS.items():
            # whole quads only: a triangle with two corners inside would make a sawtooth of the rim
            inside = (mesh.weights[:, joints].sum(axis=1) > 0.5)[mesh.faces].all(axis=1)
            if name == "head":
                self.names[inside] = name
            else:
                self.names[inside & mesh.left] = name
                self.names[mesh.mirror_face[inside & mesh.left]] = "right"
        self.rim = {v for e, (f, g) in mesh.edges.items() if self.names[f] != self.names[g] for v in e}

    def faces(self, name: str) -> np.ndarray:
        return np.flatnonzero(self.names == name)

    def gate(self, name: str, neighbour: str, direction: np.ndarray) -> int:
        """Return the vertex farthest in `direction` on the left rim to a neighbour that an edge joins to the inside."""
        mesh = self.mesh
        shared = {
            v
            for e, (f, g) in mesh.edges.items()
            if {self.names[f], self.names[g]} == {name, neighbour} and (mesh.left[f] or mesh.left[g])
            for v in e
        }
        inward = {v for e in self._inner(name) if sum(w in self.rim for w in e) == 1 for v in e}
        able = sorted(shared & inward)
        return able[int(np.argmax(mesh.points[able] @ direction))]

    def way(self, name: str, start: int, end: int) -> list[int]:
        """Return the shortest way through the segment; it meets the rim at its ends only."""
        allowed = [e for e in self._inner(name) if all(v in (start, end) or v not in self.rim for v in e)]
        return self.mesh.way(allowed, start, end)

    def head_corners(self) -> tuple[int, int, int, int]:
        """Return throat, nape, back and front of the head, all on the midline."""
        points, middle = self.mesh.points, self.mesh.middle
        head = np.intersect1d(middle, self.mesh.faces[self.faces("head")])
        neck = np.intersect1d(head, sorted(self.rim))
        throat, nape = neck[np.argmax(points[neck] @ _Z)], neck[np.argmin(points[neck] @ _Z)]
        back, front = head[np.argmax(points[head] @ (_Y - _Z))], head[np.argmax(points[head] @ (_Y + _Z))]
        return int(throat), int(nape), int(back), int(front)

    def _inner(self, name: str) -> list[Edge]:
        names, left = self.names, self.mesh.left
        return [e for e, (f, g) in self.mesh.edges.items() if names[f] == name == names[g] and (left[f] or left[g])]
