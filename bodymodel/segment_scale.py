"""Segment scales as a linear shape space: body proportions without a statistical model."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from .data import BodyModelData
from .skeleton import Skeleton


def segment_scale_model(
    data: BodyModelData, betas: Float[np.ndarray, " n"] | None = None, *, per_axis: bool = False
) -> BodyModelData:
    """Return a model whose shape argument is `segment_scale`, one number a joint (1 = template), in place of betas.

    Segment k is scaled by s_k about its joint and not inherited: rest joints follow J'_c = J'_p + s_p (J_c - J_p), rest
    vertices v' = sum_j w_vj (s_j (v - J_j) + J'_j). Both are linear in s, so the result is an ordinary linear model
    with the coefficient s - 1, and runs through the same code. Pose correctives and expression directions, where the
    model has any, are kept as they are. The rest joints are no longer a regression from the scaled vertices, so
    J_regressor is None and the joint bases are given directly.

    Args:
        data: any model with betas.
        betas: (n,) the identity to scale, n up to the model's; default the mean shape.
        per_axis: three numbers a joint, along axes fixed to the rest pose: the first from the joint to the mean of its
            children (a leaf: from its parent), the second across it in the direction nearest to forward (z; nearest to
            up where the bone itself points forward), the third across both.

    Returns:
        Data whose model takes segment_scale (*B, J), or (*B, J, 3) with `per_axis`.

    Raises:
        ValueError: the model has segment scales already, or more betas than it holds.

    Source: segment scales replace betas in Yoshiyasu and Gamez 2019, whose text leaves their action open; this form is
    ours.

    Example:
        >>> import torch
        >>> from physique.bodymodel import BodyModel, segment_scale_model, synthetic_model
        >>> model = BodyModel(segment_scale_model(synthetic_model("smpl")))
        >>> long_thighs = torch.ones(24).index_fill(0, torch.tensor([1, 2]), 1.2)
        >>> model(segment_scale=long_thighs).vertices.shape
        torch.Size([200, 3])
    """
    if data.count("segment_scale"):
        raise ValueError("data: expected a model with betas, got one with segment_scale; start from the original data")
    template, J_template = _identity(data, betas)
    if per_axis:
        projections = _axis_projections(data.skeleton, J_template)
    else:
        projections = np.broadcast_to(np.eye(3), (data.num_joints, 1, 3, 3))
    J_directions = _joint_directions(data.skeleton, J_template, projections)
    from_joint = template[:, None] - J_template
    scaled = np.einsum("vj,jaxy,vjy->vxja", data.lbs_weights, projections, from_joint, optimize=True)
    directions = scaled.reshape(*template.shape, -1) + np.tensordot(data.lbs_weights, J_directions, 1)
    first = data.num_betas
    width, dtype = data.table_row.feature_width, data.v_template.dtype
    kept = [(name, count) for name, count in data.coefficients if name != "betas"]
    return BodyModelData(
        family=data.family,
        v_template=template.astype(dtype),
        faces=data.faces,
        lbs_weights=data.lbs_weights,
        shapedirs=np.concatenate((directions, data.shapedirs[:, :, first:]), axis=2).astype(dtype),
        posedirs=None if data.posedirs is None else data.posedirs[:, :, :width],
        J_template=J_template.astype(dtype),
        J_shapedirs=np.concatenate((J_directions, _J_shapedirs(data)[:, :, first:]), axis=2).astype(
            data.v_template.dtype
        ),
        coefficients=(("segment_scale", directions.shape[2]), *kept),
        vertex_ids=data.vertex_ids,
        anchors=data.anchors,
        extras=data.extras,
    )


def _J_shapedirs(data: BodyModelData) -> np.ndarray:
    assert data.J_shapedirs is not None
    return data.J_shapedirs


def _identity(data: BodyModelData, betas: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices (V, 3) and joints (J, 3) of the identity in the rest pose, in float64."""
    values = np.zeros(0) if betas is None else np.asarray(betas, dtype=np.float64)
    if values.ndim != 1 or values.size > data.num_betas or not np.isfinite(values).all():
        raise ValueError(
            f"betas: expected (n,) finite numbers, n <= {data.num_betas}, got {values.shape}; pass one identity"
        )
    assert data.J_template is not None
    template = data.v_template + data.shapedirs[:, :, : values.size].astype(np.float64) @ values
    width = data.table_row.feature_width
    if data.posedirs is not None and data.posedirs.shape[2] > width and values.size > 1:
        template = template + data.posedirs[:, :, width] * values[1]
    return template, data.J_template + _J_shapedirs(data)[:, :, : values.size].astype(np.float64) @ values


def _joint_directions(skeleton: Skeleton, joints: np.ndarray, projections: np.ndarray) -> np.ndarray:
    """Return (J, 3, J * A): how the rest joints move with each scale, down the tree."""
    count, axes = projections.shape[:2]
    directions = np.zeros((count, 3, count, axes))
    for joint, parent in enumerate(skeleton.parents):
        if parent >= 0:
            directions[joint] = directions[parent]
            directions[joint, :, parent] += (projections[parent] @ (joints[joint] - joints[parent])).T
    return directions.reshape(count, 3, count * axes)


def _axis_projections(skeleton: Skeleton, joints: np.ndarray) -> np.ndarray:
    """Return (J, 3, 3, 3): for each joint the projections q q^T on the three axes of its segment."""
    projections = np.empty((skeleton.num_joints, 3, 3, 3))
    for joint, (parent, children) in enumerate(zip(skeleton.parents, skeleton.children, strict=True)):
        if children:
            along = joints[list(children)].mean(axis=0) - joints[joint]
        else:
            along = joints[joint] - joints[max(parent, 0)]
        length = np.linalg.norm(along)
        first = along / length if length > 1e-9 else np.array([1.0, 0.0, 0.0])
        reference = np.array([0.0, 0.0, 1.0]) if abs(first[2]) < 0.9 else np.array([0.0, 1.0, 0.0])
        second = reference - (reference @ first) * first
        second /= np.linalg.norm(second)
        for axis, direction in enumerate((first, second, np.cross(first, second))):
            projections[joint, axis] = np.outer(direction, direction)
    return projections
