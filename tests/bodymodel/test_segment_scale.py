"""Segment scales: each segment scaled about its joint, linear in the scales, everything else kept."""

import numpy as np
import pytest
import torch
from body_arguments import FAMILY_NAMES, random_arguments
from oracles import body as oracle
from physique.bodymodel import BodyModel, open_body, segment_scale_model, synthetic_model
from refusals import refuses


def scaled_rest(data, scale, **options):
    """Return the rest body of `segment_scale_model(data, **options)` at the scales."""
    model = BodyModel(segment_scale_model(data, **options), dtype=torch.float64)
    return model.rest(segment_scale=torch.as_tensor(np.asarray(scale), dtype=torch.float64))


def random_scales(data, per_axis=False):
    size = (data.num_joints, 3) if per_axis else (data.num_joints,)
    return 1 + 0.3 * np.random.default_rng(0).normal(size=size)


@pytest.mark.parametrize("with_betas", (False, True))
@pytest.mark.parametrize("per_axis", (False, True))
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_it_is_the_loop_over_segments(family, per_axis, with_betas):
    data = synthetic_model(family, num_vertices=60)
    betas = np.random.default_rng(1).normal(size=10) if with_betas else None
    rest = BodyModel(data, dtype=torch.float64).rest(betas=None if betas is None else torch.as_tensor(betas))
    scale = random_scales(data, per_axis)
    vertices, joints = oracle.segment_scaled(
        rest.vertices.numpy(), rest.joints.numpy(), data.lbs_weights, data.skeleton.parents, scale
    )
    ours = scaled_rest(data, scale, betas=betas, per_axis=per_axis)
    np.testing.assert_allclose(ours.vertices.numpy(), vertices, rtol=0, atol=1e-10)
    np.testing.assert_allclose(ours.joints.numpy(), joints, rtol=0, atol=1e-10)


@pytest.mark.parametrize("per_axis", (False, True))
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_all_ones_are_exactly_the_template(family, per_axis):
    data = synthetic_model(family, num_vertices=60)
    ones = np.ones((data.num_joints, 3) if per_axis else data.num_joints)
    rest = scaled_rest(data, ones, per_axis=per_axis)
    assert torch.equal(rest.vertices, torch.tensor(data.v_template))
    assert torch.equal(rest.joints, torch.tensor(data.J_template))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_one_scale_for_all_scales_the_body_about_its_root(family):
    data = synthetic_model(family, num_vertices=60)
    root = torch.tensor(data.J_template[0])
    rest = scaled_rest(data, np.full(data.num_joints, 1.3))
    torch.testing.assert_close(rest.vertices, root + 1.3 * (torch.tensor(data.v_template) - root), rtol=0, atol=1e-10)
    torch.testing.assert_close(rest.joints, root + 1.3 * (torch.tensor(data.J_template) - root), rtol=0, atol=1e-10)


def test_three_equal_numbers_are_one():
    data = open_body("low")
    scale = random_scales(data)
    one, three = scaled_rest(data, scale), scaled_rest(data, np.repeat(scale[:, None], 3, axis=1), per_axis=True)
    torch.testing.assert_close(three.vertices, one.vertices, rtol=0, atol=1e-6)
    torch.testing.assert_close(three.joints, one.joints, rtol=0, atol=1e-6)


@pytest.mark.parametrize("per_axis", (False, True))
def test_it_is_linear_in_the_scales(per_axis):
    data = synthetic_model(num_vertices=60)
    one, two = random_scales(data, per_axis), 1 - random_scales(data, per_axis)
    rests = [scaled_rest(data, s, per_axis=per_axis) for s in (one, two, 0.3 * one + 0.7 * two)]
    for first, second, between in zip(*rests, strict=True):
        torch.testing.assert_close(between, 0.3 * first + 0.7 * second, rtol=0, atol=1e-12)


def test_a_segments_scale_stretches_its_own_bones_alone():
    data = synthetic_model(num_vertices=60)
    parents = data.skeleton.parents
    scale = random_scales(data)
    joints = scaled_rest(data, scale).joints.numpy()
    for joint, parent in enumerate(parents):
        if parent >= 0:
            bone, template = joints[joint] - joints[parent], data.J_template[joint] - data.J_template[parent]
            np.testing.assert_allclose(bone, scale[parent] * template, rtol=0, atol=1e-10)


def test_the_first_of_three_scales_is_along_the_bone():
    data = synthetic_model(num_vertices=60)
    knee, ankle = (data.skeleton.index(f"left_{name}") for name in ("knee", "ankle"))
    before = np.linalg.norm(data.J_template[ankle] - data.J_template[knee])
    for axis, factor in enumerate((1.5, 1.0, 1.0)):
        scale = np.ones((24, 3))
        scale[knee, axis] = 1.5
        joints = scaled_rest(data, scale, per_axis=True).joints.numpy()
        np.testing.assert_allclose(np.linalg.norm(joints[ankle] - joints[knee]), factor * before, rtol=1e-10)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_at_scale_one_the_posed_body_is_that_of_the_betas(family):
    data = synthetic_model(family, num_vertices=60)
    model = BodyModel(data, dtype=torch.float64)
    arguments = random_arguments(data, 2)
    betas = arguments.pop("betas")[0]
    scaled = BodyModel(segment_scale_model(data, betas.numpy()), dtype=torch.float64)
    expected = model(betas=betas, **arguments)
    ones = torch.ones(data.num_joints, dtype=torch.float64)
    for given in ({}, {"segment_scale": ones}):
        for ours, other in zip(scaled(**given, **arguments)[:3], expected[:3], strict=True):
            torch.testing.assert_close(ours, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", ("smplx", "flame"))
def test_expression_stays_an_argument_of_its_own(family):
    data = synthetic_model(family, num_vertices=60)
    scaled = segment_scale_model(data)
    assert dict(scaled.coefficients) == {"segment_scale": data.num_joints, "expression": 10}
    expression = torch.randn(10, dtype=torch.float64)
    moved = BodyModel(scaled, dtype=torch.float64).rest(expression=expression)
    expected = BodyModel(data, dtype=torch.float64).rest(expression=expression)
    torch.testing.assert_close(moved.vertices, expected.vertices, rtol=0, atol=1e-12)
    torch.testing.assert_close(moved.joints, expected.joints, rtol=0, atol=1e-12)


@pytest.mark.parametrize("per_axis", (False, True))
def test_joints_and_subsets_follow_the_scales(per_axis):
    data = segment_scale_model(synthetic_model(num_vertices=60), per_axis=per_axis)
    model = BodyModel(data, dtype=torch.float64)
    arguments = random_arguments(data, 2)
    if per_axis:
        arguments["segment_scale"] = arguments["segment_scale"].unflatten(-1, (24, 3))
    whole, ids = model(**arguments), torch.tensor([5, 2, 40])
    torch.testing.assert_close(model.joints(**arguments), whole.joints, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        model.select_vertices(ids)(**arguments).vertices, whole.vertices[:, ids], rtol=0, atol=1e-12
    )


def test_what_cannot_be_scaled_is_refused():
    data = synthetic_model(num_vertices=60)
    with refuses("data"):
        segment_scale_model(segment_scale_model(data))
    for betas in (np.zeros(11), np.zeros((2, 10)), np.full(10, np.nan)):
        with refuses("betas"):
            segment_scale_model(data, betas)
