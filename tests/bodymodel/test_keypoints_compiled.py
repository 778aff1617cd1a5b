"""Keypoints, hands and landmarks compile without a graph break."""

import numpy as np
import pytest
import torch
from physique.bodymodel import FaceContour, HandPCA, KeypointRegressor, convert_keypoints, synthetic_model


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()


def compiled(function):
    return torch.compile(function, fullgraph=True, backend="aot_eager")


def test_the_regressor_compiles():
    data = synthetic_model("smplx", num_vertices=100)
    regressor = KeypointRegressor("lsp14", data)
    joints, vertices = torch.randn(4, 55, 3), torch.randn(4, len(regressor.vertex_ids), 3)
    torch.testing.assert_close(compiled(regressor)(joints, vertices), regressor(joints, vertices))


def test_conversions_compile():
    points = torch.randn(4, 17, 2)

    def convert(points):
        return convert_keypoints(points, "coco17", "openpose25")

    for got, expected in zip(compiled(convert)(points), convert(points), strict=True):
        assert torch.equal(got, expected)


def test_hands_and_contours_compile():
    random = np.random.default_rng(0)
    hand = HandPCA(random.normal(size=(6, 45)), random.normal(size=45))
    torch.testing.assert_close(compiled(hand)(torch.ones(4, 6)), hand(torch.ones(4, 6)))
    arrays = {
        "dynamic_lmk_faces_idx": random.integers(0, 50, (79, 17)),
        "dynamic_lmk_bary_coords": random.dirichlet(np.ones(3), (79, 17)),
    }
    contour = FaceContour(synthetic_model("flame", num_vertices=100), **arrays)
    rotations = torch.linalg.qr(torch.randn(4, 5, 3, 3)).Q
    for got, expected in zip(compiled(contour)(rotations), contour(rotations), strict=True):
        assert torch.equal(got, expected)
