"""Fit bodies to 2D keypoints: what is given is read, the stages are taken, and what was found is reported."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from ..bodymodel import BodyModel, KeypointRegressor
from ..bodymodel.limits import LimitBox, default_joint_limits
from ..cameras import PerspectiveCamera
from ..geometry.checks import expect_shape
from .body_unknowns import expect_model
from .keypoint_energy import KeypointEnergy, KeypointWeights
from .keypoint_search import Search
from .keypoint_target import camera_of_frames, keypoint_target, without_place
from .keypoint_unknowns import report_solution, resume_unknowns
from .pose_priors import PosePrior, starting_poses
from .relaxed import relaxed_pose
from .solution import Solution


def fit_keypoints(
    model: BodyModel,
    keypoints: Float[Tensor, "*batch K 2"],
    confidence: Float[Tensor, "*#batch K"],
    *,
    keypoint_set: str = "openpose25",
    camera: PerspectiveCamera | None = None,
    init: Solution | None = None,
    sequence: bool = False,
    regressor: KeypointRegressor | None = None,
    limits: LimitBox | None = None,
    weights: KeypointWeights | None = None,
    prior: PosePrior | None = None,
    starts: Float[Tensor, "M n 3"] | None = None,
    steps: int | None = None,
    callback: Callable[[int, int], None] | None = None,
    throw: bool = False,
) -> Solution:
    """Find pose, shape and camera of people from the keypoints of one image each, or of a sequence.

    Each sample is a person; a batch is fitted at once, and no sample influences another. The root is started from four
    facings and the best is kept; joint limits and a weak pull to a relaxed pose decide what two dimensions leave open.
    Depth along the optical axis stays a guess, above all for limbs that the image foreshortens. A prior guesses better:
    its energy takes the place of the weak pull, and the fit starts from poses that it knows.

    Args:
        model: any body model with a `body_pose`: SMPL, SMPL-H, SMPL-X, STAR, the built-in body. Made with
            `segment_scale_model`, it fits segment scales instead of betas.
        keypoints: (*B, K, 2) pixels, x right, y down. Missing ones may hold anything.
        confidence: (*B, K) from 0, missing, to 1; larger counts as 1.
        keypoint_set: which points these are, see `KEYPOINT_SETS`.
        camera: a known camera, whose batch broadcasts to *B; default: a weak-perspective camera is found too.
        init: a previous solution to start from in place of a search, of the same samples or of one frame of them: its
            batch broadcasts. See "Streams" in docs/solvers.md.
        sequence: the last batch dimension is time, *B = (*S, T): betas are shared by the frames, motion is smoothed.
        regressor: makes the keypoints from the body, in place of `KeypointRegressor(keypoint_set, model.data)`.
        limits: of the joints; default: `default_joint_limits`.
        weights: of the energy's terms; default: `KeypointWeights()`.
        prior: on poses, of the model's type and on its device: any object with `energy(body_pose)`, one number a pose.
            With `residuals(body_pose)` too, whose squares are the energy, it is solved for by least squares.
        starts: (M, n, 3) body poses to start from, each in four facings; 32 are followed, then 8, then 4, those that
            fit best. Default: `prior.start_poses` if it has any, else the relaxed pose.
        steps: of Levenberg-Marquardt, over all stages, the most that are taken; default: 60. With a prior that has no
            `residuals`, of Adam; default: 300.
        callback: called after each step with its number, from 1, and the number of steps.
        throw: raise ValueError unless every sample converged.

    Returns:
        A solution whose `params` go straight into the model: betas or segment_scale, global_orient, body_pose, transl,
        axis-angle, each with batch *B. `camera` is the weak-perspective camera found, in pixels (transl is then zero
        and global_orient turns the body into camera axes, near half a turn about x), or the one given (the body is
        then in world axes). `residuals` (*B, K) are distances in pixels, NaN where a keypoint is missing. `history`
        holds the energies of all stages in turn, each with terms and weights of its own. A sample
        with NaN or infinity at a visible keypoint, or with fewer than two distinct visible points, comes back at its
        start with `Status.INVALID`.

    Raises:
        TypeError: a prior without `energy`.
        ValueError: shapes that do not fit, an unknown keypoint set, a model without body_pose, a prior of another type.

    Source: the stages follow SMPLify (Bogo et al. 2016), with weak perspective as in HMR (Kanazawa et al. 2018).

    Example:
        >>> import torch
        >>> from physique.bodymodel import BodyModel, KeypointRegressor, open_body
        >>> model = BodyModel(open_body("low"))
        >>> posed = model.keypoints(KeypointRegressor("coco17", model.data))
        >>> pixels = 100 * posed[..., :2] * torch.tensor([1.0, -1.0]) + 112
        >>> solution = fit_keypoints(model, pixels, torch.ones(17), keypoint_set="coco17", steps=60)
        >>> model(**solution.params).joints.shape
        torch.Size([24, 3])
    """
    expect_model(model, whole=True)
    regressor = regressor or KeypointRegressor(keypoint_set, model.data, dtype=model.dtype, device=model.device)
    count = len(regressor.names)
    batch = expect_shape("keypoints", keypoints, count, 2, advice=f"{regressor.name} has {count} keypoints")
    expect_shape("confidence", confidence, count)
    if sequence and not batch:
        raise ValueError("keypoints: expected (*batch, T, K, 2) with sequence=True, got no time dimension; add one")
    frames = (batch[:-1].numel(), batch[-1]) if sequence else (batch.numel(), 1)
    like = model.v_template
    known = None if camera is None else camera_of_frames(camera, batch, frames, like)
    target = keypoint_target(
        keypoints.detach().to(like).reshape(*frames, count, 2),
        confidence.detach().to(like).expand(*batch, count).reshape(*frames, count),
        regressor.valid.to(like.device),
        None if known is None else without_place(known),
    )
    joints = next(part.count for part in model.data.table_row.parts if part.name == "body_pose")
    relaxed = relaxed_pose(model.skeleton, joints, like=like)
    energy = KeypointEnergy(
        model,
        model.keypoint_bases(regressor),
        regressor.names,
        target,
        limits or default_joint_limits(joints, dtype=like.dtype, device=like.device),
        relaxed,
        weights or KeypointWeights(),
        starting_poses(prior, starts, relaxed.body_pose),
        prior,
    )
    search = Search(energy, steps, callback)
    if init is None:
        solved = search.from_scratch()
    else:
        solved = search.resumed(resume_unknowns(energy, init, known, batch))
    solution = report_solution(energy, solved, batch, camera, known)
    return solution.check() if throw else solution
