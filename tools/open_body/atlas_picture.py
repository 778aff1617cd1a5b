"""Draw the body in the colours of its parts, and the charts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.collections import PolyCollection

COLORS = np.concatenate([[[0, 0, 0]], plt.get_cmap("tab20").colors, plt.get_cmap("Set2").colors])[:25]
SQUARES = 8


def draw(path: Path, atlas: Any, body: Any) -> None:
    """Write a picture: the body from the front and behind with a chequered pattern, and the 24 charts."""
    figure = plt.figure(figsize=(10, 9), dpi=64)
    grid = figure.add_gridspec(7, 8, left=0.01, right=0.99, top=0.99, bottom=0.01, hspace=0.25, wspace=0.1)
    corners = body.v_template[body.faces[atlas.faces]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    chequer = np.floor(atlas.uv.mean(axis=1) * SQUARES).sum(axis=1) % 2
    colors = COLORS[atlas.part] * (0.75 + 0.25 * chequer[:, None])
    for cells, side in ((grid[:4, :4], 1), (grid[:4, 4:], -1)):
        axes = figure.add_subplot(cells)
        order = np.argsort(side * corners[:, :, 2].mean(axis=1))
        order = order[side * normals[order, 2] > 0]
        shown = colors[order] * (0.5 + 0.5 * np.abs(normals[order, 2:]))
        polygons = PolyCollection(
            corners[order][:, :, :2] * [side, 1], facecolors=shown, edgecolors=shown, linewidths=0.3
        )
        axes.add_collection(polygons)
        axes.set(xlim=(-0.9, 0.9), ylim=(-1.0, 0.75), aspect="equal")
        axes.axis("off")
    for part in range(1, 25):
        axes = figure.add_subplot(grid[4 + (part - 1) // 8, (part - 1) % 8])
        own = atlas.uv[atlas.part == part]
        axes.add_collection(PolyCollection(own, facecolors=COLORS[part], edgecolors=0.5 * COLORS[part], linewidths=0.1))
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[], yticks=[])
        axes.set_title(str(part), fontsize=7, pad=2)
    figure.canvas.draw()
    # few colours make a small file
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3]).quantize(96)
    image.save(path, optimize=True)
    plt.close(figure)
