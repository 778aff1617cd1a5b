"""Load a body model from a file: find its format and family, check it, and give the constants."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from .data import BodyModelData
from .families import FAMILIES, Family
from .file_keys import (
    ALIASES,
    EXTRAS,
    JOINT_BASES,
    OWN_PREFIX,
    REQUIRED,
    check_extras,
    official_coefficients,
    own_fields,
)
from .safe_arrays import MAX_FILE_BYTES
from .safe_npz import MEMBER_NAME, NPY_MAGIC, ZIP_MAGIC, read_npy, read_npz
from .safe_pickle import read_pickle

_KEYS = frozenset((*REQUIRED, *ALIASES, *EXTRAS, *JOINT_BASES))


def load_body_model(path: str | os.PathLike[str]) -> BodyModelData:
    """Load a SMPL, SMPL-H, SMPL-X, MANO, FLAME or STAR file without running anything that it holds.

    Reads the official .pkl files (any protocol; chumpy and SciPy need not be installed), the official .npz files, and
    what `save_body_model` wrote. Format and family come from the contents, never from the name: the number of joints
    and the width of `posedirs` decide the family. Pose correctives that are all zero become None.

    `shapedirs` of SMPL-X and FLAME files hold shape and then expression. 400 columns or more: the first 300 are betas,
    the next 100 expression. Fewer: the first 10 are betas, columns 10 to 19 expression and any others are left out,
    as smplx does. All columns of the other families are betas.

    Args:
        path: the file.

    Returns:
        The constants, in metres, with the type of the file (official files hold float64). Hand components, landmarks,
        texture coordinates and the like are in `extras` under the file's own names.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged, hostile or not a body model; the text names the file and the array.

    Example:
        >>> import tempfile, os
        >>> from physique.bodymodel import BodyModelData, load_body_model, save_body_model
        >>> import numpy as np
        >>> hand = BodyModelData(
        ...     "mano", np.zeros((4, 3)), np.array([[0, 1, 2]]), np.full((4, 16), 1 / 16), np.zeros((4, 3, 10)),
        ...     J_regressor=np.full((16, 4), 1 / 4),
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_body_model(hand, os.path.join(folder, "hand.npz"))
        ...     load_body_model(os.path.join(folder, "hand.npz"))
        BodyModelData(mano: 4 vertices, 1 faces, 16 joints, 10 betas, no pose correctives)
    """
    path = Path(path)
    try:
        # Damaged numbers may overflow on the way to the check that refuses them.
        with np.errstate(all="ignore"):
            return _assemble(_read_arrays(_contents(path)))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: expected a body model file, got no file; check the path") from None
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: {_explain(error)}") from None


def _explain(error: Exception) -> str:
    """Return the text of an error; what Python, zipfile and NumPy say of scrambled data is put into words first."""
    if isinstance(error, ValueError) and ": expected " in f": {error}":
        return str(error)
    cause = f"{type(error).__name__}: {error}".encode("ascii", "backslashreplace").decode()
    return f"expected a body model file, got damaged data ({cause[:120]}); download it again"


def _contents(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise ValueError("expected a file, got a folder or a device; give the path of a .pkl or .npz file")
    with path.open("rb") as stream:
        # A limit given to read() would be allocated at once, so the size comes first.
        size = os.fstat(stream.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise ValueError(f"expected at most {MAX_FILE_BYTES >> 20} MiB, got more; this is not a body model file")
        data = stream.read(size)
    if not data:
        raise ValueError("expected a body model file, got an empty file; download it again")
    return data


def _read_arrays(data: bytes) -> dict[str, np.ndarray]:
    if data.startswith(ZIP_MAGIC):
        return read_npz(data, _wanted)
    if data.startswith(NPY_MAGIC):
        return read_npy(data, _wanted)
    if data[:1] not in (b"\x80", b"(", b"}", b"c"):
        start = bytes(data[:12])
        raise ValueError(f"expected a pickle or an .npz archive, got a file that starts with {start!r}; check the path")
    return read_pickle(data, _wanted)


def _wanted(key: str) -> bool:
    return key in _KEYS or (key.startswith(OWN_PREFIX) and MEMBER_NAME.fullmatch(key) is not None)


def _assemble(arrays: dict[str, np.ndarray]) -> BodyModelData:
    for old, new in ALIASES.items():
        if old in arrays:
            arrays.setdefault(new, arrays.pop(old))
    arrays = {key: array.astype(array.dtype.newbyteorder("="), copy=False) for key, array in arrays.items()}
    joints_given = all(key in arrays for key in JOINT_BASES)
    missing = [key for key in REQUIRED if key not in arrays and not (key == "J_regressor" and joints_given)]
    if missing:
        raise ValueError(
            f"expected the keys {', '.join(REQUIRED)}, got none called {', '.join(missing)}; check the file"
        )
    posedirs = _posedirs(arrays)
    family = _family(arrays["kintree_table"], posedirs.shape[2])
    _check_tree(arrays["kintree_table"], family)
    shapedirs, fields = arrays["shapedirs"], own_fields(arrays)
    if "coefficients" not in fields and shapedirs.ndim == 3:
        fields["coefficients"] = official_coefficients(family.name, shapedirs.shape[2])
        shapedirs = shapedirs[:, :, : sum(count for _, count in fields["coefficients"])]
    fields["extras"] |= {key: arrays[key] for key in EXTRAS if key in arrays}
    data = BodyModelData(
        family=family.name,
        v_template=arrays["v_template"],
        faces=arrays["f"],
        lbs_weights=arrays["weights"],
        shapedirs=shapedirs,
        posedirs=posedirs if posedirs.any() else None,
        J_regressor=arrays.get("J_regressor"),
        J_template=arrays.get("J_template"),
        J_shapedirs=arrays.get("J_shapedirs"),
        **fields,
    )
    check_extras(data)
    return data


def _posedirs(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return posedirs as (V, 3, P); some files hold it as (3V, P)."""
    posedirs, vertices = arrays["posedirs"], arrays["v_template"].shape[:1]
    if posedirs.ndim == 2 and vertices and posedirs.shape[0] == 3 * vertices[0]:
        posedirs = posedirs.reshape(vertices[0], 3, -1)
    if posedirs.ndim != 3:
        raise ValueError(f"posedirs: expected (V, 3, P), got {posedirs.shape}; the array does not belong to this model")
    return posedirs


def _family(kintree_table: np.ndarray, width: int) -> Family:
    joints = kintree_table.shape[-1] if kintree_table.ndim else 0
    for family in FAMILIES.values():
        widths = {family.feature_width, family.feature_width + (family.pose_feature == "quaternion")}
        if joints == family.skeleton.num_joints and width in widths:
            return family
    known = ", ".join(f"{f.name} ({f.skeleton.num_joints}, {f.feature_width})" for f in FAMILIES.values())
    raise ValueError(
        f"family: expected joints and posedirs width of {known}, got ({joints}, {width}); this is another kind of model"
    )


def _check_tree(kintree_table: np.ndarray, family: Family) -> None:
    """Check that the file's tree is the family's: official files write the root's parent as 2**32 - 1."""
    table = np.atleast_2d(kintree_table)
    if table.ndim != 2 or table.shape[0] > 2 or table.dtype.kind not in "iuf":
        raise ValueError(
            f"kintree_table: expected (2, J) integers, got {table.shape} {table.dtype}; the file is damaged"
        )
    parents = table[0].astype(np.float64)
    parents[0] = -1 if parents[0] in (-1, 2**32 - 1, 2**64 - 1) else parents[0]
    wrong = np.flatnonzero(parents != np.array(family.skeleton.parents))
    if wrong.size:
        joint = int(wrong[0])
        raise ValueError(
            f"kintree_table: expected the tree of {family.name}, got parent {parents[joint]:g} for joint {joint} "
            f"instead of {family.skeleton.parents[joint]}; the file is damaged or is another kind of model"
        )
    if table.shape[0] == 2 and not np.array_equal(table[1], np.arange(table.shape[1])):
        raise ValueError("kintree_table: expected joints 0, 1, 2, … in its second row, got others; the file is damaged")
