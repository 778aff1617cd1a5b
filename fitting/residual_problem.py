"""A batch of least-squares problems as the solver sees it: flat in batch, and evaluated for chosen samples only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .normal_equations import Equations, NormalEquations
from .tangent import tangent_jacobian

# Numbers of a Jacobian that are made at once.
ELEMENTS = 2**21


class ResidualProblem(NamedTuple):
    """Residuals of N samples, and their Jacobians in the tangent space.

    Attributes:
        residual: the user's function, of parameters, or of parameters and data.
        jacobian: the user's, or None to differentiate.
        data: flat in batch, or None: then every evaluation is of all samples, in the user's batch.
        rotations: names of the axis-angle parameters.
        batch: the user's batch shape.
        num_residuals: R, a sample.
    """

    residual: Callable[..., Tensor]
    jacobian: Callable[..., tuple[Tensor, Tensor] | Equations] | None
    data: Any
    rotations: Collection[str]
    batch: torch.Size
    num_residuals: int

    @classmethod
    def read(
        cls,
        residual: Callable[..., Tensor],
        jacobian: Callable[..., tuple[Tensor, Tensor] | Equations] | None,
        params: Mapping[str, Tensor],
        data: Any,
        rotations: Collection[str],
    ) -> tuple[ResidualProblem, dict[str, Tensor]]:
        """Check the parameters and return the problem with its start (N, ...).

        Raises:
            ValueError: no parameters, a residual that is not (*B, R), parameters or data without its batch, a name in
                `rotations` that is no axis-angle parameter.
        """
        if not params:
            raise ValueError("params: expected at least one tensor by name, got none; pass what is to be found")
        start = {name: value.detach() for name, value in params.items()}
        for name in rotations:
            if name not in start or start[name].shape[-1:] != (3,):
                got = tuple(start[name].shape) if name in start else f"only {', '.join(start)}"
                raise ValueError(f"rotations: expected {name} (*batch, ..., 3) in params, got {got}; check the name")
        arguments = (start,) if data is None else (start, data)
        values = residual(*arguments)
        batch = values.shape[:-1]
        if values.dim() == 0:
            raise ValueError("residual: expected (*batch, R), got one number; do not reduce")

        def flat(name: str, value: Tensor) -> Tensor:
            if value.shape[: len(batch)] != batch:
                raise ValueError(
                    f"{name}: expected leading dimensions {tuple(batch)} as of residuals {tuple(values.shape)}, got "
                    f"{tuple(value.shape)}; give each sample its own, and do not reduce residuals over the batch"
                )
            return value.reshape(batch.numel(), *value.shape[len(batch) :])

        flat_data = _map(lambda value: flat("data", value.detach()), data)
        problem = cls(residual, jacobian, flat_data, rotations, batch, values.shape[-1])
        return problem, {name: flat(name, value) for name, value in start.items()}

    def per_group(self, sigma: float | Tensor, group: int) -> Tensor | float:
        """Return the penalty's `sigma`, checked against the number of groups."""
        if group < 1 or self.num_residuals % group:
            raise ValueError(
                f"group: expected a divisor of {self.num_residuals} residuals, got {group}; append zeros to fill up"
            )
        groups = self.num_residuals // group
        if isinstance(sigma, Tensor) and sigma.shape not in ((), (groups,)):
            raise ValueError(f"sigma: expected a number or ({groups},), got {tuple(sigma.shape)}; give one a group")
        return sigma

    def rows(self, wanted: Tensor) -> Tensor | None:
        """Return the samples to evaluate, or None for all."""
        return None if self.data is None else wanted.nonzero().squeeze(-1)

    def residuals(self, params: dict[str, Tensor], rows: Tensor | None) -> Tensor:
        """Return (n, R) at params (n, ...) of the samples `rows`."""
        if rows is None and self.data is None:
            return self.residual(self._in_batch(params)).reshape(self.batch.numel(), self.num_residuals)
        return self.residual(params, self._data_of(rows))

    def linearised(
        self,
        params: dict[str, Tensor],
        rows: Tensor | None,
        weigh: Callable[[Tensor], Tensor] | None,
        equations: Equations | None,
    ) -> tuple[Equations, Tensor]:
        """Return the normal equations, renewed for the samples `rows` (None: all), and which of theirs are finite (N,).

        Args:
            params: (N, ...).
            rows: of the samples.
            weigh: maps residuals (n, R) to weights of their squares; None: all 1.
            equations: of all N so far; None: there are none yet.
        """
        if rows is None:
            fresh = self._equations((self._in_batch(params),), params, weigh)
            return fresh, fresh.finite()
        count = self.batch.numel()
        if equations is None and len(rows) < count:
            rows = torch.arange(count, device=rows.device)
        good = torch.ones(count, dtype=torch.bool, device=rows.device)
        # So many at once that their Jacobian stays in the caches.
        size = max(1, self.num_residuals * sum(value.shape[1:].numel() for value in params.values()))
        for part in rows.split(max(1, ELEMENTS // size)):
            here = {name: value.index_select(0, part) for name, value in params.items()}
            fresh = self._equations((here, self._data_of(part)), params, weigh)
            good.index_copy_(0, part, fresh.finite())
            if equations is None and len(part) == count:
                return fresh, good
            equations = fresh.like(count) if equations is None else equations
            equations.put(part, fresh)
        assert equations is not None
        return equations, good

    def _equations(
        self, arguments: tuple[Any, ...], params: dict[str, Tensor], weigh: Callable[[Tensor], Tensor] | None
    ) -> Equations:
        """Return the normal equations at some samples' parameters and data."""
        if self.jacobian is not None:
            result = self.jacobian(*arguments)
        else:
            result = tangent_jacobian(lambda moved: self.residual(moved, *arguments[1:]), arguments[0], self.rotations)
        if isinstance(result, Equations):
            return result
        values, jacobian = result
        size = sum(value.shape[1:].numel() for value in params.values())
        if values.shape[-1] != self.num_residuals or jacobian.shape != (*values.shape, size):
            raise ValueError(
                f"jacobian: expected (*batch, R) and (*batch, R, D), R = {self.num_residuals} and D = {size}, got "
                f"{tuple(values.shape)} and {tuple(jacobian.shape)}; a rotation has 3 columns, in the order of params"
            )
        count = values.shape[:-1].numel()
        flat = values.reshape(count, self.num_residuals), jacobian.reshape(count, self.num_residuals, size)
        return NormalEquations.of(*flat, weigh)

    def unflat(self, value: Tensor) -> Tensor:
        """Return (N, ...) in the user's batch."""
        return value.reshape((*self.batch, *value.shape[1:]))

    def _in_batch(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.unflat(value) for name, value in params.items()}

    def _data_of(self, rows: Tensor | None) -> Any:
        return self.data if rows is None else _map(lambda value: value.index_select(0, rows), self.data)


def _map(function: Callable[[Tensor], Tensor], data: Any) -> Any:
    """Return `data` with `function` applied to each tensor in it."""
    if data is None:
        return None
    if isinstance(data, Tensor):
        return function(data)
    if isinstance(data, Mapping):
        return {name: _map(function, value) for name, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(_map(function, value) for value in data))
    if isinstance(data, (tuple, list)):
        return type(data)(_map(function, value) for value in data)
    raise TypeError(
        f"data: expected tensors, alone or in dictionaries, tuples or lists, got {type(data).__name__}; convert it"
    )
