import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from physique.bodymodel import BodyModel, keypoint_set, open_body
from physique.priors import PosePool
from torch.testing import assert_close

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "04_adversarial_prior.py"


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    generator = torch.Generator().manual_seed(0)
    poses = 0.3 * torch.randn(120, 23, 3, generator=generator)
    path = tmp_path_factory.mktemp("pool") / "pool.safetensors"
    clip = torch.arange(4).repeat_interleave(30)
    PosePool(poses, torch.zeros(120, 3), None, clip, ("a", "b", "c", "d")).save(path)
    return path


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    spec = importlib.util.spec_from_file_location("adversarial_prior_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_it_prints_both_errors_and_draws_both_people(pool, tmp_path):
    command = [sys.executable, str(EXAMPLE), "--mocap", str(pool), "--out", str(tmp_path / "new"), "--steps", "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    without, with_it, gain, written = done.stdout.splitlines()
    errors = [float(re.search(r"([\d.]+) mm", line)[1]) for line in (without, with_it)]
    assert "without the adversary" in without and "with the adversary" in with_it and min(errors) > 10
    assert abs(float(gain.split()[0]) - 100 * (1 - errors[1] / errors[0])) < 1
    assert "12 held-out poses of 2 clips" in gain and "people.png" in written
    picture = matplotlib.image.imread(tmp_path / "new" / "people.png")
    grey = np.ptp(picture[..., :3], axis=-1) < 0.2
    assert (grey & (picture[..., 0] < 0.9)).mean() > 0.03, "shaded meshes"


def test_files_of_no_use_end_with_status_2_and_one_line(example, pool, tmp_path, capsys):
    (tmp_path / "text.npz").write_text("nothing")
    PosePool(torch.zeros(9, 23, 3), torch.zeros(9, 3), None, torch.zeros(9).long(), ("a",)).save(
        tmp_path / "one.safetensors"
    )
    for arguments in (
        ("--mocap", tmp_path / "absent.npz"),
        ("--mocap", tmp_path / "text.npz"),
        ("--mocap", tmp_path / "one.safetensors"),
        ("--mocap", pool, "--steps", 0),
    ):
        assert example.main(["--out", str(tmp_path / "out"), *map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1 and captured.out == ""
        assert "expected" in captured.err or "absent.npz" in captured.err


def test_every_third_clip_is_held_out_and_the_rest_is_mirrored(example, pool):
    training, held = example.read_pools(pool, BodyModel(open_body("low")))
    assert held.clip_names == ("a", "d") and training.clip_names == ("b", "c")
    assert (len(training), len(held)) == (2 * 12, 12)


def test_keypoints_fill_the_image(example, pool):
    photographer = example.Photographer(BodyModel(open_body("low")))
    seen, points = photographer.photograph(PosePool.load(pool), torch.Generator().manual_seed(0))
    assert seen.shape == (120, 19, 2) and points.shape == (120, 19, 3)
    assert_close(seen.abs().amax((-1, -2)), torch.ones(120), atol=0.05, rtol=0.0)
    index = keypoint_set("hmr19").index
    assert (seen[:, index("right_ankle"), 1] > seen[:, index("neck"), 1]).double().mean() > 0.9, "y is down"


def test_the_regressor_starts_upright_at_rest_and_stages_build_on_each_other(example):
    torch.manual_seed(0)
    body = BodyModel(open_body("low"))
    regressor = example.Regressor(body)
    keypoints = torch.randn(5, 19, 2)
    torch.nn.init.zeros_(regressor.correction[-1].weight)
    estimate = regressor(keypoints)
    assert estimate.rotations.shape == (3, 5, 24, 3, 3) and estimate.betas.shape == (3, 5, 10)
    assert_close(estimate.rotations[:, :, 1:], torch.eye(3).expand(3, 5, 23, 3, 3))
    assert_close(estimate.rotations[:, :, 0], torch.diag(torch.tensor([1.0, -1, -1])).expand(3, 5, 3, 3))
    torch.nn.init.constant_(regressor.correction[-1].bias, 0.1)
    assert_close(regressor(keypoints).camera.scale[:, 0].detach(), torch.tensor([1.0, 1.1, 1.2]))
    still = [body.skeleton.index(name) - 1 for name in ("head", "left_hand", "right_wrist", "left_foot")]
    turned = (regressor(keypoints).rotations[-1, 0, 1:] - torch.eye(3)).abs().amax((-1, -2)) > 0.01
    assert not turned[still].any() and turned.sum() == 23 - 7


def test_the_training_loop_is_short(example):
    assert len(inspect.getsource(example.train).splitlines()) < 60
