"""Find the triangle of a chart that contains, or comes nearest to, a point of the plane: exact, on a grid."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# Pairs of a point and a triangle that are looked at together; bounds the memory to some hundred megabytes.
_PAIRS_AT_ONCE = 1 << 20


class Grid(NamedTuple):
    """The triangles that matter in each cell of each chart's unit square.

    Attributes:
        triangles: (A, 3, 2) all triangles.
        resolution: (P,) cells along a side, for each of P charts; 0 for a chart without triangles.
        first_cell: (P,) index of each chart's first cell; cells follow row by row, v first.
        start: (C + 1,) where each cell's list begins in `listed`.
        listed: (L,) triangle indices.
    """

    triangles: Tensor
    resolution: Tensor
    first_cell: Tensor
    start: Tensor
    listed: Tensor

    def to(self, like: Tensor) -> Grid:
        """Return the grid on the device of `like`, its triangles in the type of `like`."""
        others = (part.to(like.device) for part in self[1:])
        return Grid(self.triangles.to(like), *others)


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
    resolution, counts, listed = [], [], []
    for number in range(charts):
        own = torch.from_numpy(np.flatnonzero(chart == number))
        side, count, found = 1, torch.tensor([len(own)]), own
        while side * side < len(own):
            side, count, found = _refine(corners, side, count, found)
        resolution.append(side if len(own) else 0)
        counts.append(count[: side * side if len(own) else 0])
        listed.append(found)
    sides = torch.tensor(resolution)
    zero = torch.zeros(1, dtype=torch.int64)
    return Grid(
        corners,
        sides,
        torch.cat([zero, (sides * sides).cumsum(0)[:-1]]),
        torch.cat([zero, torch.cat(counts).cumsum(0)]),
        torch.cat(listed),
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
    """Return the barycentric weights (*B, 3) of the point of each triangle (*B, 3, 2) closest to `points` (*B, 2).

    Inside, the weights are those of the point itself. Differentiable in the points: outside, only along the edge.
    """
    along, squared, inside, area, crosses = _edge_geometry(points, triangles)
    # Edge k runs from corner k to k + 1; the sub-triangle on it weighs the corner opposite.
    whole = torch.where(area == 0, torch.ones_like(area), area)
    own = torch.stack([crosses[..., 1], crosses[..., 2], crosses[..., 0]], -1) / whole.unsqueeze(-1)
    edge = squared.argmin(-1, keepdim=True)
    share = along.gather(-1, edge)
    corner = torch.arange(3, device=points.device)
    on_edge = torch.where(corner == edge, 1 - share, torch.where(corner == (edge + 1) % 3, share, 0 * share))
    return torch.where(inside.unsqueeze(-1), own, on_edge)


def squared_distance(points: Tensor, triangles: Tensor) -> Tensor:
    """Return the squared distance (*B,) of `points` (*B, 2) to triangles (*B, 3, 2) of either orientation."""
    _, squared, inside, _, _ = _edge_geometry(points, triangles)
    return torch.where(inside, torch.zeros_like(squared[..., 0]), squared.amin(-1))


def _edge_geometry(points: Tensor, triangles: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return per edge the place of the closest point and its squared distance, whether inside, and twice the areas."""
    edges = torch.roll(triangles, -1, dims=-2) - triangles
    offset = points.unsqueeze(-2) - triangles
    length = (edges * edges).sum(-1)
    along = ((offset * edges).sum(-1) / torch.where(length == 0, torch.ones_like(length), length)).clamp(0, 1)
    gap = offset - along.unsqueeze(-1) * edges
    crosses = edges[..., 0] * offset[..., 1] - edges[..., 1] * offset[..., 0]
    area = edges[..., 0, 0] * edges[..., 1, 1] - edges[..., 0, 1] * edges[..., 1, 0]
    inside = (crosses * area.unsqueeze(-1) >= 0).all(-1) & (area != 0)
    return along, (gap * gap).sum(-1), inside, area, crosses


def _refine(corners: Tensor, side: int, count: Tensor, listed: Tensor) -> tuple[int, Tensor, Tensor]:
    """Halve the cells of one chart: (cells along a side, length of each list, lists)."""
    fine = 2 * side
    cell = torch.arange(fine * fine)
    parent = (cell // fine // 2) * side + cell % fine // 2
    center = (torch.stack([cell % fine, cell // fine], -1) + 0.5).to(corners) / fine
    start = count.cumsum(0) - count
    owner, entry = _expand(start[parent], count[parent])
    triangle = listed[entry]
    distance = torch.cat(
        [
            squared_distance(center[o], corners[t])
            for o, t in zip(owner.split(_PAIRS_AT_ONCE), triangle.split(_PAIRS_AT_ONCE), strict=True)
        ]
    ).sqrt()
    least = distance.new_full((fine * fine,), torch.inf).scatter_reduce(0, owner, distance, "amin")
    # a little more than 2 r, so that a point rounded into the wrong cell still finds its triangle
    keep = distance <= least[owner] + 1.4143 / fine
    return fine, torch.bincount(owner[keep], minlength=fine * fine), triangle[keep]


def _nearest_of_lists(grid: Grid, first: Tensor, count: Tensor, points: Tensor) -> Tensor:
    owner, entry = _expand(first, count)
    triangle = grid.listed[entry]
    distance = squared_distance(points[owner], grid.triangles[triangle])
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
