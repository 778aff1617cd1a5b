"""A check that a function's value, gradient and Hessian-vector product are finite and right."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

MAX_ELEMENTS = 200


def assert_right_to_second_order(
    fn: Callable[..., Tensor],
    *inputs: Tensor,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    step: float = 1e-3,
    forward_mode: bool = True,
) -> None:
    """Assert that value, gradient and Hessian-vector product of `fn` are finite and equal finite differences.

    The gradient is that of a fixed random projection of the output, the Hessian is multiplied by a fixed random
    direction. The gradient is compared with differences of the value, element by element (200 of them where an input is
    larger, and all together along the direction); the product with differences of the gradient; the product along the
    direction with second differences of the value; and the forward-mode derivative with the gradient. All differences
    are central and of fourth order.

    Args:
        fn: maps the inputs to one float64 tensor, always to the same one for the same inputs.
        inputs: float64 tensors; close over everything else.
        rtol: relative tolerance.
        atol: absolute tolerance.
        step: of the differences, times the largest entry of the input where that is above 1. Take a smaller one where a
            singularity is near.
        forward_mode: whether to check forward mode; leave it out for functions that do not offer it.

    Raises:
        AssertionError: what is wrong: which input, value, gradient or Hessian-vector product, where, and the numbers.
        TypeError: an input is not float64.

    Example:
        >>> from physique.geometry import axis_angle_to_matrix
        >>> assert_right_to_second_order(axis_angle_to_matrix, torch.zeros(24, 3, dtype=torch.float64))
    """
    for i, value in enumerate(inputs):
        if not isinstance(value, Tensor) or value.dtype != torch.float64:
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"input {i}: expected a float64 tensor, got {kind}; use torch.as_tensor(x).double()")
    probe = _Probe(fn, tuple(value.detach() for value in inputs))
    gradient, product = probe.gradient_and_product()
    scale = step * max([1.0, *(value.abs().max().item() for value in inputs if value.numel())])

    for i, got in enumerate(gradient):
        expected, checked = probe.differences(i, scale)
        _expect_close(f"input {i}: gradient", got.flatten()[checked], expected, rtol, atol, checked, got.shape)
    slope = _dot(gradient, probe.direction)
    expected = _first_difference(lambda t: probe.loss(probe.moved(t)), scale)
    _expect_close("all inputs: gradient along the direction", slope, expected, rtol, atol)
    if forward_mode:
        forward = probe.forward_slope()
        _expect_close("all inputs: forward-mode gradient", forward, slope, rtol, atol, truth="reverse mode gives")

    for i, got in enumerate(product):
        expected = _first_difference(lambda t, i=i: probe.gradient(probe.moved(t))[i], scale)
        everywhere = torch.arange(got.numel())
        name = f"input {i}: Hessian-vector product"
        _expect_close(name, got.flatten(), expected.flatten(), rtol, atol, everywhere, got.shape)
    curvature = _dot(product, probe.direction)
    # Rounding is divided by the square of the step here; a longer one balances it against the fourth-order error.
    expected = _second_difference(lambda t: probe.loss(probe.moved(t)), 3 * scale)
    _expect_close("all inputs: Hessian-vector product along the direction", curvature, expected, rtol, 10 * atol)


class _Probe:
    """The function at its point, with the fixed random projection of its output and direction of its inputs."""

    def __init__(self, fn: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
        self.fn = fn
        self.inputs = inputs
        generator = torch.Generator().manual_seed(0)
        value = fn(*inputs)
        if not isinstance(value, Tensor) or value.dtype != torch.float64:
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise AssertionError(f"value: expected a float64 tensor, got {kind}; the function changes the type")
        _expect_finite("value", value)
        self.projection = _uniform(value, generator)
        self.direction = tuple(_uniform(each, generator) for each in inputs)

    def loss(self, inputs: tuple[Tensor, ...]) -> Tensor:
        return (self.fn(*inputs) * self.projection).sum()

    def moved(self, distance: float) -> tuple[Tensor, ...]:
        return tuple(value + distance * way for value, way in zip(self.inputs, self.direction, strict=True))

    def gradient(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        leaves = tuple(value.detach().requires_grad_() for value in inputs)
        return _gradient(self.loss(leaves), leaves)

    def gradient_and_product(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        leaves = tuple(value.clone().requires_grad_() for value in self.inputs)
        gradient = _gradient(self.loss(leaves), leaves)
        for i, each in enumerate(gradient):
            _expect_finite(f"input {i}: gradient", each)
        product = _gradient(_dot(gradient, self.direction), leaves)
        for i, each in enumerate(product):
            _expect_finite(f"input {i}: Hessian-vector product", each)
        return tuple(each.detach() for each in gradient), tuple(each.detach() for each in product)

    def forward_slope(self) -> Tensor:
        """Return the derivative of the loss along the direction, by forward mode."""
        with warnings.catch_warnings():
            # The first forward-mode call of a process makes torch import code of its own that it has deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            tangent = torch.func.jvp(self.fn, self.inputs, self.direction)[1]
        return (tangent * self.projection).sum()

    def differences(self, i: int, step: float) -> tuple[Tensor, Tensor]:
        """Return the differences of the loss for elements of input i, and which elements these are."""
        value = self.inputs[i]
        generator = torch.Generator().manual_seed(0)
        checked = torch.randperm(value.numel(), generator=generator)[:MAX_ELEMENTS].sort().values

        def loss_at(element: Tensor) -> Callable[[float], Tensor]:
            unit = torch.zeros(value.numel(), dtype=value.dtype, device=value.device)
            unit[element] = 1
            unit = unit.reshape(value.shape)
            return lambda t: self.loss((*self.inputs[:i], value + t * unit, *self.inputs[i + 1 :]))

        slopes = [_first_difference(loss_at(element), step) for element in checked]
        return (torch.stack(slopes) if slopes else value.new_zeros(0)), checked


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    numbers = torch.rand(like.shape, generator=generator, dtype=torch.float64) * 2 - 1
    return numbers.to(like.device)


def _gradient(loss: Tensor, leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the gradient with its graph; zero for a leaf that the loss does not depend on."""
    if not loss.requires_grad:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    return torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)


def _dot(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> Tensor:
    return sum(((a * b).sum() for a, b in zip(left, right, strict=True)), start=torch.zeros((), dtype=torch.float64))


def _first_difference(f: Callable[[float], Tensor], h: float) -> Tensor:
    return ((f(-2 * h) - f(2 * h)) + 8 * (f(h) - f(-h))).detach() / (12 * h)


def _second_difference(f: Callable[[float], Tensor], h: float) -> Tensor:
    return (16 * (f(h) + f(-h)) - (f(2 * h) + f(-2 * h)) - 30 * f(0.0)).detach() / (12 * h * h)


def _expect_finite(name: str, got: Tensor) -> None:
    bad = (~got.isfinite()).nonzero()
    if len(bad):
        where = bad[0].tolist()
        raise AssertionError(f"{name} at {where}: expected a finite number, got {got[tuple(where)].item()}")


def _expect_close(
    name: str,
    got: Tensor,
    expected: Tensor,
    rtol: float,
    atol: float,
    elements: Tensor | None = None,
    shape: torch.Size | None = None,
    truth: str = "finite differences give",
) -> None:
    excess = ((got - expected).abs() - (atol + rtol * expected.abs())).reshape(-1)
    wrong = ~(excess <= 0)
    if not wrong.any():
        return
    worst = int(torch.where(excess.isnan(), torch.inf, excess).argmax())
    where = ""
    if elements is not None and shape is not None:
        index = torch.unravel_index(elements[worst], shape)
        where = f" at {[int(i) for i in index]}"
    got, expected = got.reshape(-1)[worst], expected.reshape(-1)[worst]
    raise AssertionError(
        f"{name}{where}: autograd gives {got.item():.12g}, {truth} {expected.item():.12g}, "
        f"off by {(got - expected).abs().item():.3g}; {int(wrong.sum())} of {wrong.numel()} numbers are wrong"
    )
