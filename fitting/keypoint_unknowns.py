"""The unknowns of a keypoint fit: where they start, and how they become the model's arguments and back."""

from __future__ import annotations

import torch
from torch import Tensor

from ..cameras import PerspectiveCamera, WeakPerspectiveCamera
from ..geometry import axis_angle_to_matrix, matrix_to_axis_angle
from .body_unknowns import broadcasts
from .key_frames import between
from .keypoint_energy import KeypointEnergy
from .solution import Solution, Status
from .starts import FACINGS, starting_views

# How much the other keypoints count next to the torso's while the pose is still unknown.
LIMB_WEIGHT = 0.2
TORSO = ("left_shoulder", "right_shoulder", "left_hip", "right_hip", "neck", "mid_hip", "pelvis", "thorax")


def torso_weights(energy: KeypointEnergy) -> Tensor:
    """Return the weight (K,) of each keypoint while only camera and root are sought."""
    return energy.model.v_template.new_tensor([1.0 if name in TORSO else LIMB_WEIGHT for name in energy.names])


def start_unknowns(energy: KeypointEnergy) -> dict[str, Tensor]:
    """Return the unknowns (S N, T, ...) in each pose to start from, with each facing, of mean shape; starts in front.

    S = 4 M: the view of each is the one that matches best.
    """
    starts = [_start_in(energy, pose) for pose in energy.starts]
    order = ("global_orient", "body_pose", "log_scale", "translation", "transl", energy.shape_argument)
    names = [name for name in order if name in starts[0]]
    return {name: torch.cat([start[name] for start in starts]).flatten(0, 1) for name in names}


def _start_in(energy: KeypointEnergy, body_pose: Tensor) -> dict[str, Tensor]:
    """Return the unknowns (4, N, T, ...) in one pose."""
    target, like = energy.target, energy.model.v_template
    frames = target.diagonal.shape
    resting = {"global_orient": like.new_zeros(3), "body_pose": body_pose, **energy.mean_shape()}
    points, root = energy.keypoints(resting), energy.root(resting)
    seen = target.confidence * torso_weights(energy)
    views = starting_views(points, target.keypoints, seen, origin=root, smallest_scale=0.05)
    unknowns = {name: value.expand(FACINGS, *frames, *value.shape) for name, value in resting.items()}
    unknowns[energy.shape_argument] = unknowns[energy.shape_argument][:, :, :1]
    unknowns["global_orient"] = views.global_orient
    camera = target.camera
    if camera is None:
        unknowns["log_scale"] = views.scale.log()
        unknowns["translation"] = views.translation - views.scale.unsqueeze(-1) * root[:2]
        return unknowns
    pixels = views.translation * target.diagonal.unsqueeze(-1) + target.middle
    depth = camera.focal.mean(-1) / (views.scale * target.diagonal)
    unknowns["transl"] = camera.unproject(pixels.unsqueeze(-2), depth.unsqueeze(-1)).squeeze(-2) - root
    return unknowns


def resume_unknowns(
    energy: KeypointEnergy, init: Solution, known: PerspectiveCamera | None, batch: torch.Size
) -> dict[str, Tensor]:
    """Return the unknowns (N, T, ...) of a previous solution, whose batch broadcasts to that of the keypoints."""
    target, like = energy.target, energy.model.v_template
    frames = target.valid.shape
    names = ("global_orient", "body_pose", energy.shape_argument, "transl")
    missing = [name for name in names if name not in init.params]
    kind = WeakPerspectiveCamera if known is None else PerspectiveCamera
    if missing or not isinstance(init.camera, kind):
        raise ValueError(
            f"init: expected a solution with {', '.join(names)} and a {kind.__name__}, got {', '.join(init.params)} "
            f"and {type(init.camera).__name__}; pass a solution of the same model and kind of camera"
        )
    events = {"body_pose": 2, energy.shape_argument: energy.mean_shape()[energy.shape_argument].dim()}
    params: dict[str, Tensor] = {}
    for name in names:
        value = init.params[name].detach().to(like)
        rank = events.get(name, 1)
        given, event = value.shape[: value.dim() - rank], value.shape[value.dim() - rank :]
        if not broadcasts(given, batch):
            raise ValueError(
                f"init: expected a batch that broadcasts to {tuple(batch)} of the keypoints, got {tuple(given)} for "
                f"{name}; pass a solution of the same samples, or of one frame of them"
            )
        params[name] = value.expand(*batch, *event).reshape(*frames, *event)
    shape = {energy.shape_argument: params.pop(energy.shape_argument).mean(1, keepdim=True)}
    transl = params.pop("transl")
    if isinstance(init.camera, WeakPerspectiveCamera):
        scale = init.camera.scale.detach().to(like).expand(batch).reshape(frames) / target.diagonal
        shift = init.camera.translation.detach().to(like).expand(*batch, 2).reshape(*frames, 2) - target.middle
        params["log_scale"] = scale.clamp(min=1e-6).log()
        params["translation"] = shift / target.diagonal.unsqueeze(-1) + scale.unsqueeze(-1) * transl[..., :2]
        return {**params, **shape}
    assert known is not None
    root = energy.root(shape)
    params["global_orient"] = _turn(known.rotation, params["global_orient"])
    seen = (known.rotation @ (root + transl).unsqueeze(-1)).squeeze(-1) + known.translation
    return {**params, "transl": seen - root, **shape}


def unknowns_between(energy: KeypointEnergy, found: dict[str, Tensor], keys: Tensor) -> dict[str, Tensor]:
    """Return the unknowns (N, T, ...) of all frames from those (N, K, ...) of the key frames (N, K)."""
    moving = {name: value for name, value in found.items() if name != energy.shape_argument}
    boxes, every = energy.target.at(keys), energy.target
    # A weak-perspective camera is one of pixels in between: the boxes of two frames may differ much.
    if "log_scale" in moving:
        moving["log_scale"] = moving["log_scale"] + boxes.diagonal.log()
        moving["translation"] = moving["translation"] * boxes.diagonal.unsqueeze(-1) + boxes.middle
    moving = between(moving, keys, every.valid.shape[1], ("global_orient", "body_pose"))
    if "log_scale" in moving:
        moving["log_scale"] = moving["log_scale"] - every.diagonal.log()
        moving["translation"] = (moving["translation"] - every.middle) / every.diagonal.unsqueeze(-1)
    return {**moving, energy.shape_argument: found[energy.shape_argument]}


def report_solution(
    energy: KeypointEnergy,
    solved: Solution,
    batch: torch.Size,
    camera: PerspectiveCamera | None,
    known: PerspectiveCamera | None,
) -> Solution:
    """Turn a solution in unknowns (N, T, ...) into one in the model's arguments and the caller's batch."""
    target, unknowns = energy.target, solved.params
    residuals = torch.where(target.confidence > 0, energy.distances(unknowns), torch.nan)
    shape = unknowns[energy.shape_argument]
    params = {
        energy.shape_argument: shape.expand(*target.valid.shape, *shape.shape[2:]),
        "global_orient": unknowns["global_orient"],
        "body_pose": unknowns["body_pose"],
    }
    found: WeakPerspectiveCamera | PerspectiveCamera
    if known is None or camera is None:
        scale = unknowns["log_scale"].exp() * target.diagonal
        shift = unknowns["translation"] * target.diagonal.unsqueeze(-1) + target.middle
        found = WeakPerspectiveCamera(scale.reshape(batch), shift.reshape(*batch, 2))
        params["transl"] = torch.zeros_like(params["global_orient"])
    else:
        found, root = camera, energy.root(unknowns)
        params["global_orient"] = _turn(known.rotation.mT, params["global_orient"])
        moved = root + unknowns["transl"] - known.translation
        params["transl"] = (known.rotation.mT @ moved.unsqueeze(-1)).squeeze(-1) - root
    frames = target.valid.shape[1]
    per_frame = solved.loss.unsqueeze(-1).expand(target.valid.shape)
    status = solved.status.unsqueeze(-1).expand(target.valid.shape)
    status = torch.where(target.valid, status, int(Status.INVALID))
    history = solved.history.unsqueeze(-1).expand(-1, -1, frames)
    return Solution(
        {name: value.reshape(*batch, *value.shape[2:]) for name, value in params.items()},
        per_frame.reshape(batch),
        solved.steps,
        status.reshape(batch),
        history.reshape(len(history), *batch),
        found,
        residuals.reshape(*batch, residuals.shape[-1]),
    )


def _turn(rotation: Tensor, axis_angle: Tensor) -> Tensor:
    return matrix_to_axis_angle(rotation @ axis_angle_to_matrix(axis_angle))
