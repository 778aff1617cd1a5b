"""Register bodies to dense image-to-surface correspondences and keypoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..bodymodel import BodyModel, KeypointRegressor, SurfacePoints
from ..bodymodel.limits import LimitBox, default_joint_limits
from ..geometry import gram_schmidt
from .body_unknowns import expect_model
from .correspondences import Correspondences
from .depth_flips import try_depth_flips
from .least_squares import least_squares
from .normal_equations import NormalEquations
from .registration_observations import observe
from .registration_problem import Problem
from .registration_terms import Term, default_terms
from .registration_unknowns import report_solution, resume_unknowns, start_from_rest
from .relaxed import relaxed_pose
from .solution import Solution


class Stage(NamedTuple):
    """Part of a registration.

    Attributes:
        share: of the steps.
        stiffness: from 1, the stiff weights of the terms, to 0, those after the release.
        outlier: error that counts as an outlier, as a share of the person's size.
        tolerance: it has settled when a step lowers the energy by less than this share.
    """

    share: float
    stiffness: float
    outlier: float
    tolerance: float


# Find the view and the rough pose stiffly, release, try mirrored limbs, refine.
STEPS, STEPS_FROM_INIT = 80, 30
STIFF, RELEASE = Stage(0.15, 1.0, 0.5, 1e-2), Stage(0.2, 0.3, 0.15, 3e-3)
FLIP, REFINE = Stage(0.15, 0.0, 0.1, 5e-3), Stage(0.35, 0.0, 0.05, 1e-2)
FLIP_ROUNDS = 2


def register_surface(
    model: BodyModel,
    correspondences: Correspondences,
    *,
    keypoints: Float[Tensor, "*batch K 2"] | None = None,
    confidence: Float[Tensor, "*#batch K"] | None = None,
    keypoint_set: str | None = None,
    depths: Float[Tensor, "*batch K"] | None = None,
    init: Solution | None = None,
    terms: Mapping[str, Term] | None = None,
    regressor: KeypointRegressor | None = None,
    limits: LimitBox | None = None,
    steps: int | None = None,
    callback: Callable[[int, int], None] | None = None,
    throw: bool = False,
) -> Solution:
    """Find shape, pose and camera of people from dense correspondences, with keypoints and their depths if there are.

    A stiff first stage finds the view, starting from the T-pose; then pose and shape are released, mirrored limbs are
    tried, and the rest of the steps refine. A model made by `segment_scale_model` fits segment scales and needs no
    statistics of shape; any other fits betas.

    Args:
        model: any body model with a `body_pose`.
        correspondences: surface points (*B, N), pixels (*B, N, 2) and weights (*B, N). A point of weight 0 has no say.
        keypoints: (*B, K, 2) pixels.
        confidence: (*B, K) from 0 to 1; default: all 1.
        keypoint_set: which points the keypoints are, needed with them (or `regressor`).
        depths: (*B, K) depths of the keypoints along the optical axis, metres, up to a common shift; NaN: unknown.
        init: a previous solution for the same samples to start from.
        terms: of the energy; default: `default_terms()`.
        regressor: makes the keypoints from the body, in place of `KeypointRegressor(keypoint_set, model.data)`.
        limits: of the joints; default: `default_joint_limits`.
        steps: of Levenberg-Marquardt over all stages, the most that are taken; default: 80, or 30 from `init`.
        callback: called after each step with its number, from 1, and the number of steps.
        throw: raise ValueError unless every sample converged.

    Returns:
        A solution whose `params` go straight into the model (betas or segment_scale, global_orient, body_pose, transl,
        axis-angle) and whose `camera` is weak-perspective in pixels; the body is in camera axes and transl is zero.
        `residuals` (*B, N) are the distances of the surface points in pixels, NaN at weight 0. A sample with nothing
        visible, or with NaN or infinity at a visible point, comes back at its start with `Status.INVALID`.

    Raises:
        ValueError: shapes that do not fit, faces out of range, keypoints without a set, confidence or depths without
            keypoints, a model without body_pose.

    Source: Yoshiyasu and Gamez 2019, "Learning Body Shape and Pose from Dense Correspondences", sections 3 and 4; its
    weights are not published, and the robust data terms and the mirrored limbs are ours.

    Example:
        >>> import torch
        >>> from physique.bodymodel import BodyModel, SurfacePoints, open_body
        >>> model = BodyModel(open_body("low"))
        >>> surface = SurfacePoints(torch.arange(0, 3900, 50), torch.full((78, 3), 1 / 3))
        >>> pixels = 100 * model.points(surface)[:, :2] * torch.tensor([1.0, -1.0]) + 112
        >>> seen = Correspondences(surface, pixels, torch.ones(78))
        >>> register_surface(model, seen, steps=60).params["body_pose"].shape
        torch.Size([23, 3])
    """
    expect_model(model, whole=True)
    if keypoints is not None and regressor is None:
        if keypoint_set is None:
            raise ValueError("keypoint_set: expected a name with keypoints, got None; say which points they are")
        regressor = KeypointRegressor(keypoint_set, model.data, dtype=model.dtype, device=model.device)
    for name, value in (("confidence", confidence), ("depths", depths)):
        if keypoints is None and value is not None:
            raise ValueError(f"{name}: expected keypoints beside it, got none; give keypoints= too")
    seen, batch = observe(model, correspondences, keypoints, confidence, depths, regressor)
    joints = next(part.count for part in model.data.table_row.parts if part.name == "body_pose")
    like = model.v_template
    problem = Problem(
        model,
        model.point_bases(SurfacePoints(seen.faces, seen.barycentric)),
        None if keypoints is None or regressor is None else model.keypoint_bases(regressor),
        seen,
        limits or default_joint_limits(joints, dtype=like.dtype, device=like.device),
        relaxed_pose(model.skeleton, joints, like=like),
        dict(default_terms() if terms is None else terms),
    )
    total = (STEPS if init is None else STEPS_FROM_INIT) if steps is None else steps
    if total < 0:
        raise ValueError(f"steps: expected 0 or more, got {total}; pass how many steps to take at most")
    start = start_from_rest(problem) if init is None else resume_unknowns(problem, init, batch)
    solved = _solve(problem, start, total, callback, fresh=init is None)
    solution = report_solution(problem, solved, start, batch)
    return solution.check() if throw else solution


def _solve(
    problem: Problem,
    unknowns: dict[str, Tensor],
    steps: int,
    callback: Callable[[int, int], None] | None,
    *,
    fresh: bool,
) -> Solution:
    """Take all stages, or with `fresh` false only the last."""
    taken, histories = 0, []

    def places(unknowns: dict[str, Tensor]) -> Tensor:
        return torch.arange(len(unknowns["matrix"]), device=problem.model.device)

    def take(stage: Stage, start: dict[str, Tensor], budget: int) -> Solution:
        nonlocal taken
        before = taken

        def report(step: int, _: Tensor) -> None:
            if callback is not None:
                callback(before + step, steps)

        def residuals(params: dict[str, Tensor], place: Tensor) -> Tensor:
            return problem.residuals(params, place, stage.stiffness, stage.outlier)

        def equations(params: dict[str, Tensor], place: Tensor) -> NormalEquations:
            return problem.equations(params, place, stage.stiffness, stage.outlier)

        solved = least_squares(
            residuals,
            start,
            data=places(start),
            rotations=("body_pose",),
            jacobian=equations,
            steps=budget,
            tolerance=stage.tolerance,
            callback=report,
        )
        taken += solved.steps
        histories.append(solved.history[:, : len(problem.seen.valid)])
        return solved

    if not fresh:
        return take(REFINE, unknowns, steps)
    budgets = [round(stage.share * steps) for stage in (STIFF, RELEASE, FLIP)]
    for stage, budget in zip((STIFF, RELEASE), budgets, strict=False):
        unknowns = take(stage, unknowns, budget).params
    for _ in range(FLIP_ROUNDS if budgets[2] else 0):
        shape: dict[str, Any] = {problem.shape_argument: unknowns[problem.shape_argument]}
        unknowns = try_depth_flips(
            unknowns,
            gram_schmidt(unknowns["matrix"]).unsqueeze(1),
            problem.model.joints(**shape).unsqueeze(1),
            problem.model.skeleton,
            lambda start: take(FLIP, start, budgets[2]).params,
            lambda tried: problem.total(tried, places(tried), FLIP.stiffness, FLIP.outlier),
        )
    refined = take(REFINE, unknowns, steps - sum(budgets) - (FLIP_ROUNDS - 1) * budgets[2])
    return refined._replace(steps=taken, history=torch.cat(histories))
