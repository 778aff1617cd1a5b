"""Minimise sums of squared residuals by Levenberg-Marquardt, each sample for itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .normal_equations import Equations, Penalty, column_bounds, robust_loss, robust_weights
from .residual_problem import ResidualProblem
from .solution import Solution, Status
from .tangent import joined, retract, unwound

MOST_DAMPING = 1e12


def least_squares(
    residual: Callable[..., Float[Tensor, "*batch R"]],
    params: Mapping[str, Tensor],
    *,
    data: Any = None,
    rotations: Collection[str] = (),
    jacobian: Callable[..., tuple[Tensor, Tensor] | Equations] | None = None,
    bounds: Mapping[str, tuple[float | Tensor | None, float | Tensor | None]] | None = None,
    penalty: Penalty = "l2",
    sigma: float | Tensor = 1.0,
    group: int = 1,
    steps: int = 30,
    tolerance: float = 1e-6,
    enough: float | Tensor = 0.0,
    damping: float = 0.1,
    callback: Callable[[int, Tensor], None] | None = None,
    throw: bool = False,
) -> Solution:
    """Minimise the sum of squares (or of a robust penalty) of `residual` by Levenberg-Marquardt.

    Each sample has its own damping and accepts or rejects its own steps: a sample that is not finite, singular or slow
    never changes what the others do. Between runs of different batches the results of a sample agree up to rounding,
    since matrix products may sum in another order.

    Args:
        residual: `residual(params) -> (*B, R)`, or `residual(params, data)` where `data` is given. One sample's
            residuals must not depend on another's.
        params: the start: name to tensor (*B, ...), in the same floating type. Not modified.
        data: dictionary, (named) tuple, list of tensors (*B, ...) that belong to the samples. With it, samples that are
            done are dropped: `residual(params, data)` is then called with one flat batch dimension of any size.
        rotations: names of the params that are axis-angle vectors (*B, ..., 3). They move on the manifold, by turns
            from the left R -> exp(d) R, cross half a turn without a seam, and come back no longer than it.
        jacobian: `jacobian(params[, data]) -> (residual, (*B, R, D))` in the tangent space, columns in the order of
            `params`, see `tangent_jacobian`, which is what is used by default (forward differentiation). Where most of
            a Jacobian is zeros it may return `NormalEquations` instead.
        bounds: name to (lower, upper), each a number, a tensor that broadcasts against one sample's values, or None.
            Steps are projected onto the box, and so is the start.
        penalty: of the residuals: "l2" r², "huber" or "geman_mcclure", see `physique.losses`; the last two by
            reweighting.
        sigma: of the penalty, a number or one a group; a group with `math.inf` counts as r² ("huber": r²/2).
        group: how many consecutive residuals are one measurement, penalised by their length: 2 for pixels, 3 for
            points.
        steps: the most that are tried.
        tolerance: a sample has converged when a step lowers its loss by less than this share, as was predicted, or
            moves it by no more than rounding.
        enough: a sample whose loss is no more than this has converged, a number or one a sample (*B,).
        damping: at the start, relative to the diagonal of JᵀJ; smaller from a start that is known to be good.
        callback: called after each step with its number, from 1, and the losses (*B,).
        throw: raise ValueError unless every sample converged.

    Returns:
        The solution. `loss` is the sum of penalties, not halved. A sample whose residuals or Jacobian are not finite
        at the start comes back as it was, with `Status.INVALID`.

    Raises:
        ValueError: no parameters, shapes that do not fit, unknown names in `rotations` or `bounds`, an unknown penalty;
            with `throw`, a sample that did not converge.

    Source: Marquardt (1963), with the damping schedule of Nielsen (1999), "Damping parameter in Marquardt's method".

    Example:
        >>> import torch
        >>> x = torch.linspace(0, 1, 20)
        >>> y = torch.tensor([[2.0], [0.5]]) * torch.exp(torch.tensor([[-1.0], [1.5]]) * x)
        >>> start = {"size": torch.ones(2), "rate": torch.zeros(2)}
        >>> def residual(p, y):
        ...     return p["size"].unsqueeze(-1) * torch.exp(p["rate"].unsqueeze(-1) * x) - y
        >>> least_squares(residual, start, data=y).params["rate"]
        tensor([-1.0000,  1.5000])
    """
    if steps < 0:
        raise ValueError(f"steps: expected 0 or more, got {steps}; pass how many steps to take at most")
    if penalty not in ("l2", "huber", "geman_mcclure"):
        raise ValueError(f"penalty: expected l2, huber or geman_mcclure, got {penalty!r}; check the name")
    with torch.no_grad():
        problem, start = ResidualProblem.read(residual, jacobian, params, data, rotations)
        limits = column_bounds(bounds or {}, start, rotations)
        current = {name: unwound(value) if name in rotations else value.clone() for name, value in start.items()}
        current = limits.project(current)
        robust = (penalty, problem.per_group(sigma, group), group)
        weigh = robust_weights(*robust)
        loss = robust_loss(problem.residuals(current, None), *robust)
        equations: Equations | None = None
        active = loss.isfinite()
        valid = active.clone()
        stale = active.clone()
        strength, growth = torch.full_like(loss, damping), torch.full_like(loss, 2.0)
        status = torch.where(active, int(Status.MAX_STEPS), int(Status.INVALID))
        history = [problem.unflat(loss.clone())]
        goal = torch.as_tensor(enough, dtype=loss.dtype, device=loss.device).expand(problem.batch).reshape(loss.shape)
        rounding = 4 * torch.finfo(loss.dtype).eps
        for step in range(1, steps + 1):
            if bool((active & stale).any()):
                rows = problem.rows(active & stale)
                equations, good = problem.linearised(current, rows, weigh, equations)
                lost = active & stale & ~good
                if step == 1:
                    valid = valid & ~lost
                    status = torch.where(lost, int(Status.INVALID), status)
                active, stale = active & ~lost, torch.zeros_like(stale)
            rows = problem.rows(active)
            if equations is None or not bool(active.any()):
                break
            here = _take(current, rows)
            move, predicted, solved = equations.rows(rows).step(_rows(strength, rows), limits.room(here))
            trial = retract(here, move, rotations)
            after = robust_loss(problem.residuals(trial, rows), *robust)
            before, moving = _rows(loss, rows), _rows(active, rows)
            fell = before - after
            accept = moving & solved & (after < before)
            still = move.abs().amax(-1) <= rounding * joined(here).abs().amax(-1).clamp(min=1)
            # A step cut short by bounds may be predicted to climb: that says nothing about having arrived.
            settled = (predicted >= 0) & (predicted <= tolerance * before) & (fell <= tolerance * before)
            done = moving & ((solved & (settled | still)) | (accept & (after <= _rows(goal, rows))))
            gain = torch.where(accept, fell / predicted.clamp(min=torch.finfo(move.dtype).tiny), 0)
            shrink = (1 - (2 * gain - 1) ** 3).clamp(1 / 3, 1)
            weaker, faster = _rows(strength, rows), _rows(growth, rows)
            _put(strength, rows, torch.where(accept, weaker * shrink, weaker * faster).clamp(1e-12, MOST_DAMPING))
            _put(growth, rows, torch.where(accept, 2.0, faster * 2).clamp(max=1e6))
            for name, value in trial.items():
                chosen = torch.where(accept.view(-1, *(1,) * (value.dim() - 1)), value, here[name])
                _put(current[name], rows, chosen)
            _put(loss, rows, torch.where(accept, after, before))
            _put(stale, rows, accept)
            _put(status, rows, torch.where(done, int(Status.CONVERGED), _rows(status, rows)))
            _put(active, rows, moving & ~done & ((_rows(strength, rows) < MOST_DAMPING) | accept))
            history.append(problem.unflat(loss.clone()))
            if callback is not None:
                callback(step, history[-1])
        result = {
            name: problem.unflat(torch.where(valid.view(-1, *(1,) * (value.dim() - 1)), value, start[name]))
            for name, value in current.items()
        }
    solution = Solution(result, problem.unflat(loss), len(history) - 1, problem.unflat(status), torch.stack(history))
    return solution.check() if throw else solution


def _take(params: Mapping[str, Tensor], rows: Tensor | None) -> dict[str, Tensor]:
    return {name: _rows(value, rows) for name, value in params.items()}


def _rows(value: Tensor, rows: Tensor | None) -> Tensor:
    return value if rows is None else value.index_select(0, rows)


def _put(target: Tensor, rows: Tensor | None, value: Tensor) -> None:
    if rows is None:
        target.copy_(value)
    else:
        target.index_copy_(0, rows, value)
