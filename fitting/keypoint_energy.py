"""The energy of a body against 2D keypoints, in units that do not depend on the image."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from ..bodymodel import BodyModel, KeypointRegressor
from ..bodymodel.limits import LimitBox
from ..geometry import axis_angle_to_matrix
from ..losses import joint_limit_loss, reprojection_loss
from .keypoint_target import Target
from .pose_priors import PosePrior
from .relaxed import RelaxedPose

SEGMENT_SCALE_UNIT = 0.05


class KeypointWeights(NamedTuple):
    """What the energy of a keypoint fit is made of; print it, change it with `_replace`, pass it back.

    Attributes:
        noise: expected error of a keypoint, as a share of the diagonal of the person's box; the data term counts
            squared errors in this unit.
        outlier: error at which a keypoint's pull fades (Geman-McClure), as a share of that diagonal.
        limits: of squared violations of the joint limits, in radians².
        pose: of squared deviations from a relaxed pose, in radians²: the weak pull that decides what the image leaves
            open; not used with a prior.
        prior: of the energy of the prior, where there is one. 1/2 suits energies that are negative log-likelihoods.
        shape: of squared betas, or of squared segment scales minus 1 in units of 5 %.
        upright: of the squared sine of the angle between the body's axis and the image plane.
        temporal: with `sequence`, of the joints' mean squared movement between frames, in centimetres².
    """

    noise: float = 0.02
    outlier: float = 0.1
    limits: float = 300.0
    pose: float = 4.0
    prior: float = 0.5
    shape: float = 0.5
    upright: float = 10.0
    temporal: float = 0.5


class KeypointEnergy(NamedTuple):
    """The terms that a fit to keypoints minimises.

    The unknowns, a dictionary of tensors that start with (*S, N, T), S being alternative starts: `global_orient`,
    `body_pose`, and `betas` or `segment_scale` with T = 1, shared by the frames; then `log_scale` and `translation` of
    the weak-perspective camera in units of the person's box, or `transl` in the axes of the known camera.

    Attributes:
        body: the model of the few vertices that the keypoints need, or of any vertex where they need none.
        regressor: the keypoints from joints and these vertices.
        target: what to match.
        limits: the range of motion.
        relaxed: where to fall back to without a prior.
        weights: of the terms.
        starts: (M, n, 3) body poses to start from.
        prior: on poses, or None.
    """

    body: BodyModel
    regressor: KeypointRegressor
    target: Target
    limits: LimitBox
    relaxed: RelaxedPose
    weights: KeypointWeights
    starts: Float[Tensor, "M n 3"]
    prior: PosePrior | None

    @property
    def shape_argument(self) -> str:
        """Name of the model's shape argument: betas or segment_scale."""
        return "segment_scale" if self.body.data.count("segment_scale") else "betas"

    def mean_shape(self) -> dict[str, Tensor]:
        """Return the shape argument (n,) of the mean body."""
        count = self.body.data.count(self.shape_argument)
        if self.shape_argument == "betas":
            return {"betas": self.body.v_template.new_zeros(count)}
        joints = self.body.data.num_joints
        return {"segment_scale": self.body.v_template.new_ones((count,) if count == joints else (joints, 3))}

    def root(self, unknowns: dict[str, Tensor]) -> Tensor:
        """Return the pelvis (*S, N, T, 3) of the shaped body, which `global_orient` leaves in place."""
        shape: dict[str, Any] = {self.shape_argument: unknowns[self.shape_argument]}
        return self.body.joints(**shape)[..., 0, :]

    def keypoints(self, unknowns: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the body's keypoints (*S, N, T, K, 3) in camera axes, and its joints likewise."""
        names = ("global_orient", "body_pose", self.shape_argument)
        arguments: dict[str, Any] = {name: unknowns[name] for name in names}
        if len(self.regressor.vertex_ids):
            out = self.body(**arguments)
            return self.regressor(out.joints, out.vertices), out.joints
        joints = self.body.joints(**arguments)
        return self.regressor(joints, joints[..., :0, :]), joints

    def project(self, unknowns: dict[str, Tensor], points: Tensor) -> Tensor:
        """Return points (*S, N, T, K, 3) in the image, in units of the person's box."""
        camera = self.target.camera
        if camera is None:
            scale = unknowns["log_scale"].exp()[..., None, None]
            return scale * points[..., :2] + unknowns["translation"].unsqueeze(-2)
        pixels = camera.project(points + unknowns["transl"].unsqueeze(-2))
        return (pixels - self.target.middle.unsqueeze(-2)) / self.target.diagonal[..., None, None]

    def place(self, unknowns: dict[str, Tensor], points: Tensor, keep: Tensor) -> Tensor:
        """Return the energy (*S, N) of camera and root alone, judged by the keypoints `keep` (K,), a weight each."""
        fitted = self._data(self.project(unknowns, points), self.target.confidence * keep, math.inf)
        return (fitted + self._upright(unknowns)).sum(-1)

    def whole(self, unknowns: dict[str, Tensor], firmness: float) -> Tensor:
        """Return the full energy (*S, N); `firmness` multiplies the priors, and the error that counts as an outlier."""
        weights = self.weights
        points, joints = self.keypoints(unknowns)
        energy = self._data(self.project(unknowns, points), self.target.confidence, firmness) + self._upright(unknowns)
        energy = energy + weights.limits * joint_limit_loss(unknowns["body_pose"], self.limits)
        if self.prior is None:
            energy = energy + firmness * weights.pose * self.relaxed.energy(unknowns["body_pose"])
        else:
            energy = energy + firmness * weights.prior * self.prior.energy(unknowns["body_pose"])
        shape = unknowns[self.shape_argument]
        deviation = (shape - 1) / SEGMENT_SCALE_UNIT if self.shape_argument == "segment_scale" else shape
        total = energy.sum(-1) + firmness * weights.shape * deviation.square().flatten(energy.dim() - 1).sum(-1)
        if joints.shape[-3] == 1:
            return total
        moved = 100 * (joints[..., 1:, :, :] - joints[..., :-1, :, :])
        return total + weights.temporal * moved.square().sum(-1).mean(-1).sum(-1)

    def _data(self, projected: Tensor, confidence: Tensor, tolerance: float) -> Tensor:
        """Return the robust squared error in units of the noise, summed over the visible keypoints.

        `tolerance` multiplies the error at which a keypoint's pull fades.
        """
        weights, keypoints = self.weights, self.target.keypoints
        sigma = weights.outlier * tolerance
        if math.isinf(sigma):
            mean = reprojection_loss(projected, keypoints, confidence, penalty="l2")
        else:
            mean = reprojection_loss(projected, keypoints, confidence, penalty="geman_mcclure", sigma=sigma)
        return confidence.sum(-1) * mean / weights.noise**2

    def _upright(self, unknowns: dict[str, Tensor]) -> Tensor:
        return self.weights.upright * axis_angle_to_matrix(unknowns["global_orient"])[..., 2, 1].square()
