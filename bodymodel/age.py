"""Children as a shape direction: from the adult template towards a kid's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .data import BodyModelData


def add_age_direction(data: BodyModelData, kid_template: np.ndarray) -> BodyModelData:
    """Return the model with one more shape coefficient: 0 is an adult, 1 the kid template.

    The direction is (kid_template − its mean vertex) − v_template, as in AGORA and smplx's `age="kid"`. It becomes the
    last of `betas`, before the expression, and the joints follow it.

    Args:
        data: a SMPL, SMPL-H, SMPL-X or STAR model with a J_regressor.
        kid_template: (V, 3) metres: SMIL's template on the same mesh, smpl_kid_template.npy or smplx_kid_template.npy.

    Raises:
        ValueError: a template of another mesh, not of numbers or not finite; or a model without J_regressor (a segment-
            scale model, or one of selected vertices), whose joints could not follow.

    Source: AGORA (Patel et al. 2021), section 3.2; SMIL (Hesse et al. 2018).

    Example:
        >>> import torch
        >>> from physique.bodymodel import BodyModel, synthetic_model
        >>> adult = synthetic_model("smpl", num_vertices=50)
        >>> model = BodyModel(add_age_direction(adult, 0.5 * adult.v_template))
        >>> half_grown = torch.tensor([0.0] * 10 + [0.5])
        >>> model(betas=half_grown).vertices.shape
        torch.Size([50, 3])
    """
    kid = np.asarray(kid_template)
    if kid.dtype.kind not in "fiu" or kid.shape != data.v_template.shape:
        raise ValueError(
            f"kid_template: expected {data.v_template.shape} numbers, got {kid.shape} {kid.dtype}; "
            "take the template of the same mesh"
        )
    if not np.isfinite(kid).all():
        raise ValueError("kid_template: expected finite numbers, got NaN or infinity; the file is damaged")
    if data.J_regressor is None or data.J_shapedirs is None:
        raise ValueError(
            "J_regressor: expected (J, V), got None; "
            "add the age direction before scaling segments or selecting vertices"
        )
    kid = kid.astype(np.float64)
    direction = kid - kid.mean(axis=0) - data.v_template
    column = _end_of_betas(data)
    dtype = data.v_template.dtype
    return replace(
        data,
        shapedirs=np.insert(data.shapedirs, column, direction.astype(dtype), axis=2),
        J_shapedirs=np.insert(data.J_shapedirs, column, (data.J_regressor @ direction).astype(dtype), axis=2),
        coefficients=tuple((name, count + (name == "betas")) for name, count in data.coefficients),
    )


def _end_of_betas(data: BodyModelData) -> int:
    """Return the column of the shape basis after the last of the betas."""
    column = 0
    for name, count in data.coefficients:
        column += count
        if name == "betas":
            return column
    raise ValueError(f"coefficients: expected betas among them, got {data.coefficients}; use the unscaled model")
