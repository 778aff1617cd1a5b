"""The critic of the lifting GAN: does a 2D pose look like that of a person?"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from ..bodymodel.keypoint_sets import keypoint_set as keypoint_set_of
from ..geometry.checks import expect_shape
from .normalised_pose import normalise_pose, root_of
from .residual_network import ResidualNetwork


class PoseCritic(nn.Module):
    """Tells 2D poses of people from projections of lifted ones that were turned.

    Eight linear layers on the pose without place and size (Yoshiyasu & Gamez 2019; Kudo et al. 2018). Larger is more
    real: train it with `lifting_critic_loss`, and a `DepthLifter` against it with `lifting_generator_loss`.

    Args:
        keypoint_set: name of the set that the poses are in.
        width: of the hidden layers.

    Raises:
        ValueError: an unknown set, or one without hips.

    Example:
        >>> PoseCritic("coco17", width=64)(torch.randn(8, 4, 17, 2)).shape
        torch.Size([8, 4])
    """

    def __init__(self, keypoint_set: str = "coco17", *, width: int = 256) -> None:
        """Make an untrained critic; see the class."""
        super().__init__()
        points = keypoint_set_of(keypoint_set)
        self.keypoint_set = points.name
        self.width = width
        self.num_keypoints = len(points)
        self.root = root_of(points)
        self.network = ResidualNetwork(2 * len(points), 1, width)

    def forward(self, keypoints: Float[Tensor, "*batch K 2"]) -> Float[Tensor, "*batch"]:
        """Return one logit a pose (*B,) for keypoints (*B, K, 2), y down, in any unit, all of them seen.

        Raises:
            ValueError: a K that is not the set's.
        """
        expect_shape("keypoints", keypoints, self.num_keypoints, 2, advice=f"this critic reads {self.keypoint_set}")
        pose = normalise_pose(keypoints, None, self.root)
        return self.network(pose.points.flatten(-2)).squeeze(-1)
