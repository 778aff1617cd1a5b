"""What a registration compares with: correspondences and keypoints, checked, flat in batch, in a person's own unit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..bodymodel import BodyModel, KeypointRegressor
from ..geometry.checks import broadcast_batches, expect_shape
from .correspondences import Correspondences


class Observations(NamedTuple):
    """What is seen of B people, moved and scaled so that a person's size is about 1.

    Attributes:
        faces: (B, N) of the surface points.
        barycentric: (B, N, 3).
        pixels: (B, N, 2); finite, zero where not seen.
        weight: (B, N); zero where not seen, and everywhere in an invalid sample.
        keypoints: (B, K, 2) likewise.
        confidence: (B, K).
        depths: (B, K) metres, NaN where unknown.
        middle: (B, 2) pixels.
        size: (B,) pixels.
        valid: (B,) whether there is something to register.
    """

    faces: Int[Tensor, "B N"]
    barycentric: Float[Tensor, "B N 3"]
    pixels: Float[Tensor, "B N 2"]
    weight: Float[Tensor, "B N"]
    keypoints: Float[Tensor, "B K 2"]
    confidence: Float[Tensor, "B K"]
    depths: Float[Tensor, "B K"]
    middle: Float[Tensor, "B 2"]
    size: Float[Tensor, " B"]
    valid: Bool[Tensor, " B"]

    def of(self, person: Int[Tensor, " n"]) -> Observations:
        """Return those of some people, by number."""
        return Observations(*(value.index_select(0, person) for value in self))


def normalise(
    faces: Tensor,
    barycentric: Tensor,
    pixels: Tensor,
    weight: Tensor,
    keypoints: Tensor,
    confidence: Tensor,
    depths: Tensor,
) -> Observations:
    """Clean and scale what is seen, all with batch (B,): gross outliers change neither the middle nor the size.

    The middle is the median of all visible points, the size four times their median distance from it, which is about
    the diagonal of the person's box. A sample is invalid when something visible is NaN or infinite, or when its points
    have no extent.
    """
    points = torch.cat((pixels, keypoints), dim=-2)
    share = torch.cat((weight, confidence), dim=-1)
    seen = share > 0
    finite = (points.isfinite().all(-1) | ~seen).all(-1)
    points = torch.where(seen.unsqueeze(-1) & finite[:, None, None], points, torch.nan)
    middle = points.nanmedian(-2).values
    size = 4 * (points - middle.unsqueeze(-2)).norm(dim=-1).nanmedian(-1).values
    valid = finite & (size > 0)
    middle = torch.where(valid.unsqueeze(-1), middle, 0)
    size = torch.where(valid, size, 1)
    scaled = (points - middle.unsqueeze(-2)) / size[:, None, None]
    share = torch.where(seen & valid.unsqueeze(-1), share.clamp(max=1), 0)
    scaled = torch.where((share > 0).unsqueeze(-1), scaled, 0)
    count = pixels.shape[-2]
    return Observations(
        faces,
        barycentric,
        scaled[:, :count],
        share[:, :count],
        scaled[:, count:],
        share[:, count:],
        torch.where(depths.isinf(), torch.nan, depths),
        middle,
        size,
        valid,
    )


def observe(
    model: BodyModel,
    correspondences: Correspondences,
    keypoints: Tensor | None,
    confidence: Tensor | None,
    depths: Tensor | None,
    regressor: KeypointRegressor | None,
) -> tuple[Observations, torch.Size]:
    """Check shapes, flatten the batch to (B,), and normalise."""
    surface, pixels, weight = correspondences
    like = model.v_template
    batch = expect_shape("correspondences.pixels", pixels, "N", 2)
    count = pixels.shape[-2]
    shapes = {
        "correspondences.surface.faces": expect_shape("correspondences.surface.faces", surface.faces, count),
        "correspondences.surface.barycentric": expect_shape(
            "correspondences.surface.barycentric", surface.barycentric, count, 3
        ),
        "correspondences.weight": expect_shape("correspondences.weight", weight, count),
    }
    size = 0 if keypoints is None or regressor is None else len(regressor.names)
    if keypoints is None:
        keypoints, confidence, depths = like.new_zeros(0, 2), like.new_zeros(0), like.new_zeros(0)
    else:
        shapes["keypoints"] = expect_shape("keypoints", keypoints, size, 2)
    confidence = like.new_ones(size) if confidence is None else confidence
    depths = like.new_full((size,), torch.nan) if depths is None else depths
    shapes["confidence"] = expect_shape("confidence", confidence, size)
    shapes["depths"] = expect_shape("depths", depths, size)
    if broadcast_batches({"correspondences.pixels": batch, **shapes}) != batch:
        listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items() if len(shape) > len(batch))
        raise ValueError(
            f"correspondences.pixels: expected the largest batch, got {tuple(batch)} beside {listed}; expand it"
        )
    faces = surface.faces.expand(*batch, count)
    if faces.numel() and not (0 <= int(faces.min()) and int(faces.max()) < len(model.faces)):
        raise ValueError(
            f"correspondences.surface.faces: expected 0 to {len(model.faces) - 1}, got {int(faces.min())} to "
            f"{int(faces.max())}; these points belong to another mesh"
        )

    def flat(value: Tensor, *event: int) -> Tensor:
        return value.detach().to(like).expand(*batch, *event).reshape(batch.numel(), *event)

    sight = flat(confidence, size)
    if regressor is not None:
        sight = sight * regressor.valid.to(sight)
    return (
        normalise(
            faces.to(like.device).reshape(batch.numel(), count),
            flat(surface.barycentric, count, 3),
            flat(pixels, count, 2),
            flat(weight, count),
            flat(keypoints, size, 2),
            sight,
            flat(depths, size),
        ),
        batch,
    )
