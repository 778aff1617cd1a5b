"""The network of the lifter and of its critic: eight linear layers, residual in pairs."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SLOPE = 0.2


class ResidualNetwork(nn.Module):
    """One linear layer in, three residual pairs, one out; leaky ReLU between them.

    h = a(l1 x), three times h ← h + a(l(a(l' h))), then l8 h: the depth of Yoshiyasu & Gamez (2019), whose text fixes
    eight layers and nothing else, with the residual pairs of Martinez et al. (2017).

    Args:
        inputs: numbers in.
        outputs: numbers out.
        width: of the layers between.

    Example:
        >>> network = ResidualNetwork(34, 17, 64)
        >>> sum(isinstance(layer, torch.nn.Linear) for layer in network.modules())
        8
    """

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        """Make the layers; see the class."""
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.pairs = nn.ModuleList(nn.ModuleList((nn.Linear(width, width), nn.Linear(width, width))) for _ in range(3))
        self.last = nn.Linear(width, outputs)
        # Small outputs to start with: a lifter begins with flat people, a critic undecided.
        nn.init.normal_(self.last.weight, std=0.01)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """Return the outputs (*B, outputs) for inputs (*B, inputs)."""
        h = F.leaky_relu(self.first(x), SLOPE)
        for inner, outer in self.pairs:  # pyright: ignore[reportGeneralTypeIssues]
            h = h + F.leaky_relu(outer(F.leaky_relu(inner(h), SLOPE)), SLOPE)
        return self.last(h)
