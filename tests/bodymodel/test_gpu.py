"""What the GPU path promises and can be checked without a GPU: exact enough products, and calls that never wait."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from body_arguments import random_arguments
from oracles import tf32x3
from physique.bodymodel import (
    BodyModel,
    KeypointRegressor,
    SurfacePoints,
    gpu,
    gpu_precision,
    pack_directions,
    passes,
    synthetic_model,
)
from physique.bodymodel.gpu import chosen_precision, packed_directions
from refusals import refuses
from torch.utils._python_dispatch import TorchDispatchMode

RANDOM = np.random.default_rng(0)
# Operations that wait for a device, or bring numbers to it from the host.
WAITING = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "lift_fresh", "masked_select", "unique")


class Recorder(TorchDispatchMode):
    """Keeps the names of all operations."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_tf32_keeps_ten_bits_of_fraction():
    values = np.float32([1, 1 + 2**-10, 1 + 2**-11, 1 + 2**-12, -3.14159265, 0])
    assert tf32x3.to_tf32(values).tolist() == [1, 1 + 2**-10, 1 + 2**-10, 1, -3.140625, 0]
    assert tf32x3.to_tf32(values, truncate=True).tolist() == [1, 1 + 2**-10, 1, 1, -3.140625, 0]


def test_three_tf32_products_of_small_integers_are_exact():
    left, right = (RANDOM.integers(-9, 10, shape) for shape in ((3, 70), (70, 5)))
    assert np.array_equal(tf32x3.product(left, right), left @ right)


@pytest.mark.parametrize("angle", [0.35, 1.0])
def test_posed_vertices_from_three_tf32_products_are_right_to_a_micrometre(angle):
    """Bodies of metres through the kernel's arithmetic; one product in TF32 alone would be off by more."""
    data = synthetic_model("smpl", num_vertices=400)
    model, exact = BodyModel(data), BodyModel(data, dtype=torch.float64)
    arguments = {"betas": torch.randn(6, 10), "body_pose": angle * torch.randn(6, 23, 3)}
    expected = exact(**{name: value.double() for name, value in arguments.items()}).vertices.transpose(1, 2)
    given = model._signature.read(arguments, torch.float32)
    lever = passes.shape_lever(model._plan, model._constants, given, 48)
    chain = passes._chain(model._plan, model._constants, given, lever, False)
    bases = passes.vertex_bases(model._plan, model._constants)

    def pose(product):
        moved = product(arguments["betas"].numpy(), bases.shape_directions.numpy())
        moved = moved + product(chain.feature.numpy(), bases.pose_directions.numpy()) + bases.template.numpy()
        turn = product(chain.transforms.reshape(-1, 24).numpy(), bases.weights.numpy()).reshape(6, 3, 4, -1)
        return (turn[:, :, :3] * moved.reshape(6, 1, 3, -1)).sum(2) + turn[:, :, 3]

    assert np.abs(pose(tf32x3.product) - expected.numpy()).max() < 7e-7
    assert np.abs(pose(lambda a, b: tf32x3.to_tf32(a) @ tf32x3.to_tf32(b)) - expected.numpy()).max() > 1e-4


def test_gradients_from_three_tf32_products_are_right():
    pulled, directions = RANDOM.normal(size=(4, 6000)), 0.01 * RANDOM.normal(size=(50, 6000))
    pulled, directions = np.float32(pulled), np.float32(directions)
    expected = pulled.astype(np.float64) @ directions.T.astype(np.float64)
    error = np.abs(tf32x3.product(pulled, directions.T) - expected).max()
    assert error < 1e-6 * np.abs(expected).max()


def test_the_precision_holds_inside_its_block_alone():
    assert chosen_precision() == "tf32x3"
    with gpu_precision("ieee"):
        with gpu_precision("tf32x3"):
            assert chosen_precision() == "tf32x3"
        assert chosen_precision() == "ieee"
    assert chosen_precision() == "tf32x3"


def test_a_precision_of_another_name_is_refused():
    with refuses("precision"), gpu_precision("tf32"):
        pass


@pytest.mark.parametrize("family", ["smpl", "flame", "star"])
def test_packed_directions_are_off_by_half_a_step_at_most(family):
    model = BodyModel(synthetic_model(family, num_vertices=50), dtype=torch.float64)
    packed = pack_directions(model)
    rounded, exact = packed._constants["_directions"], model._constants["_directions"]
    steps, step = packed_directions(packed._constants, rounded)
    count = len(steps)
    assert steps.dtype == torch.int16
    assert torch.equal(rounded[:count], steps * step[:, None])
    assert ((rounded - exact)[:count].abs() <= 0.5000001 * step[:, None]).all()
    assert len(rounded) - count == model.data.shapedirs.shape[2]
    assert torch.equal(rounded[count:], exact[count:])
    assert packed_directions(model._constants, exact) is None
    assert packed_directions(packed._constants, rounded[:, :6]) is None
    assert set(model.state_dict()) == set(packed.state_dict())


def test_packing_leaves_the_model_as_it_was():
    model = BodyModel(synthetic_model("smpl", num_vertices=50))
    before = {name: value.clone() for name, value in model.named_buffers()}
    packed = pack_directions(model).double()
    assert packed.dtype == torch.float64
    assert {name: value.dtype for name, value in model.named_buffers()} == {n: v.dtype for n, v in before.items()}
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_a_model_without_correctives_can_be_packed():
    data = synthetic_model("smpl", num_vertices=50)
    model = BodyModel(data).freeze(body_pose=torch.zeros(23, 3))
    assert torch.equal(pack_directions(model)().vertices, model().vertices)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("family", ["smpl", "smplx", "flame", "star"])
def test_no_call_waits_for_the_device(family, fused, monkeypatch):
    """What a CUDA graph can hold: no number is read back, no constant comes from the host."""
    monkeypatch.setattr(passes, "is_alone", lambda: fused)
    data = synthetic_model(family, num_vertices=60)
    model = BodyModel(data)
    arguments = random_arguments(data, 3, dtype=torch.float32)
    surface = SurfacePoints(torch.tensor([1, 4]), torch.full((2, 3), 1 / 3))
    ids = torch.tensor([3, 5])
    regressor = KeypointRegressor("smpl24", data) if family == "smpl" else None
    points = None if regressor is None else model.keypoint_bases(regressor)
    leaves = {name: value.requires_grad_(fused) for name, value in arguments.items()}
    with Recorder() as recorder:
        out = model(**leaves)
        results = [out.vertices, out.joints, out.rest.vertices, model.joints(**leaves), model.points(surface, **leaves)]
        results += [model.vertices_and_joints(ids, **leaves)[0], model.rest(betas=leaves["betas"]).joints]
        if points is not None:
            results += [model.keypoints(regressor, **leaves), model.keypoints(points, **leaves)]
        if fused:
            torch.autograd.grad(sum(value.sum() for value in results), list(leaves.values()))
    assert not [name for name in recorder.names if name in WAITING]


def test_the_recorder_sees_what_waits():
    with Recorder() as recorder:
        torch.ones(3).sum().item()
        torch.tensor([1.0, 2.0])
    assert {"_local_scalar_dense", "lift_fresh"} <= set(recorder.names)


@pytest.mark.parametrize(
    ("capability", "hip", "version", "has"),
    [
        ((8, 0), None, "3.6.0", True),
        ((12, 0), None, "3.10.1+git", True),
        ((7, 5), None, "3.9.0", False),
        ((9, 0), "7.0", "3.9.0", False),
        ((9, 0), None, "3.5.1", False),
        ((9, 0), None, None, False),
    ],
)
def test_the_kernels_ask_for_a_gpu_and_a_triton_that_they_were_checked_with(capability, hip, version, has, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setitem(sys.modules, "triton", version and SimpleNamespace(__version__=version))
    assert gpu._has_kernels.__wrapped__(torch.device("cuda", 0)) == has


def test_tensors_that_may_have_no_memory_go_to_operations_of_pytorch():
    class OnGpu(torch.Tensor):
        is_cuda = True

    assert not gpu.runs_on_gpu_kernels(torch.zeros(1).as_subclass(OnGpu))
