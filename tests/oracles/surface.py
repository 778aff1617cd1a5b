"""Nearest points of triangles in the plane, one at a time."""

import numpy as np


def closest_on_segment(point, start, end):
    """Return the point of a segment closest to `point`."""
    along = end - start
    length = along @ along
    share = 0.0 if length == 0 else min(max((point - start) @ along / length, 0.0), 1.0)
    return start + share * along


def closest_in_triangle(point, triangle):
    """Return the point of a triangle (3, 2), of either orientation, closest to `point`."""
    turns = []
    for k in range(3):
        a, b = triangle[k], triangle[(k + 1) % 3]
        turns.append((b[0] - a[0]) * (point[1] - a[1]) - (b[1] - a[1]) * (point[0] - a[0]))
    if all(turn > 0 for turn in turns) or all(turn < 0 for turn in turns):
        return point
    found = [closest_on_segment(point, triangle[k], triangle[(k + 1) % 3]) for k in range(3)]
    return min(found, key=lambda candidate: np.linalg.norm(candidate - point))


def least_distance(point, triangles):
    """Return the distance of `point` to the nearest of triangles (n, 3, 2)."""
    return min(np.linalg.norm(closest_in_triangle(point, triangle) - point) for triangle in triangles)
