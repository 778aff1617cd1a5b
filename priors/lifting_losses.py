"""What trains a lifter from 2D poses alone: views of lifted points, their critic's verdict, and where people face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..bodymodel.keypoint_sets import KeypointSet
from ..geometry.checks import broadcast_batches, expect_shape
from ..geometry.norms import length, negligible


def turn_about_vertical(
    points: Float[Tensor, "*points K 3"], angle: Float[Tensor, "*angle"]
) -> Float[Tensor, "*batch K 3"]:
    """Return points turned about the vertical axis through the origin.

    x' = x cos φ + z sin φ, y' = y, z' = z cos φ − x sin φ (Kudo et al. 2018). Points relative to their root turn about
    the person; camera axes or any others whose y is vertical.

    Args:
        points: (*B, K, 3).
        angle: (*B,) radians.

    Returns:
        (*B, K, 3), of the batch that both broadcast to.

    Example:
        >>> turn_about_vertical(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor(torch.pi / 2)).round()
        tensor([[2., 1., -0.]])
    """
    broadcast_batches({"points": expect_shape("points", points, "K", 3), "angle": angle.shape})
    cos, sin = angle.cos().unsqueeze(-1), angle.sin().unsqueeze(-1)
    x, y, z = points.unbind(-1)
    x, y, z = torch.broadcast_tensors(x * cos + z * sin, y, z * cos - x * sin)
    return torch.stack((x, y, z), dim=-1)


def turned_views(
    points: Float[Tensor, "*points K 3"], angles: Float[Tensor, "*angles A"]
) -> Float[Tensor, "*batch A K 2"]:
    """Return what an orthographic camera sees of points that are turned about the vertical axis by several angles.

    Π(R_φ X): `turn_about_vertical`, and the depth dropped. A pose lifted well looks like a person from all sides.

    Args:
        points: (*B, K, 3) relative to their root.
        angles: (*B, A) radians; (A,) are the same angles for all.

    Returns:
        (*B, A, K, 2).

    Example:
        >>> turned_views(torch.randn(8, 17, 3), torch.linspace(0, 6, 4)).shape
        torch.Size([8, 4, 17, 2])
    """
    expect_shape("points", points, "K", 3)
    expect_shape("angles", angles, "A")
    return turn_about_vertical(points.unsqueeze(-3), angles)[..., :2]


def lifting_critic_loss(real: Float[Tensor, "*shape"], fake: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return softplus(−D(real)) + softplus(D(fake)), the loss of the critic, for each pair of logits.

    Equal to −log D(x) − log(1 − D(x̂)) for the probability of a logit; no logit overflows it (Kudo et al. 2018).

    Example:
        >>> lifting_critic_loss(torch.tensor([0.0, 9.0]), torch.tensor([0.0, -9.0])).round(decimals=2)
        tensor([1.3900, 0.0000])
    """
    return F.softplus(-real) + F.softplus(fake)


def lifting_generator_loss(fake: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return softplus(−D(fake)), the non-saturating loss of the lifter, for each logit (Kudo et al. 2018).

    Example:
        >>> lifting_generator_loss(torch.tensor([-9.0, 9.0])).round(decimals=2)
        tensor([9., 0.])
    """
    return F.softplus(-fake)


class HeadingCue(NamedTuple):
    """Two lines of the body, by the keypoints whose means are their ends: one to the front, one to the left.

    Attributes:
        back: where the line to the front starts.
        front: where it ends.
        right: where the line to the left starts.
        left: where it ends.
    """

    back: tuple[int, ...]
    front: tuple[int, ...]
    right: tuple[int, ...]
    left: tuple[int, ...]


def heading_cues(keypoints: KeypointSet) -> tuple[HeadingCue, ...]:
    """Return what tells front from back in a keypoint set: the nose before the ears, and before the shoulders.

    Raises:
        ValueError: a set without nose or shoulders, where nothing tells.

    Example:
        >>> from physique.bodymodel import keypoint_set
        >>> heading_cues(keypoint_set("h36m17"))
        (HeadingCue(back=(14, 11), front=(9,), right=(14,), left=(11,)),)
    """
    points = keypoints.keypoints
    nose = next((points.index(name) for name in ("nose", "nose_h36m") if name in points), None)
    pairs = [("right_ear", "left_ear"), ("right_shoulder", "left_shoulder")]
    ids = [tuple(points.index(name) for name in pair) for pair in pairs if set(pair) <= set(points)]
    if nose is None or not ids:
        raise ValueError(
            f"keypoint_set: expected one with a nose and shoulders or ears, got {keypoints.name}; use coco17"
        )
    return tuple(HeadingCue((right, left), (nose,), (right,), (left,)) for right, left in ids)


def heading_loss(points: Float[Tensor, "*batch K 3"], cues: Sequence[HeadingCue]) -> Float[Tensor, "*batch"]:
    """Return how far a lifted person faces backwards: the "face forward" loss of Kudo et al. (2018).

    Σ_cues max(0, −sin), with the sine of the angle, seen from above, from the line to the front to the line to the
    left: (f_x l_z − f_z l_x) / (|f| |l|). An upright camera that projects in parallel sees the same from all sides of a
    person and of one whose depths are all negated, so no critic can tell which is which; this loss can, because it
    changes sign. A line of negligible length, seen from above, costs nothing and has no gradient.

    Args:
        points: (*B, K, 3) in camera axes (x right, y down, z forward), any unit.
        cues: from `heading_cues`.

    Returns:
        (*B,), from 0 to the number of cues.

    Example:
        >>> cue = HeadingCue(back=(0,), front=(1,), right=(2,), left=(3,))
        >>> facing = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        >>> depths_negated = facing * torch.tensor([1.0, 1.0, -1.0])
        >>> heading_loss(facing, [cue]), heading_loss(depths_negated, [cue])
        (tensor(0.), tensor(1.))
    """
    batch = expect_shape("points", points, "K", 3)
    total = points.new_zeros(batch)
    for cue in cues:
        back, front, right, left = (points[..., list(ids), :][..., [0, 2]].mean(-2) for ids in cue)
        forward, lateral = front - back, left - right
        cross = forward[..., 0] * lateral[..., 1] - forward[..., 1] * lateral[..., 0]
        lengths = length(forward) * length(lateral)
        regular = lengths > negligible(lengths.dtype)
        total = total + F.relu(-torch.where(regular, cross / torch.where(regular, lengths, 1), 0))
    return total
