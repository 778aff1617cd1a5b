import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import trimesh
from official_files import write_official_file
from physique.bodymodel import BodyModel, open_body
from torch import from_numpy

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "01_fit_keypoints.py"
SAMPLE = ROOT / "examples" / "data" / "keypoints.json"
QUICK = ("--detail", "low", "--steps", "40")


def run(keypoints, out, *arguments):
    command = [sys.executable, str(EXAMPLE), "--keypoints", str(keypoints), "--out", str(out), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def meshes(out):
    return trimesh.load_scene(out / "fit.glb", process=False).dump()


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    out = tmp_path_factory.mktemp("sample") / "new" / "folder"
    return run(SAMPLE, out, *QUICK), out


@pytest.fixture
def drawing(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    return importlib.import_module("drawing")


@pytest.fixture
def main(drawing):
    """The example's main function, for what needs no process of its own."""
    spec = importlib.util.spec_from_file_location("fit_keypoints_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda keypoints, out, *more: module.main(
        ["--keypoints", str(keypoints), "--out", str(out), *map(str, more)]
    )


def test_it_reports_the_error_of_every_person_in_pixels(sample):
    done, _ = sample
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["person 1", "person 2"]
    assert all(float(line.split("mean error ")[1].split()[0]) < 30 for line in lines[:2])
    assert "fitting 2 of openpose25" in done.stderr, "a progress bar"


def test_the_picture_shows_something(sample):
    picture = matplotlib.image.imread(sample[1] / "fit.png")
    assert picture.shape[0] > 400 and picture.shape[1] > picture.shape[0]
    grey = np.ptp(picture[..., :3], axis=-1) < 0.2
    ink = grey & (picture[..., 0] < 0.9)
    assert 0.05 < ink.mean() < 0.5, "shaded meshes"
    assert (np.abs(picture[..., :3] - (0.91, 0.35, 0.05)).max(-1) < 0.1).sum() > 200, "keypoints"


def test_the_meshes_are_upright_metric_and_closed(sample):
    bodies, ids = meshes(sample[1]), open_body("low").vertex_ids
    assert len(bodies) == 2
    for body in bodies:
        assert body.is_watertight and body.volume > 0.03
        left_to_right, height, _ = body.extents
        assert 1.3 < height < 2.3 and height > left_to_right
        nose, left_ear, right_ear, heel = (
            body.vertices[ids[name]] for name in ("nose", "left_ear", "right_ear", "right_heel")
        )
        assert nose[1] > heel[1] + 1, "the head is up"
        assert nose[2] > (left_ear[2] + right_ear[2]) / 2, "faces that the image shows look at the viewer, along +z"
        outward = (body.vertices - body.centroid) * body.vertex_normals
        assert outward.sum(-1).mean() > 0


def test_people_of_one_image_keep_their_order_from_left_to_right(sample):
    scene = trimesh.load_scene(sample[1] / "fit.glb")
    x = {name: scene.geometry[scene.graph[name][1]].centroid[0] for name in scene.graph.nodes_geometry}
    assert x["person 2"] - x["person 1"] > 0.8


def test_the_numbers_load_without_pickle_and_rebuild_the_bodies(sample):
    with np.load(sample[1] / "fit.npz", allow_pickle=False) as saved:
        assert saved["person"].tolist() == [0, 1]
        assert str(saved["keypoint_set"]) == "openpose25"
        assert saved["keypoints"].shape == (2, 25, 2)
        assert saved["residuals"].shape == saved["confidence"].shape == (2, 25)
        np.testing.assert_array_equal(np.isnan(saved["residuals"]), saved["confidence"] == 0)
        assert saved["camera_scale"].shape == (2,) and saved["camera_translation"].shape == (2, 2)
        names = ("betas", "global_orient", "body_pose", "transl")
        model = BodyModel(open_body("low"))
        assert model(**{name: from_numpy(saved[name]) for name in names}).joints.shape == (2, 24, 3)


def test_the_process_ends_with_status_2_and_one_line(tmp_path):
    done = run(tmp_path / "frame.json", tmp_path / "out")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "frame.json" in done.stderr


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1, 2]", '{"people": 3}', '{"people": []}', '{"version": 1.3, "people": [{}]}', "[]"],
    ids=["empty", "cut off", "numbers", "no list", "nobody", "no keypoints", "no results"],
)
def test_a_useless_file_ends_with_one_line_and_status_2(main, capsys, tmp_path, content):
    path = tmp_path / "frame.json"
    path.write_text(content)
    assert main(path, tmp_path / "out", *QUICK) == 2
    expect_one_line(capsys.readouterr(), "frame.json")


def test_a_file_whose_people_are_barely_seen_is_refused(main, capsys, tmp_path):
    path = tmp_path / "frame.json"
    path.write_text(json.dumps({"people": [{"pose_keypoints_2d": [5.0, 6.0, 0.9] * 5 + [0.0] * 60}]}))
    assert main(path, tmp_path / "out", *QUICK) == 2
    expect_one_line(capsys.readouterr(), "frame.json")


@pytest.mark.parametrize(
    "arguments",
    [("--model", "nowhere.pkl"), ("--image", "nowhere.png"), ("--focal", "1000"), ("--image", __file__)],
    ids=["no model", "no image", "no size", "not an image"],
)
def test_other_useless_arguments_end_the_same_way(main, capsys, tmp_path, arguments):
    assert main(SAMPLE, tmp_path / "out", *QUICK, *arguments) == 2
    expect_one_line(capsys.readouterr(), "")


def expect_one_line(captured, name):
    assert captured.err.count("\n") == 1 and captured.err.strip()
    assert name in captured.err


def test_people_without_extent_are_left_out_and_the_others_fitted(main, capsys, tmp_path):
    content = json.loads(SAMPLE.read_text())
    content["people"].insert(1, {"pose_keypoints_2d": [5.0, 6.0, 0.9] * 25})
    path = tmp_path / "frame.json"
    path.write_text(json.dumps(content))
    assert main(path, tmp_path / "out", *QUICK) == 0
    assert "person 2: not fitted" in capsys.readouterr().out
    assert len(meshes(tmp_path / "out")) == 2
    with np.load(tmp_path / "out" / "fit.npz") as saved:
        assert saved["status"].tolist()[1] == 2


def test_a_file_in_which_nobody_has_extent_is_refused(main, capsys, tmp_path):
    path = tmp_path / "frame.json"
    path.write_text(json.dumps({"people": [{"pose_keypoints_2d": [5.0, 6.0, 0.9] * 25}]}))
    assert main(path, tmp_path / "out", *QUICK) == 2
    assert "frame.json" in capsys.readouterr().err.splitlines()[-1]
    assert not list((tmp_path / "out").iterdir())


def test_a_crowd_is_fitted_whole_and_shown_in_part(main, capsys, tmp_path):
    content = json.loads(SAMPLE.read_text())
    content["people"] = content["people"] * 5
    path = tmp_path / "frame.json"
    path.write_text(json.dumps(content))
    assert main(path, tmp_path / "out", "--detail", "low", "--steps", 5) == 0
    assert "fit.png has the 8 largest of 10 people" in capsys.readouterr().out
    assert len(meshes(tmp_path / "out")) == 10


def test_a_known_camera_and_an_image(main, tmp_path):
    image = tmp_path / "image.png"
    matplotlib.image.imsave(image, np.full((720, 1280, 3), 0.5))
    assert main(SAMPLE, tmp_path / "out", *QUICK, "--image", image, "--focal", 2000) == 0
    with np.load(tmp_path / "out" / "fit.npz") as saved:
        assert saved["camera_focal"].tolist() == [[2000, 2000], [2000, 2000]]
        np.testing.assert_allclose(saved["transl"][:, 2], 8, atol=1.5)


def test_an_official_file_takes_the_place_of_the_built_in_body(main, tmp_path):
    path = write_official_file(tmp_path, "smpl", "pkl", num_vertices=60)
    assert main(SAMPLE, tmp_path / "out", "--model", path, "--steps", 20) == 0
    assert [len(body.vertices) for body in meshes(tmp_path / "out")] == [60, 60]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "words"),
    [
        ("openpose/spin_im1010_body25_hands_face.json", 1, "person 1: "),
        ("openpose/hmr_random_coco18_v1.0_2people.json", 2, "person 2: "),
        ("openpose/signer_000.json", 1, "person 1: "),
        ("coco/person_keypoints_2images.json", 3, "person 3 of image 40083: "),
    ],
)
def test_real_files(main, capsys, shared_data, tmp_path, name, count, words):
    assert main(shared_data / name, tmp_path / "out", "--detail", "low") == 0
    printed = capsys.readouterr().out
    assert words in printed
    bodies = meshes(tmp_path / "out")
    assert len(bodies) == count
    lines = [line for line in printed.splitlines() if "mean error" in line]
    assert len(lines) == count
    for line in lines:
        error, size = float(line.split("mean error ")[1].split()[0]), float(line.split("of a person ")[1].split()[0])
        assert error < 0.03 * size


@pytest.mark.slow
def test_people_of_different_images_stand_side_by_side(main, shared_data, tmp_path):
    main(shared_data / "coco/person_keypoints_2images.json", tmp_path, "--detail", "low", "--steps", 20)
    spans = sorted((body.bounds[0, 0], body.bounds[1, 0]) for body in meshes(tmp_path))
    assert spans[1][0] > spans[0][1]


def test_the_nearer_face_hides_the_farther_and_back_faces_are_not_drawn(drawing):
    square = np.array([[2, 2, 0], [8, 2, 0], [8, 8, 0], [2, 8, 0]], float)
    toward, away = np.array([[0, 2, 1], [0, 3, 2]]), np.array([[0, 1, 2], [0, 2, 3]])
    normals = np.repeat([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0]], 4, axis=0)
    both = np.concatenate([square, square + (0, 0, 5)])
    near = drawing.rasterise(square, normals[:4], toward, 10, 10)
    assert near[5, 5, 3] == 1 and near[0, 0, 3] == 0
    assert near[..., 3].sum() == 36
    for faces in (np.concatenate([toward, toward + 4]), np.concatenate([toward + 4, toward])):
        np.testing.assert_array_equal(drawing.rasterise(both, normals, faces, 10, 10), near)
    assert drawing.rasterise(square, normals[:4], away, 10, 10)[..., 3].sum() == 0


def test_a_mesh_beyond_the_image_is_cut_off(drawing):
    triangle = np.array([[-50, -50, 0], [0, 90, 0], [90, 0, 0]], float)
    image = drawing.rasterise(triangle, np.tile([0.0, 0.0, -1.0], (3, 1)), np.array([[0, 1, 2]]), 4, 6)
    assert image.shape == (6, 4, 4) and image[..., 3].min() == 1
