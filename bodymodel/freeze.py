"""Fold what does not change into a model: a known identity, hands that stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .arguments import fixed_constants, local_rotations
from .data import BodyModelData
from .passes import Constants, Plan, vertex_bases


def freeze_shape(data: BodyModelData, coefficients: Mapping[str, np.ndarray]) -> BodyModelData:
    """Return the model whose template has these shape arguments, and which takes them no more.

    Args:
        data: any model.
        coefficients: by argument: (n,) coefficients, the rest zero; of segment_scale, s - 1.
    """
    if not coefficients:
        return data
    directions, joint_directions = data.shapedirs.astype(np.float64), np.asarray(data.J_shapedirs, np.float64)
    template, joints = data.v_template.astype(np.float64), np.asarray(data.J_template, np.float64)
    posedirs, width = data.posedirs, data.table_row.feature_width
    kept, remaining, column = [], [], 0
    for name, count in data.coefficients:
        values = coefficients.get(name)
        if values is None:
            kept += range(column, column + count)
            remaining.append((name, count))
        else:
            columns = slice(column, column + values.size)
            template = template + directions[:, :, columns] @ values
            joints = joints + joint_directions[:, :, columns] @ values
            if name == "betas" and posedirs is not None and posedirs.shape[2] > width:
                # STAR's last corrective is driven by betas[1].
                template = template + posedirs[:, :, width] * (values[1] if values.size > 1 else 0)
                posedirs = posedirs[:, :, :width]
        column += count
    return replace(
        data,
        v_template=template.astype(data.v_template.dtype),
        shapedirs=data.shapedirs[:, :, kept],
        posedirs=posedirs,
        J_regressor=None,
        J_template=joints.astype(data.v_template.dtype),
        J_shapedirs=joint_directions[:, :, kept].astype(data.v_template.dtype),
        coefficients=tuple(remaining) or (("betas", 0),),
    )


def frozen_constants(plan: Plan, constants: Constants, poses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the buffers that change when the rotations (count, 3, 3) of these parts, in float64, become constants."""
    fixed = {name: value.to(constants["_identity"].device) for name, value in fixed_constants(poses).items()}
    identity = {"_identity": constants["_identity"].double()}
    _, feature = local_rotations({}, "matrix", plan.row, fixed | identity, tuple(poses))
    joints = torch.cat([torch.full((part.count,), part.name not in poses) for part in plan.row.parts])
    moving = joints[1:].repeat_interleave(len(feature) // (plan.num_joints - 1)).nonzero().squeeze(-1)
    changed = {name: value.to(constants["_identity"]) for name, value in fixed.items()}
    changed["_moving_features"] = moving = moving.to(feature.device)
    if plan.has_correctives:
        bases = vertex_bases(plan, constants)
        changed["_template"] = bases.template + (feature @ bases.pose_directions.double()).to(bases.template)
        correctives, shape = constants["_directions"].split((len(feature), bases.shapes))
        changed["_directions"] = torch.cat((correctives.index_select(0, moving), shape))
    return changed
