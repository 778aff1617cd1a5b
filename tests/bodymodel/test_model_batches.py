"""Any batch shape, arguments that broadcast against each other, and arguments that are left as they were."""

import itertools

import pytest
import torch
from body_arguments import FAMILY_NAMES, random_arguments, sample
from physique.bodymodel import BodyModel, KeypointRegressor, SurfacePoints, open_body, synthetic_model

BATCHES = [(), (1,), (2, 3), (0,), (4, 0), (3, 1, 2)]


@pytest.fixture(scope="module", params=FAMILY_NAMES)
def model(request):
    return BodyModel(synthetic_model(request.param, num_vertices=30), dtype=torch.float64)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_a_batch_is_its_samples(model, batch):
    arguments = random_arguments(model.data, *batch)
    out = model(**arguments)
    V, J = model.data.num_vertices, model.data.num_joints
    assert out.vertices.shape == (*batch, V, 3)
    assert out.joints.shape == (*batch, J, 3)
    assert out.joint_rotations.shape == (*batch, J, 3, 3)
    assert out.rest.vertices.shape == (*batch, V, 3)
    assert out.rest.joints.shape == (*batch, J, 3)
    assert model.joints(**arguments).shape == (*batch, J, 3)
    for index in itertools.product(*map(range, batch)):
        alone = model(**sample(arguments, index))
        for whole, one in zip(out[:3], alone[:3], strict=True):
            torch.testing.assert_close(whole[index], one, rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_points_and_keypoints_take_any_batch(batch):
    data = open_body("low")
    model, regressor = BodyModel(data), KeypointRegressor("coco17", data)
    arguments = random_arguments(data, *batch, dtype=torch.float32)
    assert model.keypoints(regressor, **arguments).shape == (*batch, 17, 3)
    surface = SurfacePoints(torch.tensor([0, 5]), torch.full((2, 3), 1 / 3))
    assert model.points(surface, **arguments).shape == (*batch, 2, 3)
    sets = SurfacePoints(torch.zeros(*batch, 2, dtype=torch.int64), torch.full((*batch, 2, 3), 1 / 3))
    assert model.points(sets, **arguments).shape == (*batch, 2, 3)


@pytest.mark.parametrize(
    "shape, pose, transl, batch",
    [
        ((5,), (1,), (), (5,)),
        ((1,), (5,), (), (5,)),
        ((), (5,), (), (5,)),
        ((5,), (), (), (5,)),
        ((), (), (5,), (5,)),
        ((5,), (), (2, 1), (2, 5)),
        ((2, 1), (3,), (), (2, 3)),
        ((3,), (2, 1), (1, 1, 3), (1, 2, 3)),
        ((1,), (0,), (), (0,)),
        ((0,), (1,), (1,), (0,)),
    ],
    ids=str,
)
def test_arguments_broadcast(model, shape, pose, transl, batch):
    arguments = {}
    for name, value in random_arguments(model.data).items():
        own = shape if name in ("betas", "expression") else transl if name == "transl" else pose
        noise = torch.randn(*own, *value.shape, dtype=value.dtype) * 0.2
        arguments[name] = value + noise
    events = {name: value.shape for name, value in random_arguments(model.data).items()}
    expanded = {name: value.expand(*batch, *events[name]).clone() for name, value in arguments.items()}
    out, expected = model(**arguments), model(**expanded)
    for ours, theirs in zip(out[:3], expected[:3], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert out.rest.vertices.shape == (*shape, model.data.num_vertices, 3)
    torch.testing.assert_close(model.joints(**arguments), expected.joints, rtol=0, atol=1e-12)
    surface = SurfacePoints(torch.tensor([1, 4]), torch.full((2, 3), 1 / 3, dtype=torch.float64))
    torch.testing.assert_close(
        model.points(surface, **arguments), model.points(surface, **expanded), rtol=0, atol=1e-12
    )
    given = {name: value for name, value in arguments.items() if name not in ("betas", "expression")}
    staged = model.pose(out.rest, **given)
    for ours, theirs in zip(staged[:3], expected[:3], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_parts_broadcast_against_each_other():
    model = BodyModel(synthetic_model("smplx", num_vertices=30), dtype=torch.float64)
    arguments = random_arguments(model.data, 3)
    arguments["jaw_pose"] = arguments["jaw_pose"][0]
    arguments["left_hand_pose"] = arguments["left_hand_pose"][:1]
    arguments["body_pose"] = arguments["body_pose"].expand(2, 3, 21, 3)
    one_by_one = model(**{k: v.expand(2, 3, *random_arguments(model.data)[k].shape) for k, v in arguments.items()})
    torch.testing.assert_close(model(**arguments).vertices, one_by_one.vertices, rtol=0, atol=1e-12)
    for ours, expected in zip(model(**arguments)[:3], one_by_one[:3], strict=True):
        assert ours.shape == expected.shape


def test_a_rest_body_may_have_fewer_dimensions_in_one_of_its_fields():
    model = BodyModel(synthetic_model("smpl", num_vertices=30), dtype=torch.float64)
    rest = model.rest(betas=torch.randn(2, 10, dtype=torch.float64))
    out = model.pose(rest._replace(joints=rest.joints[0]))
    assert out.vertices.shape[:-2] == out.joints.shape[:-2] == out.joint_rotations.shape[:-3] == (2,)


def test_a_large_batch_equals_small_ones(model):
    arguments = random_arguments(model.data, 70)
    whole = model(**arguments).vertices
    pieces = [model(**sample(arguments, slice(start, start + 7))).vertices for start in range(0, 70, 7)]
    torch.testing.assert_close(whole, torch.cat(pieces), rtol=0, atol=1e-12)


def test_arguments_in_any_memory_layout_give_the_same_body(model):
    arguments = random_arguments(model.data, 2, 3)
    turned = {k: v.movedim(0, -1).contiguous().movedim(-1, 0) for k, v in arguments.items()}
    assert not turned["betas"].is_contiguous()
    for ours, expected in zip(model(**turned)[:3], model(**arguments)[:3], strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_nothing_given_is_changed(model):
    arguments = random_arguments(model.data, 2)
    before = {name: value.clone() for name, value in arguments.items()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    out = model(**arguments)
    kept = [output.clone() for output in (*out[:3], *out.rest)]
    model.pose(out.rest, global_orient=arguments["global_orient"], transl=arguments["transl"])
    model.joints(**arguments)
    model.points(SurfacePoints(torch.tensor([1]), torch.full((1, 3), 1 / 3, dtype=torch.float64)), **arguments)
    assert all(torch.equal(arguments[name], before[name]) for name in arguments)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    assert all(torch.equal(output, copy) for output, copy in zip((*out[:3], *out.rest), kept, strict=True))


def test_outputs_can_be_changed_without_changing_the_model(model):
    arguments = random_arguments(model.data)
    expected = [output.clone() for output in model(**arguments)[:3]]
    for output in (*model(**arguments)[:3], *model(**arguments).rest, *model.rest(), model.joints()):
        output.zero_()
    for output in (*model()[:3], *model().rest):
        output.zero_()
    for ours, kept in zip(model(**arguments)[:3], expected, strict=True):
        assert torch.equal(ours, kept)
