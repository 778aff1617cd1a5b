"""The tool that trains priors: a pool from capture, files and figures, and a check that notices change."""

import sys
from pathlib import Path

import numpy as np
import physique
import pytest
import torch
from physique.bodymodel import BodyModel, open_body
from physique.priors import JointLimits, PosePool, load_prior

ROOT = Path(physique.__file__).parent


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(ROOT / "tools"))
    import train_priors

    return train_priors


@pytest.fixture
def run(tool, monkeypatch):
    def main(*arguments):
        threads = torch.get_num_threads()
        monkeypatch.setattr(sys, "argv", ["train_priors.py", *map(str, arguments)])
        try:
            return tool.main()
        finally:
            torch.set_num_threads(threads)

    return main


@pytest.fixture
def pool(tmp_path):
    poses = 0.3 * torch.randn(60, 23, 3) * torch.tensor([1.0, 0.2, 0.2])
    path = tmp_path / "pool.safetensors"
    PosePool(poses, torch.zeros(60, 3), None, torch.arange(3).repeat_interleave(20), ("a", "b", "c")).save(path)
    return path


def test_training_writes_weights_and_figures_and_the_check_agrees(run, pool, tmp_path, capsys):
    out = tmp_path / "weights"
    out.mkdir()
    card = out / "MODEL_CARD.md"
    shipped = (ROOT / "priors" / "weights" / "MODEL_CARD.md").read_text()
    card.write_text(shipped)
    arguments = ("--pool", pool, "--held-out", "b", "--only", "limits", "--out", out)
    assert run(*arguments) == 0
    assert isinstance(load_prior(out / "limits.safetensors"), JointLimits)
    written, before = card.read_text(), shipped.split("<!--")[0]
    assert written.startswith(before) and written != shipped and written.count("| limits |") == 6
    assert "40 poses of 2 clips to train on, 20 of 1 held" in capsys.readouterr().out

    assert run(*arguments, "--check") == 0
    assert "as in the model card" in capsys.readouterr().out
    card.write_text(written.replace("joints within the limits, % | ", "joints within the limits, % | 1"))
    assert run(*arguments, "--check") == 1
    weights = (out / "limits.safetensors").read_bytes()
    assert run(*arguments, "--judge") == 0
    assert card.read_text() == written and (out / "limits.safetensors").read_bytes() == weights


def test_training_twice_writes_the_same_bytes(run, pool, tmp_path):
    contents = []
    for name in ("one", "two"):
        arguments = ("--pool", pool, "--held-out", "b", "--only", "limits", "--out", tmp_path / name)
        assert run(*arguments) == 0
        contents.append((tmp_path / name / "limits.safetensors").read_bytes())
    assert contents[0] == contents[1]


def test_every_shipped_prior_has_a_training_module(tool):
    for path in (ROOT / "priors" / "weights").glob("*.safetensors"):
        assert (ROOT / "tools" / "training" / f"{tool.MODULES[path.stem]}.py").is_file()


def test_capture_becomes_poses_that_put_the_joints_where_they_were(tool, shared_data, tmp_path):
    with np.load(shared_data / "mocap" / "cmu_joints_30fps.npz") as arrays:
        names, clips = (
            arrays["joint_names"],
            {f"clip_{name}": arrays[f"clip_{name}"][:9] for name in ("02_01", "02_03")},
        )
    np.savez(tmp_path / "two.npz", joint_names=names, **clips)
    body = BodyModel(open_body("low"))
    pool = tool.build_pool(tmp_path / "two.npz", body)
    assert pool.clip_names == ("02_01", "02_03") and pool.clip.tolist() == [0] * 9 + [1] * 9
    joints = body.joints(betas=pool.betas, body_pose=pool.body_pose, global_orient=pool.global_orient)
    knee, ankle = (list(names).index(bone) for bone in ("lfemur", "ltibia"))
    captured = torch.from_numpy(np.concatenate([clip[:, ankle] - clip[:, knee] for clip in clips.values()]))
    assert (joints[:, 7] - joints[:, 4] - captured).norm(dim=-1).mean() < 0.03


def test_the_held_out_clips_are_in_the_capture(tool, shared_data):
    with np.load(shared_data / "mocap" / "cmu_joints_30fps.npz") as arrays:
        assert {f"clip_{name}" for name in tool.HELD_OUT} < set(arrays.files)
