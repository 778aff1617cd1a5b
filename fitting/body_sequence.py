"""What the frames of a sequence share in a fit in three dimensions: one shape, and a motion without jerks."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..bodymodel import BodyModel
from .body_unknowns import rotation_names
from .joint_energy import JointEnergy
from .least_squares import least_squares
from .solution import Solution, Status

# The shape is found from so many frames of a sequence, evenly spaced, in so many rounds of shape and poses in turn.
SHAPE_FRAMES = 24
SHAPE_ROUNDS = 3
POSE_STEPS = 8
SMOOTHING_SWEEPS = 2
SMOOTHING_STEPS = 4
TOLERANCE = 1e-4


@runtime_checkable
class BodyEnergy(Protocol):
    """Residuals of a body's arguments and their Jacobian; arguments that `data` holds instead of `params` are fixed."""

    @property
    def model(self) -> BodyModel:
        """The body."""
        ...

    @property
    def mean(self) -> dict[str, Tensor]:
        """The shape arguments of the mean body: the first of `names`."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """All unknowns, in the order of the columns."""
        ...

    def residuals(self, params: dict[str, Tensor], data: dict[str, Tensor]) -> Tensor:
        """Return residuals (n, R)."""
        ...

    def linearised(self, params: dict[str, Tensor], data: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return residuals (n, R) and their Jacobian (n, R, D) by `params` in order."""
        ...


def shared_shape(
    energy: BodyEnergy, start: dict[str, Tensor], data: dict[str, Tensor], frames: tuple[int, int]
) -> dict[str, Tensor]:
    """Return the shape arguments (S T, ...) that fit some frames of each sequence best, the same in all its frames.

    Each frame is first fitted with a shape of its own; the mean of those is refined by Gauss-Newton on the shape with
    the poses eliminated (the Schur complement of the normal equations), the poses following after each step.

    Args:
        energy: of the fit.
        start: all unknowns (S T, ...).
        data: target and trust (S T, ...).
        frames: S and T.
    """
    sequences, length = frames
    device = energy.model.device
    count = min(length, SHAPE_FRAMES)
    chosen = torch.linspace(0, length - 1, count, device=device).round().long()
    rows = (torch.arange(sequences, device=device).unsqueeze(-1) * length + chosen).flatten()
    few = {name: value[rows] for name, value in data.items()}
    names = rotation_names(energy.model, energy.names)
    options: dict[str, Any] = {
        "rotations": names,
        "jacobian": energy.linearised,
        "tolerance": TOLERANCE,
        "damping": 1e-2,
    }
    solved = least_squares(energy.residuals, {name: value[rows] for name, value in start.items()}, data=few, **options)
    valid = (solved.status != Status.INVALID).view(sequences, count)
    share = valid / valid.sum(-1, keepdim=True).clamp(min=1)
    poses = {name: value for name, value in solved.params.items() if name not in energy.mean}
    shape = {}
    for name, mean in energy.mean.items():
        own = solved.params[name].view(sequences, count, -1)
        shape[name] = torch.where(valid.any(-1, keepdim=True), (share.unsqueeze(-1) * own).sum(1), mean.flatten())

    def spread(times: int) -> dict[str, Tensor]:
        return {
            name: value.repeat_interleave(times, 0).view(sequences * times, *energy.mean[name].shape)
            for name, value in shape.items()
        }

    for _ in range(SHAPE_ROUNDS):
        fixed = {**few, **spread(count)}
        poses = least_squares(energy.residuals, poses, data=fixed, steps=POSE_STEPS, **options).params
        step = _eliminated(*energy.linearised({**spread(count), **poses}, few), shape, valid)
        sizes = [value.shape[-1] for value in shape.values()]
        parts = zip(shape.items(), step.split(sizes, dim=-1), strict=True)
        shape = {name: value + part for (name, value), part in parts}
    return spread(length)


def _eliminated(residuals: Tensor, jacobian: Tensor, shape: dict[str, Tensor], valid: Tensor) -> Tensor:
    """Return the step (S, n) of Gauss-Newton in the shape, whose n columns come first, poses eliminated."""
    size = sum(value.shape[-1] for value in shape.values())
    matrix = jacobian.mT @ jacobian
    slope = jacobian.mT @ residuals.unsqueeze(-1)
    pose = matrix[:, size:, size:]
    diagonal = pose.diagonal(dim1=-2, dim2=-1)
    pose = pose + torch.diag_embed(1e-4 * diagonal + 1e-9 * diagonal.amax(-1, keepdim=True).clamp(min=1e-9))
    across = torch.cat((matrix[:, size:, :size], slope[:, size:]), dim=-1)
    factor, failed = torch.linalg.cholesky_ex(pose)
    solved = torch.cholesky_solve(across, factor)
    own = torch.cat((matrix[:, :size, :size], slope[:, :size]), dim=-1)
    reduced = own - matrix[:, :size, size:] @ solved
    good = valid.flatten() & (failed == 0) & reduced.flatten(1).isfinite().all(-1)
    reduced = torch.where(good[:, None, None], reduced, 0).view(*valid.shape, size, size + 1).sum(1)
    system = reduced[..., :size]
    diagonal = system.diagonal(dim1=-2, dim2=-1)
    system = system + torch.diag_embed(1e-3 * diagonal + 1e-9 * diagonal.amax(-1, keepdim=True).clamp(min=1e-9))
    factor, failed = torch.linalg.cholesky_ex(system)
    step = -torch.cholesky_solve(reduced[..., size:], factor).squeeze(-1)
    return torch.where(((failed == 0) & step.isfinite().all(-1)).unsqueeze(-1), step, 0)


def smoothed(
    energy: JointEnergy, solved: Solution, data: dict[str, Tensor], frames: tuple[int, int]
) -> dict[str, Tensor]:
    """Return poses (S T, ...) of a motion whose joints have small second differences over time.

    Every third frame is solved at once with its neighbours held, then the next third: frames three apart do not meet
    in a second difference, so that each round is an exact descent of the whole energy (block Gauss-Seidel).

    Args:
        energy: of the fit.
        solved: unknowns (S T, ...) and status of the frames, each for itself.
        data: target, trust, and the fixed shape.
        frames: S and T.
    """
    sequences, length = frames
    valid = (solved.status != Status.INVALID).view(frames)
    meets = (valid[:, :-2] & valid[:, 1:-1] & valid[:, 2:]).to(energy.model.v_template)
    stencil = _adjoint(meets, (1.0, 4.0, 1.0))
    params = dict(solved.params)
    pull = (energy.weights.temporal * stencil).sqrt() / energy.weights.noise
    for _ in range(SMOOTHING_SWEEPS):
        for third in range(3):
            joints = energy.model.joints(**energy.arguments(params, data)).view(*frames, -1)
            jerk = (joints[:, :-2] - 2 * joints[:, 1:-1] + joints[:, 2:]) * meets.unsqueeze(-1)
            course = joints - _adjoint(jerk, (1.0, -2.0, 1.0)) / stencil.clamp(min=1).unsqueeze(-1)
            rows = torch.arange(sequences * length, device=valid.device).view(frames)[:, third::3].flatten()
            here = {name: value[rows] for name, value in data.items()}
            here["course"] = course.view(sequences * length, -1, 3)[rows]
            here["pull"] = pull.flatten()[rows]
            moved = least_squares(
                energy.residuals,
                {name: value[rows] for name, value in params.items()},
                data=here,
                rotations=rotation_names(energy.model, params),
                jacobian=energy.linearised,
                steps=SMOOTHING_STEPS,
                tolerance=TOLERANCE,
                damping=1e-2,
            )
            params = {name: value.index_copy(0, rows, moved.params[name]) for name, value in params.items()}
    return params


def _adjoint(differences: Tensor, stencil: tuple[float, float, float]) -> Tensor:
    """Return (S, T, ...) sums over the second differences (S, T - 2, ...) that a frame takes part in, by its place."""
    edge = differences.new_zeros(differences.shape[0], 2, *differences.shape[2:])
    padded = torch.cat((edge, differences, edge), dim=1)
    first, middle, last = stencil
    return first * padded[:, 2:] + middle * padded[:, 1:-1] + last * padded[:, :-2]
