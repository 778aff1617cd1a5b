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


def problem(bodies, count, *, rows=50, shapes=10, joints=24, templates=None):
    """Return bases and inputs of the size that real ones have: metres, and centimetres of correction."""
    weights = draw(joints, count).abs() ** 4
    # Directions are columns of a wider matrix, as those of a model are.
    directions = draw(rows, 3 * count + 6, scale=0.01)
    template = draw(*(() if templates is None else (templates,)), 3 * count, scale=0.5)
    bases = VertexBases(template, directions, weights / weights.sum(0), shapes)
    return bases, (draw(bodies, rows, scale=0.3), draw(bodies, 12, joints, scale=0.6))


def on(device, dtype, bases):
    """Return the bases elsewhere, without gradients."""
    *constants, shapes = bases
    return VertexBases(*(value.detach().to(device, dtype) for value in constants), shapes)


def plain(bases, coefficients, transforms):
    directions = bases.directions[: 0 if coefficients is None else coefficients.shape[-1]]
    return plain_skinning(bases.template, coefficients, transforms, directions, bases.weights)


def both(bases, inputs, upstream, *, packed=None):
    """Return posed vertices and gradients by the kernels, and by the plain path in float64."""
    results = []
    for device, dtype in ((DEVICE, torch.float32), ("cpu", torch.float64)):
        here = on(device, dtype, bases)
        given = [None if value is None else value.to(device, dtype).requires_grad_() for value in inputs]
        leaves = [here.template.requires_grad_(), *(value for value in given if value is not None)]
        found = triton_skinning(here, *given, packed) if dtype == torch.float32 else plain(here, *given)
        slopes = torch.autograd.grad(found, leaves, upstream.to(found))
        results.append((found.detach().cpu().double(), [slope.cpu().double() for slope in slopes]))
    return results


def assert_alike(found, expected):
    """Values to a micrometre, gradients to 1e-5 of their largest entry."""
    assert found[0].shape == expected[0].shape
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-6)
    for a, b in zip(found[1], expected[1], strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * b.abs().max().item() if b.numel() else 0)


@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients_are_those_of_the_plain_path_at_any_size(size):
    bodies, count = SIZES[size]
    bases, inputs = problem(bodies, count, rows=217 if bodies < 10 else 50)
    assert_alike(*both(bases, inputs, draw(bodies, 3, count)))


@pytest.mark.parametrize("joints", [1, 5, 16, 55])
def test_any_number_of_joints_and_directions_will_do(joints):
    bases, inputs = problem(3, 40, rows=9 * (joints - 1) + 3, shapes=3, joints=joints)
    assert_alike(*both(bases, inputs, draw(3, 3, 40)))


@pytest.mark.parametrize("rows", [0, 1, 40])
def test_only_the_first_directions_may_be_given(rows):
    bases, (coefficients, transforms) = problem(4, 50)
    given = coefficients[:, :rows] if rows else None
    assert_alike(*both(bases, (given, transforms), draw(4, 3, 50)))


def test_a_template_for_each_body_has_its_own_gradient():
    bases, inputs = problem(18, 50, templates=18)
    assert_alike(*both(bases, inputs, draw(18, 3, 50)))


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
    assert_alike(*both(bases, inputs, layout(draw(3, 3, 70))))


def test_only_the_gradients_that_are_wanted_are_made():
    bases, inputs = problem(3, 70)
    on_device = on(DEVICE, torch.float32, bases)
    for index in range(2):
        values = [value.to(DEVICE) for value in inputs]
        values[index].requires_grad_()
        wanted = torch.autograd.grad(triton_skinning(on_device, *values).square().sum(), values[index])[0]
        values = [value.requires_grad_() for value in values]
        found = torch.autograd.grad(triton_skinning(on_device, *values).square().sum(), values[index])[0]
        assert torch.equal(wanted, found)


def test_the_derivative_of_a_gradient_is_that_of_the_plain_path():
    bases, inputs = problem(3, 40)
    on_device = on(DEVICE, torch.float32, bases)
    twice = []
    for skinning in (triton_skinning, plain):
        leaves = [value.to(DEVICE).requires_grad_() for value in inputs]
        posed = skinning(on_device, *leaves)
        slopes = torch.autograd.grad((posed.square() * posed).sum(), leaves, create_graph=True)
        twice.append(torch.autograd.grad(sum(slope.square().sum() for slope in slopes), leaves))
    for found, expected in zip(*twice, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_two_runs_give_the_same_bits():
    bases, inputs = problem(17, 70)
    on_device = on(DEVICE, torch.float32, bases)
    runs = []
    for _ in range(2):
        leaves = [value.to(DEVICE).requires_grad_() for value in inputs]
        posed = triton_skinning(on_device, *leaves)
        runs.append((posed, *torch.autograd.grad(posed.square().sum(), leaves)))
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


def test_directions_in_16_bits_give_the_function_of_the_rounded_ones():
    bases, inputs = problem(3, 70)
    correctives, shape = bases.directions.split((40, 10))
    step = correctives.abs().amax(dim=1) / 32767
    steps = (correctives / step[:, None]).round()
    rounded = bases._replace(directions=torch.cat((steps * step[:, None], shape)))
    packed = PackedDirections(steps.to(DEVICE, torch.int16), step.to(DEVICE))
    hidden = bases._replace(directions=torch.cat((torch.full_like(correctives, torch.nan), shape)))
    upstream = draw(3, 3, 70)
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
        posed = triton_skinning(on(DEVICE, torch.float32, bases), *leaves)
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
