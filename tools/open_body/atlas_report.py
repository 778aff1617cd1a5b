"""Measure how much the charts of an atlas distort."""

from __future__ import annotations

from typing import Any

import numpy as np

QUANTILES = (0.01, 0.5, 0.99)


def table(atlas: Any, body: Any) -> str:
    """Return a Markdown table, one row a part that is not the reflection of an earlier one.

    Area is a triangle's share of its chart over its share of the part's skin; stretch the larger over the smaller
    singular value of the map from skin to chart. Both are quantiles over skin area: 1 %, median, 99 %.
    """
    lines = ["| part | faces | skin, cm² | area 1 % | median | 99 % | stretch 1 % | median | 99 % |", "|" + "---|" * 9]
    for number in (1, 2, 4, 5, 8, 10, 12, 14, 15, 17, 19, 21, 24):
        own = atlas.part == number
        skin, area, stretch = distortion(
            body.v_template[body.faces[atlas.faces[own]]].astype(np.float64), atlas.uv[own]
        )
        order = [quantile(values, skin, QUANTILES) for values in (area, stretch)]
        cells = [str(number), str(own.sum()), f"{1e4 * skin.sum():.0f}", *(f"{x:.2f}" for row in order for x in row)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def distortion(corners: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return skin area (F,), relative chart area (F,) and stretch (F,) of triangles (F, 3, 3) laid at (F, 3, 2)."""
    one, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    length = np.linalg.norm(one, axis=1)
    height = np.linalg.norm(np.cross(one, other), axis=1) / length
    along = (one * other).sum(axis=1) / length
    flat = np.stack([np.stack([length, along], -1), np.stack([0 * length, height], -1)], -2)
    plane = np.stack([uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]], -1)
    values = np.linalg.svd(plane @ np.linalg.inv(flat), compute_uv=False)
    skin, chart = 0.5 * length * height, np.abs(np.linalg.det(plane))
    return skin, (chart / chart.sum()) / (skin / skin.sum()), values[:, 0] / values[:, 1]


def quantile(values: np.ndarray, weights: np.ndarray, at: tuple[float, ...]) -> np.ndarray:
    """Return weighted quantiles."""
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    return values[order][np.searchsorted(share, at)]
