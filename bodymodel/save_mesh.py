"""Write a mesh as OBJ, PLY or GLB."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from ..geometry import vertex_normals
from .write_file import write_file

_ENDINGS = (".obj", ".ply", ".glb")


def save_mesh(
    path: str | os.PathLike[str],
    vertices: Float[Tensor, "V 3"] | Float[np.ndarray, "V 3"],
    faces: Int[Tensor, "F 3"] | Int[np.ndarray, "F 3"],
    *,
    normals: Float[Tensor, "V 3"] | Float[np.ndarray, "V 3"] | Literal[True] | None = None,
    colors: Shaped[Tensor, "V C"] | Shaped[np.ndarray, "V C"] | None = None,
) -> None:
    """Write one triangle mesh; the ending of the name decides the format. Needs trimesh (`pip install physique[io]`).

    Vertices keep their order, number and unit (metres; GLB readers take metres), and axes are not turned: a y-up body
    stands upright in viewers. PLY is binary, little endian. Positions have 8 decimals in OBJ, float32 in PLY and GLB.

    Args:
        path: ends in .obj, .ply or .glb.
        vertices: (V, 3) of one body; detached and copied to the CPU.
        faces: (F, 3) indices, as `model.faces` or `data.faces`.
        normals: (V, 3) unit vectors, or True for `vertex_normals(vertices, faces)`; default: none are written.
        colors: (V, 3) or (V, 4): uint8, or floating numbers from 0 to 1.

    Raises:
        ValueError: another ending, shapes or indices that do not fit, or numbers that are not finite.
        FileNotFoundError: the folder is not there.
        ImportError: trimesh is not installed.

    Example:
        >>> import pathlib, tempfile
        >>> from physique.bodymodel import BodyModel, open_body, save_mesh
        >>> model = BodyModel(open_body("low"))
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> save_mesh(folder / "body.ply", model().vertices, model.faces, normals=True)
        >>> (folder / "body.ply").read_bytes()[:36]
        b'ply\\nformat binary_little_endian 1.0\\n'
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in _ENDINGS:
        raise ValueError(f"path: expected a name that ends in {', '.join(_ENDINGS)}, got {path.name}; name the format")
    points = _numbers("vertices", vertices)
    triangles = np.asarray(_to_numpy(faces))
    if triangles.ndim != 2 or triangles.shape[1] != 3 or triangles.dtype.kind not in "iu" or not triangles.size:
        raise ValueError(f"faces: expected (F, 3) integers, got {triangles.shape} {triangles.dtype}; use model.faces")
    if not (0 <= triangles.min() and triangles.max() < len(points)):
        raise ValueError(
            f"faces: expected indices 0 to {len(points) - 1}, got {triangles.min()} to {triangles.max()}; "
            "give the faces of this mesh"
        )
    if normals is True:
        normals = vertex_normals(torch.from_numpy(points), torch.from_numpy(triangles.astype(np.int64)))
    directions = None if normals is None else _numbers("normals", normals, len(points))
    mesh = _trimesh().Trimesh(
        points, triangles, vertex_normals=directions, vertex_colors=_colors(colors, len(points)), process=False
    )
    write_file(path, _export(mesh, ending[1:], normals=directions is not None))


def _trimesh() -> Any:
    try:
        import trimesh
    except ImportError:
        raise ImportError("save_mesh: expected trimesh, got none; pip install 'physique[io]' or trimesh") from None
    return trimesh


def _export(mesh: Any, ending: str, *, normals: bool) -> bytes:
    if ending == "ply":
        return mesh.export(file_type="ply", encoding="binary", vertex_normal=normals)
    contents = mesh.export(file_type=ending, include_normals=normals)
    return contents.encode() if isinstance(contents, str) else contents


def _to_numpy(array: Tensor | np.ndarray) -> np.ndarray:
    return array.detach().cpu().numpy() if isinstance(array, Tensor) else array


def _numbers(name: str, array: Tensor | np.ndarray, count: int | None = None) -> np.ndarray:
    """Return (V, 3) finite numbers as float64."""
    if isinstance(array, Tensor):
        array = array.double()
    values = np.asarray(_to_numpy(array), dtype=np.float64)
    expected = "V" if count is None else count
    if values.ndim != 2 or values.shape[1] != 3 or count not in (None, len(values)) or len(values) == 0:
        advice = f"one file holds one mesh: {name}[0]" if values.ndim > 2 else "give one row a vertex"
        raise ValueError(f"{name}: expected ({expected}, 3), got {values.shape}; {advice}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity; look for it upstream")
    return values


def _colors(colors: Tensor | np.ndarray | None, count: int) -> np.ndarray | None:
    """Return (V, 4) uint8."""
    if colors is None:
        return None
    values = np.asarray(_to_numpy(colors))
    if values.ndim != 2 or values.shape[0] != count or values.shape[1] not in (3, 4):
        raise ValueError(f"colors: expected ({count}, 3) or ({count}, 4), got {values.shape}; give one row a vertex")
    if values.dtype.kind == "f":
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError("colors: expected numbers from 0 to 1, got others; divide by the largest, or use uint8")
        values = np.rint(values * 255).astype(np.uint8)
    if values.dtype != np.uint8:
        raise ValueError(f"colors: expected uint8 or floating numbers, got {values.dtype}; use colors.to(torch.uint8)")
    opaque = np.full((count, 4 - values.shape[1]), 255, np.uint8)
    return np.concatenate((values, opaque), axis=1)
