"""A dictionary of poses that lifts 2D keypoints of one image to 3D."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..geometry.axis_angle import axis_angle_to_matrix
from ..geometry.checks import broadcast_batches, expect_shape
from .convex_lifting import common_rotation, convex_lift
from .dictionary_learning import learn_dictionary, sparse_codes
from .dictionary_refinement import Problem, about_middle, coefficient_problem, refine_cameras


class LiftedPose(NamedTuple):
    """Poses in space behind keypoints in images.

    Attributes:
        points: (*batch, K, 3) in camera axes (x right, y down, z forward), about the hips, in the unit of the
            keypoints; x and y are those of the dictionary's shape, near the keypoints but not equal to them.
        rotation: (*batch, 3, 3) from the body's axes (x left, y up, z forward) to the camera's.
        scale: (*batch) of the weak-perspective camera: units of the image a metre.
        translation: (*batch, 2) of that camera: where the hips are in the image.
        coefficients: (*batch, A) of the atoms, none negative; the shape in metres is their sum.
        energy: (*batch) negative log-probability of keypoints and shape, up to a constant; comparable between lifts of
            the same keypoints.
    """

    points: Float[Tensor, "*batch K 3"]
    rotation: Float[Tensor, "*batch 3 3"]
    scale: Float[Tensor, "*batch"]
    translation: Float[Tensor, "*batch 2"]
    coefficients: Float[Tensor, "*batch A"]
    energy: Float[Tensor, "*batch"]

    def in_metres(self) -> Float[Tensor, "*batch K 3"]:
        """Return the points in metres, of a person of likely size: one view does not tell the size."""
        return self.points / self.scale[..., None, None]


class PoseDictionary(nn.Module):
    """Poses as sums of few atoms with coefficients that are not negative, and how they vary.

    A new dictionary is empty; `PoseDictionary.learn` makes one from poses, `load_prior("dictionary")` gives the one
    that ships.

    Args:
        num_atoms: A.
        num_points: K.

    Attributes:
        basis: (A, K, 3) the atoms B, about the hips, in metres, in the body's axes (x left, y up, z forward).
        mean: (K, 3) the mean pose.
        modes: (3K, K, 3) the principal directions of the poses, each one standard deviation long.

    Source: Zhou et al. (2015, 2016). The Gaussian on shapes and the search over cameras are additions.

    Example:
        >>> poses = torch.randn(50, 14, 3, generator=torch.Generator().manual_seed(0))
        >>> dictionary = PoseDictionary.learn(poses, num_atoms=16, rounds=3)
        >>> lifted = dictionary.lift(100 * poses[:2, :, :2])
        >>> lifted.points.shape, lifted.rotation.shape
        (torch.Size([2, 14, 3]), torch.Size([2, 3, 3]))
    """

    basis: Tensor
    mean: Tensor
    modes: Tensor

    def __init__(self, num_atoms: int = 64, num_points: int = 14) -> None:
        """Make an empty dictionary; see the class for the arguments."""
        super().__init__()
        self.register_buffer("basis", torch.zeros(num_atoms, num_points, 3))
        self.register_buffer("mean", torch.zeros(num_points, 3))
        self.register_buffer("modes", torch.zeros(3 * num_points, num_points, 3))

    @classmethod
    @torch.no_grad()
    def learn(
        cls,
        points: Float[Tensor, "N K 3"],
        num_atoms: int = 64,
        *,
        sparsity: float = 0.02,
        rounds: int = 40,
        seed: int = 0,
    ) -> PoseDictionary:
        """Return a dictionary of poses.

        Args:
            points: (N, K, 3) in metres, each about its hips and in the axes of its pelvis (`global_orient` zero).
            num_atoms: A.
            sparsity: λ of the learning over the mean squared norm of a pose.
            rounds: how often codes and atoms take turns.
            seed: of the atoms' start; the result depends on nothing else that is random.

        Raises:
            ValueError: shapes that do not fit, or fewer poses than atoms.
        """
        basis = learn_dictionary(points, num_atoms, sparsity=sparsity, rounds=rounds, seed=seed)
        flat = points.flatten(1)
        variance, directions = torch.linalg.eigh(torch.cov(flat.mT))
        dictionary = cls(num_atoms, points.shape[1]).to(points)
        dictionary.basis.copy_(basis)
        dictionary.mean.copy_(points.mean(0))
        modes = (directions * variance.clamp(min=0).sqrt()).mT.flip(0)
        dictionary.modes.copy_(modes.unflatten(-1, points.shape[1:]))
        return dictionary

    @property
    def num_atoms(self) -> int:
        """The number of atoms A."""
        return self.basis.shape[0]

    @property
    def num_points(self) -> int:
        """The number of points K."""
        return self.basis.shape[1]

    def extra_repr(self) -> str:
        """Describe the dictionary in `print(dictionary)`."""
        return f"{self.num_atoms} atoms of {self.num_points} points"

    def forward(
        self, keypoints: Float[Tensor, "*#batch K 2"], confidence: Float[Tensor, "*#batch K"] | None = None
    ) -> Float[Tensor, "*batch K 3"]:
        """Return the points of `lift`."""
        return self.lift(keypoints, confidence).points

    @torch.no_grad()
    def lift(
        self,
        keypoints: Float[Tensor, "*#batch K 2"],
        confidence: Float[Tensor, "*#batch K"] | None = None,
        *,
        noise: float = 0.005,
        tilt: float = 0.3,
        sparsity: float = 10.0,
        views: int = 4,
        steps: int = 10,
    ) -> LiftedPose:
        """Return the most likely poses behind keypoints.

        First the convex relaxation (`convex_lift`) proposes a rotation; its reflection in depth, which looks the same
        but for what the dictionary knows, and `views` upright turns join it. From each, the camera is refined with the
        shape solved for, and the likeliest is kept. Then the coefficients follow: none negative, few of them.

        The result has no gradient. Samples do not influence each other. Without a confident keypoint it is the mean
        pose, seen from somewhere.

        Args:
            keypoints: (*batch, K, 2) in pixels or any other unit, y down.
            confidence: (*batch, K), not negative; a keypoint of weight zero is not read. One that is not finite is as
                if it had none.
            noise: standard deviation of a keypoint of weight one, in metres on the body: 0.005 for exact
                keypoints, 0.02 for those of a detector.
            tilt: standard deviation of the angle between the pelvis and the image's vertical, in radians; large for
                people who lie or fly.
            sparsity: λ of the coefficients: what the energy pays for a coefficient of one, which is a whole body.
            views: how many turns about the vertical axis to start from, beside those of the relaxation.
            steps: of the refinement.

        Raises:
            ValueError: shapes that do not fit.
        """
        batches = {"keypoints": expect_shape("keypoints", keypoints, self.num_points, 2)}
        if confidence is None:
            confidence = keypoints.new_ones(self.num_points)
        batches["confidence"] = expect_shape("confidence", confidence, self.num_points)
        batch = broadcast_batches(batches)
        keypoints = keypoints.expand(*batch, self.num_points, 2).reshape(-1, self.num_points, 2)
        weight = confidence.expand(*batch, self.num_points).reshape(-1, self.num_points)
        weight = torch.where(keypoints.isfinite().all(-1), weight, 0)
        relaxed = convex_lift(keypoints, self.basis, weight)
        start = self._starts(common_rotation(relaxed.matrices), views)

        share = weight / _or_one(weight.sum(-1, keepdim=True))
        seen = torch.where((weight > 0)[..., None], keypoints, 0)
        middle = (share[..., None] * seen).sum(-2)
        unit = _or_one((share * (seen - middle[:, None]).square().sum(-1)).sum(-1).sqrt())
        problem = Problem(
            image=about_middle((seen / unit[:, None, None])[:, None], weight, share),
            mean=about_middle(self.mean[None, None], weight, share),
            modes=about_middle(self.modes[None], weight, share)[:, None],
            told=(2 * (weight > 0).sum(-1, keepdim=True) - 2).clamp(min=0).to(seen),
            noise=noise,
            tilt=tilt,
        )
        rotations, sizes, energies = refine_cameras(problem, start, steps)
        best = energies.argmin(-1, keepdim=True)
        rotation = rotations.take_along_dim(best[..., None, None], 1)
        size = sizes.take_along_dim(best, 1)
        atoms = about_middle(self.basis[None], weight, share)
        target, design = coefficient_problem(problem, rotation, size, atoms, self.basis, self.mean, self.modes)
        codes = sparse_codes(target, design, sparsity, iterations=300)
        shape = (codes @ self.basis.flatten(1)).unflatten(-1, (self.num_points, 3)) @ rotation[:, 0].mT
        scale = unit / size[:, 0]
        hips = middle - scale[:, None] * (share[..., None] * shape[..., :2]).sum(-2)
        return LiftedPose(
            (scale[:, None, None] * shape).reshape(*batch, self.num_points, 3),
            rotation.reshape(*batch, 3, 3),
            scale.reshape(batch),
            hips.reshape(*batch, 2),
            codes.reshape(*batch, self.num_atoms),
            energies.take_along_dim(best, 1).reshape(batch),
        )

    def _starts(self, relaxed: Tensor, views: int) -> Tensor:
        """Return rotations (N, V, 3, 3) to start from."""
        flip_x, flip_z = (relaxed.new_tensor(signs).diag() for signs in ([-1.0, 1.0, 1.0], [1.0, 1.0, -1.0]))
        angle = torch.arange(views, dtype=relaxed.dtype, device=relaxed.device) * (2 * torch.pi / max(views, 1))
        none = torch.zeros_like(angle)
        upright = axis_angle_to_matrix(relaxed.new_tensor([torch.pi, 0.0, 0.0]))
        turns = upright @ axis_angle_to_matrix(torch.stack((none, angle, none), dim=-1))
        # A person and the mirror image behind the picture look alike: left is right, and the view goes through.
        own = torch.stack((relaxed, flip_z @ relaxed @ flip_x), dim=1)
        return torch.cat((own, turns.expand(len(relaxed), -1, 3, 3)), dim=1)


def _or_one(value: Tensor) -> Tensor:
    return torch.where(value > 0, value, 1)
