"""Read the arrays of the built-in body from the package's own assets, with NumPy only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_FILES = {"full": "open_body.npz", "low": "open_body_low.npz"}


def open_body_arrays(detail: str = "full") -> dict[str, Any]:
    """Return the arrays of the built-in body in SMPL's layout.

    Args:
        detail: "full" (about 12,000 vertices) or "low" (about 2,000).

    Returns:
        A dictionary of
        `v_template` (V, 3) float32, metres, T-pose, pelvis joint at the origin;
        `shapedirs` (V, 3, S) float32, one population standard deviation a unit;
        `lbs_weights` (V, 24) float32, rows sum to 1;
        `J_regressor` (24, V) float32, rows sum to 1;
        `faces` (F, 3) int64; `parents` (24,) int64, root −1; `vert_sym_idxs` (V,) int64;
        `vertex_ids`: name to vertex;
        `anchors`: (names, indptr (A+1,), indices (n,), values (n,)), the sparse rows of the keypoint anchors.

    Raises:
        ValueError: `detail` is neither.
    """
    if detail not in _FILES:
        raise ValueError(f'detail: expected "full" or "low", got {detail!r}')
    with np.load(Path(__file__).with_name("assets") / _FILES[detail], allow_pickle=False) as file:
        stored = {name: file[name] for name in file.files}
    count = len(stored["v_template"])
    weights = np.zeros((count, stored["kintree_table"].shape[1]), dtype=np.float32)
    np.put_along_axis(
        weights, stored["weights_index"].astype(np.int64), stored["weights_value"] / np.float32(65535.0), axis=1
    )
    regressor = np.zeros((weights.shape[1], count), dtype=np.float32)
    row = np.repeat(np.arange(weights.shape[1]), np.diff(stored["J_regressor_indptr"].astype(np.int64)))
    regressor[row, stored["J_regressor_indices"]] = stored["J_regressor_values"]
    return {
        "v_template": stored["v_template"],
        "shapedirs": stored["shapedirs"] * stored["shapedirs_scale"],
        "lbs_weights": weights,
        "J_regressor": regressor,
        "faces": stored["faces"].astype(np.int64),
        "parents": stored["kintree_table"][0],
        "vert_sym_idxs": stored["vert_sym_idxs"].astype(np.int64),
        "vertex_ids": dict(zip(stored["vertex_names"].tolist(), stored["vertex_ids"].tolist(), strict=True)),
        "anchors": (
            tuple(stored["anchor_names"].tolist()),
            stored["anchor_indptr"].astype(np.int64),
            stored["anchor_indices"].astype(np.int64),
            stored["anchor_values"],
        ),
    }
