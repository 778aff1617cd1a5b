"""The first stage of a fit to keypoints: camera and root alone, each frame for itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..geometry import axis_angle_to_matrix
from .image_projection import ImageProjection
from .keypoint_energy import KeypointEnergy
from .keypoint_target import Target
from .keypoint_unknowns import torso_weights
from .least_squares import least_squares

TOLERANCE = 1e-3
PLACE = ("global_orient", "log_scale", "translation", "transl")


def placed(
    energy: KeypointEnergy,
    unknowns: dict[str, Tensor],
    steps: int,
    callback: Callable[[int, Tensor], None],
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the unknowns (S N, T, ...) with camera and root where they match best, judged mostly by the torso.

    Args:
        energy: of the fit.
        unknowns: where to start.
        steps: the most that are taken.
        callback: called after each.

    Returns:
        the unknowns, and the history (steps + 1, S N) of energies summed over the frames.
    """
    batch = unknowns["body_pose"].shape[:2]
    still = {**unknowns, "global_orient": torch.zeros_like(unknowns["global_orient"])}
    root = energy.root(unknowns).unsqueeze(-2)
    points = energy.keypoints(still) - root
    frame = torch.arange(energy.target.valid.numel(), device=points.device)
    seen = energy.target.frames()
    solved = least_squares(
        lambda p, data: _residuals(energy, p, data, seen),
        {name: unknowns[name].flatten(0, 1) for name in PLACE if name in unknowns},
        data={
            "points": points.flatten(0, 1),
            "root": root.expand(*batch, 1, 3).flatten(0, 1),
            "frame": frame.repeat(batch.numel() // max(len(frame), 1)),
        },
        rotations=("global_orient",),
        jacobian=lambda p, data: _linearised(energy, p, data, seen),
        steps=steps,
        tolerance=TOLERANCE,
        callback=callback,
    )
    history = solved.history.unflatten(1, batch).sum(-1)
    return {**unknowns, **{name: value.unflatten(0, batch) for name, value in solved.params.items()}}, history


def _residuals(energy: KeypointEnergy, params: dict[str, Tensor], data: dict[str, Tensor], every: Target) -> Tensor:
    seen = every.of(data["frame"])
    turned = axis_angle_to_matrix(params["global_orient"])
    image = ImageProjection.of(params, seen).project(data["points"] @ turned.mT + data["root"])
    misses = _trust(energy, seen) * (image - seen.keypoints)
    return torch.cat((misses.flatten(1), energy.upright(turned)), dim=-1)


def _linearised(
    energy: KeypointEnergy, params: dict[str, Tensor], data: dict[str, Tensor], every: Target
) -> tuple[Tensor, Tensor]:
    seen = every.of(data["frame"])
    turned = axis_angle_to_matrix(params["global_orient"])
    arms = data["points"] @ turned.mT
    projection = ImageProjection.of(params, seen)
    points = arms + data["root"]
    image, by_point = projection.linearised(points)
    # A turn d moves a point by d x its arm.
    axes = torch.eye(3, dtype=arms.dtype, device=arms.device)
    turns = torch.linalg.cross(axes.expand(*arms.shape, 3), arms.unsqueeze(-2)).mT
    jacobian = torch.cat((projection.of_points(by_point, turns), projection.of_camera(by_point, points)), dim=-1)
    trust = _trust(energy, seen)
    upright = energy.upright_slope(turned)
    rest = upright.new_zeros(len(upright), 1, jacobian.shape[-1] - 3)
    residuals = torch.cat(((trust * (image - seen.keypoints)).flatten(1), energy.upright(turned)), dim=-1)
    rows = (trust.unsqueeze(-1) * jacobian).flatten(1, 2)
    return residuals, torch.cat((rows, torch.cat((upright, rest), dim=-1)), dim=-2)


def _trust(energy: KeypointEnergy, seen: Target) -> Tensor:
    return (seen.confidence * torso_weights(energy)).sqrt().unsqueeze(-1) / energy.weights.noise
