"""The equations of a registration have the slope of its energy, term by term, a user's own among them."""

import pytest
import torch
from physique.bodymodel import (
    BodyModel,
    KeypointRegressor,
    SurfacePoints,
    default_joint_limits,
    open_body,
    segment_scale_model,
)
from physique.fitting import Correspondences, Term, default_terms
from physique.fitting.registration_observations import observe
from physique.fitting.registration_problem import Problem
from physique.fitting.registration_unknowns import start_from_rest
from physique.fitting.relaxed import relaxed_pose
from physique.fitting.tangent import retract

F64 = torch.float64
STIFFNESS, OUTLIER = 0.3, 0.2


def level_hips(body):
    return (body.joints[..., 1, 1] - body.joints[..., 2, 1]).square()


def everything(body):
    """Residuals that look at every field that moves."""
    shape = body.betas if body.betas is not None else body.segment_scale.flatten(body.matrix.dim() - 2)
    return torch.cat(
        (
            body.joints.flatten(-2)[..., ::7],
            body.points.sum(-2),
            body.projected[..., 0, :].square(),
            body.keypoints[..., 3, :].sin(),
            body.projected_keypoints[..., 5, :],
            body.body_pose[..., 4, :] * body.matrix[..., 0, :1],
            shape[..., :2],
        ),
        dim=-1,
    )


TERMS = {**default_terms(), "hips": Term(50.0, 50.0, level_hips), "everything": Term(2.0, 1.0, everything)}


def problem(data):
    generator = torch.Generator().manual_seed(0)
    model = BodyModel(data, dtype=F64)
    surface = SurfacePoints(
        torch.randint(0, 3994, (2, 20), generator=generator),
        torch.rand(2, 20, 3, dtype=F64, generator=generator).softmax(-1),
    )
    regressor = KeypointRegressor("lsp14", model.data, dtype=F64)
    down = torch.tensor([1.0, -1.0], dtype=F64)
    pixels = 100 * model.points(surface)[..., :2] * down + 112
    pixels = pixels + 5 * torch.randn(pixels.shape, dtype=F64, generator=generator)
    keypoints = (100 * model.keypoints(regressor)[..., :2] * down + 115).expand(2, -1, -1)
    depths = 0.2 * torch.randn(2, 14, dtype=F64, generator=generator)
    depths[:, 3] = torch.nan
    weight = torch.rand(2, 20, dtype=F64, generator=generator)
    seen, _ = observe(model, Correspondences(surface, pixels, weight), keypoints, None, depths, regressor)
    limits, relaxed = default_joint_limits(23, dtype=F64), relaxed_pose(model.skeleton, 23, like=pixels)
    made = Problem(
        model, model.point_bases(surface), model.keypoint_bases(regressor), seen, limits, relaxed, default_terms()
    )
    start = start_from_rest(made)
    return made, {n: v + 0.2 * torch.randn(v.shape, dtype=F64, generator=generator) for n, v in start.items()}


@pytest.mark.parametrize("kind", ["betas", "scales", "scales_per_axis"])
def test_each_term_has_the_slope_of_its_energy_and_curves_upwards(kind):
    data = open_body("low")
    if kind != "betas":
        data = segment_scale_model(data, per_axis=kind == "scales_per_axis")
    made, unknowns = problem(data)
    person = torch.arange(2)
    for name, term in TERMS.items():
        alone = made._replace(terms={name: term})
        equations = alone.equations(unknowns, person, STIFFNESS, OUTLIER)
        direction = torch.randn(equations.slope.shape, dtype=F64)

        def total(step, alone=alone, direction=direction):
            moved = retract(unknowns, step * direction, ("body_pose",))
            return alone.total(moved, person, STIFFNESS, OUTLIER)

        slope = (total(1e-5) - total(-1e-5)) / 2e-5
        along = 2 * (equations.slope * direction).sum(-1)
        torch.testing.assert_close(along, slope, rtol=1e-5, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
        assert torch.linalg.eigvalsh(equations.matrix).min() > -1e-8 * equations.matrix.abs().max().clamp(min=1)


def test_a_term_of_the_users_sees_all_people_with_alternatives_in_front():
    made, unknowns = problem(open_body("low"))
    shapes = []

    def value(body):
        shapes.append((body.joints.shape[:-2], body.pixels.shape[:-2], body.matrix.shape[:-2]))
        return body.joints.flatten(-2)[..., :1]

    own = made._replace(terms={"own": Term(1.0, 1.0, value)})
    fourfold = {name: value.repeat(4, *(1,) * (value.dim() - 1)) for name, value in unknowns.items()}
    own.residuals(fourfold, torch.arange(8), 0.0, 0.1)
    own.residuals(unknowns, torch.arange(2), 0.0, 0.1)
    assert shapes == [((4, 2),) * 3, ((2,),) * 3]


def test_a_term_of_the_users_tells_the_same_of_each_when_others_are_done():
    made, unknowns = problem(open_body("low"))
    height = torch.tensor([0.3, -0.7], dtype=F64)

    def above(body):
        return body.joints[..., 15:17, 1].log1p() - height.unsqueeze(-1)  # of each person something else

    own = made._replace(terms={**default_terms(), "own": Term(2.0, 2.0, above)})
    fourfold = {name: value.repeat(4, *(1,) * (value.dim() - 1)) for name, value in unknowns.items()}
    fourfold["body_pose"] = fourfold["body_pose"] + 0.1 * torch.arange(8, dtype=F64).view(8, 1, 1)
    together = own.residuals(fourfold, torch.arange(8), 0.0, 0.1)
    equations = own.equations(fourfold, torch.arange(8), 0.0, 0.1)
    for place in (torch.tensor([1, 2, 7]), torch.tensor([0]), torch.tensor([3, 5])):
        few = {name: value[place] for name, value in fourfold.items()}
        torch.testing.assert_close(own.residuals(few, place, 0.0, 0.1), together[place])
        some = own.equations(few, place, 0.0, 0.1)
        torch.testing.assert_close(some.matrix, equations.matrix[place])
        torch.testing.assert_close(some.slope, equations.slope[place])
