"""Animated, skinned GLB files: what a viewer computes is what the model computes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from oracles.gltf import Glb
from physique.bodymodel import BodyModel, open_body, save_animation, segment_scale_model, synthetic_model
from physique.bodymodel.save_animation import strongest_weights
from refusals import refuses


def saved(folder, model, arguments, **more):
    save_animation(folder / "clip.glb", model, arguments, **more)
    return Glb((folder / "clip.glb").read_bytes())


@pytest.mark.parametrize("family", ["smpl", "smplh", "smplx", "mano", "flame", "star"])
def test_a_viewer_sees_the_vertices_of_the_model(family, tmp_path):
    data = synthetic_model(family, num_vertices=60, pose_correctives=False)
    model = BodyModel(data, dtype=torch.float64)
    arguments = {"betas": torch.randn(10), "transl": torch.randn(4, 3)}
    for part in data.table_row.parts:
        arguments[part.name] = torch.randn(4, 3) if part.single else torch.randn(4, part.count, 3)
    arguments = {name: value.double() for name, value in arguments.items()}
    glb = saved(tmp_path, model, arguments, fps=25)
    expected = model(**arguments)
    for frame in range(4):
        np.testing.assert_allclose(glb.vertices(frame), expected.vertices[frame], atol=1e-5)
        joints = glb.node_matrices(frame)[glb.json["skins"][0]["joints"]][:, :3, 3]
        np.testing.assert_allclose(joints, expected.joints[frame], atol=1e-5)
    np.testing.assert_allclose(glb.times(), [0, 0.04, 0.08, 0.12], atol=1e-7)
    assert [glb.json["nodes"][i]["name"] for i in glb.json["skins"][0]["joints"]] == list(data.skeleton.names)
    np.testing.assert_array_equal(glb.faces(), data.faces)


def test_the_built_in_body_keeps_its_four_strongest_joints(tmp_path):
    data = open_body("low")
    joints, weights = strongest_weights(data.lbs_weights)
    dense = np.zeros(data.lbs_weights.shape)
    for vertex in range(len(dense)):
        for joint, weight in zip(joints[vertex], weights[vertex], strict=True):
            dense[vertex, joint] += weight
    body_pose = 0.4 * torch.randn(2, 23, 3)
    reduced = BodyModel(replace(data, lbs_weights=dense))(body_pose=body_pose).vertices
    glb = saved(tmp_path, data, {"body_pose": body_pose})
    np.testing.assert_allclose(glb.vertices(1), reduced[1], atol=1e-5)
    assert float((reduced - BodyModel(data)(body_pose=body_pose).vertices).norm(dim=-1).mean()) < 1e-4


def test_weights_are_the_largest_and_sum_to_one():
    weights = np.array(
        [[0.1, 0.3, 0.0, 0.25, 0.2, 0.15], [0.0, 0.0, 1.0, 0.0, 0.0, 0.0], [-1e-4, 0.5, 0.5, 0, 0, 1e-4]]
    )
    joints, kept = strongest_weights(weights)
    assert joints.tolist() == [[1, 3, 4, 5], [2, 0, 0, 0], [1, 2, 5, 0]]
    np.testing.assert_allclose(kept[0], np.array([0.3, 0.25, 0.2, 0.15]) / 0.9, rtol=1e-6)
    np.testing.assert_allclose(kept.sum(1), 1, atol=1e-6)
    assert kept[1].tolist() == [1, 0, 0, 0] and kept.dtype == np.float32 and joints.dtype == np.uint8
    few, padded = strongest_weights(np.array([[0.25, 0.75]]))
    assert few.tolist() == [[1, 0, 0, 0]] and padded.tolist() == [[0.75, 0.25, 0, 0]]


def test_normals_have_length_one_even_where_no_face_is(tmp_path):
    data = synthetic_model("smpl", num_vertices=60, pose_correctives=False)
    glb = saved(tmp_path, replace(data, faces=data.faces[5:50]), {})
    np.testing.assert_allclose(np.linalg.norm(glb.attribute("NORMAL"), axis=1), 1, atol=1e-6)


def test_neighbouring_quaternions_keep_to_one_side(tmp_path):
    """A root that turns round and round: the quaternion of a matrix has w >= 0 and would jump at half a turn."""
    turn = torch.zeros(40, 3)
    turn[:, 1] = torch.linspace(0, 6 * math.pi, 40)
    glb = saved(tmp_path, synthetic_model("smpl", num_vertices=30), {"global_orient": turn})
    animation = glb.json["animations"][0]
    outputs = [c for c in animation["channels"] if c["target"] == {"node": 0, "path": "rotation"}]
    quaternions = glb.arrays[animation["samplers"][outputs[0]["sampler"]]["output"]]
    assert ((quaternions[1:] * quaternions[:-1]).sum(1) > 0.5).all()
    np.testing.assert_allclose(np.linalg.norm(quaternions, axis=1), 1, atol=1e-6)


def test_the_document_is_what_gltf_asks_for(tmp_path):
    glb = saved(tmp_path, synthetic_model("smpl", num_vertices=60), {"body_pose": torch.randn(3, 23, 3)})
    document = glb.json
    assert document["asset"]["version"] == "2.0" and document["scenes"][0]["nodes"] == [0, 24]
    primitive = document["meshes"][0]["primitives"][0]
    position = document["accessors"][primitive["attributes"]["POSITION"]]
    assert "min" in position and "max" in position
    targets = {name: document["bufferViews"][a]["target"] for name, a in primitive["attributes"].items()}
    assert set(targets.values()) == {34962} and document["bufferViews"][primitive["indices"]]["target"] == 34963
    for sampler in document["animations"][0]["samplers"]:
        assert "min" in document["accessors"][sampler["input"]]
        assert (
            document["accessors"][sampler["output"]]["count"] == document["accessors"][sampler["input"]]["count"] == 3
        )
    children = [child for node in document["nodes"] for child in node.get("children", ())]
    assert sorted(children) == list(range(1, 24)), "every joint but the root has one parent"
    assert document["skins"][0]["joints"] == list(range(24))


def test_another_reader_finds_the_mesh(tmp_path):
    data = synthetic_model("smpl", num_vertices=60)
    saved(tmp_path, data, {})
    mesh = trimesh.load(tmp_path / "clip.glb", process=False, force="mesh")
    np.testing.assert_allclose(mesh.vertices, data.v_template, atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, data.faces)


def test_one_shape_may_come_with_every_frame(tmp_path):
    data = synthetic_model("smpl", num_vertices=60, pose_correctives=False)
    betas, pose = torch.randn(10), torch.randn(3, 23, 3)
    once = saved(tmp_path, data, {"betas": betas, "body_pose": pose})
    each = saved(tmp_path, data, {"betas": betas.expand(3, 10), "body_pose": pose})
    np.testing.assert_array_equal(once.vertices(2), each.vertices(2))
    with refuses("betas"):
        save_animation(tmp_path / "a.glb", data, {"betas": torch.randn(3, 10), "body_pose": pose})


@pytest.mark.parametrize("per_axis", [False, True])
def test_segment_scales_are_baked_too(per_axis, tmp_path):
    model = BodyModel(
        segment_scale_model(synthetic_model("smpl", num_vertices=60, pose_correctives=False), per_axis=per_axis)
    )
    scale = 1 + 0.1 * torch.rand(24, 3) if per_axis else 1 + 0.1 * torch.rand(24)
    for given in (scale, scale.expand(2, *scale.shape)):
        arguments = {"segment_scale": given, "body_pose": torch.randn(2, 23, 3)}
        glb = saved(tmp_path, model, arguments)
        np.testing.assert_allclose(glb.vertices(1), model(**arguments).vertices[1], atol=1e-5)


def test_a_still_body_is_one_frame(tmp_path):
    data = synthetic_model("smpl", num_vertices=60, pose_correctives=False)
    pose = torch.randn(23, 3)
    glb = saved(tmp_path, data, {"body_pose": pose, "transl": torch.ones(3)})
    assert glb.times().tolist() == [0.0]
    np.testing.assert_allclose(glb.vertices(0), BodyModel(data)(body_pose=pose).vertices + 1, atol=1e-5)


def test_rotations_in_any_form(tmp_path):
    data = synthetic_model("smpl", num_vertices=60, pose_correctives=False)
    pose = torch.eye(3).expand(2, 23, 3, 3)
    glb = saved(tmp_path, data, {"body_pose": pose, "rotation": "matrix"})
    np.testing.assert_allclose(glb.vertices(1), data.v_template, atol=1e-6)


def test_what_does_not_fit_is_refused(tmp_path):
    data = synthetic_model("smpl", num_vertices=60)
    path = tmp_path / "clip.glb"
    with refuses("path"):
        save_animation(tmp_path / "clip.gltf", data, {})
    with refuses("fps"):
        save_animation(path, data, {}, fps=0)
    with refuses("model"):
        save_animation(path, replace(data, faces=data.faces[:0]), {})
    with refuses("arguments"):
        save_animation(path, data, {"body_pose": torch.zeros(2, 3, 23, 3)})
    with refuses("arguments"):
        save_animation(path, data, {"body_pose": torch.zeros(0, 23, 3)})
    with refuses("arguments"):
        save_animation(path, data, {"transl": torch.full((2, 3), torch.nan)})
    with refuses("body_pose"):
        save_animation(path, data, {"body_pose": torch.zeros(2, 69)})
    with refuses("jaw_pose"):
        save_animation(path, data, {"jaw_pose": torch.zeros(2, 3)})
    with pytest.raises(FileNotFoundError, match="none: expected a folder, got none; make it first"):
        save_animation(tmp_path / "none" / "clip.glb", data, {})
    assert not list(tmp_path.iterdir())
