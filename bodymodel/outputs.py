"""What flows through the body model: named tuples of tensors, so that vmap, grad and compile see through them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor
from torch.utils._pytree import register_pytree_node


class RestBody(NamedTuple):
    """A shaped body in the rest pose: the result of the first stage, reused across poses.

    Attributes:
        vertices: (*B, V, 3) in metres, before pose correctives.
        joints: (*B, J, 3) in metres.
    """

    vertices: Float[Tensor, "*batch V 3"]
    joints: Float[Tensor, "*batch J 3"]


class RestLater(RestBody):
    """A rest body that is made when it is first looked at: most callers never do, and it is as large as the result."""

    _made: RestBody | None
    _make_it: Callable[[], RestBody] | None

    def __new__(cls, vertices: Tensor, joints: Tensor) -> RestBody:
        """Return what needs no making, for those who build what they took apart."""
        return RestBody(vertices, joints)

    @classmethod
    def by(cls, make: Callable[[], RestBody]) -> RestLater:
        """Return what `make` will return when it is asked for."""
        self = tuple.__new__(cls, (None, None))
        self._made, self._make_it = None, make
        return self

    def _now(self) -> RestBody:
        if self._made is None and self._make_it is not None:
            self._made, self._make_it = self._make_it(), None
        assert self._made is not None
        return self._made

    @property
    def vertices(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """(*B, V, 3) in metres, before pose correctives."""
        return self._now().vertices

    @property
    def joints(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """(*B, J, 3) in metres."""
        return self._now().joints

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._now())

    def __getitem__(self, index: Any) -> Any:
        return self._now()[index]

    def __repr__(self) -> str:
        return repr(self._now())

    def __reduce__(self) -> tuple[Any, ...]:
        return RestBody, tuple(self)

    @classmethod
    def _make(cls, iterable: Iterable[Tensor]) -> RestBody:  # pyright: ignore[reportIncompatibleMethodOverride]
        return RestBody._make(iterable)


register_pytree_node(RestLater, lambda rest: (list(rest), None), lambda values, _: RestBody(*values))


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
