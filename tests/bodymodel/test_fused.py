"""The fused path and the plain one are the same function: values, gradients and derivatives of gradients."""

import pytest
import torch
from body_arguments import random_arguments
from physique.bodymodel import (
    BodyModel,
    KeypointRegressor,
    SurfacePoints,
    fused_chain,
    passes,
    segment_scale_model,
    synthetic_model,
)
from physique.bodymodel import fused_skinning as pieces

F64 = torch.float64
MODELS = {
    **{family: lambda f=family: synthetic_model(f, num_vertices=30) for family in ("smpl", "smplx", "mano", "star")},
    "scales": lambda: segment_scale_model(synthetic_model("smpl", num_vertices=30)),
}


@pytest.fixture(autouse=True, params=["few", "many"])
def both_layouts_and_small_pieces(request, monkeypatch):
    """Batches of the tests are small; the limits come down with them."""
    monkeypatch.setattr(pieces, "BLENDED", 3)
    monkeypatch.setattr(pieces, "SKINNED", 60)
    monkeypatch.setattr(fused_chain, "FEW", 10**9 if request.param == "few" else -1)


def on_both_paths(monkeypatch, call):
    """Return what `call` returns by the fused path and by the plain one."""
    fused = call()
    with monkeypatch.context() as patch:
        patch.setattr(passes, "is_alone", lambda: False)
        return fused, call()


def flat(values):
    """Return tensors of nested tuples, in order."""
    if isinstance(values, torch.Tensor):
        return [values]
    return [tensor for value in values for tensor in flat(value)]


def outputs(model, arguments):
    surface = SurfacePoints(torch.tensor([1, 4]), torch.full((2, 3), 1 / 3, dtype=model.dtype))
    return flat((model(**arguments), model.joints(**arguments), model.points(surface, **arguments)))


def shared_shape(arguments, batch):
    return {n: v[:1] if n in ("betas", "expression", "segment_scale") else v for n, v in arguments.items()}


def more_shapes_than_poses(arguments, batch):
    return {n: v if n in ("betas", "expression", "segment_scale", "transl") else v[0] for n, v in arguments.items()}


def two_dimensions(arguments, batch):
    return {n: v[:4].unflatten(0, (2, 2)) for n, v in arguments.items()}


def shapes_along_one_dimension(arguments, batch):
    return {
        n: v[:2, None] if n in ("betas", "expression", "segment_scale") else v[:4].unflatten(0, (2, 2))
        for n, v in arguments.items()
    }


CHANGES = {
    "all alike": lambda arguments, batch: arguments,
    **{f.__name__: f for f in (shared_shape, more_shapes_than_poses, two_dimensions, shapes_along_one_dimension)},
    "three betas": lambda arguments, batch: {n: v[:, :3] if n == "betas" else v for n, v in arguments.items()},
    "one body": lambda arguments, batch: {n: v[0] for n, v in arguments.items()},
    "no body": lambda arguments, batch: {n: v[:0] for n, v in arguments.items()},
    "pose alone": lambda arguments, batch: {n: v for n, v in arguments.items() if n == "global_orient"},
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", MODELS)
def test_values_gradients_and_second_derivatives_are_those_of_the_plain_path(name, change, monkeypatch):
    model = BodyModel(MODELS[name](), dtype=F64)
    arguments = CHANGES[change](random_arguments(model.data, 5), 5)
    for value in arguments.values():
        value.requires_grad_()
    inputs = list(arguments.values())
    generator = torch.Generator().manual_seed(0)

    def derivatives():
        generator.manual_seed(0)
        results = outputs(model, arguments)
        upstream = [torch.randn(r.shape, dtype=F64, generator=generator) for r in results]
        energy = sum((r * u + r.square()).sum() for r, u in zip(results, upstream, strict=True))
        once = torch.autograd.grad(energy, inputs, retain_graph=True)
        slopes = torch.autograd.grad(energy, inputs, create_graph=True)
        along = sum((s * torch.randn(s.shape, dtype=F64, generator=generator)).sum() for s in slopes)
        twice = torch.autograd.grad(along, inputs, allow_unused=True, materialize_grads=True)
        return [*results, *once, *slopes, *twice]

    for fused, plain in zip(*on_both_paths(monkeypatch, derivatives), strict=True):
        assert fused.shape == plain.shape
        torch.testing.assert_close(fused, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_values_without_gradients_are_those_of_the_plain_path(name, monkeypatch):
    model = BodyModel(MODELS[name](), dtype=F64)
    arguments = random_arguments(model.data, 5)
    for fused, plain in zip(*on_both_paths(monkeypatch, lambda: outputs(model, arguments)), strict=True):
        torch.testing.assert_close(fused, plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-8, 1e-4, 0.02, 0.05, torch.pi, 2 * torch.pi, 7.0])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_gradients_are_right_at_every_angle(angle, dtype, monkeypatch):
    """Where the plain path is right to rounding, and it is everywhere, so is the other."""
    model = BodyModel(synthetic_model("smpl", num_vertices=30), dtype=dtype)
    pose = torch.nn.functional.normalize(torch.randn(3, 23, 3, dtype=dtype), dim=-1) * angle
    pose.requires_grad_()
    betas = torch.randn(3, 10, dtype=dtype)

    def gradient():
        return torch.autograd.grad(model(betas=betas, body_pose=pose).vertices.square().sum(), pose)

    (fused,), (plain,) = on_both_paths(monkeypatch, gradient)
    torch.testing.assert_close(
        fused, plain, rtol=0, atol=(2e-5 if dtype == torch.float32 else 1e-12) * plain.abs().max()
    )


def test_a_posed_rest_body_passes_gradients_to_it(monkeypatch):
    model = BodyModel(synthetic_model("smpl", num_vertices=30), dtype=F64)
    arguments = random_arguments(model.data, 5)
    for rests in (5, 1):
        betas = arguments["betas"][:rests].clone().requires_grad_()

        def gradient(betas=betas):
            posed = model.pose(model.rest(betas=betas), body_pose=arguments["body_pose"])
            return torch.autograd.grad(posed.vertices.square().sum() + posed.joints.sum(), betas)

        (fused,), (plain,) = on_both_paths(monkeypatch, gradient)
        torch.testing.assert_close(fused, plain, rtol=1e-10, atol=1e-10)


def test_one_graph_can_be_differentiated_twice():
    model = BodyModel(synthetic_model("smpl", num_vertices=30), dtype=F64)
    pose = torch.randn(4, 23, 3, dtype=F64, requires_grad=True)
    energy = model(body_pose=pose).vertices.square().sum()
    first = torch.autograd.grad(energy, pose, retain_graph=True)
    second = torch.autograd.grad(energy, pose)
    assert torch.equal(first[0], second[0])


def names_in_graph(tensor):
    """Return the names of all nodes that a tensor came from."""
    names, queue, seen = set(), [tensor.grad_fn], set()
    while queue:
        node = queue.pop()
        if node is not None and node not in seen:
            seen.add(node)
            names.add(node.name())
            queue += [parent for parent, _ in node.next_functions]
    return names


def test_gradients_go_by_the_fused_path_and_transforms_by_the_plain_one():
    model = BodyModel(synthetic_model("smpl", num_vertices=30), dtype=F64)
    pose = torch.randn(4, 23, 3, dtype=F64)
    whole = names_in_graph(model(body_pose=pose.requires_grad_()).vertices)
    assert {"_FusedSkinningBackward", "_FusedChainBackward"} <= whole
    assert "_FusedChainBackward" in names_in_graph(model.joints(body_pose=pose))
    written = torch.eye(3, dtype=F64).expand(4, 23, 3, 3).clone().requires_grad_()
    assert "_FusedChainBackward" not in names_in_graph(model.joints(body_pose=written, rotation="matrix"))

    def energy(pose):
        return model(body_pose=pose).vertices.square().sum((-1, -2))

    expected = torch.autograd.grad(energy(pose).sum(), pose)[0]
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(energy))(pose), expected)
    step = torch.randn_like(pose)
    _, slope = torch.func.jvp(lambda p: energy(p).sum(), (pose.detach(),), (step,))
    torch.testing.assert_close(slope, (expected * step).sum())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(pose.detach(), step)
        tangent = torch.autograd.forward_ad.unpack_dual(energy(dual).sum()).tangent
    torch.testing.assert_close(tangent, slope)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_an_argument_made_from_another_counts_once(dtype):
    model = BodyModel(synthetic_model("smpl", num_vertices=30), dtype=dtype)
    root = (0.3 * torch.randn(3, 3, dtype=dtype)).requires_grad_()
    pose = root.unsqueeze(-2) * torch.linspace(0.1, 1, 23, dtype=dtype).unsqueeze(-1)
    energy = model(global_orient=root, body_pose=pose, betas=root.repeat(1, 2)).vertices.square().sum()
    once = torch.autograd.grad(energy, root, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(energy, root, create_graph=True)[0], once, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bodies", [1, 20])
def test_single_precision_keeps_a_micrometre_and_five_digits_of_the_gradient(bodies):
    data = synthetic_model("smpl", num_vertices=6890)
    generator = torch.Generator().manual_seed(0)
    arguments = {
        "betas": torch.randn(bodies, 10, generator=generator),
        "global_orient": 0.35 * torch.randn(bodies, 3, generator=generator),
        "body_pose": 0.35 * torch.randn(bodies, 23, 3, generator=generator),
    }
    upstream = torch.randn(bodies, 6890, 3, generator=generator)

    def vertices_joints_and_gradients(dtype):
        model = BodyModel(data, dtype=dtype)
        inputs = {name: value.to(dtype).requires_grad_() for name, value in arguments.items()}
        out = model(**inputs)
        with torch.no_grad():  # the other ways to the same numbers
            torch.testing.assert_close(model(**inputs).vertices, out.vertices, rtol=0, atol=5e-7)
            torch.testing.assert_close(model.joints(**inputs), out.joints, rtol=0, atol=5e-7)
        gradients = torch.autograd.grad(out.vertices, list(inputs.values()), upstream.to(dtype))
        return [value.detach().double() for value in (out.vertices, out.joints, *gradients)]

    single, double = (vertices_joints_and_gradients(dtype) for dtype in (torch.float32, F64))
    for got, expected in zip(single[:2], double[:2], strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    for got, expected in zip(single[2:], double[2:], strict=True):
        assert (got - expected).norm() <= 1e-5 * expected.norm()


def test_keypoints_that_are_all_joints_pass_gradients():
    """No vertex is skinned for them."""
    data = synthetic_model("smpl", num_vertices=30)
    model, regressor = BodyModel(data, dtype=F64), KeypointRegressor("smpl24", data, dtype=F64)
    pose = torch.randn(2, 23, 3, dtype=F64, requires_grad=True)
    upstream = torch.randn(2, 24, 3, dtype=F64)
    found = torch.autograd.grad(model.keypoints(regressor, body_pose=pose), pose, upstream)
    torch.testing.assert_close(found, torch.autograd.grad(model.joints(body_pose=pose), pose, upstream))
