"""What every solver returns."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..cameras import PerspectiveCamera, WeakPerspectiveCamera


class Status(IntEnum):
    """How a solve ended for one sample."""

    CONVERGED = 0
    """The loss stopped falling."""
    MAX_STEPS = 1
    """The steps ran out while the loss still fell; the result is the best found."""
    INVALID = 2
    """The sample has no finite loss, or no data: its start comes back unchanged."""


class Solution(NamedTuple):
    """The result of a solve: the best parameters of each sample, and how it went.

    Attributes:
        params: name to tensor (*B, ...); of a body fit they go straight into the model: `model(**solution.params)`.
        loss: (*B,) the loss of these parameters.
        steps: how many steps were taken.
        status: (*B,) a `Status` each.
        history: (steps, *B) the loss at each step.
        camera: the camera of a fit to an image, in pixels; else None.
        residuals: (*B, K) distance of each point that was fitted: pixels in a fit to an image, metres in a fit to 3D
            points; else None.
    """

    params: dict[str, Tensor]
    loss: Float[Tensor, "*batch"]
    steps: int
    status: Int[Tensor, "*batch"]
    history: Float[Tensor, " steps *batch"]
    camera: WeakPerspectiveCamera | PerspectiveCamera | None = None
    residuals: Float[Tensor, "*batch K"] | None = None

    def check(self) -> Solution:
        """Return itself when every sample converged.

        Raises:
            ValueError: some did not; the text counts them by status.
        """
        if bool((self.status == Status.CONVERGED).all()):
            return self
        counts = torch.bincount(self.status.flatten(), minlength=len(Status)).tolist()
        listed = ", ".join(f"{count} {Status(code).name}" for code, count in enumerate(counts) if count)
        raise ValueError(
            f"solution: expected every sample to converge, got {listed}; take more steps or check the data"
        )
