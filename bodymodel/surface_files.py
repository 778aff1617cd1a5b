"""Read and write the arrays of a surface atlas: its own .npz, and DensePose's .mat files."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .data import BodyModelData
from .mat_files import MAX_BYTES, read_mat
from .safe_npz import ZIP_MAGIC, read_npz
from .write_file import whole_file

# DensePose's file lacks two faces of SMPL's mesh; faces that the mesh lacks are of another mesh when there are many.
_MAX_STRANGE = 0.01

_DENSEPOSE_KEYS = frozenset({"All_FaceIndices", "All_Faces", "All_U_norm", "All_V_norm", "All_vertices"})
_SYMMETRY_KEYS = frozenset({"U_transforms", "V_transforms"})
_OWN_KEYS = frozenset({"faces", "part", "corners", "uv", "num_faces", "mirrored"})
_SYMMETRY = "symmetry"

FIELDS = ("faces", "part", "uv", "num_faces", "mirrored", _SYMMETRY)
"""What an atlas consists of."""


def save_atlas_arrays(path: str | os.PathLike[str], fields: dict[str, Any]) -> None:
    """Write the `FIELDS` of an atlas; places that several corners share are written once."""
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path: expected a name that ends in .npz, got {path.name}; change it")
    places, corners = np.unique(fields["uv"].reshape(-1, 2), axis=0, return_inverse=True)
    small = places.astype(np.float32)
    arrays = {
        "faces": _narrow(fields["faces"]),
        "part": fields["part"].astype(np.uint8),
        "corners": _narrow(corners.reshape(-1, 3)),
        "uv": small if (small == places).all() else places,
        "num_faces": np.array(fields["num_faces"]),
        "mirrored": np.array(fields["mirrored"]),
    }
    if fields[_SYMMETRY] is not None:
        arrays[_SYMMETRY] = fields[_SYMMETRY]
    with whole_file(path) as beside, beside.open("xb") as file:
        np.savez_compressed(file, **arrays)


def load_atlas_arrays(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the fields of the atlas in a file that `save_atlas_arrays` wrote."""
    data = _contents(Path(path), "a surface atlas")
    try:
        if not data.startswith(ZIP_MAGIC):
            raise ValueError(f"file: expected an .npz archive, got one that starts with {data[:12]!r}; check the path")
        arrays = read_npz(data, lambda key: key in _OWN_KEYS or key == _SYMMETRY)
        _expect_keys(arrays, _OWN_KEYS)
        corners, places = arrays["corners"], arrays["uv"]
        if places.ndim != 2 or places.shape[1] != 2 or places.dtype.kind != "f":
            raise ValueError(f"uv: expected (M, 2) numbers, got {places.shape} {places.dtype}; the file is damaged")
        if corners.ndim != 2 or corners.dtype.kind not in "iu" or not _within(corners, len(places)):
            raise ValueError(f"corners: expected (A, 3) indices into uv, got {corners.shape}; the file is damaged")
        if any(arrays[key].size != 1 or arrays[key].dtype.kind not in "biu" for key in ("num_faces", "mirrored")):
            raise ValueError("num_faces: expected one number, got others; the file is damaged")
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(path, error) from None
    return {
        "faces": arrays["faces"],
        "part": arrays["part"],
        "uv": places[corners.astype(np.int64)],
        "num_faces": int(arrays["num_faces"].reshape(())),
        "mirrored": bool(arrays["mirrored"].reshape(())),
        "symmetry": arrays.get(_SYMMETRY),
    }


def densepose_atlas_arrays(
    path: str | os.PathLike[str], data: BodyModelData, symmetry: str | os.PathLike[str] | None
) -> dict[str, Any]:
    """Return faces, part, uv and symmetry from UV_Processed.mat and UV_symmetry_transforms.mat."""
    variables = _mat(path, _DENSEPOSE_KEYS)
    try:
        arrays = _densepose_triangles(variables, data)
    except ValueError as error:
        raise _damaged(path, error) from None
    if symmetry is not None:
        tables = _mat(symmetry, _SYMMETRY_KEYS)
        try:
            arrays[_SYMMETRY] = np.stack([_tables(key, tables[key]) for key in sorted(_SYMMETRY_KEYS)], axis=-1)
        except ValueError as error:
            raise _damaged(symmetry, error) from None
    return arrays


def _densepose_triangles(variables: dict[str, Any], data: BodyModelData) -> dict[str, Any]:
    part = _whole("All_FaceIndices", variables["All_FaceIndices"], 1, 25)
    vertices = _whole("All_vertices", variables["All_vertices"], 1, 1 << 31) - 1
    corners = _whole("All_Faces", variables["All_Faces"], 1, len(vertices) + 1).reshape(-1, 3, order="F") - 1
    uv = np.stack([_flat(key, variables[key]) for key in ("All_U_norm", "All_V_norm")], axis=-1)
    if len(uv) != len(vertices) or len(part) != len(corners) or np.shape(variables["All_Faces"]) != (len(part), 3):
        raise ValueError(
            f"All_Faces: expected (n, 3) for {len(part)} parts and U, V of {len(vertices)} vertices, "
            f"got {np.shape(variables['All_Faces'])} and {len(uv)}; the file is damaged"
        )
    if not (np.abs(uv - 0.5) <= 0.5 + 1e-6).all():
        raise ValueError(f"All_U_norm: expected values 0 to 1, got {uv.min()} to {uv.max()}; the file is damaged")
    rows, faces, order = _match(vertices[corners], data.faces)
    strange = len(corners) - len(rows)
    if strange > _MAX_STRANGE * len(corners):
        raise ValueError(
            f"All_Faces: expected triangles of the model's {len(data.faces)} faces, got {strange} of {len(corners)} "
            "others; give a model with SMPL's mesh (6890 vertices)"
        )
    if strange:
        warnings.warn(f"left out {strange} triangles that the model has no face for", stacklevel=4)
    placed = np.take_along_axis(corners[rows], order, axis=1)
    return {"faces": faces, "part": part[rows], "uv": uv.clip(0, 1)[placed]}


def _match(triples: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which triples are faces, which face each is, and which of its corners each corner of that face is."""
    key = {tuple(sorted(face)): index for index, face in reversed(list(enumerate(faces.tolist())))}
    found = np.array([key.get(tuple(sorted(triple)), -1) for triple in triples.tolist()], dtype=np.int64)
    _, first = np.unique(found, return_index=True)
    rows = np.sort(first[found[first] >= 0])
    faces_of_rows = faces[found[rows]]
    order = (triples[rows][:, None, :] == faces_of_rows[:, :, None]).argmax(axis=2)
    return rows, found[rows], order


def _tables(key: str, cells: Any) -> np.ndarray:
    tables = cells if isinstance(cells, list) else [cells]
    shapes = {np.shape(table) for table in tables}
    if len(tables) != 24 or len(shapes) != 1 or np.ndim(tables[0]) != 2:
        raise ValueError(f"{key}: expected 24 tables of one size, got {len(tables)} of {shapes}; the file is damaged")
    return np.stack(tables).astype(np.float64)


def _flat(key: str, value: Any) -> np.ndarray:
    array = value if isinstance(value, np.ndarray) else np.zeros(0)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"{key}: expected finite numbers, got none or others; the file is damaged")
    return array.ravel(order="F").astype(np.float64)


def _whole(key: str, value: Any, low: int, high: int) -> np.ndarray:
    flat = _flat(key, value)
    if not ((flat == np.rint(flat)) & (flat >= low) & (flat < high)).all():
        raise ValueError(f"{key}: expected whole numbers from {low}, below {high}, got others; the file is damaged")
    return flat.astype(np.int64)


def _mat(path: str | os.PathLike[str], keys: frozenset[str]) -> dict[str, Any]:
    data = _contents(Path(path), "a .mat file")
    try:
        variables = read_mat(data, keys)
        _expect_keys(variables, keys)
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(path, error) from None
    return variables


def _expect_keys(found: dict[str, Any], keys: frozenset[str]) -> None:
    missing = sorted(keys - set(found))
    if missing:
        raise ValueError(f"file: expected {', '.join(sorted(keys))}, got no {', '.join(missing)}; this is another file")


def _contents(path: Path, kind: str) -> bytes:
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected {kind}, got no file; check the path")
    if not path.is_file():
        raise ValueError(f"{path}: expected {kind}, got a folder or a device; give the path of a file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: expected at most {MAX_BYTES >> 20} MiB, got more; this is not {kind}")
    return path.read_bytes()


def _damaged(path: str | os.PathLike[str], error: Exception) -> ValueError:
    """Return the error with the file's name; what Python and zipfile say of scrambled data is put into words first."""
    if isinstance(error, ValueError) and ": expected " in f": {error}":
        return ValueError(f"{path}: {error}")
    cause = f"{type(error).__name__}: {error}".encode("ascii", "backslashreplace").decode()
    return ValueError(f"{path}: expected an atlas, got damaged data ({cause[:120]}); get the file again")


def _narrow(array: np.ndarray) -> np.ndarray:
    return array.astype(np.uint16 if array.max() < 1 << 16 else np.int64)


def _within(array: np.ndarray, count: int) -> bool:
    return array.size > 0 and array.shape[-1] == 3 and int(array.min()) >= 0 and int(array.max()) < count
