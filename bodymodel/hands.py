"""Hand poses as a mean and a few principal components, from the arrays of MANO, SMPL-H and SMPL-X files."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..geometry.checks import expect_shape
from .data import BodyModelData

Side = Literal["left", "right"]

_SUFFIX = {"left": "l", "right": "r", None: ""}
_NUMBERS = 45  # 15 joints, an axis-angle vector each


class HandPCA(nn.Module):
    """The linear space of hand poses that a model file offers: mean + coefficients · components.

    It stands beside the model instead of inside it, so that the pose arguments always mean the same thing:
    `model(left_hand_pose=hand(coefficients))`. `from_data` makes it from a model file.

    Args:
        components: (n, 45) principal components, one a row, strongest first.
        mean: (45,) the pose at coefficients zero.
        dtype: floating type of the buffers.
        device: where the buffers live.

    Attributes:
        components: (n, 45).
        mean: (45,).

    Raises:
        ValueError: arrays of other shapes, with NaN, or components that depend on each other.

    Source: MANO (Romero et al. 2017), section 3.3.

    Example:
        >>> import numpy as np
        >>> hand = HandPCA(np.eye(45)[:6], np.zeros(45))
        >>> hand(torch.zeros(8, 6)).shape
        torch.Size([8, 15, 3])
    """

    components: Tensor
    mean: Tensor
    _inverse: Tensor

    def __init__(
        self,
        components: np.ndarray,
        mean: np.ndarray,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        """Make the space; see the class for the arguments."""
        super().__init__()
        rows = _checked("components", components, None)
        # Least squares, not a transpose: the rows of a file are orthonormal only up to its rounding.
        inverse = np.linalg.pinv(rows)
        if not np.allclose(rows @ inverse, np.eye(len(rows)), atol=1e-6):
            raise ValueError(
                f"components: expected {len(rows)} independent rows, got rows that depend on each other; take fewer"
            )
        for name, values in (("components", rows), ("mean", _checked("mean", mean, 1)[0]), ("_inverse", inverse)):
            self.register_buffer(name, torch.tensor(values, dtype=dtype, device=device), persistent=False)

    @classmethod
    def from_data(
        cls,
        data: BodyModelData,
        side: Side | None = None,
        *,
        num_components: int = 6,
        flat_hand_mean: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> HandPCA:
        """Make the space of a model file's hand.

        Args:
            data: a model whose file held hands_components and hands_mean.
            side: "left" or "right" of SMPL-H and SMPL-X; None for MANO, whose file is one hand.
            num_components: how many of the components to keep.
            flat_hand_mean: put the flat hand, not the mean of the scans, at coefficients zero.
            dtype: floating type of the buffers.
            device: where the buffers live.

        Raises:
            ValueError: the file has no such arrays, or fewer components.
        """
        components = _checked(*_array(data, "hands_components", side), None)
        if not 1 <= num_components <= len(components):
            raise ValueError(f"num_components: expected 1 to {len(components)}, got {num_components}; choose fewer")
        mean = np.zeros(_NUMBERS) if flat_hand_mean else _checked(*_array(data, "hands_mean", side), 1)[0]
        return cls(components[:num_components], mean, dtype=dtype, device=device)

    @property
    def num_components(self) -> int:
        """Number of coefficients n."""
        return self.components.shape[0]

    def extra_repr(self) -> str:
        """Describe the space in `print(hand)`."""
        return f"num_components={self.num_components}"

    def forward(self, coefficients: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch 15 3"]:
        """Return the hand pose of coefficients.

        Args:
            coefficients: (*B, n).

        Returns:
            (*B, 15, 3) axis-angle vectors in radians: the absolute `hand_pose`, `left_hand_pose` or `right_hand_pose`.
        """
        expect_shape("coefficients", coefficients, self.num_components)
        self._expect_dtype("coefficients", coefficients)
        return (self.mean + coefficients @ self.components).unflatten(-1, (15, 3))

    def encode(self, hand_pose: Float[Tensor, "*batch 15 3"]) -> Float[Tensor, "*batch n"]:
        """Return the coefficients whose pose is nearest to `hand_pose` in the sum of squares of its numbers.

        Args:
            hand_pose: (*B, 15, 3) axis-angle vectors in radians.
        """
        expect_shape("hand_pose", hand_pose, 15, 3)
        self._expect_dtype("hand_pose", hand_pose)
        return (hand_pose.flatten(-2) - self.mean) @ self._inverse

    def _expect_dtype(self, name: str, value: Tensor) -> None:
        if value.dtype != self.mean.dtype:
            raise TypeError(f"{name}: expected {self.mean.dtype}, got {value.dtype}; use hand.to({value.dtype})")


def mean_hand_pose(
    data: BodyModelData,
    side: Side | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Float[Tensor, "15 3"]:
    """Return the mean hand pose of a model file: the relaxed hand.

    smplx adds it to the hand pose unless `flat_hand_mean` is set; here a pose argument is always absolute, and zero is
    the flat hand. To pose as smplx does by default, pass `mean_hand_pose(data, side) + pose`.

    Args:
        data: a model whose file held hands_mean.
        side: "left" or "right" of SMPL-H and SMPL-X; None for MANO.
        dtype: floating type of the result.
        device: where the result lives.

    Returns:
        (15, 3) axis-angle vectors in radians.

    Raises:
        ValueError: the file has no such array.

    Example:
        >>> from dataclasses import replace
        >>> from physique.bodymodel import synthetic_model
        >>> data = replace(synthetic_model("mano"), extras={"hands_mean": np.full(45, 0.1)})
        >>> mean_hand_pose(data).shape
        torch.Size([15, 3])
    """
    mean = _checked(*_array(data, "hands_mean", side), 1)
    return torch.tensor(mean, dtype=dtype, device=device).reshape(15, 3)


def _array(data: BodyModelData, name: str, side: Side | None) -> tuple[str, np.ndarray]:
    """Return the key of a side's array in the file, and the array."""
    if side not in _SUFFIX:
        raise ValueError(f"side: expected 'left', 'right' or None, got {side!r}; None is for MANO")
    key = name + _SUFFIX[side]
    if key not in data.extras:
        found = [other for other in (f"{name}l", f"{name}r", name) if other in data.extras]
        got = f"only {', '.join(found)}" if found else "none"
        advice = "choose the side" if found else "merge it from the MANO file, or pass hand poses directly"
        raise ValueError(f"{key}: expected in the model file, got {got}; {advice}")
    return key, data.extras[key]


def _checked(name: str, value: np.ndarray, rows: int | None) -> np.ndarray:
    """Return `value` as finite float64 (rows, 45)."""
    array = np.asarray(value)
    if rows == 1 and array.size == _NUMBERS:
        array = array.reshape(1, _NUMBERS)
    if array.dtype.kind not in "fiu" or array.ndim != 2 or array.shape[1] != _NUMBERS or len(array) == 0:
        expected = "(45,)" if rows == 1 else "(n, 45)"
        raise ValueError(f"{name}: expected {expected} numbers, got {array.shape} {array.dtype}; the file is damaged")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity; the file is damaged")
    return array.astype(np.float64)
