"""Points as sums of vertices, for their derivatives: where each joint alone would carry them, and how they bend."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .skinning import VertexBases, blend


@runtime_checkable
class PointMix(Protocol):
    """N points, each a sum of vertices."""

    @property
    def bases(self) -> VertexBases:
        """The constants of the vertices."""
        ...

    @property
    def hold(self) -> Tensor:
        """How strongly each point hangs on each joint, (*set, N, J)."""
        ...

    def at_rest(self, planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return x, y and z (*B, N, J) of the points at rest, from planes of the vertices, times the weight of each
        joint in them.
        """
        ...

    def turned(self, directions: Tensor, rotations: Tensor) -> Tensor:
        """Return (*B, N, 3, K) moves of the points, from those of the vertices at rest (*set, K, planes)."""
        ...

    def pushed(self, pushes: Tensor, rotations: Tensor) -> Tensor:
        """Return (*B, N, 3, K) moves of the points, from those of the vertices at rest (*B, K, planes)."""
        ...


class CornerMix(NamedTuple):
    """Each point is a sum of the same small number of vertices of its own: a surface point of its three corners.

    Attributes:
        bases: of (*set, N C) vertices.
        mix: (*set, N, C) weights.
    """

    bases: VertexBases
    mix: Float[Tensor, "*set N C"]

    def of(self, rows: Int[Tensor, " n"]) -> CornerMix:
        """Return some of several sets, by number."""
        template, directions, weights, shapes = self.bases
        constants = (value.index_select(0, rows) for value in (template, directions, weights))
        chosen = VertexBases(*constants, shapes=shapes)
        return CornerMix(chosen, self.mix.index_select(0, rows))

    @property
    def shares(self) -> Float[Tensor, "*set N C J"]:
        """How strongly each corner of a point makes it hang on each joint."""
        return self.mix.unsqueeze(-1) * self.bases.weights.unflatten(-1, self.mix.shape[-2:]).movedim(-3, -1)

    @property
    def hold(self) -> Tensor:
        """See `PointMix`."""
        return self.shares.sum(-2)

    def at_rest(self, planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `PointMix`."""
        shares = self.shares.unbind(-2)
        x, y, z = planes.unflatten(-1, (3, *self.mix.shape[-2:])).unbind(-3)

        def sum_of(coordinate: Tensor) -> Tensor:
            first, *others = (corner.unsqueeze(-1) for corner in coordinate.unbind(-1))
            total = shares[0] * first
            for share, corner in zip(shares[1:], others, strict=True):
                total = torch.addcmul(total, share, corner)
            return total

        return sum_of(x), sum_of(y), sum_of(z)

    def turned(self, directions: Tensor, rotations: Tensor) -> Tensor:
        """See `PointMix`."""
        return self._corner_rotations(rotations) @ self._rows_of_corners(directions)

    def pushed(self, pushes: Tensor, rotations: Tensor) -> Tensor:
        """See `PointMix`."""
        turned, rows = self._corner_rotations(rotations), self._rows_of_corners(pushes)
        total = turned.narrow(-1, 0, 1) * rows.narrow(-2, 0, 1)
        for k in range(1, rows.shape[-2]):
            total = torch.addcmul(total, turned.narrow(-1, k, 1), rows.narrow(-2, k, 1))
        return total

    def _corner_rotations(self, rotations: Tensor) -> Tensor:
        """Return the rotation of each corner times its weight, corners side by side: (*B, N, 3, 3 C)."""
        shares = self.shares
        mixed = shares.flatten(-3, -2) @ rotations.flatten(-2)
        return mixed.unflatten(-2, shares.shape[-3:-1]).unflatten(-1, (3, 3)).transpose(-3, -2).flatten(-2)

    def _rows_of_corners(self, directions: Tensor) -> Tensor:
        """Return directions (*B, K, planes) as (*B, N, 3 C, K), the rows in the order (corner, coordinate)."""
        # In one piece: a product of many small matrices is fast only then.
        corners = directions.unflatten(-1, (3, *self.mix.shape[-2:]))
        return corners.movedim((-2, -1, -3, -4), (-4, -3, -2, -1)).flatten(-3, -2).contiguous()


class SharedMix(NamedTuple):
    """Each point is a sum of any of a few vertices that all points share: keypoints.

    Attributes:
        bases: of P vertices.
        mix: (N, P) weights.
    """

    bases: VertexBases
    mix: Float[Tensor, "N P"]

    @property
    def hold(self) -> Tensor:
        """See `PointMix`."""
        return self.mix @ self.bases.weights.mT

    @property
    def shares(self) -> Float[Tensor, "P NJ"]:
        """How strongly each vertex makes each point hang on each joint."""
        return (self.mix.mT.unsqueeze(-1) * self.bases.weights.mT.unsqueeze(-2)).flatten(-2)

    def at_rest(self, planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `PointMix`."""
        rest = planes.unflatten(-1, (3, -1)) @ self.shares
        x, y, z = rest.unflatten(-1, (len(self.mix), -1)).unbind(-3)
        return x, y, z

    def turned(self, directions: Tensor, rotations: Tensor) -> Tensor:
        """See `PointMix`."""
        # As one product: all joints' rotations side by side, times what each of them would turn.
        count = directions.shape[-2]
        rest = directions.unflatten(-1, (3, -1)) @ self.shares  # (K, 3, N J)
        rest = rest.unflatten(-1, (len(self.mix), -1)).permute(3, 1, 2, 0).flatten(-2).flatten(0, 1)
        moved = rotations.transpose(-3, -2).flatten(-2) @ rest
        return moved.unflatten(-1, (len(self.mix), count)).transpose(-3, -2)

    def pushed(self, pushes: Tensor, rotations: Tensor) -> Tensor:
        """See `PointMix`."""
        count = pushes.shape[-2]
        mixed = blend(rotations.flatten(-2).mT, self.bases.weights).unflatten(-2, (3, 3)).unsqueeze(-4)
        along = pushes.unflatten(-1, (3, -1)).unsqueeze(-3)
        moved = (mixed * along).sum(-2) @ self.mix.mT  # (*B, K, 3, N)
        return moved.reshape(*moved.shape[:-3], count, 3, len(self.mix)).movedim((-1, -2, -3), (-3, -2, -1))
