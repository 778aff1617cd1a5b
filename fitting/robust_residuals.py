"""Robust penalties as squares of residuals, so that a sum of squares has them too."""

from __future__ import annotations

from torch import Tensor


def softened(residual: Tensor, sigma: float) -> Tensor:
    """Return what squared is Geman-McClure's penalty of each residual: r / √(1 + r²/sigma²)."""
    return residual * (1 + (residual / sigma).square()).rsqrt()


def softened_slope(residual: Tensor, sigma: float) -> Tensor:
    """Return √w, where w is the weight of r² whose slope is the penalty's: 1 / (1 + r²/sigma²).

    Rows √w r and √w J have the penalty's slope, and the curvature of the parabola that touches it from above: steps by
    them go on lowering it where its own curvature is negative.
    """
    return 1 / (1 + (residual / sigma).square())
