"""An exponential that does not overflow."""

from __future__ import annotations

import torch
from torch import Tensor

LAST_EXPONENT = 20.0


def growing_exp(x: Tensor) -> Tensor:
    """Return exp(x) up to x = 20 and its tangent there beyond: large enough to repel, and finite in float32.

    Beyond finfo.max^0.7 it keeps its value.
    """
    x = x.clamp(max=torch.finfo(x.dtype).max ** 0.7)
    bent = x.clamp(max=LAST_EXPONENT)
    return bent.exp() * (1 + (x - bent))
