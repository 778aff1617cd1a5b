"""Dense correspondences: which point of the surface is seen at which pixel."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from ..bodymodel import SurfacePoints


class Correspondences(NamedTuple):
    """Points of the surface and the pixels where they are seen.

    Attributes:
        surface: faces (*B, N) and barycentric (*B, N, 3).
        pixels: (*B, N, 2), x right, y down.
        weight: (*B, N) from 0 (ignored) to 1.
    """

    surface: SurfacePoints
    pixels: Float[Tensor, "*batch N 2"]
    weight: Float[Tensor, "*batch N"]
