"""Normal equations of sequences: a block a frame, tied to its neighbours in time, and what all frames share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .normal_equations import SMALLEST_DIAGONAL, NormalEquations


class Motion(NamedTuple):
    """Squares of differences over time, of what each frame has.

    Attributes:
        stencil: what the values of successive frames are multiplied by: (-1, 1), or (1, -2, 1).
        weight: (N, T - order) square roots of the weights of the differences, zero where one is not asked for.
    """

    stencil: tuple[float, ...]
    weight: Float[Tensor, "N differences"]

    def residuals(self, points: Float[Tensor, "N T *event"]) -> Float[Tensor, "N rows"]:
        """Return the weighted differences, flat."""
        return (self.weight.unsqueeze(-1) * self._differences(points.flatten(2))).flatten(1)

    def pulled(self, points: Float[Tensor, "N T X"]) -> Float[Tensor, "N T X"]:
        """Return half the slope of the term by the values of each frame."""
        differences = self.weight.square().unsqueeze(-1) * self._differences(points)
        total, count = torch.zeros_like(points), self.weight.shape[1]
        for place, factor in enumerate(self.stencil):
            total[:, place : place + count] += factor * differences
        return total

    def bands(self) -> list[Float[Tensor, "N entries"]]:
        """Return half the curvature as a matrix of frames: its diagonal (N, T), then those above it."""
        weight, count = self.weight.square(), self.weight.shape[1]
        order = len(self.stencil) - 1
        bands = []
        for apart in range(order + 1):
            band = weight.new_zeros(len(weight), count + order - apart)
            for place in range(order + 1 - apart):
                band[:, place : place + count] += self.stencil[place] * self.stencil[place + apart] * weight
            bands.append(band)
        return bands

    def _differences(self, points: Tensor) -> Tensor:
        count = self.weight.shape[1]
        parts = [factor * points[:, place : place + count] for place, factor in enumerate(self.stencil)]
        return torch.stack(parts).sum(0)


class ArrowEquations:
    """Normal equations of N sequences of T frames: block-banded in time, with what the frames share as a border.

    They are solved frame by frame, in time and memory linear in T (a block Cholesky factorisation; what is shared is
    found from the Schur complement).

    Args:
        frames: (N, T, d, d), a block a frame.
        links: for k = 1, 2, ... the blocks (N, T - k, d, d) between frames t and t + k.
        border: (N, T, d, s) between each frame's unknowns and the shared ones.
        corner: (N, s, s) of the shared ones.
        slope: (N, T, d).
        shared: (N, s) the slope of the shared ones.
        sizes: how the d unknowns of a frame divide into parameters; the step has all frames of each in turn, then what
            is shared.
    """

    def __init__(
        self,
        frames: Tensor,
        links: tuple[Tensor, ...],
        border: Tensor,
        corner: Tensor,
        slope: Tensor,
        shared: Tensor,
        sizes: Sequence[int],
    ) -> None:
        """Hold all; see the class for the arguments."""
        self.frames, self.links, self.border = frames, links, border
        self.corner, self.slope, self.shared, self.sizes = corner, slope, shared, sizes

    @classmethod
    def of(cls, frames: NormalEquations, count: int, sizes: Sequence[int]) -> ArrowEquations:
        """Return the equations of `count` sequences from those of their frames (N T), the shared unknowns last."""
        own = sum(sizes)
        matrix, slope = frames.matrix.unflatten(0, (count, -1)), frames.slope.unflatten(0, (count, -1))
        return cls(
            matrix[..., :own, :own],
            (),
            matrix[..., :own, own:],
            matrix[..., own:, own:].sum(1),
            slope[..., :own],
            slope[..., own:].sum(1),
            sizes,
        )

    def add_motion(
        self, motion: Motion, points: Float[Tensor, "frames J 3"], jacobian: Float[Tensor, "frames J 3 D"]
    ) -> None:
        """Add a term of the movement of `points`, whose Jacobian has the columns of a frame and then the shared."""
        sequences, own = self.slope.shape[0], self.slope.shape[-1]
        points = points.unflatten(0, (sequences, -1)).flatten(2)
        jacobian = jacobian.unflatten(0, (sequences, -1)).flatten(2, -2)
        mine, shared = jacobian[..., :own], jacobian[..., own:]
        first, *bands = (band[..., None, None] for band in motion.bands())
        self.frames = self.frames + first * (mine.mT @ mine)
        links = list(self.links)
        for k, band in enumerate(bands, 1):
            link = band * (mine[:, :-k].mT @ mine[:, k:])
            if len(links) < k:
                links.append(link)
            else:
                links[k - 1] = links[k - 1] + link
        self.links = tuple(links)
        pulled = motion.pulled(points).unsqueeze(-1)
        tied = motion.pulled(shared.flatten(2)).view_as(shared)
        self.slope = self.slope + (mine.mT @ pulled).squeeze(-1)
        self.shared = self.shared + (shared.mT @ pulled).squeeze(-1).sum(1)
        self.border = self.border + mine.mT @ tied
        self.corner = self.corner + (shared.mT @ tied).sum(1)

    def finite(self) -> Tensor:
        """See `Equations`."""
        slopes = self.slope.flatten(1).isfinite().all(-1) & self.shared.isfinite().all(-1)
        diagonals = self.frames.diagonal(dim1=-2, dim2=-1).flatten(1), self.corner.diagonal(dim1=-2, dim2=-1)
        return slopes & diagonals[0].isfinite().all(-1) & diagonals[1].isfinite().all(-1)

    def rows(self, rows: Tensor | None) -> ArrowEquations:
        """See `Equations`."""
        return self if rows is None else self._each(lambda value: value.index_select(0, rows))

    def like(self, count: int) -> ArrowEquations:
        """See `Equations`."""
        return self._each(lambda value: value.new_zeros(count, *value.shape[1:]))

    def put(self, rows: Tensor, fresh: ArrowEquations) -> None:
        """See `Equations`."""
        for value, new in zip(self._tensors(), fresh._tensors(), strict=True):
            value.index_copy_(0, rows, new)

    def step(self, damping: Tensor, room: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """See `Equations`.

        Raises:
            ValueError: bounds, which these equations cannot keep.
        """
        if room is not None:
            raise ValueError("bounds: expected none with sequences, got some; add a term that keeps within them")
        diagonal, last = self.frames.diagonal(dim1=-2, dim2=-1), self.corner.diagonal(dim1=-2, dim2=-1)
        largest = torch.maximum(diagonal.flatten(1).amax(-1), last.amax(-1) if last.shape[-1] else diagonal[:, 0, 0])
        least = (SMALLEST_DIAGONAL * torch.where(largest > 0, largest, 1)).unsqueeze(-1)
        frames, corner = self.frames.clone(), self.corner.clone()
        strength = damping.unsqueeze(-1)
        frames.diagonal(dim1=-2, dim2=-1).add_(strength.unsqueeze(-1) * torch.maximum(diagonal, least.unsqueeze(-1)))
        corner.diagonal(dim1=-2, dim2=-1).add_(strength * torch.maximum(last, least))
        right = torch.cat((-self.slope.unsqueeze(-1), self.border), dim=-1)
        band = _Band.of(frames, self.links)
        mine, shared, solved = band.solve(right, corner, -self.shared)
        bent, bent_shared = self._times(mine, shared)
        predicted = -(mine * (2 * self.slope + bent)).sum((-2, -1)) - (shared * (2 * self.shared + bent_shared)).sum(-1)
        parts = [part.flatten(1) for part in mine.split(list(self.sizes), dim=-1)]
        return torch.cat((*parts, shared), dim=-1), predicted, solved

    def _times(self, mine: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
        """Return the matrix times a step of the frames (N, T, d) and of what they share (N, s)."""
        column = mine.unsqueeze(-1)
        bent = self.frames @ column + self.border @ shared[:, None, :, None]
        for k, link in enumerate(self.links, 1):
            bent[:, :-k] += link @ column[:, k:]
            bent[:, k:] += link.mT @ column[:, :-k]
        tied = (self.border.mT @ column).sum(1) + self.corner @ shared.unsqueeze(-1)
        return bent.squeeze(-1), tied.squeeze(-1)

    def _each(self, function: Callable[[Tensor], Tensor]) -> ArrowEquations:
        border, corner, slope, shared = (function(v) for v in (self.border, self.corner, self.slope, self.shared))
        links = tuple(function(link) for link in self.links)
        return ArrowEquations(function(self.frames), links, border, corner, slope, shared, self.sizes)

    def _tensors(self) -> tuple[Tensor, ...]:
        return (self.frames, *self.links, self.border, self.corner, self.slope, self.shared)


class _Band(NamedTuple):
    """A block-tridiagonal matrix of N sequences: frames, or pairs of them where links reach over two.

    Attributes:
        blocks: (N, T, d, d).
        links: (N, T - 1, d, d) above the diagonal.
        paired: how many frames a block has.
    """

    blocks: Tensor
    links: Tensor
    paired: int

    @classmethod
    def of(cls, frames: Tensor, links: tuple[Tensor, ...]) -> _Band:
        """Return the matrix of frames (N, T, d, d) and of the links that reach over 1, 2, ... of them."""
        count, length, size = frames.shape[:3]
        if not links:
            return cls(frames, frames.new_zeros(count, max(length - 1, 0), size, size), 1)
        if len(links) == 1:
            return cls(frames, links[0], 1)
        one, two = links
        half = (length + 1) // 2
        blocks = frames.new_zeros(count, half, 2 * size, 2 * size)
        blocks[..., :size, :size] = frames[:, ::2]
        # The frame that an odd number lacks stands for itself alone.
        blocks[:, -1, size:, size:] = torch.eye(size, dtype=frames.dtype, device=frames.device)
        blocks[:, : length // 2, size:, size:] = frames[:, 1::2]
        blocks[:, : length // 2, :size, size:] = one[:, ::2]
        blocks[:, : length // 2, size:, :size] = one[:, ::2].mT
        across = frames.new_zeros(count, half - 1, 2 * size, 2 * size)
        across[..., :size, :size] = two[:, ::2]
        across[..., size:, :size] = one[:, 1::2]
        odd = two[:, 1::2]
        across[:, : odd.shape[1], size:, size:] = odd
        return cls(blocks, across, 2)

    def solve(self, right: Tensor, corner: Tensor, shared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Solve with a border.

        Args:
            right: (N, T, d, 1 + s) right side, then the border.
            corner: (N, s, s).
            shared: (N, s) right side of what is shared.

        Returns:
            the solution of the frames (N, T, d) and of what they share (N, s), zero where there is none, and whether
            there is (N,).
        """
        length, size = right.shape[1:3]
        if self.paired == 2:
            right = torch.nn.functional.pad(right, (0, 0, 0, 0, 0, length % 2))
            right = right.unflatten(1, (-1, 2)).flatten(2, 3)
        factors, halves, above = [], [], []
        good = torch.ones(len(right), dtype=torch.bool, device=right.device)
        for t in range(right.shape[1]):
            block, side = self.blocks[:, t], right[:, t]
            if t:
                block = torch.baddbmm(block, above[-1].mT, above[-1], alpha=-1)
                side = torch.baddbmm(side, above[-1].mT, halves[-1], alpha=-1)
            factor, failed = torch.linalg.cholesky_ex(block)
            good = good & (failed == 0)
            if t + 1 < right.shape[1]:
                side = torch.cat((side, self.links[:, t]), dim=-1)
            half = torch.linalg.solve_triangular(factor, side, upper=False)
            factors.append(factor)
            halves.append(half[..., : right.shape[-1]])
            above.append(half[..., right.shape[-1] :])
        half = torch.stack(halves, dim=1)
        products = (half.mT @ half).sum(1)
        schur = corner - products[:, 1:, 1:]
        factor, failed = torch.linalg.cholesky_ex(schur)
        tied = torch.cholesky_solve((shared - products[:, 1:, 0]).unsqueeze(-1), factor)
        left = half[..., :1] - half[..., 1:] @ tied.unsqueeze(1)
        solution = [torch.linalg.solve_triangular(factors[-1].mT, left[:, -1], upper=True)]
        for t in range(right.shape[1] - 2, -1, -1):
            side = torch.baddbmm(left[:, t], above[t], solution[-1], alpha=-1)
            solution.append(torch.linalg.solve_triangular(factors[t].mT, side, upper=True))
        mine = torch.stack(solution[::-1], dim=1).squeeze(-1)
        if self.paired == 2:
            mine = mine.unflatten(-1, (2, size)).flatten(1, 2)[:, :length]
        tied = tied.squeeze(-1)
        good = good & (failed == 0) & mine.flatten(1).isfinite().all(-1) & tied.isfinite().all(-1)
        return torch.where(good[:, None, None], mine, 0), torch.where(good.unsqueeze(-1), tied, 0), good
