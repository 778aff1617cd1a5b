"""Reprojection and joint-limit losses under torch.compile, vmap, jacfwd and jacrev."""

import pytest
import torch
from physique.losses import joint_limit_loss, reprojection_loss
from torch.func import jacfwd, jacrev, vmap
from torch.testing import assert_close

# Forward mode loads torch's own scripted decompositions, which warn that scripting is deprecated.

DOUBLE = torch.float64


def reprojection(penalty):
    def loss(projected, keypoints, confidence):
        return reprojection_loss(projected, keypoints, confidence, penalty=penalty, sigma=20.0)

    return loss


POINTS = 30 * torch.randn(2, 3, 5, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
CASES = [
    *(
        pytest.param(reprojection(penalty), (*POINTS, torch.ones(3, 5, dtype=DOUBLE)), id=penalty)
        for penalty in ("l1", "l2", "huber", "geman_mcclure")
    ),
    pytest.param(joint_limit_loss, (torch.linspace(-3, 3, 207, dtype=DOUBLE).view(3, 23, 3),), id="limits"),
]


@pytest.mark.parametrize("loss, arguments", CASES)
def test_compiled_in_one_graph_it_is_the_same(loss, arguments):
    assert_close(torch.compile(loss, fullgraph=True, backend="eager")(*arguments), loss(*arguments))


@pytest.mark.parametrize("loss, arguments", CASES)
def test_vmap_is_the_batch(loss, arguments):
    assert_close(vmap(loss)(*arguments), loss(*arguments))


@pytest.mark.parametrize("loss, arguments", CASES)
def test_forward_and_reverse_jacobians_agree(loss, arguments):
    assert_close(jacfwd(loss)(*arguments), jacrev(loss)(*arguments))
