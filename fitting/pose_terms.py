"""What a fit asks of the pose whatever is seen: joints within their limits, and near the pose they fall back to."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..bodymodel.limits import LimitBox
from .normal_equations import NormalEquations
from .tangent import left_turns


class PoseTerms(NamedTuple):
    """Weighted squares of axis-angle vectors: of what is beyond a box, and of what differs from a pose.

    Attributes:
        limits: the box, (n, 3) each.
        rest: (n, 3).
        firm: weight of the squared violations.
        pull: (n, 1) weights of the squared differences, or a number: 0 for none.
        caution: curvature in 1/radian² that steps reckon with beside that of the terms. Directions that nothing holds,
            such as twists, are then left alone; it changes no minimum.
    """

    limits: LimitBox
    rest: Float[Tensor, "n 3"]
    firm: float
    pull: Float[Tensor, "n 1"] | float
    caution: float = 0.0

    def residuals(self, pose: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch rows"]:
        """Return what is squared: the weighted violations, then the weighted differences."""
        beyond, bent = self.firm**0.5 * self._beyond(pose), self.pull**0.5 * (pose - self.rest)
        return torch.cat((beyond.flatten(-2), bent.flatten(-2)), dim=-1)

    def add_to(self, equations: NormalEquations, first: int, pose: Float[Tensor, "batch n 3"]) -> None:
        """Add the terms to the equations of samples whose unknowns from `first` on are the pose's turns."""
        beyond, bent = self._beyond(pose), pose - self.rest
        weights = self.firm * (beyond != 0).to(pose) + (self.pull + self.caution)
        equations.add_turns(first, weights, self.firm * beyond + self.pull * bent, left_turns(pose))

    def _beyond(self, pose: Tensor) -> Tensor:
        return (pose - self.limits.upper).relu() - (self.limits.lower - pose).relu()
