"""Cropping an image and cropping its camera are one thing."""

import numpy as np
import pytest
import torch
from oracles import cameras as oracle
from physique.cameras import BOX_UNIT, Crop, WeakPerspectiveCamera
from physique.geometry.checks import check_values
from refusals import refuses
from torch.testing import assert_close

DOUBLE = torch.float64
FLIPS = [False, True, torch.tensor([True, False, False, True])]
LENS = torch.tensor([-0.28, 0.07, 1e-2, -2e-2, 0.01, 0.02, -0.01, 0.003], dtype=DOUBLE)


def box(flip, size=300.0, resolution=224):
    return Crop.from_box(300 + 100 * torch.randn(4, 2, dtype=DOUBLE), size, resolution, flip)


@pytest.mark.parametrize("flip", [False, True])
def test_crop_shifts_resizes_and_flips(flip):
    center, size, resolution = np.array([310.0, 205.0]), (400.0, 300.0), (224.0, 256.0)
    pixels = torch.randn(6, 2, dtype=DOUBLE) * 100 + 300
    got = Crop.from_box(torch.from_numpy(center), size, resolution, flip).apply(pixels)
    assert_close(got, torch.from_numpy(oracle.crop_pixels(pixels.numpy(), center, size, resolution, flip)))


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("distortion", [None, LENS[:4], LENS])
def test_cropping_a_perspective_camera_crops_its_image(camera, points, flip, distortion):
    camera = camera._replace(distortion=distortion)
    crop = box(flip, size=(400.0, 300.0))
    assert_close(crop.crop_camera(camera).project(crop.mirror(points)), crop.apply(camera.project(points)))


@pytest.mark.parametrize("flip", FLIPS)
def test_cropping_a_weak_camera_crops_its_image(points, flip):
    camera = WeakPerspectiveCamera(100 + torch.rand(4, dtype=DOUBLE), torch.randn(4, 2, dtype=DOUBLE))
    crop = box(flip)
    with check_values():
        cropped = crop.crop_camera(camera)
    assert_close(cropped.project(crop.mirror(points)), crop.apply(camera.project(points)))


def test_cropped_cameras_keep_a_proper_rotation_and_positive_focal_lengths(camera):
    camera = camera._replace(rotation=camera.rotation * torch.linalg.det(camera.rotation)[:, None, None])
    cropped = box(True).crop_camera(camera)
    assert_close(torch.linalg.det(cropped.rotation), torch.ones(4, dtype=DOUBLE))
    assert (cropped.focal > 0).all()


@pytest.mark.parametrize("flip", FLIPS)
def test_inverse_undoes_points_and_cameras(camera, flip):
    crop, pixels = box(flip), torch.randn(4, 5, 2, dtype=DOUBLE)
    assert_close(crop.inverse().apply(crop.apply(pixels)), pixels)
    back = crop.inverse().crop_camera(crop.crop_camera(camera))
    for got, expected in zip(back[:4], camera[:4], strict=True):
        assert_close(got, expected)


def test_then_composes():
    first, second, pixels = box(True), box(FLIPS[2], 100.0, 64), torch.randn(4, 5, 2, dtype=DOUBLE)
    assert_close(first.then(second).apply(pixels), second.apply(first.apply(pixels)))


def test_flipping_twice_is_nothing():
    flip = Crop.from_box(torch.tensor([320.0, 240.0]), (640, 480), (640, 480), flip=True)
    assert_close(flip.apply(torch.tensor([[0.0, 7.0]])), torch.tensor([[640.0, 7.0]]))
    twice = flip.then(flip)
    assert_close(twice.scale, torch.ones(2))
    assert_close(twice.offset, torch.zeros(2))


def test_box_unit_makes_sides_of_spin_scales():
    crop = Crop.from_box(torch.tensor([500.0, 400.0], dtype=DOUBLE), BOX_UNIT * 1.5, 224)
    corners = torch.tensor([[350.0, 250.0], [650.0, 550.0]], dtype=DOUBLE)
    assert_close(crop.apply(corners), torch.tensor([[0.0, 0.0], [224.0, 224.0]], dtype=DOUBLE))


def test_crop_pixels_and_hmr_form_of_a_box_in_the_full_image():
    """Network output in a crop, put back into the full image, falls where the crop came from."""
    crop = Crop.from_box(torch.tensor([700.0, 300.0]), 448.0, 224)
    in_crop = WeakPerspectiveCamera.from_hmr(torch.tensor([0.9, 0.1, -0.1]), 224)
    points = torch.randn(5, 3)
    in_full = crop.inverse().crop_camera(in_crop)
    assert_close(in_full.project(points), crop.inverse().apply(in_crop.project(points)))


def test_size_zero_is_finite():
    crop = Crop.from_box(torch.zeros(2), 0.0, 224)
    assert crop.scale.isfinite().all() and crop.apply(torch.ones(1, 2)).isfinite().all()


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
def test_any_batch_shape(batch):
    crop = Crop.from_box(
        torch.zeros(*batch, 2), torch.ones(batch), torch.ones(*batch, 2), torch.ones(batch, dtype=torch.bool)
    )
    assert crop.scale.shape == crop.offset.shape == (*batch, 2)
    assert crop.apply(torch.ones(5, 2)).shape == (*batch, 5, 2)


def test_misuse_is_refused_by_name():
    crop = Crop.from_box(torch.zeros(2), (200.0, 100.0), 224)
    with refuses("crop"), check_values():
        crop.crop_camera(WeakPerspectiveCamera(torch.ones(()), torch.zeros(2)))
    with refuses("camera", TypeError):
        crop.crop_camera((torch.ones(()), torch.zeros(2)))
    with refuses("center"):
        Crop.from_box(torch.zeros(3), 100, 224)
    with refuses("size"):
        Crop.from_box(torch.zeros(2, 2), torch.ones(2, 3), 224)
    with refuses("points"):
        crop.apply(torch.zeros(5, 3))
