"""The body model compiles in one graph and exports with a dynamic batch, with the same result."""

import shutil

import pytest
import torch
import torch._dynamo.testing
from body_arguments import FAMILY_NAMES, random_arguments
from physique.bodymodel import BodyModel, SurfacePoints, segment_scale_model, synthetic_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

EAGER = "aot_eager"  # traces and differentiates as the default backend does, without its minutes of code generation


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()


def model_and_arguments(family, *batch):
    model = BodyModel(synthetic_model(family, num_vertices=40), dtype=torch.float64)
    return model, random_arguments(model.data, *batch)


def assert_same(outputs, expected):
    for ours, other in zip(outputs, expected, strict=True):
        torch.testing.assert_close(ours, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_it_compiles_in_one_graph(family):
    model, arguments = model_and_arguments(family, 2)
    compiled = torch.compile(model, fullgraph=True, backend=EAGER)
    out, expected = compiled(**arguments), model(**arguments)
    assert_same((*out[:3], *out.rest), (*expected[:3], *expected.rest))


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)], ids=str)
def test_any_batch_compiles(batch):
    model, arguments = model_and_arguments("smpl", *batch)
    compiled = torch.compile(model, fullgraph=True, backend=EAGER)
    assert_same(compiled(**arguments)[:3], model(**arguments)[:3])


def test_a_compiled_body_has_the_same_gradients():
    model, arguments = model_and_arguments("smpl", 2)
    arguments = {name: value.requires_grad_() for name, value in arguments.items()}
    compiled = torch.compile(model, fullgraph=True, backend=EAGER)
    upstream = torch.randn(2, 40, 3, dtype=torch.float64)
    gradients = [
        torch.autograd.grad(function(**arguments).vertices, list(arguments.values()), upstream)
        for function in (compiled, model)
    ]
    assert_same(*gradients)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the default backend needs a C++ compiler")
def test_the_default_backend_gives_the_same_body():
    model, arguments = model_and_arguments("smpl", 2)
    compiled = torch.compile(model, fullgraph=True)
    assert_same(compiled(**arguments)[:3], model(**arguments)[:3])


@pytest.mark.parametrize("rotation, event", [("matrix", (3, 3)), ("rotation_6d", (6,)), ("quaternion_wxyz", (4,))])
def test_every_rotation_format_compiles(rotation, event):
    model, _ = model_and_arguments("smpl")
    pose = torch.randn(2, 23, *event, dtype=torch.float64)

    def f(pose):
        return model(body_pose=pose, rotation=rotation).vertices

    assert_same([torch.compile(f, fullgraph=True, backend=EAGER)(pose)], [f(pose)])


def test_joints_points_and_stages_compile():
    model, arguments = model_and_arguments("smpl", 2)
    faces, weights = torch.tensor([0, 3]), torch.full((2, 3), 1 / 3, dtype=torch.float64)
    shape = {"betas": arguments["betas"]}
    pose = {name: value for name, value in arguments.items() if name != "betas"}

    def f(weights):
        staged = model.pose(model.rest(**shape), **pose).vertices
        return model.joints(**arguments), model.points(SurfacePoints(faces, weights), **arguments), staged

    assert_same(torch.compile(f, fullgraph=True, backend=EAGER)(weights), f(weights))


def test_segment_scales_compile():
    model = BodyModel(segment_scale_model(synthetic_model(num_vertices=40), per_axis=True))
    scale = 1 + 0.1 * torch.randn(2, 24, 3)

    def f(scale):
        return model(segment_scale=scale).vertices

    torch.testing.assert_close(torch.compile(f, fullgraph=True, backend=EAGER)(scale), f(scale))


def test_one_compilation_serves_every_batch_size():
    model, _ = model_and_arguments("smpl")
    counter = torch._dynamo.testing.CompileCounterWithBackend(EAGER)
    compiled = torch.compile(model, fullgraph=True, backend=counter, dynamic=True)
    for size in (2, 5, 9):
        arguments = random_arguments(model.data, size)
        assert_same(compiled(**arguments)[:3], model(**arguments)[:3])
    assert counter.frame_count == 1


class Exportable(torch.nn.Module):
    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, values):
        out = self.model(**dict(zip(self.names, values, strict=True)))
        return (*out[:3], self.model.joints(**dict(zip(self.names, values, strict=True))))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_it_exports_with_a_dynamic_batch(family):
    model, arguments = model_and_arguments(family, 3)
    module = Exportable(model, tuple(arguments))
    dynamic = ([{0: torch.export.Dim("batch", min=1, max=4096)}] * len(arguments),)
    exported = torch.export.export(module, (list(arguments.values()),), dynamic_shapes=dynamic).module()
    for size in (1, 2, 7):
        values = list(random_arguments(model.data, size).values())
        assert_same(exported(values), module(values))
