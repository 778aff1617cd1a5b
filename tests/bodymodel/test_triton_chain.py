"""The GPU kernels of the tree compute what the plain path does: on a GPU, else in Triton's interpreter."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: pip install triton (Linux)")

from physique.bodymodel import BodyModel, passes, synthetic_model
from physique.bodymodel.fused_chain import plain_chain
from physique.bodymodel.triton_chain import triton_chain, triton_joints

# On the processor, the compiled kernel would take the calls that are tested here.
pytestmark = pytest.mark.usefixtures("eager")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
F32, F64 = torch.float32, torch.float64
GENERATOR = torch.Generator().manual_seed(0)


def draw(*shape, scale=1.0):
    return scale * torch.randn(shape, generator=GENERATOR)


def problem(family, bodies, levers, *, whole=True):
    """Return the model's constants, vectors with those of a joint that never moves, and levers."""
    model = BodyModel(synthetic_model(family, num_vertices=12))
    joints = model.data.num_joints
    vectors = torch.cat((draw(bodies, joints, 3), torch.zeros(bodies, 1, 3)), dim=1)
    return dict(model.named_buffers()), vectors, draw(levers, (2 if whole else 1) * joints, 3, scale=0.3)


def results(constants, vectors, lever, upstream, *, kernels, used=slice(None)):
    """Return the outputs and the gradients, by the kernels in float32 or by the plain path in float64."""
    device, dtype = (DEVICE, F32) if kernels else ("cpu", F64)
    constants = {n: v.to(device, dtype if v.is_floating_point() else v.dtype) for n, v in constants.items()}
    leaves = [value.to(device, dtype).requires_grad_() for value in (vectors, lever)]
    if not kernels:
        outputs = plain_chain(*leaves, constants)
    elif lever.shape[1] < vectors.shape[1]:
        outputs = (triton_joints(*leaves, constants),)
    else:
        outputs = triton_chain(*leaves, constants)
    pulls = [up.to(device, dtype) for up in upstream]
    slopes = torch.autograd.grad(outputs[used], leaves, pulls[used], materialize_grads=True, allow_unused=True)
    # The joint that never moves is no input: its vector is a constant.
    slopes = [slopes[0][:, :-1], slopes[1]]
    return [o.detach().cpu().double() for o in outputs], [s.cpu().double() for s in slopes]


def pulls_on(vectors, whole=True):
    bodies, joints = len(vectors), vectors.shape[1] - 1
    shapes = [(joints, 3), (joints, 3, 3), (12, joints), (9 * (joints - 1),)][: 4 if whole else 1]
    return [draw(bodies, *shape) for shape in shapes]


def assert_alike(found, expected):
    for a, b in zip(found[0], expected[0], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-6)
    for a, b in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * b.abs().max().item() if b.numel() else 0)


@pytest.mark.parametrize("family", ["smpl", "smplx", "mano", "flame"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "joints"])
def test_values_and_gradients_are_those_of_the_plain_path(family, whole):
    given = problem(family, 3, 3, whole=whole)
    pulls = pulls_on(given[1], whole)
    assert_alike(results(*given, pulls, kernels=True), results(*given, pulls, kernels=False))


@pytest.mark.parametrize(("bodies", "levers"), [(0, 0), (0, 1), (1, 1), (17, 1), (17, 17)])
def test_any_batch_will_do_and_one_shape_may_serve_all(bodies, levers):
    given = problem("smpl", bodies, levers)
    pulls = pulls_on(given[1])
    assert_alike(results(*given, pulls, kernels=True), results(*given, pulls, kernels=False))


@pytest.mark.parametrize("used", range(4), ids=["joints", "turned", "transforms", "feature"])
def test_gradients_of_one_result_alone(used):
    given = problem("smpl", 3, 3)
    pulls, used = pulls_on(given[1]), slice(used, used + 1)
    found, expected = (results(*given, pulls, kernels=kernels, used=used) for kernels in (True, False))
    assert_alike((found[0], found[1][:1]), (expected[0], expected[1][:1]))
    scale = max(slope.abs().max().item() for slope in expected[1])
    torch.testing.assert_close(found[1][1], expected[1][1], rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-8, 1e-4, 0.02, 0.05, 0.06, torch.pi, 2 * torch.pi, 7.0])
def test_gradients_are_right_at_every_angle(angle):
    constants, vectors, lever = problem("mano", 3, 3)
    vectors = torch.nn.functional.normalize(vectors, dim=-1) * angle
    pulls = pulls_on(vectors)
    found, expected = (results(constants, vectors, lever, pulls, kernels=kernels) for kernels in (True, False))
    for a, b in zip(found[0], expected[0], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-6)
    for a, b in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5 * b.abs().max().item())


def test_the_derivative_of_a_gradient_is_that_of_the_plain_path():
    constants, vectors, lever = problem("mano", 2, 2)
    constants = {name: value.to(DEVICE) for name, value in constants.items()}
    twice = []
    for chain in (triton_chain, plain_chain):
        leaves = [value.to(DEVICE).requires_grad_() for value in (vectors, lever)]
        energy = sum(value.square().sum() for value in chain(*leaves, constants))
        slopes = torch.autograd.grad(energy, leaves, create_graph=True)
        again = torch.autograd.grad(slopes[0][:, :-1].square().sum() + slopes[1].square().sum(), leaves)
        twice.append((again[0][:, :-1], again[1]))
    for found, expected in zip(*twice, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


def test_joints_of_a_model_take_the_kernels(monkeypatch):
    data = synthetic_model("smpl", num_vertices=12)
    monkeypatch.setattr(passes, "runs_on_gpu_kernels", lambda tensor: tensor.dtype == F32)
    betas, pose, transl = draw(5, 10), draw(5, 23, 3), draw(5, 3)
    slopes, values = [], []
    for device, dtype in ((DEVICE, F32), ("cpu", F64)):
        model = BodyModel(data, dtype=dtype, device=device)
        leaves = [value.to(device, dtype).requires_grad_() for value in (betas, pose, transl)]
        joints = model.joints(betas=leaves[0], body_pose=leaves[1], transl=leaves[2])
        values.append(joints.detach().cpu().double())
        slopes.append([slope.cpu().double() for slope in torch.autograd.grad(joints.square().sum(), leaves)])
    torch.testing.assert_close(*values, rtol=0, atol=1e-6)
    for found, expected in zip(*slopes, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
