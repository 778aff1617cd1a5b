import numpy as np
import pytest
import torch
from oracles import rotations as oracle
from physique.geometry import axis_angle_to_matrix, face_areas, signed_volume, vertex_normals
from physique.testing import assert_right_to_second_order
from refusals import refuses

DOUBLE = torch.float64
OCTAHEDRON = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=DOUBLE)
FACES = torch.tensor([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])


def bumpy(*shape):
    return OCTAHEDRON + 0.2 * torch.randn(*shape, 6, 3, dtype=DOUBLE)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2)])
def test_agrees_with_loops_over_faces(shape):
    vertices = bumpy(*shape)
    faces = FACES.numpy()
    for got, function in (
        (vertex_normals(vertices, FACES), lambda v: oracle.vertex_normals(v, faces)),
        (face_areas(vertices, FACES), lambda v: np.linalg.norm(oracle.face_normals(v, faces), axis=-1) / 2),
        (signed_volume(vertices, FACES), lambda v: np.asarray(oracle.signed_volume(v, faces))),
    ):
        np.testing.assert_allclose(got.numpy(), oracle.each(function, vertices, 2), atol=1e-14)


def test_an_octahedron_has_its_volume_and_normals_outside():
    torch.testing.assert_close(signed_volume(OCTAHEDRON, FACES), torch.tensor(4 / 3, dtype=DOUBLE))
    torch.testing.assert_close(signed_volume(OCTAHEDRON, FACES.flip(-1)), torch.tensor(-4 / 3, dtype=DOUBLE))
    torch.testing.assert_close(vertex_normals(OCTAHEDRON, FACES), OCTAHEDRON)
    torch.testing.assert_close(face_areas(OCTAHEDRON, FACES), torch.full((8,), 3**0.5 / 2, dtype=DOUBLE))


def test_moving_the_mesh_turns_normals_and_keeps_areas_and_volume():
    vertices, rotation = bumpy(4), axis_angle_to_matrix(torch.randn(4, 3, dtype=DOUBLE))
    moved = vertices @ rotation.mT + 10 * torch.randn(4, 1, 3, dtype=DOUBLE)
    torch.testing.assert_close(vertex_normals(moved, FACES), vertex_normals(vertices, FACES) @ rotation.mT)
    torch.testing.assert_close(face_areas(moved, FACES), face_areas(vertices, FACES))
    torch.testing.assert_close(signed_volume(moved, FACES), signed_volume(vertices, FACES))


@pytest.mark.parametrize("size", [1e-60, 1e-9, 1e9, 1e60])
def test_sizes_scale_and_normals_do_not(size):
    vertices = bumpy()
    torch.testing.assert_close(vertex_normals(size * vertices, FACES), vertex_normals(vertices, FACES))
    torch.testing.assert_close(signed_volume(size * vertices, FACES), size**3 * signed_volume(vertices, FACES))
    if size > 1e-30:
        torch.testing.assert_close(face_areas(size * vertices, FACES), size**2 * face_areas(vertices, FACES))


def test_a_small_float32_mesh_has_normals():
    small = (1e-6 * bumpy()).float()
    torch.testing.assert_close(vertex_normals(small, FACES).norm(dim=-1), torch.ones(6), rtol=0, atol=1e-6)


@pytest.mark.parametrize("function", [vertex_normals, face_areas, signed_volume])
def test_right_to_second_order(function):
    assert_right_to_second_order(lambda v: function(v, FACES), bumpy(), rtol=1e-6)


def test_volume_of_an_open_mesh_is_right_to_second_order():
    assert_right_to_second_order(lambda v: signed_volume(v, FACES[:5]), bumpy(), rtol=1e-6)


DEGENERATE = {
    "all vertices in one point": (torch.ones(6, 3), FACES),
    "all at the origin": (torch.zeros(6, 3), FACES),
    "on a line": (torch.arange(6.0)[:, None] * torch.ones(3), FACES),
    "a face with one vertex twice": (torch.randn(6, 3), torch.tensor([[0, 1, 1], [2, 3, 4]])),
    "both sides of a face": (torch.randn(6, 3), torch.tensor([[0, 1, 2], [2, 1, 0]])),
    "no face": (torch.randn(6, 3), torch.zeros(0, 3, dtype=torch.int64)),
    "tiny": (1e-30 * torch.randn(6, 3), FACES),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [vertex_normals, face_areas, signed_volume])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_meshes_have_finite_values_and_derivatives(name, function, dtype):
    vertices, faces = DEGENERATE[name]
    vertices = vertices.to(dtype).requires_grad_()
    value = function(vertices, faces)
    (gradient,) = torch.autograd.grad(value.sum(), vertices, create_graph=True, materialize_grads=True)
    assert value.isfinite().all() and gradient.isfinite().all()
    if gradient.requires_grad:
        (product,) = torch.autograd.grad((gradient * torch.randn(6, 3)).sum(), vertices, materialize_grads=True)
        assert product.isfinite().all()


def test_a_vertex_without_faces_has_the_normal_zero():
    normals = vertex_normals(bumpy(), FACES[:1])
    assert normals[[1, 3, 5]].equal(torch.zeros(3, 3, dtype=DOUBLE))
    torch.testing.assert_close(normals[[0, 2, 4]].norm(dim=-1), torch.ones(3, dtype=DOUBLE))


def test_an_empty_batch_is_kept():
    vertices = torch.zeros(0, 6, 3)
    assert vertex_normals(vertices, FACES).shape == (0, 6, 3)
    assert face_areas(vertices, FACES).shape == (0, 8)
    assert signed_volume(vertices, FACES).shape == (0,)


def test_wrong_arguments_are_named():
    with refuses("vertices"):
        face_areas(torch.zeros(6, 2), FACES)
    with refuses("faces"):
        face_areas(torch.zeros(6, 3), FACES[:, :2])
    with refuses("faces"):
        vertex_normals(torch.zeros(6, 3), FACES[None])
    with refuses("faces", TypeError):
        signed_volume(torch.zeros(6, 3), FACES.float())
