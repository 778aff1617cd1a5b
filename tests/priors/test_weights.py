"""Trained priors: what ships is whole, small and plain; files that are not are refused by name."""

import importlib.util
import json

import pytest
import torch
from physique.priors import JointLimits, load_prior, save_prior
from physique.priors.tensor_files import read_tensors, write_tensors
from physique.priors.weights import PRIORS, WEIGHTS
from refusals import refuses
from torch.testing import assert_close

SHIPPED = sorted(WEIGHTS.glob("*.safetensors"))


# What ships.


def test_every_prior_that_has_a_class_ships_with_weights():
    built = {
        name for name, target in PRIORS.items() if importlib.util.find_spec(f"physique.priors.{target.split(':')[0]}")
    }
    assert {path.stem for path in SHIPPED} == built and "limits" in built


def test_the_folder_holds_safetensors_and_the_card_and_less_than_ten_megabytes():
    others = [path.name for path in WEIGHTS.iterdir() if path.suffix != ".safetensors"]
    assert others == ["MODEL_CARD.md"]
    assert sum(path.stat().st_size for path in SHIPPED) < 10_000_000


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_ships_loads_in_any_type_and_is_finite(path):
    prior = load_prior(path.stem, dtype=torch.float64)
    assert not prior.training
    for name, tensor in prior.state_dict().items():
        assert tensor.isfinite().all(), name
        assert tensor.dtype == torch.float64 or not tensor.is_floating_point(), name


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_ships_survives_being_saved_again(path, tmp_path):
    prior = load_prior(path)
    save_prior(prior, tmp_path / "again.safetensors", half=False)
    again = load_prior(tmp_path / "again.safetensors")
    assert type(again) is type(prior)
    assert_close(again.state_dict(), prior.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_prior_has_figures_in_the_card(path):
    card = (WEIGHTS / "MODEL_CARD.md").read_text()
    assert f"\n| {path.stem} | " in card and "NSF EIA-0196217" in card


def test_loading_leaves_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    for path in SHIPPED:
        load_prior(path)
    assert torch.equal(torch.rand(2), expected)


# Names and files.


def test_unknown_names_list_the_known_ones():
    with refuses("name"):
        load_prior("gnm")
    with pytest.raises(ValueError, match=r"critic, denoiser, dictionary, gmm, lifter, limits, vae, got 'gnm'"):
        load_prior("gnm")
    with refuses("none.safetensors", FileNotFoundError):
        load_prior("none.safetensors")


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_prior(JointLimits(21), path)
    return path


def test_a_saved_prior_comes_back_with_its_arguments(saved):
    prior = load_prior(str(saved), dtype=torch.float64)
    assert isinstance(prior, JointLimits) and prior.num_joints == 21
    assert_close(prior.upper, JointLimits(21).upper.half().double(), rtol=0, atol=0)
    assert read_tensors(saved)[0]["upper"].dtype == torch.float16


def test_numbers_beyond_half_precision_are_kept(tmp_path):
    limits = JointLimits()
    limits.swing = torch.full((23, 2, 3), 1e6)
    save_prior(limits, tmp_path / "mine.safetensors")
    assert_close(load_prior(tmp_path / "mine.safetensors").swing, limits.swing, rtol=0, atol=0)


def test_saving_refuses_what_loading_could_not_read(tmp_path):
    with refuses("prior", TypeError):
        save_prior(torch.nn.Linear(2, 2), tmp_path / "mine.safetensors")
    with refuses("path"):
        save_prior(JointLimits(), tmp_path / "mine.pt")
    without = JointLimits()
    del without.num_joints
    with refuses("prior", TypeError):
        save_prior(without, tmp_path / "mine.safetensors")
    broken = JointLimits()
    broken.upper[0, 0] = torch.nan
    with refuses("upper"):
        save_prior(broken, tmp_path / "mine.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_file_cut_short_anywhere_is_refused_by_name(saved):
    contents = saved.read_bytes()
    for length in (0, 5, 8, 100, len(contents) - 1):
        saved.write_bytes(contents[:length])
        with refuses(str(saved)):
            load_prior(saved)


@pytest.mark.parametrize(
    "metadata",
    [
        {"prior": "os"},
        {"prior": "os:system"},
        {"prior": "gmm2"},
        {"arguments": "{"},
        {"arguments": "[21]"},
        {"arguments": '{"num_joints": 1000000000}'},
        {"arguments": '{"num_joints": 23}'},
        {"arguments": '{"joints": 21}'},
        {"arguments": '{"num_joints": "21"}'},
        {"arguments": "[" * 100_000},
    ],
)
def test_a_file_that_says_something_else_is_refused_by_name(saved, metadata):
    tensors, good = read_tensors(saved)
    write_tensors(saved, tensors, good | metadata)
    with refuses(rf"{saved}(: \w+)?"):
        load_prior(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"upper": torch.zeros(20, 3)},
        {"upper": torch.full((21, 3), torch.inf)},
        {"upper": torch.zeros(21, 3).int()},
        {"more": torch.zeros(3)},
    ],
)
def test_a_file_with_other_tensors_is_refused_by_name(saved, change):
    tensors, metadata = read_tensors(saved)
    write_tensors(saved, tensors | change, metadata)
    with refuses(rf"{saved}(: \w+)?"):
        load_prior(saved)
    write_tensors(saved, {"upper": tensors["upper"]}, metadata)
    with refuses(rf"{saved}(: \w+)?"):
        load_prior(saved)


def test_a_shipped_name_needs_a_file_of_that_prior(monkeypatch, tmp_path, saved):
    (tmp_path / "gmm.safetensors").write_bytes(saved.read_bytes())
    monkeypatch.setattr("physique.priors.weights.WEIGHTS", tmp_path)
    with refuses(f"{tmp_path / 'gmm.safetensors'}: prior"):
        load_prior("gmm")


def test_metadata_is_text_that_others_can_read(saved):
    metadata = read_tensors(saved)[1]
    assert metadata["prior"] == "limits" and json.loads(metadata["arguments"]) == {"num_joints": 21}
