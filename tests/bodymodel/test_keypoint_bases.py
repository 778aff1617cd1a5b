"""Keypoint bases give what the regressor gives, from fewer points."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from physique.bodymodel import BodyModel, KeypointRegressor, synthetic_model

NUM_VERTICES = 400


def regressor_matrix(data, seed=0):
    """Return (19, V): the 30 vertices around one each."""
    random = np.random.default_rng(seed)
    matrix = np.zeros((19, data.num_vertices))
    for row, middle in zip(matrix, random.choice(data.num_vertices, 19, replace=False), strict=True):
        near = np.argsort(np.linalg.norm(data.v_template - data.v_template[middle], axis=-1))[:30]
        row[near] = random.dirichlet(np.ones(30))
    return matrix


def make(family="smpl", change=lambda matrix: matrix, twins=()):
    """Return a model, whose vertices `twins` hang on the same joints alike, and a regressor."""
    data = synthetic_model(family, num_vertices=NUM_VERTICES)
    weights = data.lbs_weights.copy()
    weights[list(twins)] = weights[list(twins[:1])]
    data = replace(data, lbs_weights=weights)
    model = BodyModel(data, dtype=torch.float64)
    matrix = change(regressor_matrix(data))
    return model, KeypointRegressor("hmr19", data, regressor=matrix, regressor_rows="set", dtype=torch.float64)


def arguments(model, batch=(3,)):
    names = [part.name for part in model.data.table_row.parts]
    shapes = {part.name: (part.count, 3) for part in model.data.table_row.parts}
    given = {
        name: 0.4 * torch.randn(*batch, *shapes[name], dtype=torch.float64) for name in names if name == "body_pose"
    }
    given["betas"] = torch.randn(*batch, 10, dtype=torch.float64)
    given["transl"] = torch.randn(*batch, 3, dtype=torch.float64)
    return given


@pytest.mark.parametrize("family", ["smpl", "star", "smplx"])
@pytest.mark.parametrize("batch", [(), (3,), (2, 2), (0,)])
def test_keypoints_are_those_of_the_regressor(family, batch):
    model, regressor = make(family)
    bases = model.keypoint_bases(regressor)
    given = arguments(model, batch)
    torch.testing.assert_close(model.keypoints(bases, **given), model.keypoints(regressor, **given), rtol=0, atol=1e-12)


def test_gradients_are_those_of_the_regressor():
    model, regressor = make()
    bases = model.keypoint_bases(regressor)
    given = {name: value.requires_grad_() for name, value in arguments(model).items()}
    upstream = torch.randn(3, 19, 3, dtype=torch.float64)
    few, many = (
        torch.autograd.grad(model.keypoints(which, **given), [*given.values()], upstream)
        for which in (bases, regressor)
    )
    torch.testing.assert_close(few, many)


def test_neighbours_become_few_points():
    model, regressor = make()
    few, many = model.keypoint_bases(regressor).points.weights.shape[-1], len(regressor.vertex_ids)
    assert few < many / 2


def test_a_keypoint_that_is_a_vertex_stays_one():
    def one_vertex(matrix):
        return np.eye(19, NUM_VERTICES)

    model, regressor = make(change=one_vertex)
    bases = model.keypoint_bases(regressor)
    assert bases.points.weights.equal(model.vertex_bases(regressor.vertex_ids).weights)


@pytest.mark.parametrize("less", [1.0, 0.9])
def test_weights_that_cancel_leave_the_vertices_as_they_are(less):
    """A difference of two neighbours has a direction and no mass: as one point it would be infinitely far away."""

    def difference(matrix):
        matrix = matrix.copy()
        matrix[0] = 0
        matrix[0, [0, 24]] = 1, -less
        return matrix

    model, regressor = make(change=difference, twins=(0, 24))
    bases = model.keypoint_bases(regressor)
    assert bases.points.weights.equal(model.vertex_bases(regressor.vertex_ids).weights)
    given = arguments(model)
    found = model.keypoints(bases, **given)
    assert found.isfinite().all()
    torch.testing.assert_close(found, model.keypoints(regressor, **given), rtol=0, atol=1e-12)


def test_keypoints_that_are_joints_need_no_vertices_in_batches_of_any_size():
    model = BodyModel(synthetic_model("smpl"))
    regressor = KeypointRegressor("smpl24", model.data)
    pose = 0.3 * torch.randn(40, 23, 3)
    assert not len(regressor.vertex_ids)
    expected = model.joints(body_pose=pose)
    torch.testing.assert_close(model.keypoints(model.keypoint_bases(regressor), body_pose=pose), expected)
