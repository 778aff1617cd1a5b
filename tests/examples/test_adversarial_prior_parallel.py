import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from physique.bodymodel import BodyModel, open_body
from physique.priors import PosePool
from torch.testing import assert_close

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "04_adversarial_prior.py"
STEPS = 6
# Trains a little and, as the first of the processes, keeps the losses and the weights.
TRAIN = f"""
import sys
sys.path[:0] = [{str(ROOT / "examples")!r}, {str(ROOT / "tests" / "examples")!r}]
import torch
from parallel import join_team
from physique.priors import PosePool
from test_adversarial_prior_parallel import load_example, train
torch.set_num_threads(1)
with join_team() as team:
    results = train(load_example(), PosePool.load(sys.argv[1]), team)
    print("size", team.size)
    if team.rank == 0:
        torch.save(results, sys.argv[2])
"""


def load_example():
    spec = importlib.util.spec_from_file_location("adversarial_prior_in_parallel", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def train(example, poses, team):
    """Return the losses and the weights of a training without the adversary and of one with it."""
    results = []
    for adversary in (False, True):
        photographer = example.Photographer(BodyModel(open_body("low")))
        regressor, losses = example.train(photographer, poses, adversary, STEPS, 0, team)
        results.append((losses, regressor.state_dict()))
    return results


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return load_example()


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    poses = 0.3 * torch.randn(120, 23, 3, generator=torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("pool") / "pool.safetensors"
    clip = torch.arange(4).repeat_interleave(30)
    PosePool(poses, torch.zeros(120, 3), None, clip, ("a", "b", "c", "d")).save(path)
    return path


def torchrun(*arguments):
    """Run a script in two processes."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*start, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_processes_have_the_losses_and_the_weights_of_one(example, pool, tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    assert torchrun(tmp_path / "train.py", pool, tmp_path / "two.pt") == "size 2\n", "only the first prints"
    two = torch.load(tmp_path / "two.pt")
    one = train(example, PosePool.load(pool), example.Team())
    for (losses, weights), (losses_of_two, weights_of_two) in zip(one, two, strict=True):
        assert losses.shape == (STEPS,) and losses.isfinite().all() and losses.unique().numel() == STEPS
        assert_close(losses_of_two, losses, rtol=1e-4, atol=1e-4)
        for name, weight in weights.items():
            # Adam takes a step of its full length, 1e-3, also where a gradient is nothing but rounding.
            assert_close(weights_of_two[name], weight, rtol=0.0, atol=2e-3)
            assert (weights_of_two[name] - weight).abs().mean() < 2e-5, name


@pytest.mark.slow
def test_the_example_prints_under_torchrun_what_it_prints_alone(example, pool, tmp_path, capsys):
    options = ["--mocap", str(pool), "--steps", "3", "--out"]
    assert example.main([*options, str(tmp_path / "one")]) == 0
    printed = capsys.readouterr().out.splitlines()[:3]
    assert "training loss at the end" in printed[0]
    assert torchrun(EXAMPLE, *options, tmp_path / "two").splitlines()[:3] == printed
    assert (tmp_path / "two" / "people.png").exists()


def test_the_parts_make_the_batch_and_one_that_cannot_be_divided_is_refused(example):
    Team = example.Team
    batch = torch.arange(12).reshape(2, 6)
    assert_close(torch.cat([Team(rank, 3).part(batch, dim=1) for rank in range(3)], dim=1), batch)
    assert_close(Team().part(batch), batch)
    with pytest.raises(ValueError, match="expected a multiple of 4 processes, got 6 samples"):
        Team(0, 4).part(batch, dim=1)
