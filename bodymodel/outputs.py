"""What flows through the body model: named tuples of tensors, so that vmap, grad and compile see through them."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class RestBody(NamedTuple):
    """A shaped body in the rest pose: the result of the first stage, reused across poses.

    Attributes:
        vertices: (*B, V, 3) in metres, before pose correctives.
        joints: (*B, J, 3) in metres.
    """

    vertices: Float[Tensor, "*batch V 3"]
    joints: Float[Tensor, "*batch J 3"]


class BodyOutput(NamedTuple):
    """A posed body.

    Attributes:
        vertices: (*B, V, 3) in metres.
        joints: (*B, J, 3) in metres, the model's own joints.
        joint_rotations: (*B, J, 3, 3), from each joint's frame to the world frame.
        rest: the shaped body before posing; its batch is that of the shape arguments.
    """

    vertices: Float[Tensor, "*batch V 3"]
    joints: Float[Tensor, "*batch J 3"]
    joint_rotations: Float[Tensor, "*batch J 3 3"]
    rest: RestBody


class SurfacePoints(NamedTuple):
    """Points on the mesh: a face and barycentric weights each.

    Attributes:
        faces: (*B, N) indices into the model's faces; without batch the set is shared by all samples.
        barycentric: (*B, N, 3) weights of the face's three vertices; they sum to 1.
    """

    faces: Int[Tensor, "*batch N"]
    barycentric: Float[Tensor, "*batch N 3"]
