"""Laws that hold for every camera: round trips, crops, mirror and the depth that projection forgets."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from physique.cameras import (
    Crop,
    PerspectiveCamera,
    WeakPerspectiveCamera,
    distort,
    full_translation_to_hmr,
    hmr_to_full_translation,
    perspective_to_weak,
    translation_from_points,
    undistort,
    weak_to_perspective,
)
from torch.testing import assert_close


def number(low, high):
    return st.floats(low, high, allow_subnormal=False)


def tensor(*ranges):
    return st.tuples(*(number(*r) for r in ranges)).map(lambda values: torch.tensor(values, dtype=torch.float64))


pixels = tensor((-2000, 4000), (-2000, 4000))
weak_cameras = st.builds(
    lambda values: WeakPerspectiveCamera(values[0], values[1:]), tensor((0.1, 1e4), (-5000, 5000), (-5000, 5000))
)
worlds = st.lists(tensor((-2, 2), (-2, 2), (-2, 2)), min_size=1, max_size=5).map(torch.stack)
focals = tensor((50, 1e4), (50, 1e4))
quaternions = tensor((-1, 1), (-1, 1), (-1, 1), (0.1, 1)).map(lambda q: q / q.norm())


def turn(q):
    x, y, z, w = q.unbind()
    zero = torch.zeros(())
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
    return torch.eye(3, dtype=torch.float64) + 2 * w * cross + 2 * cross @ cross


perspective_cameras = st.builds(
    PerspectiveCamera, focals, pixels, quaternions.map(turn), tensor((-3, 3), (-3, 3), (5, 50)), st.none()
)
crops = st.builds(
    lambda center, size, resolution, flip: Crop.from_box(center, size, resolution, flip),
    pixels,
    number(1, 4000),
    number(16, 1024),
    st.booleans(),
)


@given(perspective_cameras, worlds, crops)
def test_cropping_the_camera_is_cropping_the_image(camera, points, crop):
    got = crop.crop_camera(camera).project(crop.mirror(points))
    assert_close(got, crop.apply(camera.project(points)), rtol=1e-9, atol=1e-6)


@given(weak_cameras, worlds, crops)
def test_cropping_a_weak_camera_is_cropping_the_image(camera, points, crop):
    got = crop.crop_camera(camera).project(crop.mirror(points))
    assert_close(got, crop.apply(camera.project(points)), rtol=1e-9, atol=1e-6)


@given(crops, crops, pixels)
def test_crops_form_a_group(first, second, pixel):
    both = first.then(second).then(second.inverse()).then(first.inverse())
    assert_close(both.apply(pixel[None]), pixel[None], rtol=1e-6, atol=1e-4)


@given(perspective_cameras, worlds)
def test_points_along_a_ray_share_a_pixel(camera, points):
    seen = camera.to_camera(points)
    farther = camera.unproject(camera.project(points), 3 * seen[..., 2])
    assert_close(camera.project(farther), camera.project(points), rtol=1e-9, atol=1e-6)
    assert_close(camera.to_camera(farther), 3 * seen, rtol=1e-7, atol=1e-7)


@given(perspective_cameras, worlds, number(0.01, 100))
def test_pixels_do_not_know_the_unit_of_length(camera, points, unit):
    scaled = camera._replace(translation=unit * camera.translation)
    assert_close(scaled.project(unit * points), camera.project(points), rtol=1e-8, atol=1e-6)


@given(weak_cameras, number(50, 1e5), pixels, worlds)
def test_weak_and_perspective_agree_where_they_meet(camera, focal, center, points):
    perspective = weak_to_perspective(camera, focal=focal, center=center)
    flat = points * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    visible = perspective.translation[..., 2] > 1e-3
    assert visible
    assert_close(perspective.project(flat), camera.project(flat), rtol=1e-9, atol=1e-6)
    assert_close(tuple(perspective_to_weak(perspective)), tuple(camera), rtol=1e-9, atol=1e-6)


@given(tensor((0.05, 5), (-2, 2), (-2, 2)), pixels, number(10, 2000), number(50, 1e4), pixels)
def test_hmr_camera_survives_the_full_image(hmr, box_center, box_size, focal, image_center):
    arguments = dict(box_center=box_center, box_size=box_size, focal=focal, image_center=image_center)
    back = full_translation_to_hmr(hmr_to_full_translation(hmr, **arguments), **arguments)
    assert_close(back, hmr, rtol=1e-9, atol=1e-7)


@given(
    tensor((-0.3, 0.3), (-0.05, 0.05), (-0.01, 0.01), (-0.01, 0.01), (-0.01, 0.01)), tensor((-0.5, 0.5), (-0.5, 0.5))
)
def test_undistort_undoes_distort(coefficients, point):
    assert_close(undistort(distort(point[None], coefficients), coefficients), point[None], rtol=1e-9, atol=1e-9)


@given(
    worlds.filter(lambda w: len(w) > 2 and w[:, :2].std(0).min() > 0.05),
    tensor((-1, 1), (-1, 1), (5, 60)),
    focals,
    pixels,
)
def test_translation_comes_back_from_its_own_projection(points, translation, focal, center):
    camera = PerspectiveCamera(focal, center, torch.eye(3, dtype=torch.float64), translation)
    got = translation_from_points(points, camera.project(points), focal=focal, center=center)
    assert_close(got, translation, rtol=1e-6, atol=1e-6)
