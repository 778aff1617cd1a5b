"""The keys of model files: the official ones, their older names, and the few that this library adds."""

from __future__ import annotations

from typing import Any

import numpy as np

from .data import BodyModelData

REQUIRED = ("v_template", "f", "weights", "shapedirs", "posedirs", "J_regressor", "kintree_table")

ALIASES = {
    "default_v": "v_template",
    "template_v": "v_template",
    "joint_regressor": "J_regressor",
    "blendshapes": "posedirs",
}

EXTRAS: dict[str, tuple[int | str, ...]] = {
    **{f"hands_components{side}": ("N", 45) for side in ("", "l", "r")},
    **{f"hands_mean{side}": (45,) for side in ("", "l", "r")},
    **{f"hands_coeffs{side}": ("N", "M") for side in ("", "l", "r")},
    "lmk_faces_idx": ("L",),
    "lmk_bary_coords": ("L", 3),
    "dynamic_lmk_faces_idx": ("A", "D"),
    "dynamic_lmk_bary_coords": ("A", "D", 3),
    "vt": ("T", 2),
    "ft": ("F", 3),
    "vert_sym_idxs": ("V",),
    "cocoplus_regressor": ("K", "V"),
}
"""Official arrays that go to `extras`, with their shapes; equal letters are equal sizes."""

JOINT_BASES = ("J_template", "J_shapedirs")
"""Given where the rest joints do not follow from a regressor."""

OWN_PREFIX = "physique."
"""What official files have no key for is saved under names that begin so."""

_ARGUMENTS = ("betas", "expression", "segment_scale")
_FULL_SHAPE, _FULL_EXPRESSION, _SMALL = 300, 100, 10
_INDICES = {"lmk_faces_idx": "F", "dynamic_lmk_faces_idx": "F", "ft": "T", "vert_sym_idxs": "V"}


def check_extras(data: BodyModelData) -> None:
    """Check shapes, values and index ranges of the official arrays in `extras`; a ValueError names the array."""
    sizes = {"V": data.num_vertices, "F": data.faces.shape[0]}
    for key, shape in EXTRAS.items():
        if key not in data.extras:
            continue
        array = data.extras[key]
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise ValueError(f"{key}: expected finite numbers, got others; the file is damaged")
        fits = array.ndim == len(shape)
        for size, got in zip(shape, array.shape, strict=False):
            wanted = sizes.setdefault(size, got) if isinstance(size, str) and size not in "NM" else size
            fits = fits and (wanted == got or wanted in ("N", "M"))
        if not fits:
            named = ", ".join(str(sizes.get(size, size)) if isinstance(size, str) else str(size) for size in shape)
            raise ValueError(f"{key}: expected ({named}), got {array.shape}; the array does not belong to this model")
    for key, letter in _INDICES.items():
        array = data.extras.get(key)
        if array is not None and letter in sizes and array.size:
            if not np.array_equal(array, np.floor(array)) or array.min() < 0 or array.max() >= sizes[letter]:
                raise ValueError(f"{key}: expected indices 0 to {sizes[letter] - 1}, got others; the file is damaged")


def official_coefficients(family: str, columns: int) -> tuple[tuple[str, int], ...]:
    """Return what the columns of an official file's `shapedirs` are, in order; see `load_body_model` for the rule."""
    if family not in ("smplx", "flame"):
        return (("betas", columns),)
    if columns >= _FULL_SHAPE + _FULL_EXPRESSION:
        return (("betas", _FULL_SHAPE), ("expression", _FULL_EXPRESSION))
    betas = min(columns, _SMALL)
    return (("betas", betas), ("expression", min(columns - betas, _SMALL)))


def own_arrays(data: BodyModelData) -> dict[str, np.ndarray]:
    """Return what official keys cannot hold, as plain arrays; `own_fields` reads them back."""
    arrays: dict[str, np.ndarray] = {}
    if data.coefficients != official_coefficients(data.family, data.shapedirs.shape[2]):
        arrays["coefficients.names"] = np.array([name for name, _ in data.coefficients])
        arrays["coefficients.counts"] = np.array([count for _, count in data.coefficients], np.int64)
    if data.vertex_ids:
        arrays["vertex_ids.names"] = np.array(list(data.vertex_ids))
        arrays["vertex_ids.ids"] = np.array(list(data.vertex_ids.values()), np.int64)
    if data.anchors:
        arrays["anchors.names"] = np.array(list(data.anchors))
        arrays["anchors.counts"] = np.array([ids.size for ids, _ in data.anchors.values()], np.int64)
        arrays["anchors.ids"] = np.concatenate([ids for ids, _ in data.anchors.values()])
        arrays["anchors.weights"] = np.concatenate([weights for _, weights in data.anchors.values()])
    arrays |= {f"extras.{key}": array for key, array in data.extras.items() if key not in EXTRAS}
    return {OWN_PREFIX + key: array for key, array in arrays.items()}


def own_fields(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return arguments of BodyModelData from the keys that this library adds.

    Raises:
        ValueError: names, counts and values that do not fit together.
    """
    own = {key.removeprefix(OWN_PREFIX): array for key, array in arrays.items() if key.startswith(OWN_PREFIX)}
    start = "extras."
    fields: dict[str, Any] = {
        "extras": {key.removeprefix(start): array for key, array in own.items() if key.startswith(start)}
    }
    if "coefficients.names" in own:
        names, counts = _names(own, "coefficients"), _integers(own, "coefficients.counts")
        if not set(names) <= set(_ARGUMENTS) or min(counts, default=0) < 0 or len(names) != len(counts):
            raise ValueError(
                f"coefficients: expected counts of {', '.join(_ARGUMENTS)}, got others; the file is damaged"
            )
        fields["coefficients"] = tuple(zip(names, counts, strict=True))
    if "vertex_ids.names" in own:
        names, ids = _names(own, "vertex_ids"), _integers(own, "vertex_ids.ids")
        if len(names) != len(ids):
            raise ValueError("vertex_ids: expected one id a name, got another number; the file is damaged")
        fields["vertex_ids"] = dict(zip(names, ids, strict=True))
    if "anchors.names" in own:
        names, counts = _names(own, "anchors"), _integers(own, "anchors.counts")
        ids, weights = own.get("anchors.ids"), own.get("anchors.weights")
        if ids is None or weights is None or len(names) != len(counts) or not sum(counts) == len(ids) == len(weights):
            raise ValueError("anchors: expected as many ids and weights as its counts, got others; the file is damaged")
        ends = np.cumsum(counts)[:-1]
        fields["anchors"] = dict(
            zip(names, zip(np.split(ids, ends), np.split(weights, ends), strict=True), strict=True)
        )
    return fields


def _names(own: dict[str, np.ndarray], group: str) -> list[str]:
    names = own[f"{group}.names"]
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) != names.size:
        raise ValueError(f"{group}: expected distinct names, got others; the file is damaged")
    return names.tolist()


def _integers(own: dict[str, np.ndarray], key: str) -> list[int]:
    values = own.get(key)
    if values is None or values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(f"{key}: expected (N,) integers, got none; the file is damaged")
    return values.tolist()
