"""Hypothesis strategies for rotations, poses, shapes, cameras and body models, special points included."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from hypothesis import strategies as st
from torch import Tensor

from ..bodymodel.families import FAMILIES
from ..bodymodel.skeleton import Skeleton
from ..geometry import RotationFormat, axis_angle_to_matrix, matrix_to_quaternion_wxyz, matrix_to_rotation_6d

if TYPE_CHECKING:
    from ..bodymodel import BodyModel
    from ..cameras import WeakPerspectiveCamera

Vector = tuple[float, float, float]

FORMATS: dict[str, Callable[[Tensor], Tensor]] = {
    "axis_angle": lambda r: r,
    "matrix": axis_angle_to_matrix,
    "rotation_6d": lambda r: matrix_to_rotation_6d(axis_angle_to_matrix(r)),
    "quaternion_wxyz": lambda r: matrix_to_quaternion_wxyz(axis_angle_to_matrix(r)),
}

TINY = 1e-8
SPECIAL_ANGLES = (
    *(TINY, 1e-4, 1e-2, math.pi / 2, math.pi - 1e-4, math.pi - TINY, math.pi, math.pi + TINY),
    *(3 * math.pi / 2, 2 * math.pi - TINY, 2 * math.pi, 3 * math.pi),
)
SPECIAL_AXES: tuple[Vector, ...] = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (2 / 3, -1 / 3, 2 / 3))


def rotations(
    batch: tuple[int, ...] = (),
    *,
    rotation: RotationFormat = "axis_angle",
    max_angle: float = 4 * math.pi,
    dtype: torch.dtype = torch.float64,
) -> st.SearchStrategy[Tensor]:
    """Return a strategy for rotations, about half of them at the points where formulas break.

    These are zero, ±1e-8 in each component, angles at, just below and just above π, and multiples of π beyond it.

    Args:
        batch: batch shape of the draws.
        rotation: format of the draws, as in `physique.geometry.to_matrix`.
        max_angle: no rotation vector is longer, in radians.
        dtype: of the draws, which are made in float64.

    Returns:
        A strategy of tensors: (*batch, 3), (*batch, 3, 3), (*batch, 6) or (*batch, 4).

    Raises:
        ValueError: an unknown format.

    Example:
        >>> from hypothesis import given
        >>> @given(r=rotations(batch=(5,)))
        ... def test_shape(r):
        ...     assert r.shape == (5, 3)
        >>> test_shape()
    """
    if rotation not in FORMATS:
        raise ValueError(f"rotation: expected one of {', '.join(FORMATS)}, got {rotation!r}; name the format to draw")
    angles = st.one_of(
        st.sampled_from([angle for angle in SPECIAL_ANGLES if angle <= max_angle] or [0.0]),
        st.floats(0.0, max_angle),
    )
    directions = st.one_of(st.sampled_from(SPECIAL_AXES), st.tuples(*[st.floats(-1.0, 1.0)] * 3).map(_unit))
    vectors = st.one_of(
        st.just((0.0, 0.0, 0.0)),
        st.tuples(*[st.sampled_from((0.0, TINY, -TINY))] * 3),
        *[st.builds(_scaled, angles, directions)] * 2,
    )
    return _tensors(vectors, batch, 3).map(lambda r: FORMATS[rotation](r).to(dtype))


def poses(
    skeleton: Skeleton,
    batch: tuple[int, ...] = (),
    *,
    max_angle: float = 4 * math.pi,
    dtype: torch.dtype = torch.float64,
) -> st.SearchStrategy[Tensor]:
    """Return a strategy for full poses of a skeleton: (*batch, J, 3) axis-angle, the root first; see `rotations`."""
    return rotations((*batch, skeleton.num_joints), max_angle=max_angle, dtype=dtype)


def betas(
    count: int = 10, batch: tuple[int, ...] = (), *, bound: float = 3.0, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[Tensor]:
    """Return a strategy for shape coefficients: (*batch, count) in ±bound, zero often."""
    numbers = st.one_of(st.just(0.0), st.floats(-bound, bound))
    return _tensors(numbers, (*batch, count)).map(lambda x: x.to(dtype))


def segment_scales(
    skeleton: Skeleton,
    batch: tuple[int, ...] = (),
    *,
    per_axis: bool = False,
    dtype: torch.dtype = torch.float64,
) -> st.SearchStrategy[Tensor]:
    """Return a strategy for segment scales: (*batch, J), or (*batch, J, 3) per axis, in 0.5 to 2, one often."""
    numbers = st.one_of(st.just(1.0), st.floats(0.5, 2.0))
    shape = (*batch, skeleton.num_joints, 3) if per_axis else (*batch, skeleton.num_joints)
    return _tensors(numbers, shape).map(lambda x: x.to(dtype))


def cameras(
    batch: tuple[int, ...] = (), *, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[WeakPerspectiveCamera]:
    """Return a strategy for weak-perspective cameras in pixels: 20 to 2000 pixels a metre, centre within ±2000."""
    from ..cameras import WeakPerspectiveCamera

    scale = _tensors(st.floats(20.0, 2000.0), batch)
    translation = _tensors(st.one_of(st.just(0.0), st.floats(-2000.0, 2000.0)), (*batch, 2))
    return st.builds(lambda s, t: WeakPerspectiveCamera(s.to(dtype), t.to(dtype)), scale, translation)


def body_models(
    family: str | None = None, *, max_vertices: int = 60, dtype: torch.dtype = torch.float64
) -> st.SearchStrategy[BodyModel]:
    """Return a strategy for small random body models, with pose correctives; no file is read.

    Args:
        family: row of the family table; any of them when None.
        max_vertices: the largest mesh.
        dtype: of the model's buffers.
    """
    from ..bodymodel import BodyModel, synthetic_model

    def build(name: str, count: int, seed: int) -> BodyModel:
        # Run-time type checkers such as beartype draw from `random`, which hypothesis does not allow in a strategy.
        state = random.getstate()
        try:
            return BodyModel(synthetic_model(name, num_vertices=count, seed=seed), dtype=dtype)
        finally:
            random.setstate(state)

    return st.builds(
        build,
        st.sampled_from(sorted(FAMILIES)) if family is None else st.just(family),
        st.integers(min(30, max_vertices), max_vertices),
        st.integers(0, 1000),
    )


def _tensors(elements: st.SearchStrategy, batch: tuple[int, ...], *event: int) -> st.SearchStrategy[Tensor]:
    """Return a strategy for float64 tensors (*batch, *event), each entry of the batch a draw of `elements`."""
    count = math.prod(batch)
    return st.lists(elements, min_size=count, max_size=count).map(
        lambda numbers: torch.tensor(numbers, dtype=torch.float64).reshape(*batch, *event)
    )


def _unit(vector: Vector) -> Vector:
    size = math.hypot(*vector)
    if size < 1e-3:
        return SPECIAL_AXES[0]
    x, y, z = vector
    return x / size, y / size, z / size


def _scaled(angle: float, axis: Vector) -> Vector:
    x, y, z = axis
    return angle * x, angle * y, angle * z
