"""The default range of motion: a box of axis-angle components for each body joint."""

from __future__ import annotations

from collections.abc import Sequence
from math import radians
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .families import FAMILIES
from .skeleton import swap_sides

_SPINE = ((-10, 25), (-12, 12), (-12, 12))
_HEAD = ((-28, 35), (-35, 35), (-18, 18))
_RIGID = ((0, 0), (0, 0), (0, 0))

# Degrees about x, y and z of the local rotation. Joint axes are the world's in the rest pose: x to the subject's left,
# y up, z forward. Right joints follow from left ones by reflection.
_DEGREES = {
    "left_hip": ((-120, 20), (-40, 50), (-25, 45)),
    "left_knee": ((0, 145), (-10, 10), (-5, 5)),
    "left_ankle": ((-20, 50), (-15, 15), (-35, 20)),
    "left_foot": ((-70, 40), (0, 0), (0, 0)),
    "spine1": _SPINE,
    "spine2": _SPINE,
    "spine3": _SPINE,
    "neck": _HEAD,
    "head": _HEAD,
    "left_collar": ((-5, 5), (-20, 20), (-10, 30)),
    "left_shoulder": ((-90, 90), (-130, 45), (-130, 90)),
    "left_elbow": ((-90, 10), (-150, 0), (-5, 5)),
    "left_wrist": ((-90, 10), (-20, 40), (-80, 70)),
    "left_hand": _RIGID,
}


class LimitBox(NamedTuple):
    """Bounds of the axis-angle components of each joint, in radians.

    Attributes:
        lower: (n, 3).
        upper: (n, 3).
    """

    lower: Float[Tensor, "n 3"]
    upper: Float[Tensor, "n 3"]


def default_joint_limits(
    joints: int | Sequence[str] = 23, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> LimitBox:
    """Return a box of joint limits for the body joints of the SMPL family.

    A synthesis of clinical ranges of motion and of the limits in public physics models, wide enough for sport. The
    rest pose lies inside; a knee bends and does not overextend; toes, and SMPL's hands, hinge or do not move. The right
    side mirrors the left: x as on the left, y and z negated. A box ignores how one axis limits another.

    Args:
        joints: 23 for SMPL and STAR, 21 for SMPL-H and SMPL-X (the same joints without the hands), or names of body
            joints in the order wanted.
        dtype: default: torch's default.
        device: default: torch's default.

    Raises:
        ValueError: another number, or a name that is no body joint.

    Example:
        >>> lower, upper = default_joint_limits(["left_knee"])
        >>> upper.rad2deg().round()
        tensor([[145.,  10.,   5.]])
    """
    body = FAMILIES["smpl"].skeleton.names[1:]
    if isinstance(joints, int):
        if joints not in (21, 23):
            raise ValueError(f"joints: expected 21 or 23 body joints, got {joints}; give names, or limits of your own")
        joints = body[:joints]
    rows = [_bounds(name) for name in joints]
    lower, upper = ([[radians(axis[side]) for axis in row] for row in rows] for side in (0, 1))
    return LimitBox(
        torch.tensor(lower, dtype=dtype, device=device).reshape(-1, 3),
        torch.tensor(upper, dtype=dtype, device=device).reshape(-1, 3),
    )


def _bounds(name: str) -> tuple[tuple[int, int], ...]:
    if name in _DEGREES:
        return _DEGREES[name]
    if swap_sides(name) in _DEGREES:
        x, y, z = _DEGREES[swap_sides(name)]
        return x, (-y[1], -y[0]), (-z[1], -z[0])
    raise ValueError(f"joints: expected body joints of SMPL after the pelvis, got {name!r}; check the name")
