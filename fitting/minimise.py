"""Minimise one loss a sample by gradient descent, each sample for itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from .solution import Solution, Status

PATIENCE = 25


def minimise(
    loss: Callable[[dict[str, Tensor]], Float[Tensor, "*batch"]],
    params: Mapping[str, Tensor],
    *,
    steps: int = 300,
    lr: float | Mapping[str, float] = 0.1,
    schedule: Callable[[float], float] | None = None,
    tolerance: float = 1e-5,
    callback: Callable[[int, Tensor], None] | None = None,
    throw: bool = False,
) -> Solution:
    """Minimise `loss` over `params` with Adam, and return the best point that each sample visited.

    Samples do not influence each other: Adam scales every number by its own history, and a sample whose loss or
    gradient is not finite stands still while the others go on.

    Args:
        loss: maps a dictionary like `params` to one loss a sample, (*B,).
        params: the start: name to tensor (*B, ...), all with the batch of the loss. Not modified.
        steps: the most that are taken.
        lr: step size of Adam, for all or by name; a name left out of the mapping takes 0.1.
        schedule: maps progress from 0 to 1 to a factor on `lr`; default: constant.
        tolerance: a sample has converged when its best loss fell by less than this share over the last 25 steps. The
            solve ends early when all samples have.
        callback: called after each step with its number, from 1, and the detached losses (*B,).
        throw: raise ValueError unless every sample converged.

    Returns:
        The solution; a sample that is not finite at the start comes back as it was, with `Status.INVALID`.

    Raises:
        ValueError: no parameters, a negative number of steps, a loss that is not one number a sample; with `throw`,
            a sample that did not converge.

    Source: Adam (Kingma and Ba 2015).

    Example:
        >>> import torch
        >>> target = torch.tensor([1.0, -2.0])
        >>> solution = minimise(lambda p: (p["x"] - target).square(), {"x": torch.zeros(2)}, steps=500)
        >>> torch.allclose(solution.params["x"], target, atol=1e-2)
        True
    """
    if not params:
        raise ValueError("params: expected at least one tensor by name, got none; pass what is to be found")
    if steps < 0:
        raise ValueError(f"steps: expected 0 or more, got {steps}; pass how many steps to take at most")
    current = {name: value.detach().clone().requires_grad_(True) for name, value in params.items()}
    rates = {name: lr.get(name, 0.1) if isinstance(lr, Mapping) else lr for name in current}
    groups = [{"params": [value], "lr": rates[name]} for name, value in current.items()]
    optimiser = torch.optim.Adam(groups)
    best = {name: value.detach().clone() for name, value in current.items()}
    history: list[Tensor] = []
    lowest: list[Tensor] = []
    for step in range(steps + 1):
        with torch.enable_grad():
            losses = loss(current)
            _check_losses(losses, current)
            finite = losses.isfinite()
            total = torch.where(finite, losses, 0).sum()
        value = losses.detach()
        better = finite if step == 0 else finite & ~(value >= lowest[-1])
        best = {name: torch.where(_like(better, best[name]), current[name].detach(), best[name]) for name in best}
        lowest.append(torch.where(better, value, lowest[-1] if lowest else value))
        history.append(value)
        if step == steps or (step % PATIENCE == 0 and bool(_converged(lowest, tolerance).all())):
            break
        gradients = torch.autograd.grad(total, list(current.values()), allow_unused=True)
        for parameter, gradient in zip(current.values(), gradients, strict=True):
            parameter.grad = None if gradient is None else torch.where(gradient.isfinite(), gradient, 0)
        if schedule is not None:
            for group, name in zip(optimiser.param_groups, current, strict=True):
                group["lr"] = rates[name] * schedule(step / max(steps - 1, 1))
        optimiser.step()
        if callback is not None:
            callback(step + 1, value)
    invalid = ~history[0].isfinite()
    status = torch.where(_converged(lowest, tolerance), int(Status.CONVERGED), int(Status.MAX_STEPS))
    status = torch.where(invalid, int(Status.INVALID), status)
    solution = Solution(best, lowest[-1], len(history) - 1, status, torch.stack(history))
    return solution.check() if throw else solution


def _converged(lowest: list[Tensor], tolerance: float) -> Tensor:
    """Return which samples' best loss has stopped falling; those without a finite loss have."""
    now = lowest[-1]
    if len(lowest) <= PATIENCE:
        return ~now.isfinite()
    before = lowest[-1 - PATIENCE]
    return ~(before - now > tolerance * before.abs().clamp(min=torch.finfo(now.dtype).tiny))


def _like(flags: Tensor, value: Tensor) -> Tensor:
    """Return per-sample flags (*B,) with trailing dimensions of size 1, to select whole samples of `value`."""
    return flags.reshape(flags.shape + (1,) * (value.dim() - flags.dim()))


def _check_losses(losses: Tensor, params: Mapping[str, Tensor]) -> None:
    for name, value in params.items():
        if value.shape[: losses.dim()] != losses.shape:
            raise ValueError(
                f"loss: expected one number a sample, the leading dimensions of {name} {tuple(value.shape)}, "
                f"got {tuple(losses.shape)}; do not reduce over the batch, and do reduce over everything else"
            )
