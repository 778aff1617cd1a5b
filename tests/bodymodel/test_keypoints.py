"""Keypoints from bodies of every family, and from regressor files."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from physique.bodymodel import (
    KEYPOINT_SETS,
    BodyModel,
    BodyModelData,
    KeypointRegressor,
    convert_keypoints,
    keypoint_set,
    open_body,
    synthetic_model,
)
from physique.bodymodel.families import FAMILIES
from refusals import refuses

CMU_BONES = (
    "root lhipjoint rhipjoint lfemur rfemur ltibia rtibia lfoot rfoot lowerback upperback thorax lowerneck upperneck "
    "lclavicle rclavicle lhumerus rhumerus lradius rradius"
)
CMU_JOINTS = (0, 1, 2, 4, 5, 7, 8, 10, 11, 3, 6, 9, 12, 15, 16, 17, 18, 19, 20, 21)
JOINT_SETS = {"smpl24": "smpl", "smplh52": "smplh", "smplx55": "smplx", "mano16": "mano", "flame5": "flame"}
OPTIONS = [("smpl", "coco17"), ("smplx", "coco_wholebody133"), ("smplh", "openpose25"), ("mano", "hand21")]


def body(family: str, num_vertices: int = 60, **fields) -> BodyModelData:
    """A random body of a family, without correctives."""
    random = np.random.default_rng(num_vertices)
    joints = FAMILIES[family].skeleton.num_joints
    return BodyModelData(
        family=family,
        v_template=random.normal(size=(num_vertices, 3)),
        faces=random.integers(0, num_vertices, (40, 3)),
        lbs_weights=random.dirichlet(np.ones(joints), num_vertices),
        shapedirs=random.normal(size=(num_vertices, 3, 4)),
        J_regressor=random.dirichlet(np.ones(num_vertices), joints),
        **fields,
    )


def landmarks(data_faces: int = 40) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    return {
        "lmk_faces_idx": random.integers(0, data_faces, 51),
        "lmk_bary_coords": random.dirichlet(np.ones(3), 51),
    }


def posed(data: BodyModelData, *batch: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(*batch, data.num_joints, 3, dtype=dtype), torch.randn(*batch, data.num_vertices, 3, dtype=dtype)


def apply(regressor: KeypointRegressor, joints: torch.Tensor, vertices: torch.Tensor) -> torch.Tensor:
    return regressor(joints, vertices[..., regressor.vertex_ids, :])


@pytest.mark.parametrize("name", list(JOINT_SETS))
def test_joint_sets_are_the_models_own_joints(name):
    data = body(JOINT_SETS[name])
    joints, vertices = posed(data, 2)
    regressor = KeypointRegressor(name, data)
    assert torch.equal(apply(regressor, joints, vertices), joints)
    assert regressor.vertex_ids.numel() == 0 and bool(regressor.valid.all())


def test_captured_bones_end_at_the_models_joints_where_it_has_one():
    data = body("smpl")
    joints, vertices = posed(data, 2)
    regressor = KeypointRegressor("cmu31", data)
    points = apply(regressor, joints, vertices)
    pairs = zip(CMU_BONES.split(), CMU_JOINTS, strict=True)
    expected = {keypoint_set("cmu31").index(bone): joint for bone, joint in pairs}
    assert torch.equal(points[:, list(expected)], joints[:, list(expected.values())])
    assert regressor.valid.nonzero().flatten().tolist() == sorted(expected)
    assert regressor.vertex_ids.numel() == 0


def test_official_meshes_use_the_official_vertices():
    data = body("smpl", 6890)
    joints, vertices = posed(data)
    points = apply(KeypointRegressor("openpose25", data), joints, vertices)
    names = keypoint_set("openpose25").names
    expected = {
        **{"nose": 332, "right_eye": 6260, "left_eye": 2800, "right_ear": 4071, "left_ear": 583},
        **{"left_big_toe": 3216, "left_small_toe": 3226, "left_heel": 3387},
        **{"right_big_toe": 6617, "right_small_toe": 6624, "right_heel": 6787},
    }
    for name, vertex in expected.items():
        assert torch.equal(points[names.index(name)], vertices[vertex])
    for name, joint in {
        "left_shoulder": 16,
        "right_wrist": 21,
        "left_hip": 1,
        "right_knee": 5,
        "left_ankle": 7,
    }.items():
        assert torch.equal(points[names.index(name)], joints[joint])
    torch.testing.assert_close(points[1], (joints[16] + joints[17]) / 2)
    torch.testing.assert_close(points[8], (joints[1] + joints[2]) / 2)


def test_smplx_has_the_whole_body_but_the_jaw_line():
    data = body("smplx", 10475, extras=landmarks())
    joints, vertices = posed(data)
    regressor = KeypointRegressor("coco_wholebody133", data)
    points = apply(regressor, joints, vertices)
    assert regressor.valid.tolist() == [True] * 23 + [False] * 17 + [True] * 93
    assert torch.equal(points[23:40], torch.zeros(17, 3))
    assert torch.equal(
        points[[0, 17, 91, 95, 116]],
        torch.stack([vertices[9120], vertices[5770], joints[20], vertices[5361], vertices[8079]]),
    )
    assert torch.equal(points[[92, 96, 129]], joints[[37, 25, 46]])
    corners = vertices[torch.tensor(data.faces[data.extras["lmk_faces_idx"]])]
    weights = torch.tensor(data.extras["lmk_bary_coords"], dtype=torch.float32)
    torch.testing.assert_close(points[40:91], (weights[..., None] * corners).sum(1))


def test_a_rigid_hand_has_a_root_but_no_fingers():
    regressor = KeypointRegressor("coco_wholebody133", body("smpl", 6890))
    assert regressor.valid[91:].nonzero().flatten().tolist() == [0, 21]
    assert not regressor.valid[23:91].any() and bool(regressor.valid[:23].all())


def test_the_mano_hand_follows_the_openpose_order():
    data = body("mano", 778)
    joints, vertices = posed(data, 3)
    points = apply(KeypointRegressor("hand21", data), joints, vertices)
    everything = torch.cat([joints, vertices[:, [744, 320, 443, 554, 671]]], dim=1)
    assert torch.equal(
        points, everything[:, [0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20]]
    )


def test_anchors_come_before_names_and_names_before_joints():
    anchor = (np.array([5, 3]), np.array([0.25, 0.75]))
    data = body("smpl", anchors={"left_hip": anchor}, vertex_ids={"left_hip": 7, "left_knee": 9, "nose": 1})
    joints, vertices = posed(data)
    points = apply(KeypointRegressor("coco17", data), joints, vertices)
    torch.testing.assert_close(points[11], 0.25 * vertices[5] + 0.75 * vertices[3])
    assert (
        torch.equal(points[13], vertices[9])
        and torch.equal(points[14], joints[5])
        and torch.equal(points[0], vertices[1])
    )


def test_points_that_the_body_lacks_are_zero_and_not_valid():
    data = body("smpl")
    joints, vertices = posed(data, 2)
    regressor = KeypointRegressor("coco17", data)
    points = apply(regressor, joints, vertices)
    assert regressor.valid.tolist() == [False] * 5 + [True] * 12
    assert torch.equal(points[:, :5], torch.zeros(2, 5, 3)) and bool((points[:, 5:] != 0).all())


@pytest.mark.parametrize("name", [n for n in KEYPOINT_SETS if n not in ("mano16", "flame5", "hand21")])
def test_weights_of_valid_points_sum_to_one(name):
    regressor = KeypointRegressor(name, body("smplx", 10475), dtype=torch.float64)
    total = regressor.vertex_weights.sum(1) + regressor.joint_weights.sum(1)
    torch.testing.assert_close(total, regressor.valid.double())


@pytest.mark.parametrize("family, name", OPTIONS)
def test_vertex_ids_are_distinct_ascending_and_each_is_used(family, name):
    data = body(family, {"smpl": 6890, "smplh": 6890, "smplx": 10475, "mano": 778}[family], extras=landmarks())
    regressor = KeypointRegressor(name, data)
    assert regressor.vertex_ids.dtype == torch.int64 and bool((regressor.vertex_ids.diff() > 0).all())
    assert bool((regressor.vertex_weights != 0).any(0).all())


def test_mirrored_bodies_have_mirrored_points():
    data = body("smplx", extras={})
    mirror = list(data.skeleton.mirror)
    joints, vertices = posed(data, dtype=torch.float64)
    for name in ("lsp14", "h36m17", "mpi_inf_3dhp28", "mpii16"):
        regressor = KeypointRegressor(name, data, dtype=torch.float64)
        reflect = torch.tensor([-1.0, 1, 1], dtype=torch.float64)
        unsided = ~(regressor.vertex_weights != 0).any(1)
        points, mirrored = apply(regressor, joints, vertices), apply(regressor, joints[mirror] * reflect, vertices)
        torch.testing.assert_close(mirrored[unsided], (points[list(regressor.keypoint_set.flip)] * reflect)[unsided])


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_batch_and_type(batch, dtype):
    data = body("smpl", 6890)
    regressor = KeypointRegressor("openpose25", data).to(dtype)
    points = apply(regressor, *posed(data, *batch, dtype=dtype))
    assert points.shape == (*batch, 25, 3) and points.dtype == dtype


def test_batches_broadcast():
    data = body("smpl", 6890)
    regressor = KeypointRegressor("coco17", data)
    joints, vertices = torch.randn(5, 1, 24, 3), torch.randn(4, 6890, 3)
    points = apply(regressor, joints, vertices)
    assert points.shape == (5, 4, 17, 3)
    torch.testing.assert_close(points[2, 3], apply(regressor, joints[2, 0], vertices[3]))


def test_autocast_does_not_lower_the_precision():
    data = body("smpl", 6890)
    regressor = KeypointRegressor("openpose25", data)
    joints, vertices = posed(data)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        points = apply(regressor, joints, vertices)
    assert torch.equal(points, apply(regressor, joints, vertices))


def test_it_holds_nothing_to_save_and_describes_itself():
    regressor = KeypointRegressor("coco17", body("smpl"))
    assert regressor.state_dict() == {} and list(regressor.parameters()) == []
    assert "coco17: 12 of 17 keypoints, from 0 vertices" in repr(regressor)
    assert regressor.name == "coco17" and regressor.names == keypoint_set("coco17").names


def test_vmap_and_second_derivatives_pass_through():
    data = body("smpl", 6890)
    regressor = KeypointRegressor("coco17", data, dtype=torch.float64)
    joints, vertices = posed(data, 3, dtype=torch.float64)
    subset = vertices[:, regressor.vertex_ids]
    torch.testing.assert_close(torch.vmap(regressor)(joints, subset), regressor(joints, subset))
    assert torch.autograd.gradgradcheck(lambda j: regressor(j, subset[0]).pow(2).sum(), joints[0].requires_grad_())


@pytest.fixture
def h36m_matrix(tmp_path) -> np.ndarray:
    """Rows as in J_regressor_h36m.npy: pelvis, left leg, right leg, spine ... Row r picks vertex r."""
    matrix = np.eye(17, 60)
    np.save(tmp_path / "h36m.npy", matrix)
    return matrix


def test_human36m_rows_are_left_leg_first_and_do_not_swap_the_legs(h36m_matrix, tmp_path):
    data = body("smpl")
    joints, vertices = posed(data)
    for source in (h36m_matrix, tmp_path / "h36m.npy", str(tmp_path / "h36m.npy")):
        regressor = KeypointRegressor("h36m17", data, regressor=source, regressor_rows="h36m")
        points = apply(regressor, joints, vertices)
        assert torch.equal(points, vertices[[0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]])
    lsp = KeypointRegressor("lsp14", data, regressor=h36m_matrix, regressor_rows="h36m")
    assert torch.equal(apply(lsp, joints, vertices), vertices[[6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]])


def test_rows_can_be_named_and_fill_in_what_they_have():
    data = body("smpl")
    joints, vertices = posed(data)
    rows = ["nose", "left_hip"]
    regressor = KeypointRegressor("coco17", data, regressor=np.eye(2, 60), regressor_rows=rows)
    points = apply(regressor, joints, vertices)
    assert torch.equal(points[[0, 11, 12]], torch.stack([vertices[0], vertices[1], joints[2]]))
    ordered = KeypointRegressor("coco17", data, regressor=np.eye(17, 60), regressor_rows="set")
    assert torch.equal(apply(ordered, joints, vertices), vertices[:17])


def test_hmr_files_bring_their_own_regressor():
    data = body("smpl", extras={"cocoplus_regressor": np.eye(19, 60)})
    joints, vertices = posed(data)
    assert torch.equal(apply(KeypointRegressor("hmr19", data), joints, vertices), vertices[:19])
    assert torch.equal(apply(KeypointRegressor("lsp14", data), joints, vertices), vertices[:14])


def test_errors_say_what_to_do(h36m_matrix, tmp_path):
    data = body("smpl")

    def make(name="h36m17", **options):
        return KeypointRegressor(name, data, **options)

    with pytest.raises(ValueError, match="regressor_rows: expected 'h36m', .* got None; .* left leg first"):
        make(regressor=h36m_matrix)
    with pytest.raises(ValueError, match="regressor_rows: expected .* got 'h36'"):
        make(regressor=h36m_matrix, regressor_rows="h36")
    with pytest.raises(ValueError, match=r"regressor: expected \(17, 60\) .* got \(17, 50\)"):
        make(regressor=h36m_matrix[:, :50], regressor_rows="h36m")
    with pytest.raises(ValueError, match="regressor: expected finite numbers"):
        make(regressor=h36m_matrix * np.nan, regressor_rows="h36m")
    with pytest.raises(ValueError, match="regressor_rows: expected rows that mano16 has"):
        KeypointRegressor("mano16", body("mano"), regressor=h36m_matrix, regressor_rows="h36m")
    with pytest.raises(FileNotFoundError, match=r"none\.npy"):
        make(regressor=tmp_path / "none.npy", regressor_rows="h36m")
    with pytest.raises(ValueError, match="name: expected a keypoint set that a mano body has, got 'h36m17'"):
        KeypointRegressor("h36m17", body("mano"))
    with pytest.raises(ValueError, match="got 'coco18'"):
        make("coco18")
    with pytest.raises(
        ValueError, match=r"vertices: expected \(\*batch, 1, 3\), .*give vertices\[\.\.\., vertex_ids, :\]"
    ):
        make()(torch.zeros(24, 3), torch.zeros(60, 3))
    with pytest.raises(ValueError, match=r"joints: expected \(\*batch, 24, 3\)"):
        make()(torch.zeros(22, 3), torch.zeros(1, 3))
    with pytest.raises(
        TypeError, match=r"joints: expected torch.float32, got torch.float64; use regressor.to\(torch.float64\)"
    ):
        make()(torch.zeros(24, 3, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not numpy", b"\x93NUMPY\x01\x00v\x00{'descr': '<f8'"])
def test_damaged_regressor_files_are_named(content, tmp_path):
    path = tmp_path / "damaged.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.npy: expected an \.npy file") as caught:
        KeypointRegressor("h36m17", body("smpl"), regressor=path, regressor_rows="h36m")
    assert "\n" not in str(caught.value)


def test_object_arrays_are_never_unpickled(tmp_path):
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"objects\.npy"):
        KeypointRegressor("h36m17", body("smpl"), regressor=path, regressor_rows="h36m")
    np.savez(tmp_path / "archive.npz", a=np.eye(3))
    with pytest.raises(ValueError, match=r"archive\.npz: expected an \.npy file"):
        KeypointRegressor("h36m17", body("smpl"), regressor=tmp_path / "archive.npz", regressor_rows="h36m")


@pytest.mark.parametrize("name", ["coco17", "openpose25", "h36m17", "mpi_inf_3dhp28", "coco_wholebody133"])
def test_a_posed_body_gives_the_same_points_through_its_few_vertices(name):
    data = synthetic_model("smplx", num_vertices=90)
    random = np.random.default_rng(2)
    data = replace(data, vertex_ids={"nose": 4, "left_big_toe": 80}, extras=landmarks(len(data.faces)))
    model = BodyModel(data, dtype=torch.float64)
    regressor = KeypointRegressor(name, data, dtype=torch.float64)
    arguments = {
        "betas": torch.tensor(random.normal(size=(3, 1, 10))),
        "body_pose": torch.tensor(random.normal(size=(3, 2, 21, 3))),
        "left_hand_pose": torch.tensor(random.normal(size=(15, 3))),
        "transl": torch.tensor(random.normal(size=(3, 1, 3))),
    }
    out = model(**arguments)
    expected = apply(regressor, out.joints, out.vertices)
    torch.testing.assert_close(model.keypoints(regressor, **arguments), expected)


@pytest.mark.parametrize("name", [n for n in KEYPOINT_SETS if n not in ("mano16", "flame5", "hand21")])
def test_the_built_in_body_has_symmetric_points_in_the_right_places(name):
    data = open_body()
    regressor = KeypointRegressor(name, data)
    points = apply(regressor, torch.tensor(data.J_template), torch.tensor(data.v_template))
    flip = list(regressor.keypoint_set.flip)
    mirrored = points[flip] * torch.tensor([-1.0, 1, 1])
    both = regressor.valid & regressor.valid[flip]
    torch.testing.assert_close(mirrored[both], points[both], rtol=0, atol=0.004)
    at = dict(zip(regressor.keypoint_set.keypoints, points, strict=True))
    valid = dict(zip(regressor.keypoint_set.keypoints, regressor.valid.tolist(), strict=True))
    for left, point in at.items():
        if left.startswith("left_") and valid[left]:
            assert point[0] > 0, f"{left} is on the subject's left"
    height = [at[p][1] for p in ("left_ankle", "left_knee", "left_shoulder", "head_top") if p in at]
    assert height == sorted(height)
    if regressor.keypoint_set.joints is None and name not in ("coco_wholebody133", "mhr70"):
        assert bool(regressor.valid.all()), "the built-in body has every point of the body"


def test_everything_stays_on_its_device():
    regressor = KeypointRegressor("openpose25", body("smpl", 6890), device="meta")
    points = regressor(torch.zeros(24, 3, device="meta"), torch.zeros(len(regressor.vertex_ids), 3, device="meta"))
    assert points.device.type == "meta"
    assert convert_keypoints(points, "openpose25", "hmr19")[0].device.type == "meta"


def test_a_model_in_place_of_its_data_is_refused():
    model = BodyModel(synthetic_model("smpl", num_vertices=60))
    with refuses("data", TypeError):
        KeypointRegressor("coco17", model)
