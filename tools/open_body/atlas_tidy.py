"""Straighten the rims of the parts, so that every triangle gets an area when a rim is laid along a square.

A triangle, or a group of them, that hangs on a chart by one edge with both ends on one side of the square would be
pressed flat against that side. Such lids go to a neighbouring part, or are built over, one move at a time, the best
first, until none remains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .atlas_charts import Chart
from .atlas_mesh import Mesh
from .atlas_parts import MIRROR_PART, Layout

MAX_MOVES = 100


def tidy(mesh: Mesh, layout: Layout) -> Layout:
    """Return the layout without lids.

    Raises:
        ValueError: no moves were found that remove them all.
    """
    lids = {number: _lids(mesh, layout, layout.part, number) or [] for number in layout.corners}
    seen = {layout.part.tobytes()}
    for _ in range(MAX_MOVES):
        if not any(lids.values()):
            return layout
        best = None
        for faces, number in _moves(mesh, layout, lids):
            part = layout.part.copy()
            part[faces], part[mesh.mirror_face[faces]] = number, MIRROR_PART[number]
            moved = part != layout.part
            if part.tobytes() in seen or not moved.any():
                continue
            touched = {*part[moved].tolist(), *layout.part[moved].tolist()} & set(layout.corners)
            after = {k: _lids(mesh, layout, part, k) for k in sorted(touched)}
            if any(found is None for found in after.values()):
                continue
            gain = sum(len(lids[k]) - len(after[k]) for k in after)
            rank = (-gain, len(faces), min(faces), number)
            if best is None or rank < best[0]:
                best = rank, part, after
        if best is None:
            break
        layout = replace(layout, part=best[1])
        lids |= best[2]
        seen.add(layout.part.tobytes())
    raise ValueError(f"layout: expected parts without lids, got {lids}")


def _moves(mesh: Mesh, layout: Layout, lids: dict[int, list[int]]) -> Iterator[tuple[list[int], int]]:
    """Yield (faces, new part): a lid or the fan at one of its corners changes hands, either way."""
    for number, faces in lids.items():
        for face in faces:
            corners = mesh.faces[face].tolist()
            beside = sorted(
                {int(layout.part[g]) for v in corners for g in mesh.fans[v]} & set(layout.corners) - {number}
            )
            for other in beside:
                yield [face], other
                for corner in corners:
                    fan = mesh.fans[corner]
                    yield [g for g in fan if layout.part[g] == other] or [face], number
                    yield [g for g in fan if layout.part[g] == number], other


def _lids(mesh: Mesh, layout: Layout, part: np.ndarray, number: int) -> list[int] | None:
    """Return the faces of a part that would be pressed flat, or None where the part is no disc with four corners."""
    faces = np.flatnonzero(part == number)
    try:
        chart = Chart.cut_out(mesh.faces[faces], layout.cuts, layout.corners[number])
    except ValueError:
        return None
    return faces[chart.lids()].tolist()
