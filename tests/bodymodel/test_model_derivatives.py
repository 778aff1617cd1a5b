"""Gradients and Hessian-vector products of the body model are right everywhere, in every way torch computes them."""

import math

import pytest
import torch
from body_arguments import FAMILY_NAMES, random_arguments
from oracles.finite_differences import assert_right_to_second_order
from physique.bodymodel import BodyModel, SurfacePoints, segment_scale_model, synthetic_model

# torch compiles some of its own forward-mode rules when they are first used, and warns about how it does.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

POSES = {
    "zero": lambda shape: torch.zeros(shape),
    "tiny": lambda shape: torch.full(shape, 1e-8),
    "minus tiny": lambda shape: torch.full(shape, -1e-8),
    "half turns": lambda shape: math.pi * torch.nn.functional.one_hot(torch.arange(shape[0]) % 3, 3),
    "random": lambda shape: 0.7 * torch.randn(shape),
}


def weighted_sum(model, names, sizes, path="forward"):
    """Return a number-valued function of all arguments in one flat vector: a random weighting of the outputs."""
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(8000, generator=generator, dtype=torch.float64) for _ in range(3)]

    def f(flat):
        pieces = flat.split([math.prod(size) for size in sizes])
        arguments = {name: piece.reshape(size) for name, piece, size in zip(names, pieces, sizes, strict=True)}
        outputs = model(**arguments)[:3] if path == "forward" else (model.joints(**arguments),)
        pairs = zip(outputs, weights[: len(outputs)], strict=True)
        return sum((output.reshape(-1) * weight[: output.numel()]).sum() for output, weight in pairs)

    return f


def arguments_at(data, pose):
    """Return random arguments without batch, with all joints in the named pose."""
    torch.manual_seed(0)
    arguments = random_arguments(data)
    for part in data.table_row.parts:
        rotations = POSES[pose]((part.count, 3)).to(torch.float64)
        arguments[part.name] = rotations[0] if part.single else rotations
    return arguments


def flat_and_sizes(arguments):
    return torch.cat([value.reshape(-1) for value in arguments.values()]), [value.shape for value in arguments.values()]


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_body_is_right_to_second_order(family, pose):
    data = synthetic_model(family, num_vertices=20)
    arguments = arguments_at(data, pose)
    flat, sizes = flat_and_sizes(arguments)
    assert_right_to_second_order(weighted_sum(BodyModel(data, dtype=torch.float64), arguments, sizes), flat)


@pytest.mark.parametrize("pose", POSES)
def test_joints_alone_are_right_to_second_order(pose):
    data = synthetic_model("smpl", num_vertices=20)
    arguments = arguments_at(data, pose)
    flat, sizes = flat_and_sizes(arguments)
    assert_right_to_second_order(weighted_sum(BodyModel(data, dtype=torch.float64), arguments, sizes, "joints"), flat)


@pytest.mark.parametrize("pose", ("zero", "half turns", "random"))
def test_segment_scales_are_right_to_second_order(pose):
    data = segment_scale_model(synthetic_model("smpl", num_vertices=20))
    arguments = arguments_at(data, pose)
    flat, sizes = flat_and_sizes(arguments)
    assert_right_to_second_order(weighted_sum(BodyModel(data, dtype=torch.float64), arguments, sizes), flat)


@pytest.mark.parametrize("rotation, size", [("matrix", (3, 3)), ("rotation_6d", (6,)), ("quaternion_wxyz", (4,))])
def test_other_rotation_formats_are_right_to_second_order(rotation, size):
    model = BodyModel(synthetic_model("smpl", num_vertices=20), dtype=torch.float64)
    weights = torch.randn(20, 3, dtype=torch.float64)

    def f(body_pose):
        return (model(body_pose=body_pose, rotation=rotation).vertices * weights).sum()

    assert_right_to_second_order(f, torch.randn(23, *size, dtype=torch.float64))


def test_surface_points_are_right_to_second_order_in_weights_and_pose():
    model = BodyModel(synthetic_model("smpl", num_vertices=20), dtype=torch.float64)
    faces, direction = torch.tensor([0, 5, 9]), torch.randn(3, 3, dtype=torch.float64)

    def f(flat):
        weights, pose = flat.split((9, 69))
        points = model.points(SurfacePoints(faces, weights.reshape(3, 3)), body_pose=pose.reshape(23, 3))
        return (points * direction).sum()

    assert_right_to_second_order(f, torch.rand(78, dtype=torch.float64))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_single_precision_derivatives_at_zero_are_those_of_double(family):
    data = synthetic_model(family, num_vertices=20)
    arguments = arguments_at(data, "zero")
    flat, sizes = flat_and_sizes(arguments)
    double = weighted_sum(BodyModel(data, dtype=torch.float64), arguments, sizes)
    single = weighted_sum(_Doubled(BodyModel(data)), arguments, sizes)
    direction = torch.randn_like(flat)
    for order in (1, 2):
        derivatives = []
        for function in (single, double):
            x = flat.clone().requires_grad_()
            (result,) = torch.autograd.grad(function(x), x, create_graph=True)
            if order == 2:
                (result,) = torch.autograd.grad((result * direction).sum(), x)
            derivatives.append(result)
        torch.testing.assert_close(*derivatives, rtol=1e-4, atol=1e-3)


class _Doubled:
    """A single-precision model that takes and returns double precision."""

    def __init__(self, model):
        self.model = model

    def __call__(self, **arguments):
        return [output.double() for output in self.model(**{k: v.float() for k, v in arguments.items()})[:3]]


def vertices_of(model):
    def f(betas, global_orient, body_pose, transl):
        out = model(betas=betas, global_orient=global_orient, body_pose=body_pose, transl=transl)
        return torch.cat((out.vertices, out.joints), dim=-2)

    return f


@pytest.fixture
def smpl():
    model = BodyModel(synthetic_model("smpl", num_vertices=20), dtype=torch.float64)
    return vertices_of(model), tuple(random_arguments(model.data).values())


def test_forward_and_reverse_jacobians_agree(smpl):
    f, arguments = smpl
    every = tuple(range(4))
    jacobians = torch.func.jacfwd(f, every)(*arguments), torch.func.jacrev(f, every)(*arguments)
    for forward, reverse in zip(*jacobians, strict=True):
        torch.testing.assert_close(forward, reverse, rtol=0, atol=1e-12)


def test_directional_derivatives_forward_and_reverse_agree(smpl):
    f, arguments = smpl
    tangents = tuple(torch.randn_like(value) for value in arguments)
    value, pushed = torch.func.jvp(f, arguments, tangents)
    upstream = torch.randn_like(value)
    pulled = torch.func.vjp(f, *arguments)[1](upstream)
    expected = sum((tangent * gradient).sum() for tangent, gradient in zip(tangents, pulled, strict=True))
    torch.testing.assert_close((pushed * upstream).sum(), expected, rtol=1e-12, atol=1e-12)


def test_hessians_agree_however_they_are_nested(smpl):
    f, (betas, global_orient, body_pose, transl) = smpl
    weights = torch.randn(44, 3, dtype=torch.float64)

    def energy(global_orient):
        return (f(betas, global_orient, body_pose, transl) * weights).sum()

    func = torch.func
    nested = (func.jacfwd(func.grad(energy)), func.jacrev(func.jacrev(energy)), func.jacfwd(func.jacfwd(energy)))
    hessians = [hessian(global_orient) for hessian in nested]
    for other in hessians[1:]:
        torch.testing.assert_close(other, hessians[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_vmap_is_the_batch(family):
    model = BodyModel(synthetic_model(family, num_vertices=20), dtype=torch.float64)
    arguments = random_arguments(model.data, 3)

    def f(arguments):
        return tuple(model(**arguments)[:3])

    for mapped, batched in zip(torch.func.vmap(f)(arguments), f(arguments), strict=True):
        torch.testing.assert_close(mapped, batched, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mapped", ("betas", "body_pose", "global_orient", "transl"))
def test_vmap_over_one_argument_is_broadcasting(mapped):
    model = BodyModel(synthetic_model("smpl", num_vertices=20), dtype=torch.float64)
    arguments = random_arguments(model.data)
    several = random_arguments(model.data, 3, seed=1)[mapped]

    def f(value):
        return model(**arguments | {mapped: value}).vertices

    torch.testing.assert_close(torch.func.vmap(f)(several), f(several), rtol=0, atol=1e-12)


def test_per_sample_gradients_are_those_of_each_sample():
    model = BodyModel(synthetic_model("smpl", num_vertices=20), dtype=torch.float64)
    poses = torch.randn(3, 23, 3, dtype=torch.float64)

    def energy(pose):
        return model(body_pose=pose).vertices.square().sum()

    mapped = torch.func.vmap(torch.func.grad(energy))(poses)
    for pose, gradient in zip(poses, mapped, strict=True):
        torch.testing.assert_close(gradient, torch.func.grad(energy)(pose), rtol=1e-12, atol=1e-12)
