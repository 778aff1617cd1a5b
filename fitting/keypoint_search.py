"""The stages of a fit to keypoints: camera and root first, from every facing, then pose and shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..geometry import axis_angle_to_matrix
from .depth_flips import try_depth_flips
from .key_frames import key_frames
from .keypoint_energy import KeypointEnergy
from .keypoint_placing import placed
from .keypoint_unknowns import start_unknowns, unknowns_between
from .least_squares import least_squares
from .minimise import minimise
from .normal_equations import NormalEquations
from .pose_priors import prior_bends
from .sequences import ArrowEquations
from .solution import Solution
from .starts import FACINGS


class Round(NamedTuple):
    """Part of the search for the pose.

    Attributes:
        share: of the steps.
        kept: how many starts it follows, those of lowest energy.
        firmness: factor on the priors, and on the error that counts as an outlier.
    """

    share: float
    kept: int
    firmness: float


class Plan(NamedTuple):
    """What the steps are spent on; those that are left let go of the priors.

    Attributes:
        placing: share of placing the camera.
        rounds: of the search for the pose.
        flips: share of trying limbs with their depth mirrored.
        tolerance: a stage before the last has settled when a step lowers the energy by less than this share.
    """

    placing: float
    rounds: tuple[Round, ...]
    flips: float
    tolerance: float


# From few starts, each is followed, and mirrored limbs are tried. A prior that knows where to start has many valleys: a
# short look into all of them first.
FEW = Plan(0.15, (Round(0.15, 4, 4.0),), 0.1, 2e-2)
MANY = Plan(0.07, (Round(0.05, 32, 2.0), Round(0.07, 8, 2.0), Round(0.1, 4, 1.0)), 0.0, 5e-3)
STEPS, TOLERANCE = 60, 2e-3
# For a prior that has no residuals, Adam. Its first steps are as long as its step size in every unknown: from a good
# start they must be short. Each leaves some tremble: a stage has settled when its energy falls by less in 25 steps.
FIRST_ORDER = Plan(0.07, (Round(0.1, 32, 2.0), Round(0.15, 8, 2.0), Round(0.2, 4, 1.0)), 0.0, 5e-3)
FIRST_ORDER_STEPS = 300
# From a good start: a factor on Adam's step sizes; damping.
GENTLE = 0.2
DAMPING, GENTLE_DAMPING = 0.1, 0.01
# Of so many frames of a sequence one is searched for; the others start between those.
KEY_FRAME_EVERY = 5
LEARNING_RATES = {"log_scale": 0.03, "translation": 0.02, "betas": 0.1, "segment_scale": 0.01}
LEARNING_RATE = 0.05


class Bends(NamedTuple):
    """Curvatures of a prior, found now and then: where they are a little old, only the length of a step is.

    Attributes:
        table: (C, D, D).
        entry: (n, T) of each frame.
    """

    table: Tensor
    entry: Tensor

    @classmethod
    def at(cls, energy: KeypointEnergy, body_pose: Tensor) -> Bends | None:
        """Return those about poses (n, T, k, 3); None without a prior."""
        if energy.prior is None or not energy.squared:
            return None
        entry = torch.arange(body_pose.shape[:2].numel(), device=body_pose.device).view(body_pose.shape[:2])
        return cls(prior_bends(energy.prior, body_pose.flatten(0, 1)), entry)

    def of(self, rows: Tensor) -> Bends:
        """Return those of some of the n."""
        return Bends(self.table, self.entry.index_select(0, rows))


class Search:
    """The stages of a fit, and how many steps they have taken.

    Args:
        energy: what is minimised.
        steps: the most that are taken; None: as many as usual.
        callback: called after each.
    """

    def __init__(self, energy: KeypointEnergy, steps: int | None, callback: Callable[[int, int], None] | None) -> None:
        """Start at no step; see the class for the arguments."""
        usual = STEPS if energy.squared else FIRST_ORDER_STEPS
        self.energy, self.steps, self.callback = energy, usual if steps is None else steps, callback
        self.persons = torch.arange(len(energy.target.valid), device=energy.model.device)
        self.taken = 0

    def from_scratch(self) -> Solution:
        """Take all stages, and return the solution with batch (N,) in the energy's unknowns."""
        valid = self.energy.target.valid
        if valid.shape[1] < 2 * KEY_FRAME_EVERY:
            unknowns, history, left = self._searched()
        else:
            keys = key_frames(valid, KEY_FRAME_EVERY)
            search = Search(self.energy.at(keys), self.steps, self.callback)
            found, history, left = search._searched()
            self.taken = search.taken
            unknowns = unknowns_between(self.energy, found, keys)
        released = self.stage(unknowns, 1.0, left, gentle=True)
        return released._replace(steps=self.taken, history=torch.cat((history, released.history)))

    def resumed(self, start: dict[str, Tensor]) -> Solution:
        """Take the last stage alone; who is not seen in any frame stays as he was."""
        solved = self.stage(start, 1.0, self.steps, gentle=True)
        seen = self.energy.target.valid.any(-1)
        params = {
            name: torch.where(seen.view(-1, *(1,) * (value.dim() - 1)), value, start[name])
            for name, value in solved.params.items()
        }
        return solved._replace(params=params)

    def _searched(self) -> tuple[dict[str, Tensor], Tensor, int]:
        """Take all stages but the last.

        Returns:
            the unknowns (N, T, ...) that they lead to, the history (steps, N) of their energies, and how many steps are
            left for the last.
        """
        energy, count = self.energy, len(self.persons)
        plan = FIRST_ORDER if not energy.squared else MANY if len(energy.starts) > 1 else FEW
        budgets = [round(share * self.steps) for share in (plan.placing, *(part.share for part in plan.rounds))]
        flips = round(plan.flips * self.steps)
        unknowns, history = placed(energy, start_unknowns(energy), budgets[0], self._report)
        self.taken += len(history) - 1
        bends = Bends.at(energy, energy.starts.unsqueeze(1))
        if bends is not None:
            entry = torch.arange(len(energy.starts), device=energy.model.device).repeat_interleave(FACINGS * count)
            bends = bends._replace(entry=entry.unsqueeze(-1).expand(unknowns["body_pose"].shape[:2]))
        histories, chosen, solved, numbers = [history], [], None, [FACINGS * len(energy.starts)]
        for part, budget in zip(plan.rounds, budgets[1:], strict=True):
            kept = self._most_promising(unknowns, numbers[-1], part)
            begun, bends = _picked(unknowns, kept), None if bends is None else bends.of(_rows(kept))
            solved = self.stage(begun, part.firmness, budget, plan.tolerance, bends)
            unknowns = solved.params
            histories.append(solved.history)
            chosen.append(kept)
            numbers.append(len(kept))
        assert solved is not None
        best = solved.loss.view(len(chosen[-1]), count).nan_to_num(torch.inf).argmin(0, keepdim=True)
        unknowns = _picked(unknowns, best)
        if flips:
            unknowns = self._flipped(unknowns, flips, plan.tolerance)
        # What the one that was chosen had been in each stage before.
        picked = [best]
        for kept in reversed(chosen):
            picked.append(kept.gather(0, picked[-1]))
        traced = [
            history.view(len(history), starts, count).gather(1, which.expand(len(history), 1, -1)).squeeze(1)
            for history, which, starts in zip(histories, reversed(picked), numbers, strict=True)
        ]
        return unknowns, torch.cat(traced), self.steps - sum(budgets) - flips

    def stage(
        self,
        start: dict[str, Tensor],
        firmness: float,
        budget: int,
        tolerance: float = TOLERANCE,
        bends: Bends | None = None,
        *,
        gentle: bool = False,
    ) -> Solution:
        """Minimise the energy from starts (k N, T, ...), by Levenberg-Marquardt where all of its terms are squares.

        `gentle` for starts that are known to be good.
        """
        energy, persons = self.energy, self._persons(start)
        if not energy.squared:
            pace = GENTLE if gentle else 1.0
            solved = minimise(
                lambda p: energy.total(p, persons, firmness),
                start,
                steps=budget,
                lr={name: pace * LEARNING_RATES.get(name, LEARNING_RATE) for name in start},
                schedule=_fade,
                tolerance=FIRST_ORDER.tolerance,
                callback=self._report,
            )
        else:
            bends = bends or Bends.at(energy, start["body_pose"])
            data = {"person": persons} if bends is None else {"person": persons, "entry": bends.entry}

            def equations(unknowns: dict[str, Tensor], data: dict[str, Tensor]) -> NormalEquations | ArrowEquations:
                bent = None if bends is None else bends.table[data["entry"]]
                return energy.equations(unknowns, data["person"], firmness, bent)

            solved = least_squares(
                lambda p, data: energy.residuals(p, data["person"], firmness),
                start,
                data=data,
                rotations=("global_orient", "body_pose"),
                jacobian=equations,
                steps=budget,
                tolerance=tolerance,
                damping=GENTLE_DAMPING if gentle else DAMPING,
                callback=self._report,
            )
        self.taken += solved.steps
        return solved

    def _flipped(self, unknowns: dict[str, Tensor], budget: int, tolerance: float) -> dict[str, Tensor]:
        """Return the unknowns with each limb at the depth that lowers the energy most."""
        energy, model = self.energy, self.energy.model
        bends, frames = Bends.at(energy, unknowns["body_pose"]), unknowns["body_pose"].shape[:2]
        shape: dict[str, Any] = {energy.shape_argument: unknowns[energy.shape_argument]}

        def settle(starts: dict[str, Tensor]) -> dict[str, Tensor]:
            again = None if bends is None else bends.of(self._persons(starts))
            return self.stage(starts, 1.0, budget, tolerance, again).params

        return try_depth_flips(
            unknowns,
            axis_angle_to_matrix(unknowns["global_orient"]),
            model.joints(**shape).expand(*frames, -1, -1),
            model.skeleton,
            settle,
            lambda tried: energy.total(tried, self._persons(tried), 1.0),
        )

    def _persons(self, unknowns: dict[str, Tensor]) -> Tensor:
        """Return whom each of the unknowns (k N, ...) is to match."""
        return self.persons.repeat(len(unknowns["body_pose"]) // max(len(self.persons), 1))

    def _report(self, step: int, _: Tensor) -> None:
        if self.callback is not None:
            self.callback(self.taken + step, self.steps)

    def _most_promising(self, unknowns: dict[str, Tensor], starts: int, part: Round) -> Tensor:
        """Return which of the starts (k, N) a round follows for each sample."""
        samples = len(self.persons)
        if starts <= part.kept:
            return torch.arange(starts, device=self.persons.device).unsqueeze(-1).expand(starts, samples)
        with torch.no_grad():
            promise = self.energy.total(unknowns, self._persons(unknowns), part.firmness).view(starts, samples)
        return promise.nan_to_num(torch.inf).topk(part.kept, dim=0, largest=False).indices


def _rows(kept: Tensor) -> Tensor:
    """Return the rows (k N,) of starts (S N, ...) that `kept` (k, N) names for each sample."""
    samples = kept.shape[1]
    return (kept * samples + torch.arange(samples, device=kept.device)).flatten()


def _picked(unknowns: dict[str, Tensor], kept: Tensor) -> dict[str, Tensor]:
    """Return the starts (k N, ...) of unknowns (S N, ...) that `kept` (k, N) names for each sample."""
    rows = _rows(kept)
    return {name: value.index_select(0, rows) for name, value in unknowns.items()}


def _fade(progress: float) -> float:
    """Return the factor on the step size: constant for half of a stage, then down to a tenth."""
    return 1.0 if progress < 0.5 else 0.55 + 0.45 * math.cos(2 * math.pi * (progress - 0.5))
