"""A network that repairs 3D points of a person, and lifts 2D keypoints to 3D as points whose depths are missing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..geometry.checks import broadcast_batches, expect_shape


class PoseDenoiser(nn.Module):
    """The denoising auto-encoder of SMPLR, told which coordinates it is given.

    Points come in any unit and at any place: they are taken about the middle and over the size of what is given.
    Missing coordinates enter as zero, next to flags that say so, hence one network serves both tasks: repair, where
    whole points are missing, and lifting, where all depths are. It adds a correction to its input, so a fresh network
    returns what it was given, with missing coordinates at the middle of the others. For use, `eval()` it:
    in training mode samples influence each other through the batch statistics.

    Args:
        num_points: K; 14 are the points of "lsp14", which the shipped weights expect.
        width: of the hidden layers; the bottleneck has half of it (SMPLR: 1024).
        dropout: rate before and after the encoder's last layer (SMPLR: 0.2).
        root: ids of the points whose middle is the origin of `lift`: the hips.

    Source: Madadi et al. (2020), "SMPLR: deep learning based SMPL reverse for 3D human pose and shape recovery",
    section 3.2; the flags and the lifting are additions.

    Example:
        >>> denoiser = PoseDenoiser(width=32).eval()
        >>> points = torch.randn(5, 14, 3)
        >>> denoiser.denoise(points).shape, denoiser.lift(points[..., :2]).shape
        (torch.Size([5, 14, 3]), torch.Size([5, 14, 3]))
    """

    def __init__(
        self, num_points: int = 14, width: int = 512, dropout: float = 0.2, root: Sequence[int] = (2, 3)
    ) -> None:
        """Make a network that changes nothing yet; see the class for the arguments."""
        super().__init__()
        self.num_points, self.width, self.dropout = num_points, width, dropout
        self.root = tuple(root)
        if not self.root or not all(0 <= index < num_points for index in self.root):
            raise ValueError(f"root: expected ids from 0 to {num_points - 1}, got {self.root}; name one point or more")
        self.encode_first = _layer(5 * num_points, width)
        self.encode_second = _layer(width, width)
        self.bottleneck = nn.Sequential(nn.Dropout(dropout), _layer(width, width // 2), nn.Dropout(dropout))
        self.decode_second = _layer(width // 2, width)
        self.decode_first = _layer(width, width)
        self.correction = nn.Linear(width, 3 * num_points)
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)

    def denoise(
        self, points: Float[Tensor, "*#batch K 3"], mask: Bool[Tensor, "*#batch K"] | None = None
    ) -> Float[Tensor, "*batch K 3"]:
        """Return the points with noise taken off and missing ones filled in.

        Args:
            points: (*batch, K, 3) in camera axes (x right, y down, z forward), any unit, anywhere.
            mask: (*batch, K) true where there is a point; what lies elsewhere is not read. A point that is not finite
                is missing too.

        Returns:
            (*batch, K, 3) in the axes, unit and place of the input; zero where no point is given at all.

        Raises:
            ValueError: shapes that do not fit.
        """
        batches = {"points": expect_shape("points", points, self.num_points, 3)}
        if mask is None:
            mask = points.new_ones(self.num_points, dtype=torch.bool)
        batches["mask"] = expect_shape("mask", mask, self.num_points)
        batch = broadcast_batches(batches)
        return self.complete(points.expand(*batch, -1, -1), mask[..., None].expand(*batch, self.num_points, 3))

    def lift(
        self, keypoints: Float[Tensor, "*#batch K 2"], confidence: Float[Tensor, "*#batch K"] | None = None
    ) -> Float[Tensor, "*batch K 3"]:
        """Return the points in space behind keypoints of a weak-perspective camera.

        Args:
            keypoints: (*batch, K, 2) in any unit, y down.
            confidence: (*batch, K); keypoints without are missing: not read, filled in. One that is not finite is
                missing too.

        Returns:
            (*batch, K, 3) in camera axes and the unit of the keypoints, about the middle of the root points.

        Raises:
            ValueError: shapes that do not fit.
        """
        batches = {"keypoints": expect_shape("keypoints", keypoints, self.num_points, 2)}
        if confidence is None:
            confidence = keypoints.new_ones(self.num_points)
        batches["confidence"] = expect_shape("confidence", confidence, self.num_points)
        batch = broadcast_batches(batches)
        given = (confidence > 0)[..., None].expand(*batch, self.num_points, 2)
        keypoints = keypoints.expand(*batch, -1, -1)
        points = torch.cat((keypoints, torch.zeros_like(keypoints[..., :1])), dim=-1)
        lifted = self.complete(points, torch.cat((given, torch.zeros_like(given[..., :1])), dim=-1))
        return lifted - lifted[..., list(self.root), :].mean(-2, keepdim=True)

    def residuals(
        self, points: Float[Tensor, "*#batch K 3"], mask: Bool[Tensor, "*#batch K"] | None = None
    ) -> Float[Tensor, "*batch residuals"]:
        """Return how `denoise` would move the given points, flat: the squares sum to `energy`.

        Args:
            points: (*batch, K, 3) in camera axes, any unit.
            mask: (*batch, K) true where there is a point; the residuals of others are zero.

        Returns:
            (*batch, 3 K) in the unit of the points.

        Raises:
            ValueError: shapes that do not fit.
        """
        moved = self.denoise(points, mask)
        given = points.isfinite().all(-1, keepdim=True)
        if mask is not None:
            given = given & mask.unsqueeze(-1)
        return torch.where(given, moved - torch.where(given, points, 0), 0).flatten(-2)

    def energy(
        self, points: Float[Tensor, "*#batch K 3"], mask: Bool[Tensor, "*#batch K"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """Return the summed squares of `residuals`: small where points look like a person's already.

        A denoiser's correction points up the slope of the log density of what it was trained on, so its length vanishes
        at likely poses, and far from all of them too: use it near a solution.

        Source: Alain & Bengio (2014), "What regularized auto-encoders learn from the data-generating distribution".
        """
        return self.residuals(points, mask).square().sum(-1)

    def forward(
        self, keypoints: Float[Tensor, "*#batch K 2"], confidence: Float[Tensor, "*#batch K"] | None = None
    ) -> Float[Tensor, "*batch K 3"]:
        """Return `lift`."""
        return self.lift(keypoints, confidence)

    def complete(self, points: Tensor, given: Tensor) -> Tensor:
        """Return the points (*B, K, 3) with the coordinates that are not `given` (*B, K, 3) filled in."""
        given = given & points.isfinite().all(-1, keepdim=True)
        points = torch.where(given, points, 0)
        count = given.sum(-2, keepdim=True)
        middle = points.sum(-2, keepdim=True) / count.clamp(min=1)
        offset = torch.where(given, points - middle, 0)
        spread = offset.square().sum((-2, -1), keepdim=True) / given.sum((-2, -1), keepdim=True).clamp(min=1)
        # The root of a mean square has no slope at zero: a single point, or none, keeps its unit.
        spread = torch.where(spread > 0, spread, 1)
        size = spread.sqrt()
        offset = offset / size
        flags = given[..., 1:].to(points)  # x and y are given together
        features = torch.cat((offset, flags), dim=-1).flatten(-2)
        batch = features.shape[:-1]
        first = self.encode_first(features.reshape(-1, features.shape[-1]))
        second = self.encode_second(first)
        decoded = self.decode_first(self.decode_second(self.bottleneck(second)) + second) + first
        correction = self.correction(decoded).reshape(*batch, self.num_points, 3)
        return (offset + correction) * size + middle


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ELU())
