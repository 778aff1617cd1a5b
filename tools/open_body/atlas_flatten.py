"""Lay a disc flat on the unit square without folds and with little stretch.

A convex-combination map with a convex boundary is one-to-one whatever its positive weights are (Tutte 1963; Floater
1997), if no triangle has all its corners on one side. Mean-value weights start (Floater 2003); dividing them by the
local stretch, again and again, evens the stretch out and keeps them positive (Yoshizawa, Belyaev and Seidel 2004).
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from .atlas_charts import Chart

ROUNDS = 60
GIVE_UP = 1.5
"""The stretch falls fast, then creeps up again; past this multiple of the least the rounds are not worth going on."""
SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def flatten(chart: Chart, points: np.ndarray) -> np.ndarray:
    """Return the (U, V) of the chart's vertices (N, 2), that of least stretch among the rounds.

    Args:
        chart: the disc.
        points: (V, 3) the model's vertices.
    """
    points = points[chart.vertices]
    places = _rim_places(chart, points)
    weights = _mean_value_weights(points, chart.faces)
    uv = _convex_combination(weights, chart.rim, places)
    best, least = uv, np.inf
    for _ in range(ROUNDS):
        local, total = _stretch(points, chart.faces, uv)
        if total < least:
            best, least = uv, total
        elif total > GIVE_UP * least:
            break
        weights = weights @ sparse.diags(1.0 / local)
        # only the ratios within a row count; this keeps the numbers in range
        weights = sparse.diags(1.0 / np.asarray(weights.sum(axis=1)).ravel()) @ weights
        uv = _convex_combination(weights, chart.rim, places)
    return best


def signed_areas(faces: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Return twice the areas (F,) of triangles in the plane, negative where they are turned over."""
    a, b = uv[faces[:, 1]] - uv[faces[:, 0]], uv[faces[:, 2]] - uv[faces[:, 0]]
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _rim_places(chart: Chart, points: np.ndarray) -> np.ndarray:
    """Lay each side of the rim along its side of the square, by length."""
    count = len(chart.rim)
    places = np.zeros((count, 2))
    for k in range(4):
        side = np.arange(chart.corners[k], (*chart.corners, count)[k + 1] + 1)
        steps = np.linalg.norm(np.diff(points[chart.rim[side % count]], axis=0), axis=1)
        along = np.concatenate([[0.0], np.cumsum(steps) / steps.sum()])[:-1, None]
        places[side[:-1]] = (1.0 - along) * SQUARE[k] + along * SQUARE[(k + 1) % 4]
    return places


def _mean_value_weights(points: np.ndarray, faces: np.ndarray) -> sparse.csr_matrix:
    rows, columns, values = [], [], []
    for turn in range(3):
        here, one, other = np.roll(faces, -turn, axis=1).T
        a, b = points[one] - points[here], points[other] - points[here]
        half = 0.5 * np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), (a * b).sum(axis=1))
        for neighbour, edge in ((one, a), (other, b)):
            rows.append(here)
            columns.append(neighbour)
            values.append(np.tan(half) / np.linalg.norm(edge, axis=1))
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_matrix(entries, shape=(len(points),) * 2)


def _convex_combination(weights: sparse.csr_matrix, rim: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Put every inner vertex at the weighted mean of its neighbours."""
    inner = np.setdiff1d(np.arange(weights.shape[0]), rim)
    uv = np.zeros((weights.shape[0], 2))
    uv[rim] = places
    if len(inner):
        rows = weights.tocsr()[inner]
        matrix = sparse.diags(np.asarray(rows.sum(axis=1)).ravel()) - rows[:, inner]
        uv[inner] = spsolve(matrix.tocsc(), rows[:, rim] @ places).reshape(-1, 2)
    return uv


def _stretch(points: np.ndarray, faces: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the root mean square stretch round each vertex, and that of the whole (Sander et al. 2001)."""
    corners, plane = points[faces], uv[faces]
    one, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    a, b = plane[:, 1] - plane[:, 0], plane[:, 2] - plane[:, 0]
    twice = signed_areas(faces, uv)[:, None]
    along_u = (one * b[:, 1:] - other * a[:, 1:]) / twice
    along_v = (other * a[:, :1] - one * b[:, :1]) / twice
    squared = 0.5 * ((along_u**2).sum(axis=1) + (along_v**2).sum(axis=1))
    area = 0.5 * np.linalg.norm(np.cross(one, other), axis=1)
    whole = np.bincount(faces.ravel(), np.repeat(area, 3), len(points))
    local = np.bincount(faces.ravel(), np.repeat(area * squared, 3), len(points)) / whole
    return np.sqrt(local), float(np.sqrt((area * squared).sum() / area.sum()))
