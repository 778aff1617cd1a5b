"""Register a body to dense image-to-surface correspondences and keypoints, from the T-pose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..bodymodel import BodyModel, KeypointRegressor
from ..bodymodel.limits import LimitBox, default_joint_limits
from ..cameras import WeakPerspectiveCamera
from ..geometry import axis_angle_to_matrix, gram_schmidt, matrix_to_axis_angle
from ..geometry.checks import expect_shape
from .correspondences import Correspondences
from .minimise import minimise
from .registration_terms import Registration, Term, default_terms
from .relaxed import relaxed_pose
from .solution import Solution, Status

STIFF_SHARE = 0.25
"""Share of the steps that the stiff stage takes; none from a previous solution."""
SETTLED = 2e-3
"""A registration has settled when its energy falls by less than this in 25 steps."""
LEARNING_RATES = {"log_scale": 0.03, "translation": 0.02, "matrix": 0.05, "segment_scale": 0.02}
TORSO = ("pelvis", "spine1", "spine2", "spine3", "left_collar", "right_collar")
REWEIGHTINGS = 5


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
    limits: LimitBox | None = None,
    steps: int = 300,
    lr: float = 0.1,
    callback: Callable[[int, int], None] | None = None,
    throw: bool = False,
) -> Solution:
    """TODO."""
    batch = expect_shape("correspondences.pixels", correspondences.pixels, "N", 2)
    count = correspondences.pixels.shape[-2]
    like = model.v_template
    flat = batch.numel()
    faces = correspondences.surface.faces.expand(*batch, count).reshape(flat, count)
    barycentric = correspondences.surface.barycentric.expand(*batch, count, 3).reshape(flat, count, 3).to(like)
    pixels = correspondences.pixels.reshape(flat, count, 2).to(like)
    weight = correspondences.weight.expand(*batch, count).reshape(flat, count).to(like)
    regressor = None
    ids = model.faces[faces].flatten(-2)
    K = 0
    kp = like.new_zeros(flat, 0, 2)
    conf = like.new_zeros(flat, 0)
    if keypoints is not None:
        regressor = KeypointRegressor(keypoint_set, model.data, dtype=model.dtype, device=model.device)
        K = len(regressor.names)
        kp = keypoints.reshape(flat, K, 2).to(like)
        conf = confidence.expand(*batch, K).reshape(flat, K).to(like) * regressor.valid
        ids = torch.cat((regressor.vertex_ids.expand(flat, -1), ids), -1)
    n = ids.shape[-1] - 3 * count
    allp = torch.cat((pixels, kp), -2)
    allw = torch.cat((weight, conf), -1)
    middle = torch.stack([p[w > 0].median(0).values for p, w in zip(allp, allw)])
    size = torch.stack([4 * (p[w > 0] - m).norm(dim=-1).median() for p, w, m in zip(allp, allw, middle)])
    norm = lambda x: (x - middle.unsqueeze(-2)) / size[:, None, None]
    pix, kpn = norm(pixels), norm(kp)
    joints = next(part.count for part in model.data.table_row.parts if part.name == "body_pose")
    scales = bool(model.data.count("segment_scale"))
    name = "segment_scale" if scales else "betas"
    ncoef = model.data.count(name)
    relaxed = relaxed_pose(model.skeleton, joints, like=like)
    limits = limits or default_joint_limits(joints, dtype=like.dtype, device=like.device)
    terms = dict(default_terms() if terms is None else terms)

    def body(p: dict[str, Tensor], outlier: float) -> Registration:
        turn = gram_schmidt(p["matrix"])
        v, j = model.vertices_and_joints(
            ids, global_orient=turn, body_pose=axis_angle_to_matrix(p["body_pose"]), rotation="matrix", **{name: p[name]}
        )
        points = (v[:, n:].unflatten(-2, (-1, 3)) * barycentric.unsqueeze(-1)).sum(-2)
        k3 = regressor(j, v[:, :n]) if regressor is not None else v[:, :0]
        project = lambda x: p["log_scale"].exp()[:, None, None] * x[..., :2] + p["translation"].unsqueeze(-2)
        return Registration(
            j, points, project(points), pix, weight, k3, project(k3), kpn, conf, depths, p["body_pose"], p["matrix"],
            p[name], model.skeleton, limits, relaxed, scales, outlier,
        )

    def energy(stiff: float, outlier: float):
        def loss(p):
            state = body(p, outlier)
            return sum(t.stiff**stiff * t.weight**(1-stiff) * t.value(state) for t in terms.values())
        return loss

    rest = model.points(type(correspondences.surface)(faces, barycentric))
    owner = model.lbs_weights[model.faces[faces][..., 0]].argmax(-1)
    torso = torch.tensor([float(x in TORSO) for x in model.skeleton.names])[owner]
    A, shift = _affine(rest, pix, weight * (0.02 + torso))
    R, s = _orthographic(A)
    p0 = {
        "matrix": R,
        "log_scale": s.log(),
        "translation": shift,
        "body_pose": like.new_zeros(flat, joints, 3),
        name: like.new_ones(flat, ncoef) if scales else like.new_zeros(flat, ncoef),
    }
    root = model.joints()[0]
    p0["translation"] = shift + s[:, None] * ((R @ root)[:, :2] - root[:2])
    rates = {k: LEARNING_RATES.get(k, lr) for k in p0}
    rates["body_pose"] = lr / 2
    fade = lambda t: 1.0 if t < 0.5 else 0.55 + 0.45 * __import__("math").cos(6.2831853 * (t - 0.5))
    import os
    plan = eval(os.environ.get("PLAN", "[(1.0,4.0,.25),(0.5,2.0,.25),(0.0,1.0,.5)]"))
    cur = p0
    hist = 0
    for stiff, out, share in plan:
        b = minimise(energy(stiff, out*float(os.environ.get("OUT",".05"))), cur, steps=round(share * steps), lr=rates, tolerance=SETTLED, schedule=fade)
        cur = b.params
        hist += b.steps
    a = b._replace(steps=hist - b.steps)
    q = b.params
    register_surface.debug = (lambda pp, cam_s, cam_t, R: energy(0.0, plan[-1][1]*float(os.environ.get("OUT",".05")))({"matrix": R, "log_scale": (cam_s/size).log(), "translation": (cam_t-middle)/size[:,None], "body_pose": pp["body_pose"], name: pp[name]}), b.loss, lambda pp, cam_s, cam_t, R: {k: t.weight*t.value(body({"matrix": R, "log_scale": (cam_s/size).log(), "translation": (cam_t-middle)/size[:,None], "body_pose": pp["body_pose"], name: pp[name]}, .05)) for k,t in terms.items()})
    sc = q["log_scale"].exp() * size
    tr = q["translation"] * size[:, None] + middle
    params = {
        name: q[name],
        "global_orient": matrix_to_axis_angle(gram_schmidt(q["matrix"])),
        "body_pose": q["body_pose"],
        "transl": torch.zeros_like(q["translation"][:, :1]).expand(-1, 3),
    }
    return Solution(params, b.loss, a.steps + b.steps, b.status, b.history, WeakPerspectiveCamera(sc, tr))


def _affine(points: Tensor, pixels: Tensor, weight: Tensor):
    w = weight
    for _ in range(REWEIGHTINGS):
        h = torch.cat((points, torch.ones_like(points[..., :1])), -1)
        hw = h * w.unsqueeze(-1)
        M = hw.mT @ h + 1e-4 * w.sum(-1)[:, None, None] * torch.diag(h.new_tensor([1, 1, 1, 0.0]))
        sol = torch.linalg.solve(M, hw.mT @ pixels)
        r2 = (h @ sol - pixels).square().sum(-1)
        w = weight / (1 + r2 / 0.05**2).square()
    return sol[:, :3].mT, sol[:, 3]


def _orthographic(A: Tensor):
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    two = U @ Vh
    third = torch.linalg.cross(two[:, 0], two[:, 1])
    return torch.cat((two, third.unsqueeze(-2)), -2), S.mean(-1)
