"""Write the assets: compact arrays, exact symmetry, the same bytes at every build.

Keys of `open_body.npz` and `open_body_low.npz` (no object arrays):

- v_template float32 (V, 3): mean body, T-pose, metres, pelvis joint at the origin.
- shapedirs int16 (V, 3, S) and shapedirs_scale float32 (S,): direction s is shapedirs[..., s] * shapedirs_scale[s].
- faces uint16 (F, 3); vert_sym_idxs uint16 (V,): the reflection of each vertex; kintree_table int64 (2, 24), root −1.
- weights_index uint8 (V, 6), weights_value uint16 (V, 6): skin weights in units of 1/65535; each row sums to 65535.
- J_regressor_indptr uint16 (25,), J_regressor_indices uint16 (n,), J_regressor_values float32 (n,): CSR rows.
- anchor_names str (A,), anchor_indptr, anchor_indices, anchor_values: the keypoint anchors, CSR as above.
- vertex_names str (N,), vertex_ids uint16 (N,): the named vertices.
"""

from __future__ import annotations

import io
import zipfile

import numpy as np

from .rig import JOINT_MIRROR, PARENTS

LEVELS = 65535
MAX_WEIGHTS = 6


def quantised_shape(template: np.ndarray, directions: np.ndarray, mirror: np.ndarray) -> dict[str, np.ndarray]:
    """Return v_template, shapedirs and their scale, made exactly symmetric.

    Args:
        template: (V, 3) metres; `directions`: (V, 3, S); `mirror`: (V,).
    """
    scale = (np.abs(directions).max(axis=(0, 1)) / 32767.0).astype(np.float32)
    steps = np.rint(directions / scale).astype(np.int16)
    return {
        "v_template": _mirrored(template.astype(np.float32), mirror),
        "shapedirs": _mirrored(steps, mirror),
        "shapedirs_scale": scale,
    }


def packed_weights(weights: np.ndarray, mirror: np.ndarray) -> dict[str, np.ndarray]:
    """Keep the six largest weights (V, 24) of each vertex as integers that sum to 65535, exactly symmetric."""
    order = np.argsort(-weights, axis=1, kind="stable")[:, :MAX_WEIGHTS]
    kept = np.zeros_like(weights)
    np.put_along_axis(kept, order, np.take_along_axis(weights, order, axis=1), axis=1)
    own = mirror == np.arange(len(weights))
    reflected = kept[own][:, JOINT_MIRROR]
    # a joint that is kept without its reflection would make a seventh
    kept[own] = np.where((kept[own] > 0.0) & (reflected > 0.0), 0.5 * (kept[own] + reflected), 0.0)
    levels = np.floor(kept / kept.sum(axis=1, keepdims=True) * LEVELS).astype(np.int64)
    # what rounding down lost goes to the largest weight; on the midline to the largest that is its own reflection
    central = np.array(JOINT_MIRROR) == np.arange(weights.shape[1])
    largest = np.where(own[:, None] & ~central, -1, levels).argmax(axis=1)
    levels[np.arange(len(levels)), largest] += LEVELS - levels.sum(axis=1)
    right = ~own & (np.arange(len(mirror)) > mirror)
    levels[right] = levels[mirror[right]][:, JOINT_MIRROR]
    index = np.sort(np.argsort(-levels, axis=1, kind="stable")[:, :MAX_WEIGHTS], axis=1)
    value = np.take_along_axis(levels, index, axis=1)
    if (value.sum(axis=1) != LEVELS).any():
        raise ValueError(f"weights: expected at most {MAX_WEIGHTS} a vertex, got more on the midline")
    return {"weights_index": index.astype(np.uint8), "weights_value": value.astype(np.uint16)}


def sparse_rows(name: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return dense rows as CSR arrays `<name>_indptr`, `_indices`, `_values`."""
    where = [np.flatnonzero(row) for row in rows]
    return {
        f"{name}_indptr": np.cumsum([0, *map(len, where)]).astype(np.uint16),
        f"{name}_indices": np.concatenate(where).astype(np.uint16),
        f"{name}_values": np.concatenate([row[k] for row, k in zip(rows, where, strict=True)]).astype(np.float32),
    }


def dense_rows(arrays: dict[str, np.ndarray], name: str, columns: int) -> np.ndarray:
    """Return the dense rows that `sparse_rows` packed."""
    indptr = arrays[f"{name}_indptr"].astype(np.int64)
    rows = np.zeros((len(indptr) - 1, columns))
    row = np.repeat(np.arange(len(rows)), np.diff(indptr))
    rows[row, arrays[f"{name}_indices"]] = arrays[f"{name}_values"]
    return rows


def asset(
    shape: dict, faces: np.ndarray, mirror: np.ndarray, weights: dict, regressor: np.ndarray, anchors: tuple, ids: dict
) -> dict[str, np.ndarray]:
    """Assemble every array of one asset."""
    names, rows = anchors
    return {
        **shape,
        "faces": faces.astype(np.uint16),
        "vert_sym_idxs": mirror.astype(np.uint16),
        "kintree_table": np.stack([PARENTS, np.arange(len(PARENTS))]).astype(np.int64),
        **weights,
        **sparse_rows("J_regressor", regressor),
        "anchor_names": np.array(names),
        **sparse_rows("anchor", rows),
        "vertex_names": np.array(list(ids)),
        "vertex_ids": np.array(list(ids.values()), dtype=np.uint16),
    }


def npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """Return the .npz file; fixed time stamps make it the same at every build."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), content.getvalue(), zipfile.ZIP_DEFLATED
            )
    return buffer.getvalue()


def _mirrored(values: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Overwrite the later vertex of each pair with the reflection of the earlier one; x is 0 on the midline."""
    flip = np.array([-1, 1, 1], dtype=values.dtype).reshape(1, 3, *[1] * (values.ndim - 2))
    later = mirror < np.arange(len(mirror))
    result = values.copy()
    result[later] = values[mirror[later]] * flip
    result[mirror == np.arange(len(mirror)), 0] = 0
    return result
