"""Meshes as OBJ, PLY and GLB, read back by hand and by trimesh."""

import sys

import numpy as np
import pytest
import torch
import trimesh
from oracles.gltf import Glb
from physique.bodymodel import save_mesh, synthetic_model
from physique.geometry import vertex_normals
from refusals import refuses

DATA = synthetic_model("smpl", num_vertices=30)
VERTICES = torch.tensor(DATA.v_template)
FACES = torch.tensor(DATA.faces)
NORMALS = vertex_normals(VERTICES, FACES)
COLORS = torch.linspace(0, 1, 90).reshape(30, 3)
BYTES = np.rint(COLORS.numpy() * 255).astype(np.uint8)


def read_obj(path):
    rows = [line.split() for line in path.read_text().splitlines() if line.startswith(("v", "f"))]

    def of(kind, start, stop):
        return np.array([[float(x) for x in row[start:stop]] for row in rows if row[0] == kind])

    faces = [[int(corner.split("/")[0]) - 1 for corner in row[1:]] for row in rows if row[0] == "f"]
    return of("v", 1, 4), np.array(faces), of("vn", 1, 4), of("v", 4, 7)


def read_ply(path):
    header, _, body = path.read_bytes().partition(b"end_header\n")
    assert header.startswith(b"ply\nformat binary_little_endian 1.0\n")
    kinds = {"float": "<f4", "uchar": "u1"}
    lines = header.decode().splitlines()
    fields = [
        (line.split()[2], kinds[line.split()[1]])
        for line in lines
        if line.startswith("property") and "list" not in line
    ]
    count = int(next(line for line in lines if line.startswith("element vertex")).split()[2])
    table = np.frombuffer(body, fields, count)
    faces = np.frombuffer(body[table.nbytes :], [("n", "u1"), ("ids", "<i4", 3)])
    assert (faces["n"] == 3).all()

    def columns(*names):
        return np.stack([table[name] for name in names], 1) if names[0] in table.dtype.names else np.zeros((0, 3))

    return columns("x", "y", "z"), faces["ids"], columns("nx", "ny", "nz"), columns("red", "green", "blue")


def read_glb(path):
    glb = Glb(path.read_bytes())
    names = glb.json["meshes"][0]["primitives"][0]["attributes"]
    normals = glb.attribute("NORMAL") if "NORMAL" in names else np.zeros((0, 3))
    colors = glb.attribute("COLOR_0")[:, :3] if "COLOR_0" in names else np.zeros((0, 3))
    assert np.array_equal(glb.json["nodes"][0].get("matrix", np.eye(4).ravel()), np.eye(4).ravel())
    return glb.attribute("POSITION"), glb.faces(), normals, colors


READERS = {".obj": read_obj, ".ply": read_ply, ".glb": read_glb}


@pytest.mark.parametrize("ending", READERS)
def test_a_mesh_comes_back_in_its_order(ending, tmp_path):
    path = tmp_path / f"body{ending}"
    save_mesh(path, VERTICES, FACES)
    vertices, faces, normals, colors = READERS[ending](path)
    np.testing.assert_allclose(vertices, VERTICES, atol=1e-7)
    np.testing.assert_array_equal(faces, FACES)
    assert normals.size == colors.size == 0
    again = trimesh.load(path, process=False, force="mesh")
    np.testing.assert_allclose(again.vertices, VERTICES, atol=1e-7)
    np.testing.assert_array_equal(again.faces, FACES)


@pytest.mark.parametrize("ending", READERS)
def test_normals_and_colors_are_written_on_request(ending, tmp_path):
    path = tmp_path / f"body{ending}"
    for colors, expected in ((COLORS, BYTES), (torch.tensor(BYTES), BYTES), (COLORS.numpy(), BYTES)):
        save_mesh(path, VERTICES.numpy(), FACES.numpy(), normals=True, colors=colors)
        vertices, _, normals, read = READERS[ending](path)
        np.testing.assert_allclose(vertices, VERTICES, atol=1e-7)
        np.testing.assert_allclose(normals, NORMALS, atol=1e-6)
        np.testing.assert_allclose(read if ending != ".obj" else read * 255, expected, atol=1e-4)
    save_mesh(path, VERTICES, FACES, normals=-NORMALS)
    np.testing.assert_allclose(READERS[ending](path)[2], -NORMALS, atol=1e-6)


def test_tensors_of_any_type_are_taken(tmp_path):
    vertices = VERTICES.to(torch.bfloat16).requires_grad_()
    save_mesh(tmp_path / "body.ply", vertices, FACES.int())
    np.testing.assert_array_equal(read_ply(tmp_path / "body.ply")[0], vertices.detach().float())


def test_an_older_file_is_replaced_and_nothing_else_is_left(tmp_path):
    (tmp_path / "body.obj").write_text("old")
    save_mesh(tmp_path / "body.obj", VERTICES, FACES)
    assert [path.name for path in tmp_path.iterdir()] == ["body.obj"]
    assert len(read_obj(tmp_path / "body.obj")[0]) == 30


def test_what_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "body.obj"
    with refuses("path"):
        save_mesh(tmp_path / "body.fbx", VERTICES, FACES)
    with refuses("vertices"):
        save_mesh(path, VERTICES.expand(2, -1, -1), FACES)
    with refuses("vertices"):
        save_mesh(path, VERTICES[:0], FACES)
    with refuses("vertices"):
        save_mesh(path, VERTICES * torch.nan, FACES)
    with refuses("faces"):
        save_mesh(path, VERTICES[:-1], FACES)
    with refuses("faces"):
        save_mesh(path, VERTICES, FACES.double())
    with refuses("faces"):
        save_mesh(path, VERTICES, FACES[:0])
    with refuses("normals"):
        save_mesh(path, VERTICES, FACES, normals=NORMALS[:-1])
    with refuses("colors"):
        save_mesh(path, VERTICES, FACES, colors=COLORS[:, :2])
    with refuses("colors"):
        save_mesh(path, VERTICES, FACES, colors=COLORS * 255)
    with refuses("colors"):
        save_mesh(path, VERTICES, FACES, colors=(COLORS * 255).int())
    with pytest.raises(FileNotFoundError, match="none: expected a folder, got none; make it first"):
        save_mesh(tmp_path / "none" / "body.obj", VERTICES, FACES)
    assert not list(tmp_path.iterdir())


def test_without_trimesh_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with refuses("save_mesh", ImportError):
        save_mesh(tmp_path / "body.obj", VERTICES, FACES)
