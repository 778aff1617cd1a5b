"""Fit bodies to 3D joints: the inverse kinematics that turns motion capture into body parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bodymodel import BodyModel, KeypointRegressor
from ..bodymodel.limits import LimitBox
from ..geometry import axis_angle_to_matrix
from .body_sequence import shared_shape, smoothed
from .body_unknowns import (
    at_rest,
    expect_model,
    pose_arguments,
    read_targets,
    repeated,
    reported,
    resumed,
    rotation_names,
    shape_arguments,
    tells_all,
)
from .joint_energy import JointEnergy, JointWeights, joint_energy
from .joint_start import joint_start
from .least_squares import least_squares
from .solution import Solution

# A fit has settled when a step lowers its energy by less than this share: joints then move by far less than noise.
TOLERANCE = 3e-4
# Frames that are smoothed afterwards move again: until then it is enough to be near.
ROUGH_TOLERANCE = 1e-2


def fit_joints(
    model: BodyModel,
    joints: Float[Tensor, "*batch N 3"],
    *,
    joint_ids: Int[Tensor, " N"] | None = None,
    keypoint_set: str | None = None,
    weights: Float[Tensor, "*#batch N"] | None = None,
    init: Solution | None = None,
    sequence: bool = False,
    regressor: KeypointRegressor | None = None,
    limits: LimitBox | None = None,
    terms: JointWeights | None = None,
    steps: int = 30,
    callback: Callable[[int, Tensor], None] | None = None,
    throw: bool = False,
) -> Solution:
    """Find the pose, shape and place of bodies from the 3D positions of joints.

    The torso is placed by Procrustes and the bones are swung into place down the tree; Levenberg-Marquardt then moves
    everything together, within soft joint limits and with a weak pull to a relaxed pose that decides the twists joints
    cannot tell. No sample influences another. With `sequence` one shape is found for all frames of a sequence, from a
    few of them at once (their poses eliminated from the normal equations), and the motion is smoothed.

    Args:
        model: any body model. Made with `segment_scale_model`, it fits segment scales instead of betas. Hands are found
            where the joints show them; face and eyes stay at rest.
        joints: (*B, N, 3) metres, in any frame: `global_orient` and `transl` take care of it.
        joint_ids: (N,) which of the model's joints these are; default: all, in order.
        keypoint_set: which points these are instead, see `KEYPOINT_SETS`.
        weights: (*B, N), not negative, of the squared distances; zero where missing, whatever the point then holds.
        init: a previous solution to start from, of the same samples or of one frame of them: its batch broadcasts.
        sequence: the last batch dimension is time, *B = (*S, T).
        regressor: makes the points from the body, in place of `KeypointRegressor(keypoint_set, model.data)`.
        limits: of the joints in `body_pose`; default: `default_joint_limits`.
        terms: weights of the energy's terms; default: `JointWeights()`.
        steps: of Levenberg-Marquardt.
        callback: called after each step of the main solve with its number, from 1, and the losses of the flat batch.
        throw: raise ValueError unless every sample converged.

    Returns:
        A solution whose `params` go straight into the model: betas or segment_scale, global_orient, body_pose (and
        hand poses where found), transl, axis-angle, each with batch *B. `residuals` (*B, N) are distances in metres,
        NaN where a joint is missing. A sample with NaN or infinity at a joint of positive weight, or with no joint of
        positive weight, comes back at a finite start with `Status.INVALID`.

    Raises:
        ValueError: shapes that do not fit, joint ids out of range, or both `joint_ids` and `keypoint_set`.

    Example:
        >>> import torch
        >>> from physique.bodymodel import BodyModel, open_body
        >>> model = BodyModel(open_body("low"))
        >>> pose = torch.zeros(23, 3)
        >>> pose[17] = torch.tensor([0.0, -1.2, 0.0])  # the left elbow
        >>> solution = fit_joints(model, model.joints(body_pose=pose))
        >>> bool(solution.residuals.max() < 0.01)
        True
    """
    expect_model(model)
    if joint_ids is not None and (keypoint_set is not None or regressor is not None):
        raise ValueError("joint_ids: expected no keypoint set beside it, got both; say once what the points are")
    if regressor is None and keypoint_set is not None:
        regressor = KeypointRegressor(keypoint_set, model.data, dtype=model.dtype, device=model.device)
    count = _count(model, joint_ids, regressor)
    points = _read_points(model, joint_ids, regressor)
    advice = "give joint_ids= or keypoint_set= to say which they are"
    batch, target, weight = read_targets(
        "joints", joints, weights, count, model.v_template, sequence=sequence, advice=advice
    )
    if regressor is not None:
        weight = torch.where(regressor.valid, weight, 0)
    target, weight = target[:, points.columns], weight[:, points.columns]
    seen = weight > 0
    target = torch.where(seen.unsqueeze(-1), target, 0)
    # A body of which nothing is seen cannot be fitted: not a number from the start.
    target = torch.where(seen.any(-1)[:, None, None], target, torch.nan)
    terms = terms or JointWeights()
    with torch.no_grad():
        energy = joint_energy(model, points.regressor, points.joint_ids, shape_arguments(model), limits, terms)
        data = {"target": target, "trust": weight.clamp(min=0).sqrt() / terms.noise}
        frames = (batch[:-1].numel(), batch[-1]) if sequence and batch.numel() else None
        if tells_all(init, energy.names):
            start = at_rest(model, energy.names, len(target))
        else:
            start = _start(energy, repeated(energy.mean, len(target)), target, weight, points.stand_ins)
        if init is not None:
            start = resumed(init, start, batch)
        fixed: dict[str, Tensor] = {}
        if frames is not None:
            fixed = shared_shape(energy, start, data, frames)
            if init is None:
                start = _start(energy, fixed, target, weight, points.stand_ins)
        smooth = frames is not None and frames[1] > 2 and terms.temporal > 0
        solved = least_squares(
            energy.residuals,
            {name: start[name] for name in energy.names if name not in fixed},
            data={**data, **fixed},
            rotations=rotation_names(model, start),
            jacobian=energy.equations,
            steps=steps,
            tolerance=ROUGH_TOLERANCE if smooth else TOLERANCE,
            damping=1e-2,
            callback=callback,
        )
        params = {name: fixed[name] if name in fixed else solved.params[name] for name in start}
        if frames is not None and smooth:
            together = smoothed(energy, solved, fixed, data, frames)
            params = {name: together[name] for name in params}
            loss = energy.residuals(params, data).square().sum(-1)
            solved = solved._replace(loss=loss)
        distances = (energy.points(params) - target).norm(dim=-1)
        residuals = distances.new_full((len(distances), count), torch.nan)
        residuals[:, points.columns] = torch.where(seen, distances, torch.nan)
    solution = reported(solved, params, residuals, batch)
    return solution.check() if throw else solution


class _Points(NamedTuple):
    """Which of the given points are fitted, and how the body makes them.

    Attributes:
        columns: (N,) those that are fitted; where they are joints, those that the body has.
        regressor: makes them, or None: they are joints.
        joint_ids: (N,) the joints; without meaning beside a regressor.
        stand_ins: for each joint of the model the column that stands for it, or None.
    """

    columns: Tensor
    regressor: KeypointRegressor | None
    joint_ids: Tensor
    stand_ins: list[int | None]

    @classmethod
    def of_joints(cls, model: BodyModel, columns: Tensor, joint_ids: Tensor) -> _Points:
        index: list[int | None] = [None] * model.data.num_joints
        for column, joint in enumerate(joint_ids.tolist()):
            index[joint] = column
        return cls(columns, None, joint_ids, index)


def _count(model: BodyModel, joint_ids: Tensor | None, regressor: KeypointRegressor | None) -> int:
    """Return how many points are to be given."""
    if regressor is not None:
        return len(regressor.names)
    return model.data.num_joints if joint_ids is None else len(joint_ids)


def _read_points(model: BodyModel, joint_ids: Tensor | None, regressor: KeypointRegressor | None) -> _Points:
    every = torch.arange(model.data.num_joints, device=model.device)
    if regressor is not None:
        columns = regressor.valid.nonzero().squeeze(-1)
        if regressor.keypoint_set.joints is not None and not len(regressor.vertex_ids):
            return _Points.of_joints(model, columns, regressor.joint_weights[columns].argmax(-1))
        alias = {"mid_hip": "pelvis"}
        names = {alias.get(name, name): i for i, name in enumerate(regressor.names) if regressor.valid[i]}
        return _Points(
            torch.arange(len(regressor.names), device=model.device),
            regressor,
            every,
            [names.get(name) for name in model.skeleton.names],
        )
    if joint_ids is None:
        return _Points.of_joints(model, every, every)
    listed, names = joint_ids.tolist(), model.skeleton.names
    if not listed or min(listed) < 0 or max(listed) >= len(names) or len(set(listed)) < len(listed):
        raise ValueError(
            f"joint_ids: expected distinct ids from 0 to {len(names) - 1}, got {listed}; "
            "list the model's joint for each of the points"
        )
    chosen = joint_ids.to(model.device)
    return _Points.of_joints(model, torch.arange(len(listed), device=model.device), chosen)


def _start(
    energy: JointEnergy, shape: dict[str, Tensor], target: Tensor, weight: Tensor, index: list[int | None]
) -> dict[str, Tensor]:
    """Return the unknowns (n, ...) for bodies of known shape with their bones swung towards the targets."""
    model, like = energy.model, energy.model.v_template
    target = target.nan_to_num(0.0, 0.0, 0.0)
    resting = torch.eye(3, dtype=like.dtype, device=like.device).repeat(model.data.num_joints, 1, 1)
    first, taken = 0, 0
    for part in model.data.table_row.parts:
        if part.name in energy.parts[1:]:
            relaxed = energy.relaxed[taken : taken + part.count]
            resting[first : first + part.count] = axis_angle_to_matrix(relaxed)
            taken += part.count
        first += part.count
    arguments: dict[str, Any] = dict(shape)
    rest = model.joints(**arguments)
    pose = pose_arguments(model, joint_start(model.skeleton, rest, resting, target, weight, index))
    params = {**shape, **{name: pose[name] for name in energy.parts}}
    share = (weight / weight.sum(-1, keepdim=True).clamp(min=1e-9)).unsqueeze(-1)
    params["transl"] = (share * (target - energy.points(params))).sum(-2)
    return params
