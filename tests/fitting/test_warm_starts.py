"""The solution of one frame starts the next: fewer steps, to the same place; and key frames start a sequence."""

import functools

import pytest
import torch
from physique.bodymodel import BodyModel, KeypointRegressor, open_body
from physique.cameras import PerspectiveCamera, WeakPerspectiveCamera, look_at
from physique.fitting import Solution, Status, fit_joints, fit_keypoints, fit_vertices
from physique.fitting.pose_priors import PosePrior
from physique.geometry import axis_angle_to_matrix, matrix_to_axis_angle
from physique.priors import load_prior
from refusals import refuses

FRAMES = 24


@functools.cache
def low_body() -> BodyModel:
    return BodyModel(open_body("low"))


@functools.cache
def walk():
    """Arguments (T, ...) of one person who turns and swings arms and legs, in camera axes."""
    phase = torch.linspace(0, 4.5, FRAMES)
    pose = torch.zeros(FRAMES, 23, 3)
    pose[:, 15, 2], pose[:, 16, 2] = -1.1, 1.1
    pose[:, 17, 1], pose[:, 18, 1] = -0.6 - 0.4 * phase.sin(), 0.6 - 0.4 * phase.sin()
    pose[:, 0, 0], pose[:, 1, 0] = -0.5 * phase.sin(), 0.5 * phase.sin()
    pose[:, 3, 0], pose[:, 4, 0] = 0.5 - 0.4 * phase.cos(), 0.5 + 0.4 * phase.cos()
    turn = torch.stack((0 * phase, 0.6 + 0.1 * phase, 0 * phase), dim=-1)
    upright = axis_angle_to_matrix(torch.tensor([torch.pi, 0.0, 0.0]))
    betas = 0.7 * torch.randn(16, generator=torch.Generator().manual_seed(3))
    return {
        "betas": betas.expand(FRAMES, 16),
        "global_orient": matrix_to_axis_angle(upright @ axis_angle_to_matrix(turn)),
        "body_pose": pose,
    }


@functools.cache
def pixels():
    """Keypoints (T, 17, 2) of the walk with 1 px noise."""
    model = low_body()
    points = 150 * model.keypoints(KeypointRegressor("coco17", model.data), **walk())[..., :2] + 200
    return points + torch.randn(points.shape, generator=torch.Generator().manual_seed(1))


@functools.cache
def mixture() -> PosePrior:
    return load_prior("gmm")


def fit_pixels(points, **options):
    return fit_keypoints(low_body(), points, torch.ones(17), keypoint_set="coco17", **options)


def stream(fit, frames, *, warm):
    """Return the solutions of frames one by one, each starting from the last where `warm`."""
    solutions = [fit(frames[0])]
    for frame in frames[1:]:
        solutions.append(fit(frame, init=solutions[-1]) if warm else fit(frame))
    return solutions[1:]


def energies_and_steps(fit, frames):
    """Return mean losses and steps of a stream, (2, 2): warm and cold."""
    rows = []
    for warm in (True, False):
        solutions = stream(fit, frames, warm=warm)
        losses = torch.stack([solution.loss for solution in solutions])
        rows.append((float(losses.mean()), sum(solution.steps for solution in solutions) / len(solutions)))
    return rows


def test_a_stream_of_joints_takes_fewer_steps_to_the_same_energy():
    joints = low_body().joints(**walk())[:6]
    (warm, few), (cold, many) = energies_and_steps(lambda x, **init: fit_joints(low_body(), x, **init), joints)
    assert few < many
    assert warm < 1.05 * cold + 0.01


@pytest.mark.parametrize("prior", [None, "gmm"])
def test_a_stream_of_keypoints_takes_half_the_steps_to_about_the_same_energy(prior):
    prior = mixture() if prior else None
    frames = pixels()[:5]
    (warm, few), (cold, many) = energies_and_steps(lambda x, **init: fit_pixels(x, prior=prior, **init), frames)
    assert few < 0.6 * many
    assert warm < 1.1 * cold


def test_a_stream_of_several_people_is_each_for_himself():
    both = pixels()[[0, 12]]
    first = fit_pixels(both)
    after = pixels()[[1, 13]]
    together = fit_pixels(after, init=first)
    alone = fit_pixels(after[1], init=first.select(1))
    torch.testing.assert_close(together.params["body_pose"][1], alone.params["body_pose"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("spoilt", ["nan", "unseen"])
def test_who_is_lost_for_a_frame_stays_as_he_was(spoilt):
    last = fit_pixels(pixels()[0])
    confidence = torch.zeros(17) if spoilt == "unseen" else torch.ones(17)
    points = pixels()[1] if spoilt == "unseen" else torch.full((17, 2), torch.nan)
    lost = fit_keypoints(low_body(), points, confidence, keypoint_set="coco17", init=last)
    assert lost.status == Status.INVALID
    for name, value in last.params.items():
        torch.testing.assert_close(lost.params[name], value)
    torch.testing.assert_close(lost.camera.scale, last.camera.scale)
    torch.testing.assert_close(lost.camera.translation, last.camera.translation)
    assert fit_pixels(pixels()[2], init=lost).residuals.mean() < 4
    joints = torch.full((24, 3), torch.nan)
    held = fit_joints(low_body(), low_body().joints(**{name: value[0] for name, value in walk().items()}))
    torch.testing.assert_close(fit_joints(low_body(), joints, init=held).params, held.params)


def test_the_last_frame_of_a_chunk_starts_all_frames_of_the_next():
    options = {"sequence": True, "prior": mixture()}
    first = fit_pixels(pixels()[:3], **options)
    cold = fit_pixels(pixels()[3:7], **options)
    warm = fit_pixels(pixels()[3:7], init=first.select(slice(-1, None)), **options)
    assert warm.steps < 0.7 * cold.steps
    assert (warm.loss < 1.1 * cold.loss).all()
    vertices = low_body()(**{name: value[:4] for name, value in walk().items()}).vertices
    begun = fit_vertices(low_body(), vertices[:2], sequence=True)
    followed = fit_vertices(low_body(), vertices[2:], sequence=True, init=begun.select(-1))
    assert followed.residuals.max() < 1e-4


def test_a_start_of_other_samples_is_refused():
    joints = low_body().joints(**walk())
    three = fit_joints(low_body(), joints[:3], steps=1)
    for fit in (fit_joints, lambda model, points, init: fit_vertices(model, points, init=init)):
        points = joints[:2] if fit is fit_joints else torch.zeros(2, low_body().data.num_vertices, 3)
        with refuses("init"):
            fit(low_body(), points, init=three)
    with refuses("init"):
        fit_pixels(pixels()[:2], init=fit_pixels(pixels()[:3], steps=2))


def test_key_frames_lead_to_the_energy_of_a_search_of_all_frames(monkeypatch):
    for prior, most, seen in ((None, 1.1, pixels()), (mixture(), 1.03, pixels()[:11])):
        few = fit_pixels(seen, sequence=True, prior=prior)
        monkeypatch.setattr("physique.fitting.keypoint_search.KEY_FRAME_EVERY", FRAMES)
        every = fit_pixels(seen, sequence=True, prior=prior)
        monkeypatch.undo()
        assert few.loss[0] < most * every.loss[0]
        assert few.history.shape == (len(few.history), len(seen))


def test_frames_that_are_not_seen_spoil_no_sequence():
    plain = fit_pixels(pixels(), sequence=True)
    broken = torch.stack((pixels(), pixels(), pixels()))
    # Where the key frames would be; and all but two.
    broken[1, [0, 4, 5, 9, 13, 14, 18, 23]] = torch.nan
    broken[2] = torch.nan
    broken[2, 3:5] = pixels()[3:5]
    solution = fit_pixels(broken, sequence=True)
    lost = broken.isnan().flatten(-2).any(-1)
    assert ((solution.status == Status.INVALID) == lost).all()
    assert all(value.isfinite().all() for value in (*solution.params.values(), *solution.camera))
    torch.testing.assert_close(solution.params["body_pose"][0], plain.params["body_pose"], atol=1e-3, rtol=0)
    assert solution.residuals[1].nanmean() < 1.3 * plain.residuals.mean()
    assert solution.residuals[2].nanmean() < 4
    # Those in between follow their neighbours.
    between = solution.params["body_pose"][1].diff(dim=0).norm(dim=-1)
    assert between.max() < 2 * plain.params["body_pose"].diff(dim=0).norm(dim=-1).max()


@pytest.mark.parametrize("frames", [1, 2, 9, 10, 11])
def test_sequences_of_any_length(frames):
    solution = fit_pixels(pixels()[:frames], sequence=True)
    assert solution.residuals.shape == (frames, 17)
    assert solution.residuals.mean() < 4


def test_select_takes_what_belongs_to_the_samples():
    eye = torch.eye(3)
    shared = PerspectiveCamera(torch.tensor([9.0, 9.0]), torch.zeros(2), eye, torch.zeros(3))
    own = WeakPerspectiveCamera(torch.arange(6.0).view(2, 3), torch.zeros(2, 3, 2))
    numbers = torch.arange(6.0).view(2, 3)
    for camera in (None, shared, own):
        solution = Solution(
            {"x": numbers[..., None].expand(2, 3, 4)},
            numbers,
            5,
            numbers.long(),
            numbers.expand(7, 2, 3),
            camera,
            numbers[..., None].expand(2, 3, 8),
        )
        for index, batch in ((0, (3,)), ((..., -1), (2,)), ((..., slice(-1, None)), (2, 1)), ((1, 2), ())):
            chosen = solution.select(index)
            assert torch.equal(chosen.loss, numbers[index]) and chosen.loss.shape == batch
            assert chosen.params["x"].shape == (*batch, 4) and chosen.residuals.shape == (*batch, 8)
            assert chosen.history.shape == (7, *batch)
            assert torch.equal(chosen.params["x"][..., 0], chosen.loss)
            if camera is own:
                assert torch.equal(chosen.camera.scale, chosen.loss)
            if camera is shared:
                assert chosen.camera.focal.shape == (*batch, 2) and chosen.camera.rotation.shape == (*batch, 3, 3)
    with pytest.raises(IndexError):
        solution.select(5)


def test_a_known_camera_goes_on_too():
    rotation, translation = look_at(torch.tensor([1.0, 0.8, 4.0]), torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))
    camera = PerspectiveCamera(torch.tensor([1200.0, 1200.0]), torch.tensor([500.0, 400.0]), rotation, translation)
    world = {**walk(), "global_orient": torch.tensor([0.0, 0.6, 0.0]).expand(FRAMES, 3)}
    model = low_body()
    seen = camera.project(model.keypoints(KeypointRegressor("coco17", model.data), **world))
    first = fit_pixels(seen[:4], camera=camera, sequence=True)
    after = fit_pixels(seen[4], camera=camera, init=first.select(-1))
    assert after.residuals.mean() < 4
    assert (after.params["transl"] - first.params["transl"][-1]).norm() < 0.3
