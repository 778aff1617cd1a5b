"""What must hold for all rotations, and for all similarities."""

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from physique.geometry import (
    axis_angle_to_matrix,
    geodesic_angle,
    gram_schmidt,
    matrix_to_axis_angle,
    matrix_to_quaternion_wxyz,
    matrix_to_rotation_6d,
    nearest_rotation,
    procrustes,
    quaternion_wxyz_to_matrix,
    rotation_6d_to_matrix,
)
from physique.testing import betas, rotations

EYE = torch.eye(3, dtype=torch.float64)
matrices = rotations(rotation="matrix")
vectors = betas(3)


def close(got, expected, atol=1e-12):
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)


@given(rotations())
def test_exponentials_are_proper_rotations(r):
    matrix = axis_angle_to_matrix(r)
    close(matrix @ matrix.mT, EYE)
    close(torch.linalg.det(matrix), torch.ones((), dtype=torch.float64))


@given(rotations())
def test_the_axis_stays_where_it_is(r):
    close(axis_angle_to_matrix(r) @ r, r)


@given(rotations())
def test_the_opposite_vector_is_the_inverse(r):
    close(axis_angle_to_matrix(-r), axis_angle_to_matrix(r).mT, atol=1e-15)


@given(rotations(), st.floats(-2, 2), st.floats(-2, 2))
def test_turns_about_one_axis_add_up(r, s, t):
    close(axis_angle_to_matrix(s * r) @ axis_angle_to_matrix(t * r), axis_angle_to_matrix((s + t) * r), atol=1e-12)


@given(rotations())
def test_a_full_turn_more_changes_nothing(r):
    angle = r.norm()
    assume(angle > 1e-3)
    close(axis_angle_to_matrix(r * (1 + 2 * torch.pi / angle)), axis_angle_to_matrix(r), atol=1e-11)


@given(rotations(), matrices)
def test_exponential_is_equivariant(r, turn):
    close(turn @ axis_angle_to_matrix(r) @ turn.mT, axis_angle_to_matrix(turn @ r))


@given(rotations(max_angle=3.0), matrices)
def test_logarithm_is_equivariant(r, turn):
    close(matrix_to_axis_angle(turn @ axis_angle_to_matrix(r) @ turn.mT), turn @ r, atol=1e-11)


@given(rotations(max_angle=3.1))
def test_logarithm_inverts_the_exponential_below_pi(r):
    close(matrix_to_axis_angle(axis_angle_to_matrix(r)), r)


@given(matrices)
def test_every_format_round_trips(matrix):
    close(axis_angle_to_matrix(matrix_to_axis_angle(matrix)), matrix)
    close(quaternion_wxyz_to_matrix(matrix_to_quaternion_wxyz(matrix)), matrix)
    for layout in ("columns", "rows", "interleaved"):
        close(rotation_6d_to_matrix(matrix_to_rotation_6d(matrix, layout), layout), matrix)


@given(matrices, matrices)
def test_quaternions_multiply_like_matrices(a, b):
    (w1, *v1), (w2, *v2) = matrix_to_quaternion_wxyz(a), matrix_to_quaternion_wxyz(b)
    v1, v2 = torch.stack(v1), torch.stack(v2)
    product = torch.cat(((w1 * w2 - v1 @ v2)[None], w1 * v2 + w2 * v1 + torch.linalg.cross(v1, v2)))
    close(quaternion_wxyz_to_matrix(product), a @ b)


@given(matrices, betas(9))
def test_gram_schmidt_is_equivariant_on_the_left(turn, entries):
    matrix = entries.reshape(3, 3)
    columns = matrix[:, :2] / matrix[:, :2].norm(dim=0).clamp(min=1e-12)
    assume((columns.mT @ columns).det() > 1e-3)
    close(gram_schmidt(turn @ matrix), turn @ gram_schmidt(matrix), atol=1e-11)


@given(matrices, matrices, betas(9))
def test_nearest_rotation_is_equivariant_on_both_sides(left, right, entries):
    matrix = entries.reshape(3, 3)
    singular = torch.linalg.svdvals(matrix)
    assume(singular[1] + singular[2] * torch.linalg.det(matrix).sign() > 1e-2)
    close(nearest_rotation(left @ matrix @ right), left @ nearest_rotation(matrix) @ right, atol=1e-10)
    close(nearest_rotation(nearest_rotation(matrix)), nearest_rotation(matrix))


@given(matrices, matrices, matrices)
def test_geodesic_angle_is_a_metric(a, b, c):
    assert geodesic_angle(a, a) == 0
    close(geodesic_angle(a, b), geodesic_angle(b, a))
    assert geodesic_angle(a, c) <= geodesic_angle(a, b) + geodesic_angle(b, c) + 1e-12
    assert 0 <= geodesic_angle(a, b) <= torch.pi


@given(matrices, matrices, matrices)
def test_geodesic_angle_is_the_same_from_everywhere(a, b, turn):
    close(geodesic_angle(turn @ a, turn @ b), geodesic_angle(a, b))
    close(geodesic_angle(a @ turn, b @ turn), geodesic_angle(a, b))


@given(rotations(max_angle=3.14), matrices)
def test_geodesic_angle_is_the_length_of_the_rotation_vector(r, start):
    close(geodesic_angle(start, start @ axis_angle_to_matrix(r)), r.norm())


@given(matrices, vectors, st.floats(0.01, 100), st.integers(0, 1000), st.integers(3, 8))
def test_procrustes_recovers_similarities(rotation, translation, scale, seed, count):
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(count, 3, dtype=torch.float64, generator=generator)
    assume(torch.linalg.svdvals(source - source.mean(0))[1] > 0.1)
    target = scale * source @ rotation.mT + translation
    weights = 0.1 + torch.rand(count, dtype=torch.float64, generator=generator)
    found = procrustes(source, target, weights=weights)
    torch.testing.assert_close(found.scale, torch.tensor(scale, dtype=torch.float64), rtol=1e-10, atol=0)
    close(found.rotation, rotation, atol=1e-9)
    close(found.translation, translation, atol=1e-10 * max(1.0, scale))


@given(matrices, vectors, st.floats(0.1, 10), betas(15), betas(15))
def test_procrustes_does_not_see_a_similarity_of_the_source(rotation, translation, scale, source, target):
    source, target = source.reshape(5, 3), target.reshape(5, 3)
    covariance = (target - target.mean(0)).mT @ (source - source.mean(0))
    singular = torch.linalg.svdvals(covariance)
    assume(singular[1] + singular[2] * torch.linalg.det(covariance).sign() > 1e-2)
    moved = scale * source @ rotation.mT + translation
    close(procrustes(moved, target).apply(moved), procrustes(source, target).apply(source), atol=1e-9)
