"""The body model against smplx: SMPL size, float32, one thread, the same arguments."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import pytest
import smplx
import torch
from paired import calls_in_a_turn, measure
from physique.bodymodel import BodyModel, synthetic_model
from smplx.utils import Struct

TITLE = "body model / smplx (SMPL: 6890 vertices, 24 joints, 10 betas; float32, one thread)"


class Case(NamedTuple):
    """What is computed, for how many bodies, and how much faster than smplx it must be."""

    output: str
    backward: bool
    bodies: int
    floor: float | None = None

    @property
    def name(self) -> str:
        """Name of the row."""
        return f"{self.output} {'forward+backward' if self.backward else 'forward'} B={self.bodies}"


CASES = (
    Case("joints", False, 1, floor=8),
    Case("joints", False, 32),
    Case("joints", False, 256, floor=60),
    Case("joints", True, 1),
    Case("joints", True, 256),
    Case("vertices", False, 1, floor=1.5),
    Case("vertices", False, 32),
    Case("vertices", False, 256),
    Case("vertices", True, 1, floor=0.8),
    Case("vertices", True, 32, floor=0.8),
    Case("vertices", True, 256, floor=0.8),
)
ROUNDS = {1: 101, 32: 31, 256: 9}


@pytest.fixture(scope="module")
def models():
    data = synthetic_model("smpl", num_vertices=6890)
    arrays = {
        "v_template": data.v_template,
        "f": data.faces,
        "weights": data.lbs_weights,
        "shapedirs": data.shapedirs,
        "posedirs": data.posedirs,
        "J_regressor": data.J_regressor,
        "kintree_table": np.array([data.skeleton.parents, range(data.num_joints)]),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return BodyModel(data), smplx.SMPL("", data_struct=Struct(**arrays))


def functions(case, models):
    """Return what we do and what smplx does, as functions without arguments, and check that both find the same."""
    model, peer = models
    betas, orient, pose = torch.randn(case.bodies, 10), *(torch.randn(2, case.bodies, 23, 3) * 0.35)
    inputs = [betas, orient[:, 0].clone(), pose]

    def ours():
        arguments = {"betas": inputs[0], "global_orient": inputs[1], "body_pose": inputs[2]}
        return model.joints(**arguments) if case.output == "joints" else model(**arguments).vertices

    def theirs():
        out = peer(betas=inputs[0], global_orient=inputs[1], body_pose=inputs[2].flatten(1))
        return out.joints[:, :24] if case.output == "joints" else out.vertices

    with torch.no_grad():
        torch.testing.assert_close(ours(), theirs(), rtol=0, atol=5e-6)
    if not case.backward:
        return torch.no_grad()(ours), torch.no_grad()(theirs)
    inputs = [value.requires_grad_() for value in inputs]
    upstream = torch.randn(theirs().shape)
    return tuple(lambda f=f: torch.autograd.grad(f(), inputs, upstream) for f in (ours, theirs))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_against_smplx(case, models, benchmark, report):
    ours, theirs = functions(case, models)
    ratio = measure(case.name, ours, theirs, rounds=ROUNDS[case.bodies], floor=case.floor)
    report(TITLE, ratio)
    benchmark.extra_info["times smplx"] = ratio.ratio
    benchmark.pedantic(ours, rounds=ROUNDS[case.bodies], iterations=calls_in_a_turn(ours), warmup_rounds=1)
    assert case.floor is None or ratio.ratio >= case.floor
