"""Linear blend skinning, and the linear blends before it, on coordinate planes.

Vertices travel as planes: all x, then all y, then all z, flat as (*B, 3 V). Every step is then one long run that
vectorises, the blends are plain matrix products, and the planes reach the user as (*B, V, 3) by a transpose.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..geometry.checks import expect_shape


class VertexBases(NamedTuple):
    """The constants of a set of vertices. A leading batch means one set a sample.

    Attributes:
        template: (*set, 3 V) planes of the mean shape, or of bodies that have their shape already.
        directions: (*set, P + S, W), those of the pose correctives and then those of shape. Beyond 3 V they may go on
            with zeros.
        weights: (*set, J, V) skinning weights.
        shapes: S.
    """

    template: Float[Tensor, "*set planes"]
    directions: Float[Tensor, "*set rows W"]
    weights: Float[Tensor, "*set J V"]
    shapes: int

    @property
    def pose_directions(self) -> Float[Tensor, "*set P planes"]:
        """Those of the pose correctives; P = 0 without."""
        return self._some(0, self.directions.shape[-2] - self.shapes)

    @property
    def shape_directions(self) -> Float[Tensor, "*set S planes"]:
        """Those of shape."""
        return self._some(self.directions.shape[-2] - self.shapes, self.shapes)

    def _some(self, start: int, count: int) -> Tensor:
        return self.directions.narrow(-2, start, count).narrow(-1, 0, self.template.shape[-1])

    def select(self, ids: Int[Tensor, "*set N"]) -> VertexBases:
        """Return the bases of the vertices `ids` of a set without batch; a batch of ids gives one set a sample."""
        batch = ids.dim() - 1

        def gather(columns: Tensor) -> Tensor:
            """Gather (..., V) to (*set, ..., N)."""
            gathered = columns.index_select(-1, ids.reshape(-1)).unflatten(-1, ids.shape)
            kept = columns.dim() - 1
            return gathered.movedim(tuple(range(kept, kept + batch)), tuple(range(batch)))

        def gather_planes(planes: Tensor) -> Tensor:
            return gather(planes.unflatten(-1, (3, -1))).flatten(-2)

        directions = self.directions.narrow(-1, 0, self.template.shape[-1])
        return VertexBases(gather_planes(self.template), gather_planes(directions), gather(self.weights), self.shapes)


def blend(coefficients: Float[Tensor, "*#batch K"], directions: Float[Tensor, "*set K N"]) -> Float[Tensor, ...]:
    """Return the (*B, N) sum of directions weighted by coefficients.

    One set for the whole batch is one matrix product: `torch.matmul` would run a product a sample unless the rows
    happen to be contiguous, which is many times slower.
    """
    if directions.dim() > 2:
        return (coefficients.unsqueeze(-2) @ directions).squeeze(-2)
    if coefficients.dim() <= 2:
        return coefficients @ directions
    flat = coefficients.reshape(-1, coefficients.shape[-1]) @ directions
    return flat.view(*coefficients.shape[:-1], directions.shape[-1])


def add_blend(base: Tensor, coefficients: Tensor, directions: Tensor) -> Tensor:
    """Return `base` + `blend(coefficients, directions)`, in one step where there is one base for a flat batch."""
    if base.dim() == 1 and coefficients.dim() == 2 and directions.dim() == 2:
        return torch.addmm(base, coefficients, directions)
    return base + blend(coefficients, directions)


def add_correctives(
    planes: Float[Tensor, "*#batch planes"],
    feature: Float[Tensor, "*#batch P"],
    directions: Float[Tensor, "*set P planes"],
) -> Float[Tensor, "*out planes"]:
    """Return shaped planes and what the pose adds to them."""
    return planes + blend(feature, directions)


def joint_transforms(
    rotations: Float[Tensor, "*#batch J 3 3"], translations: Float[Tensor, "*#batch J 3"]
) -> Float[Tensor, "*out 12 J"]:
    """Return the joints' 3x4 transforms, row by row down the columns: (*B, 12, J)."""
    if rotations.shape[:-3] != translations.shape[:-2]:
        batch = torch.broadcast_shapes(rotations.shape[:-3], translations.shape[:-2])
        rotations = rotations.expand(*batch, *rotations.shape[-3:])
        translations = translations.expand(*batch, *translations.shape[-2:])
    return torch.cat((rotations, translations.unsqueeze(-1)), dim=-1).flatten(-2).transpose(-1, -2)


def blend_transforms(
    weights: Float[Tensor, "*set J V"], transforms: Float[Tensor, "*#batch 12 J"]
) -> Float[Tensor, "*out 12 V"]:
    """Return each vertex's weighted mean of the joints' `joint_transforms`: (*B, 12, V)."""
    return blend(transforms, weights) if weights.dim() == 2 else transforms @ weights


def apply_transforms(
    planes: Float[Tensor, "*planes_batch planes"], transforms: Float[Tensor, "*batch 12 V"]
) -> Float[Tensor, "*out 3 V"]:
    """Return flat planes (*B, 3 V) moved by the transform of each vertex, as (*B, 3, V)."""
    count = transforms.shape[-1]
    turn_x, turn_y, turn_z, shift = transforms.reshape(*transforms.shape[:-2], 3, 4, count).unbind(-2)
    x, y, z = planes.reshape(*planes.shape[:-1], 3, 1, count).unbind(-3)
    return torch.addcmul(torch.addcmul(torch.addcmul(shift, turn_x, x), turn_y, y), turn_z, z)


def skin(
    vertices: Float[Tensor, "*#batch V 3"],
    lbs_weights: Float[Tensor, "V J"],
    rotations: Float[Tensor, "*#batch J 3 3"],
    translations: Float[Tensor, "*#batch J 3"],
) -> Float[Tensor, "*batch V 3"]:
    """Move each vertex by the weighted mean of its joints' rigid transforms.

    Args:
        vertices: (*B, V, 3) in the rest pose, metres.
        lbs_weights: (V, J); rows sum to 1.
        rotations: (*B, J, 3, 3) world rotations of the joints.
        translations: (*B, J, 3) of the same transforms x' = R x + t: t is the posed joint minus the turned rest joint.

    Returns:
        (*B, V, 3) posed vertices in metres.

    Raises:
        ValueError: shapes that do not fit each other.

    Source: SMPL (Loper et al. 2015), eq. 2 and 3.

    Example:
        >>> import torch
        >>> vertices, weights = torch.rand(5, 3), torch.ones(5, 1)
        >>> moved = skin(vertices, weights, torch.eye(3).expand(1, 3, 3), torch.ones(1, 3))
        >>> torch.allclose(moved, vertices + 1)
        True
    """
    expect_shape("vertices", vertices, "V", 3)
    expect_shape("lbs_weights", lbs_weights, vertices.shape[-2], "J")
    expect_shape("rotations", rotations, lbs_weights.shape[-1], 3, 3)
    expect_shape("translations", translations, lbs_weights.shape[-1], 3)
    planes = vertices.transpose(-1, -2).flatten(-2)
    transforms = blend_transforms(lbs_weights.transpose(-1, -2), joint_transforms(rotations, translations))
    return apply_transforms(planes, transforms).transpose(-1, -2)
