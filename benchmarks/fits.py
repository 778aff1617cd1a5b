"""The fit that is timed: pixels of 24 joints and 200 vertices, by Adam over any library and by our least squares.

Unknown are pose, betas, and the scale and shift of a weak-perspective camera, from the rest pose. Loss: squared
distances in the image, whose unit is about a metre, and a little of the squared parameters. Adam is PyTorch's fused one
for every library, so that less of what is timed is the optimiser.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from libraries import OURS, SMPLX, Bodies, Library
from physique.bodymodel import BodyModel
from physique.fitting import NormalEquations, Solution, least_squares
from physique.fitting.tangent import left_turns
from torch import Tensor

ADAM_STEPS, LEARNING_RATE = 300, 0.1
PRIOR = 3e-3
POSE = ("global_orient", "body_pose")


class Fit:
    """A batch of bodies seen from the front, and the ways to find them again.

    Args:
        libraries: with "joints and points".
        points: (N,) the vertices that those have.
        truth: the bodies.
    """

    def __init__(self, libraries: Mapping[str, Library], points: Tensor, truth: Bodies) -> None:
        """Make what is seen."""
        self.libraries, self.points = libraries, points
        generator = torch.Generator().manual_seed(1)
        scale, shift = 1 + 0.1 * torch.randn(len(truth.pose), 1, generator=generator), torch.zeros(len(truth.pose), 2)
        self.camera = torch.cat((scale, shift + 0.1), dim=1)
        self.start = Bodies(torch.zeros_like(truth.betas), None, torch.zeros_like(truth.pose))
        with torch.no_grad():
            library = libraries[SMPLX]
            self.target = _project(library.functions["joints and points"](library.leaves(truth)), self.camera)

    def adam(self, name: str, steps: int = ADAM_STEPS, rate: float = LEARNING_RATE) -> Tensor:
        """Return the loss of each body after Adam over a library."""
        library = self.libraries[name]
        leaves = {key: value.detach().clone().requires_grad_() for key, value in library.leaves(self.start).items()}
        camera = self._camera_start().requires_grad_()
        optimiser = torch.optim.Adam([*leaves.values(), camera], lr=rate, fused=True)

        def loss() -> Tensor:
            found = _project(library.functions["joints and points"](leaves), camera)
            prior = sum(value.square().flatten(1).sum(1) for value in leaves.values())
            return (found - self.target).square().flatten(1).sum(1) + PRIOR * prior

        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            loss().sum().backward()
            optimiser.step()
        with torch.no_grad():
            return loss()

    def least_squares(self, steps: int) -> Solution:
        """Return what Levenberg-Marquardt finds."""
        library = self.libraries[OURS]
        model, function = library.model, library.functions["joints and points"]
        assert isinstance(model, BodyModel)
        bases = model.vertex_bases(self.points)

        def residual(params: dict[str, Tensor], target: Tensor) -> Tensor:
            body = {name: value for name, value in params.items() if name != "camera"}
            image = _project(function(body), params["camera"]) - target
            return torch.cat((image.flatten(1), *(PRIOR**0.5 * value.flatten(1) for value in body.values())), dim=1)

        def equations(params: dict[str, Tensor], target: Tensor) -> NormalEquations:
            body: dict[str, Any] = {name: value for name, value in params.items() if name != "camera"}
            camera = params["camera"]
            joints, vertices = model.joints_jacobian(**body), model.vertices_jacobian(bases, **body)
            points = torch.cat((joints.points, vertices.points), dim=1)
            columns = sum(value.shape[1:].numel() for value in params.values())
            moved = points.new_empty(*points.shape[:2], 2, columns)
            first = 0
            for name in body:
                blocks = torch.cat((joints.blocks[name], vertices.blocks[name]), dim=1)[:, :, :2]
                torch.mul(blocks, camera[:, None, None, :1], out=moved.narrow(-1, first, blocks.shape[-1]))
                first += blocks.shape[-1]
            moved[..., first] = points[..., :2]
            moved[..., first + 1 :] = torch.eye(2)
            result = NormalEquations.zeros(points, columns)
            result.add((_project(points, camera) - target).flatten(1), moved.flatten(1, 2))
            result.add_squares(0, PRIOR**0.5 * body["betas"], PRIOR**0.5)
            pose = torch.cat([body[name].reshape(len(points), -1, 3) for name in POSE], dim=1)
            weights = torch.full_like(pose, PRIOR)
            result.add_turns(body["betas"].shape[1], weights, weights * pose, left_turns(pose))
            return result

        start = library.leaves(self.start) | {"camera": self._camera_start()}
        return least_squares(residual, start, data=self.target, rotations=POSE, jacobian=equations, steps=steps)

    def steps_to(self, loss: Tensor, most: int = 60) -> int:
        """Return the fewest steps of least squares that bring the batch's total loss to that of `loss` (B,)."""
        totals = self.least_squares(most).history.sum(-1)
        enough = (totals <= loss.sum()).nonzero().flatten().tolist()
        if not enough:
            raise AssertionError(f"least squares: expected a loss of {loss.sum():g}, got {totals.min():g}")
        return enough[0]

    def _camera_start(self) -> Tensor:
        return torch.tensor([1.0, 0.0, 0.0]).repeat(len(self.target), 1)


def _project(points: Tensor, camera: Tensor) -> Tensor:
    return points[..., :2] * camera[:, None, :1] + camera[:, None, 1:]
