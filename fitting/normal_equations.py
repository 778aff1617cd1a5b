"""The damped, bounded step of Gauss-Newton from robustly weighted residuals, a sample each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from ..losses import penalise
from .tangent import joined

Penalty: TypeAlias = Literal["l2", "huber", "geman_mcclure"]

# Diagonal entries smaller than this share of the largest are damped as if they were as large: nothing measures them.
SMALLEST_DIAGONAL = 1e-9
BOUND_ROUNDS = 6


def robust_loss(residuals: Tensor, penalty: Penalty, sigma: float | Tensor, group: int) -> Tensor:
    """Return the (n,) sum over the groups of residuals (n, R) of the penalty of each group's length."""
    if penalty == "l2":
        return residuals.square().sum(-1)
    lengths = residuals.unflatten(-1, (-1, group)).norm(dim=-1)
    return penalise(lengths, penalty, sigma).sum(-1)


def robust_weights(penalty: Penalty, sigma: float | Tensor, group: int) -> Callable[[Tensor], Tensor] | None:
    """Return what maps residuals (n, R) to weights of their squares, penalty'(s) / 2s of each length s; None: all 1."""
    if penalty == "l2":
        return None

    def weigh(residuals: Tensor) -> Tensor:
        length = residuals.unflatten(-1, (-1, group)).norm(dim=-1)
        if penalty == "huber":
            weights = (sigma / length).clamp(max=1) / 2
        else:
            weights = 1 / (1 + (length / sigma).square()).square()
        return weights.repeat_interleave(group, dim=-1)

    return weigh


@runtime_checkable
class Equations(Protocol):
    """The normal equations of N samples, in whatever form they are solved best."""

    def finite(self) -> Tensor:
        """Return whether those of each sample are finite, (N,)."""
        ...

    def rows(self, rows: Tensor | None) -> Equations:
        """Return those of some samples; None: all."""
        ...

    def like(self, count: int) -> Equations:
        """Return equations of as many samples, to be filled by `put`."""
        ...

    def put(self, rows: Tensor, fresh: Any) -> None:
        """Take the place of those of the samples `rows`."""
        ...

    def step(self, damping: Tensor, room: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """Solve for the step.

        Args:
            damping: (N,) relative to the diagonal.
            room: how far each number may go down and up, two (N, D), or None: everywhere.

        Returns:
            the step (N, D), the loss that it should take off (N,), and whether the system could be solved (N,).
        """
        ...


class NormalEquations:
    """JᵀWJ and JᵀWr of N samples: half the curvature, and half the slope, of their losses.

    What `jacobian` of `least_squares` may return in place of residuals and their Jacobian: terms are added one by one,
    each in the form that it has, and rows of zeros are never made.

    Args:
        matrix: (N, D, D), symmetric.
        slope: (N, D).

    Attributes:
        matrix: (N, D, D).
        slope: (N, D).

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> equations = NormalEquations.zeros(x, 2)
        >>> equations.add(x.sum(-1, keepdim=True), torch.ones(1, 1, 2))  # the square of the sum
        >>> equations.add_squares(0, x - 1, 1.0)  # and the squares of x - 1
        >>> equations.matrix[0], equations.slope[0]
        (tensor([[2., 1.],
                [1., 2.]]), tensor([3., 4.]))
    """

    def __init__(self, matrix: Tensor, slope: Tensor) -> None:
        """Hold both; see the class for the arguments."""
        self.matrix, self.slope = matrix, slope

    @classmethod
    def zeros(cls, like: Tensor, size: int) -> NormalEquations:
        """Return equations of D = `size` unknowns for as many samples as `like` (N, ...) has, of its type."""
        return cls(like.new_zeros(len(like), size, size), like.new_zeros(len(like), size))

    @classmethod
    def of(
        cls, residuals: Tensor, jacobian: Tensor, weigh: Callable[[Tensor], Tensor] | None = None
    ) -> NormalEquations:
        """Return the equations of residuals (N, R) and their Jacobian (N, R, D)."""
        weighted = jacobian if weigh is None else weigh(residuals).unsqueeze(-1) * jacobian
        return cls(weighted.mT @ jacobian, (weighted.mT @ residuals.unsqueeze(-1)).squeeze(-1))

    def add(self, residuals: Tensor, jacobian: Tensor) -> None:
        """Add the squares of residuals (N, R) that depend on all unknowns: (N, R, D)."""
        self.matrix.baddbmm_(jacobian.mT, jacobian)
        self.slope.unsqueeze(-1).baddbmm_(jacobian.mT, residuals.unsqueeze(-1))

    def add_some(self, first: int, residuals: Tensor, jacobian: Tensor) -> None:
        """Add the squares of residuals (N, R) that depend on the unknowns from `first` on: (N, R, d)."""
        size = jacobian.shape[-1]
        corner = self.matrix.narrow(-1, first, size).narrow(-2, first, size)
        corner += jacobian.mT @ jacobian
        self.slope.narrow(-1, first, size).unsqueeze(-1).add_(jacobian.mT @ residuals.unsqueeze(-1))

    def add_squares(self, first: int, residuals: Tensor, scale: float | Tensor) -> None:
        """Add the squares of residuals (N, d) that move by `scale` with the unknowns from `first` on, one each."""
        size = residuals.shape[-1]
        self.matrix.diagonal(dim1=-2, dim2=-1).narrow(-1, first, size).add_(scale**2)
        self.slope.narrow(-1, first, size).add_(scale * residuals)

    def add_turns(self, first: int, weights: Tensor, off: Tensor, turns: Tensor) -> None:
        """Add weighted squares of how far axis-angle vectors are off.

        Args:
            first: of their unknowns.
            weights: (N, n, 3) curvatures of the squares.
            off: (N, n, 3) half their slopes: weights times differences.
            turns: (N, n, 3, 3) their `left_turns`.
        """
        count = off.shape[-2]
        size = 3 * count
        corner = self.matrix.narrow(-1, first, size).narrow(-2, first, size)
        blocks = corner.unflatten(-1, (count, 3)).unflatten(-3, (count, 3)).diagonal(dim1=1, dim2=3)
        blocks += (turns.mT @ (weights.unsqueeze(-1) * turns)).movedim(1, -1)
        self.slope.narrow(-1, first, size).add_((turns.mT @ off.unsqueeze(-1)).flatten(-3))

    def add_quadratic(self, first: int, matrix: Tensor, slope: Tensor) -> None:
        """Add half the curvature (N, d, d) and half the slope (N, d) of a term by the unknowns from `first` on."""
        size = slope.shape[-1]
        self.matrix.narrow(-1, first, size).narrow(-2, first, size).add_(matrix)
        self.slope.narrow(-1, first, size).add_(slope)

    def finite(self) -> Tensor:
        """See `Equations`."""
        return self.slope.isfinite().all(-1) & self.matrix.diagonal(dim1=-2, dim2=-1).isfinite().all(-1)

    def rows(self, rows: Tensor | None) -> NormalEquations:
        """See `Equations`."""
        if rows is None or len(rows) == len(self.slope):
            return self
        return NormalEquations(self.matrix.index_select(0, rows), self.slope.index_select(0, rows))

    def like(self, count: int) -> NormalEquations:
        """See `Equations`."""
        return NormalEquations.zeros(self.slope.new_zeros(count), self.slope.shape[-1])

    def put(self, rows: Tensor, fresh: NormalEquations) -> None:
        """See `Equations`."""
        self.matrix.index_copy_(0, rows, fresh.matrix)
        self.slope.index_copy_(0, rows, fresh.slope)

    def step(self, damping: Tensor, room: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """See `Equations`."""
        matrix, slope = self.matrix, self.slope
        diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        largest = diagonal.amax(-1, keepdim=True)
        scale = torch.maximum(diagonal, SMALLEST_DIAGONAL * torch.where(largest > 0, largest, 1))
        damped = matrix.clone()
        damped.diagonal(dim1=-2, dim2=-1).addcmul_(damping.unsqueeze(-1), scale)
        move, solved = _solve(damped, -slope)
        if room is not None:
            move, solved = _bounded(damped, slope, room, move, solved)
        bent = (matrix @ move.unsqueeze(-1)).squeeze(-1)
        predicted = -(move * (2 * slope + bent)).sum(-1)
        return move, predicted, solved


def _bounded(
    damped: Tensor, slope: Tensor, room: tuple[Tensor, Tensor], move: Tensor, solved: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the step that is best within `room`, from the one that is best without it.

    By a primal-dual active set: a number stops at the bound that it would cross, the others are solved for again given
    those, and it is let go where it would then pull inwards (Hintermueller, Ito and Kunisch 2002).
    """
    diagonal = damped.diagonal(dim1=-2, dim2=-1)
    for _ in range(BOUND_ROUNDS):
        pulled = move - (slope + (damped @ move.unsqueeze(-1)).squeeze(-1)) / diagonal
        fixed = torch.minimum(torch.maximum(pulled, room[0]), room[1])
        held = (fixed != pulled) & solved.unsqueeze(-1)
        fixed = torch.where(held, fixed, 0)
        free = damped.masked_fill(held.unsqueeze(-1) | held.unsqueeze(-2), 0) + torch.diag_embed(held * diagonal)
        target = (slope + (damped @ fixed.unsqueeze(-1)).squeeze(-1)).masked_fill(held, 0)
        solution, well = _solve(free, -target)
        before, move = move, torch.where(held, fixed, solution)
        solved = solved & well
        if bool((move == before).all()):
            break
    return torch.minimum(torch.maximum(move, room[0]), room[1]), solved


def _solve(matrix: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Solve symmetric systems (n, D, D) by Cholesky; return zero, and false, for those that have no finite solution."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    solution = torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)
    solved = (failed == 0) & solution.isfinite().all(-1)
    return torch.where(solved.unsqueeze(-1), solution, 0), solved


class ColumnBounds(NamedTuple):
    """Bounds of the columns of the tangent space, (D,) each; None: no bounds."""

    lower: Tensor | None
    upper: Tensor | None

    def project(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return params (n, ...) moved into the bounds."""
        if self.lower is None or self.upper is None:
            return dict(params)
        sizes = [value.shape[1:].numel() for value in params.values()]
        parts = zip(params.items(), self.lower.split(sizes), self.upper.split(sizes), strict=True)
        return {name: value.clamp(*(side.view(value.shape[1:]) for side in sides)) for (name, value), *sides in parts}

    def room(self, params: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        """Return how far each number of params (n, ...) may go down and up, (n, D) each."""
        if self.lower is None or self.upper is None:
            return None
        values = joined(params)
        return self.lower - values, self.upper - values


def column_bounds(
    bounds: Mapping[str, tuple[float | Tensor | None, float | Tensor | None]],
    params: Mapping[str, Tensor],
    rotations: Collection[str],
) -> ColumnBounds:
    """Read the user's bounds for params (N, ...).

    Raises:
        ValueError: a name that is not among the params or is a rotation, a shape that does not fit one sample's, or a
            lower bound above its upper one.
    """
    if not bounds:
        return ColumnBounds(None, None)
    for name in bounds:
        if name not in params or name in rotations:
            known = ", ".join(n for n in params if n not in rotations)
            raise ValueError(f"bounds: expected names among {known}, got {name}; rotations cannot be bounded")
    sides: list[list[Tensor]] = [[], []]
    for name, value in params.items():
        for side, (given, open_end) in enumerate(
            zip(bounds.get(name, (None, None)), (-torch.inf, torch.inf), strict=True)
        ):
            limit = torch.as_tensor(open_end if given is None else given, dtype=value.dtype, device=value.device)
            try:
                sides[side].append(limit.expand(value.shape[1:]).flatten())
            except RuntimeError:
                raise ValueError(
                    f"bounds: expected a shape that broadcasts to {tuple(value.shape[1:])} for {name}, "
                    f"got {tuple(limit.shape)}; bounds are shared by all samples"
                ) from None
    lower, upper = (torch.cat(side) for side in sides)
    if bool((lower > upper).any()):
        raise ValueError("bounds: expected lower <= upper, got a lower bound above its upper one; exchange them")
    return ColumnBounds(lower, upper)
