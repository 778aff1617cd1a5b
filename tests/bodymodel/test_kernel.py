"""The compiled kernel is the same function as the passes of PyTorch, and takes only what it is right for."""

import copy
import multiprocessing
import os
import pickle
import resource
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from body_arguments import axis_angles, coefficients, random_arguments, sample, to
from oracles import body
from physique.bodymodel import (
    BodyModel,
    KeypointRegressor,
    backend,
    packed,
    segment_scale_model,
    synthetic_model,
    use_backend,
)
from physique.bodymodel.backend import active_kernel
from physique.bodymodel.keypoint_bases import KeypointBases
from physique.bodymodel.packed import pack_points
from physique.geometry import check_values
from physique.geometry.axis_angle import axis_angle_to_matrix
from refusals import refuses

pytestmark = pytest.mark.skipif(active_kernel() is None, reason="the compiled kernel is not in use")
SETS = [] if active_kernel() is None else active_kernel().supported()
MODELS = {
    **{
        name: lambda f=name: synthetic_model(f, num_vertices=70) for name in ("smpl", "smplh", "smplx", "mano", "flame")
    },
    "no correctives": lambda: synthetic_model("smpl", num_vertices=70, pose_correctives=False),
    "scales": lambda: segment_scale_model(synthetic_model("smpl", num_vertices=70)),
    "scales along axes": lambda: segment_scale_model(synthetic_model("smpl", num_vertices=70), per_axis=True),
    "so many that digits are packed": lambda: synthetic_model("smpl", num_vertices=2101),
}
F32, F64 = torch.float32, torch.float64
CLOSE = 1e-6


@contextmanager
def longest_vectors_from(rows):
    before = active_kernel().long_from(rows)
    try:
        yield
    finally:
        active_kernel().long_from(before)


def on_every_instruction_set(call):
    """Return what `call` returns on each, and on the best with its longest vectors, which short calls do not take."""
    with longest_vectors_from(0):
        results = [call()]
    for name in SETS:
        with use_backend(name):
            results.append(call())
    return results


def both(name, batch=(), **changes):
    """Return a model, its twin in float64, and arguments that they take, the same numbers in both types."""
    data = MODELS[name]()
    arguments = to(random_arguments(data, *batch, **changes), F32)
    if name == "scales along axes":
        arguments["segment_scale"] = arguments["segment_scale"].unflatten(-1, (-1, 3))
    return BodyModel(data), BodyModel(data, dtype=F64), arguments, to(arguments, F64)


def runs_on_the_kernel(model, arguments):
    return model._compiled.joints(model._constants, arguments) is not None


def outputs(model, arguments):
    out = model(**arguments)
    bases = model.vertex_bases(torch.arange(0, len(model.v_template), 3))
    found = [*out[:3], *out.rest, model.joints(**arguments), *model.vertices_and_joints(bases, **arguments)]
    if model.skeleton.num_joints == 24:
        matrix = np.random.default_rng(0).dirichlet(np.ones(len(model.v_template)), size=17)
        matrix[:, 9:] = 0
        regressor = KeypointRegressor("coco17", model.data, regressor=matrix, regressor_rows="set", dtype=model.dtype)
        found.append(model.keypoints(model.keypoint_bases(regressor), **arguments))
    return found


# Alone, in small groups, and as many as fill vectors of any length with some left over.
BODIES = (1, 7, 26)


@pytest.mark.parametrize("bodies", BODIES)
@pytest.mark.parametrize("name", MODELS)
def test_values_are_those_of_float64_to_a_micrometre(name, bodies):
    model, exact, arguments, wide = both(name, (bodies,))
    expected = outputs(exact, wide)
    assert runs_on_the_kernel(model, arguments)
    for found in on_every_instruction_set(lambda: outputs(model, arguments)):
        for ours, right in zip(found, expected, strict=True):
            assert ours.dtype == F32 and ours.shape == right.shape
            torch.testing.assert_close(ours.double(), right, rtol=0, atol=CLOSE)


def test_values_are_those_of_the_oracle():
    model, _, arguments, wide = both("smpl", (18,))
    one = sample(wide, 17)
    shape, angles = coefficients(one, model.data), axis_angles(one, model.data)
    expected = body.body(model.data, shape, angles, one["transl"].numpy())
    for out in on_every_instruction_set(lambda: model(**arguments)):
        for ours, right in zip((*out[:3], *out.rest), expected, strict=True):
            np.testing.assert_allclose(ours[17].double().numpy(), right, rtol=0, atol=CLOSE)


def gradients(model, arguments):
    """Return those of a random mixture of all outputs, the same for every type."""
    generator = torch.Generator().manual_seed(1)
    leaves = [value.detach().requires_grad_() for value in arguments.values()]
    found = outputs(model, dict(zip(arguments, leaves, strict=True)))
    mix = [torch.randn(value.shape, dtype=F64, generator=generator) for value in found]
    return torch.autograd.grad(sum((a * b).sum() for a, b in zip(found, mix, strict=True)), leaves)


@pytest.mark.parametrize("bodies", BODIES)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_float64(name, bodies):
    model, exact, arguments, wide = both(name, (bodies,))
    expected = gradients(exact, wide)
    for found in on_every_instruction_set(lambda: gradients(model, arguments)):
        for ours, right in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.double(), right, rtol=0, atol=1e-5 * right.abs().max().item())


@pytest.mark.parametrize("angle", [0.0, 1e-20, 1e-8, 1e-4, 0.05, 0.053, torch.pi, 3.15, 2 * torch.pi, 7.0])
@pytest.mark.parametrize("bodies", [1, 3])
def test_gradients_are_right_at_every_angle(bodies, angle):
    model, exact, _, wide = both("smpl", (bodies,))
    pose = (torch.nn.functional.normalize(wide["body_pose"], dim=-1) * angle).float()
    slopes = []
    for body_model in (model, exact):
        leaf = pose.to(body_model.dtype).requires_grad_()
        slopes += torch.autograd.grad(body_model(body_pose=leaf).vertices.square().sum(), leaf)
    torch.testing.assert_close(slopes[0].double(), slopes[1], rtol=0, atol=1e-5 * slopes[1].abs().max().item())


def shared_shape(arguments):
    return {n: v[0] if n == "betas" else v for n, v in arguments.items()}


def one_for_all(arguments):
    return {n: v[:1] if n == "transl" else v for n, v in arguments.items()}


def outer_product(arguments):
    return {n: v[:3, None] if n == "betas" else v for n, v in arguments.items()}


def expanded(arguments):
    return {n: v[:1].expand_as(v) for n, v in arguments.items()}


def strided(arguments):
    return {n: torch.stack((v, v), dim=-1)[..., 0] for n, v in arguments.items()}


def negated(arguments):
    return {n: torch._neg_view(-v) for n, v in arguments.items()}


def one_body(arguments):
    return {n: v[0] for n, v in arguments.items()}


def no_body(arguments):
    return {n: v[:0] for n, v in arguments.items()}


def two_dimensions(arguments):
    return {n: v[:4].unflatten(0, (2, 2)) for n, v in arguments.items()}


def fewer_betas(arguments):
    return arguments | {"betas": arguments["betas"][:, :4]}


def pose_alone(arguments):
    return {n: arguments[n] for n in ("global_orient", "body_pose")}


def nothing(arguments):
    return {"betas": None, "rotation": "axis_angle"}


def half(arguments):
    return {n: v.half() for n, v in arguments.items()}


FORMS = {
    f.__name__: f
    for f in (
        shared_shape,
        one_for_all,
        outer_product,
        expanded,
        strided,
        negated,
        one_body,
        no_body,
        two_dimensions,
        fewer_betas,
        pose_alone,
        nothing,
        half,
    )
}


@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_arguments_gives_what_the_plain_passes_give(form):
    model = BodyModel(synthetic_model("smpl", num_vertices=70))
    arguments = FORMS[form](random_arguments(model.data, 5, dtype=F32))
    assert runs_on_the_kernel(model, arguments)
    found = outputs(model, arguments)
    leaves = {n: v.detach().requires_grad_() for n, v in arguments.items() if isinstance(v, torch.Tensor)}

    def gradients():
        energy = sum(value.sin().sum() for value in outputs(model, arguments | leaves))
        return torch.autograd.grad(energy, [*leaves.values()]) if leaves else []

    slopes = gradients()
    with use_backend("eager"):
        expected, right = outputs(model, arguments), gradients()
    for ours, other in zip(found, expected, strict=True):
        assert ours.shape == other.shape and ours.dtype == other.dtype
        torch.testing.assert_close(ours, other, rtol=0, atol=2e-6)
    for ours, other in zip(slopes, right, strict=True):
        most = other.abs().max().item() if other.numel() else 0
        torch.testing.assert_close(ours, other, rtol=0, atol=(1e-3 if form == "half" else 2e-5) * most)


@pytest.mark.parametrize("freeze", [("left_hand_pose", "right_hand_pose"), ("betas", "jaw_pose"), ("body_pose",)])
def test_a_frozen_model_gives_what_the_whole_one_gives(freeze):
    model, exact, arguments, wide = both("smplx", (5,))
    still = {name: wide[name][0] for name in freeze}
    frozen = model.freeze(**to(still, F32))
    moving = {name: value for name, value in arguments.items() if name not in freeze}
    assert runs_on_the_kernel(frozen, moving)
    right = exact(**{**wide, **{name: value.expand_as(wide[name]) for name, value in still.items()}})
    found = frozen(**moving)
    for ours, other in zip(found[:3], right[:3], strict=True):
        torch.testing.assert_close(ours.double(), other, rtol=0, atol=2e-6)


FORMS_OF_GRADIENTS = (
    lambda v: torch.ones_like(v),
    lambda v: torch.ones((), dtype=v.dtype).expand_as(v),
    lambda v: torch.arange(1.0, 4, dtype=v.dtype).view(1, 1, *(1,) * (v.dim() - 3), 3).expand_as(v),
    lambda v: torch.linspace(0, 1, v.numel(), dtype=v.dtype).view(v.shape[::-1]).permute(*range(v.dim())[::-1]),
    lambda v: torch.linspace(0, 1, 2 * v.numel(), dtype=v.dtype).view(v.shape[0], -1, *v.shape[2:])[:, : v.shape[1]],
)


def test_every_upstream_gradient_is_followed():
    """Of one output alone, and in whatever strides it comes."""
    model, exact, arguments, wide = both("smpl", (19,))
    for index in (0, 1, 2, 5, 6, 7, 8):  # vertices, joints and rotations; joints; some vertices and joints; keypoints
        for form in FORMS_OF_GRADIENTS:
            slopes = []
            for body_model, given in ((model, arguments), (exact, wide)):
                leaves = [value.requires_grad_() for value in given.values()]
                out = outputs(body_model, given)[index]
                slopes.append(
                    torch.autograd.grad(out, leaves, form(out.detach()), allow_unused=True, materialize_grads=True)
                )
            for ours, right in zip(*slopes, strict=True):
                torch.testing.assert_close(
                    ours.double(), right, rtol=0, atol=1e-5 * max(right.abs().max().item(), 1e-9)
                )


LEFT_OUT = (
    (),
    ("left_hand_pose", "right_hand_pose"),
    ("body_pose", "jaw_pose"),
    ("global_orient", "body_pose", "betas"),
    ("leye_pose", "right_hand_pose"),
)


@pytest.mark.parametrize("vertices", [70, 2101])
@pytest.mark.parametrize("names", LEFT_OUT, ids=len)
@pytest.mark.parametrize("bodies", [1, 3, 18])
def test_what_is_left_out_is_zero(bodies, names, vertices):
    """Of the directions of parts that are left out none is read; 2101 vertices are packed as digits."""
    model = BodyModel(synthetic_model("smplx", num_vertices=vertices))
    exact = BodyModel(model.data, dtype=F64)
    arguments = to(random_arguments(model.data, bodies), F32)
    given = {name: value for name, value in arguments.items() if name not in names}
    zeros = to({n: torch.zeros_like(v) if n in names else v for n, v in arguments.items()}, F64)
    expected = [outputs(exact, zeros), dict(zip(arguments, gradients(exact, zeros), strict=True))]
    for found, slopes in on_every_instruction_set(lambda: (outputs(model, given), gradients(model, given))):
        for ours, right in zip(found, expected[0], strict=True):
            torch.testing.assert_close(ours.double(), right, rtol=0, atol=CLOSE)
        for name, ours in zip(given, slopes, strict=True):
            right = expected[1][name]
            torch.testing.assert_close(ours.double(), right, rtol=0, atol=1e-5 * right.abs().max().item())


def test_weights_of_keypoints_that_are_learnt_get_their_gradients():
    model, exact, arguments, wide = both("smpl", (3,))
    slopes = []
    for body_model, given in ((model, arguments), (exact, wide)):
        points = body_model.vertex_bases(torch.arange(9))
        weights = torch.full((2, 9), 1 / 9, dtype=body_model.dtype, requires_grad=True)
        joints = torch.zeros(2, 24, dtype=body_model.dtype, requires_grad=True)
        found = body_model.keypoints(KeypointBases(points, weights, joints), **given)
        slopes.append(torch.autograd.grad(found.square().sum(), (weights, joints)))
    for ours, right in zip(*slopes, strict=True):
        torch.testing.assert_close(ours.double(), right, rtol=0, atol=1e-5 * right.abs().max().item())


def test_vertices_lie_point_after_point():
    model = BodyModel(synthetic_model("smpl", num_vertices=70))
    arguments = random_arguments(model.data, 5, dtype=F32)
    assert model(**arguments).vertices.is_contiguous()
    assert model.vertices_and_joints(model.vertex_bases(torch.arange(9)), **arguments)[0].is_contiguous()


def test_only_gradients_that_are_wanted_are_made():
    model = BodyModel(synthetic_model("smpl", num_vertices=70))
    arguments = random_arguments(model.data, 5, dtype=F32)
    arguments["body_pose"].requires_grad_()
    out = model(**arguments)
    out.vertices.sum().backward()
    assert arguments["body_pose"].grad is not None
    assert all(value.grad is None for name, value in arguments.items() if name != "body_pose")


def test_derivatives_of_derivatives_go_the_plain_way():
    model, exact, arguments, wide = both("smpl", (3,))
    for quantity in (lambda m, a: m(**a).vertices, lambda m, a: m.joints(**a)):
        found = []
        for body_model, given in ((model, arguments), (exact, wide)):
            pose = given["body_pose"].requires_grad_()
            (slope,) = torch.autograd.grad(quantity(body_model, given).square().sum(), pose, create_graph=True)
            found += torch.autograd.grad(slope.square().sum(), pose)
        torch.testing.assert_close(found[0].double(), found[1], rtol=0, atol=1e-4 * found[1].abs().max().item())


def test_batches_of_gradients_go_the_plain_way():
    model = BodyModel(synthetic_model("smpl", num_vertices=70))
    pose = random_arguments(model.data, 3, dtype=F32)["body_pose"].requires_grad_()
    each = torch.eye(6).view(6, 1, 2, 3).expand(6, 3, 2, 3)
    for quantity in (lambda: model(body_pose=pose).vertices, lambda: model.joints(body_pose=pose)):
        (batched,) = torch.autograd.grad(quantity()[:, :2], pose, each, is_grads_batched=True)
        one_by_one = torch.stack([torch.autograd.grad(quantity()[:, :2], pose, one)[0] for one in each])
        torch.testing.assert_close(batched, one_by_one, rtol=0, atol=1e-5)


def test_transforms_and_forward_mode_go_the_plain_way():
    model, exact, arguments, wide = both("smpl", (3,))
    step = torch.ones_like(wide["body_pose"])

    def energy(model, pose):
        return model(body_pose=pose).vertices.square().sum()

    expected = torch.func.jvp(lambda p: energy(exact, p), (wide["body_pose"],), (step,))[1]
    pose = arguments["body_pose"]
    slope = torch.func.jvp(lambda p: energy(model, p), (pose,), (step.float(),))[1]
    torch.testing.assert_close(slope.double(), expected, rtol=1e-5, atol=0)
    each = torch.func.vmap(torch.func.grad(lambda p: energy(model, p)))(pose)
    torch.testing.assert_close((each.double() * step).sum(), expected, rtol=1e-4, atol=0)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(pose, step.float())
        tangent = torch.autograd.forward_ad.unpack_dual(energy(model, dual)).tangent
    torch.testing.assert_close(tangent.double(), expected, rtol=1e-5, atol=0)


def test_what_the_kernel_does_not_take_runs_as_before():
    model = BodyModel(synthetic_model("smpl", num_vertices=70))
    arguments = random_arguments(model.data, 2, dtype=F32)
    matrices = {n: axis_angle_to_matrix(v) for n, v in arguments.items() if n in ("global_orient", "body_pose")}
    written = {**arguments, **matrices, "rotation": "matrix"}
    assert not runs_on_the_kernel(model, written)
    torch.testing.assert_close(model(**written).vertices, model(**arguments).vertices, rtol=0, atol=2e-6)
    star = BodyModel(synthetic_model("star", num_vertices=70))
    assert not runs_on_the_kernel(star, random_arguments(star.data, 2, dtype=F32))
    exact = BodyModel(model.data, dtype=F64)
    assert not runs_on_the_kernel(exact, to(arguments, F64))
    assert BodyModel(model.data, device="meta")(betas=torch.zeros(2, 10, device="meta")).vertices.is_meta


def test_errors_are_those_of_the_plain_reading():
    model = BodyModel(synthetic_model("smpl", num_vertices=70))
    with refuses("body_pose"):
        model(body_pose=torch.zeros(2, 69))
    with refuses("betas"):
        model.joints(betas=torch.zeros(2, 11))
    with refuses("betas", TypeError):
        model.joints(betas=torch.zeros(2, 10, dtype=F64))
    with refuses("poses", TypeError):
        model.joints(poses=torch.zeros(2, 10))
    with refuses("jaw_pose"):
        model(jaw_pose=torch.zeros(2, 3))
    with refuses("batch shapes"):
        model.joints(betas=torch.zeros(2, 10), transl=torch.zeros(3, 3))
    with check_values(), refuses("betas"):
        model(betas=torch.full((10,), torch.nan))


@pytest.mark.parametrize("bodies", [3, 21])
def test_a_body_that_is_not_a_number_leaves_the_others_alone(bodies):
    model = BodyModel(synthetic_model("smpl", num_vertices=70))
    arguments = random_arguments(model.data, bodies, dtype=F32)
    before = model(**arguments)
    arguments["body_pose"] = arguments["body_pose"].clone()
    arguments["body_pose"][1, 3] = torch.nan
    arguments["betas"] = arguments["betas"].clone()
    arguments["betas"][2, 0] = torch.inf
    leaves = {n: v.requires_grad_() for n, v in arguments.items()}
    after = model(**leaves)
    slopes = torch.autograd.grad(after.vertices.sum(), [*leaves.values()])
    good = torch.tensor([n not in (1, 2) for n in range(bodies)])
    assert torch.equal(after.vertices[good], before.vertices[good]) and torch.equal(
        after.joints[good], before.joints[good]
    )
    assert after.vertices[1].isnan().any() and not after.vertices[2].isfinite().all()
    assert all(slope[good].isfinite().all() for slope in slopes)


def test_a_model_that_moves_or_is_copied_packs_again():
    model = BodyModel(synthetic_model("smpl", num_vertices=70))
    arguments = random_arguments(model.data, 2, dtype=F32)
    before = model(**arguments).vertices
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.deepcopy(model).double().float()):
        assert runs_on_the_kernel(other, arguments)
        torch.testing.assert_close(other(**arguments).vertices, before, rtol=0, atol=1e-6)
    exact = model.double()(**to(arguments, F64)).vertices
    torch.testing.assert_close(before.double(), exact, rtol=0, atol=CLOSE)
    bases = model.float().vertex_bases(torch.arange(20))
    expected, _ = model.vertices_and_joints(bases, **arguments)
    for again in (copy.deepcopy(bases), pickle.loads(pickle.dumps(bases))):
        assert torch.equal(model.vertices_and_joints(again, **arguments)[0], expected)
    moved = bases._replace(template=bases.template + 1)
    found, _ = model.vertices_and_joints(moved, **arguments | {"body_pose": None, "global_orient": None})
    right, _ = model.vertices_and_joints(bases, **arguments | {"body_pose": None, "global_orient": None})
    torch.testing.assert_close(found, right + 1, rtol=0, atol=1e-5)


def test_directions_of_many_vertices_take_two_thirds_of_the_memory(monkeypatch):
    bases = BodyModel(MODELS["so many that digits are packed"]()).vertex_bases(torch.arange(2101))
    kernel = active_kernel()
    packed_bytes = kernel.points_bytes(pack_points(kernel, bases))
    monkeypatch.setattr(packed, "MANY", 2102)
    assert 0.65 < packed_bytes / kernel.points_bytes(pack_points(kernel, bases)) < 0.75


def test_changing_an_argument_before_backward_is_noticed():
    model = BodyModel(synthetic_model("smpl", num_vertices=70))
    pose = torch.zeros(2, 23, 3, requires_grad=True)
    energy = model(body_pose=pose).vertices.sum()
    with torch.no_grad():
        pose.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        energy.backward()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("times", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_two_threads_give_the_same_bits_every_time(times, two_threads):
    model = BodyModel(synthetic_model("smpl", num_vertices=300))
    arguments = {n: v.requires_grad_() for n, v in random_arguments(model.data, 21, dtype=F32).items()}

    def run():
        out = model(**arguments)
        return [*out[:3], *torch.autograd.grad(out.vertices.sum() + out.joints.square().sum(), [*arguments.values()])]

    first = run()
    for _ in range(times):
        assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))
    torch.set_num_threads(1)
    for ours, other in zip(run(), first, strict=True):
        torch.testing.assert_close(ours, other, rtol=0, atol=1e-5 * other.abs().max().item())


def test_ten_thousand_calls_leave_no_memory_behind():
    model = BodyModel(synthetic_model("smpl", num_vertices=40))
    arguments = random_arguments(model.data, 2, dtype=F32)
    leaves = {n: v.clone().requires_grad_() for n, v in arguments.items()}
    ids, upstream = torch.arange(20), torch.ones(2, 40, 3)
    run = model._compiled  # without the checks of types around public functions, which take most of the time

    def calls(times):
        for _ in range(times):
            for _ in range(8):
                run.joints(model._buffers, arguments)
            torch.autograd.grad(run.whole(model._buffers, leaves).vertices, [*leaves.values()], upstream)
        for _ in range(times // 10):
            run.subset(model._buffers, model.vertex_bases(ids), arguments)  # packs anew

    calls(100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    calls(1000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4000  # KiB; a leak of 400 bytes a call


def joints_and_vertices(model, arguments):
    out = model(**arguments)
    return out.vertices.sum().item()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_of_a_parent_that_used_two_threads_does_not_hang(two_threads):
    model = BodyModel(synthetic_model("smpl", num_vertices=300))
    arguments = random_arguments(model.data, 21, dtype=F32)
    expected = joints_and_vertices(model, arguments)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        # Nothing of PyTorch that starts threads of its own is called here.
        posed = model._compiled.whole(model._constants, arguments).vertices
        os.write(writing, np.float64(posed.numpy().sum(dtype=np.float64)).tobytes())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0
    np.testing.assert_allclose(np.frombuffer(os.read(reading, 8)), expected, rtol=1e-4)


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )


def test_backend_tells_what_runs_and_can_be_changed():
    best = SETS[0]
    with use_backend("compiled"):
        assert backend().startswith(f"compiled: {best}, ") and backend().endswith(("1 thread", " threads"))
        with use_backend("eager"):
            assert backend() == "eager"
            assert active_kernel() is None
        for name in SETS:
            with use_backend(name):
                assert backend().startswith(f"compiled: {name}, ")
        assert backend().startswith(f"compiled: {best}, ")
    with refuses("backend"), use_backend("fpga"):
        pass
    show = "from physique.bodymodel import backend; print(backend())"
    assert run_python(show, PHYSIQUE_BACKEND="eager").stdout == "eager\n"
    assert run_python(show, PHYSIQUE_BACKEND="", OMP_NUM_THREADS="1").stdout == f"compiled: {best}, 1 thread\n"
    two = "2 threads" if active_kernel().openmp else "1 thread"
    assert run_python(show, PHYSIQUE_BACKEND="", OMP_NUM_THREADS="2").stdout == f"compiled: {best}, {two}\n"


def test_plain_passes_are_left_alone_where_the_kernel_runs(monkeypatch):
    """The kernel does not quietly fall back: of a call that suits it nothing of the plain passes runs."""
    model = BodyModel(synthetic_model("smpl", num_vertices=70))
    arguments = random_arguments(model.data, 2, dtype=F32)
    for name in ("whole_pass", "joints_pass", "subset_pass"):
        monkeypatch.setattr(f"physique.bodymodel.model.{name}", None)
    model(**arguments)
    model.joints(**arguments)
    bases = model.vertex_bases(torch.arange(5))
    model.vertices_and_joints(bases, **{n: v.requires_grad_() for n, v in arguments.items()})[0].sum().backward()
