"""Key frames of a sequence: a few that are fitted fully, between whose bodies the other frames start."""

from __future__ import annotations

from collections.abc import Collection

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..geometry import axis_angle_to_matrix, matrix_to_axis_angle


def key_frames(valid: Bool[Tensor, "N T"], every: int) -> Int[Tensor, "N K"]:
    """Return about every so many of the valid frames of each sequence, ascending, the first and the last among them.

    K is the same for all; a sequence with fewer valid frames than that has some more than once, one with none has its
    first frame.
    """
    length = valid.shape[1]
    count = (length - 2) // every + 2 if length > 1 else length
    first_valid = (~valid).to(torch.uint8).argsort(dim=-1, stable=True)
    last = (valid.sum(-1, keepdim=True) - 1).clamp(min=0)
    place = torch.arange(count, device=valid.device) * last.double() / max(count - 1, 1)
    return first_valid.gather(1, place.round().long())


def between(
    values: dict[str, Tensor], keys: Int[Tensor, "N K"], length: int, rotations: Collection[str]
) -> dict[str, Tensor]:
    """Return values (N, T, ...) of all frames from those (N, K, ...) of the key frames.

    Rotations turn evenly from one key frame to the next, the short way; all else moves in a straight line. Before the
    first and after the last nothing moves.

    Args:
        values: of the key frames.
        keys: which frames they are, ascending.
        length: T.
        rotations: names of the values that are axis-angle vectors (N, K, ..., 3).
    """
    frames = torch.arange(length, device=keys.device).expand(len(keys), -1)
    after = torch.searchsorted(keys.contiguous(), frames.contiguous()).clamp(max=keys.shape[1] - 1)
    before = (after - 1).clamp(min=0)
    start, gap = keys.gather(1, before), keys.gather(1, after) - keys.gather(1, before)
    share = ((frames - start) / gap.clamp(min=1)).clamp(0, 1)
    rows = torch.arange(len(keys), device=keys.device).unsqueeze(-1)
    result = {}
    for name, value in values.items():
        one, other = value[rows, before], value[rows, after]
        part = share.to(value).view(*share.shape, *(1,) * (value.dim() - 2))
        result[name] = _turned(one, other, part) if name in rotations else one + part * (other - one)
    return result


def _turned(one: Tensor, other: Tensor, part: Tensor) -> Tensor:
    start = axis_angle_to_matrix(one)
    way = matrix_to_axis_angle(axis_angle_to_matrix(other) @ start.mT)
    return matrix_to_axis_angle(axis_angle_to_matrix(part * way) @ start)
