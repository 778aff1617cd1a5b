"""The relaxation of dictionary lifting: its prox, its optimum, and what its samples do not share."""

import numpy as np
import pytest
import torch
from oracles import dictionary as oracle
from physique.geometry import axis_angle_to_matrix
from physique.priors import convex_lift, spectral_prox
from physique.priors.convex_lifting import common_rotation
from refusals import refuses

DOUBLE = torch.float64


def matrices(kind):
    generic = torch.randn(40, 2, 3, dtype=DOUBLE)
    row = torch.randn(40, 1, 3, dtype=DOUBLE)
    return {
        "generic": generic,
        "zero": torch.zeros(40, 2, 3, dtype=DOUBLE),
        "parallel rows": row * torch.randn(40, 2, 1, dtype=DOUBLE),
        "equal singular values": axis_angle_to_matrix(torch.randn(40, 3, dtype=DOUBLE))[:, :2] * 1.7,
        "one row": torch.cat((row, torch.zeros_like(row)), dim=-2),
        "tiny": 1e-150 * generic,
        "nearly equal": axis_angle_to_matrix(torch.randn(40, 3, dtype=DOUBLE))[:, :2] + 1e-9 * generic,
    }[kind]


KINDS = ("generic", "zero", "parallel rows", "equal singular values", "one row", "tiny", "nearly equal")


@pytest.mark.parametrize("kind", KINDS)
def test_prox_equals_that_by_singular_values(kind):
    inputs = matrices(kind)
    levels = torch.cat((torch.zeros(4, dtype=DOUBLE), 3 * torch.rand(36, dtype=DOUBLE)))
    expected = [oracle.spectral_prox(m.numpy(), float(level)) for m, level in zip(inputs, levels, strict=True)]
    np.testing.assert_allclose(spectral_prox(inputs, levels).numpy(), np.stack(expected), atol=1e-12)


def test_prox_minimises_its_definition():
    # X is the minimiser if and only if (M − X) / level is a subgradient of the spectral norm at X: a matrix of nuclear
    # norm at most one whose product with X is the norm of X.
    inputs, level = matrices("generic"), 2.0
    result = spectral_prox(inputs, torch.tensor(level, dtype=DOUBLE))
    dual = ((inputs - result) / level).numpy()
    assert (np.linalg.norm(dual, "nuc", axis=(1, 2)) <= 1 + 1e-12).all()
    norms = np.linalg.norm(result.numpy(), 2, axis=(1, 2))
    assert 5 < (norms > 0).sum() < 40
    np.testing.assert_allclose((dual * result.numpy()).sum((1, 2)), norms, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_prox_is_finite_in_single_precision(kind):
    assert spectral_prox(matrices(kind).float(), torch.tensor(0.3)).isfinite().all()


def scene(atoms=6, points=8):
    basis = torch.randn(atoms, points, 3, dtype=DOUBLE)
    rotation = axis_angle_to_matrix(torch.randn(3, dtype=DOUBLE))
    keypoints = (0.6 * basis[1] + 1.1 * basis[4]) @ rotation[:2].mT + 0.05 * torch.randn(points, 2, dtype=DOUBLE) + 3.0
    return basis, rotation, keypoints


@pytest.mark.parametrize("outlier_level", [None, 0.05])
def test_admm_reaches_the_optimum_of_a_slow_reference(outlier_level):
    basis, _, keypoints = scene()
    keypoints[2] += 2.0
    weight = torch.rand(8, dtype=DOUBLE) + 0.2
    weight[5] = 0.0
    found = convex_lift(
        keypoints, basis, weight, sparsity=0.2, outlier_level=outlier_level, iterations=1000, tolerance=1e-8
    )
    assert found.residual < 1e-5
    # The library solves for keypoints of unit root mean square about their middle.
    share = weight / weight.sum()
    middle = (share[:, None] * keypoints).sum(0)
    unit = ((share[:, None] * (keypoints - middle).square()).sum() / 2).sqrt()
    penalty = 0.2 * basis.square().sum((-2, -1)).sqrt().mean()
    scaled = ((keypoints - middle) / unit).numpy()
    problem = (scaled, basis.numpy(), weight.numpy())
    expected = oracle.relaxed_lift(*problem, float(penalty), outlier_level, iterations=1500)
    ours = (
        (found.matrices / unit).numpy(),
        (found.outliers / unit).numpy(),
        ((found.translation - middle) / unit).numpy(),
    )
    energies = [oracle.objective(*problem, *x, float(penalty), outlier_level or 0.0) for x in (ours, expected)]
    assert energies[0] == pytest.approx(energies[1], rel=1e-5)
    np.testing.assert_allclose(ours[0], expected[0], atol=1e-2)
    np.testing.assert_allclose(ours[1], expected[1], atol=1e-2)
    if outlier_level is not None:
        assert 0 < (ours[1] != 0).sum() < 12


def test_a_view_of_two_atoms_gives_their_rotation_and_no_other_atom():
    basis, rotation, _ = scene(points=40)
    shape = 0.6 * basis[1] + 1.1 * basis[4]
    found = convex_lift(200 * (shape @ rotation[:2].mT) + 50, basis, sparsity=0.01, iterations=400, tolerance=1e-7)
    torch.testing.assert_close(common_rotation(found.matrices), rotation, atol=2e-2, rtol=0)
    sizes = found.matrices.square().sum((-2, -1))
    assert set(sizes.topk(2).indices.tolist()) == {1, 4}
    assert sizes[[0, 2, 3, 5]].max() < 1e-3 * sizes.max()
    torch.testing.assert_close(found.translation, torch.full((2,), 50.0, dtype=DOUBLE), atol=2.0, rtol=0)


def test_samples_are_independent_and_batches_of_any_shape():
    basis, _, keypoints = scene()
    batch = torch.stack((keypoints, torch.randn(8, 2, dtype=DOUBLE), 1e3 * keypoints)).expand(2, 3, 8, 2)
    together = convex_lift(batch, basis, outlier_level=0.2)
    alone = convex_lift(keypoints, basis, outlier_level=0.2)
    for part, whole in zip(alone, together, strict=True):
        torch.testing.assert_close(whole[1, 0], part)
    assert convex_lift(torch.zeros(0, 8, 2, dtype=DOUBLE), basis).matrices.shape == (0, 6, 2, 3)


def test_moving_and_sizing_the_image_moves_and_sizes_the_result():
    basis, _, keypoints = scene()
    plain = convex_lift(keypoints, basis)
    moved = convex_lift(7 * keypoints + 100, basis)
    torch.testing.assert_close(moved.matrices, 7 * plain.matrices)
    torch.testing.assert_close(moved.translation, 7 * plain.translation + 100)


def test_a_keypoint_without_weight_is_not_read():
    basis, _, keypoints = scene()
    weight = torch.ones(8, dtype=DOUBLE)
    weight[3] = 0
    hidden = keypoints.clone()
    hidden[3] = torch.nan
    for part, other in zip(
        convex_lift(keypoints, basis, weight, outlier_level=0.1),
        convex_lift(hidden, basis, weight, outlier_level=0.1),
        strict=True,
    ):
        torch.testing.assert_close(part, other)
    nothing = convex_lift(hidden, basis, torch.zeros(8, dtype=DOUBLE))
    assert (nothing.matrices == 0).all() and (nothing.translation == 0).all()


def test_wrong_shapes_are_refused_by_name():
    with refuses("keypoints"):
        convex_lift(torch.zeros(7, 2), torch.zeros(3, 8, 3))
    with refuses("basis"):
        convex_lift(torch.zeros(8, 2), torch.zeros(3, 8, 2))
    with refuses("confidence"):
        convex_lift(torch.zeros(8, 2), torch.zeros(3, 8, 3), torch.zeros(7))
    with refuses("matrix"):
        spectral_prox(torch.zeros(3, 2), torch.tensor(1.0))
