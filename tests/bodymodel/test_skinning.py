"""Linear blend skinning equals the sum over joints, and keeps what a weighted mean of rigid motions keeps."""

import numpy as np
import pytest
import torch
from oracles import body as oracle
from oracles.finite_differences import assert_right_to_second_order
from physique.bodymodel import skin
from physique.geometry import axis_angle_to_matrix
from refusals import refuses

V, J = 12, 5


def random_skin(*batch):
    weights = torch.distributions.Dirichlet(torch.ones(J, dtype=torch.float64)).sample((V,))
    rotations = axis_angle_to_matrix(torch.randn(*batch, J, 3, dtype=torch.float64))
    vertices, translations = (torch.randn(*batch, n, 3, dtype=torch.float64) for n in (V, J))
    return vertices, weights, rotations, translations


def test_it_is_the_sum_over_joints():
    vertices, weights, rotations, translations = random_skin()
    moved = skin(vertices, weights, rotations, translations)
    still = np.zeros((J, 3))
    expected = oracle.skinned(vertices.numpy(), weights.numpy(), rotations.numpy(), translations.numpy(), still)
    np.testing.assert_allclose(moved.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "meshes, poses", [((2, 3), (2, 3)), ((), (3,)), ((3,), ()), ((2, 1), (3,)), ((0,), (1,)), ((1,), (0,))]
)
def test_batches_broadcast(meshes, poses):
    vertices, weights, _, _ = random_skin(*meshes)
    _, _, rotations, translations = random_skin(*poses)
    batch = torch.broadcast_shapes(meshes, poses)
    moved = skin(vertices, weights, rotations, translations)
    assert moved.shape == (*batch, V, 3)
    everything = [
        value.expand(*batch, *value.shape[len(own) :])
        for value, own in ((vertices, meshes), (rotations, poses), (translations, poses))
    ]
    for index in np.ndindex(*batch):
        alone = skin(everything[0][index], weights, everything[1][index], everything[2][index])
        torch.testing.assert_close(moved[index], alone, rtol=0, atol=1e-12)


def test_rotations_and_translations_broadcast_against_each_other():
    vertices, weights, rotations, translations = random_skin(3)
    moved = skin(vertices[0], weights, rotations[:1], translations)
    for index in range(3):
        alone = skin(vertices[0], weights, rotations[0], translations[index])
        torch.testing.assert_close(moved[index], alone, rtol=0, atol=1e-12)


def test_one_rigid_motion_of_all_joints_moves_the_whole_mesh():
    vertices, weights, rotations, translations = random_skin(2)
    rotation, translation = rotations[:, :1], translations[:, :1]
    moved = skin(vertices, weights, rotation.expand(2, J, 3, 3), translation.expand(2, J, 3))
    torch.testing.assert_close(moved, vertices @ rotation[:, 0].mT + translation, rtol=0, atol=1e-12)


def test_it_is_right_to_second_order():
    vertices, weights, rotations, translations = random_skin()
    direction, sizes = torch.randn_like(vertices), (V * 3, V * J, J * 9, J * 3)

    def f(flat):
        v, w, r, t = flat.split(sizes)
        return (skin(v.reshape(V, 3), w.reshape(V, J), r.reshape(J, 3, 3), t.reshape(J, 3)) * direction).sum()

    flat = torch.cat([value.reshape(-1) for value in (vertices, weights, rotations, translations)])
    assert_right_to_second_order(f, flat)


@pytest.mark.parametrize("wrong", ("vertices", "lbs_weights", "rotations", "translations"))
def test_shapes_that_do_not_fit_are_refused(wrong):
    names = ("vertices", "lbs_weights", "rotations", "translations")
    arguments = dict(zip(names, random_skin(), strict=True))
    arguments[wrong] = arguments[wrong][..., :2]
    with refuses("|".join(names)):
        skin(*arguments.values())
