"""Compiled programs run on the compiled kernel through its operators, and are the same functions as without it."""

import copy
import gc
import io
import pickle
import shutil
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
import torch._dynamo.testing
import torch._inductor.config
from body_arguments import random_arguments
from physique.bodymodel import (
    BodyModel,
    KeypointRegressor,
    compiled_op,
    packed,
    segment_scale_model,
    synthetic_model,
    use_backend,
)
from physique.bodymodel.backend import active_kernel
from physique.bodymodel.compiled_trace import read_description
from physique.geometry import axis_angle_to_matrix, check_values
from refusals import refuses

pytestmark = [
    pytest.mark.skipif(active_kernel() is None, reason="the compiled kernel is not in use"),
    pytest.mark.skipif(not compiled_op.HAS_OPERATORS, reason="this PyTorch is older than the operators need"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

F32 = torch.float32
MODELS = {
    **{
        name: lambda f=name: synthetic_model(f, num_vertices=40) for name in ("smpl", "smplh", "smplx", "mano", "flame")
    },
    "no correctives": lambda: synthetic_model("smpl", num_vertices=40, pose_correctives=False),
    "scales": lambda: segment_scale_model(synthetic_model("smpl", num_vertices=40)),
    "scales along axes": lambda: segment_scale_model(synthetic_model("smpl", num_vertices=40), per_axis=True),
}


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()


class Compiled:
    """A function compiled in one graph, which counts the kernel's operators in what the compiler made of it."""

    def __init__(self, function, backend="aot_eager", fullgraph=True, **options):
        self.graphs = []
        self.inner = torch._dynamo.testing.CompileCounterWithBackend(backend)
        self.call = torch.compile(function, backend=self._keep, fullgraph=fullgraph, **options)

    def _keep(self, graph, inputs):
        self.graphs.append(graph)
        return self.inner(graph, inputs)

    def __call__(self, *values, **named):
        return self.call(*values, **named)

    @property
    def operators(self):
        return [
            str(node.target) for graph in self.graphs for node in graph.graph.nodes if "physique" in str(node.target)
        ]


def model_and_arguments(name="smpl", batch=(3,)):
    model = BodyModel(MODELS[name]())
    arguments = random_arguments(model.data, *batch, dtype=F32)
    if name == "scales along axes":
        arguments["segment_scale"] = arguments["segment_scale"].unflatten(-1, (-1, 3))
    return model, arguments


def keypoint_bases_of(model):
    matrix = np.random.default_rng(0).dirichlet(np.ones(len(model.v_template)), size=17)
    matrix[:, 9:] = 0
    regressor = KeypointRegressor("coco17", model.data, regressor=matrix, regressor_rows="set")
    return model.keypoint_bases(regressor)


def calls_of(model):
    """Return the calls that the kernel takes."""
    bases = model.vertex_bases(torch.arange(0, len(model.v_template), 3))
    calls = {
        "whole": lambda **a: (lambda out: (*out[:3], *out.rest))(model(**a)),
        "joints": lambda **a: (model.joints(**a),),
        "subset": lambda **a: model.vertices_and_joints(bases, **a),
    }
    if model.skeleton.num_joints == 24:
        keypoints = keypoint_bases_of(model)
        calls["keypoints"] = lambda **a: (model.keypoints(keypoints, **a),)
    return calls


def all_of(calls):
    """Return one function that makes all calls, to be compiled once."""
    return lambda **a: tuple(value for call in calls.values() for value in call(**a))


def values_and_gradients(call, arguments):
    """Return what a call returns, and the gradients of a random mixture of it."""
    generator = torch.Generator().manual_seed(1)
    leaves = {name: value.detach().clone().requires_grad_() for name, value in arguments.items()}
    found = call(**leaves)
    energy = sum((value * torch.randn(value.shape, generator=generator)).sum() for value in found)
    return found, torch.autograd.grad(energy, [*leaves.values()])


def assert_same(found, expected, atol=1e-6):
    for ours, other in zip(found, expected, strict=True):
        assert ours.shape == other.shape and ours.dtype == other.dtype
        torch.testing.assert_close(ours, other, rtol=0, atol=atol)


def assert_same_gradients(found, expected, share=1e-5):
    for ours, other in zip(found, expected, strict=True):
        assert ours.shape == other.shape and ours.dtype == other.dtype
        most = other.abs().max().item() if other.numel() else 0
        torch.testing.assert_close(ours, other, rtol=0, atol=share * most)


def assert_runs_on_the_operator(model, arguments, backend="aot_eager", share=1e-5, **options):
    """Compile all calls as one program, and compare its values and gradients with those of eager calls."""
    calls = calls_of(model)
    compiled = Compiled(all_of(calls), backend, **options)
    found, slopes = values_and_gradients(compiled, arguments)
    expected, right = values_and_gradients(all_of(calls), arguments)
    assert_same(found, expected)
    assert_same_gradients(slopes, right, share)
    assert compiled.operators == ["physique.pose"] * len(calls)
    return compiled


@pytest.mark.parametrize("name", MODELS)
def test_compiled_programs_run_on_the_operator_with_the_same_numbers_and_gradients(name):
    model, arguments = model_and_arguments(name)
    compiled = assert_runs_on_the_operator(model, arguments)
    with torch.no_grad():
        assert_same(compiled(**arguments), all_of(calls_of(model))(**arguments))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the default backend needs a C++ compiler")
@pytest.mark.parametrize("batch", [(1,), (2, 3)], ids=str)
def test_the_default_backend_gives_the_same_numbers_and_gradients(batch):
    assert_runs_on_the_operator(*model_and_arguments("smpl", batch), "inductor")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the default backend needs a C++ compiler")
def test_programs_that_are_c_plus_plus_throughout_call_the_operator():
    model, arguments = model_and_arguments()
    with torch._inductor.config.patch(cpp_wrapper=True):
        assert_runs_on_the_operator(model, arguments, "inductor")
        torch.compiler.reset()
        pose = arguments["body_pose"].requires_grad_()
        joints = torch.compile(lambda p: model.joints(body_pose=p))(pose)  # of which one gradient is made
        found = torch.autograd.grad(joints.square().sum(), pose)
    assert_same_gradients(found, torch.autograd.grad(model.joints(body_pose=pose).square().sum(), pose))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the default backend needs a C++ compiler")
def test_a_program_from_the_cache_has_the_constants_of_the_model_that_calls_it():
    _, arguments = model_and_arguments()
    for seed in range(3):
        torch.compiler.reset()
        model = BodyModel(synthetic_model("smpl", num_vertices=40, seed=seed))
        found = torch.compile(lambda m, a: m(**a)[:3], fullgraph=True)(model, arguments)
        assert_same(found, model(**arguments)[:3])


def shared_shape(arguments):
    return arguments | {"betas": arguments["betas"][0]}


def outer_product(arguments):
    return arguments | {"betas": arguments["betas"][:, None]}


def one_body(arguments):
    return {name: value[0] for name, value in arguments.items()}


def no_body(arguments):
    return {name: value[:0] for name, value in arguments.items()}


def two_dimensions(arguments):
    return {name: value.unflatten(0, (2, 2)) for name, value in arguments.items()}


def strided(arguments):
    return {name: torch.stack((value, value), dim=-1)[..., 0] for name, value in arguments.items()}


def fewer(arguments):
    return {"betas": arguments["betas"][:, :4], "body_pose": arguments["body_pose"]}


def half(arguments):
    return {name: value.half() for name, value in arguments.items()}


@pytest.mark.parametrize("form", [shared_shape, outer_product, one_body, no_body, two_dimensions, strided, fewer, half])
def test_any_form_of_arguments_compiles_to_the_operator(form):
    model, arguments = model_and_arguments("smpl", (4,))
    assert_runs_on_the_operator(model, form(arguments), share=1e-3 if form is half else 1e-5)


def test_a_frozen_model_compiles_to_the_operator():
    model, arguments = model_and_arguments("smplx")
    still = "betas", "left_hand_pose"
    frozen = model.freeze(**{name: arguments.pop(name)[0] for name in still})
    assert_runs_on_the_operator(frozen, arguments)


def test_the_rest_body_costs_nothing_where_nothing_reads_it():
    model, arguments = model_and_arguments()
    sizes = []
    for function in (lambda **a: model(**a).vertices, lambda **a: model(**a).rest.vertices):
        graphs = []

        def keep(graph, _, graphs=graphs):
            graphs.append(graph)
            return graph

        torch.compiler.reset()
        backend = torch._dynamo.backends.common.aot_autograd(fw_compiler=keep)
        torch.compile(function, backend=backend, fullgraph=True)(**arguments)
        targets = [str(node.target) for node in graphs[0].graph.nodes if node.op == "call_function"]
        sizes.append((sum("physique" in t for t in targets), sum("mm" in t for t in targets)))
    assert sizes == [(1, 0), (0, 1)]


def test_one_compilation_serves_every_batch_size():
    model, arguments = model_and_arguments("smpl", (2,))
    compiled = assert_runs_on_the_operator(model, arguments, dynamic=True)
    for size in (5, 9):
        arguments = random_arguments(model.data, size, dtype=F32)
        found, slopes = values_and_gradients(compiled, arguments)
        expected, right = values_and_gradients(all_of(calls_of(model)), arguments)
        assert_same(found, expected)
        assert_same_gradients(slopes, right)
    assert compiled.inner.frame_count == 1


def test_only_the_gradients_that_are_wanted_are_made(monkeypatch):
    model, arguments = model_and_arguments()
    arguments["betas"].requires_grad_()
    asked = []
    backward = compiled_op._Call.backward
    monkeypatch.setattr(compiled_op._Call, "backward", lambda self, *a: (asked.append(a[2]), backward(self, *a))[1])
    compiled = Compiled(lambda **a: model(**a).vertices.square().sum())
    compiled(**arguments).backward()
    assert asked == [(True, False, False, False)]
    expected = torch.autograd.grad(model(**arguments).vertices.square().sum(), arguments["betas"])
    assert_same_gradients([arguments["betas"].grad], expected)


def test_what_the_kernel_does_not_take_compiles_to_the_plain_path():
    model, arguments = model_and_arguments()
    pose = axis_angle_to_matrix(arguments["body_pose"])
    star = BodyModel(synthetic_model("star", num_vertices=40))
    exact = BodyModel(model.data, dtype=torch.float64)
    template = model._template.clone().requires_grad_()
    for call in (
        lambda: model(body_pose=pose, rotation="matrix").vertices,
        lambda: model().vertices,
        lambda: star(body_pose=arguments["body_pose"]).vertices,
        lambda: exact(body_pose=arguments["body_pose"].double()).vertices,
        lambda: torch.func.functional_call(model, {"_template": template}, (), arguments).vertices,
    ):
        compiled = Compiled(call)
        torch.testing.assert_close(compiled(), call(), rtol=0, atol=1e-6)
        assert compiled.operators == []


def test_the_backend_in_use_decides_at_every_call():
    model, arguments = model_and_arguments()
    compiled = Compiled(lambda **a: model(**a).vertices)
    expected = compiled(**arguments)
    assert compiled.operators == ["physique.pose"]
    with use_backend("eager"):
        assert_same([compiled(**arguments)], [expected])
        assert len(compiled.graphs) == 2 and compiled.operators == ["physique.pose"]
        fresh = Compiled(lambda **a: model.joints(**a))
        fresh(**arguments)
        assert fresh.operators == []


def test_backward_runs_after_the_backend_was_changed():
    model, arguments = model_and_arguments()
    pose = arguments["body_pose"].requires_grad_()
    found, expected = Compiled(lambda p: model(body_pose=p).vertices)(pose), model(body_pose=pose).vertices
    (right,) = torch.autograd.grad(expected.square().sum(), pose)
    with use_backend("eager"):
        assert_same_gradients(torch.autograd.grad(found.square().sum(), pose), [right])


class Exportable(torch.nn.Module):
    def __init__(self, model, names):
        super().__init__()
        self.model, self.names, self.bases = model, names, model.vertex_bases(torch.arange(5))

    def forward(self, values):
        arguments = dict(zip(self.names, values, strict=True))
        out = self.model(**arguments)
        return *out[:3], self.model.joints(**arguments), *self.model.vertices_and_joints(self.bases, **arguments)


LOADS_ALONE = """
import sys, torch
program = torch.export.load(sys.argv[1]).module()
values, expected = torch.load(sys.argv[2])
for found, right in zip(program(values), expected, strict=True):
    torch.testing.assert_close(found, right, rtol=0, atol=2e-6)
assert "physique" not in sys.modules
"""


def test_an_exported_program_has_no_operator_of_ours_and_loads_without_this_package(tmp_path):
    model, arguments = model_and_arguments()
    module, values = Exportable(model, tuple(arguments)), list(arguments.values())
    expected = module(values)  # packs what is packed
    Compiled(module)(values)
    for strict in (True, False):
        exported = torch.export.export(module, (values,), strict=strict)
        assert not any("physique" in str(node.target) for node in exported.graph.nodes if node.op == "call_function")
    torch.export.save(exported, tmp_path / "body.pt2")
    torch.save((values, expected), tmp_path / "values.pt")
    command = [sys.executable, "-W", "ignore", "-c", LOADS_ALONE, tmp_path / "body.pt2", tmp_path / "values.pt"]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=120)


def test_transforms_in_and_around_compiled_programs_are_right_to_second_order():
    model, arguments = model_and_arguments("smpl", (2,))
    exact, pose = BodyModel(model.data, dtype=torch.float64), arguments["body_pose"]
    step = torch.ones_like(pose)

    def energy(model, pose):
        return model(body_pose=pose, transl=pose[..., 0, :]).vertices.square().sum()

    def transformed(f, p, v):
        func = torch.func
        second = func.grad(lambda q: (func.grad(f)(q) * v).sum())(p)
        return func.vmap(func.grad(f))(p), func.jvp(f, (p,), (v,))[1], second

    expected = transformed(lambda p: energy(exact, p), pose.double(), step.double())
    inside = Compiled(lambda p, v: transformed(lambda q: energy(model, q), p, v))
    outside = Compiled(lambda p: energy(model, p), fullgraph=False)
    outside(pose)
    assert outside.operators == ["physique.pose"]
    for found in (inside(pose, step), transformed(outside, pose, step)):
        for ours, right in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.double(), right, rtol=0, atol=1e-5 * right.abs().max().item())
    assert inside.operators == []


def test_derivatives_of_derivatives_of_a_compiled_program_are_refused_or_right():
    model, arguments = model_and_arguments("smpl", (2,))
    exact = BodyModel(model.data, dtype=torch.float64)

    def twice(model, function, dtype):
        pose = arguments["body_pose"].to(dtype, copy=True).requires_grad_()
        (slope,) = torch.autograd.grad(function(pose).square().sum(), pose, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), pose)[0].double()

    for quantity in (lambda m, p: m(body_pose=p).vertices, lambda m, p: m.joints(body_pose=p)):
        right = twice(exact, lambda p, q=quantity: q(exact, p), torch.float64)
        # Without an autograd of the compiler the operator is differentiated as any other.
        once = Compiled(lambda p, q=quantity: q(model, p), "eager")
        found = twice(model, once, F32)
        assert once.operators == ["physique.pose"]
        torch.testing.assert_close(found, right, rtol=0, atol=1e-4 * right.abs().max().item())
        with pytest.raises(RuntimeError):
            twice(model, Compiled(lambda p, q=quantity: q(model, p)), F32)


def test_batches_of_gradients_are_those_of_a_loop():
    model, arguments = model_and_arguments()
    pose = arguments["body_pose"].requires_grad_()
    joints = Compiled(lambda p: model.joints(body_pose=p), "eager")(pose)
    each = torch.randn(4, *joints.shape)
    (batched,) = torch.autograd.grad(joints, pose, each, is_grads_batched=True, retain_graph=True)
    one_by_one = torch.stack([torch.autograd.grad(joints, pose, one, retain_graph=True)[0] for one in each])
    torch.testing.assert_close(batched, one_by_one, rtol=0, atol=1e-5)


def operands(model, arguments, kind):
    """Return what the operator is given of a call, and which results it is asked for."""
    passes, constants = model._compiled, model._constants
    points = [] if kind == "joints" else [constants[f"_{name}"] for name in ("template", "directions", "weights")]
    tree = [constants[name] for name in passes.tree_names]
    return [*arguments.values()], tree, points, ",".join(arguments), passes.description, kind == "whole"


@pytest.mark.parametrize("name", MODELS)
def test_a_description_says_all_that_is_not_in_tensors(name):
    model, arguments = model_and_arguments(name)
    still = {name: value[0] for name, value in arguments.items() if name in ("betas", "jaw_pose", "leye_pose")}
    for passes in (model._compiled, model.freeze(**still)._compiled):
        plan, signature, _ = read_description(passes.description)
        assert plan == passes.plan and vars(signature) == vars(passes.signature)


KINDS = ("whole", "subset", "joints")


@pytest.mark.parametrize("kind", KINDS)
def test_the_operators_keep_the_rules_of_operators(kind):
    model, arguments = model_and_arguments()
    values, tree, points, *rest = operands(model, arguments, kind)
    torch.library.opcheck(torch.ops.physique.pose, (values, tree, points, *rest))
    leaves = [value.requires_grad_() for value in values]
    torch.library.opcheck(torch.ops.physique.pose, (leaves, tree, points, *rest))
    found = torch.ops.physique.pose([value.detach() for value in values], tree, points, *rest)
    upstream = [torch.randn_like(value) if value.numel() else None for value in found]
    for needed in ([True] * len(values), [True] + [False] * (len(values) - 1)):
        operands_of_backward = *upstream, [value.detach() for value in values], tree, points, needed, *rest
        torch.library.opcheck(torch.ops.physique.pose_backward, operands_of_backward)


@pytest.mark.parametrize("kind", KINDS)
def test_vmap_of_the_operators_is_a_loop(kind):
    model, arguments = model_and_arguments("smpl", (5, 3))
    values, tree, points, *rest = operands(model, arguments, kind)
    values[0] = values[0][0]  # not mapped
    values[1] = values[1].movedim(0, 1)
    dims = [None, 1, *[0] * (len(values) - 2)]

    def one(values, k):
        return [v if d is None else v.select(d, k) for v, d in zip(values, dims, strict=True)]

    def run(values):
        return torch.ops.physique.pose(values, tree, points, *rest)

    found = torch.func.vmap(run, in_dims=(dims,))(values)
    expected = [torch.stack(each) for each in zip(*(run(one(values, k)) for k in range(5)), strict=True)]
    assert_same(found, expected)
    upstream = [torch.randn_like(value) if value.numel() else None for value in found]
    upstream_dims = [None if value is None else 0 for value in upstream]
    needed = [True, True, False, True]

    def slope(upstream, values):
        return torch.ops.physique.pose_backward(*upstream, values, tree, points, needed, *rest)[:-1]

    slopes = torch.func.vmap(slope, in_dims=(upstream_dims, dims))(upstream, values)
    loop = [slope([u if u is None else u[k] for u in upstream], one(values, k)) for k in range(5)]
    assert_same_gradients(slopes, [torch.stack(each) for each in zip(*loop, strict=True)])
    with refuses("constants"):
        torch.func.vmap(lambda t: torch.ops.physique.pose(one(values, 0), [t, *tree[1:]], points, *rest))(
            tree[0].expand(2, -1)
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_operator_is_differentiated_twice(kind):
    model, arguments = model_and_arguments("smpl", (2,))
    values, tree, points, *rest = operands(model, arguments, kind)
    exact = BodyModel(model.data, dtype=torch.float64)
    wide = {name: value.double() for name, value in arguments.items()}

    def ours(pose):
        return torch.ops.physique.pose([*values[:2], pose, values[3]], tree, points, *rest)

    def right(pose):
        if kind == "joints":
            return [exact.joints(**wide | {"body_pose": pose})]
        return exact(**wide | {"body_pose": pose})[: 3 if kind == "whole" else 2]

    found = []
    for run, given in ((ours, arguments), (right, wide)):
        pose = given["body_pose"].clone().requires_grad_()
        (slope,) = torch.autograd.grad(sum(value.square().sum() for value in run(pose)), pose, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), pose)[0].double())
    torch.testing.assert_close(*found, rtol=0, atol=1e-4 * found[1].abs().max().item())


def test_gradients_pass_through_vmap_of_the_operator():
    model, arguments = model_and_arguments("smpl", (5, 3))
    values, tree, points, *rest = operands(model, arguments, "whole")
    leaves = [value.requires_grad_() for value in values]

    def energy(values):
        return sum(value.square().sum() for value in torch.ops.physique.pose(values, tree, points, *rest))

    found = torch.autograd.grad(torch.func.vmap(energy)(leaves).sum(), leaves)
    expected = torch.autograd.grad(sum(energy([value[k] for value in leaves]) for k in range(5)), leaves)
    assert_same_gradients(found, expected)


def test_the_operator_refuses_to_be_differentiated_by_transforms_and_in_forward_mode():
    model, arguments = model_and_arguments("smpl", (2,))
    values, tree, points, *rest = operands(model, arguments, "whole")
    pose = values[2]

    def energy(pose):
        return torch.ops.physique.pose([*values[:2], pose, values[3]], tree, points, *rest)[0].sum()

    for transform in (torch.func.grad, torch.func.jacrev):
        with pytest.raises(RuntimeError, match="autograd.Function"):
            transform(energy)(pose)
    with refuses("values"):
        torch.func.jvp(energy, (pose,), (pose,))
    with torch.autograd.forward_ad.dual_level(), refuses("values"):
        energy(torch.autograd.forward_ad.make_dual(pose, pose))


def test_wrong_operands_are_refused():
    model, arguments = model_and_arguments()
    values, tree, points, names, *rest = operands(model, arguments, "whole")

    def run(values, tree, points):
        return torch.ops.physique.pose(values, tree, points, names, *rest)

    def double(tensors):
        return [value.double() for value in tensors]

    for wrong in (
        double(values),
        [values[0][:2], *values[1:]],
        [values[0][:1], *values[1:]],
        [value[0] for value in values],
        [value[..., :1] for value in values],
    ):
        with refuses("values"):
            run(wrong, tree, points)
    with refuses("_lever_template"):
        run(values, double(tree), points)
    with refuses("template"):
        run(values, tree, double(points))
    upstream = run(values, tree, points)
    needed = [True] * len(values)
    for wrong in (double(upstream), [value[:2] for value in upstream], upstream[::-1]):
        with refuses("posed, joints, rotations"):
            torch.ops.physique.pose_backward(*wrong, values, tree, points, needed, names, *rest)


def test_where_no_kernel_was_built_the_operator_says_so(monkeypatch):
    model, arguments = model_and_arguments()
    monkeypatch.setattr(compiled_op, "built_kernel", lambda: None)
    with refuses("backend"):
        torch.ops.physique.pose(*operands(model, arguments, "joints"))


def test_errors_are_those_of_the_plain_reading():
    model, _ = model_and_arguments()
    for wrong in (torch.zeros(2, 69), torch.zeros(2, 23, 3, dtype=torch.float64)):
        with pytest.raises(Exception, match="body_pose: expected"):
            Compiled(lambda p: model(body_pose=p).vertices)(wrong)
    with check_values(), refuses("body_pose"):
        Compiled(lambda p: model(body_pose=p).vertices, fullgraph=False)(torch.full((2, 23, 3), torch.nan))


def count_packing(monkeypatch):
    """Return a list that grows whenever points are packed."""
    found = []
    for module in ("compiled_op", "compiled_passes", "compiled_call"):
        original = sys.modules[f"physique.bodymodel.{module}"].pack_points
        monkeypatch.setattr(
            f"physique.bodymodel.{module}.pack_points", lambda *a, f=original: (found.append(1), f(*a))[1]
        )
    return found


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_constants_are_packed_once(monkeypatch, backend):
    model, arguments = model_and_arguments()
    calls = calls_of(model)
    leaves = {name: value.requires_grad_() for name, value in arguments.items()}
    times = count_packing(monkeypatch)
    for kind, most in (("whole", 1), ("subset", 1), ("keypoints", 1), ("joints", 0)):
        times.clear()
        compiled = Compiled(calls[kind], backend)
        for _ in range(3):
            sum(value.sum() for value in compiled(**leaves)).backward()
        assert len(times) == most
    times.clear()
    model(**arguments)  # has them from the compiled program
    assert not times


def test_a_model_that_moves_is_copied_or_changed_is_packed_again():
    model, arguments = model_and_arguments()
    compiled = Compiled(lambda m, a: m(**a).vertices, fullgraph=True)
    before = compiled(model, arguments)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.deepcopy(model).double().float()):
        torch.testing.assert_close(compiled(other, arguments), before, rtol=0, atol=1e-6)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    torch.testing.assert_close(compiled(loaded, arguments), before, rtol=0, atol=1e-6)
    model._buffers["_template"] = model._template + 1
    still = {"betas": arguments["betas"]}
    change = compiled(model, still) - compiled(loaded, still)
    torch.testing.assert_close(change, torch.ones_like(change), rtol=0, atol=1e-5)
    smaller = BodyModel(synthetic_model("smpl", num_vertices=33, seed=1))
    assert_same([compiled(smaller, arguments)], [smaller(**arguments).vertices])


def test_views_that_change_at_every_call_do_not_pile_up():
    memory = torch.arange(100.0)
    for start in range(50):
        kept = packed.packed_with([memory[start:]], lambda s=start: s)
        assert kept == start == packed.packed_with([memory[start:]], lambda: None)
    assert len(memory.untyped_storage()._physique_packed) == packed.MOST_VIEWS
    other = memory.clone()
    assert packed.packed_with([memory, other], lambda: "first") == "first"
    assert packed.packed_with([memory.detach(), other.view(-1)], lambda: "again") == "first"
    assert packed.packed_with([memory, other.clone()], lambda: "another") == "another"
    assert packed.packed_with([memory, other], lambda: "again") == "again"


def test_nothing_keeps_a_model_that_is_gone():
    model, arguments = model_and_arguments()
    leaves = {name: value.requires_grad_() for name, value in arguments.items()}
    compiled = Compiled(lambda m, a: m(**a).vertices.sum() + m.joints(**a).sum())
    compiled(model, leaves).backward()
    gone = weakref.ref(model), weakref.ref(model._directions.untyped_storage())
    torch.compiler.reset()
    del model, compiled
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
