"""Cameras under torch.compile, vmap, jacfwd and jacrev."""

import pytest
import torch
from physique.cameras import (
    Crop,
    PerspectiveCamera,
    WeakPerspectiveCamera,
    full_translation_to_hmr,
    hmr_to_full_translation,
    look_at,
    opencv_to_opengl,
    opencv_to_pytorch3d,
    opengl_to_opencv,
    perspective_to_weak,
    pytorch3d_to_opencv,
    translation_from_points,
    weak_to_perspective,
)
from torch.func import jacfwd, jacrev, vmap
from torch.testing import assert_close

# Forward mode loads torch's own scripted decompositions, which warn that scripting is deprecated.

SIZE = (640.0, 480.0)


def weak(camera, points):
    return WeakPerspectiveCamera.from_hmr(camera, 224).project(points)


def everything(camera, points):
    """HMR's crop camera into the full image, through every convention and back, then a fit of the translation."""
    arguments = dict(box_center=(300.0, 200.0), box_size=200.0, focal=1000.0, image_center=(320.0, 240.0))
    translation = hmr_to_full_translation(camera, **arguments)
    camera = full_translation_to_hmr(translation, **arguments)
    crop = Crop.from_box(camera.new_tensor([300.0, 200.0]), 200.0, 224, flip=True)
    full = crop.inverse().crop_camera(WeakPerspectiveCamera.from_hmr(camera, 224))
    perspective = weak_to_perspective(full, focal=1000.0, center=(320.0, 240.0))
    perspective = opengl_to_opencv(opencv_to_opengl(perspective, SIZE), SIZE)
    perspective = pytorch3d_to_opencv(opencv_to_pytorch3d(perspective, SIZE), SIZE)
    pixels = perspective.project(points)
    return translation_from_points(points, pixels, focal=1000.0, center=(320.0, 240.0)), perspective_to_weak(
        perspective
    )


def lens(camera, points):
    eye = torch.cat([camera[..., 1:], 4 + camera[..., :1]], dim=-1)
    rotation, translation = look_at(eye, torch.zeros_like(eye))
    pair = camera.new_full((2,), 1000.0)
    distortion = camera.new_tensor([-0.2, 0.1, 1e-3, 1e-3, 0.01])
    view = PerspectiveCamera(pair, pair / 2, rotation, translation, distortion)
    pixels = view.project(points)
    return pixels, view.unproject(pixels, view.to_camera(points)[..., 2])


FUNCTIONS = [weak, everything, lens]


@pytest.fixture
def arguments():
    camera = torch.tensor([0.9, 0.1, 0.2], dtype=torch.float64) + 0.1 * torch.rand(3, 3, dtype=torch.float64)
    return camera, torch.randn(3, 5, 3, dtype=torch.float64)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_compiled_in_one_graph_it_is_the_same(function, arguments):
    assert_close(torch.compile(function, fullgraph=True, backend="eager")(*arguments), function(*arguments))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_vmap_is_the_batch(function, arguments):
    assert_close(vmap(function)(*arguments), function(*arguments))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_forward_and_reverse_jacobians_agree(function, arguments):
    one = [argument[0] for argument in arguments]
    assert_close(jacfwd(function, argnums=(0, 1))(*one), jacrev(function, argnums=(0, 1))(*one))


def test_a_camera_is_a_pytree_for_vmap(arguments):
    _, points = arguments
    camera = PerspectiveCamera(
        torch.ones(3, 2).double(), torch.zeros(3, 2).double(), torch.eye(3).double().expand(3, 3, 3), points[:, 0]
    )
    got = vmap(PerspectiveCamera.project, in_dims=(PerspectiveCamera(0, 0, 0, 0, None), 0))(camera, points)
    assert_close(got, camera.project(points))
    flat = WeakPerspectiveCamera(points[:, 0, 0], points[:, 0, :2])
    assert_close(vmap(WeakPerspectiveCamera.project)(flat, points), flat.project(points))
