import numpy as np
import pytest
import torch
from oracles.rotations import procrustes as procrustes_oracle
from physique.geometry import axis_angle_to_matrix, procrustes
from physique.testing import assert_right_to_second_order
from refusals import refuses
from scipy.spatial.transform import Rotation

DOUBLE = torch.float64


def cloud(*shape):
    return torch.randn(*shape, 3, dtype=DOUBLE)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (0,)])
@pytest.mark.parametrize("weighted", [False, True])
def test_agrees_with_sums_over_points(shape, weighted):
    source, target = cloud(*shape, 9), cloud(*shape, 9)
    weights = torch.rand(*shape, 9, dtype=DOUBLE) if weighted else None
    result = procrustes(source, target, weights=weights)
    assert result.scale.shape == shape and result.rotation.shape == (*shape, 3, 3)
    assert result.translation.shape == (*shape, 3) and result.apply(source).shape == source.shape
    for index in np.ndindex(*shape):
        w = weights[index].numpy() if weights is not None else np.ones(9)
        expected = procrustes_oracle(source[index].numpy(), target[index].numpy(), w)
        for got, want in zip(result, expected, strict=True):
            np.testing.assert_allclose(got[index].numpy(), want, atol=1e-12)


def test_rotation_agrees_with_scipy_when_the_centroids_are_at_the_origin():
    source, target = cloud(8), cloud(8)
    source, target = source - source.mean(0), target - target.mean(0)
    weights = torch.ones(8, dtype=DOUBLE)
    expected, _ = Rotation.align_vectors(target.numpy(), source.numpy(), weights=weights.numpy())
    np.testing.assert_allclose(procrustes(source, target).rotation.numpy(), expected.as_matrix(), atol=1e-12)


@pytest.mark.parametrize("scale", [True, False])
def test_nothing_nearby_aligns_better(scale):
    source, target = cloud(20, 6), cloud(20, 6)
    weights = torch.rand(20, 6, dtype=DOUBLE)

    def error(aligned):
        return (weights * (aligned - target).square().sum(-1)).sum(-1)

    best = procrustes(source, target, weights=weights, scale=scale)
    for size in (1e-3, 0.1, 1.0):
        factor = torch.exp(size * torch.randn(20, dtype=DOUBLE)) if scale else 1.0
        other = best._replace(
            scale=best.scale * factor,
            rotation=best.rotation @ axis_angle_to_matrix(size * torch.randn(20, 3, dtype=DOUBLE)),
            translation=best.translation + size * torch.randn(20, 3, dtype=DOUBLE),
        )
        assert (error(best.apply(source)) < error(other.apply(source))).all()


def test_a_mirror_image_is_not_matched_by_a_reflection():
    source = cloud(30, 7)
    result = procrustes(source, source * torch.tensor([-1.0, 1, 1], dtype=DOUBLE))
    torch.testing.assert_close(torch.linalg.det(result.rotation), torch.ones(30, dtype=DOUBLE))
    assert (result.scale >= 0).all() and (result.scale < 1).all()


def test_without_scale_the_scale_is_one():
    source = cloud(4, 7)
    result = procrustes(source, 3 * source, scale=False)
    assert result.scale.equal(torch.ones(4, dtype=DOUBLE))
    torch.testing.assert_close(result.rotation, torch.eye(3, dtype=DOUBLE).expand(4, 3, 3))


def test_a_point_of_no_weight_has_no_say():
    source, target = cloud(6), cloud(6)
    weights = torch.tensor([1.0, 2, 1, 1, 1, 0], dtype=DOUBLE)
    moved = target.clone()
    moved[-1] += 100
    with_it, without = procrustes(source, moved, weights=weights), procrustes(source, target, weights=weights)
    torch.testing.assert_close(tuple(with_it), tuple(without))


def test_batches_of_points_and_weights_broadcast():
    source, target, weights = cloud(5, 1, 6), cloud(4, 6), torch.rand(6, dtype=DOUBLE)
    result = procrustes(source, target, weights=weights)
    assert result.scale.shape == (5, 4)
    single = procrustes(source[2, 0], target[3], weights=weights)
    torch.testing.assert_close(result.translation[2, 3], single.translation)
    shared = procrustes(cloud(6), cloud(6), weights=torch.rand(3, 6, dtype=DOUBLE))
    assert shared.rotation.shape == (3, 3, 3)


DEGENERATE = {
    "one point": (torch.ones(1, 3), torch.zeros(1, 3), None),
    "coincident source": (torch.full((5, 3), 1.1), torch.randn(5, 3), None),
    "coincident target": (torch.randn(5, 3), torch.full((5, 3), 0.3), None),
    "coincident in both": (torch.full((5, 3), 1.1), torch.full((5, 3), 0.3), None),
    "all zero": (torch.zeros(5, 3), torch.zeros(5, 3), None),
    "zero weights": (torch.randn(5, 3), torch.randn(5, 3), torch.zeros(5)),
    "one weight": (torch.randn(5, 3), torch.randn(5, 3), torch.tensor([0.0, 0, 1, 0, 0])),
    "two points": (torch.randn(2, 3), torch.randn(2, 3), None),
    "on a line": (torch.arange(4.0)[:, None] * torch.ones(3), torch.randn(4, 3), None),
    "no point": (torch.zeros(0, 3), torch.zeros(0, 3), None),
    "tiny": (1e-12 * torch.randn(5, 3), 1e-12 * torch.randn(5, 3), None),
    "huge": (1e9 * torch.randn(5, 3), 1e9 * torch.randn(5, 3), None),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_points_give_a_finite_similarity_with_finite_gradients(name, dtype):
    source, target, weights = (None if x is None else x.to(dtype).requires_grad_() for x in DEGENERATE[name])
    result = procrustes(source, target, weights=weights)
    total = result.scale.sum() + (result.rotation * torch.randn(3, 3)).sum() + result.translation.sum()
    leaves = [leaf for leaf in (source, target, weights) if leaf is not None]
    gradients = torch.autograd.grad(total, leaves)
    assert all(part.isfinite().all() for part in (*result, *gradients))
    assert (result.rotation @ result.rotation.mT - torch.eye(3)).abs().max() < 1e-5


def test_without_weight_or_extent_the_answer_is_plain():
    source, target = torch.randn(5, 3), torch.randn(5, 3)
    nothing = procrustes(source, target, weights=torch.zeros(5))
    assert nothing.apply(source).equal(source)
    single = procrustes(torch.ones(1, 3), torch.tensor([[1.0, 2.0, 3.0]]))
    assert single.scale == 1 and single.rotation.equal(torch.eye(3))
    assert single.translation.equal(torch.tensor([0.0, 1.0, 2.0]))
    coincident = procrustes(torch.full((5, 3), 1.1), target)
    assert coincident.scale == 1
    torch.testing.assert_close(coincident.apply(torch.full((5, 3), 1.1)), target.mean(0).expand(5, 3))


@pytest.mark.parametrize("scale", [True, False])
def test_right_to_second_order(scale):
    def aligned(source, target, weights):
        return procrustes(source, target, weights=weights, scale=scale).apply(source)

    generator = torch.Generator().manual_seed(3)
    source = torch.randn(6, 3, dtype=DOUBLE, generator=generator)
    target = 2 * source + 0.3 * torch.randn(6, 3, dtype=DOUBLE, generator=generator) + 1
    weights = 0.5 + torch.rand(6, dtype=DOUBLE, generator=generator)
    assert_right_to_second_order(aligned, source, target, weights, rtol=1e-6)


def test_right_to_second_order_on_a_plane_and_at_a_perfect_fit():
    flat = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=DOUBLE)
    assert_right_to_second_order(lambda s, t: procrustes(s, t).apply(s), flat, 2 * flat + 1, rtol=1e-6)


def test_wrong_arguments_are_named():
    with refuses("source"):
        procrustes(torch.zeros(4, 2), torch.zeros(4, 3))
    with refuses("target"):
        procrustes(torch.zeros(4, 3), torch.zeros(5, 3))
    with refuses("weights"):
        procrustes(torch.zeros(4, 3), torch.zeros(4, 3), weights=torch.zeros(3))
    with refuses("batch shapes"):
        procrustes(torch.zeros(2, 4, 3), torch.zeros(3, 4, 3))
    with refuses("source", TypeError):
        procrustes(np.zeros((4, 3)), torch.zeros(4, 3))
    with refuses("points"):
        procrustes(torch.zeros(4, 3), torch.zeros(4, 3)).apply(torch.zeros(4, 2))
