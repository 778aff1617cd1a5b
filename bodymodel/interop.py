"""Take the constants out of an existing smplx model."""

from __future__ import annotations

from typing import Any

import numpy as np

from .data import BodyModelData
from .families import FAMILIES
from .file_keys import EXTRAS, check_extras

_EXTRA_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "hands_componentsl": ("np_left_hand_components", "left_hand_components"),
    "hands_componentsr": ("np_right_hand_components", "right_hand_components"),
    "hands_meanl": ("left_hand_mean",),
    "hands_meanr": ("right_hand_mean",),
    "hands_components": ("np_hand_components", "hand_components"),
    "hands_mean": ("hand_mean",),
    **{key: (key,) for key in EXTRAS if "lmk" in key},
}


def from_smplx(layer: Any) -> BodyModelData:
    """Return the constants of a smplx model or layer: SMPL, SMPLH, SMPLX, MANO or FLAME.

    Only attributes are read, so smplx need not be importable here. What the model was built with is what comes out: as
    many betas and expression coefficients as it kept, as many rows of hand components, and hand means of zero where it
    was built with `flat_hand_mean=True`. Its parameters (betas, poses) are not constants and stay behind.

    Args:
        layer: the smplx model, on any device.

    Returns:
        The constants, with the type of the model's buffers.

    Raises:
        TypeError: an object that lacks the attributes of a smplx model.
        ValueError: a tree or sizes that are those of no known family.
    """
    needed = ("v_template", "shapedirs", "posedirs", "J_regressor", "lbs_weights", "parents")
    missing = [name for name in needed if not hasattr(layer, name)]
    if missing or not (hasattr(layer, "faces_tensor") or hasattr(layer, "faces")):
        raise TypeError(
            f"layer: expected a smplx model, got {type(layer).__name__} without {', '.join(missing) or 'faces'}; "
            "build it with smplx.create"
        )
    v_template = _array(layer.v_template)
    posedirs = np.ascontiguousarray(_array(layer.posedirs).T).reshape(v_template.shape[0], 3, -1)
    parents = tuple(int(parent) for parent in _array(layer.parents))
    shapedirs = {"betas": _array(layer.shapedirs)}
    if hasattr(layer, "expr_dirs"):
        # Of small files smplx keeps ten directions even where it drives fewer.
        used = getattr(layer, "num_expression_coeffs", None)
        shapedirs["expression"] = _array(layer.expr_dirs)[:, :, :used]
    extras = {}
    for key, names in _EXTRA_ATTRIBUTES.items():
        name = next((name for name in names if getattr(layer, name, None) is not None), None)
        if name is not None:
            extras[key] = _array(getattr(layer, name))
    data = BodyModelData(
        family=_family(parents, posedirs.shape[-1]),
        v_template=v_template,
        faces=_array(layer.faces_tensor if hasattr(layer, "faces_tensor") else layer.faces),
        lbs_weights=_array(layer.lbs_weights),
        shapedirs=np.concatenate(list(shapedirs.values()), axis=-1),
        posedirs=posedirs if posedirs.any() else None,
        J_regressor=_array(layer.J_regressor),
        coefficients=tuple((argument, directions.shape[-1]) for argument, directions in shapedirs.items()),
        extras=extras,
    )
    check_extras(data)
    return data


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _family(parents: tuple[int, ...], width: int) -> str:
    for family in FAMILIES.values():
        if family.skeleton.parents == parents and family.feature_width == width:
            return family.name
    raise ValueError(
        f"layer: expected the tree of {', '.join(FAMILIES)}, got {len(parents)} joints with {width} pose features; "
        "this is another kind of model"
    )
