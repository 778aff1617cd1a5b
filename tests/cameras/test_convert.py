"""Weak-perspective and perspective cameras, crops and full images describe one body."""

import numpy as np
import pytest
import torch
from oracles import cameras as oracle
from physique.cameras import (
    WeakPerspectiveCamera,
    default_focal,
    full_translation_to_hmr,
    hmr_to_full_translation,
    perspective_to_weak,
    weak_to_perspective,
)
from refusals import refuses
from torch.testing import assert_close

DOUBLE = torch.float64


@pytest.fixture
def weak():
    return WeakPerspectiveCamera(100 + 50 * torch.rand(4, dtype=DOUBLE), 300 + 50 * torch.randn(4, 2, dtype=DOUBLE))


FOCALS = [
    5000,
    1000.0,
    torch.tensor([500.0, 1000.0, 2000.0, 5000.0], dtype=DOUBLE),
    torch.tensor([500.0, 1000.0, 2000.0, 5000.0], dtype=DOUBLE)[:, None].expand(4, 2),
]


@pytest.mark.parametrize("focal", FOCALS)
def test_projections_agree_exactly_at_model_depth_zero(weak, points, focal):
    flat = points * torch.tensor([1.0, 1.0, 0.0], dtype=DOUBLE)
    perspective = weak_to_perspective(weak, focal=focal, center=(320.0, 240.0))
    assert_close(perspective.project(flat), weak.project(flat))


@pytest.mark.parametrize("focal", [*FOCALS, (900.0, 1100.0)])
def test_weak_camera_comes_back(weak, focal):
    perspective = weak_to_perspective(weak, focal=focal, center=torch.tensor([320.0, 240.0], dtype=DOUBLE))
    back = perspective_to_weak(perspective)
    assert_close(back.scale, weak.scale)
    assert_close(back.translation, weak.translation)


def test_depth_is_focal_over_scale(weak):
    assert_close(weak_to_perspective(weak, focal=5000, center=(0, 0)).translation[..., 2], 5000 / weak.scale)


def test_weak_camera_at_a_given_depth_agrees_there(camera, points):
    camera = camera._replace(focal=camera.focal[..., :1].expand(4, 2))
    turned = points @ camera.rotation.mT
    turned[..., 2] = 1.5
    world = turned @ camera.rotation
    weak = perspective_to_weak(camera, camera.translation[..., 2] + 1.5)
    assert_close(weak.project(turned), camera.project(world))


def test_longer_focal_lengths_approach_weak_perspective(weak, points):
    gaps = [
        (weak_to_perspective(weak, focal=focal, center=(320, 240)).project(points) - weak.project(points)).abs().max()
        for focal in (1e4, 1e5, 1e6)
    ]
    assert gaps[1] < gaps[0] / 9 and gaps[2] < gaps[1] / 9


def test_translation_in_the_full_image_is_cliffs_formula():
    hmr, box = torch.tensor([0.8, 0.1, -0.2], dtype=DOUBLE), (700.0, 300.0)
    got = hmr_to_full_translation(hmr, box_center=box, box_size=400.0, focal=1500.0, image_center=(960.0, 540.0))
    assert_close(got, torch.from_numpy(oracle.cliff_translation(hmr.numpy(), box, 400.0, 1500.0, (1920, 1080))))


def test_translation_in_the_crop_is_spins_formula():
    got = hmr_to_full_translation(
        torch.tensor([0.8, 0.1, -0.2]), box_center=(112.0, 112.0), box_size=224, focal=5000, image_center=(112.0, 112.0)
    )
    assert_close(got, torch.tensor([0.1, -0.2, 2 * 5000 / (224 * 0.8)]))


def test_hmr_camera_comes_back_from_the_full_image():
    hmr = torch.tensor([0.7, 0.0, 0.0], dtype=DOUBLE) + 0.2 * torch.randn(2, 5, 3, dtype=DOUBLE)
    arguments = dict(
        box_center=500 + 100 * torch.randn(2, 5, 2, dtype=DOUBLE),
        box_size=300 + 100 * torch.rand(2, 5, dtype=DOUBLE),
        focal=1000 + torch.rand(2, 5, dtype=DOUBLE),
        image_center=torch.tensor([640.0, 360.0], dtype=DOUBLE),
    )
    assert_close(full_translation_to_hmr(hmr_to_full_translation(hmr, **arguments), **arguments), hmr)


def test_scale_and_depth_zero_are_finite_with_finite_gradients():
    scale = torch.zeros((), requires_grad=True)
    translation = torch.ones(2, requires_grad=True)
    camera = weak_to_perspective(WeakPerspectiveCamera(scale, translation), focal=5000, center=(112, 112))
    gradients = torch.autograd.grad(camera.translation.sum(), [scale, translation])
    assert camera.translation.isfinite().all() and all(g.isfinite().all() for g in gradients)
    flat = perspective_to_weak(camera._replace(translation=torch.zeros(3)))
    assert flat.scale.isfinite() and flat.translation.isfinite().all()


def test_conversions_are_right_to_second_order():
    scale = (1 + torch.rand(2, dtype=DOUBLE)).requires_grad_()
    translation = torch.randn(2, 2, dtype=DOUBLE, requires_grad=True)
    focal = (2 + torch.rand(2, 2, dtype=DOUBLE)).requires_grad_()

    def there_and_back(scale, translation, focal):
        camera = weak_to_perspective(WeakPerspectiveCamera(scale, translation), focal=focal, center=(0.1, 0.2))
        return camera.translation, *perspective_to_weak(camera, 1.5)

    assert torch.autograd.gradcheck(there_and_back, (scale, translation, focal))
    assert torch.autograd.gradgradcheck(there_and_back, (scale, translation, focal))


def test_default_focal_is_the_diagonal_a_view_of_53_degrees():
    focal = default_focal(torch.tensor([1920.0, 1080.0], dtype=DOUBLE))
    assert focal.item() == pytest.approx(np.hypot(1920, 1080))
    assert 2 * np.degrees(np.arctan(np.hypot(1920, 1080) / 2 / focal.item())) == pytest.approx(53.13, abs=0.01)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
def test_any_batch_shape(batch):
    camera = weak_to_perspective(
        WeakPerspectiveCamera(torch.ones(batch), torch.zeros(*batch, 2)), focal=torch.ones(batch), center=(1, 2)
    )
    assert [tuple(f.shape) for f in camera[:4]] == [(*batch, 2), (*batch, 2), (*batch, 3, 3), (*batch, 3)]
    weak = perspective_to_weak(camera)
    assert weak.scale.shape == batch and weak.translation.shape == (*batch, 2)


def test_two_focal_lengths_of_two_samples_are_one_a_sample():
    """Shape (2,) is a pair of axes only where the camera has no batch."""
    focal = torch.tensor([500.0, 1000.0])
    two = WeakPerspectiveCamera(torch.ones(2), torch.zeros(2, 2))
    one = WeakPerspectiveCamera(torch.ones(()), torch.zeros(2))
    assert_close(weak_to_perspective(two, focal=focal, center=(0, 0)).focal, focal[:, None].expand(2, 2))
    assert_close(weak_to_perspective(one, focal=focal, center=(0, 0)).focal, focal)


def test_one_image_broadcasts_over_its_people():
    hmr = torch.ones(5, 3)
    got = hmr_to_full_translation(
        hmr, box_center=torch.ones(5, 2), box_size=torch.ones(5), focal=1.0, image_center=(1, 2)
    )
    assert got.shape == (5, 3)


def test_wrong_shapes_are_refused_by_name(weak):
    with refuses("focal"):
        weak_to_perspective(weak, focal=torch.ones(4, 3), center=(0, 0))
    with refuses("center"):
        weak_to_perspective(weak, focal=1.0, center=torch.ones(4, 3))
    with refuses("translation"):
        full_translation_to_hmr(torch.ones(2), box_center=(1, 1), box_size=1, focal=1, image_center=(1, 1))
    with refuses("image_size"):
        default_focal(torch.ones(3))
