"""Turn keypoints in pixels into what a fit compares with: validated, flat in batch, in units of the person's box."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..cameras import PerspectiveCamera


class Target(NamedTuple):
    """Keypoints of N sequences of T frames, moved and scaled so that each person's box has diagonal 1.

    Attributes:
        keypoints: (N, T, K, 2); finite, zero where not visible.
        confidence: (N, T, K) up to 1; zero where missing, and everywhere in an invalid frame.
        middle: (N, T, 2) middle of the person's box, in pixels.
        diagonal: (N, T) of the person's box, in pixels.
        valid: (N, T) whether there is something to fit.
        camera: the known camera with batch (N, T), without its place in the world; None to find a weak-perspective one.
    """

    keypoints: Float[Tensor, "*frames K 2"]
    confidence: Float[Tensor, "*frames K"]
    middle: Float[Tensor, "*frames 2"]
    diagonal: Float[Tensor, "*frames"]
    valid: Bool[Tensor, "*frames"]
    camera: PerspectiveCamera | None

    def of(self, person: Int[Tensor, " n"]) -> Target:
        """Return those of some of the N, by number."""
        return self._each(lambda value: value.index_select(0, person))

    def at(self, frames: Int[Tensor, "N K"]) -> Target:
        """Return some frames of each of the N."""
        rows = torch.arange(len(frames), device=frames.device).unsqueeze(-1)
        return self._each(lambda value: value[rows, frames])

    def frames(self) -> Target:
        """Return the same with one flat batch dimension."""
        return self._each(lambda value: value.flatten(0, 1))

    def _each(self, function: Callable[[Tensor], Tensor]) -> Target:
        given = self.camera
        if given is None:
            camera = None
        else:
            distortion = None if given.distortion is None else function(given.distortion)
            focal, center, rotation, translation = (function(value) for value in given[:4])
            camera = PerspectiveCamera(focal, center, rotation, translation, distortion)
        keypoints, confidence, middle, diagonal, valid = (function(value) for value in self[:5])
        return Target(keypoints, confidence, middle, diagonal, valid, camera)


def keypoint_target(
    keypoints: Float[Tensor, "N T K 2"],
    confidence: Float[Tensor, "N T K"],
    usable: Bool[Tensor, " K"],
    camera: PerspectiveCamera | None,
) -> Target:
    """Clean and normalise keypoints.

    A frame is invalid, and loses all confidence, when a visible keypoint is NaN or infinite, or when its visible
    keypoints do not span a box.

    Args:
        keypoints: (N, T, K, 2) pixels.
        confidence: (N, T, K); not above 0, or NaN: missing.
        usable: (K,) which keypoints the body has.
        camera: with batch (N, T), or None.
    """
    seen = torch.where(usable & (confidence > 0), confidence.clamp(max=1), 0)
    visible = (seen > 0).unsqueeze(-1)
    finite = (keypoints.isfinite() | ~visible).flatten(-2).all(-1)
    points = torch.where(visible & finite[..., None, None], keypoints, 0)
    far = torch.finfo(points.dtype).max
    low, high = torch.where(visible, points, far).amin(-2), torch.where(visible, points, -far).amax(-2)
    size = (high - low).norm(dim=-1)
    valid = finite & visible.flatten(-2).any(-1) & (size > 0) & size.isfinite()
    middle = torch.where(valid.unsqueeze(-1), (low + high) / 2, 0)
    diagonal = torch.where(valid, size, 1)
    seen = torch.where(valid.unsqueeze(-1), seen, 0)
    moved = (points - middle.unsqueeze(-2)) / diagonal[..., None, None]
    return Target(torch.where((seen > 0).unsqueeze(-1), moved, 0), seen, middle, diagonal, valid, camera)


def camera_of_frames(
    camera: PerspectiveCamera, batch: torch.Size, frames: tuple[int, int], like: Tensor
) -> PerspectiveCamera:
    """Return `camera` expanded to the batch of the keypoints and reshaped to (N, T), in the type of `like`.

    Raises:
        ValueError: its batch does not broadcast to that of the keypoints.
    """

    def spread(name: str, field: Tensor, rank: int) -> Tensor:
        event = field.shape[field.dim() - rank :]
        try:
            return field.detach().to(like).expand(*batch, *event).reshape(*frames, *event)
        except RuntimeError:
            got = tuple(field.shape[: field.dim() - rank])
            raise ValueError(
                f"camera.{name}: expected a batch that broadcasts to {tuple(batch)}, got {got}; "
                "give one camera, or one a sample"
            ) from None

    distortion = None if camera.distortion is None else spread("distortion", camera.distortion, 1)
    return PerspectiveCamera(
        spread("focal", camera.focal, 1),
        spread("center", camera.center, 1),
        spread("rotation", camera.rotation, 2),
        spread("translation", camera.translation, 1),
        distortion,
    )


def without_place(camera: PerspectiveCamera) -> PerspectiveCamera:
    """Return the camera at the world's origin, axes along the world's: the body is then fitted in camera axes."""
    batch = camera.focal.shape[:-1]
    identity = torch.eye(3, dtype=camera.focal.dtype, device=camera.focal.device)
    return camera._replace(rotation=identity.expand(*batch, 3, 3), translation=identity.new_zeros(*batch, 3))
