"""Derivatives in closed form equal those by forward differentiation, for every family and argument."""

import pytest
import torch
from physique.bodymodel import (
    BodyModel,
    KeypointRegressor,
    SurfacePoints,
    segment_scale_model,
    synthetic_model,
)
from physique.geometry import axis_angle_to_matrix, matrix_to_rotation_6d

F64 = torch.float64
FAMILIES = ("smpl", "smplh", "smplx", "mano", "flame", "star")
MODELS = {
    **{family: lambda family=family: synthetic_model(family) for family in FAMILIES},
    "scales": lambda: segment_scale_model(synthetic_model("smpl")),
    "scales_per_axis": lambda: segment_scale_model(synthetic_model("smpl"), per_axis=True),
}


def make(name, batch=(2,)):
    """Return a model in float64 and random values for all of its arguments."""
    data = MODELS[name]()
    arguments = {}
    for argument, count in data.coefficients:
        if argument == "segment_scale":
            joints = data.num_joints
            shape = (joints,) if count == joints else (joints, 3)
            arguments[argument] = 1 + 0.1 * torch.randn(*batch, *shape, dtype=F64)
        else:
            arguments[argument] = torch.randn(*batch, min(count, 5), dtype=F64)
    for part in data.table_row.parts:
        arguments[part.name] = 0.6 * torch.randn(*batch, *(() if part.single else (part.count,)), 3, dtype=F64)
    arguments["transl"] = torch.randn(*batch, 3, dtype=F64)
    return BodyModel(data, dtype=F64), arguments


def differentiated(function, model, arguments, batch):
    """Return points and their derivatives by left turns and shifts, by forward differentiation."""
    names = model.data.table_row.part_names
    local = {name: axis_angle_to_matrix(value) for name, value in arguments.items() if name in names}

    def moved(steps):
        changed = {
            name: axis_angle_to_matrix(step) @ local[name] if name in local else arguments[name] + step
            for name, step in steps.items()
        }
        return function(**changed, rotation="matrix")

    zero = {name: torch.zeros(value.shape[len(batch) :], dtype=F64) for name, value in arguments.items()}
    jacobian = torch.func.jacfwd(moved)(zero)
    return moved(zero), {name: block.flatten(len(batch) + 2) for name, block in jacobian.items()}


def assert_equal(result, expected):
    points, blocks = expected
    torch.testing.assert_close(result.points, points, atol=1e-12, rtol=0)
    assert set(result.blocks) == set(blocks)
    for name, block in blocks.items():
        torch.testing.assert_close(
            result.blocks[name], block, atol=1e-9, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("name", MODELS)
def test_joints_move_as_differentiated(name):
    model, arguments = make(name)
    assert_equal(model.joints_jacobian(**arguments), differentiated(model.joints, model, arguments, (2,)))


@pytest.mark.parametrize("name", MODELS)
def test_surface_points_and_vertices_move_as_differentiated(name):
    model, arguments = make(name)
    faces = torch.randint(0, len(model.faces), (5,))
    surface = SurfacePoints(faces, torch.rand(5, 3, dtype=F64))
    expected = differentiated(lambda **a: model.points(surface, **a), model, arguments, (2,))
    assert_equal(model.points_jacobian(surface, **arguments), expected)
    ids = model.faces[faces, 0]
    few = model.select_vertices(ids)
    expected = differentiated(lambda **a: few(**a).vertices, model, arguments, (2,))
    assert_equal(model.vertices_jacobian(ids, **arguments), expected)


def test_keypoints_move_as_differentiated():
    model, arguments = make("smplx")
    for name in ("smplx55", "openpose25"):
        regressor = KeypointRegressor(name, model.data, dtype=F64)
        expected = differentiated(lambda r=regressor, **a: model.keypoints(r, **a), model, arguments, (2,))
        assert_equal(model.keypoints_jacobian(regressor, **arguments), expected)


def test_one_set_of_points_a_sample():
    batch = (2, 3)
    model, arguments = make("smpl", batch)
    surface = SurfacePoints(torch.randint(0, len(model.faces), (*batch, 4)), torch.rand(*batch, 4, 3, dtype=F64))
    expected = differentiated(lambda **a: model.points(surface, **a), model, arguments, batch)
    assert_equal(model.points_jacobian(surface, **arguments), expected)


def test_chosen_joints_are_rows_of_all():
    model, arguments = make("smplh")
    ids = torch.tensor([20, 0, 7])
    chosen, full = model.joints_jacobian(ids, **arguments), model.joints_jacobian(**arguments)
    torch.testing.assert_close(chosen.points, full.points[:, ids])
    for name, block in full.blocks.items():
        torch.testing.assert_close(chosen.blocks[name], block[:, ids])


def test_what_is_left_out_is_constant_and_batches_broadcast():
    model, arguments = make("smpl", ())
    pose = 0.3 * torch.randn(4, 1, 23, 3, dtype=F64)
    betas = torch.randn(3, 2, dtype=F64)
    result = model.joints_jacobian(betas=betas, body_pose=pose)
    assert result.points.shape == (4, 3, 24, 3)
    assert {name: block.shape for name, block in result.blocks.items()} == {
        "betas": (4, 3, 24, 3, 2),
        "body_pose": (4, 3, 24, 3, 69),
    }
    assert result.matrix(["body_pose", "betas"]).shape == (4, 3, 72, 71)
    assert model.joints_jacobian().blocks == {}
    one = model.joints_jacobian(betas=betas[1], body_pose=pose[2, 0])
    torch.testing.assert_close(one.matrix(one.blocks), result.matrix(result.blocks)[2, 1])


@pytest.mark.parametrize("batch", [(), (1,), (0,)])
def test_any_batch(batch):
    model, arguments = make("star", batch)
    surface = SurfacePoints(torch.tensor([0, 3]), torch.full((2, 3), 1 / 3, dtype=F64))
    for result, count in ((model.joints_jacobian(**arguments), 24), (model.points_jacobian(surface, **arguments), 2)):
        assert result.points.shape == (*batch, count, 3)
        assert result.matrix(arguments).shape == (*batch, 3 * count, 80)


def test_the_tangent_does_not_depend_on_how_rotations_are_written():
    model, arguments = make("smplx")
    written = {
        name: matrix_to_rotation_6d(axis_angle_to_matrix(value)) if name in model.data.table_row.part_names else value
        for name, value in arguments.items()
    }
    ids = torch.arange(4)
    expected = model.vertices_jacobian(ids, **arguments)
    result = model.vertices_jacobian(ids, **written, rotation="rotation_6d")
    torch.testing.assert_close(result.matrix(arguments), expected.matrix(arguments))


def test_only_what_is_wanted_is_differentiated():
    model, arguments = make("smpl")
    full = model.vertices_jacobian(torch.arange(3), **arguments)
    some = model.vertices_jacobian(torch.arange(3), wrt=("transl", "body_pose"), **arguments)
    torch.testing.assert_close(some.points, full.points)
    assert set(some.blocks) == {"body_pose", "transl"}
    torch.testing.assert_close(some.blocks["body_pose"], full.blocks["body_pose"])
    assert model.joints_jacobian(wrt=(), **arguments).blocks == {}


def test_without_correctives_only_their_own_part_is_missing():
    model, arguments = make("smpl")
    ids = torch.arange(6)
    exact = model.vertices_jacobian(ids, **arguments)
    rough = model.vertices_jacobian(ids, correctives=False, **arguments)
    torch.testing.assert_close(rough.points, exact.points)
    for name in ("betas", "global_orient", "transl"):
        torch.testing.assert_close(rough.blocks[name], exact.blocks[name])
    missing = (rough.blocks["body_pose"] - exact.blocks["body_pose"]).norm() / exact.blocks["body_pose"].norm()
    assert 1e-3 < missing < 1


def test_constants_gathered_once_change_nothing():
    model, arguments = make("smplx")
    ids = torch.tensor([5, 2, 60])
    expected = model.vertices_jacobian(ids, **arguments)
    torch.testing.assert_close(model.vertices_jacobian(model.vertex_bases(ids), **arguments), expected)
    surface = SurfacePoints(torch.tensor([3, 1]), torch.rand(2, 3, dtype=F64))
    expected = model.points_jacobian(surface, **arguments)
    torch.testing.assert_close(model.points_jacobian(model.point_bases(surface), **arguments), expected)
    regressor = KeypointRegressor("openpose25", model.data, dtype=F64)
    expected = model.keypoints_jacobian(regressor, **arguments)
    torch.testing.assert_close(model.keypoints_jacobian(model.keypoint_bases(regressor), **arguments), expected)
