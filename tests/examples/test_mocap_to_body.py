"""The example that turns motion capture into a body runs on real clips, and says in one line what is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments):
    command = [sys.executable, str(ROOT / "examples" / "02_mocap_to_body.py"), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_a_walk_becomes_an_animated_body(shared_data, tmp_path):
    done = run("--motion", shared_data / "mocap" / "02_01.amc", "--out", tmp_path, "--fps", 10, "--detail", "low")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "02_01.glb").read_bytes()[:4] == b"glTF"
    assert (tmp_path / "02_01.png").read_bytes()[:4] == b"\x89PNG"
    with np.load(tmp_path / "02_01.npz", allow_pickle=False) as saved:
        assert saved["body_pose"].shape[1:] == (23, 3)
        assert np.isfinite(saved["transl"]).all()


@pytest.mark.parametrize("name", ["absent.bvh", "empty.bvh", "text.amc"])
def test_a_bad_file_ends_in_one_line_and_status_2(name, tmp_path):
    if name != "absent.bvh":
        (tmp_path / name).write_text("" if name == "empty.bvh" else "not motion")
    done = run("--motion", tmp_path / name, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and "Traceback" not in done.stderr


def test_a_skeleton_in_another_unit_is_refused_and_fitted_in_its_own(shared_data, tmp_path):
    clip = shared_data / "mocap" / "cmu_jumping_jacks.bvh"
    done = run("--motion", clip, "--out", tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and "unit" in done.stderr
    done = run("--motion", clip, "--out", tmp_path, "--fps", 10, "--detail", "low", "--unit", 0.0254 / 0.45)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "cmu_jumping_jacks.npz", allow_pickle=False) as saved:
        assert np.abs(saved["betas"]).max() < 10
