"""Translation from matching points: exact where it can be, defined where it cannot."""

import numpy as np
import pytest
import torch
from oracles import cameras as oracle
from physique.cameras import PerspectiveCamera, translation_from_points
from refusals import refuses
from torch.testing import assert_close

DOUBLE = torch.float64
FOCAL, CENTER = 1000.0, (320.0, 240.0)


def project(points, translation, focal=FOCAL):
    eye = torch.eye(3, dtype=points.dtype)
    pair = torch.full((2,), focal, dtype=points.dtype)
    return PerspectiveCamera(pair, torch.tensor(CENTER, dtype=points.dtype), eye, translation).project(points)


@pytest.fixture
def translation():
    return torch.tensor([0.3, -0.2, 6.0], dtype=DOUBLE) + torch.rand(4, 3, dtype=DOUBLE)


def test_exact_points_give_the_exact_translation(points, translation):
    assert_close(translation_from_points(points, project(points, translation), focal=FOCAL, center=CENTER), translation)


def test_two_points_suffice(points, translation):
    pair = points[:, :2]
    assert_close(translation_from_points(pair, project(pair, translation), focal=FOCAL, center=CENTER), translation)


def test_noisy_points_give_the_least_squares_of_spin(points, translation):
    pixels = project(points, translation) + 5 * torch.randn(4, 7, 2, dtype=DOUBLE)
    confidence = torch.rand(4, 7, dtype=DOUBLE)
    got = translation_from_points(points, pixels, confidence, focal=FOCAL, center=CENTER)
    samples = zip(points.numpy(), pixels.numpy(), confidence.numpy(), strict=True)
    assert_close(got, torch.from_numpy(np.stack([oracle.estimate_translation(*s, FOCAL, CENTER) for s in samples])))


def test_scaling_all_confidences_changes_nothing(points, translation):
    pixels = project(points, translation) + 5 * torch.randn(4, 7, 2, dtype=DOUBLE)
    confidence = torch.rand(4, 7, dtype=DOUBLE)
    one, other = (
        translation_from_points(points, pixels, c, focal=FOCAL, center=CENTER) for c in (confidence, 1e-12 * confidence)
    )
    assert_close(one, other)


def test_invisible_points_have_no_say_and_no_gradient(points, translation):
    pixels = project(points, translation)
    confidence = torch.ones(4, 7, dtype=DOUBLE)
    confidence[:, 5:] = 0
    broken, bodies = pixels.clone(), points.clone()
    broken[:, 5:] = float("nan")
    bodies[:, 5:] = float("nan")
    focal = torch.tensor(FOCAL, dtype=DOUBLE)
    leaves = [leaf.requires_grad_() for leaf in (bodies, broken, confidence, focal)]
    got = translation_from_points(*leaves[:3], focal=focal, center=CENTER)
    assert_close(got, translation)
    gradients = torch.autograd.grad(got.sum(), leaves)
    assert all(g.isfinite().all() for g in gradients)
    assert (gradients[1][:, 5:] == 0).all()


def test_nothing_visible_gives_one_metre_ahead(points):
    confidence = torch.zeros(4, 7, dtype=DOUBLE)
    got = translation_from_points(points, points[..., :2], confidence, focal=FOCAL, center=CENTER)
    assert_close(got, torch.tensor([0.0, 0.0, 1.0], dtype=DOUBLE).expand(4, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_visible_point_lies_on_its_ray_at_one_metre_with_finite_gradients(dtype):
    point = torch.tensor([[0.1, 0.2, 0.3], [7.0, 8.0, 9.0]], dtype=dtype, requires_grad=True)
    pixel = torch.tensor([[420.3, 100.7], [0.0, 0.0]], dtype=dtype, requires_grad=True)
    confidence = torch.tensor([0.7, 0.0], dtype=dtype)
    got = translation_from_points(point, pixel, confidence, focal=FOCAL, center=CENTER)
    assert got[2] == 1
    assert_close(project(point, got)[0], pixel[0])
    assert all(g.isfinite().all() for g in torch.autograd.grad(got.sum(), [point, pixel]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_on_one_pixel_leave_the_depth_at_one_metre(dtype):
    pixel = torch.tensor([500.37, 377.13], dtype=dtype).expand(7, 2)
    got = translation_from_points(torch.randn(7, 3, dtype=dtype), pixel, focal=FOCAL, center=CENTER)
    assert got[2] == 1


def test_float32_is_good_to_a_centimetre_at_fifty_metres():
    """A person in a 224-pixel crop at HMR's focal length of 5000, where the depth is 50 m."""
    points = 0.5 * torch.randn(16, 24, 3, dtype=DOUBLE)
    translation = torch.tensor([0.1, 0.2, 50.0], dtype=DOUBLE).expand(16, 3)
    pixels = project(points, translation, 5000.0)
    got = translation_from_points(points.float(), pixels.float(), focal=5000.0, center=CENTER)
    assert got.dtype == torch.float32
    assert_close(got.double(), translation, atol=1e-2, rtol=0)


def test_translation_is_right_to_second_order():
    points = torch.randn(2, 4, 3, dtype=DOUBLE, requires_grad=True)
    pixels = torch.randn(2, 4, 2, dtype=DOUBLE, requires_grad=True)
    confidence = (0.2 + torch.rand(2, 4, dtype=DOUBLE)).requires_grad_()
    focal = (2 + torch.rand(2, 2, dtype=DOUBLE)).requires_grad_()

    def solve(points, pixels, confidence, focal):
        return translation_from_points(points, pixels, confidence, focal=focal, center=(0.1, 0.2))

    assert torch.autograd.gradcheck(solve, (points, pixels, confidence, focal))
    assert torch.autograd.gradgradcheck(solve, (points, pixels, confidence, focal))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
def test_any_batch_shape_and_broadcasting(batch):
    got = translation_from_points(torch.rand(5, 3), torch.rand(*batch, 5, 2), focal=torch.ones(batch), center=(0, 0))
    assert got.shape == (*batch, 3)


def test_wrong_shapes_are_refused_by_name():
    points, pixels = torch.ones(2, 5, 3), torch.ones(2, 5, 2)
    with refuses("points3d"):
        translation_from_points(pixels, pixels, focal=1.0, center=(0, 0))
    with refuses("points2d"):
        translation_from_points(points, pixels[:, 1:], focal=1.0, center=(0, 0))
    with refuses("confidence"):
        translation_from_points(points, pixels, torch.ones(2, 4), focal=1.0, center=(0, 0))
    with refuses("batch shapes"):
        translation_from_points(points, torch.ones(3, 5, 2), focal=1.0, center=(0, 0))
