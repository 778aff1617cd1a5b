"""Made correspondences are what they say: visible, with the promised shares of errors, and mirrored exactly."""

import functools

import pytest
import torch
from physique.bodymodel import BodyModel, SurfacePoints, open_body
from physique.cameras import WeakPerspectiveCamera
from physique.geometry import axis_angle_to_matrix, matrix_to_axis_angle
from physique.testing.correspondences import mirror_surface, synthetic_correspondences
from torch.testing import assert_close

COUNT = 400


@functools.cache
def low_body():
    return BodyModel(open_body("low"))


@functools.cache
def scene():
    """Two people, from the front and from half behind."""
    turn = torch.tensor([[0.0, 0.2, 0.0], [0.0, 2.3, 0.0]])
    view = axis_angle_to_matrix(torch.tensor([torch.pi, 0.0, 0.0])) @ axis_angle_to_matrix(turn)
    pose = 0.3 * torch.randn(2, 23, 3, generator=torch.Generator().manual_seed(5))
    params = {"global_orient": matrix_to_axis_angle(view), "body_pose": pose}
    return params, WeakPerspectiveCamera(torch.full((2,), 100.0), torch.full((2, 2), 112.0))


@functools.cache
def made(**settings):
    given = {"noise": 0.0, "swapped": 0.0, "outliers": 0.0, **settings}
    return synthetic_correspondences(low_body(), *scene(), count=COUNT, **given)


def exact_pixels(surface):
    params, camera = scene()
    return camera.project(low_body().points(surface, **params))


def depth_in_front(body, point):
    """How far in front of a point the nearest surface on its ray along z lies, in metres; by trying every triangle."""
    a, b, c = body[low_body().faces].unbind(-2)
    edge1, edge2, offset = (b - a)[:, :2], (c - a)[:, :2], (point - a)[:, :2]
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    v = (offset[:, 0] * edge2[:, 1] - offset[:, 1] * edge2[:, 0]) / area
    w = (edge1[:, 0] * offset[:, 1] - edge1[:, 1] * offset[:, 0]) / area
    hit = (v >= 0) & (w >= 0) & (v + w <= 1)
    depth = a[:, 2] + v * (b - a)[:, 2] + w * (c - a)[:, 2]
    return point[2] - depth[hit].min()


def test_shapes_and_weights():
    correspondences = made()
    assert correspondences.surface.faces.shape == (2, COUNT)
    assert correspondences.surface.barycentric.shape == (2, COUNT, 3)
    assert correspondences.pixels.shape == (2, COUNT, 2)
    assert (correspondences.weight == 1).all()


def test_without_errors_pixels_are_the_projected_points():
    assert_close(made().pixels, exact_pixels(made().surface), atol=1e-3, rtol=0)


def test_points_lie_on_the_surface():
    barycentric = made().surface.barycentric
    assert (barycentric >= 0).all()
    assert_close(barycentric.sum(-1), torch.ones(2, COUNT))


def test_only_visible_points_are_chosen():
    params, _ = scene()
    vertices, points = low_body()(**params).vertices, low_body().points(made().surface, **params)
    gaps = torch.stack([depth_in_front(vertices[i], points[i, k]) for i in range(2) for k in range(0, COUNT, 8)])
    # Depth is compared in cells: what lies less than the tolerance behind, or beside an outline, may pass.
    assert (gaps < 0.05).float().mean() >= 0.98
    assert (gaps > 0.05).sum() <= 2


def test_points_of_the_whole_surface_would_fail_that_test():
    params, _ = scene()
    vertices = low_body()(**params).vertices
    centres = vertices[0][low_body().faces].mean(-2)[::60]
    gaps = torch.stack([depth_in_front(vertices[0], centre) for centre in centres])
    assert (gaps > 0.05).float().mean() > 0.2


def test_noise_has_the_wanted_size():
    noisy = made(noise=3.0)
    error = noisy.pixels - exact_pixels(noisy.surface)
    assert 2.8 < error.std() < 3.2
    assert error.mean(dim=(0, 1)).abs().max() < 0.4


def test_outliers_have_the_wanted_share_and_are_anywhere():
    spoiled = made(outliers=0.2, size=224.0)
    error = (spoiled.pixels - exact_pixels(spoiled.surface)).norm(dim=-1)
    assert 0.15 < (error > 0.5).float().mean() < 0.25
    far = spoiled.pixels[error > 0.5]
    assert (far >= 0).all() and (far <= 224).all()
    assert far.std(0).min() > 50


def test_swaps_touch_hands_and_feet_alone():
    swapped = made(swapped=0.5)
    changed = (swapped.surface.faces != made().surface.faces) | (
        (swapped.surface.barycentric - made().surface.barycentric).abs().amax(-1) > 1e-6
    )
    assert torch.equal(swapped.pixels, made().pixels)
    owner = low_body().lbs_weights.argmax(-1)[low_body().faces[:, 0]][made().surface.faces]
    names = low_body().skeleton.names
    extremity = torch.tensor([any(part in n for part in ("wrist", "hand", "ankle", "foot")) for n in names])[owner]
    assert not (changed & ~extremity).any()
    assert 0.35 < changed[extremity].float().mean() < 0.65


def test_the_same_seed_gives_the_same_points():
    again = synthetic_correspondences(low_body(), *scene(), count=COUNT, noise=0.0, swapped=0.0, outliers=0.0)
    assert torch.equal(again.pixels, made().pixels)
    assert not torch.equal(made(seed=1).pixels, made().pixels)


@pytest.mark.parametrize("detail", ["low", "full"])
def test_mirroring_twice_gives_the_point_and_once_its_mirror_image(detail):
    model = BodyModel(open_body(detail))
    generator = torch.Generator().manual_seed(2)
    faces = torch.randint(len(model.faces), (3, 50), generator=generator)
    barycentric = torch.rand(3, 50, 3, generator=generator)
    surface = SurfacePoints(faces, barycentric / barycentric.sum(-1, keepdim=True))
    mirrored = mirror_surface(model, surface)
    twice = mirror_surface(model, mirrored)
    assert torch.equal(twice.faces, faces)
    assert_close(twice.barycentric, surface.barycentric)
    # at rest the body is its own mirror image
    reflected = model.points(surface) * torch.tensor([-1.0, 1.0, 1.0])
    assert_close(model.points(mirrored), reflected, atol=2e-4, rtol=0)
