"""Registered vertices are fitted to a fraction of a millimetre, and one family's by another."""

import dataclasses

import pytest
import torch
from physique.bodymodel import BodyModel, SurfacePoints, open_body, segment_scale_model, synthetic_model
from physique.fitting import Status, fit_vertices
from refusals import refuses

F64 = torch.float64
FAMILIES = ("smpl", "smplh", "smplx", "mano", "flame", "star")


def posed(model, batch, spread=0.35):
    """Return arguments that use every part of the model, and the vertices."""
    arguments = {"transl": torch.randn(*batch, 3, dtype=model.dtype)}
    for name, count in model.data.coefficients:
        if name == "segment_scale":
            arguments[name] = 1 + 0.05 * torch.randn(*batch, count, dtype=model.dtype)
        else:
            arguments[name] = 0.7 * torch.randn(*batch, count, dtype=model.dtype)
    for part in model.data.table_row.parts:
        shape = (3,) if part.single else (part.count, 3)
        arguments[part.name] = spread * torch.randn(*batch, *shape, dtype=model.dtype)
    return arguments, model(**arguments).vertices


@pytest.mark.parametrize("family", FAMILIES)
def test_a_models_own_vertices_are_reached(family):
    model = BodyModel(synthetic_model(family, num_vertices=1200), dtype=F64)
    arguments, vertices = posed(model, (3,), spread=0.2)
    solution = fit_vertices(model, vertices, steps=40)
    assert set(solution.params) == set(arguments)
    assert solution.residuals.max() < 1e-5
    assert (solution.status == Status.CONVERGED).all()
    torch.testing.assert_close(model(**solution.params).vertices, vertices, atol=1e-5, rtol=0)


def test_pose_and_shape_are_recovered_and_not_only_the_surface():
    model = BodyModel(open_body("low"), dtype=F64)
    arguments, vertices = posed(model, (2,))
    found = fit_vertices(model, vertices).params
    torch.testing.assert_close(found["betas"], arguments["betas"], atol=1e-2, rtol=0)
    torch.testing.assert_close(found["body_pose"], arguments["body_pose"], atol=1e-3, rtol=0)
    torch.testing.assert_close(found["transl"], arguments["transl"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_built_in_body_is_fitted_to_a_hundredth_of_a_millimetre_in_single_precision(scaled):
    model = BodyModel(segment_scale_model(open_body()) if scaled else open_body())
    _, vertices = posed(model, (6,))
    solution = fit_vertices(model, vertices)
    assert solution.residuals.mean() < 1e-5
    assert (solution.status == Status.CONVERGED).all()


def test_more_noise_is_more_distance_and_no_more():
    model = BodyModel(open_body("low"))
    _, vertices = posed(model, (4,))
    noisy = vertices + 0.005 * torch.randn(vertices.shape)
    solution = fit_vertices(model, noisy, sample=None)
    assert (model(**solution.params).vertices - vertices).norm(dim=-1).mean() < 0.002
    sampled = fit_vertices(model, noisy)
    assert (model(**sampled.params).vertices - vertices).norm(dim=-1).mean() < 0.006


def test_one_family_fits_the_vertices_of_another():
    smplh = synthetic_model("smplh", num_vertices=800)
    names = ("v_template", "faces")
    smpl = dataclasses.replace(synthetic_model("smpl", num_vertices=800, seed=1))
    source = BodyModel(smplh, dtype=F64)
    # The same mesh and the same joints, the hands rigid: an SMPL body made of the SMPL-H one.
    weights = torch.tensor(smplh.lbs_weights)
    hands = torch.zeros(800, 24)
    hands[:, :22] = weights[:, :22]
    hands[:, 22], hands[:, 23] = weights[:, 22:37].sum(-1), weights[:, 37:].sum(-1)
    joints = [*range(22), 22, 37]
    target = BodyModel(
        dataclasses.replace(
            smpl,
            **{name: getattr(smplh, name) for name in names},
            shapedirs=smplh.shapedirs,
            coefficients=smplh.coefficients,
            lbs_weights=hands.numpy(),
            posedirs=None,
            J_regressor=None,
            J_template=smplh.J_template[joints],
            J_shapedirs=smplh.J_shapedirs[joints],
        ),
        dtype=F64,
    )
    pose = 0.2 * torch.randn(2, 21, 3, dtype=F64)
    rigid = BodyModel(dataclasses.replace(smplh, posedirs=None), dtype=F64)
    vertices = rigid(body_pose=pose, betas=torch.randn(2, 10, dtype=F64)).vertices
    solution = fit_vertices(target, vertices)
    assert solution.residuals.max() < 1e-4
    torch.testing.assert_close(solution.params["body_pose"][:, :15], pose[:, :15], atol=1e-2, rtol=0)
    assert source.data.num_joints != target.data.num_joints


def test_points_of_the_surface_are_fitted_where_they_lie():
    model = BodyModel(open_body("low"), dtype=F64)
    arguments, _ = posed(model, (3,))
    faces = torch.randperm(len(model.faces))[:900]
    corners = torch.rand(900, 3, dtype=F64)
    surface = SurfacePoints(faces, corners / corners.sum(-1, keepdim=True))
    points = model.points(surface, **arguments)
    solution = fit_vertices(model, points, surface=surface, sample=30)
    assert solution.residuals.shape == (3, 900)
    assert solution.residuals.mean() < 1e-4


def test_missing_vertices_may_hold_anything():
    model = BodyModel(open_body("low"), dtype=F64)
    _, vertices = posed(model, (2,))
    weights = torch.ones(model.data.num_vertices, dtype=F64)
    weights[::3] = 0
    spoilt = vertices.clone()
    spoilt[:, ::3] = float("nan")
    plain, odd = (fit_vertices(model, given, weights=weights) for given in (vertices, spoilt))
    torch.testing.assert_close(odd.params, plain.params)
    assert (model(**odd.params).vertices - vertices).norm(dim=-1).mean() < 1e-4


def test_a_bad_sample_is_told_and_leaves_the_others_alone():
    model = BodyModel(open_body("low"), dtype=F64)
    _, vertices = posed(model, (3,))
    good = fit_vertices(model, vertices)
    spoilt = vertices.clone()
    spoilt[1] = float("nan")
    bad = fit_vertices(model, spoilt)
    assert bad.status.tolist() == [Status.CONVERGED, Status.INVALID, Status.CONVERGED]
    for name, value in bad.params.items():
        assert value.isfinite().all()
        torch.testing.assert_close(value[[0, 2]], good.params[name][[0, 2]], atol=1e-7, rtol=0)


def test_a_sequence_shares_its_shape():
    model = BodyModel(open_body("low"), dtype=F64)
    arguments, _ = posed(model, (5,))
    arguments["betas"] = arguments["betas"][:1].expand(5, -1)
    vertices = model(**arguments).vertices + 0.003 * torch.randn(5, model.data.num_vertices, 3, dtype=F64)
    solution = fit_vertices(model, vertices, sequence=True)
    betas = solution.params["betas"]
    assert torch.equal(betas, betas[:1].expand_as(betas))
    alone = fit_vertices(model, vertices)
    truth = arguments["betas"]
    assert (betas - truth).norm() < (alone.params["betas"] - truth).norm()


def test_a_previous_solution_is_a_good_start():
    model = BodyModel(open_body("low"), dtype=F64)
    _, vertices = posed(model, (2,))
    first = fit_vertices(model, vertices)
    assert fit_vertices(model, vertices, init=first).steps < first.steps
    with refuses("init"):
        fit_vertices(model, vertices[:1], init=first)


@pytest.mark.parametrize("batch", [(), (1,), (2, 2), (0,)])
def test_any_batch(batch):
    model = BodyModel(synthetic_model("smpl"))
    vertices = model().vertices.expand(*batch, 200, 3)
    solution = fit_vertices(model, vertices, steps=3)
    assert solution.params["body_pose"].shape == (*batch, 23, 3)
    assert solution.residuals.shape == (*batch, 200)
    assert solution.loss.shape == solution.status.shape == batch


def test_what_does_not_fit_is_refused():
    model = BodyModel(synthetic_model("smpl"))
    with refuses("vertices"):
        fit_vertices(model, torch.zeros(100, 3))
    with refuses("vertices"):
        fit_vertices(model, torch.zeros(200, 3), sequence=True)
    with refuses("weights"):
        fit_vertices(model, torch.zeros(200, 3), weights=torch.ones(7))
