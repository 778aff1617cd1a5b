"""Bodies are found from 2D keypoints: made ones with a known answer, and real people."""

import functools

import pytest
import torch
from physique.bodymodel import (
    BodyModel,
    KeypointRegressor,
    default_joint_limits,
    keypoint_set,
    load_keypoints,
    open_body,
    segment_scale_model,
    synthetic_model,
)
from physique.cameras import PerspectiveCamera, WeakPerspectiveCamera, look_at
from physique.fitting import KeypointWeights, Status, fit_keypoints
from physique.geometry import axis_angle_to_matrix, matrix_to_axis_angle, procrustes
from real_data import LIMBS, in_set, multiview_cameras, multiview_points
from refusals import refuses

FRAMES = 8


@functools.cache
def low_body() -> BodyModel:
    return BodyModel(open_body("low"))


@functools.cache
def regressor(name: str) -> KeypointRegressor:
    return KeypointRegressor(name, low_body().data)


def pa_mpjpe(predicted, target):
    """Millimetres after a similarity."""
    return 1000 * (procrustes(predicted, target).apply(predicted) - target).norm(dim=-1).mean(-1)


def degrees_outside_limits(body_pose):
    lower, upper = default_joint_limits(body_pose.shape[-2])
    return torch.maximum(lower - body_pose, body_pose - upper).clamp(min=0).rad2deg()


def walking(frames=FRAMES):
    """A walk of one person: arguments (T, ...) in world axes, y up."""
    phase = torch.linspace(0, 4.5, frames)
    body_pose = torch.zeros(frames, 23, 3)
    body_pose[:, 15, 2], body_pose[:, 16, 2] = -1.1, 1.1
    body_pose[:, 17, 1], body_pose[:, 18, 1] = -0.6 - 0.4 * phase.sin(), 0.6 - 0.4 * phase.sin()
    body_pose[:, 0, 0], body_pose[:, 1, 0] = -0.5 * phase.sin(), 0.5 * phase.sin()
    body_pose[:, 3, 0], body_pose[:, 4, 0] = 0.5 - 0.4 * phase.cos(), 0.5 + 0.4 * phase.cos()
    betas = 0.7 * torch.randn(16, generator=torch.Generator().manual_seed(3))
    return {
        "betas": betas.expand(frames, 16),
        "body_pose": body_pose,
        "global_orient": torch.tensor([0.0, 0.6, 0.0]).expand(frames, 3),
        "transl": torch.stack((0.05 * phase, 0 * phase, 0.04 * phase), -1),
    }


@functools.cache
def scene(name="openpose25"):
    """Keypoints (T, K, 3) of the walk, a camera that sees them, and pixels with 2 px noise."""
    points = low_body().keypoints(regressor(name), **walking())
    rotation, translation = look_at(torch.tensor([1.0, 0.8, 4.0]), torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))
    camera = PerspectiveCamera(torch.tensor([1200.0, 1200.0]), torch.tensor([500.0, 400.0]), rotation, translation)
    pixels = camera.project(points)
    return points, camera, pixels + 2 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1))


@functools.cache
def plain_fit():
    _, _, pixels = scene()
    return fit_keypoints(low_body(), pixels, torch.ones(25))


def test_a_known_body_is_found_from_one_view():
    points, _, _ = scene()
    solution = plain_fit()
    found = low_body().keypoints(regressor("openpose25"), **solution.params)
    assert pa_mpjpe(found, points).mean() < 60
    assert solution.residuals.mean() < 4
    assert (solution.status != Status.INVALID).all()
    assert degrees_outside_limits(solution.params["body_pose"]).max() < 3


def test_the_solution_has_the_promised_form():
    solution = plain_fit()
    shapes = {name: tuple(value.shape) for name, value in solution.params.items()}
    assert shapes == {
        "betas": (FRAMES, 16),
        "global_orient": (FRAMES, 3),
        "body_pose": (FRAMES, 23, 3),
        "transl": (FRAMES, 3),
    }
    assert isinstance(solution.camera, WeakPerspectiveCamera)
    assert solution.camera.scale.shape == (FRAMES,) and solution.camera.translation.shape == (FRAMES, 2)
    assert solution.residuals.shape == (FRAMES, 25)
    assert solution.loss.shape == solution.status.shape == (FRAMES,)
    assert solution.history.shape[1:] == (FRAMES,)
    assert not any(value.requires_grad for value in (*solution.params.values(), *solution.camera))


def test_residuals_are_the_distances_of_the_projected_keypoints():
    _, _, pixels = scene()
    solution = plain_fit()
    projected = solution.camera.project(low_body().keypoints(regressor("openpose25"), **solution.params))
    torch.testing.assert_close((projected - pixels).norm(dim=-1), solution.residuals, atol=0.02, rtol=1e-3)


def test_the_fit_moves_and_scales_with_the_image():
    _, _, pixels = scene()
    moved = fit_keypoints(low_body(), 3 * pixels[:2] + torch.tensor([1000.0, -200.0]), torch.ones(25))
    alone = fit_keypoints(low_body(), pixels[:2], torch.ones(25))
    torch.testing.assert_close(moved.params["body_pose"], alone.params["body_pose"], atol=0.05, rtol=0)
    torch.testing.assert_close(moved.camera.scale, 3 * alone.camera.scale, rtol=0.02, atol=0)


def test_a_known_camera_places_the_body_in_the_world():
    points, camera, pixels = scene()
    solution = fit_keypoints(low_body(), pixels, torch.ones(25), camera=camera)
    assert solution.camera is camera
    found = low_body().keypoints(regressor("openpose25"), **solution.params)
    assert pa_mpjpe(found, points).mean() < 60
    assert (camera.project(found) - pixels).norm(dim=-1).mean() < 4
    torch.testing.assert_close((camera.project(found) - pixels).norm(dim=-1), solution.residuals, atol=0.05, rtol=1e-3)
    # Along the optical axis distance and stature trade off; across it the place is known.
    up = axis_angle_to_matrix(solution.params["global_orient"])[:, :, 1]
    assert (up[:, 1] > 0.9).all()
    assert (found.mean(1) - points.mean(1))[:, 1].abs().max() < 0.2


def test_frames_of_a_sequence_share_betas_and_move_smoothly():
    points, camera, pixels = scene()
    loose = fit_keypoints(low_body(), pixels, torch.ones(25), camera=camera)
    tied = fit_keypoints(low_body(), pixels, torch.ones(25), camera=camera, sequence=True)
    assert (tied.params["betas"] == tied.params["betas"][:1]).all()
    assert tied.params["betas"].shape == (FRAMES, 16)

    def roughness(solution):
        return solution.params["body_pose"].diff(n=2, dim=0).square().sum()

    assert roughness(tied) < 0.6 * roughness(loose)
    found = low_body().keypoints(regressor("openpose25"), **tied.params)
    assert pa_mpjpe(found, points).mean() < 60


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("sequence", [False, True])
def test_a_fit_resumes_where_another_ended(known, sequence):
    _, camera, pixels = scene()
    camera = camera if known else None
    first = fit_keypoints(low_body(), pixels, torch.ones(25), camera=camera, sequence=sequence, steps=150)
    again = fit_keypoints(low_body(), pixels, torch.ones(25), camera=camera, sequence=sequence, init=first, steps=0)
    for name in first.params:
        torch.testing.assert_close(again.params[name], first.params[name], atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(again.residuals, first.residuals, atol=0.2, rtol=1e-2)
    further = fit_keypoints(low_body(), pixels, torch.ones(25), camera=camera, sequence=sequence, init=first, steps=60)
    assert (further.loss <= again.loss + 1e-4).all()


def test_a_bad_sample_comes_back_finite_and_changes_no_other():
    _, _, pixels = scene()
    broken, confidence = pixels.clone(), torch.ones(FRAMES, 25)
    broken[1, 4, 0] = float("nan")
    confidence[2] = 0
    confidence[3, 1:] = 0
    confidence[4, 7] = float("nan")
    solution = fit_keypoints(low_body(), broken, confidence)
    expected = [Status.INVALID if frame in (1, 2, 3) else Status.CONVERGED for frame in range(FRAMES)]
    assert [status == Status.INVALID for status in solution.status.tolist()] == [e == Status.INVALID for e in expected]
    assert all(value.isfinite().all() for value in solution.params.values())
    assert all(value.isfinite().all() for value in solution.camera)
    assert solution.residuals[4, 7].isnan() and solution.residuals[2].isnan().all()
    for frame in (0, 5, 6, 7):
        alone = plain_fit().params["body_pose"][frame]
        torch.testing.assert_close(solution.params["body_pose"][frame], alone, atol=1e-3, rtol=0)


def test_what_is_missing_has_no_say():
    _, _, pixels = scene()
    confidence = torch.ones(25)
    confidence[[4, 11]] = 0
    wild = pixels[:1].clone()
    wild[:, [4, 11]] = torch.tensor([float("nan"), 1e9])
    clean = fit_keypoints(low_body(), pixels[:1], confidence)
    assert torch.equal(fit_keypoints(low_body(), wild, confidence).params["body_pose"], clean.params["body_pose"])


def test_one_gross_outlier_does_not_spoil_the_rest():
    _, _, pixels = scene()
    wrong = pixels[:2].clone()
    wrong[:, 4] += 250
    solution = fit_keypoints(low_body(), wrong, torch.ones(25))
    others = [index for index in range(25) if index != 4]
    assert solution.residuals[:, others].mean() < 10


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_every_facing_is_found(degrees):
    turn = torch.tensor([0.0, degrees / 180 * torch.pi, 0.0])
    arguments = {name: value[0] for name, value in walking().items()} | {"global_orient": turn}
    points = low_body().keypoints(regressor("coco17"), **arguments)
    pixels = 200 * points[:, :2] * torch.tensor([1.0, -1.0]) + 300
    solution = fit_keypoints(low_body(), pixels, torch.ones(17), keypoint_set="coco17")
    half_turn = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    found = half_turn @ axis_angle_to_matrix(solution.params["global_orient"])
    error = matrix_to_axis_angle(found.mT @ axis_angle_to_matrix(turn)).norm().rad2deg()
    assert error < 35


def test_a_person_upside_down_is_found():
    points = low_body().keypoints(regressor("coco17"), body_pose=walking()["body_pose"][0])
    pixels = 200 * points[:, :2] * torch.tensor([-1.0, 1.0]) + 300
    solution = fit_keypoints(low_body(), pixels, torch.ones(17), keypoint_set="coco17")
    assert solution.residuals.mean() < 6


def test_a_segment_scale_model_fits_segment_scales():
    _, _, pixels = scene()
    model = BodyModel(segment_scale_model(open_body("low")))
    solution = fit_keypoints(model, pixels[:2], torch.ones(25))
    assert solution.params["segment_scale"].shape == (2, 24) and "betas" not in solution.params
    assert (solution.params["segment_scale"] - 1).abs().max() < 0.3
    assert model(**solution.params).joints.shape == (2, 24, 3)
    assert solution.residuals.mean() < 6
    axes = BodyModel(segment_scale_model(open_body("low"), per_axis=True))
    assert fit_keypoints(axes, pixels[0], torch.ones(25), steps=30).params["segment_scale"].shape == (24, 3)


@pytest.mark.parametrize("family", ["smplh", "smplx", "star"])
def test_other_families_are_fitted_too(family):
    model = BodyModel(synthetic_model(family, num_vertices=80))
    made = KeypointRegressor("coco17", model.data)
    pixels = 100 * model.keypoints(made)[:, :2] * torch.tensor([1.0, -1.0]) + 200
    solution = fit_keypoints(model, pixels, torch.ones(17), keypoint_set="coco17", steps=40)
    assert solution.params["body_pose"].shape[-2] == (23 if family == "star" else 21)
    assert solution.residuals[made.valid].isfinite().all()


@pytest.mark.parametrize("batch", [(), (1,), (2, 2), (0,)])
def test_any_batch(batch):
    _, _, pixels = scene()
    some = pixels[: max(1, torch.Size(batch).numel())].reshape(-1, 25, 2)[: torch.Size(batch).numel()]
    solution = fit_keypoints(low_body(), some.reshape(*batch, 25, 2), torch.ones(25), steps=12)
    assert solution.params["body_pose"].shape == (*batch, 23, 3)
    assert solution.camera.scale.shape == batch
    assert solution.residuals.shape == (*batch, 25)


def test_float64_and_any_input_type():
    model = BodyModel(open_body("low"), dtype=torch.float64)
    _, _, pixels = scene()
    solution = fit_keypoints(model, pixels[0].float(), torch.ones(25, dtype=torch.float16), steps=12)
    assert {value.dtype for value in solution.params.values()} == {torch.float64}


def test_the_callback_counts_the_steps_that_are_taken():
    seen = []
    _, _, pixels = scene()
    solution = fit_keypoints(low_body(), pixels[0], torch.ones(25), steps=20, callback=lambda *step: seen.append(step))
    assert seen == [(step, 20) for step in range(1, solution.steps + 1)]
    assert 0 < solution.steps <= 20


def test_weights_change_the_fit():
    _, _, pixels = scene()
    stiff = fit_keypoints(low_body(), pixels[:1], torch.ones(25), weights=KeypointWeights(shape=1e6))
    assert stiff.params["betas"].abs().max() < 0.05 < plain_fit().params["betas"][0].abs().max()


def test_wrong_input_is_refused_by_name():
    model, ones = low_body(), torch.ones(25)
    with refuses("keypoints"):
        fit_keypoints(model, torch.zeros(17, 2), ones)
    with refuses("confidence"):
        fit_keypoints(model, torch.zeros(25, 2), torch.ones(17))
    with refuses("keypoints"):
        fit_keypoints(model, torch.zeros(25, 2), ones, sequence=True)
    with refuses("model"):
        fit_keypoints(BodyModel(synthetic_model("mano", num_vertices=60)), torch.zeros(21, 2), torch.ones(21))
    with refuses("init"):
        fit_keypoints(model, torch.zeros(3, 25, 2), ones, init=plain_fit())
    with refuses("init"):
        fit_keypoints(model, scene()[2], ones, init=plain_fit(), camera=scene()[1])
    with pytest.raises(ValueError, match=r"camera.focal: expected a batch that broadcasts to \(8,\), got \(3,\)"):
        camera = scene()[1]._replace(focal=torch.full((3, 2), 1000.0))
        fit_keypoints(model, scene()[2], ones, camera=camera)


REAL_FILES = (
    "openpose/spin_im1010_body25_hands_face.json",
    "openpose/hmr_random_coco18_v1.0_2people.json",
    "openpose/signer_000.json",
    "coco/person_keypoints_2images.json",
)


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_people_are_fitted(shared_data, name):
    people = load_keypoints(shared_data / name)
    solution = fit_keypoints(low_body(), people.points, people.confidence, keypoint_set=people.keypoint_set)
    enough = (people.confidence > 0).sum(-1) >= 6
    assert enough.any()
    assert all(value[enough].isfinite().all() for value in solution.params.values())
    for person in enough.nonzero().flatten().tolist():
        seen = people.confidence[person] > 0
        confident = people.confidence[person] > 0.3
        diagonal = (people.points[person][seen].amax(0) - people.points[person][seen].amin(0)).norm()
        assert solution.residuals[person][confident].mean() < 0.04 * diagonal
        pose = solution.params["body_pose"][person]
        outside = degrees_outside_limits(pose)
        assert outside.max() < 15
        # Bent backward: a knee with negative x; a left elbow with positive y, a right one with negative.
        backward = torch.stack((-pose[3, 0], -pose[4, 0], pose[17, 1], -pose[18, 1]))
        assert backward.max().rad2deg() < 10


def test_each_view_of_a_real_person_gives_a_plausible_body(shared_data):
    points, names = multiview_points(shared_data)
    points = points[::4]
    views = torch.stack([camera.project(points) for camera in multiview_cameras(shared_data)])
    pixels, confidence = in_set(views, names, "openpose25b")
    solution = fit_keypoints(low_body(), pixels, confidence, keypoint_set="openpose25b")
    found = low_body().keypoints(regressor("openpose25b"), **solution.params)
    order = keypoint_set("openpose25b").names
    error = pa_mpjpe(
        found[..., [order.index(name) for name in LIMBS], :],
        points[:, [names.index(name) for name in LIMBS]].expand(4, -1, -1, -1),
    )
    assert error.mean() < 100
    assert error.mean(-1).max() < 100
