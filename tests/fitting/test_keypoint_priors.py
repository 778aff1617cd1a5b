"""A prior takes the place of the relaxed pose in fits to keypoints, and says where they start."""

import functools

import pytest
import torch
from physique.bodymodel import BodyModel, KeypointRegressor, open_body, synthetic_model
from physique.fitting import KeypointWeights, Status, fit_keypoints
from physique.losses.metrics import pa_mpjpe
from physique.priors import GaussianMixturePrior, PoseVAE
from refusals import refuses


@functools.cache
def low_body() -> BodyModel:
    return BodyModel(open_body("low"))


def walks(count):
    """Poses of people who walk, each in another phase."""
    phase = torch.linspace(0, 2 * torch.pi, count + 1)[:-1]
    pose = torch.zeros(count, 23, 3)
    pose[:, 15, 2], pose[:, 16, 2] = -1.1, 1.1
    pose[:, 17, 1], pose[:, 18, 1] = -0.8 - 0.4 * phase.sin(), 0.8 - 0.4 * phase.sin()
    pose[:, 0, 0], pose[:, 1, 0] = -0.5 * phase.sin(), 0.5 * phase.sin()
    pose[:, 3, 0], pose[:, 4, 0] = 0.6 - 0.5 * phase.cos(), 0.6 + 0.5 * phase.cos()
    pose[:, 15, 0], pose[:, 16, 0] = 0.5 * phase.sin(), -0.5 * phase.sin()
    return pose


@functools.cache
def mixture():
    return GaussianMixturePrior.fit(walks(60), 4, seed=0, floor=0.1)


@functools.cache
def scene():
    """Keypoints (5, 17, 3) of people who walk, seen from the front, and pixels with 2 px noise."""
    regressor = KeypointRegressor("coco17", low_body().data)
    points = low_body().keypoints(regressor, body_pose=walks(7)[1:6])
    noise = 2 * torch.randn(5, 17, 2, generator=torch.Generator().manual_seed(0))
    return points, 100 * points[..., :2] * torch.tensor([1.0, -1.0]) + 112 + noise


def fitted(pixels, **options):
    return fit_keypoints(low_body(), pixels, torch.ones(17), keypoint_set="coco17", **{"steps": 90, **options})


class Pull:
    """Holds every joint to one pose."""

    def __init__(self, pose):
        self.pose = pose

    def energy(self, body_pose):
        return (body_pose - self.pose).square().sum((-2, -1))


def test_a_prior_that_knows_such_poses_finds_their_depth():
    points, pixels = scene()
    regressor = KeypointRegressor("coco17", low_body().data)

    def error(**options):
        found = low_body().keypoints(regressor, **fitted(pixels, **options).params)
        return 1000 * pa_mpjpe(found, points).mean()

    assert error(prior=mixture()) < 0.75 * error(weights=KeypointWeights(pose=0.0))


def test_any_object_with_an_energy_is_a_prior():
    _, pixels = scene()
    pose = 0.1 * torch.ones(23, 3)
    solution = fitted(pixels, prior=Pull(pose), weights=KeypointWeights(prior=1e4, limits=0.0))
    assert (solution.params["body_pose"] - pose).abs().max() < 0.03


def test_the_relaxed_pose_has_no_say_beside_a_prior():
    _, pixels = scene()
    first, second = (
        fitted(pixels[:2], prior=Pull(torch.zeros(23, 3)), weights=KeypointWeights(pose=weight))
        for weight in (0.0, 1e6)
    )
    assert torch.equal(first.params["body_pose"], second.params["body_pose"])


def test_fits_start_in_the_poses_of_the_prior_or_in_those_given():
    _, pixels = scene()
    still = fitted(pixels, steps=0, prior=mixture())
    distance = (still.params["body_pose"].unsqueeze(1) - mixture().start_poses).flatten(-2).norm(dim=-1)
    assert (distance.amin(1) == 0).all()
    starts = walks(3)
    given = fitted(pixels, steps=0, prior=mixture(), starts=starts).params["body_pose"]
    assert ((given.unsqueeze(1) - starts).flatten(-2).norm(dim=-1).amin(1) == 0).all()
    alone = fitted(pixels, steps=0, starts=starts[:1, :21]).params["body_pose"]
    assert torch.equal(alone[:, :21], starts[:1, :21].expand(5, -1, -1)) and not alone[:, 21:].any()


def test_more_starts_than_are_followed_end_no_worse():
    _, pixels = scene()
    one = fitted(pixels, prior=mixture(), starts=mixture().start_poses[:1])
    many = fitted(pixels, prior=mixture(), starts=torch.cat((mixture().start_poses, walks(8))))
    assert many.loss.mean() <= one.loss.mean() + 1e-3
    assert many.history.shape[1:] == (5,)


def test_a_bad_sample_comes_back_finite_and_changes_no_other():
    _, pixels = scene()
    broken = pixels.clone()
    broken[1, 4, 0] = float("nan")
    solution, whole = fitted(broken, prior=mixture()), fitted(pixels, prior=mixture())
    assert solution.status[1] == Status.INVALID
    assert solution.params["body_pose"].isfinite().all()
    for person in (0, 2, 3, 4):
        torch.testing.assert_close(
            solution.params["body_pose"][person], whole.params["body_pose"][person], atol=1e-3, rtol=0
        )


@pytest.mark.parametrize("batch", [(), (2, 2), (0,)])
def test_any_batch(batch):
    _, pixels = scene()
    count = torch.Size(batch).numel()
    solution = fitted(pixels[: max(count, 1)][:count].reshape(*batch, 17, 2), prior=mixture(), steps=12)
    assert solution.params["body_pose"].shape == (*batch, 23, 3)


def test_a_sequence_and_a_resumed_fit_take_a_prior():
    _, pixels = scene()
    first = fitted(pixels, prior=mixture(), sequence=True)
    assert (first.params["betas"] == first.params["betas"][:1]).all()
    again = fitted(pixels, prior=mixture(), sequence=True, init=first, steps=0)
    torch.testing.assert_close(again.params["body_pose"], first.params["body_pose"], atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(again.loss, first.loss, atol=0.1, rtol=1e-3)


def test_other_families_and_autoencoders():
    model = BodyModel(synthetic_model("smplx", num_vertices=80))
    made = KeypointRegressor("coco17", model.data)
    pixels = 100 * model.keypoints(made)[:, :2] * torch.tensor([1.0, -1.0]) + 200
    torch.manual_seed(0)
    for prior in (mixture(), PoseVAE(16, 4).eval()):
        solution = fit_keypoints(model, pixels, torch.ones(17), keypoint_set="coco17", prior=prior, steps=12)
        assert solution.params["body_pose"].shape == (21, 3)
        assert solution.params["body_pose"].isfinite().all()
        # Nothing is left behind in the prior.
        assert all(parameter.grad is None for parameter in prior.parameters())


class Reduces:
    def energy(self, body_pose):
        return body_pose.square().sum()


def test_wrong_priors_and_starts_are_refused_by_name():
    _, pixels = scene()
    with refuses("prior", TypeError):
        fitted(pixels, prior=torch.nn.Linear(69, 1))
    with refuses("prior", TypeError):
        fitted(pixels, prior="gmm")
    with refuses("prior"):
        fitted(pixels, prior=Reduces(), starts=walks(2))
    with refuses("prior"):
        fitted(pixels, prior=GaussianMixturePrior().double())
    with refuses("starts"):
        fitted(pixels, starts=walks(2)[0])
    with refuses("starts"):
        fitted(pixels, starts=walks(2)[:, :20])
    with refuses("starts"):
        fitted(pixels, starts=walks(2)[:0])
    with refuses("starts"):
        fitted(pixels, starts=walks(2) + torch.nan)
