"""What the frames of a sequence share in a fit in three dimensions: one shape, and a motion without jerks."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..bodymodel import BodyModel
from .body_unknowns import rotation_names
from .joint_energy import JointEnergy
from .least_squares import least_squares
from .normal_equations import NormalEquations
from .sequences import ArrowEquations, Motion
from .solution import Solution, Status

# The shape is found from so many frames of a sequence, evenly spaced.
SHAPE_FRAMES = 24
SHAPE_STEPS = 8
SMOOTHING_STEPS = 4
TOLERANCE = 1e-3
# So many frames' derivatives are made at once.
FRAMES_AT_ONCE = 256


@runtime_checkable
class BodyEnergy(Protocol):
    """Residuals of a body and their equations; arguments that `data` holds instead of `params` are fixed."""

    @property
    def model(self) -> BodyModel:
        """The body."""
        ...

    @property
    def mean(self) -> dict[str, Tensor]:
        """The shape arguments of the mean body: the last of `names`."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """All unknowns, in the order of the columns."""
        ...

    def residuals(self, params: dict[str, Tensor], data: dict[str, Tensor]) -> Tensor:
        """Return residuals (n, R)."""
        ...

    def equations(self, params: dict[str, Tensor], data: dict[str, Tensor]) -> NormalEquations:
        """Return the normal equations of n bodies by `params` in order."""
        ...


def shared_shape(
    energy: BodyEnergy, start: dict[str, Tensor], data: dict[str, Tensor], frames: tuple[int, int]
) -> dict[str, Tensor]:
    """Return the shape arguments (S T, ...) that fit some frames of each sequence best, the same in all its frames.

    Each of them is first fitted with a shape of its own; from the mean of those, all poses and the one shape are solved
    for together.

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
    solved = least_squares(
        energy.residuals,
        {name: start[name][rows] for name in energy.names},
        data=few,
        rotations=rotation_names(energy.model, energy.names),
        jacobian=energy.equations,
        tolerance=TOLERANCE,
        damping=1e-2,
    )
    valid = (solved.status != Status.INVALID).view(sequences, count)
    share = valid / valid.sum(-1, keepdim=True).clamp(min=1)
    shape = {}
    for name, mean in energy.mean.items():
        own = solved.params[name].view(sequences, count, *mean.shape)
        weighted = (share.view(*share.shape, *(1,) * mean.dim()) * own).sum(1)
        shape[name] = torch.where(valid.any(-1).view(-1, *(1,) * mean.dim()), weighted, mean)
    together = solved_together(energy, solved.params, shape, few, valid, SHAPE_STEPS)
    return {name: together[name].repeat_interleave(length, 0) for name in shape}


def solved_together(
    energy: BodyEnergy,
    params: dict[str, Tensor],
    shape: dict[str, Tensor],
    data: dict[str, Tensor],
    valid: Tensor,
    steps: int,
    smoothness: float = 0.0,
) -> dict[str, Tensor]:
    """Return the unknowns of all frames (S T, ...), and the one shape (S, ...) of each sequence, solved for at once.

    Args:
        energy: of a frame.
        params: where the frames stand, (S T, ...).
        shape: where the shape does, (S, ...).
        data: target, trust (S T, ...).
        valid: (S, T) which frames have a say.
        steps: the most that are taken.
        smoothness: weight of the squared second differences over time of the joints, metres.
    """
    length = valid.shape[1]
    names = [name for name in energy.names if name not in shape]
    usable = valid.flatten()[:, None]
    clean = {
        "target": torch.where(usable.unsqueeze(-1), data["target"], 0).unflatten(0, valid.shape),
        "trust": torch.where(usable, data["trust"], 0).unflatten(0, valid.shape),
        "meets": (valid[:, :-2] & valid[:, 1:-1] & valid[:, 2:]).to(energy.model.v_template),
    }
    smooth = smoothness > 0 and length > 2

    def frames_of(unknowns: dict[str, Tensor]) -> dict[str, Tensor]:
        spread = {name: unknowns[name].repeat_interleave(length, 0) for name in shape}
        return {**{name: unknowns[name].flatten(0, 1) for name in names}, **spread}

    def motion_of(seen: dict[str, Tensor]) -> Motion:
        return Motion((1.0, -2.0, 1.0), smoothness**0.5 * seen["meets"])

    def residuals(unknowns: dict[str, Tensor], seen: dict[str, Tensor]) -> Tensor:
        frames, batch = frames_of(unknowns), seen["trust"].shape[:2]
        given = {name: seen[name].flatten(0, 1) for name in ("target", "trust")}
        rows = energy.residuals(frames, given).unflatten(0, batch).flatten(1)
        if not smooth:
            return rows
        arguments: dict[str, Any] = frames
        joints = energy.model.joints(**arguments).unflatten(0, batch)
        return torch.cat((rows, motion_of(seen).residuals(joints)), dim=-1)

    def equations(unknowns: dict[str, Tensor], seen: dict[str, Tensor]) -> ArrowEquations:
        frames = frames_of(unknowns)
        given = {name: seen[name].flatten(0, 1) for name in ("target", "trust")}
        each, joints, moves = [], [], []
        for part in torch.arange(len(given["trust"]), device=energy.model.device).split(FRAMES_AT_ONCE):
            here: dict[str, Any] = {name: value[part] for name, value in frames.items()}
            each.append(energy.equations(here, {name: value[part] for name, value in given.items()}))
            if smooth:
                moved = energy.model.joints_jacobian(**here)
                joints.append(moved.points)
                moves.append(torch.cat([moved.blocks[name] for name in frames], dim=-1))
        together = NormalEquations(torch.cat([e.matrix for e in each]), torch.cat([e.slope for e in each]))
        sizes = [unknowns[name].shape[2:].numel() for name in names]
        arrow = ArrowEquations.of(together, len(seen["trust"]), sizes)
        if smooth:
            arrow.add_motion(motion_of(seen), torch.cat(joints), torch.cat(moves))
        return arrow

    solved = least_squares(
        residuals,
        {**{name: params[name].unflatten(0, valid.shape) for name in names}, **shape},
        data=clean,
        rotations=rotation_names(energy.model, names),
        jacobian=equations,
        steps=steps,
        tolerance=TOLERANCE,
        damping=1e-3,
    ).params
    kept = {
        name: torch.where(usable.view(-1, *(1,) * (params[name].dim() - 1)), solved[name].flatten(0, 1), params[name])
        for name in names
    }
    return {**kept, **{name: solved[name] for name in shape}}


def smoothed(
    energy: JointEnergy,
    solved: Solution,
    shape: dict[str, Tensor],
    data: dict[str, Tensor],
    frames: tuple[int, int],
) -> dict[str, Tensor]:
    """Return the unknowns (S T, ...) of a motion whose joints have small second differences over time.

    Args:
        energy: of the fit.
        solved: unknowns (S T, ...) and status of the frames, each for itself.
        shape: (S T, ...) that they share.
        data: target, trust.
        frames: S and T.
    """
    valid = (solved.status != Status.INVALID).view(frames)
    one = {name: value.view(*frames, *value.shape[1:])[:, 0] for name, value in shape.items()}
    smoothness = energy.weights.temporal / energy.weights.noise**2
    together = solved_together(energy, solved.params, one, data, valid, SMOOTHING_STEPS, smoothness)
    return {**together, **{name: together[name].repeat_interleave(frames[1], 0) for name in shape}}
