"""The weak-perspective camera against its formula and HMR's."""

import numpy as np
import pytest
import torch
from oracles import cameras as oracle
from physique.cameras import WeakPerspectiveCamera
from refusals import refuses
from torch.testing import assert_close


def test_projection_is_scale_times_xy_plus_translation(points):
    camera = WeakPerspectiveCamera(torch.rand(4, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64))
    expected = np.stack(
        [oracle.weak(*sample) for sample in zip(points.numpy(), *(f.numpy() for f in camera), strict=True)]
    )
    assert_close(camera.project(points), torch.from_numpy(expected))


def test_hmr_camera_projects_as_hmr_does(points):
    hmr = torch.tensor([0.9, 0.1, -0.2], dtype=torch.float64)
    got = WeakPerspectiveCamera.from_hmr(hmr, 224).project(points[0])
    assert_close(got, torch.from_numpy(oracle.hmr(points[0].numpy(), hmr.numpy(), 224)))


def test_hmr_scale_multiplies_its_translation():
    """The paper's equation adds t after scaling; the released code scales it, and so does this form."""
    camera = WeakPerspectiveCamera.from_hmr(torch.tensor([0.5, 1.0, 0.0]), 200)
    assert_close(camera.project(torch.zeros(1, 3)), torch.tensor([[150.0, 100.0]]))


@pytest.mark.parametrize("size", [224, torch.tensor([100.0, 224.0, 256.0], dtype=torch.float64)])
def test_hmr_form_round_trips(size):
    hmr = torch.randn(3, 3, dtype=torch.float64)
    assert_close(WeakPerspectiveCamera.from_hmr(hmr, size).to_hmr(size), hmr)


def test_hmr_form_of_scale_zero_is_finite_with_finite_gradients():
    scale = torch.zeros((), requires_grad=True)
    translation = torch.tensor([100.0, 120.0], requires_grad=True)
    hmr = WeakPerspectiveCamera(scale, translation).to_hmr(224)
    gradients = torch.autograd.grad(hmr.sum(), [scale, translation])
    assert hmr.isfinite().all() and all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
def test_any_batch_shape(batch):
    camera = WeakPerspectiveCamera(torch.ones(batch), torch.zeros(*batch, 2))
    assert camera.project(torch.zeros(*batch, 5, 3)).shape == (*batch, 5, 2)
    assert camera.project(torch.zeros(5, 3)).shape == (*batch, 5, 2)
    assert camera.to_hmr(224).shape == (*batch, 3)


def test_wrong_shapes_are_refused_by_name():
    camera = WeakPerspectiveCamera(torch.ones(2), torch.zeros(2, 2))
    with refuses("points"):
        camera.project(torch.zeros(2, 5, 2))
    with refuses("camera"):
        WeakPerspectiveCamera.from_hmr(torch.zeros(2, 4), 224)
    with refuses("size", TypeError):
        camera.to_hmr("224")
