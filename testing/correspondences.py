"""Make dense correspondences with known answers: visible points of posed bodies, with noise, swaps and outliers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..bodymodel import BodyModel, SurfacePoints
from ..cameras import WeakPerspectiveCamera
from ..fitting import Correspondences
from ..geometry import face_areas, vertex_normals

# The depth map is made of this many random points of the surface, in cells of this many pixels.
_SPLATS = 40_000
_CELL = 2.0
# A point is hidden when something lies this far in front of it, in metres.
_DEPTH_TOLERANCE = 0.04


def synthetic_correspondences(
    model: BodyModel,
    params: dict[str, Tensor],
    camera: WeakPerspectiveCamera,
    *,
    count: int = 125,
    noise: float = 3.0,
    swapped: float = 0.05,
    outliers: float = 0.05,
    size: float = 224.0,
    seed: int = 0,
) -> Correspondences:
    """Sample visible surface points of posed bodies and where they are seen, with the errors of dense detectors.

    Args:
        model: a body with left-right symmetric topology (`vert_sym_idxs`), such as `open_body()`.
        params: its arguments with batch (B,), in camera axes: y down, z away from the camera.
        camera: with batch (B,), in pixels.
        count: points a body, N.
        noise: standard deviation of the pixels.
        swapped: share of the points on hands and feet that carry the label of the other side.
        outliers: share of all points whose pixel is anywhere in the image.
        size: width and height of the image in pixels.
        seed: of the random numbers.

    Returns:
        Correspondences (B, N), all with weight 1.
    """
    generator = torch.Generator().manual_seed(seed)
    vertices = model(**params).vertices.detach()
    faces, barycentric = [], []
    for body, scale, shift in zip(vertices, camera.scale, camera.translation, strict=True):
        chosen = _visible(body, model.faces, WeakPerspectiveCamera(scale, shift), count, generator)
        faces.append(chosen.faces)
        barycentric.append(chosen.barycentric)
    surface = SurfacePoints(torch.stack(faces), torch.stack(barycentric))
    corners = vertices.gather(-2, model.faces[surface.faces].flatten(-2).unsqueeze(-1).expand(-1, -1, 3))
    points = (corners.unflatten(-2, (-1, 3)) * surface.barycentric.unsqueeze(-1)).sum(-2)
    pixels = camera.project(points)
    pixels = pixels + noise * torch.randn(pixels.shape, generator=generator)
    anywhere = size * torch.rand(pixels.shape, generator=generator)
    lost = torch.rand(pixels.shape[:-1], generator=generator) < outliers
    pixels = torch.where(lost.unsqueeze(-1), anywhere.to(pixels), pixels)
    exchange = torch.rand(lost.shape, generator=generator) < swapped
    mirrored = mirror_surface(model, surface)
    exchange = (exchange & _on_extremities(model)[surface.faces]).unsqueeze(-1)
    surface = SurfacePoints(
        torch.where(exchange.squeeze(-1), mirrored.faces, surface.faces),
        torch.where(exchange, mirrored.barycentric, surface.barycentric),
    )
    return Correspondences(surface, pixels, torch.ones_like(pixels[..., 0]))


def mirror_surface(model: BodyModel, surface: SurfacePoints) -> SurfacePoints:
    """Return the same points on the other side of a body with left-right symmetric topology."""
    mirror = np.asarray(model.data.extras["vert_sym_idxs"])
    faces = np.asarray(model.data.faces)
    images = mirror[faces]
    position = {tuple(sorted(face)): index for index, face in enumerate(faces.tolist())}
    targets = np.array([position[tuple(sorted(image))] for image in images.tolist()])
    # corner k of the mirrored face holds the image of corner order[k] of the face
    order = (faces[targets][:, :, None] == images[:, None, :]).argmax(-1)
    chosen = surface.faces
    return SurfacePoints(
        torch.as_tensor(targets, device=chosen.device)[chosen],
        surface.barycentric.gather(-1, torch.as_tensor(order, device=chosen.device)[chosen]),
    )


def _visible(
    vertices: Tensor, faces: Tensor, camera: WeakPerspectiveCamera, count: int, generator: torch.Generator
) -> SurfacePoints:
    """Return `count` random points of the surface that nothing hides from the camera."""
    areas = face_areas(vertices, faces)
    chosen = torch.multinomial(areas, _SPLATS, replacement=True, generator=generator)
    weights = torch.rand(_SPLATS, 3, generator=generator).log().neg().to(vertices)
    weights = weights / weights.sum(-1, keepdim=True)
    points = (vertices[faces[chosen]] * weights.unsqueeze(-1)).sum(-2)
    normals = (vertex_normals(vertices, faces)[faces[chosen]] * weights.unsqueeze(-1)).sum(-2)
    cells = (camera.project(points) / _CELL).floor().long()
    cells = cells - cells.amin(0)
    index = cells[:, 0] * (int(cells[:, 1].max()) + 1) + cells[:, 1]
    nearest = points.new_full((int(index.max()) + 1,), torch.inf).scatter_reduce(0, index, points[:, 2], "amin")
    seen = (points[:, 2] < nearest[index] + _DEPTH_TOLERANCE) & (normals[:, 2] < 0)
    kept = seen.nonzero().flatten()[:count]
    return SurfacePoints(chosen[kept], weights[kept])


def _on_extremities(model: BodyModel) -> Tensor:
    """Return (F,) whether each face belongs to a hand or a foot."""
    names = model.skeleton.names
    wanted = torch.tensor(
        [any(part in name for part in ("wrist", "hand", "ankle", "foot")) for name in names], device=model.device
    )
    owner = model.lbs_weights.argmax(-1)
    return wanted[owner][model.faces[:, 0]]
