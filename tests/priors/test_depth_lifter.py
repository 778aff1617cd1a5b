"""The lifter against its oracle, the laws that it keeps by construction, and points that are not seen."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import lifting as oracle
from physique.bodymodel import KEYPOINT_SETS, BodyModel, SurfacePoints, keypoint_set, open_body
from physique.fitting import Correspondences, register_surface
from physique.priors import DepthLifter
from physique.priors.normalised_pose import normalise_pose, root_of
from physique.testing import assert_right_to_second_order
from refusals import refuses
from torch.func import jacfwd, jacrev, vmap
from torch.testing import assert_close

FLIP = list(keypoint_set("coco17").flip)


def make_lifter(name="coco17", width=16, dtype=torch.float64):
    torch.manual_seed(0)
    lifter = DepthLifter(name, width=width).to(dtype)
    torch.nn.init.normal_(lifter.network.last.weight, std=0.5)
    lifter.bone_lengths.copy_(torch.linspace(0.1, 0.5, len(lifter.bone_lengths)))
    return lifter.requires_grad_(False)


def draw(*batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = 100 + 30 * torch.randn(*batch, 17, 2, dtype=torch.float64, generator=generator)
    return points, torch.rand(*batch, 17, dtype=torch.float64, generator=generator)


def test_depths_equal_the_oracle():
    lifter, (points, confidence) = make_lifter(), draw(4)
    confidence = torch.where(confidence < 0.3, 0, confidence)
    confidence[3, [11, 12]] = 0
    state = {name: value.numpy() for name, value in lifter.network.state_dict().items()}
    expected = [
        oracle.depths(state, p, c > 0, lifter.root, FLIP)
        for p, c in zip(points.numpy(), confidence.numpy(), strict=True)
    ]
    assert_close(lifter(points, confidence), torch.from_numpy(np.stack(expected)))


def test_it_has_eight_linear_layers():
    assert sum(isinstance(module, torch.nn.Linear) for module in make_lifter().modules()) == 8


@given(scale=st.floats(0.01, 100), right=st.floats(-1000, 1000), down=st.floats(-1000, 1000))
def test_depths_stay_when_people_move_and_grow_with_them(scale, right, down):
    lifter, (points, confidence) = make_lifter(), draw(2)
    moved = scale * points + points.new_tensor([right, down])
    assert_close(lifter(moved, confidence), scale * lifter(points, confidence), rtol=1e-7, atol=1e-7)


def test_a_mirrored_person_has_mirrored_depths():
    lifter, (points, confidence) = make_lifter(), draw(3)
    mirrored = (points * points.new_tensor([-1, 1]))[:, FLIP]
    assert_close(lifter(mirrored, confidence[:, FLIP]), lifter(points, confidence)[:, FLIP])


def test_the_root_has_depth_0():
    for name in ("coco17", "lsp14", "h36m17", "openpose25", "smpl24"):
        lifter = make_lifter(name)
        depths = lifter(torch.randn(3, lifter.num_keypoints, 2, dtype=torch.float64))
        assert_close(depths[:, list(lifter.root)].mean(-1), torch.zeros(3, dtype=torch.float64))


def test_lifted_points_are_those_seen_with_their_depths():
    lifter, (points, confidence) = make_lifter(), draw(3)
    lifted = lifter.lift(points, confidence)
    assert_close(lifted[..., :2], points - points[:, [11, 12]].mean(1, keepdim=True))
    assert_close(lifted[..., 2], lifter(points, confidence))


@pytest.mark.parametrize("method", ["forward", "lift", "metric_depths"])
def test_what_is_not_seen_tells_nothing(method):
    lifter, (points, confidence) = make_lifter(), draw(3)
    confidence[0, 5], confidence[1, 11], confidence[2, [11, 12]] = 0, -1, torch.nan
    unseen = ~(confidence > 0)
    values = []
    for filler in (0.0, torch.nan):
        leaf = torch.where(unseen.unsqueeze(-1), filler, points).requires_grad_()
        value = getattr(lifter, method)(leaf, confidence)
        (gradient,) = torch.autograd.grad(value.nansum(), leaf)
        assert gradient.isfinite().all() and (gradient[unseen] == 0).all()
        values.append(value.detach())
    assert_close(values[0], values[1], equal_nan=True)
    if method == "metric_depths":
        assert torch.equal(values[0].isnan(), unseen)


def test_metric_depths_give_the_bones_their_total_length():
    lifter, (points, confidence) = make_lifter(), draw(3)
    confidence[:, 9] = 0
    metres, lifted = lifter.metric_depths(points, confidence), lifter.lift(points, confidence)
    scale = metres[:, 0] / lifted[:, 0, 2]
    bones = [(i, bone) for i, bone in enumerate(lifter.bones) if 9 not in bone]
    total = sum((lifted[:, a] - lifted[:, b]).norm(dim=-1) for _, (a, b) in bones)
    assert len(bones) < len(lifter.bones)
    assert_close(scale * total, sum(lifter.bone_lengths[i] for i, _ in bones).expand(3).double())
    assert_close(lifter.metric_depths(7 * points, confidence), metres, equal_nan=True)


def test_a_lifter_without_bone_lengths_knows_no_metres():
    assert DepthLifter("coco17", width=8).metric_depths(torch.randn(17, 2)).isnan().all()


def test_people_without_extent_lie_flat():
    lifter = make_lifter()
    for points, confidence in ((torch.ones(17, 2), torch.ones(17)), (torch.randn(17, 2), torch.zeros(17))):
        leaf = points.double().requires_grad_()
        depths = lifter(leaf, confidence)
        (gradient,) = torch.autograd.grad(depths.sum(), leaf)
        assert depths.isfinite().all() and gradient.isfinite().all()
        assert lifter.metric_depths(leaf, confidence).isnan().all()


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
def test_any_batch_is_its_samples(batch):
    lifter, (points, confidence) = make_lifter(), draw(*batch)
    depths, lifted = lifter(points, confidence), lifter.lift(points, confidence)
    assert depths.shape == (*batch, 17) and lifted.shape == (*batch, 17, 3)
    if depths.numel():
        first = (0,) * len(batch)
        assert_close(depths[first], lifter(points[first], confidence[first]))
        assert_close(lifter(points, confidence[first]), lifter(points, confidence[first].expand(*batch, 17)))
        assert_close(lifter(points[first], confidence), lifter(points[first].expand_as(points), confidence))


def test_derivatives_are_right_in_every_mode():
    lifter, (points, confidence) = make_lifter(width=4), draw(2)
    points = points / 100
    assert_right_to_second_order(lambda p: lifter(p, confidence), points, step=1e-4)
    assert_close(jacfwd(lifter)(points[0]), jacrev(lifter)(points[0]))
    assert_close(vmap(lifter)(points, confidence), lifter(points, confidence))


def test_a_bad_person_leaves_the_others_alone():
    lifter, (points, confidence) = make_lifter(), draw(3)
    bad = points.clone()
    bad[1, 4] = torch.nan
    depths = lifter(bad, torch.ones_like(confidence))
    assert depths[1].isnan().any()
    assert_close(depths[[0, 2]], lifter(points, torch.ones_like(confidence))[[0, 2]])


def test_wrong_keypoints_are_refused():
    lifter = make_lifter()
    with refuses("keypoints"):
        lifter(torch.randn(3, 14, 2, dtype=torch.float64))
    with refuses("confidence"):
        lifter(torch.randn(3, 17, 2, dtype=torch.float64), torch.ones(14))
    with refuses("keypoint_set"):
        DepthLifter("hand21")
    with refuses("keypoint_set"):
        DepthLifter("coco18")


def test_every_set_with_hips_has_a_root():
    with_root = [name for name, points in KEYPOINT_SETS.items() if any("hip" in n for n in points.names)]
    assert len(with_root) > 10
    assert all(root_of(keypoint_set(name)) for name in with_root)


def test_the_unit_is_the_mean_distance_from_the_root():
    points, confidence = draw(3)
    confidence[0, 11], confidence[1, 3] = 0, 0
    pose = normalise_pose(points, confidence, (11, 12))
    for i in range(3):
        expected, origin, size = oracle.normalise(points[i].numpy(), (confidence[i] > 0).numpy(), (11, 12))
        assert_close(pose.points[i], torch.from_numpy(expected))
        assert_close(pose.origin[i], torch.from_numpy(origin))
        assert_close(pose.size[i].item(), float(size))


def test_registration_takes_the_depths():
    model, lifter = BodyModel(open_body("low")), make_lifter(dtype=torch.float32)
    surface = SurfacePoints(torch.arange(0, 3900, 100), torch.full((39, 3), 1 / 3))
    pixels = 100 * model.points(surface)[:, :2] * torch.tensor([1.0, -1.0]) + 112
    points, confidence = draw()
    points, confidence = points.float(), confidence.float()
    depths = lifter.metric_depths(points, confidence)
    seen = Correspondences(surface, pixels, torch.ones(39))
    found = [
        register_surface(
            model, seen, keypoints=points, confidence=confidence, keypoint_set="coco17", depths=given, steps=4
        )
        for given in (depths, None)
    ]
    assert found[0].loss.isfinite() and found[0].loss > found[1].loss, "the depths have a say"
