"""Normals, areas and volume of triangle meshes, differentiable and finite on degenerate faces."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .checks import expect_shape
from .norms import length, scaled_to_one


def vertex_normals(vertices: Float[Tensor, "*batch V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "*batch V 3"]:
    """Return the unit normal at each vertex, pointing outside: the mean of its faces' normals, weighted by area.

    Right to second order wherever the mean is not zero. A vertex without a face, with faces of no area alone, or whose
    faces cancel out, has the normal 0 with zero derivatives.

    Args:
        vertices: (*batch, V, 3), any unit.
        faces: (F, 3) indices, counter-clockwise seen from outside.

    Returns:
        (*batch, V, 3) unit vectors, or zero.

    Raises:
        TypeError: faces are not integers.
        ValueError: the last dimensions are not (V, 3) and (F, 3).

    Example:
        >>> triangle = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        >>> vertex_normals(triangle, torch.tensor([[0, 1, 2]]))[0]
        tensor([0., 0., 1.])
    """
    expect_shape("vertices", vertices, "V", 3)
    # Normals do not change with the size of the mesh: measured by its extent, no product is too small or too large.
    offsets = vertices - vertices[..., :1, :]
    a, b, c = _corners(scaled_to_one(offsets.flatten(-2))[0].unflatten(-1, offsets.shape[-2:]), faces)
    normals = torch.linalg.cross(b - a, c - a).repeat_interleave(3, dim=-2)
    scaled, zero = scaled_to_one(torch.zeros_like(vertices).index_add(-2, faces.flatten(), normals))
    size = length(torch.where(zero, 1, scaled)).unsqueeze(-1)
    return torch.where(zero, 0, scaled / size)


def face_areas(vertices: Float[Tensor, "*batch V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "*batch F"]:
    """Return the area of each face, in the square of the vertices' unit.

    Right to second order wherever the area is not zero. An area is a length and has its kink at zero: there, and below
    1e-10 in float32 and 1e-77 in float64, the area is 0 with zero derivatives.

    Args:
        vertices: (*batch, V, 3).
        faces: (F, 3) indices.

    Returns:
        (*batch, F).

    Raises:
        TypeError: faces are not integers.
        ValueError: the last dimensions are not (V, 3) and (F, 3).

    Example:
        >>> triangle = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        >>> face_areas(triangle, torch.tensor([[0, 1, 2]]))
        tensor([0.5000])
    """
    a, b, c = _corners(vertices, faces)
    return length(torch.linalg.cross(b - a, c - a)) * 0.5


def signed_volume(vertices: Float[Tensor, "*batch V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "*batch"]:
    """Return the volume that the faces enclose, positive when they are counter-clockwise seen from outside.

    A polynomial of the vertices, hence right to every order. An open mesh is closed by cones to the mean vertex.

    Args:
        vertices: (*batch, V, 3).
        faces: (F, 3) indices.

    Returns:
        (*batch) in the cube of the vertices' unit.

    Raises:
        TypeError: faces are not integers.
        ValueError: the last dimensions are not (V, 3) and (F, 3).

    Example:
        >>> corners = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> signed_volume(corners, torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))
        tensor(0.1667)
    """
    a, b, c = _corners(vertices - vertices.mean(-2, keepdim=True), faces)
    return (a * torch.linalg.cross(b, c)).sum((-2, -1)) / 6


def _corners(vertices: Tensor, faces: Tensor) -> tuple[Tensor, ...]:
    expect_shape("vertices", vertices, "V", 3)
    expect_shape("faces", faces, 3)
    if faces.ndim != 2:
        raise ValueError(f"faces: expected (F, 3), got {tuple(faces.shape)}; all meshes of a batch share the faces")
    if faces.is_floating_point():
        raise TypeError(f"faces: expected integers, got {faces.dtype}; use faces.long()")
    return vertices.index_select(-2, faces.flatten()).unflatten(-2, faces.shape).unbind(-2)
