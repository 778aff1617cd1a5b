"""Find the triangle of a chart that contains, or comes nearest to, a point of the plane: exact, on a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# Pairs of a point and a triangle that are looked at together: what fits the cache, and is too little for PyTorch to
# start threads, which wait for each other for seconds where others use the cores.
_PAIRS_AT_ONCE = 1 << 15


class Grid(NamedTuple):
    """The triangles that matter in each cell of each chart's unit square.

    Attributes:
        triangles: (A, 3, 2) all triangles.
        planes: (9, A) the same, turned counter-clockwise, as the search wants them.
        resolution: (P,) cells along a side, for each of P charts; 0 for a chart without triangles.
        first_cell: (P,) index of each chart's first cell; cells follow row by row, v first.
        start: (C + 1,) where each cell's list begins in `listed`.
        listed: (L,) triangle indices.
    """

    triangles: Tensor
    planes: Tensor
    resolution: Tensor
    first_cell: Tensor
    start: Tensor
    listed: Tensor

    def to(self, like: Tensor) -> Grid:
        """Return the grid on the device of `like`, its triangles in the type of `like`."""
        others = (part.to(like.device) for part in self[2:])
        return Grid(self.triangles.to(like), self.planes.to(like), *others)


def build_grid(chart: np.ndarray, triangles: np.ndarray, charts: int) -> Grid:
    """Return the grid over triangles in the unit square.

    A cell lists a triangle if it can be the nearest one to some point of the cell. With r the half diagonal, such a
    triangle lies within 2 r + the least distance of the cell's centre. The grid is refined by halving: what a cell
    lists is among what its parent lists, so each step looks at few pairs.

    Args:
        chart: (A,) chart of each triangle, 0 to charts - 1.
        triangles: (A, 3, 2) corners.
        charts: number of charts.
    """
    corners = torch.from_numpy(np.array(triangles, dtype=np.float64))
    a, b, c = corners.unbind(1)
    turned = (b - a)[:, 0] * (c - a)[:, 1] < (b - a)[:, 1] * (c - a)[:, 0]
    planes = _planes(torch.where(turned[:, None, None], corners.flip(1), corners))
    own = [torch.from_numpy(np.flatnonzero(chart == number)) for number in range(charts)]
    none = torch.zeros(0, dtype=torch.int64)
    done = [(0, none, none)] * charts
    left = [number for number in range(charts) if len(own[number])]
    side, count, listed = 1, torch.tensor([len(own[number]) for number in left]), torch.cat([none, *own])
    while left:
        # charts are refined together: a few large steps, not many small ones
        counts = count.split(side * side)
        lists = listed.split([int(one.sum()) for one in counts])
        for number, one, entries in zip(left, counts, lists, strict=True):
            done[number] = (side, one, entries)
        left = [number for number in left if side * side < len(own[number])]
        count = torch.cat([none, *(done[number][1] for number in left)])
        listed = torch.cat([none, *(done[number][2] for number in left)])
        side, count, listed = _refine(planes, side, count, listed)
    sides = torch.tensor([one for one, _, _ in done])
    zero = torch.zeros(1, dtype=torch.int64)
    return Grid(
        corners,
        planes,
        sides,
        torch.cat([zero, (sides * sides).cumsum(0)[:-1]]),
        torch.cat([zero, torch.cat([count for _, count, _ in done]).cumsum(0)]),
        torch.cat([entries for _, _, entries in done]),
    )


def nearest_triangle(grid: Grid, chart: Tensor, points: Tensor) -> Tensor:
    """Return the index (n,) of the triangle of `chart` (n,) nearest to each of `points` (n, 2) in the unit square.

    Any of the nearest where several are: on a common edge or corner.
    """
    side = grid.resolution[chart]
    column, row = ((points[:, k] * side).long().minimum(side - 1) for k in (0, 1))
    cell = grid.first_cell[chart] + row * side + column
    first, count = grid.start[cell], grid.start[cell + 1] - grid.start[cell]
    found = torch.empty_like(chart)
    begin = 0
    until = count.cumsum(0)
    while begin < len(chart):
        before = until[begin - 1] if begin else until.new_zeros(())
        end = max(begin + 1, int(torch.searchsorted(until, before + _PAIRS_AT_ONCE, right=True)))
        found[begin:end] = _nearest_of_lists(grid, first[begin:end], count[begin:end], points[begin:end])
        begin = end
    return found


def closest_weights(points: Tensor, triangles: Tensor) -> Tensor:
    """Return the barycentric weights (n, 3) of the point of each triangle (n, 3, 2) closest to `points` (n, 2).

    Inside, the weights are those of the point itself. Differentiable in the points: outside, only along the edge.
    """
    x, y = points.unbind(-1)
    edges = _edges(x, y, _planes(triangles).unbind())
    area = edges[0].cross + edges[1].cross + edges[2].cross
    # edge k runs from corner k to k + 1; the triangle on it weighs the corner opposite
    crosses = torch.stack([edges[1].cross, edges[2].cross, edges[0].cross], -1)
    inside = (crosses * area.sign().unsqueeze(-1) > 0).all(-1, keepdim=True)
    own = crosses / torch.where(area == 0, torch.ones_like(area), area).unsqueeze(-1)
    nearest = torch.stack([edge.squared for edge in edges], -1).argmin(-1, keepdim=True)
    share = torch.stack([edge.along for edge in edges], -1).gather(-1, nearest)
    corner = torch.arange(3, device=points.device)
    on_edge = torch.where(corner == nearest, 1 - share, torch.where(corner == (nearest + 1) % 3, share, 0 * share))
    return torch.where(inside, own, on_edge)


class _Edge(NamedTuple):
    """What the points are to one edge: place of the closest point on it, squared distance, twice the area with it."""

    along: Tensor
    squared: Tensor
    cross: Tensor


def _planes(triangles: Tensor) -> Tensor:
    """Return (9, A): x of the corners, y of the corners, one over the squared lengths of the edges (0 for none)."""
    edges = torch.roll(triangles, -1, dims=-2) - triangles
    length = (edges * edges).sum(-1)
    inverse = torch.where(length == 0, length, 1 / torch.where(length == 0, torch.ones_like(length), length))
    return torch.cat([triangles[..., 0].T, triangles[..., 1].T, inverse.T])


def _edges(x: Tensor, y: Tensor, planes: Sequence[Tensor]) -> list[_Edge]:
    # Written out over flat arrays: sums over a last dimension of 2 or 3 take ten times as long.
    found = []
    for k, after in ((0, 1), (1, 2), (2, 0)):
        edge_x, edge_y = planes[after] - planes[k], planes[3 + after] - planes[3 + k]
        offset_x, offset_y = x - planes[k], y - planes[3 + k]
        along = ((offset_x * edge_x + offset_y * edge_y) * planes[6 + k]).clamp(0, 1)
        gap_x, gap_y = offset_x - along * edge_x, offset_y - along * edge_y
        found.append(_Edge(along, gap_x * gap_x + gap_y * gap_y, edge_x * offset_y - edge_y * offset_x))
    return found


def _squared_distance(points: Tensor, planes: Tensor, owner: Tensor, triangle: Tensor) -> Tensor:
    """Return the squared distance of each pair: points[owner] to the counter-clockwise triangle `triangle`."""
    found = []
    for one, other in zip(owner.split(_PAIRS_AT_ONCE), triangle.split(_PAIRS_AT_ONCE), strict=True):
        a, b, c = _edges(points[:, 0][one], points[:, 1][one], [plane.index_select(0, other) for plane in planes])
        least = torch.minimum(torch.minimum(a.squared, b.squared), c.squared)
        inside = torch.minimum(torch.minimum(a.cross, b.cross), c.cross) > 0
        found.append(torch.where(inside, 0, least))
    return torch.cat([points.new_zeros(0), *found])


def _refine(planes: Tensor, side: int, count: Tensor, listed: Tensor) -> tuple[int, Tensor, Tensor]:
    """Halve the cells of charts, one after the other: (cells along a side, length of each list, lists)."""
    fine = 2 * side
    cell = torch.arange(4 * len(count))
    chart, row, column = cell // fine**2, cell % fine**2 // fine, cell % fine
    parent = (chart * side + row // 2) * side + column // 2
    center = (torch.stack([column, row], -1) + 0.5).to(planes) / fine
    owner, entry = _expand((count.cumsum(0) - count)[parent], count[parent])
    triangle = listed[entry]
    distance = _squared_distance(center, planes, owner, triangle).sqrt()
    least = distance.new_full((len(cell),), torch.inf).scatter_reduce(0, owner, distance, "amin")
    # a little more than 2 r, so that a point rounded into the wrong cell still finds its triangle
    keep = distance <= least[owner] + 1.4143 / fine
    return fine, torch.bincount(owner[keep], minlength=len(cell)), triangle[keep]


def _nearest_of_lists(grid: Grid, first: Tensor, count: Tensor, points: Tensor) -> Tensor:
    owner, entry = _expand(first, count)
    triangle = grid.listed[entry]
    distance = _squared_distance(points, grid.planes, owner, triangle)
    least = distance.new_full((len(points),), torch.inf).scatter_reduce(0, owner, distance, "amin")
    # among equals the first of the list, so that the same point always gets the same triangle
    place = torch.arange(len(owner), device=owner.device)
    place = torch.where(distance <= least[owner], place, len(owner))
    chosen = torch.full_like(first, len(owner)).scatter_reduce(0, owner, place, "amin")
    return triangle[chosen]


def _expand(first: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Return for lists first[i], first[i] + 1, … (count[i] long) the owner i of each entry, and the entry."""
    owner = torch.repeat_interleave(torch.arange(len(first), device=first.device), count)
    within = torch.arange(len(owner), device=first.device) - (count.cumsum(0) - count)[owner]
    return owner, first[owner] + within
