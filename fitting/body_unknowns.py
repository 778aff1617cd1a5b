"""The unknowns of a fit in three dimensions: the model's arguments, and how they start and come back."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from ..bodymodel import BodyModel
from ..geometry import matrix_to_axis_angle
from ..geometry.checks import expect_shape
from .solution import Solution


def shape_arguments(model: BodyModel) -> dict[str, Tensor]:
    """Return the model's shape arguments by name, each (n,) or (J, 3), of the mean body."""
    joints, like = model.data.num_joints, model.v_template
    mean = {}
    for name, count in model.data.coefficients:
        if name == "segment_scale":
            mean[name] = like.new_ones((joints,) if count == joints else (joints, 3))
        elif count:
            mean[name] = like.new_zeros(count)
    return mean


def pose_arguments(model: BodyModel, local: Tensor) -> dict[str, Tensor]:
    """Return local rotations (*B, J, 3, 3) as the model's pose arguments, axis-angle."""
    axis_angle, pose, first = matrix_to_axis_angle(local), {}, 0
    for part in model.data.table_row.parts:
        value = axis_angle.narrow(-2, first, part.count)
        if part.name in model.arguments:
            pose[part.name] = value.squeeze(-2) if part.single else value
        first += part.count
    return pose


def expect_model(model: BodyModel, *, whole: bool = False) -> None:
    """Refuse what no fit can move.

    Args:
        model: of a fit.
        whole: whether it needs a `body_pose`.

    Raises:
        TypeError: it is no `BodyModel`.
        ValueError: it computes in half precision, or lacks what is needed.
    """
    if not isinstance(model, BodyModel):
        raise TypeError(f"model: expected a BodyModel, got {type(model).__name__}; use BodyModel(data)")
    if model.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"model: expected torch.float32 or torch.float64, got {model.dtype}; use model.float()")
    if whole and "body_pose" not in model.data.table_row.part_names:
        raise ValueError(f"model: expected a model with body_pose, got {model.data.family}; use a full body")


def read_targets(
    name: str, points: Tensor, weights: Tensor | None, count: int, like: Tensor, *, sequence: bool, advice: str
) -> tuple[torch.Size, Tensor, Tensor]:
    """Return the batch of points (*B, count, 3), and them and their weights flat: (N, count, 3) and (N, count).

    Raises:
        ValueError: shapes that do not fit, or a sequence without a time dimension.
    """
    batch = expect_shape(name, points, count, 3, advice=advice)
    if sequence and not batch:
        raise ValueError(f"{name}: expected (*batch, T, N, 3) with sequence=True, got no time dimension; add one")
    target = points.detach().to(like).reshape(batch.numel(), count, 3)
    weight = target.new_ones(target.shape[:-1])
    if weights is not None:
        expect_shape("weights", weights, count)
        weight = weights.detach().to(target).expand(*batch, count).reshape(weight.shape)
    return batch, target, weight


def tells_all(init: Solution | None, names: Collection[str]) -> bool:
    """Return whether a previous solution has all unknowns, so that no other start is needed."""
    return init is not None and all(name in init.params for name in names)


def at_rest(model: BodyModel, names: Collection[str], count: int) -> dict[str, Tensor]:
    """Return the unknowns `names` (count, ...) of mean bodies at the origin, no joint turned."""
    like = model.v_template
    events = {part.name: (3,) if part.single else (part.count, 3) for part in model.data.table_row.parts}
    mean = shape_arguments(model)
    return {
        name: repeated(mean, count)[name] if name in mean else like.new_zeros(count, *events.get(name, (3,)))
        for name in names
    }


def resumed(init: Solution, start: dict[str, Tensor], batch: torch.Size) -> dict[str, Tensor]:
    """Return `start` (N, ...) with the values that a previous solution has in their place.

    Its batch broadcasts: one frame may be the start of all.

    Raises:
        ValueError: the solution belongs to other samples or another model.
    """
    taken = dict(start)
    for name, value in start.items():
        if name not in init.params:
            continue
        given, event = init.params[name].detach(), value.shape[1:]
        wanted = (*batch, *event)
        before = given.dim() - len(event)
        if before < 0 or given.shape[before:] != event or not broadcasts(given.shape[:before], batch):
            raise ValueError(
                f"init: expected {name} {tuple(wanted)}, got {tuple(given.shape)}; "
                "pass a solution for the same samples and model, or for one frame of them"
            )
        taken[name] = given.to(value).expand(wanted).reshape(value.shape)
    return taken


def broadcasts(batch: torch.Size, to: torch.Size) -> bool:
    """Return whether tensors with the first batch expand to the second."""
    sizes = zip(reversed(batch), reversed(to), strict=False)
    return len(batch) <= len(to) and all(one in (1, other) for one, other in sizes)


def reported(solved: Solution, params: dict[str, Tensor], residuals: Tensor, batch: torch.Size) -> Solution:
    """Return a solution of flat samples (N,) in the caller's batch."""
    return solved._replace(
        params={name: value.reshape(*batch, *value.shape[1:]) for name, value in params.items()},
        loss=solved.loss.reshape(batch),
        status=solved.status.reshape(batch),
        history=solved.history.reshape(len(solved.history), *batch),
        residuals=residuals.reshape(*batch, residuals.shape[-1]),
    )


def repeated(values: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return values without batch, repeated to (count, ...)."""
    return {name: value.expand(count, *value.shape) for name, value in values.items()}


def rotation_names(model: BodyModel, names: Collection[str]) -> tuple[str, ...]:
    """Return those of `names` that are pose arguments."""
    return tuple(name for name in names if name in model.data.table_row.part_names)
