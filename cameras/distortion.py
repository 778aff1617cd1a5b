"""OpenCV lens distortion of normalised image points, and its inverse."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry.checks import expect_shape

MAX_RADIUS = 10.0
NEWTON_STEPS = 12
MIN_DIVISOR = 1e-6


def distort(points: Float[Tensor, "*points N 2"], coefficients: Float[Tensor, "*batch n"]) -> Float[Tensor, "*out N 2"]:
    """Apply the lens model of OpenCV to normalised points (x/z, y/z).

    x' = x·(1 + k1 r² + k2 r⁴ + k3 r⁶)/(1 + k4 r² + k5 r⁴ + k6 r⁶) + 2 p1 x y + p2 (r² + 2 x²), and y' alike with p1 and
    p2 exchanged (OpenCV, "Camera Calibration and 3D Reconstruction"). The polynomials are fitted inside the image and
    run away outside it: beyond a radius of 10 (84 degrees off the axis) they keep their value there, and a rational
    divisor is kept at least 1e-6 from 0, so that every value and gradient stays finite.

    Args:
        points: (*B, N, 2) normalised points.
        coefficients: (*B, 4), (*B, 5) or (*B, 8): k1 k2 p1 p2 [k3 [k4 k5 k6]].

    Raises:
        ValueError: a shape that does not fit.
    """
    expect_shape("points", points, "N", 2)
    return points + _shift(points, _eight(coefficients))


def undistort(
    points: Float[Tensor, "*points N 2"], coefficients: Float[Tensor, "*batch n"]
) -> Float[Tensor, "*out N 2"]:
    """Invert `distort` by a fixed number of Newton steps.

    Exact to rounding where the lens model is one-to-one, as it is inside the image of any sound calibration; finite
    elsewhere.

    Args:
        points: (*B, N, 2) distorted normalised points.
        coefficients: as for `distort`.

    Raises:
        ValueError: a shape that does not fit.
    """
    expect_shape("points", points, "N", 2)
    eight = _eight(coefficients)
    guess = points
    for _ in range(NEWTON_STEPS):
        wrong_x, wrong_y = (guess + _shift(guess, eight) - points).unbind(-1)
        xx, xy, yy = _jacobian(guess, eight)
        step = torch.stack([yy * wrong_x - xy * wrong_y, xx * wrong_y - xy * wrong_x], dim=-1)
        step = step / _away(xx * yy - xy * xy)[..., None]
        guess = guess - step.clamp(-1, 1)
    return guess


def _eight(coefficients: Tensor) -> tuple[Tensor, ...]:
    """Return k1 k2 p1 p2 k3 k4 k5 k6, each (*B, 1), absent ones zero."""
    expect_shape("distortion", coefficients, "n")
    count = coefficients.shape[-1]
    if count not in (4, 5, 8):
        raise ValueError(
            f"distortion: expected (*batch, 4), (*batch, 5) or (*batch, 8), got {tuple(coefficients.shape)}; "
            "give k1 k2 p1 p2 [k3 [k4 k5 k6]] in OpenCV's order"
        )
    return torch.nn.functional.pad(coefficients, (0, 8 - count))[..., None, :].unbind(-1)


def _away(divisor: Tensor) -> Tensor:
    return torch.where(divisor.abs() < MIN_DIVISOR, divisor.new_full((), MIN_DIVISOR), divisor)


def _near(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, y and r² of the points, pulled in to the radius up to which the model is evaluated."""
    squared = points.square().sum(-1, keepdim=True)
    near = points * (MAX_RADIUS * torch.rsqrt(squared.clamp(min=MAX_RADIUS**2)))
    return near[..., 0], near[..., 1], near.square().sum(-1)


def _radial(squared: Tensor, eight: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Return numerator and divisor of the radial factor."""
    k1, k2, _, _, k3, k4, k5, k6 = eight
    return (
        1 + squared * (k1 + squared * (k2 + squared * k3)),
        _away(1 + squared * (k4 + squared * (k5 + squared * k6))),
    )


def _shift(points: Tensor, eight: tuple[Tensor, ...]) -> Tensor:
    """Return distorted minus undistorted points."""
    _, _, p1, p2, *_ = eight
    x, y, squared = _near(points)
    numerator, divisor = _radial(squared, eight)
    tangential = torch.stack(
        [2 * p1 * x * y + p2 * (squared + 2 * x * x), p1 * (squared + 2 * y * y) + 2 * p2 * x * y], dim=-1
    )
    return points * ((numerator - divisor) / divisor)[..., None] + tangential


def _jacobian(points: Tensor, eight: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives xx, xy = yx and yy of the distorted by the undistorted point."""
    k1, k2, p1, p2, k3, k4, k5, k6 = eight
    x, y, squared = _near(points)
    numerator, divisor = _radial(squared, eight)
    factor = numerator / divisor
    slope = (
        k1 + squared * (2 * k2 + 3 * squared * k3) - factor * (k4 + squared * (2 * k5 + 3 * squared * k6))
    ) / divisor
    return (
        factor + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x,
        2 * x * y * slope + 2 * p1 * x + 2 * p2 * y,
        factor + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x,
    )
