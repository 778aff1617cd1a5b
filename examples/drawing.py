"""Draw fitted people: a small rasteriser with soft light in NumPy, and the picture that is made of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

SKIN = np.array([0.71, 0.76, 0.83])
# Towards each light in camera axes (x right, y down, z forward), and its strength: key, fill, rim.
LIGHTS = ((np.array([-0.5, -0.7, -0.9]), 0.62), (np.array([0.9, -0.1, -0.5]), 0.20), (np.array([0.3, -0.6, 0.8]), 0.25))
AMBIENT = 0.26
PIXELS_AT_ONCE = 1_000_000  # bounds the memory where faces are large
SAMPLES = 2  # a pixel, in x and in y
DPI = 110
MARGIN = 0.05
SHAPE = 0.62  # width over height of a view
MANY = 60  # points are drawn smaller from here on
DETECTED, FITTED = "#e8590c", "#1864ab"


@dataclass(frozen=True)
class Person:
    """One person to draw; K keypoints, V vertices.

    Attributes:
        title: above the front view.
        vertices: (V, 3) in camera axes, scaled to pixels: x and y are where the mesh lies in the image.
        normals: (V, 3) in camera axes.
        keypoints: (K, 2) detected, in pixels.
        seen: (K,) whether each was detected.
        fitted: (K, 2) keypoints of the body, in pixels.
        bones: pairs of keypoints to connect.
        from_right: whether the side view is from the image's right; else from its left.
        image: (H, W, 3) from 0 to 1 to draw on, or None.
    """

    title: str
    vertices: np.ndarray
    normals: np.ndarray
    keypoints: np.ndarray
    seen: np.ndarray
    fitted: np.ndarray
    bones: Sequence[tuple[int, int]]
    from_right: bool = True
    image: np.ndarray | None = None


def rasterise(vertices: np.ndarray, normals: np.ndarray, faces: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return an image (height, width, 4) of a mesh, with a z-buffer, smooth shading and soft edges.

    Args:
        vertices: (V, 3) x right and y down in pixels, z away from the viewer.
        normals: (V, 3) unit vectors in the same axes.
        faces: (F, 3).
        width: of the image in pixels.
        height: of the image in pixels.
    """
    wide, tall = width * SAMPLES, height * SAMPLES
    corners = vertices[faces] * SAMPLES - (0.5, 0.5, 0)
    a, b, c = np.moveaxis(corners[..., :2], 1, 0)
    area = _doubled_area(a, b, c)
    low = np.clip(np.ceil(np.minimum(np.minimum(a, b), c)), 0, (wide, tall)).astype(int)
    high = np.clip(np.floor(np.maximum(np.maximum(a, b), c)) + 1, 0, (wide, tall)).astype(int)
    spans = np.maximum(high - low, 0)
    # Counter-clockwise from outside is, with y down, a negative area for a face that looks at the viewer.
    counts = np.where(area < 0, spans[:, 0] * spans[:, 1], 0)
    depths, buffer = np.full(tall * wide, np.inf), np.zeros((tall * wide, 4))
    group = np.cumsum(counts) // PIXELS_AT_ONCE
    for faces_now in np.split(np.arange(len(faces)), np.flatnonzero(np.diff(group)) + 1):
        # One row a pixel of each face's box.
        face = np.repeat(faces_now, counts[faces_now])
        place = np.arange(len(face)) - np.repeat(np.cumsum(counts[faces_now]) - counts[faces_now], counts[faces_now])
        pixel = low[face] + np.stack([place % spans[face, 0], place // spans[face, 0]], axis=1)
        corner = a[face], b[face], c[face]
        weights = np.stack([_doubled_area(*corner[1:], pixel), _doubled_area(corner[2], corner[0], pixel)], axis=1)
        weights = weights / area[face, None]
        weights = np.concatenate([weights, 1 - weights.sum(axis=1, keepdims=True)], axis=1)
        index = pixel[:, 1] * wide + pixel[:, 0]
        depth = (weights * corners[face, :, 2]).sum(axis=1)
        keep = np.flatnonzero((weights >= 0).all(axis=1) & (depth < depths[index]))
        keep = keep[np.argsort(-depth[keep], kind="stable")]  # the nearest is written last
        winner = np.full(tall * wide, -1)
        winner[index[keep]] = keep
        shown = np.flatnonzero(winner >= 0)
        winner = winner[shown]
        depths[shown] = depth[winner]
        buffer[shown, :3] = shade((weights[winner, :, None] * normals[faces[face[winner]]]).sum(axis=1))
        buffer[shown, 3] = 1
    image = buffer.reshape(height, SAMPLES, width, SAMPLES, 4).mean(axis=(1, 3))
    covered = image[..., 3:]
    # Transparent pixels have the mesh's colour too: resampling mixes them into the edges.
    image[..., :3] = np.where(covered > 0, image[..., :3] / np.maximum(covered, 1e-9), 0.6 * SKIN)
    return image


def _doubled_area(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])


def shade(normals: np.ndarray) -> np.ndarray:
    """Return colours (N, 3) of a matt surface under `LIGHTS`."""
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    light = np.full(len(normals), AMBIENT)
    for towards, strength in LIGHTS:
        light += strength * np.clip(normals @ (towards / np.linalg.norm(towards)), 0, None)
    return np.clip(light, 0, 1)[:, None] ** 0.8 * SKIN + np.clip(light - 0.7, 0, 1)[:, None] * 0.45


def draw_people(
    people: Sequence[Person],
    faces: np.ndarray,
    path: str | Path,
    *,
    pixels: int = 620,
    detected: str = "keypoints of the file",
) -> None:
    """Write a picture with a front and a side view of each person, two people a row.

    Args:
        people: at least one.
        faces: (F, 3) of all of them.
        path: of the .png file.
        pixels: height of a view.
        detected: what the points are, for the legend.
    """
    columns = min(2, len(people))
    rows = -(-len(people) // columns)
    # Rendered a third larger than shown, which smooths the edges once more.
    height = 0.75 * pixels / DPI
    figure, axes = plt.subplots(
        rows,
        2 * columns,
        squeeze=False,
        dpi=DPI,
        figsize=(2 * columns * (height * SHAPE + 0.1), rows * (height + 0.4) + 0.25),
        layout="constrained",
    )
    for axis in axes.flat:
        axis.axis("off")
    for i, person in enumerate(people):
        _draw_person(axes[i // columns, 2 * (i % columns) : 2 * (i % columns) + 2], person, faces, pixels, detected)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=11)
    figure.savefig(path, bbox_inches="tight", pad_inches=0.1)
    plt.close(figure)


def read_image(path: str | Path) -> np.ndarray:
    """Return an image file as (H, W, 3) from 0 to 1.

    Raises:
        OSError: no such file, or none that can be read as an image.
    """
    pixels = plt.imread(path)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return pixels[..., :3] / (255 if pixels.dtype == np.uint8 else 1)


def _draw_person(axes: Sequence[Axes], person: Person, faces: np.ndarray, pixels: int, detected: str) -> None:
    """Draw the front view, then the side view at the same scale."""
    front, side = axes
    # The new x axis is along the old depth, and the new depth away from where the viewer now stands.
    sign = 1.0 if person.from_right else -1.0
    quarter = np.array([[0.0, 0.0, sign], [0.0, 1.0, 0.0], [-sign, 0.0, 0.0]])
    turned, turned_normals = person.vertices @ quarter.T, person.normals @ quarter.T
    seen = person.keypoints[person.seen]
    middle, width, height = _frame(_without_outliers(person.vertices[:, :2], seen))
    side_middle, side_width, side_height = _frame(turned[:, :2])
    height = (1 + 2 * MARGIN) * max(height, side_height, max(width, side_width) / SHAPE)
    if person.image is not None:
        front.imshow(person.image, extent=(0, person.image.shape[1], person.image.shape[0], 0), zorder=1)
    _draw_mesh(front, person.vertices, person.normals, faces, middle, height, pixels)
    _draw_mesh(side, turned, turned_normals, faces, np.array([side_middle[0], middle[1]]), height, pixels)
    for a, b in person.bones:
        front.plot(*person.fitted[[a, b]].T, color=FITTED, linewidth=1.8, solid_capstyle="round", zorder=3)
    front.plot([], [], color=FITTED, linewidth=1.8, label="fitted skeleton, projected")
    style = {"color": DETECTED, "edgecolors": "white", "linewidths": 0.8, "zorder": 4}
    front.scatter(*seen.T, s=26 if len(seen) < MANY else 11, label=detected, **style)
    front.set_title(person.title, fontsize=11, loc="left")
    side.set_title("\nfrom the side", fontsize=11, loc="left", color="0.35")


def _without_outliers(vertices: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return vertices (V, 2) and those of the points (N, 2) that are on or around the person."""
    middle, width, height = _frame(vertices)
    around = np.abs(points - middle) <= 0.5 * np.array([width, height]) + 0.25 * max(width, height)
    return np.concatenate([vertices, points[around.all(axis=1)]])


def _frame(points: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return middle, width and height of the box around points (N, 2)."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (low + high) / 2, high[0] - low[0], high[1] - low[1]


def _draw_mesh(
    axis: Axes,
    vertices: np.ndarray,
    normals: np.ndarray,
    faces: np.ndarray,
    middle: np.ndarray,
    height: float,
    pixels: int,
) -> None:
    """Draw what lies in a view `height` high about `middle`."""
    left, top = middle - (height * SHAPE / 2, height / 2)
    right, bottom = middle + (height * SHAPE / 2, height / 2)
    placed = (vertices - (left, top, 0)) * (pixels / height)
    image = rasterise(placed, normals, faces, round(pixels * SHAPE), pixels)
    axis.imshow(image, extent=(left, right, bottom, top), interpolation="antialiased", zorder=2)
    axis.set_xlim(left, right)
    axis.set_ylim(bottom, top)
