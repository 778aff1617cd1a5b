"""The energy of a body against 2D keypoints, in units that do not depend on the image: residuals, and their slopes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bodymodel import BodyModel
from ..bodymodel.keypoint_bases import KeypointBases
from ..bodymodel.limits import LimitBox
from ..geometry import axis_angle_to_matrix
from .image_projection import ImageProjection
from .keypoint_target import Target
from .normal_equations import NormalEquations
from .pose_priors import PosePrior, prior_residuals, prior_slope
from .pose_terms import PoseTerms
from .relaxed import RelaxedPose
from .robust_residuals import softened, softened_slope
from .sequences import ArrowEquations, Motion

SEGMENT_SCALE_UNIT = 0.05
# The curvature that steps reckon with beside that of the terms: where there is a pull to a pose, or a prior that knows
# typical poses, and where neither is. Joints of which the image tells hardly anything would go far to follow its noise.
CAUTION, MORE_CAUTION = 20.0, 60.0


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
    pose: float = 6.0
    prior: float = 0.5
    shape: float = 0.5
    upright: float = 10.0
    temporal: float = 0.5


class KeypointEnergy(NamedTuple):
    """The terms that a fit to keypoints minimises.

    The unknowns, a dictionary of tensors (n, T, ...) in this order: `global_orient`, `body_pose`; `log_scale` and
    `translation` of the weak-perspective camera in units of the person's box, or `transl` in the axes of the known
    camera; and `betas` or `segment_scale` with T = 1, shared by the frames. Beside them `person` (n,): whom of the
    target's each of the n is to match.

    Attributes:
        model: the body.
        bases: the keypoints on it.
        names: what the set calls them.
        target: what to match.
        limits: the range of motion.
        relaxed: where to fall back to without a prior.
        weights: of the terms.
        starts: (M, n, 3) body poses to start from.
        prior: on poses, or None.
    """

    model: BodyModel
    bases: KeypointBases
    names: tuple[str, ...]
    target: Target
    limits: LimitBox
    relaxed: RelaxedPose
    weights: KeypointWeights
    starts: Float[Tensor, "M n 3"]
    prior: PosePrior | None

    @property
    def shape_argument(self) -> str:
        """Name of the model's shape argument: betas or segment_scale."""
        return "segment_scale" if self.model.data.count("segment_scale") else "betas"

    @property
    def squared(self) -> bool:
        """Whether all terms are squares: false with a prior that has no residuals."""
        return self.prior is None or hasattr(self.prior, "residuals")

    def at(self, frames: Int[Tensor, "N K"]) -> KeypointEnergy:
        """Return the energy of some frames of each sequence, spread over its length."""
        # As far as a body gets in one frame, squared, it gets in n frames n² times.
        apart = (self.target.valid.shape[1] - 1) / max(frames.shape[1] - 1, 1)
        weights = self.weights._replace(temporal=self.weights.temporal / apart**2)
        return self._replace(target=self.target.at(frames), weights=weights)

    def mean_shape(self) -> dict[str, Tensor]:
        """Return the shape argument (n,) of the mean body."""
        like, count = self.model.v_template, self.model.data.count(self.shape_argument)
        if self.shape_argument == "betas":
            return {"betas": like.new_zeros(count)}
        joints = self.model.data.num_joints
        return {"segment_scale": like.new_ones((count,) if count == joints else (joints, 3))}

    def root(self, unknowns: dict[str, Tensor]) -> Tensor:
        """Return the pelvis (n, T, 3) of the shaped body, which `global_orient` leaves in place."""
        shape: dict[str, Any] = {self.shape_argument: unknowns[self.shape_argument]}
        return self.model.joints(**shape)[..., 0, :]

    def keypoints(self, unknowns: dict[str, Tensor]) -> Tensor:
        """Return the body's keypoints (*B, K, 3) in camera axes, before `transl`."""
        return self.model.keypoints(self.bases, **self._arguments(unknowns))

    def project(self, unknowns: dict[str, Tensor], points: Tensor, target: Target) -> Tensor:
        """Return points (n, K, 3) in the image, in units of the person's box; `unknowns` and `target` of n frames."""
        return ImageProjection.of(unknowns, target).project(points)

    def distances(self, unknowns: dict[str, Tensor]) -> Tensor:
        """Return how far the keypoints of all N are off in the image, in pixels (N, T, K)."""
        frames, seen = self._frames(unknowns), self.target.frames()
        off = self.project(frames, self.keypoints(frames), seen) - seen.keypoints
        return (off.norm(dim=-1) * seen.diagonal.unsqueeze(-1)).view(self.target.confidence.shape)

    def total(self, unknowns: dict[str, Tensor], person: Tensor, firmness: float) -> Tensor:
        """Return the whole energy (n,)."""
        total = self.residuals(unknowns, person, firmness).square().sum(-1)
        if self.prior is None or self.squared:
            return total
        return total + firmness * self.weights.prior * self.prior.energy(unknowns["body_pose"]).sum(-1)

    def residuals(self, unknowns: dict[str, Tensor], person: Tensor, firmness: float) -> Tensor:
        """Return what is squared (n, R), all terms but the energy of a prior that has no residuals.

        `firmness` multiplies the priors, and the error that counts as an outlier.
        """
        length = unknowns["body_pose"].shape[1]
        frames, seen = self._frames(unknowns), self.target.of(person).frames()
        points = self.keypoints(frames)
        rows = [
            self._misses(self.project(frames, points, seen) - seen.keypoints, seen, firmness),
            self.upright(axis_angle_to_matrix(frames["global_orient"])),
            self._pose_terms(firmness).residuals(frames["body_pose"]),
            (firmness * self.weights.shape / length) ** 0.5 * self._shape(frames),
        ]
        if self.prior is not None and self.squared:
            rows.append((firmness * self.weights.prior) ** 0.5 * prior_residuals(self.prior, frames["body_pose"]))
        each = torch.cat(rows, dim=-1).unflatten(0, (len(person), length)).flatten(1)
        if length == 1:
            return each
        joints = self.model.joints(**self._arguments(frames)).unflatten(0, (len(person), length))
        return torch.cat((each, self._motion(joints).residuals(joints)), dim=-1)

    def equations(
        self, unknowns: dict[str, Tensor], person: Tensor, firmness: float, bends: Tensor | None
    ) -> NormalEquations | ArrowEquations:
        """Return the normal equations of `residuals`; of a prior, with the curvature `bends` (n, T, D, D)."""
        length = unknowns["body_pose"].shape[1]
        frames, seen = self._frames(unknowns), self.target.of(person).frames()
        wrt = ("global_orient", "body_pose", self.shape_argument)
        moved = self.model.keypoints_jacobian(self.bases, wrt=wrt, **self._arguments(frames))
        projection = ImageProjection.of(frames, seen)
        image, by_point = projection.linearised(moved.points)
        body = [projection.of_points(by_point, moved.blocks[name]) for name in wrt]
        camera = projection.of_camera(by_point, moved.points)
        jacobian = torch.cat((body[0], body[1], camera, body[2]), dim=-1)
        # Where each unknown's columns begin.
        pose, shape = 3, jacobian.shape[-1] - body[2].shape[-1]
        equations = NormalEquations.zeros(image, jacobian.shape[-1])
        off = image - seen.keypoints
        trust = seen.confidence.sqrt().unsqueeze(-1) / self.weights.noise
        slope = trust * softened_slope(off, self.weights.outlier * firmness)
        equations.add((slope * off).flatten(1), (slope.unsqueeze(-1) * jacobian).flatten(1, 2))
        turned = axis_angle_to_matrix(frames["global_orient"])
        equations.add_some(0, self.upright(turned), self.upright_slope(turned))
        self._pose_terms(firmness).add_to(equations, pose, frames["body_pose"])
        weight = (firmness * self.weights.shape / length) ** 0.5
        unit = SEGMENT_SCALE_UNIT if self.shape_argument == "segment_scale" else 1.0
        equations.add_squares(shape, weight * self._shape(frames), weight / unit)
        if self.prior is not None and bends is not None:
            weight = firmness * self.weights.prior
            slope = prior_slope(self.prior, frames["body_pose"])
            equations.add_quadratic(pose, weight * bends.flatten(0, 1), weight * slope)
        if length == 1:
            return equations
        moved = self.model.joints_jacobian(wrt=wrt, **self._arguments(frames))
        still = moved.points.new_zeros(*moved.points.shape, camera.shape[-1])
        columns = torch.cat((moved.blocks[wrt[0]], moved.blocks[wrt[1]], still, moved.blocks[wrt[2]]), dim=-1)
        sizes = [value.shape[2:].numel() for value in unknowns.values()]
        arrow = ArrowEquations.of(equations, len(person), sizes[:-1])
        motion = self._motion(moved.points.unflatten(0, (len(person), length)))
        arrow.add_motion(motion, moved.points, columns)
        return arrow

    def upright(self, turned: Tensor) -> Tensor:
        """Return the residual (n, 1) of the root's rotation (n, 3, 3): its axis out of the image plane."""
        return self.weights.upright**0.5 * turned[..., 2, 1:2]

    def upright_slope(self, turned: Tensor) -> Tensor:
        """Return how that moves as the root turns from the left, (n, 1, 3)."""
        rows = torch.stack((turned[:, 1, 1], -turned[:, 0, 1], torch.zeros_like(turned[:, 0, 1])), dim=-1)
        return self.weights.upright**0.5 * rows.unsqueeze(-2)

    def _arguments(self, unknowns: dict[str, Tensor]) -> dict[str, Any]:
        return {name: unknowns[name] for name in ("global_orient", "body_pose", self.shape_argument)}

    def _frames(self, unknowns: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the unknowns (n T, ...) of each frame, with the shape repeated."""
        batch = unknowns["body_pose"].shape[:2]
        return {name: value.expand(*batch, *value.shape[2:]).flatten(0, 1) for name, value in unknowns.items()}

    def _misses(self, off: Tensor, seen: Target, firmness: float) -> Tensor:
        trust = seen.confidence.sqrt().unsqueeze(-1) / self.weights.noise
        return (trust * softened(off, self.weights.outlier * firmness)).flatten(1)

    def _pose_terms(self, firmness: float) -> PoseTerms:
        pull = 0.0 if self.prior is not None else firmness * self.weights.pose * self.relaxed.stiffness
        held = self.weights.pose > 0 if self.prior is None else len(self.starts) > 1
        caution = CAUTION if held else MORE_CAUTION
        return PoseTerms(self.limits, self.relaxed.body_pose, self.weights.limits, pull, caution)

    def _shape(self, frames: dict[str, Tensor]) -> Tensor:
        shape = frames[self.shape_argument].flatten(1)
        return (shape - 1) / SEGMENT_SCALE_UNIT if self.shape_argument == "segment_scale" else shape

    def _motion(self, joints: Tensor) -> Motion:
        """Return the term of the joints' movement (n, T, J, 3) between frames."""
        scale = 100 * (self.weights.temporal / joints.shape[-2]) ** 0.5
        return Motion((-1.0, 1.0), joints.new_full((joints.shape[0], joints.shape[1] - 1), scale))
