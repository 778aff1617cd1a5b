"""The body model equals the equations, and smplx, in every family; its stages and paths agree with each other."""

import pickle

import numpy as np
import pytest
import torch
from body_arguments import FAMILY_NAMES, axis_angles, coefficients, random_arguments, sample, to
from official_files import OFFICIAL_KINDS, write_official_file
from oracles import body as oracle
from oracles.smplx_models import FAMILIES as SMPLX_FAMILIES
from oracles.smplx_models import smplx_arguments, smplx_model
from physique.bodymodel import (
    BodyModel,
    KeypointRegressor,
    RestBody,
    SurfacePoints,
    load_body_model,
    open_body,
    segment_scale_model,
    synthetic_model,
)
from physique.geometry import matrix_to_quaternion_wxyz, matrix_to_rotation_6d, to_matrix

VERTICES = 60
FILES = [(family, kind) for family, kinds in OFFICIAL_KINDS.items() for kind in kinds]


def float64_model(family, **sizes):
    return BodyModel(synthetic_model(family, num_vertices=VERTICES, **sizes), dtype=torch.float64)


def assert_equals_oracle(model, arguments, tolerance=1e-10):
    vertices, joints, world, rest_vertices, rest_joints = oracle.body(
        model.data, coefficients(arguments, model.data), axis_angles(arguments, model.data), arguments["transl"].numpy()
    )
    out = model(**arguments)
    pairs = (
        (out.vertices, vertices),
        (out.joints, joints),
        (out.joint_rotations, world),
        (out.rest.vertices, rest_vertices),
        (out.rest.joints, rest_joints),
    )
    for ours, expected in pairs:
        np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family, kind", FILES)
def test_a_body_from_a_file_is_the_oracles(family, kind, tmp_path):
    data = load_body_model(write_official_file(tmp_path, family, kind))
    model = BodyModel(data, dtype=torch.float64)
    for seed, angle in enumerate((0.0, 1e-8, 0.5, 2.0)):
        assert_equals_oracle(model, random_arguments(data, seed=seed, angle=angle))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_synthetic_body_is_the_oracles(family):
    model = float64_model(family)
    for seed in range(3):
        assert_equals_oracle(model, random_arguments(model.data, seed=seed, angle=1.0))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_body_without_pose_correctives_is_the_oracles(family):
    model = float64_model(family, pose_correctives=False)
    assert_equals_oracle(model, random_arguments(model.data))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("angle", (np.pi, -np.pi, np.pi - 1e-8, 1e-8, -1e-8, 2 * np.pi, 7.0))
def test_turns_about_an_axis_are_the_oracles_at_every_angle(angle, axis):
    for family in ("smpl", "star"):
        model = float64_model(family)
        arguments = random_arguments(model.data, angle=0)
        arguments["body_pose"][:, axis] = angle
        arguments["global_orient"][axis] = angle
        assert_equals_oracle(model, arguments)


@pytest.mark.parametrize("family", SMPLX_FAMILIES)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-6), (torch.float32, 5e-6)], ids=("double", "single"))
def test_a_body_from_every_layout_is_that_of_smplx(family, dtype, tolerance, tmp_path):
    peer = smplx_model(family, tmp_path)
    for kind in OFFICIAL_KINDS[family]:
        data = load_body_model(write_official_file(tmp_path, family, kind))
        arguments = random_arguments(data, 4, angle=1.0)
        expected = peer(**smplx_arguments(arguments))
        out = BodyModel(data, dtype=dtype)(**to(arguments, dtype))
        torch.testing.assert_close(out.vertices.double(), expected.vertices, rtol=0, atol=tolerance)
        torch.testing.assert_close(out.joints.double(), expected.joints[:, : data.num_joints], rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", SMPLX_FAMILIES)
def test_gradients_are_those_of_smplx(family, tmp_path):
    data = load_body_model(write_official_file(tmp_path, family, OFFICIAL_KINDS[family][0]))
    arguments = {name: value.requires_grad_() for name, value in random_arguments(data, 2).items()}
    model, peer = BodyModel(data, dtype=torch.float64), smplx_model(family, tmp_path)
    upstream = torch.randn(2, VERTICES, 3, dtype=torch.float64)
    ours = torch.autograd.grad(model(**arguments).vertices, list(arguments.values()), upstream)
    theirs = torch.autograd.grad(peer(**smplx_arguments(arguments)).vertices, list(arguments.values()), upstream)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_two_stages_are_the_whole(family):
    model = float64_model(family)
    arguments = random_arguments(model.data, 3)
    shape = {name: value for name, value in arguments.items() if name in ("betas", "expression")}
    pose = {name: value for name, value in arguments.items() if name not in shape}
    rest, whole = model.rest(**shape), model(**arguments)
    if family == "star":  # betas[1] also drives a corrective, which belongs to the rest body
        assert (rest.vertices - model.rest().vertices).abs().max() > 0
    for staged, direct in zip(model.pose(rest, **pose)[:3], whole[:3], strict=True):
        torch.testing.assert_close(staged, direct, rtol=0, atol=1e-12)
    torch.testing.assert_close(whole.rest.vertices, rest.vertices, rtol=0, atol=0)
    torch.testing.assert_close(whole.rest.joints, rest.joints, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_joints_are_those_of_the_whole_body(family):
    model = float64_model(family)
    arguments = random_arguments(model.data, 2, 3)
    torch.testing.assert_close(model.joints(**arguments), model(**arguments).joints, rtol=0, atol=1e-12)


def test_joints_never_touch_a_vertex():
    model = float64_model("smplx")
    arguments = random_arguments(model.data, 2)
    expected = model.joints(**arguments)
    for buffer in (model.v_template, model.lbs_weights, model._weights, model._template, model._directions):
        buffer.fill_(torch.nan)
    assert model(**arguments).vertices.isnan().all()
    assert torch.equal(model.joints(**arguments), expected)


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("sets", [(), (3,), (2, 3)], ids=str)
def test_points_are_weighted_means_of_the_vertices(family, sets):
    model = float64_model(family)
    arguments = random_arguments(model.data, 2, 3)
    faces = torch.randint(len(model.faces), (*sets, 5))
    weights = torch.rand(*sets, 5, 3, dtype=torch.float64)
    weights = weights / weights.sum(-1, keepdim=True)
    corners = model.faces[faces].expand(2, 3, 5, 3)
    vertices = model(**arguments).vertices
    expected = torch.zeros(2, 3, 5, 3, dtype=torch.float64)
    for i, j, n in np.ndindex(2, 3, 5):
        weight = weights.expand(2, 3, 5, 3)[i, j, n]
        expected[i, j, n] = sum(weight[k] * vertices[i, j, corners[i, j, n, k]] for k in range(3))
    points = model.points(SurfacePoints(faces, weights), **arguments)
    torch.testing.assert_close(points, expected, rtol=0, atol=1e-12)


def test_point_sets_broadcast_against_a_single_body():
    model = float64_model("smpl")
    arguments = random_arguments(model.data)
    faces, weights = torch.randint(len(model.faces), (4, 5)), torch.full((4, 5, 3), 1 / 3, dtype=torch.float64)
    expected = model(**arguments).vertices[model.faces[faces]].mean(-2)
    torch.testing.assert_close(model.points(SurfacePoints(faces, weights), **arguments), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_selected_vertices_are_those_of_the_whole_body(family):
    model = float64_model(family)
    arguments = random_arguments(model.data, 2)
    ids = torch.tensor([7, 3, 3, 50, 0])
    whole, part = model(**arguments), model.select_vertices(ids)(**arguments)
    torch.testing.assert_close(part.vertices, whole.vertices[:, ids], rtol=0, atol=1e-12)
    torch.testing.assert_close(part.joints, whole.joints, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ("openpose25", "coco17", "smpl24"))
def test_keypoints_are_those_of_the_full_mesh(name):
    data = open_body("low")
    model = BodyModel(data, dtype=torch.float64)
    regressor = KeypointRegressor(name, data, dtype=torch.float64)
    arguments = random_arguments(data, 2)
    whole = model(**arguments)
    expected = regressor(whole.joints, whole.vertices[:, regressor.vertex_ids])
    torch.testing.assert_close(model.keypoints(regressor, **arguments), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("rotation", ("matrix", "rotation_6d", "quaternion_wxyz"))
def test_every_rotation_format_gives_the_same_body(family, rotation):
    model = float64_model(family)
    # Up to half a turn: beyond it STAR's feature follows the vector, which other formats do not carry.
    arguments = random_arguments(model.data, 2, angle=0.3)
    convert = {
        "matrix": lambda matrix: matrix,
        "rotation_6d": matrix_to_rotation_6d,
        "quaternion_wxyz": matrix_to_quaternion_wxyz,
    }
    parts = set(model.data.table_row.part_names)
    written = {
        name: convert[rotation](to_matrix(value, "axis_angle")) if name in parts else value
        for name, value in arguments.items()
    }
    for ours, expected in zip(model(**written, rotation=rotation)[:3], model(**arguments)[:3], strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_arguments_left_out_are_zero(family):
    model = float64_model(family)
    arguments = random_arguments(model.data, 2)
    for name in arguments:
        left_out = {other: value for other, value in arguments.items() if other != name}
        zero = arguments | {name: torch.zeros_like(arguments[name])}
        for mine, other in zip(model(**left_out)[:3], model(**zero)[:3], strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)
        none = model(**arguments | {name: None})
        torch.testing.assert_close(none.vertices, model(**left_out).vertices, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_without_arguments_it_is_the_template(family):
    model = float64_model(family)
    out = model()
    torch.testing.assert_close(out.vertices, model.v_template, rtol=0, atol=1e-12)
    np.testing.assert_allclose(out.joints.numpy(), model.data.J_template, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_fewer_coefficients_are_the_first_ones(family):
    model = float64_model(family)
    arguments = random_arguments(model.data, 2)
    for name, count in model.data.coefficients:
        for kept in (0, 1, count - 1):
            some = arguments[name][:, :kept]
            padded = torch.cat((some, torch.zeros(2, count - kept, dtype=torch.float64)), dim=1)
            few, many = model(**arguments | {name: some}), model(**arguments | {name: padded})
            torch.testing.assert_close(few.vertices, many.vertices, rtol=0, atol=1e-12)


def test_samples_of_a_batch_do_not_touch_each_other():
    model = float64_model("smplx")
    arguments = random_arguments(model.data, 4)
    whole = model(**arguments)
    arguments["body_pose"][2] = torch.nan
    spoilt = model(**arguments)
    for index in (0, 1, 3):
        torch.testing.assert_close(spoilt.vertices[index], whole.vertices[index], rtol=0, atol=0)
        alone = model(**sample(arguments, index))
        torch.testing.assert_close(alone.joints, whole.joints[index], rtol=0, atol=1e-12)


def test_the_built_in_body_is_the_oracles():
    data = open_body("low")
    some = BodyModel(data, dtype=torch.float64).select_vertices(torch.arange(0, data.num_vertices, 40))
    assert_equals_oracle(some, random_arguments(data))


@pytest.mark.parametrize("per_axis", (False, True))
def test_a_segment_scale_body_is_the_oracles(per_axis):
    model = BodyModel(
        segment_scale_model(synthetic_model(num_vertices=VERTICES), per_axis=per_axis), dtype=torch.float64
    )
    arguments = random_arguments(model.data)
    if per_axis:
        arguments["segment_scale"] = arguments["segment_scale"].unflatten(-1, (24, 3))
    assert_equals_oracle(model, arguments)


def test_the_rest_body_is_that_of_the_call_whenever_it_is_looked_at():
    model = BodyModel(synthetic_model("smpl", num_vertices=70))
    betas = torch.randn(2, 10)
    expected = model.rest(betas=betas.clone())
    out = model(betas=betas)
    betas.zero_()
    assert isinstance(out.rest, RestBody) and len(out.rest) == 2
    vertices, joints = out.rest
    assert torch.equal(vertices, expected.vertices) and torch.equal(joints, expected.joints)
    assert out.rest.vertices is vertices and out.rest[1] is joints
    assert torch.equal(out.rest._replace(joints=joints + 1).joints, joints + 1)
    assert "vertices=tensor" in repr(out)
    loaded = pickle.loads(pickle.dumps(out.rest))
    assert type(loaded) is RestBody and torch.equal(loaded.vertices, vertices)
    doubled = torch.utils._pytree.tree_map(lambda value: 2 * value, out)
    assert torch.equal(doubled.rest.vertices, 2 * vertices)
    with torch.no_grad():
        still = model(betas=betas)
    free = model(betas=betas.requires_grad_())
    assert not still.rest.vertices.requires_grad
    with torch.no_grad():
        assert free.rest.vertices.requires_grad
    free.rest.vertices.sum().backward()
    assert betas.grad.abs().sum() > 0
    moved = model(betas=betas)
    model.double()
    assert moved.rest.vertices.dtype == torch.float32
