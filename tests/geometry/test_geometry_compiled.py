"""Every function under torch.compile(fullgraph=True), export, vmap, jacfwd, jacrev and double backward."""

import pytest
import torch
from physique import geometry
from physique.geometry.axis_angle import axis_angle_to_matrix_minus_identity

# The first forward-mode call of a process makes torch import code of its own that it has deprecated.

DOUBLE = torch.float64
FACES = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 4], [1, 4, 2]])


def turns(*shape):
    return geometry.axis_angle_to_matrix(torch.randn(*shape, 3, dtype=DOUBLE))


def aligned(source, target, weights):
    return geometry.procrustes(source, target, weights=weights).apply(source)


def vectors(*shape):
    return lambda *batch: torch.randn(*batch, *shape, dtype=DOUBLE)


CASES = {
    "axis_angle_to_matrix": (geometry.axis_angle_to_matrix, (vectors(3),)),
    "axis_angle_to_matrix_minus_identity": (axis_angle_to_matrix_minus_identity, (vectors(3),)),
    "matrix_to_axis_angle": (geometry.matrix_to_axis_angle, (turns,)),
    "quaternion_wxyz_to_matrix": (geometry.quaternion_wxyz_to_matrix, (vectors(4),)),
    "matrix_to_quaternion_wxyz": (geometry.matrix_to_quaternion_wxyz, (turns,)),
    "rotation_6d_to_matrix": (geometry.rotation_6d_to_matrix, (vectors(6),)),
    "matrix_to_rotation_6d": (geometry.matrix_to_rotation_6d, (turns,)),
    "gram_schmidt": (geometry.gram_schmidt, (vectors(3, 2),)),
    "nearest_rotation": (geometry.nearest_rotation, (vectors(3, 3),)),
    "to_matrix": (lambda x: geometry.to_matrix(x, "quaternion_wxyz"), (vectors(4),)),
    "geodesic_angle": (geometry.geodesic_angle, (turns, turns)),
    "procrustes": (aligned, (vectors(5, 3), vectors(5, 3), lambda *batch: torch.rand(*batch, 5, dtype=DOUBLE))),
    "vertex_normals": (lambda v: geometry.vertex_normals(v, FACES), (vectors(5, 3),)),
    "face_areas": (lambda v: geometry.face_areas(v, FACES), (vectors(5, 3),)),
    "signed_volume": (lambda v: geometry.signed_volume(v, FACES), (vectors(5, 3),)),
}


@pytest.fixture(params=CASES)
def case(request):
    function, makers = CASES[request.param]
    return function, [make(4) for make in makers]


def test_vmap_equals_the_batch(case):
    function, inputs = case
    torch.testing.assert_close(torch.vmap(function)(*inputs), function(*inputs))
    nested = torch.vmap(torch.vmap(function))(*(x.unflatten(0, (2, 2)) for x in inputs))
    torch.testing.assert_close(nested.flatten(0, 1), function(*inputs))


def test_forward_and_reverse_jacobians_agree(case):
    function, inputs = case
    single = [x[0] for x in inputs]
    forward = torch.func.jacfwd(function)(*single)
    torch.testing.assert_close(forward, torch.func.jacrev(function)(*single))
    torch.testing.assert_close(torch.vmap(torch.func.jacfwd(function))(*inputs)[0], forward)


def test_hessians_agree_in_either_order(case):
    function, inputs = case
    single = [x[0] for x in inputs]

    def loss(x):
        return function(x, *single[1:]).square().sum()

    forward_over_reverse = torch.func.hessian(loss)(single[0])
    reverse_over_forward = torch.func.jacrev(torch.func.jacfwd(loss))(single[0])
    reverse_over_reverse = torch.autograd.functional.hessian(loss, single[0])
    torch.testing.assert_close(forward_over_reverse, reverse_over_reverse, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(reverse_over_forward, reverse_over_reverse, rtol=1e-6, atol=1e-7)


def test_compiled_as_one_graph_with_its_gradient(case):
    function, inputs = case
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    leaves = [x.clone().requires_grad_() for x in inputs]
    value = compiled(*leaves)
    torch.testing.assert_close(value, function(*inputs))
    again = [x.clone().requires_grad_() for x in inputs]
    gradients = torch.autograd.grad(value.square().sum(), leaves)
    expected = torch.autograd.grad(function(*again).square().sum(), again)
    torch.testing.assert_close(gradients, expected)


def test_exported_for_any_batch(case):
    function, inputs = case

    class Module(torch.nn.Module):
        def forward(self, *inputs):
            return function(*inputs)

    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(Module(), tuple(inputs), dynamic_shapes=(tuple({0: batch} for _ in inputs),))
    more = [torch.cat((x, x.flip(0))) for x in inputs]
    torch.testing.assert_close(program.module()(*more), function(*more))


@pytest.mark.slow
def test_compiled_to_native_code_it_gives_the_same_rotations():
    torch._dynamo.reset()
    r = torch.randn(8, 24, 3, requires_grad=True)
    compiled = torch.compile(geometry.axis_angle_to_matrix, fullgraph=True)
    value = compiled(r)
    torch.testing.assert_close(value, geometry.axis_angle_to_matrix(r))
    (gradient,) = torch.autograd.grad(value.square().sum(), r)
    assert gradient.isfinite().all()


def test_inputs_are_not_changed(case):
    function, inputs = case
    before = [x.clone() for x in inputs]
    function(*inputs)
    assert all(x.equal(y) for x, y in zip(inputs, before, strict=True))


def test_outputs_have_the_type_and_device_of_the_inputs(case, monkeypatch):
    function, inputs = case
    assert function(*(x.float() for x in inputs)).dtype == torch.float32
    monkeypatch.setitem(globals(), "FACES", FACES.to("meta"))
    assert function(*(x.to("meta") for x in inputs)).device.type == "meta"
