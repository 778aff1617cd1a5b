"""A model's constants as the compiled kernel takes them: packed when first used, and again when they were replaced."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Any

import numpy as np
from torch import Tensor

from .families import Family
from .skeleton import Skeleton
from .skinning import VertexBases

# From about this many vertices on, the directions no longer fit into a core's caches, and fewer bytes are less time.
MANY = 2048
# How many things packed one memory keeps: a new view at every call is packed at every call, but does not pile up.
MOST_VIEWS = 8


class Packed:
    """Something packed, and the tensors that it was packed from. Copies and pickles are None: they pack again."""

    def __init__(self, packed: Any, sources: tuple[Tensor | None, ...]) -> None:
        """Keep both."""
        self.packed, self.sources = packed, sources

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


def packed_on(owner: Tensor, sources: tuple[Tensor | None, ...], pack: Callable[[], Any]) -> Any:
    """Return what `pack` makes of `owner` and `sources`; kept with the owner until any of the sources is another."""
    kept: Packed | None = getattr(owner, "_physique_packed", None)
    if kept is None or not all(map(is_, kept.sources, sources)):
        kept = owner._physique_packed = Packed(pack(), sources)  # pyright: ignore[reportAttributeAccessIssue]
    return kept.packed


def packed_with(sources: Sequence[Tensor], pack: Callable[[], Any], about: str = "") -> Any:
    """Return what `pack` makes of `sources`, which is kept with the memory of the first as long as that lives.

    Unlike what `packed_on` keeps, other views of the same memory find it again, such as graphs hand on, and it leaves
    nothing on tensors that are saved. It keeps no source alive.

    Args:
        sources: what is packed.
        pack: packs it.
        about: what else the result depends on.
    """
    memory: Any = sources[0].untyped_storage()
    if not hasattr(memory, "_physique_packed"):
        memory._physique_packed = {}
    kept: dict[Any, tuple[Any, list[Any]]] = memory._physique_packed
    views = about, tuple((value.storage_offset(), value.shape, value.stride()) for value in sources)
    others = [value.untyped_storage() for value in sources[1:]]
    packed, references = kept.get(views, (None, []))
    if packed is None or not all(reference() is other for reference, other in zip(references, others, strict=True)):
        packed = pack()
        if len(kept) == MOST_VIEWS:
            del kept[next(iter(kept))]
        kept[views] = packed, [weakref.ref(other) for other in others]
    return packed


def pack_tree(
    kernel: Any,
    lever: Tensor,
    row: Family,
    skeleton: Skeleton,
    starts: list[int],
    fixed: Mapping[str, Tensor],
    moving: Tensor | None,
    features: int,
) -> Any:
    """Return the tree of a model.

    Args:
        kernel: the compiled one.
        lever: (1 + S, 6 J) bones and rest joints of the mean shape, then along each direction.
        row: the family.
        skeleton: the tree.
        starts: the first direction of each shape argument.
        fixed: axis-angle of the parts that are constants.
        moving: which features drive the correctives; None for the first `features`.
    """
    still = [fixed[p.name].numpy() if p.name in fixed else np.zeros((p.count, 3)) for p in row.parts]
    return kernel.make_tree(
        _whole(skeleton.parents),
        _whole(range(features) if moving is None else moving.numpy()),
        _whole(starts),
        _whole([part.count for part in row.parts]),
        np.concatenate(still).astype(np.float32),
        lever.contiguous().numpy(),
    )


def pack_points(kernel: Any, bases: VertexBases) -> Any:
    """Return the points of `bases`, which have no batch; the pose directions of many in 21 bits, of few in 32."""
    tensors = bases.template, bases.shape_directions, bases.pose_directions, bases.weights
    template, shape, pose, weights = [value.detach().contiguous().numpy() for value in tensors]
    sizes = len(shape), len(pose), len(weights)
    return kernel.make_points(template, shape, pose, weights, *sizes, len(template) >= 3 * MANY)


def pack_mixture(kernel: Any, point_weights: Tensor, joint_weights: Tensor | None) -> Any:
    """Return the weights (K, P) of points and (K, J) of joints in keypoints."""
    points = point_weights.detach().contiguous().numpy()
    joints = np.zeros((len(points), 0), np.float32) if joint_weights is None else joint_weights.detach().numpy()
    return kernel.make_mixture(points, np.ascontiguousarray(joints), len(points))


def _whole(numbers: Any) -> np.ndarray:
    return np.asarray(numbers, dtype=np.int32)
