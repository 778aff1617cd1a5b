"""The body model as a module: copies, pickles, devices, floating types, data loaders and autocast."""

import copy
import io
import pickle

import pytest
import torch
from bodies_dataset import Bodies
from body_arguments import FAMILY_NAMES, random_arguments, to
from physique.bodymodel import BodyModel, synthetic_model
from torch.utils.data import DataLoader


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("again", (copy.deepcopy, copy.copy, pickled, saved))
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_copy_gives_the_same_body(family, again):
    model = BodyModel(synthetic_model(family, num_vertices=30))
    arguments = random_arguments(model.data, 2, dtype=torch.float32)
    for ours, expected in zip(again(model)(**arguments)[:3], model(**arguments)[:3], strict=True):
        assert torch.equal(ours, expected)


def test_a_deep_copy_shares_the_data_and_owns_its_buffers():
    model = BodyModel(synthetic_model(num_vertices=30))
    other = copy.deepcopy(model)
    assert other.data is model.data
    other.v_template.zero_()
    assert model.v_template.any()


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_it_moves_to_another_floating_type(family):
    data = synthetic_model(family, num_vertices=30)
    model = BodyModel(data)
    arguments = random_arguments(data, 2)
    expected = BodyModel(data, dtype=torch.float64)(**arguments)
    assert model.double() is model and model.dtype == torch.float64
    out = model(**arguments)
    assert all(output.dtype == torch.float64 for output in (*out[:3], *out.rest))
    torch.testing.assert_close(out.vertices, expected.vertices, rtol=0, atol=1e-5)
    assert model.faces.dtype == torch.int64
    single = model.float()(**to(arguments, torch.float32))
    assert all(output.dtype == torch.float32 for output in (*single[:3], *single.rest))


def test_it_moves_to_another_device():
    model = BodyModel(synthetic_model("smplx", num_vertices=30)).to("meta")
    assert model.device.type == "meta" and model.faces.device.type == "meta"
    arguments = {k: v.to("meta") for k, v in random_arguments(model.data, 2, dtype=torch.float32).items()}
    out = model(**arguments)
    assert {output.device.type for output in (*out[:3], *out.rest)} == {"meta"}
    assert out.vertices.shape == (2, 30, 3)


def test_it_is_made_on_a_device():
    model = BodyModel(synthetic_model(num_vertices=30), device="meta")
    assert {buffer.device.type for buffer in model.buffers()} == {"meta"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_it_gives_the_same_body_on_a_gpu(family):
    model = BodyModel(synthetic_model(family, num_vertices=30), dtype=torch.float64)
    arguments = random_arguments(model.data, 2)
    expected = model(**arguments)
    out = model.cuda()(**{name: value.cuda() for name, value in arguments.items()})
    for ours, other in zip(out[:3], expected[:3], strict=True):
        torch.testing.assert_close(ours.cpu(), other, rtol=0, atol=1e-10)


def test_it_holds_nothing_to_learn_or_to_save():
    model = BodyModel(synthetic_model(num_vertices=30))
    assert not list(model.parameters())
    assert not model.state_dict()


def test_it_can_be_a_part_of_a_module():
    whole = torch.nn.Sequential(torch.nn.Linear(2, 2))
    whole.body = BodyModel(synthetic_model(num_vertices=30))
    whole.double()
    assert whole.body.dtype == torch.float64
    assert list(whole.state_dict()) == ["0.weight", "0.bias"]


@pytest.mark.parametrize("start", ("fork", "spawn"))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_works_in_the_workers_of_a_data_loader(start):
    bodies = Bodies()
    loader = DataLoader(bodies, batch_size=2, num_workers=1, multiprocessing_context=start, timeout=60)
    torch.testing.assert_close(torch.cat(list(loader)), torch.stack([bodies[i] for i in range(4)]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("half", (torch.bfloat16, torch.float16))
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_autocast_changes_nothing(family, half):
    model = BodyModel(synthetic_model(family, num_vertices=30))
    arguments = random_arguments(model.data, 2, dtype=torch.float32)
    expected, joints, still = model(**arguments), model.joints(**arguments), model.pose(model.rest()).vertices
    with torch.autocast("cpu", dtype=half):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == half
        out = model(**arguments)
        assert torch.equal(model.joints(**arguments), joints)
        assert torch.equal(model.pose(model.rest()).vertices, still)
    for ours, other in zip((*out[:3], *out.rest), (*expected[:3], *expected.rest), strict=True):
        assert torch.equal(ours, other)


@pytest.mark.parametrize("half", (torch.bfloat16, torch.float16))
def test_half_precision_arguments_are_raised_to_the_models_type(half):
    model = BodyModel(synthetic_model(num_vertices=30))
    arguments = random_arguments(model.data, 2, dtype=half)
    out = model(**arguments)
    assert out.vertices.dtype == torch.float32
    assert torch.equal(out.vertices, model(**to(arguments, torch.float32)).vertices)


def test_gradients_flow_through_autocast():
    model = BodyModel(synthetic_model(num_vertices=30))
    arguments = {k: v.requires_grad_() for k, v in random_arguments(model.data, 2, dtype=torch.float32).items()}
    expected = torch.autograd.grad(model(**arguments).vertices.sum(), list(arguments.values()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vertices = model(**arguments).vertices
    for ours, other in zip(torch.autograd.grad(vertices.sum(), list(arguments.values())), expected, strict=True):
        torch.testing.assert_close(ours, other)


def test_printing_tells_family_and_sizes():
    text = repr(BodyModel(synthetic_model("mano", num_vertices=30)))
    assert all(word in text for word in ("mano", "30 vertices", "16 joints", "10 betas", "float32", "cpu"))
