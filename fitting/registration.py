"""Register bodies to dense image-to-surface correspondences and keypoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ..bodymodel import BodyModel, KeypointRegressor
from ..bodymodel.limits import LimitBox, default_joint_limits
from .correspondences import Correspondences
from .minimise import minimise
from .registration_flips import try_depth_flips
from .registration_observations import observe
from .registration_problem import Problem
from .registration_terms import Term, default_terms
from .registration_unknowns import report_solution, resume_unknowns, start_from_rest
from .relaxed import relaxed_pose
from .solution import Solution

# Share of the steps, stiffness, and outlier error (share of the person's size) of each stage: find the view and the
# rough pose stiffly, release, try mirrored limbs, refine.
STIFF, RELEASE, FLIP, REFINE = (0.15, 1.0, 0.5), (0.2, 0.0, 0.15), (0.35, 0.0, 0.1), (0.3, 0.0, 0.05)
TOLERANCE = 2e-3
# Of lr, by unknown.
RATES = {"body_pose": 0.5, "matrix": 0.5, "log_scale": 0.3, "translation": 0.2, "segment_scale": 0.2}


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
    lr: float = 0.1,
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
        steps: of Adam over all stages; default: 300, or 100 from `init`.
        lr: step size of Adam.
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
    if "body_pose" not in model.data.table_row.part_names:
        raise ValueError(f"model: expected a model with body_pose, got {model.data.family}; use a full body")
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
    ids = model.faces[seen.faces].flatten(-2)
    if regressor is not None:
        ids = torch.cat((regressor.vertex_ids.expand(len(ids), -1), ids), dim=-1)
    problem = Problem(
        model,
        model.vertex_bases(ids),
        regressor if keypoints is not None else None,
        seen,
        limits or default_joint_limits(joints, dtype=like.dtype, device=like.device),
        relaxed_pose(model.skeleton, joints, like=like),
        dict(default_terms() if terms is None else terms),
    )
    total = (300 if init is None else 100) if steps is None else steps
    start = start_from_rest(problem) if init is None else resume_unknowns(problem, init, batch)
    solved = _solve(problem, start, total, lr, callback, fresh=init is None)
    solution = report_solution(problem, solved, start, batch)
    return solution.check() if throw else solution


def _solve(
    problem: Problem,
    unknowns: dict[str, Tensor],
    steps: int,
    lr: float,
    callback: Callable[[int, int], None] | None,
    *,
    fresh: bool,
) -> Solution:
    """Take all stages, or with `fresh` false only the last."""
    taken, histories = 0, []

    def stage(start: dict[str, Tensor], stiffness: float, outlier: float, budget: int) -> Solution:
        nonlocal taken
        before = taken

        def report(step: int, _: Tensor) -> None:
            if callback is not None:
                callback(before + step, steps)

        rates = {name: lr * RATES.get(name, 1.0) for name in start}
        solved = minimise(
            lambda p: problem.energy(p, stiffness, outlier),
            start,
            steps=budget,
            lr=rates,
            schedule=_fade,
            tolerance=TOLERANCE,
            callback=report,
        )
        taken += solved.steps
        histories.append(solved.history if solved.loss.dim() == 1 else solved.history[:, 0])
        return solved

    if not fresh:
        return stage(unknowns, REFINE[1], REFINE[2], steps)
    for share, stiffness, outlier in (STIFF, RELEASE):
        unknowns = stage(unknowns, stiffness, outlier, round(share * steps)).params
    budget = round(FLIP[0] * steps)
    unknowns = try_depth_flips(problem, unknowns, FLIP[2], lambda start: stage(start, FLIP[1], FLIP[2], budget))
    refined = stage(
        unknowns, REFINE[1], REFINE[2], steps - round(STIFF[0] * steps) - round(RELEASE[0] * steps) - budget
    )
    return refined._replace(steps=taken, history=torch.cat(histories))


def _fade(progress: float) -> float:
    """Return the factor on the step size: constant for half of a stage, then down to a tenth."""
    return 1.0 if progress < 0.5 else 0.55 + 0.45 * math.cos(2 * math.pi * (progress - 0.5))
