import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import trimesh
from physique.bodymodel import BodyModel, open_body

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "03_register_dense.py"
QUICK = ("--detail", "low", "--people", "2", "--steps", "150")


# As after `pip install "physique[viz,io]"`: what only the tests need is not there.
WITHOUT_TEST_PACKAGES = """
import runpy, sys
sys.modules.update(dict.fromkeys(["hypothesis", "pytest", "beartype", "smplx"]))
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(out, *arguments):
    command = [sys.executable, "-c", WITHOUT_TEST_PACKAGES, EXAMPLE.as_posix(), "--out", str(out), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    out = tmp_path_factory.mktemp("dense") / "new" / "folder"
    return run(out, *QUICK), out


@pytest.fixture
def scenes(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    return importlib.import_module("scenes")


@pytest.fixture
def example(scenes):
    """The example as a module, for what needs no process of its own."""
    spec = importlib.util.spec_from_file_location("register_dense_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def main(example, tmp_path):
    return lambda *more: example.main(["--out", str(tmp_path / "out"), *map(str, more)])


def test_it_prints_errors_that_the_registration_lowered(sample):
    done, _ = sample
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line[:8] for line in lines[1:4]] == ["person 1", "person 2", "mean    "]
    for line in lines[1:4]:
        before, after, pixels_before, pixels_after = map(float, re.findall(r"\d+\.\d", line))
        assert after < 0.7 * before and pixels_after < 0.4 * pixels_before
    assert "registering 2" in done.stderr, "a progress bar"


def test_the_pictures_show_bodies_and_points(sample):
    pictures = [matplotlib.image.imread(sample[1] / f"{name}.png") for name in ("before", "after")]
    for picture in pictures:
        grey = np.ptp(picture[..., :3], axis=-1) < 0.2
        assert (grey & (picture[..., 0] < 0.9)).mean() > 0.03, "shaded meshes"
        assert (np.abs(picture[..., :3] - (0.91, 0.35, 0.05)).max(-1) < 0.1).sum() > 500, "surface points"
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).mean() > 0.02


def test_the_mesh_has_everyone_upright_side_by_side(sample):
    mesh = trimesh.load_mesh(sample[1] / "bodies.glb", process=False)
    data = open_body("low")
    assert len(mesh.vertices) == 2 * data.num_vertices and len(mesh.faces) == 2 * len(data.faces)
    first, second = mesh.vertices.reshape(2, -1, 3)
    assert second[:, 0].mean() - first[:, 0].mean() > 0.8
    for body in (first, second):
        assert body[data.vertex_ids["nose"], 1] > body[data.vertex_ids["right_heel"], 1] + 0.8


def test_a_bad_file_ends_the_process_with_status_2_and_one_line(tmp_path):
    done = run(tmp_path / "out", "--mocap", tmp_path / "absent.bvh", "--detail", "low")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "absent.bvh" in done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [("people", "0"), ("noise", "-1"), ("noise", "nan"), ("swapped", "1.5"), ("outliers", "-0.1"), ("steps", "-2")],
)
def test_numbers_that_mean_nothing_are_refused_by_name(main, capsys, option, value):
    assert main("--detail", "low", f"--{option}", value) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and option in error and "expected" in error


def test_files_of_no_use_are_refused_in_one_line(main, capsys, tmp_path):
    (tmp_path / "text.bvh").write_text("nothing")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 nothing")
    np.savez(tmp_path / "names.npz", joint_names=np.array(["a", "b"]), clip_x=np.zeros((9, 2, 3), np.float32))
    np.savez(tmp_path / "empty.npz", joint_names=np.array(["a", "b"]))
    np.savez(tmp_path / "flat.npz", joint_names=np.array(["a", "b"]), clip_x=np.zeros((9, 3), np.float32))
    for name in ("text.bvh", "broken.npz", "names.npz", "empty.npz", "flat.npz"):
        assert main("--detail", "low", "--mocap", tmp_path / name) == 2, name
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and name in error


def test_poses_come_from_an_acclaim_file(scenes, shared_data):
    model = BodyModel(open_body("low"))
    poses = scenes.read_poses(model, shared_data / "mocap" / "02_01.amc", 3)
    assert poses.shape == (3, 23, 3) and poses.isfinite().all()
    elbows = [model.skeleton.index(f"{side}_elbow") - 1 for side in ("left", "right")]
    assert poses[:, elbows].norm(dim=-1).max() > 0.2


def test_more_people_than_frames_are_refused(main, capsys, shared_data):
    path = shared_data / "mocap" / "02_01.amc"
    assert main("--detail", "low", "--mocap", path, "--people", 100000) == 2
    assert "--people: expected 1 to" in capsys.readouterr().err


def test_more_people_than_shipped_poses_are_refused(main, capsys):
    assert main("--detail", "low", "--people", "9") == 2
    assert "--people: expected 1 to 8, got 9; name a --mocap FILE" in capsys.readouterr().err


def test_shipped_poses_are_within_reach(scenes):
    poses = scenes.shipped_poses()
    assert poses.shape[1:] == (23, 3) and len(poses) >= 4
    assert poses.abs().max() < 3.2
