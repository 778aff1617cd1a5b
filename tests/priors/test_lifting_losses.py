"""Turning views, the verdict of the critic, and facing forward."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import lifting as oracle
from physique.bodymodel import BodyModel, KeypointRegressor, keypoint_set, open_body
from physique.priors import (
    heading_cues,
    heading_loss,
    lifting_critic_loss,
    lifting_generator_loss,
    turn_about_vertical,
    turned_views,
)
from physique.testing import assert_right_to_second_order
from refusals import refuses
from torch.testing import assert_close

CUES = heading_cues(keypoint_set("coco17"))
ANGLES = st.floats(-7, 7)


def people(*batch, seed=0):
    return torch.randn(*batch, 17, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def standing():
    """An upright body in camera axes, facing the camera."""
    data = open_body("low")
    return BodyModel(data).keypoints(KeypointRegressor("coco17", data)) * torch.tensor([1.0, -1.0, -1.0])


def test_turning_and_heading_equal_their_oracles():
    points, angles = people(4), torch.linspace(-3, 3, 4, dtype=torch.float64)
    turned = np.stack([oracle.turn(p, a) for p, a in zip(points.numpy(), angles.tolist(), strict=True)])
    assert_close(turn_about_vertical(points, angles), torch.from_numpy(turned))
    headings = [oracle.heading(p, CUES) for p in points.numpy()]
    assert_close(heading_loss(points, CUES), torch.tensor(headings, dtype=torch.float64))
    assert min(headings) < max(headings)


@given(angle=ANGLES, other=ANGLES)
def test_turns_compose_and_keep_lengths_and_heights(angle, other):
    points = people(3)
    turned = turn_about_vertical(points, torch.tensor(angle, dtype=torch.float64))
    assert_close(turned.norm(dim=-1), points.norm(dim=-1))
    assert_close(turned[..., 1], points[..., 1])
    assert_close(torch.cdist(turned, turned), torch.cdist(points, points), rtol=1e-6, atol=1e-6)
    both = turn_about_vertical(turned, torch.tensor(other, dtype=torch.float64))
    assert_close(both, turn_about_vertical(points, torch.tensor(angle + other, dtype=torch.float64)))


@given(angle=ANGLES)
def test_views_of_a_person_and_of_one_with_depths_negated_are_the_same_set(angle):
    points, angle = people(), torch.tensor([angle], dtype=torch.float64)
    negated = points * points.new_tensor([1, 1, -1])
    assert_close(turned_views(negated, angle), turned_views(points, -angle))


def test_no_turn_is_what_was_seen_and_a_quarter_shows_the_depths():
    points = people(2)
    views = turned_views(points, torch.tensor([0.0, math.pi / 2], dtype=torch.float64))
    assert views.shape == (2, 2, 17, 2)
    assert_close(views[:, 0], points[..., :2])
    assert_close(views[:, 1], points[..., [2, 1]])


def test_a_batch_of_angles_meets_a_batch_of_people():
    points, angles = people(5, 3), torch.rand(3, 4, dtype=torch.float64)
    views = turned_views(points, angles)
    assert views.shape == (5, 3, 4, 17, 2)
    assert_close(views[4, 2, 1], turned_views(points[4, 2], angles[2])[1])
    assert turned_views(points[:0], angles).shape == (0, 3, 4, 17, 2)


@pytest.mark.parametrize("turn", [0.0, 1.0, 3.0, 5.0])
def test_a_body_faces_forward_from_every_side_and_its_depth_flip_backward(turn):
    points = turn_about_vertical(standing(), torch.tensor(turn))
    assert_close(heading_loss(points, CUES), torch.tensor(0.0))
    flipped = points * torch.tensor([1.0, 1.0, -1.0])
    assert heading_loss(flipped, CUES) > 1.9, "two cues, each a right angle the wrong way"


def test_heading_loss_turns_a_flipped_body_round():
    points = (standing() * torch.tensor([1.0, 1.0, -1.0])).requires_grad_()
    nose = keypoint_set("coco17").index("nose")
    turned = turn_about_vertical(points, torch.tensor(0.4))
    (gradient,) = torch.autograd.grad(heading_loss(turned, CUES), points)
    assert gradient.isfinite().all() and gradient[nose].norm() > 0


def test_heading_loss_is_right_to_second_order():
    points = people(3, seed=2)
    assert (heading_loss(points, CUES) > 0).any()
    assert_right_to_second_order(lambda p: heading_loss(p, CUES), points, step=1e-4)


def test_a_point_has_no_heading():
    points = torch.zeros(2, 17, 3, dtype=torch.float64, requires_grad=True)
    loss = heading_loss(points, CUES)
    (gradient,) = torch.autograd.grad(loss.sum(), points)
    assert_close(loss, torch.zeros_like(loss))
    assert_close(gradient, torch.zeros_like(gradient))


@given(real=st.floats(-30, 30), fake=st.floats(-30, 30))
def test_the_losses_are_cross_entropies_of_the_logits(real, fake):
    def probability(logit):
        return 1 / (1 + math.exp(-logit))

    real_, fake_ = torch.tensor([real], dtype=torch.float64), torch.tensor([fake], dtype=torch.float64)
    expected = -math.log(probability(real)) - math.log(probability(-fake))
    assert_close(lifting_critic_loss(real_, fake_).item(), expected, rtol=1e-9, atol=1e-9)
    assert_close(lifting_generator_loss(fake_).item(), -math.log(probability(fake)), rtol=1e-9, atol=1e-9)


def test_no_logit_overflows():
    logits = torch.tensor([-1e30, 1e30], requires_grad=True)
    loss = lifting_critic_loss(logits, -logits) + lifting_generator_loss(logits)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.isfinite().all() and gradient.isfinite().all()


def test_sets_without_a_face_are_refused():
    with refuses("keypoint_set"):
        heading_cues(keypoint_set("lsp14"))


def test_wrong_shapes_are_refused():
    with refuses("points"):
        turned_views(people(2)[..., :2], torch.zeros(2))
    with refuses("batch shapes"):
        turned_views(people(2), torch.zeros(3, 4))
    with refuses("points"):
        heading_loss(people(2)[..., :2], CUES)
