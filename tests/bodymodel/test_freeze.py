"""A frozen model is the model with the frozen arguments given, and takes them no more."""

import copy

import pytest
import torch
from body_arguments import random_arguments
from physique.bodymodel import (
    BodyModel,
    KeypointRegressor,
    SurfacePoints,
    open_body,
    segment_scale_model,
    synthetic_model,
)
from physique.fitting import fit_joints, fit_vertices
from physique.geometry import axis_angle_to_matrix
from refusals import refuses

F64 = torch.float64
FROZEN = {
    "smpl": ("betas",),
    "smplh": ("left_hand_pose", "right_hand_pose"),
    "smplx": ("betas", "expression", "jaw_pose", "leye_pose", "reye_pose", "left_hand_pose", "right_hand_pose"),
    "mano": ("hand_pose",),
    "flame": ("jaw_pose", "expression"),
    "star": ("betas", "body_pose"),
    "scales": ("segment_scale", "global_orient"),
}


def make(name):
    data = segment_scale_model(synthetic_model("smpl", num_vertices=40)) if name == "scales" else None
    return BodyModel(data or synthetic_model(name, num_vertices=40), dtype=F64)


@pytest.mark.parametrize("name", FROZEN)
def test_it_is_the_model_with_these_arguments_given(name):
    model = make(name)
    fixed = {n: v for n, v in random_arguments(model.data).items() if n in FROZEN[name]}
    moving = {n: v.requires_grad_() for n, v in random_arguments(model.data, 3, seed=1).items() if n not in fixed}
    frozen = model.freeze(**fixed)
    expected, found = model(**fixed, **moving), frozen(**moving)
    torch.testing.assert_close(found.vertices, expected.vertices, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.joints, expected.joints, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.joint_rotations, expected.joint_rotations, rtol=0, atol=1e-12)
    torch.testing.assert_close(frozen.joints(**moving), expected.joints, rtol=0, atol=1e-12)
    slopes = [
        torch.autograd.grad(out.vertices.square().sum(), list(moving.values()), allow_unused=True)
        for out in (expected, found)
    ]
    torch.testing.assert_close(slopes[1], slopes[0])
    assert frozen.arguments == model.arguments - set(fixed)


def test_every_shortcut_knows_what_is_frozen():
    model = make("smplx")
    fixed = {n: v for n, v in random_arguments(model.data).items() if n in FROZEN["smplx"]}
    moving = {n: v for n, v in random_arguments(model.data, 3, seed=1).items() if n not in fixed}
    frozen, ids = model.freeze(**fixed), torch.tensor([3, 8])
    surface = SurfacePoints(torch.tensor([1, 5]), torch.full((2, 3), 1 / 3, dtype=F64))
    regressor = KeypointRegressor("coco17", model.data, dtype=F64)
    pairs = [
        (frozen.points(surface, **moving), model.points(surface, **fixed, **moving)),
        (frozen.keypoints(regressor, **moving), model.keypoints(regressor, **fixed, **moving)),
        (frozen.select_vertices(ids)(**moving).vertices, model(**fixed, **moving).vertices[:, ids]),
        (copy.deepcopy(frozen)(**moving).vertices, model(**fixed, **moving).vertices),
    ]
    jacobian, full = frozen.points_jacobian(surface, **moving), model.points_jacobian(surface, **fixed, **moving)
    assert set(jacobian.blocks) == set(moving)
    pairs += [(jacobian.blocks[name], full.blocks[name]) for name in moving]
    written = {n: axis_angle_to_matrix(v) if n in model.data.table_row.part_names else v for n, v in moving.items()}
    pairs.append((frozen(**written, rotation="matrix").vertices, model(**fixed, **moving).vertices))
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


def test_freezing_twice_is_freezing_both():
    model = make("smplx")
    everything = random_arguments(model.data, transl=False)
    betas, rest = {"betas": everything.pop("betas")}, everything
    at_once, twice = model.freeze(**betas, **rest), model.freeze(**rest).freeze(**betas)
    torch.testing.assert_close(twice().vertices, at_once().vertices, rtol=0, atol=1e-12)
    torch.testing.assert_close(at_once().vertices, model(**betas, **rest).vertices, rtol=0, atol=1e-12)
    assert at_once.arguments == {"transl", "rotation"}


def test_what_is_frozen_costs_no_product():
    frozen = make("smplx").freeze(
        left_hand_pose=torch.zeros(15, 3, dtype=F64), right_hand_pose=torch.zeros(15, 3, dtype=F64)
    )
    assert len(frozen.get_buffer("_directions")) == 24 * 9 + frozen.data.shapedirs.shape[2]


def test_fits_leave_frozen_arguments_alone():
    model = BodyModel(open_body("low"), dtype=F64)
    betas = torch.full((model.data.num_betas,), 0.5, dtype=F64)
    pose = 0.2 * torch.randn(2, 23, 3, dtype=F64)
    frozen = model.freeze(betas=betas)
    solution = fit_joints(frozen, model.joints(betas=betas, body_pose=pose))
    assert set(solution.params) == {"global_orient", "body_pose", "transl"}
    assert solution.residuals.mean() < 0.005
    hands = BodyModel(synthetic_model("smplh", num_vertices=60), dtype=F64)
    fixed = {f"{side}_hand_pose": 0.1 * torch.randn(15, 3, dtype=F64) for side in ("left", "right")}
    target = hands(**fixed, body_pose=0.1 * torch.randn(21, 3, dtype=F64))
    frozen = hands.freeze(**fixed)
    for solution in (fit_joints(frozen, target.joints), fit_vertices(frozen, target.vertices)):
        assert not {"left_hand_pose", "right_hand_pose"} & set(solution.params)
        torch.testing.assert_close(frozen.joints(**solution.params), target.joints, rtol=0, atol=5e-3)


def test_what_is_frozen_is_not_taken_and_batches_are_refused():
    model = make("smplx")
    with refuses("betas"):
        model.freeze(betas=torch.zeros(10, dtype=F64))(betas=torch.zeros(10, dtype=F64))
    with refuses("jaw_pose"):
        model.freeze(jaw_pose=torch.zeros(3, dtype=F64))(jaw_pose=torch.zeros(3, dtype=F64))
    with refuses("betas"):
        model.freeze(betas=torch.zeros(2, 10, dtype=F64))
    with refuses("transl"):
        model.freeze(transl=torch.zeros(3, dtype=F64))
