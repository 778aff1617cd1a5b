"""What every solver returns."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

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

    def select(self, index: Any) -> Solution:
        """Return the samples that `index` picks from the batch *B, as indexing a tensor of that shape does.

        What a fit of the next frames takes as `init`: `solution.select(-1)` is the last sample of a batch,
        `solution.select((..., slice(-1, None)))` the last frame of each sequence, time kept.

        Args:
            index: numbers, slices, `...`, a mask or ids, or a tuple of those.

        Raises:
            IndexError: there is no such sample.

        Example:
            >>> status = torch.zeros(3, 5, dtype=torch.int64)
            >>> made = Solution({"x": torch.zeros(3, 5, 2)}, torch.zeros(3, 5), 0, status, torch.zeros(1, 3, 5))
            >>> made.select((..., slice(-1, None))).params["x"].shape
            torch.Size([3, 1, 2])
        """
        batch = self.loss.shape
        chosen = torch.arange(batch.numel(), device=self.loss.device).view(batch)[index]
        ids = chosen.flatten()

        def pick(value: Tensor, first: int = 0) -> Tensor:
            before, event = value.shape[:first], value.shape[first + len(batch) :]
            flat = value.reshape((*before, batch.numel(), *event)).index_select(first, ids)
            return flat.reshape((*before, *chosen.shape, *event))

        return self._replace(
            params={name: pick(value) for name, value in self.params.items()},
            loss=pick(self.loss),
            status=pick(self.status),
            history=pick(self.history, 1),
            camera=None if self.camera is None else _camera_of(self.camera, batch, pick),
            residuals=None if self.residuals is None else pick(self.residuals),
        )

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


def _camera_of(
    camera: WeakPerspectiveCamera | PerspectiveCamera, batch: torch.Size, pick: Callable[[Tensor], Tensor]
) -> WeakPerspectiveCamera | PerspectiveCamera:
    """Return the camera of the samples that `pick` takes from the batch, to which the camera's own broadcasts."""
    if isinstance(camera, WeakPerspectiveCamera):
        return WeakPerspectiveCamera(pick(camera.scale), pick(camera.translation))

    def spread(value: Tensor, rank: int) -> Tensor:
        return pick(value.expand(*batch, *value.shape[value.dim() - rank :]))

    return PerspectiveCamera(
        spread(camera.focal, 1),
        spread(camera.center, 1),
        spread(camera.rotation, 2),
        spread(camera.translation, 1),
        None if camera.distortion is None else spread(camera.distortion, 1),
    )
