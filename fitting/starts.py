"""Where a fit to 2D keypoints starts: the view of the relaxed body that matches best, for each way of facing."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry import axis_angle_to_matrix, matrix_to_axis_angle

FACINGS = 4
VIEWS_A_FACING = 5


class Views(NamedTuple):
    """One start a facing (toward the camera, to its right, away, to its left) for each sample.

    Attributes:
        global_orient: (4, *B, 3) axis-angle, from the y-up body to camera axes.
        scale: (4, *B) image units per metre.
        translation: (4, *B, 2) image position of the body's origin.
    """

    global_orient: Float[Tensor, "facings *batch 3"]
    scale: Float[Tensor, " facings *batch"]
    translation: Float[Tensor, "facings *batch 2"]


def starting_views(
    body: Float[Tensor, "K 3"],
    keypoints: Float[Tensor, "*batch K 2"],
    weights: Float[Tensor, "*batch K"],
    *,
    origin: Float[Tensor, " 3"],
    smallest_scale: float,
) -> Views:
    """Turn the body about its vertical axis, place each view in the image in closed form, and keep the best by facing.

    A view's place is the weighted least-squares similarity of the plane (turn, scale, shift), so a person lying down
    or upside down is found as well, and any two visible keypoints are enough.

    Args:
        body: (K, 3) keypoints of the resting body, y up.
        keypoints: (*B, K, 2) in any image unit, y down; finite.
        weights: (*B, K), zero where missing.
        origin: (3,) the point of the body that `global_orient` turns it about: the pelvis.
        smallest_scale: lower bound for the scale, where the keypoints coincide.
    """
    count = FACINGS * VIEWS_A_FACING
    yaw = torch.arange(count, dtype=body.dtype, device=body.device) * (2 * math.pi / count)
    yaw = yaw - (VIEWS_A_FACING // 2) * (2 * math.pi / count)
    upright = torch.stack((torch.zeros_like(yaw), yaw, torch.zeros_like(yaw)), dim=-1)
    half_turn = torch.diag(body.new_tensor((1.0, -1.0, -1.0)))
    turned = half_turn @ axis_angle_to_matrix(upright)
    flat = ((body - origin) @ turned.mT)[..., :2]
    share = weights / weights.sum(-1, keepdim=True).clamp(min=1e-9)
    image_mean = (share.unsqueeze(-1) * keypoints).sum(-2)
    body_mean = torch.einsum("...k,akd->a...d", share, flat)
    images = keypoints - image_mean.unsqueeze(-2)
    bodies = flat.view(count, *(1,) * (keypoints.dim() - 2), *flat.shape[-2:]) - body_mean.unsqueeze(-2)
    # As complex numbers: the similarity is one factor, modulus the scale and argument the turn.
    size = (share * bodies.square().sum(-1)).sum(-1).clamp(min=1e-9)
    real = (share * (bodies * images).sum(-1)).sum(-1) / size
    imaginary = (share * (bodies[..., 0] * images[..., 1] - bodies[..., 1] * images[..., 0])).sum(-1) / size
    scale = torch.hypot(real, imaginary).clamp(min=smallest_scale)
    cosine, sine = real / scale, imaginary / scale
    roll = torch.atan2(sine, cosine)
    explained = scale.square() * size
    best = explained.unflatten(0, (FACINGS, VIEWS_A_FACING)).argmax(1, keepdim=True)

    def choose(values: Tensor) -> Tensor:
        groups = values.unflatten(0, (FACINGS, VIEWS_A_FACING))
        index = best.view(*best.shape, *(1,) * (groups.dim() - best.dim())).expand(
            *best.shape, *groups.shape[best.dim() :]
        )
        return groups.gather(1, index).squeeze(1)

    about_axis = torch.stack((torch.zeros_like(roll), torch.zeros_like(roll), roll), dim=-1)
    rolled = axis_angle_to_matrix(about_axis)
    views = turned.view(count, *(1,) * (roll.dim() - 1), 3, 3).expand(*roll.shape, 3, 3)
    shift = image_mean - scale.unsqueeze(-1) * (rolled[..., :2, :2] @ body_mean.unsqueeze(-1)).squeeze(-1)
    return Views(matrix_to_axis_angle(choose(rolled @ views)), choose(scale), choose(shift))
