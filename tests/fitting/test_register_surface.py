"""Bodies are found from dense correspondences: made ones, clean and with the errors of detectors."""

import functools
import math

import pytest
import torch
from physique.bodymodel import (
    BodyModel,
    KeypointRegressor,
    SurfacePoints,
    open_body,
    segment_scale_model,
    synthetic_model,
)
from physique.cameras import WeakPerspectiveCamera
from physique.fitting import Correspondences, Solution, Status, Term, default_terms, register_surface
from physique.geometry import axis_angle_to_matrix, matrix_to_axis_angle
from physique.losses.metrics import pa_mpjpe, per_pixel_error
from physique.testing.correspondences import synthetic_correspondences
from refusals import refuses

PEOPLE = 4
SET = "lsp14"


@functools.cache
def low_body():
    return BodyModel(open_body("low"))


@functools.cache
def regressor():
    return KeypointRegressor(SET, low_body().data)


@functools.cache
def people():
    """Arguments and cameras of people who stand, stride and reach, seen from four sides."""
    generator = torch.Generator().manual_seed(4)
    names = low_body().skeleton.names[1:]
    pose = 0.05 * torch.randn(PEOPLE, 23, 3, generator=generator)
    for name, turns in {
        "left_shoulder": (0.0, 0.0, -1.0),
        "right_shoulder": (0.0, 0.3, 0.6),
        "left_elbow": (0.0, -0.9, 0.0),
        "right_elbow": (0.0, 0.6, 0.0),
        "left_hip": (-0.7, 0.0, 0.1),
        "left_knee": (0.8, 0.0, 0.0),
        "right_hip": (0.2, 0.0, -0.1),
        "right_knee": (0.3, 0.0, 0.0),
    }.items():
        pose[:, names.index(name)] += torch.tensor(turns)
    turn = torch.tensor([0.3, 1.5, -1.2, 2.8])
    view = axis_angle_to_matrix(torch.tensor([torch.pi, 0.0, 0.0])) @ axis_angle_to_matrix(
        torch.stack((0 * turn, turn, 0 * turn), -1)
    )
    params = {
        "betas": 0.7 * torch.randn(PEOPLE, 16, generator=generator),
        "global_orient": matrix_to_axis_angle(view),
        "body_pose": pose,
    }
    scale = torch.full((PEOPLE,), 100.0)
    return params, WeakPerspectiveCamera(scale, torch.full((PEOPLE, 2), 112.0))


@functools.cache
def seen(noise=0.0, swapped=0.0, outliers=0.0):
    return synthetic_correspondences(low_body(), *people(), noise=noise, swapped=swapped, outliers=outliers)


@functools.cache
def keypoints():
    params, camera = people()
    points = low_body().keypoints(regressor(), **params)
    return camera.project(points), points[..., 2]


@functools.cache
def plain():
    return register_surface(low_body(), seen(), keypoints=keypoints()[0], keypoint_set=SET)


def errors(solution, model=None):
    """PA-MPJPE of the keypoints in millimetres and the mean distance of all vertices in pixels, (B,) each."""
    model = model or low_body()
    params, camera = people()
    joints = pa_mpjpe(model.keypoints(regressor(), **solution.params), low_body().keypoints(regressor(), **params))
    found = solution.camera.project(model(**solution.params).vertices)
    return 1000 * joints, per_pixel_error(found, camera.project(low_body()(**params).vertices))


def part(value, index):
    """Some samples of correspondences or of any other tuple of tensors, or of a tensor."""
    if isinstance(value, torch.Tensor):
        return value[index]
    return type(value)(*(part(field, index) for field in value))


def reshaped(correspondences, *batch):
    surface, pixels, weight = correspondences
    return Correspondences(
        SurfacePoints(surface.faces.reshape(*batch, 125), surface.barycentric.reshape(*batch, 125, 3)),
        pixels.reshape(*batch, 125, 2),
        weight.reshape(*batch, 125),
    )


def quick(correspondences, **arguments):
    return register_surface(low_body(), correspondences, steps=20, **arguments)


def test_a_known_body_is_found_from_clean_correspondences():
    joints, pixels = errors(plain())
    assert joints.mean() < 40 and joints.max() < 80
    assert pixels.max() < 2
    assert plain().residuals.mean() < 1


def test_swapped_sides_and_outliers_hardly_matter():
    spoiled = seen(noise=1.0, swapped=0.05, outliers=0.05)
    assert (spoiled.pixels - seen(noise=1.0).pixels).norm(dim=-1).max() > 50
    joints, pixels = errors(register_surface(low_body(), spoiled, keypoints=keypoints()[0], keypoint_set=SET))
    assert joints.mean() < 50
    assert pixels.max() < 3


def test_depths_of_the_keypoints_decide_what_the_image_leaves_open():
    pixels, depths = keypoints()
    some = depths.clone()
    some[:, ::5] = torch.nan
    solution = register_surface(low_body(), seen(noise=2.0), keypoints=pixels, keypoint_set=SET, depths=some + 7.0)
    assert errors(solution)[0].mean() < 20 and errors(solution)[0].max() < 35


def test_the_solution_has_the_promised_form():
    solution = plain()
    shapes = {name: tuple(value.shape) for name, value in solution.params.items()}
    assert shapes == {
        "betas": (PEOPLE, 16),
        "global_orient": (PEOPLE, 3),
        "body_pose": (PEOPLE, 23, 3),
        "transl": (PEOPLE, 3),
    }
    assert isinstance(solution.camera, WeakPerspectiveCamera)
    assert solution.camera.scale.shape == (PEOPLE,) and solution.camera.translation.shape == (PEOPLE, 2)
    assert solution.residuals.shape == (PEOPLE, 125)
    assert solution.loss.shape == solution.status.shape == (PEOPLE,)
    assert solution.history.shape[1:] == (PEOPLE,) and len(solution.history) > solution.steps - 5
    assert set(solution.status.tolist()) <= {Status.CONVERGED, Status.MAX_STEPS}
    assert solution.steps <= 300
    assert (solution.params["transl"] == 0).all()
    assert not any(value.requires_grad for value in (*solution.params.values(), *solution.camera))


def test_residuals_are_the_distances_of_the_projected_points_and_nan_without_weight():
    weight = seen().weight.clone()
    weight[:, ::3] = 0
    solution = quick(seen()._replace(weight=weight))
    points = low_body().points(seen().surface, **solution.params)
    distance = (solution.camera.project(points) - seen().pixels).norm(dim=-1)
    torch.testing.assert_close(
        torch.where(weight > 0, distance, torch.nan), solution.residuals, atol=0.05, rtol=1e-3, equal_nan=True
    )


def test_a_point_without_weight_has_no_say():
    weight = seen().weight.clone()
    weight[:, ::3] = 0
    wild = seen().pixels.clone()
    wild[:, ::3] = torch.tensor([torch.nan, torch.inf])
    clean = quick(seen()._replace(weight=weight))
    torch.testing.assert_close(quick(seen()._replace(weight=weight, pixels=wild)).params, clean.params)


@pytest.mark.parametrize("batch", [(), (1,), (2, 2), (0,)], ids=str)
def test_any_batch_shape(batch):
    count = math.prod(batch)
    some, points = reshaped(part(seen(), slice(count)), *batch), keypoints()[0][:count].reshape(*batch, 14, 2)
    solution = quick(some, keypoints=points, keypoint_set=SET)
    assert solution.params["body_pose"].shape == (*batch, 23, 3)
    assert solution.camera.translation.shape == (*batch, 2)
    assert solution.residuals.shape == (*batch, 125)
    assert solution.loss.shape == solution.status.shape == batch
    assert low_body()(**solution.params).vertices.isfinite().all()


def test_samples_are_independent_of_their_batch():
    together = quick(seen())
    alone = quick(part(seen(), slice(1, 2)))
    torch.testing.assert_close(alone.params["body_pose"], together.params["body_pose"][1:2], atol=2e-3, rtol=0)


def test_invalid_samples_stay_at_a_finite_start_and_change_no_other():
    pixels, weight = seen().pixels.clone(), seen().weight.clone()
    pixels[0, 3] = torch.nan
    pixels[1] = 50.0
    weight[2] = 0
    spoiled = quick(seen()._replace(pixels=pixels, weight=weight))
    assert spoiled.status[:3].tolist() == [Status.INVALID] * 3
    assert spoiled.status[3] != Status.INVALID
    assert all(value.isfinite().all() for value in (*spoiled.params.values(), *spoiled.camera))
    assert (spoiled.params["body_pose"][:3] == 0).all() and (spoiled.params["betas"][:3] == 0).all()
    assert spoiled.residuals[2].isnan().all()
    clean = quick(seen())
    torch.testing.assert_close(spoiled.params["body_pose"][3], clean.params["body_pose"][3], atol=2e-3, rtol=0)
    with pytest.raises(ValueError, match="3 INVALID"):
        quick(seen()._replace(pixels=pixels, weight=weight), throw=True)


def test_the_fit_moves_and_scales_with_the_image():
    larger = quick(seen()._replace(pixels=4 * seen().pixels + torch.tensor([500.0, -90.0])))
    plainly = quick(seen())
    torch.testing.assert_close(larger.params["body_pose"], plainly.params["body_pose"], atol=0.05, rtol=0)
    torch.testing.assert_close(larger.camera.scale, 4 * plainly.camera.scale, rtol=2e-3, atol=0)


def test_segment_scales_are_fitted_when_the_model_has_them():
    model = BodyModel(segment_scale_model(open_body("low")))
    solution = register_surface(model, seen(), keypoints=keypoints()[0], keypoint_set=SET, steps=200)
    assert solution.params["segment_scale"].shape == (PEOPLE, 24) and "betas" not in solution.params
    scale = solution.params["segment_scale"]
    assert ((scale - 1).abs().amax(-1) > 0.005).all() and (scale - 1).abs().max() < 0.5
    joints, pixels = errors(solution, model)
    assert joints.mean() < 55 and pixels.max() < 3


def test_three_scales_a_segment_are_fitted_when_the_model_has_them():
    model = BodyModel(segment_scale_model(open_body("low"), per_axis=True))
    solution = register_surface(model, seen(), steps=10)
    assert solution.params["segment_scale"].shape == (PEOPLE, 24, 3)
    assert model(**solution.params).vertices.isfinite().all()


def test_init_goes_on_from_a_solution():
    start = register_surface(low_body(), seen(), steps=5)
    unmoved = register_surface(low_body(), seen(), init=start, steps=0)
    for name, value in start.params.items():
        torch.testing.assert_close(unmoved.params[name], value, atol=1e-4, rtol=0)
    torch.testing.assert_close(unmoved.camera.scale, start.camera.scale)
    torch.testing.assert_close(unmoved.camera.translation, start.camera.translation)
    further = register_surface(low_body(), seen(), init=start)
    assert further.steps <= 30
    assert (further.residuals.mean(-1) < start.residuals.mean(-1)).all()
    finished = register_surface(low_body(), seen(), init=plain(), keypoints=keypoints()[0], keypoint_set=SET)
    assert errors(finished)[0].mean() < errors(plain())[0].mean() + 5


def test_init_may_stand_elsewhere_than_the_origin():
    start = quick(seen())
    params = {**start.params, "transl": torch.tensor([0.3, -0.2, 0.5]).expand(PEOPLE, 3)}
    shift = start.camera.translation - start.camera.scale.unsqueeze(-1) * params["transl"][:, :2]
    moved = start._replace(params=params, camera=start.camera._replace(translation=shift))
    solution = register_surface(low_body(), seen(), init=moved, steps=0)
    torch.testing.assert_close(solution.residuals, start.residuals, atol=0.05, rtol=1e-3)


def test_keypoints_help_where_few_points_are_seen():
    few = seen(noise=3.0)._replace(weight=(torch.arange(125) % 12 == 0).float().expand(PEOPLE, 125))
    without = errors(register_surface(low_body(), few))[0].mean()
    assert errors(register_surface(low_body(), few, keypoints=keypoints()[0], keypoint_set=SET))[0].mean() < without - 5


def test_keypoints_without_confidence_have_no_say():
    wild, confidence = keypoints()[0].clone(), torch.ones(14)
    wild[:, 3], confidence[3] = torch.nan, 0
    solution = quick(seen(), keypoints=wild, keypoint_set=SET, confidence=confidence)
    assert (solution.status != Status.INVALID).all()
    confident = quick(seen(), keypoints=wild, keypoint_set=SET)
    assert (confident.status == Status.INVALID).all()


def test_a_term_of_ones_own_changes_the_result():
    def hands_together(body):
        names = body.skeleton.names
        left, right = (body.joints[..., names.index(f"{side}_hand"), :] for side in ("left", "right"))
        return (left - right).square().sum(-1)

    terms = default_terms()
    terms["hands_together"] = Term(weight=1e4, stiff=0.0, value=hands_together)

    def gap(solution):
        joints = low_body()(**solution.params).joints
        return (joints[:, 22] - joints[:, 23]).norm(dim=-1)

    changed = register_surface(low_body(), seen(), terms=terms, steps=100)
    assert (gap(changed) < 0.5 * gap(register_surface(low_body(), seen(), steps=100))).all()


def test_a_heavier_or_missing_term_changes_the_result():
    terms = default_terms()
    terms["shape"] = terms["shape"]._replace(weight=1000.0, stiff=1000.0)
    assert quick(seen(), terms=terms).params["betas"].norm() < 0.2 * quick(seen()).params["betas"].norm()
    del terms["shape"]
    assert quick(seen(), terms=terms).params["betas"].norm() > quick(seen()).params["betas"].norm()


def test_terms_can_be_printed():
    printed = str(default_terms())
    assert "'dense': Term(weight=1, stiff=1, value=dense)" in printed
    assert list(default_terms())[:3] == ["dense", "keypoints", "depths"]


def test_progress_is_told_after_every_step():
    told = []
    solution = quick(seen(), callback=lambda step, steps: told.append((step, steps)))
    assert told == [(step, 20) for step in range(1, solution.steps + 1)]


def test_double_precision_stays_double():
    model = BodyModel(open_body("low"), dtype=torch.float64)
    solution = register_surface(model, part(seen(), slice(1)), steps=4)
    assert all(value.dtype == torch.float64 for value in solution.params.values())
    assert solution.camera.scale.dtype == solution.residuals.dtype == torch.float64


def test_inputs_are_left_as_they_were():
    given = part(seen(), slice(2))
    before = [given.pixels.clone(), given.weight.clone(), given.surface.barycentric.clone()]
    quick(given)
    for value, old in zip((given.pixels, given.weight, given.surface.barycentric), before, strict=True):
        assert torch.equal(value, old)


def test_what_does_not_fit_is_refused_by_name():
    points, pixels, weight = seen()
    with refuses("correspondences.pixels"):
        quick(seen()._replace(pixels=pixels[..., :1]))
    with refuses("correspondences.weight"):
        quick(seen()._replace(weight=weight[:, :-1]))
    with refuses("correspondences.surface.barycentric"):
        quick(seen()._replace(surface=points._replace(barycentric=points.barycentric[..., :2])))
    with refuses("correspondences.surface.faces"):
        quick(seen()._replace(surface=points._replace(faces=points.faces + len(low_body().faces))))
    with refuses("correspondences.surface.faces"):
        quick(seen()._replace(surface=points._replace(faces=points.faces - len(low_body().faces))))
    with refuses("correspondences.pixels"):
        quick(seen()._replace(pixels=pixels[0]))
    with refuses("keypoint_set"):
        quick(seen(), keypoints=keypoints()[0])
    with refuses("keypoints"):
        quick(seen(), keypoints=keypoints()[0][:, :5], keypoint_set=SET)
    with refuses("confidence"):
        quick(seen(), keypoints=keypoints()[0], keypoint_set=SET, confidence=torch.ones(3))
    with refuses("depths"):
        quick(seen(), keypoints=keypoints()[0], keypoint_set=SET, depths=torch.ones(3))
    with refuses("depths"):
        quick(seen(), depths=keypoints()[1])
    with refuses("confidence"):
        quick(seen(), confidence=torch.ones(14))
    with refuses("model"):
        register_surface(BodyModel(synthetic_model("mano")), seen())
    with refuses("steps"):
        register_surface(low_body(), seen(), steps=-1)


def test_an_init_of_another_kind_is_refused():
    start = quick(seen())
    with refuses("init"):
        quick(part(seen(), slice(2)), init=start)
    with refuses("init"):
        quick(seen(), init=Solution({}, start.loss, 0, start.status, start.history))
    with refuses("init"):
        register_surface(BodyModel(segment_scale_model(open_body("low"))), seen(), init=start)
