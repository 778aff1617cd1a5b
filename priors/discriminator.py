"""The factorized discriminator of HMR: which joints, which pose and which shape look like those of real people."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..bodymodel.families import FAMILIES
from ..geometry.axis_angle import axis_angle_to_matrix
from ..geometry.checks import broadcast_batches, expect_shape

_EMBEDDED = 32
_HIDDEN = 1024
_SHAPE_HIDDEN = (10, 5)


class JointReport(NamedTuple):
    """How real each joint looks.

    Attributes:
        names: of the J joints.
        realness: (*B, J), about 1 for a joint that turns as joints of people do, about 0 for one that does not.
    """

    names: tuple[str, ...]
    realness: Float[Tensor, "*batch J"]

    def least_real(self, count: int = 1) -> list[Any]:
        """Return the names of the least real joints, the worst first: a list; for a batch a list of lists.

        Example:
            >>> report = JointReport(("hip", "knee", "ankle"), torch.tensor([[0.9, 0.1, 1.1], [0.2, 0.3, 0.1]]))
            >>> report.least_real(2)
            [['knee', 'hip'], ['ankle', 'hip']]
        """
        return self._named(self.realness.argsort(-1)[..., :count].tolist())

    def _named(self, ids: list[Any] | int) -> Any:
        return self.names[ids] if isinstance(ids, int) else [self._named(each) for each in ids]


class FactorizedDiscriminator(nn.Module):
    """A discriminator for each joint's rotation, one for all of them together and one for the shape.

    The adversarial prior of HMR (Kanazawa et al. 2018). Every rotation matrix goes through one shared embedding
    9→32→32; each joint has its own linear output on it, all joints together go through 736→1024→1024→1, and the shape
    coefficients through 10→10→5→1; ReLU between layers, none on the outputs. Weights start as in HMR's code: uniform
    after Glorot & Bengio, biases zero. With 23 joints and 10 coefficients it has 1,807,619 parameters.

    Train it with `lsgan_discriminator_loss`, and what it judges with `lsgan_generator_loss`: outputs are near 1 for
    what is real and near 0 for what is not. HMR adds a weight decay of 1e-4. The root's rotation and the camera are
    not judged: people are seen from all sides.

    A sample with a NaN or an infinite number among its inputs has NaN outputs, which the losses pass over, and no
    gradient.

    Attributes:
        num_joints: J, the joints that are judged; 23 for SMPL's body pose, 21 for SMPL-X's.
        num_betas: S, the shape coefficients, whatever they are: betas, or segment scales.

    Example:
        >>> from physique.geometry import axis_angle_to_matrix
        >>> discriminator = FactorizedDiscriminator()
        >>> discriminator(axis_angle_to_matrix(torch.zeros(8, 23, 3)), torch.zeros(8, 10)).shape
        torch.Size([8, 25])
    """

    def __init__(self, num_joints: int = 23, num_betas: int = 10) -> None:
        super().__init__()
        for name, value in (("num_joints", num_joints), ("num_betas", num_betas)):
            if value < 1:
                raise ValueError(f"{name}: expected 1 or more, got {value}; for poses alone use pose_realness")
        self.num_joints = num_joints
        self.num_betas = num_betas
        self.embedding = nn.Sequential(*_relu_layers(9, _EMBEDDED, _EMBEDDED))
        self.joint_weight = nn.Parameter(torch.empty(num_joints, _EMBEDDED))
        self.joint_bias = nn.Parameter(torch.zeros(num_joints))
        self.all_joints = nn.Sequential(*_relu_layers(num_joints * _EMBEDDED, _HIDDEN, _HIDDEN), nn.Linear(_HIDDEN, 1))
        self.shape = nn.Sequential(*_relu_layers(num_betas, *_SHAPE_HIDDEN), nn.Linear(_SHAPE_HIDDEN[-1], 1))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        # Each row is a layer of its own, from 32 numbers to one.
        bound = sqrt(6 / (_EMBEDDED + 1))
        nn.init.uniform_(self.joint_weight, -bound, bound)

    def forward(
        self, rotations: Float[Tensor, "*rotations J 3 3"], betas: Float[Tensor, "*betas S"]
    ) -> Float[Tensor, "*batch outputs"]:
        """Return how real joints, pose and shape look: about 1 what is real, about 0 what is not.

        Args:
            rotations: (*B, J, 3, 3) of the joints after the root, relative to their parents.
            betas: (*B, S) shape coefficients; the batches broadcast.

        Returns:
            (*B, J + 2): each joint, all joints together, the shape.

        Raises:
            ValueError: a shape that does not fit.
        """
        batch = broadcast_batches(
            {
                "rotations": expect_shape("rotations", rotations, self.num_joints, 3, 3),
                "betas": expect_shape("betas", betas, self.num_betas),
            }
        )
        pose = self.pose_realness(rotations).expand(*batch, -1)
        shape = self.shape_realness(betas).expand(batch)
        outputs = torch.cat((pose, shape.unsqueeze(-1)), dim=-1)
        return torch.where(outputs.isfinite().all(-1, keepdim=True), outputs, torch.nan)

    def pose_realness(self, rotations: Float[Tensor, "*batch J 3 3"]) -> Float[Tensor, "*batch outputs"]:
        """Return the outputs for joints and pose alone, for who has no shape.

        Args:
            rotations: (*B, J, 3, 3) of the joints after the root, relative to their parents.

        Returns:
            (*B, J + 1): each joint, then all joints together.

        Raises:
            ValueError: a shape that does not fit.
        """
        expect_shape("rotations", rotations, self.num_joints, 3, 3)
        valid = rotations.isfinite().flatten(-3).all(-1, keepdim=True)
        # Replaced before the layers and again after them: a NaN that a gradient of 0 is multiplied by is a NaN.
        features = self.embedding(torch.where(valid[..., None, None], rotations, 0).flatten(-2))
        joints = (features * self.joint_weight).sum(-1) + self.joint_bias
        outputs = torch.cat((joints, self.all_joints(features.flatten(-2))), dim=-1)
        return torch.where(valid, outputs, torch.nan)

    def shape_realness(self, betas: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch"]:
        """Return the output for the shape alone.

        Args:
            betas: (*B, S) shape coefficients.

        Returns:
            (*B,).

        Raises:
            ValueError: a shape that does not fit.
        """
        expect_shape("betas", betas, self.num_betas)
        valid = betas.isfinite().all(-1)
        return torch.where(valid, self.shape(torch.where(valid.unsqueeze(-1), betas, 0)).squeeze(-1), torch.nan)

    def energy(self, body_pose: Float[Tensor, "*batch J 3"]) -> Float[Tensor, "*batch"]:
        """Return how unreal poses look, Σ_h (D_h − 1)² over joints and pose: `lsgan_generator_loss` without the shape.

        As a prior in a fit. The network is made of planes, so the energy is one of parabolas, with corners between
        them. NaN with gradient 0 for a pose that is not finite.

        Args:
            body_pose: (*B, J, 3) axis-angle of the joints after the root, radians.

        Returns:
            (*B,).

        Raises:
            ValueError: a shape that does not fit.

        Example:
            >>> FactorizedDiscriminator().energy(torch.zeros(8, 23, 3)).shape
            torch.Size([8])
        """
        return self.residuals(body_pose).square().sum(-1)

    def residuals(self, body_pose: Float[Tensor, "*batch J 3"]) -> Float[Tensor, "*batch outputs"]:
        """Return what the energy is the sum of squares of: D_h − 1 for each joint and for all together.

        Args:
            body_pose: (*B, J, 3) axis-angle of the joints after the root, radians.

        Returns:
            (*B, J + 1).

        Raises:
            ValueError: a shape that does not fit.

        Example:
            >>> FactorizedDiscriminator().residuals(torch.zeros(8, 23, 3)).shape
            torch.Size([8, 24])
        """
        expect_shape("body_pose", body_pose, self.num_joints, 3)
        valid = body_pose.isfinite().flatten(-2).all(-1, keepdim=True)
        rotations = axis_angle_to_matrix(torch.where(valid.unsqueeze(-1), body_pose, 0))
        return torch.where(valid, self.pose_realness(rotations) - 1, torch.nan)

    def joint_report(
        self, rotations: Float[Tensor, "*batch J 3 3"], joints: Sequence[str] | None = None
    ) -> JointReport:
        """Return how real each joint looks by itself, with names: which joint does the discriminator reject?

        Args:
            rotations: (*B, J, 3, 3) of the joints after the root, relative to their parents.
            joints: their names; default: the 21 or 23 body joints of the SMPL family.

        Raises:
            ValueError: a shape that does not fit, another number of names, or of joints without names.

        Example:
            >>> report = FactorizedDiscriminator().joint_report(torch.eye(3).expand(23, 3, 3))
            >>> len(report.least_real(3)), report.names[:2]
            (3, ('left_hip', 'right_hip'))
        """
        if joints is None and self.num_joints in (21, 23):
            joints = FAMILIES["smpl"].skeleton.names[1 : self.num_joints + 1]
        if joints is None or len(joints) != self.num_joints:
            got = "none" if joints is None else len(joints)
            raise ValueError(f"joints: expected {self.num_joints} names, got {got}; name every joint after the root")
        return JointReport(tuple(joints), self.pose_realness(rotations)[..., :-1])


def _relu_layers(*sizes: int) -> list[nn.Module]:
    layers = [(nn.Linear(*pair), nn.ReLU()) for pair in zip(sizes[:-1], sizes[1:], strict=True)]
    return [layer for pair in layers for layer in pair]
