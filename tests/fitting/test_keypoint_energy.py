"""The equations of a keypoint fit have the slope of its energy, for every camera, shape and prior, over time too."""

import pytest
import torch
from physique.bodymodel import BodyModel, KeypointRegressor, default_joint_limits, open_body, segment_scale_model
from physique.bodymodel.data import BodyModelData
from physique.cameras import PerspectiveCamera
from physique.fitting import KeypointWeights, fit_keypoints
from physique.fitting.keypoint_energy import KeypointEnergy
from physique.fitting.keypoint_target import camera_of_frames, keypoint_target, without_place
from physique.fitting.keypoint_unknowns import start_unknowns
from physique.fitting.pose_priors import prior_bends
from physique.fitting.relaxed import relaxed_pose
from physique.fitting.tangent import retract
from physique.priors import GaussianMixturePrior

F64 = torch.float64
ROTATIONS = ("global_orient", "body_pose")


def mixture():
    poses = 0.3 * torch.randn(40, 23, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    return GaussianMixturePrior.fit(poses, 2, seed=0)


def made(data: BodyModelData, length: int, known: bool, prior: GaussianMixturePrior | None):
    """Return an energy of two people and unknowns somewhere in it."""
    generator = torch.Generator().manual_seed(1)
    model = BodyModel(data, dtype=F64)
    regressor = KeypointRegressor("coco17", model.data, dtype=F64)
    rest = model.keypoints(regressor)[:, :2] * torch.tensor([1.0, -1.0], dtype=F64)
    pixels = 100 * rest + 112 + 8 * torch.randn(2, length, 17, 2, dtype=F64, generator=generator)
    camera = None
    if known:
        bent = torch.tensor([0.1, -0.05, 0.001, 0.002], dtype=F64)
        camera = PerspectiveCamera(
            torch.tensor([400.0, 410.0], dtype=F64), torch.full((2,), 112.0, dtype=F64), torch.eye(3, dtype=F64),
            torch.zeros(3, dtype=F64), bent,
        )  # fmt: skip
        camera = without_place(camera_of_frames(camera, torch.Size((2, length)), (2, length), pixels))
    seen = torch.rand(2, length, 17, dtype=F64, generator=generator)
    target = keypoint_target(pixels, seen, regressor.valid, camera)
    relaxed = relaxed_pose(model.skeleton, 23, like=pixels)
    energy = KeypointEnergy(
        model, model.keypoint_bases(regressor), regressor.names, target, default_joint_limits(23, dtype=F64), relaxed,
        KeypointWeights(), relaxed.body_pose.unsqueeze(0), prior,
    )  # fmt: skip
    unknowns = {
        name: value[:2] + 0.3 * torch.randn(value[:2].shape, dtype=F64, generator=generator)
        for name, value in start_unknowns(energy).items()
    }
    return energy, unknowns


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("kind", ["betas", "segment_scale", "prior"])
def test_the_slope_of_the_equations_is_that_of_the_energy(kind, known, length):
    data = segment_scale_model(open_body("low")) if kind == "segment_scale" else open_body("low")
    energy, unknowns = made(data, length, known, mixture() if kind == "prior" else None)
    person = torch.arange(2)
    bends = None if energy.prior is None else prior_bends(energy.prior, unknowns["body_pose"])
    equations = energy.equations(unknowns, person, 2.0, bends)
    direction = torch.randn(2, sum(value[0].numel() for value in unknowns.values()), dtype=F64)

    def total(step):
        return energy.total(retract(unknowns, step * direction, ROTATIONS), person, 2.0)

    slope = (total(1e-5) - total(-1e-5)) / 2e-5
    if length == 1:
        along = (equations.slope * direction).sum(-1)
    else:
        # Frames in the order of the step: all of each unknown in turn, then the shape.
        parts = [part.flatten(1) for part in equations.slope.split(equations.sizes, dim=-1)]
        along = (torch.cat((*parts, equations.shared), dim=-1) * direction).sum(-1)
    torch.testing.assert_close(2 * along, slope, rtol=1e-5, atol=1e-4)


def test_no_more_energy_than_first_order_steps_leave():
    class Same:
        """The mixture, but for its residuals."""

        def __init__(self, mixture):
            self.mixture, self.start_poses = mixture, mixture.start_poses

        def energy(self, body_pose):
            return self.mixture.energy(body_pose)

    model, prior = BodyModel(open_body("low"), dtype=F64), mixture()
    regressor = KeypointRegressor("coco17", model.data, dtype=F64)
    generator = torch.Generator().manual_seed(3)
    posed = model.keypoints(regressor, body_pose=prior.sample(3, generator=generator))
    pixels = 100 * posed[..., :2] * torch.tensor([1.0, -1.0], dtype=F64) + 112
    options = {"keypoint_set": "coco17", "throw": False}
    second = fit_keypoints(model, pixels, torch.ones(17), prior=prior, **options)
    first = fit_keypoints(model, pixels, torch.ones(17), prior=Same(prior), **options)
    assert second.loss.mean() <= 1.01 * first.loss.mean()
    assert second.steps < 0.3 * first.steps


def test_steps_are_more_cautious_where_nothing_but_the_image_holds_the_pose():
    one, unknowns = made(open_body("low"), 1, False, mixture())
    bends = prior_bends(one.prior, unknowns["body_pose"])
    several = one._replace(starts=one.starts.expand(2, -1, -1))
    bold, careful = (energy.equations(unknowns, torch.arange(2), 1.0, bends) for energy in (several, one))
    torch.testing.assert_close(careful.slope, bold.slope)
    more = (careful.matrix - bold.matrix).diagonal(dim1=-2, dim2=-1)
    assert (more[:, 3:72] > 1).all() and more[:, :3].abs().max() == more[:, 72:].abs().max() == 0
    pulled = one._replace(prior=None)
    free = pulled._replace(weights=pulled.weights._replace(pose=1e-9))
    left = pulled._replace(weights=pulled.weights._replace(pose=0.0))
    bold, careful = (energy.equations(unknowns, torch.arange(2), 1.0, None) for energy in (free, left))
    torch.testing.assert_close(careful.slope, bold.slope)
    assert ((careful.matrix - bold.matrix).diagonal(dim1=-2, dim2=-1)[:, 3:72] > 1).all()


def test_even_motion_counts_the_same_in_key_frames():
    energy, _ = made(open_body("low"), 9, False, None)
    frames = torch.arange(9, dtype=F64)
    joints = frames.view(1, 9, 1, 1) * torch.randn(24, 3, dtype=F64)
    keys = torch.tensor([[0, 4, 8]] * 2)
    few = energy.at(keys)
    assert torch.equal(few.target.keypoints[1], energy.target.keypoints[1, [0, 4, 8]])
    every = energy._motion(joints).residuals(joints).square().sum() / 8
    some = few._motion(joints[:, keys[0]]).residuals(joints[:, keys[0]]).square().sum() / 2
    torch.testing.assert_close(some, every)
