"""Shares of joints that are right to within a threshold, under an explicit protocol."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..geometry.checks import expect_shape
from .alignment import errors_under
from .protocols import ROOT_RELATIVE, Protocol
from .weighting import mean_of

THRESHOLD = 0.15
NUM_THRESHOLDS = 31


def pck(
    predicted: Float[Tensor, "*predicted K 3"],
    target: Float[Tensor, "*target K 3"],
    mask: Float[Tensor, "*mask K"] | Bool[Tensor, "*mask K"] | None = None,
    *,
    threshold: int | float = THRESHOLD,
    protocol: Protocol | str = ROOT_RELATIVE,
) -> Float[Tensor, "*out"]:
    """Return the share of joints, 0 to 1, whose error is below the threshold (strictly).

    Args:
        predicted: (*B, K, 3) in the unit of the threshold.
        target: (*B, K, 3) in that unit.
        mask: (*B, K), above 0 where a joint is seen in the target; None: everywhere. Elsewhere it may be NaN.
        threshold: 0.15, which is 150 mm for joints in metres; give 150 for joints in millimetres.
        protocol: root, joints and alignment, or the name of a preset such as "mpi_inf_3dhp".

    Returns:
        (*B,); NaN where no joint, or no root, is seen. Piecewise constant: no gradient.

    Raises:
        ValueError: a shape that does not fit, or an unknown preset.

    Example:
        >>> target = torch.zeros(4, 3)
        >>> predicted = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 0.3]])
        >>> pck(predicted, target)
        tensor(0.5000)
    """
    errors, counted = errors_under(protocol, predicted, target, mask)
    return mean_of((errors < threshold).to(errors.dtype), counted)


def auc(
    predicted: Float[Tensor, "*predicted K 3"],
    target: Float[Tensor, "*target K 3"],
    mask: Float[Tensor, "*mask K"] | Bool[Tensor, "*mask K"] | None = None,
    *,
    thresholds: Float[Tensor, " n"] | None = None,
    protocol: Protocol | str = ROOT_RELATIVE,
) -> Float[Tensor, "*out"]:
    """Return the mean of `pck` over thresholds, 0 to 1: the area under its curve.

    Args:
        predicted: (*B, K, 3) in the unit of the thresholds.
        target: (*B, K, 3) in that unit.
        mask: (*B, K), above 0 where a joint is seen in the target; None: everywhere. Elsewhere it may be NaN.
        thresholds: (n,); default: 31 from 0 to 0.15, which is every 5 mm for joints in metres. As published, the first
            is 0 and never reached, so that the result is at most 30/31.
        protocol: root, joints and alignment, or the name of a preset such as "mpi_inf_3dhp".

    Returns:
        (*B,); NaN where no joint, or no root, is seen. Piecewise constant: no gradient.

    Raises:
        ValueError: a shape that does not fit, or an unknown preset.

    Example:
        >>> target = torch.randn(17, 3)
        >>> auc(target, target)
        tensor(0.9677)
    """
    errors, counted = errors_under(protocol, predicted, target, mask)
    if thresholds is None:
        thresholds = torch.linspace(0, THRESHOLD, NUM_THRESHOLDS, dtype=errors.dtype, device=errors.device)
    expect_shape("thresholds", thresholds, "n")
    return mean_of((errors.unsqueeze(-1) < thresholds).to(errors.dtype).mean(-1), counted)
