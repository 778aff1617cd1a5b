"""The built-in human body: free, shipped with the package, in SMPL's format."""

from __future__ import annotations

from functools import lru_cache

from .data import BodyModelData
from .open_body_arrays import open_body_arrays


@lru_cache(maxsize=2)
def open_body(detail: str = "full") -> BodyModelData:
    """Return the built-in body: SMPL's 24 joints and axes, a real human shape, no licence to sign.

    Made from CC0 MakeHuman data and calibrated on ANSUR II, so that betas drawn from a standard normal give adults,
    half men and half women, of the right stature, weight and main lengths. T-pose, metres, pelvis at the origin. It has
    SMPL's *format*: a file or network trained for SMPL's betas, vertex ids or UVs does not fit it. No pose correctives.

    Args:
        detail: "full" (about 12,000 vertices) or "low" (about 2,000, for speed).

    Returns:
        The data, the same object each time.

    Raises:
        ValueError: another detail.

    Example:
        >>> from physique.bodymodel import BodyModel, open_body
        >>> BodyModel(open_body("low")).joints().shape
        torch.Size([24, 3])
    """
    arrays = open_body_arrays(detail)
    names, starts, indices, values = arrays["anchors"]
    rows = zip(names, starts[:-1], starts[1:], strict=True)
    return BodyModelData(
        family="smpl",
        v_template=arrays["v_template"],
        faces=arrays["faces"],
        lbs_weights=arrays["lbs_weights"],
        shapedirs=arrays["shapedirs"],
        J_regressor=arrays["J_regressor"],
        vertex_ids=arrays["vertex_ids"],
        anchors={name: (indices[start:end], values[start:end]) for name, start, end in rows},
        extras={"vert_sym_idxs": arrays["vert_sym_idxs"]},
    )
