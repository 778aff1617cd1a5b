"""The generator of the lifting GAN: the depths of a person's 2D keypoints."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..bodymodel.keypoint_sets import keypoint_set as keypoint_set_of
from ..geometry.checks import expect_shape
from ..geometry.norms import length, negligible
from .normalised_pose import NormalisedPose, normalise_pose, root_of
from .residual_network import ResidualNetwork


class DepthLifter(nn.Module):
    """Lifts 2D keypoints to three dimensions: one depth a keypoint, learnt from 2D poses alone.

    Eight linear layers (Yoshiyasu & Gamez 2019) on the pose without place and size, and on which points are seen. The
    depths come in the unit of the keypoints: move or scale these, and the depths stay or scale with them. A mirrored
    person gets mirrored depths exactly, because both a pose and its mirror image are lifted and averaged.

    Args:
        keypoint_set: name of the set that the keypoints are in, such as "coco17".
        width: of the hidden layers.

    Attributes:
        keypoint_set: the same name.
        width: the same number.
        root: indices of the keypoints whose mean has depth 0.
        bone_lengths: (n,) metres, of an average person's bones in the order of the set's `bones`; NaN until they are
            set. `metric_depths` takes a person's size from them.

    Raises:
        ValueError: an unknown set, or one without hips.

    Example:
        >>> lifter = DepthLifter("coco17", width=64)
        >>> pixels, confidence = 224 * torch.rand(8, 17, 2), torch.ones(8, 17)
        >>> lifter(pixels, confidence).shape, lifter.lift(pixels, confidence).shape
        (torch.Size([8, 17]), torch.Size([8, 17, 3]))
    """

    bone_lengths: Tensor

    def __init__(self, keypoint_set: str = "coco17", *, width: int = 256) -> None:
        """Make an untrained lifter; see the class."""
        super().__init__()
        points = keypoint_set_of(keypoint_set)
        self.keypoint_set = points.name
        self.width = width
        self.num_keypoints = len(points)
        self.root = root_of(points)
        self.flip = list(points.flip)
        self.bones = points.bones
        self.network = ResidualNetwork(3 * len(points), len(points), width)
        self.register_buffer("bone_lengths", torch.full((len(points.bones),), torch.nan))

    def forward(
        self, keypoints: Float[Tensor, "*#batch K 2"], confidence: Float[Tensor, "*#batch K"] | None = None
    ) -> Float[Tensor, "*batch K"]:
        """Return depths (*B, K) relative to the root, growing away from the camera, in the unit of the keypoints.

        The camera is taken as orthographic. A pose without extent has depth 0 and zero gradients.

        Args:
            keypoints: (*B, K, 2) x right, y down, the person upright: pixels, or anything else.
            confidence: (*B, K); a point is seen where it is above 0, and may be NaN elsewhere. An unseen point gets a
                depth all the same, which is a guess.

        Raises:
            ValueError: shapes that do not fit the set.
        """
        return self._read(keypoints, confidence)[1]

    def lift(
        self, keypoints: Float[Tensor, "*#batch K 2"], confidence: Float[Tensor, "*#batch K"] | None = None
    ) -> Float[Tensor, "*batch K 3"]:
        """Return the points (*B, K, 3) relative to the root, in camera axes and in the unit of the keypoints.

        As `forward`; x and y are those given, and NaN with the depth where a point is not seen.
        """
        pose, depths = self._read(keypoints, confidence)
        return torch.where(pose.seen.unsqueeze(-1), self._join(pose, depths), torch.nan)

    def metric_depths(
        self, keypoints: Float[Tensor, "*#batch K 2"], confidence: Float[Tensor, "*#batch K"] | None = None
    ) -> Float[Tensor, "*batch K"]:
        """Return depths (*B, K) in metres, NaN where unseen: what `register_surface` and its like take as `depths`.

        One image does not tell a person's size. It is taken as an average one's: the bones seen, lifted, get the total
        length that `bone_lengths` has for them (the protocol of Yoshiyasu & Gamez 2019). NaN where no bone is seen.
        """
        pose, depths = self._read(keypoints, confidence)
        first, second = [bone[0] for bone in self.bones], [bone[1] for bone in self.bones]
        lifted = self._join(pose, depths)
        lengths = length(lifted[..., second, :] - lifted[..., first, :])
        seen = (pose.seen[..., first] & pose.seen[..., second]).to(lengths.dtype)
        total = (seen * lengths).sum(-1)
        known = total > negligible(total.dtype)
        metres = (seen * self.bone_lengths.to(lengths)).sum(-1) / torch.where(known, total, 1)
        return torch.where(pose.seen & known.unsqueeze(-1), metres.unsqueeze(-1) * depths, torch.nan)

    def _read(self, keypoints: Tensor, confidence: Tensor | None) -> tuple[NormalisedPose, Tensor]:
        """Return the normalised pose, and depths (*B, K) in the unit of the keypoints."""
        expect_shape("keypoints", keypoints, self.num_keypoints, 2, advice=f"this lifter reads {self.keypoint_set}")
        pose = normalise_pose(keypoints, confidence, self.root)
        seen = pose.seen.unsqueeze(-1).to(pose.points.dtype)
        mirror = pose.points.new_tensor([-1.0, 1.0, 1.0])
        shown = torch.cat((pose.points, seen), dim=-1)
        mirrored = (shown * mirror)[..., self.flip, :]
        both = self.network(torch.stack((shown, mirrored)).flatten(-2))
        depths = (both[0] + both[1][..., self.flip]) / 2
        depths = depths - depths[..., list(self.root)].mean(-1, keepdim=True)
        return pose, depths * pose.size.unsqueeze(-1)

    def _join(self, pose: NormalisedPose, depths: Tensor) -> Tensor:
        return torch.cat((pose.points * pose.size[..., None, None], depths.unsqueeze(-1)), dim=-1)
