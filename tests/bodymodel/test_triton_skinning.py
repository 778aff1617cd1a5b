"""The GPU kernels compute what the plain path does: on a GPU, else in Triton's interpreter (see conftest.py)."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: pip install triton (Linux)")

from body_arguments import random_arguments
from physique.bodymodel import (
    BodyModel,
    gpu_precision,
    pack_directions,
    passes,
    segment_scale_model,
    synthetic_model,
)
from physique.bodymodel import triton_skinning as triton_module
from physique.bodymodel.fused_skinning import plain_skinning
from physique.bodymodel.gpu import PackedDirections
from physique.bodymodel.skinning import VertexBases
from physique.bodymodel.triton_skinning import triton_skinning

# On the processor, the compiled kernel would take the calls that are tested here.
pytestmark = pytest.mark.usefixtures("eager")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
GENERATOR = torch.Generator().manual_seed(0)
SIZES = {
    "one body": (1, 70),
    "no body": (0, 70),
    "two tiles of bodies": (129, 33),
    "one tile of many bodies": (65, 20),
    "two tiles of few bodies": (17, 97),
    "an odd number of vertices": (3, 131),
    "a multiple of the tile": (2, 64),
    "fewer vertices than a tile": (5, 7),
    "no vertex": (5, 0),
}


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """The interpreter takes milliseconds a program; sums are still cut into several stretches."""
    monkeypatch.setattr(triton_module, "PROGRAMS", 4)


def draw(*shape, scale=1.0):
    return scale * torch.randn(shape, generator=GENERATOR)


def problem(bodies, count, *, shapes=10, features=40, joints=24, template_rows=None):
    """Return bases and inputs of the size that real ones have: metres, and millimetres of correction."""
    rows = () if template_rows is None else (template_rows,)
    weights = draw(joints, count).abs() ** 4
    # Directions are columns of a wider matrix, as those of a model are.
    directions = draw(shapes, 3 * count + 6, scale=0.02)[:, : 3 * count]
    bases = VertexBases(
        draw(*rows, 3 * count, scale=0.5), directions, draw(features, 3 * count, scale=0.01), weights / weights.sum(0)
    )
    inputs = draw(bodies, shapes), draw(bodies, features, scale=0.3), draw(bodies, 12, joints, scale=0.6)
    return bases, inputs


def on(device, dtype, values):
    return [None if value is None else value.detach().to(device, dtype) for value in values]


def both(bases, inputs, upstream, *, packed=None):
    """Return posed, planes and gradients by the kernels, and by the plain path in float64."""
    results = []
    for device, dtype in ((DEVICE, torch.float32), ("cpu", torch.float64)):
        template, *constants = on(device, dtype, bases)
        leaves = [v if v is None else v.requires_grad_() for v in (template, *on(device, dtype, inputs))]
        here = VertexBases(leaves[0], *constants)
        if device == DEVICE and dtype == torch.float32:
            out = triton_skinning(here, *leaves[1:], packed)
        else:
            out = plain_skinning(here, *leaves[1:])
        outs, ups = zip(*[(o, u.to(o)) for o, u in zip(out, upstream, strict=True) if o is not None], strict=True)
        wanted = [leaf for leaf in leaves if leaf is not None]
        slopes = torch.autograd.grad(outs, wanted, ups, materialize_grads=True, allow_unused=True)
        results.append(([o.detach().cpu().double() for o in outs], [s.cpu().double() for s in slopes]))
    return results


def assert_alike(found, expected):
    """Values to a micrometre, gradients to 1e-5 of their largest entry."""
    for a, b in zip(found[0], expected[0], strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    for a, b in zip(found[1], expected[1], strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * b.abs().max().item() if b.numel() else 0)


def upstream_of(bodies, count):
    return draw(bodies, 3, count), draw(bodies, 3 * count)


@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients_are_those_of_the_plain_path_at_any_size(size):
    bodies, count = SIZES[size]
    bases, inputs = problem(bodies, count, features=207 if bodies < 10 else 40)
    assert_alike(*both(bases, inputs, upstream_of(bodies, count)))


@pytest.mark.parametrize("joints", [1, 5, 16, 55])
def test_any_number_of_joints_shapes_and_features_will_do(joints):
    bases, inputs = problem(3, 40, shapes=3, features=9 * (joints - 1), joints=joints)
    assert_alike(*both(bases, inputs, upstream_of(3, 40)))


@pytest.mark.parametrize("without", ["shape", "correctives", "both"])
def test_models_without_shape_or_correctives_are_skinned(without):
    bases, (coefficients, feature, transforms) = problem(4, 50)
    if without != "correctives":
        coefficients, bases = None, bases._replace(shape_directions=None)
    if without != "shape":
        feature = None
    assert_alike(*both(bases, (coefficients, feature, transforms), upstream_of(4, 50)))


def test_a_template_for_each_body_has_its_own_gradient():
    bases, (_, feature, transforms) = problem(18, 50, template_rows=18)
    bases = bases._replace(shape_directions=None)
    assert_alike(*both(bases, (None, feature, transforms), upstream_of(18, 50)))


@pytest.mark.parametrize(
    "layout",
    [
        lambda grad: grad.transpose(1, 2).contiguous().transpose(1, 2),  # of a loss on (B, V, 3)
        lambda grad: grad[:1, :1, :1].expand(grad.shape),  # of a sum
        lambda grad: torch.stack((grad, grad), dim=-1)[..., 0],
    ],
    ids=["vertices", "sum", "every second number"],
)
def test_gradients_come_in_with_any_strides(layout):
    bases, inputs = problem(3, 70)
    posed, planes = upstream_of(3, 70)
    assert_alike(*both(bases, inputs, (layout(posed), planes)))


@pytest.mark.parametrize("output", [0, 1])
def test_gradients_of_one_result_alone(output):
    bases, inputs = problem(3, 70)
    leaves = [value.to(DEVICE).requires_grad_() for value in inputs]
    on_device = VertexBases(*on(DEVICE, torch.float32, bases))
    upstream = upstream_of(3, 70)[output].to(DEVICE)
    slopes = []
    for skinning in (triton_skinning, plain_skinning):
        out = skinning(on_device, *leaves)[output]
        slopes.append(torch.autograd.grad(out, leaves, upstream, materialize_grads=True, allow_unused=True))
    for found, expected in zip(*slopes, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(expected.abs().max().item(), 1e-30))


def test_only_the_gradients_that_are_wanted_are_made():
    bases, inputs = problem(3, 70)
    on_device = VertexBases(*on(DEVICE, torch.float32, bases))
    for index in range(3):
        values = [value.to(DEVICE) for value in inputs]
        values[index].requires_grad_()
        posed, _ = triton_skinning(on_device, *values)
        wanted = torch.autograd.grad(posed.square().sum(), values[index])[0]
        values = [value.requires_grad_() for value in values]
        posed, _ = triton_skinning(on_device, *values)
        assert torch.equal(wanted, torch.autograd.grad(posed.square().sum(), values[index])[0])


def test_the_derivative_of_a_gradient_is_that_of_the_plain_path():
    bases, inputs = problem(3, 40)
    on_device = VertexBases(*on(DEVICE, torch.float32, bases))
    twice = []
    for skinning in (triton_skinning, plain_skinning):
        leaves = [value.to(DEVICE).requires_grad_() for value in inputs]
        posed, planes = skinning(on_device, *leaves)
        energy = (posed.square() * posed).sum() + planes.square().sum()
        slopes = torch.autograd.grad(energy, leaves, create_graph=True)
        twice.append(torch.autograd.grad(sum(slope.square().sum() for slope in slopes), leaves))
    for found, expected in zip(*twice, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_two_runs_give_the_same_bits():
    bases, inputs = problem(17, 70)
    on_device = VertexBases(*on(DEVICE, torch.float32, bases))
    runs = []
    for _ in range(2):
        leaves = [value.to(DEVICE).requires_grad_() for value in inputs]
        posed, planes = triton_skinning(on_device, *leaves)
        runs.append((posed, planes, *torch.autograd.grad(posed.square().sum() + planes.sum(), leaves)))
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


def test_directions_in_16_bits_give_the_function_of_the_rounded_ones():
    bases, inputs = problem(3, 70)
    step = bases.pose_directions.abs().amax(dim=1) / 32767
    steps = (bases.pose_directions / step[:, None]).round()
    rounded = bases._replace(pose_directions=steps * step[:, None])
    packed = PackedDirections(steps.to(DEVICE, torch.int16), step.to(DEVICE))
    hidden = bases._replace(pose_directions=torch.full_like(bases.pose_directions, torch.nan))
    upstream = upstream_of(3, 70)
    found, _ = both(hidden, inputs, upstream, packed=packed)
    _, expected = both(rounded, inputs, upstream)
    assert_alike(found, expected)


@pytest.mark.parametrize("precision", ["tf32x3", "ieee"])
def test_the_backward_pass_keeps_the_precision_of_the_forward_pass(precision, monkeypatch):
    seen = []
    for name in ("_forward", "_backward"):
        whole = getattr(triton_module, name)
        monkeypatch.setattr(triton_module, name, lambda p, *a, whole=whole, **k: seen.append(p) or whole(p, *a, **k))
    bases, inputs = problem(1, 16)
    leaves = [value.to(DEVICE).requires_grad_() for value in inputs]
    with gpu_precision(precision):
        posed, _ = triton_skinning(VertexBases(*on(DEVICE, torch.float32, bases)), *leaves)
    posed.sum().backward()
    assert seen == [precision, precision]


MODELS = {
    **{family: lambda f=family: synthetic_model(f, num_vertices=30) for family in ("smpl", "smplx", "mano", "star")},
    "scales": lambda: segment_scale_model(synthetic_model("smpl", num_vertices=30)),
}


@pytest.mark.parametrize(("name", "packed"), [*((name, False) for name in MODELS), ("smpl", True)])
def test_a_model_takes_the_kernels(name, packed, monkeypatch):
    data = MODELS[name]()
    arguments = random_arguments(data, 5)
    exact = BodyModel(data, dtype=torch.float64)
    model = BodyModel(data, device=DEVICE)
    if packed:
        exact, model = pack_directions(exact), pack_directions(model)
    monkeypatch.setattr(passes, "runs_on_gpu_kernels", lambda tensor: tensor.dtype == torch.float32)
    expected, slopes = run(exact, arguments, "cpu", torch.float64)
    found, found_slopes = run(model, arguments, DEVICE, torch.float32)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    for mine, theirs in zip(found_slopes, slopes, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item())


def run(model, arguments, device, dtype):
    """Return the vertices, and the gradients of a function of them."""
    leaves = {name: value.detach().to(device, dtype).requires_grad_() for name, value in arguments.items()}
    out = model(**leaves)
    slopes = torch.autograd.grad(out.vertices.square().sum() + out.rest.vertices.sum(), list(leaves.values()))
    with torch.no_grad():
        torch.testing.assert_close(model(**leaves).vertices, out.vertices, rtol=0, atol=1e-6)
    return out.vertices.detach().cpu().double(), [slope.cpu().double() for slope in slopes]


CALLS = {
    "one shape for all poses": lambda given: {n: v[:1] if n == "betas" else v for n, v in given.items()},
    "one pose for all shapes": lambda given: {n: v if n in ("betas", "transl") else v[0] for n, v in given.items()},
    "two dimensions": lambda given: {n: v[:4].unflatten(0, (2, 2)) for n, v in given.items()},
    "one body": lambda given: {n: v[0] for n, v in given.items()},
    "no body": lambda given: {n: v[:0] for n, v in given.items()},
    "fewer betas": lambda given: given | {"betas": given["betas"][:, :4]},
    "the root alone": lambda given: {"global_orient": given["global_orient"]},
}


@pytest.mark.parametrize("call", CALLS)
def test_a_model_takes_the_kernels_with_any_batch(call, monkeypatch):
    data = MODELS["smpl"]()
    arguments = CALLS[call](random_arguments(data, 5))
    monkeypatch.setattr(passes, "runs_on_gpu_kernels", lambda tensor: tensor.dtype == torch.float32)
    expected, slopes = run(BodyModel(data, dtype=torch.float64), arguments, "cpu", torch.float64)
    found, found_slopes = run(BodyModel(data, device=DEVICE), arguments, DEVICE, torch.float32)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    for mine, theirs in zip(found_slopes, slopes, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item() if theirs.numel() else 0)


def test_rotation_matrices_are_skinned_by_the_kernel(monkeypatch):
    data = MODELS["smpl"]()
    pose = torch.linalg.qr(draw(3, 23, 3, 3))[0]
    pose = pose * torch.linalg.det(pose)[..., None, None]
    monkeypatch.setattr(passes, "runs_on_gpu_kernels", lambda tensor: tensor.dtype == torch.float32)
    results = []
    for device, dtype in ((DEVICE, torch.float32), ("cpu", torch.float64)):
        leaf = pose.to(device, dtype).requires_grad_()
        vertices = BodyModel(data, dtype=dtype, device=device)(body_pose=leaf, rotation="matrix").vertices
        slope = torch.autograd.grad(vertices.square().sum(), leaf)[0]
        results.append((vertices.detach().cpu().double(), slope.cpu().double()))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=1e-5 * results[1][1].abs().max().item())


@pytest.mark.parametrize("vertices, within", [(2**22, True), (2**23, False)])
def test_gradients_that_offsets_of_32_bits_do_not_reach_are_brought_together(vertices, within):
    given = torch.empty(128, vertices, 3, device="meta").transpose(1, 2)
    assert 128 * given.stride(0) < 2**31 if within else 64 * given.stride(0) < 2**31
    assert triton_module._reachable(given).is_contiguous() != within
