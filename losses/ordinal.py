"""Depths that agree with who is closer to the camera."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..geometry.checks import broadcast_batches, expect_shape
from .robust import l2
from .weighting import weighted_mean


def ordinal_depth_loss(
    depth: Float[Tensor, "*depth K"], relations: Float[Tensor, "*relations K K"] | Int[Tensor, "*relations K K"]
) -> Float[Tensor, "*out"]:
    """Return the mean over the labelled pairs of joints of a ranking loss, or of a squared difference for equal depths.

    With z growing away from the camera, a pair (i, j) costs

    - r_ij > 0, i closer: log(1 + exp(z_i − z_j));
    - r_ij < 0, i farther: log(1 + exp(z_j − z_i));
    - r_ij = 0, at the same depth: (z_i − z_j)².

    This is Pavlakos et al. (CVPR 2018), "Ordinal depth supervision", as a mean instead of a sum. A NaN in `relations`
    is no label: the pair costs nothing and may have NaN depths. The diagonal is never read. Each pair may be given
    once, with NaN in its other place, or twice, r_ji = −r_ij: the mean is the same. Without a label the loss is 0.

    The public annotations of LSP and MPII are of the opposite sign, −1 where i is closer: pass them negated. The
    ranking term has a scale: depths in metres want a factor, so that a clear difference of depth exceeds 1.

    Args:
        depth: (*B, K) in the unit in which 1 is a clear difference.
        relations: (*B, K, K), +1 where i is closer than j, −1 farther, 0 equal, NaN unknown.

    Returns:
        (*B,), one loss a sample.

    Raises:
        ValueError: a shape that does not fit.

    Example:
        >>> relations = torch.full((3, 3), float("nan"))
        >>> relations[0, 1], relations[1, 2] = 1, 0  # joint 0 is in front of joint 1, which is as far as joint 2
        >>> ordinal_depth_loss(torch.tensor([-1.0, 1.0, 1.0]), relations)
        tensor(0.0635)
    """
    shapes = {"depth": expect_shape("depth", depth, "K")}
    count = depth.shape[-1]
    shapes["relations"] = expect_shape("relations", relations, count, count)
    broadcast_batches(shapes)
    labelled = ~(relations.isnan() | torch.eye(count, dtype=torch.bool, device=depth.device))
    difference = torch.where(labelled, depth.unsqueeze(-1) - depth.unsqueeze(-2), 0)
    signed = torch.where(relations > 0, difference, -difference)
    # log(1 + exp(x)) for every x, with all its derivatives.
    cost = torch.where(relations == 0, l2(difference), -logsigmoid(-signed))
    return weighted_mean(cost.flatten(-2), labelled.to(depth.dtype).flatten(-2))
