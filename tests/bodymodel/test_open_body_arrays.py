"""The built-in body: a closed symmetric mesh in SMPL's layout whose population measures as ANSUR II does."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from physique.bodymodel.open_body_arrays import open_body_arrays

TOOLS = Path(__file__).parents[2] / "tools"
ASSETS = Path(__file__).parents[2] / "bodymodel" / "assets"
SIZES = {"full": (8000, 14000), "low": (1900, 2100)}
PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
JOINT_MIRROR = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
ANCHORS = (
    "left_hip right_hip left_shoulder right_shoulder neck_openpose mid_hip neck_lsp head_top thorax_mpii pelvis_mpii "
    "spine_h36m jaw head_h36m nose_h36m left_clavicle_3dhp right_clavicle_3dhp spine3_3dhp spine4_3dhp spine2_3dhp "
    "spine_3dhp neck_3dhp head_3dhp left_hand_3dhp right_hand_3dhp left_toe_3dhp right_toe_3dhp left_elbow right_elbow "
    "left_wrist right_wrist left_knee right_knee left_ankle right_ankle"
).split()
SIDED = (
    "eye ear big_toe small_toe heel thumb index middle ring pinky acromion radiale stylion patella malleolus".split()
)
FLIP = np.array([-1.0, 1.0, 1.0])


def _tool(name):
    """Import a module of tools/open_body, which is not part of the installed package."""
    sys.path.insert(0, str(TOOLS))
    try:
        return importlib.import_module(f"open_body.{name}")
    finally:
        sys.path.remove(str(TOOLS))


@pytest.fixture(scope="module", params=["full", "low"])
def detail(request):
    return request.param


@pytest.fixture(scope="module")
def body(detail):
    return open_body_arrays(detail)


@pytest.fixture(scope="module")
def shapes(body):
    """The mean body and 30 random ones, float64 (31, V, 3)."""
    betas = np.random.default_rng(1).standard_normal((30, body["shapedirs"].shape[-1]))
    betas = np.concatenate([np.zeros((1, betas.shape[1])), betas])
    return body["v_template"].astype(np.float64) + np.einsum("vcs,bs->bvc", body["shapedirs"], betas)


def _anchor_rows(body):
    names, indptr, indices, values = body["anchors"]
    rows = np.zeros((len(names), len(body["v_template"])))
    rows[np.repeat(np.arange(len(names)), np.diff(indptr)), indices] = values
    return names, rows


def test_shapes_and_types_are_smpls(body, detail):
    count = len(body["v_template"])
    low, high = SIZES[detail]
    assert low <= count <= high
    assert body["v_template"].shape == (count, 3) and body["v_template"].dtype == np.float32
    assert body["shapedirs"].shape[:2] == (count, 3) and 10 <= body["shapedirs"].shape[2] <= 16
    assert body["shapedirs"].dtype == body["lbs_weights"].dtype == body["J_regressor"].dtype == np.float32
    assert body["lbs_weights"].shape == (count, 24)
    assert body["J_regressor"].shape == (24, count)
    assert body["faces"].dtype == np.int64
    assert body["parents"].tolist() == PARENTS


def test_every_edge_has_two_faces_in_opposite_directions(body):
    faces = body["faces"]
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    code = directed[:, 0] * 65536 + directed[:, 1]
    assert len(np.unique(code)) == len(code)
    assert np.array_equal(np.sort(code), np.sort(directed[:, 1] * 65536 + directed[:, 0]))


def test_mesh_is_one_sphere(body):
    count, faces = len(body["v_template"]), body["faces"]
    assert np.array_equal(np.unique(faces), np.arange(count))
    label = np.arange(count)
    while True:
        least = label.copy()
        np.minimum.at(least, faces.ravel(), np.repeat(label[faces].min(axis=1), 3))
        if np.array_equal(least, label):
            break
        label = least
    assert (label == 0).all()
    assert count - len(faces) // 2 == 2


def test_each_vertex_has_one_fan_of_faces(body):
    """Around a manifold vertex the opposite edges form a single ring."""
    following: dict[int, dict[int, int]] = {}
    for a, b, c in body["faces"].tolist():
        for one, two, three in ((a, b, c), (b, c, a), (c, a, b)):
            following.setdefault(one, {})[two] = three
    for ring in following.values():
        start = here = next(iter(ring))
        steps = 0
        while steps == 0 or here != start:
            here = ring[here]
            steps += 1
        assert steps == len(ring)


def test_faces_are_not_degenerate_and_look_outwards(body, shapes):
    a, b, c = (shapes[0][body["faces"][:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    assert area.min() > 1e-9
    volume = _tool("measure").volume(shapes, body["faces"])
    assert (volume > 0.03).all() and (volume < 0.15).all()


def test_left_right_symmetry_is_exact(body):
    mirror = body["vert_sym_idxs"]
    assert np.array_equal(mirror[mirror], np.arange(len(mirror)))
    assert np.array_equal(body["v_template"][mirror] * FLIP.astype(np.float32), body["v_template"])
    assert np.array_equal(body["shapedirs"][mirror] * FLIP.astype(np.float32)[:, None], body["shapedirs"])
    assert np.array_equal(body["lbs_weights"][mirror][:, JOINT_MIRROR], body["lbs_weights"])
    assert np.array_equal(body["J_regressor"][JOINT_MIRROR][:, mirror], body["J_regressor"])

    def rolled(faces):
        return {tuple(np.roll(face, -int(np.argmin(face)))) for face in faces.tolist()}

    assert rolled(mirror[body["faces"]][:, [0, 2, 1]]) == rolled(body["faces"])


def test_anchors_and_named_vertices_are_mirrored(body):
    mirror, ids = body["vert_sym_idxs"], body["vertex_ids"]
    names, rows = _anchor_rows(body)
    for name, row in zip(names, rows, strict=True):
        other = name.replace("left_", "right_") if name.startswith("left_") else name.replace("right_", "left_")
        assert np.allclose(rows[names.index(other)][mirror], row, rtol=0, atol=1e-7)
    for name, vertex in ids.items():
        other = name.replace("left_", "right_") if name.startswith("left_") else name.replace("right_", "left_")
        assert mirror[vertex] == ids[other]


def test_rows_are_non_negative_and_sum_to_one(body):
    for rows in (body["lbs_weights"], body["J_regressor"], _anchor_rows(body)[1]):
        assert rows.min() >= 0
        assert np.abs(rows.astype(np.float64).sum(axis=1) - 1).max() < 1e-6
    assert (body["lbs_weights"] > 0).sum(axis=1).max() <= 6


def test_pelvis_is_at_the_origin(body):
    assert np.abs(body["J_regressor"][0].astype(np.float64) @ body["v_template"]).max() < 1e-7


def test_rest_pose_is_a_t_pose(body, shapes):
    joints = body["J_regressor"].astype(np.float64) @ shapes
    hip, knee, ankle, neck, head, shoulder, elbow, wrist = (joints[:, k] for k in (1, 4, 7, 12, 15, 16, 18, 20))
    for joint in (elbow, wrist):
        assert np.abs(joint[:, 1] - shoulder[:, 1]).max() < 0.03
        assert np.abs(joint[:, 2] - shoulder[:, 2]).max() < 0.03
    assert (wrist[:, 0] > elbow[:, 0] + 0.15).all() and (elbow[:, 0] > shoulder[:, 0] + 0.15).all()
    assert (hip[:, 1] > knee[:, 1] + 0.25).all() and (knee[:, 1] > ankle[:, 1] + 0.25).all()
    assert np.abs(ankle[:, 0] - hip[:, 0]).max() < 0.08
    assert (head[:, 1] > neck[:, 1]).all() and (neck[:, 1] > shoulder[:, 1]).all()
    assert (joints[:, 1, 0] > 0.05).all() and (joints[:, 2, 0] < -0.05).all()


def test_joints_lie_inside_the_body(body, shapes):
    joints = body["J_regressor"].astype(np.float64) @ shapes[0]
    a, b, c = (shapes[0][body["faces"][:, k]][None] - joints[:, None] for k in range(3))
    length = [np.linalg.norm(side, axis=-1) for side in (a, b, c)]
    # solid angle of every face (Van Oosterom and Strackee): 4π in all from inside a closed surface
    product = np.einsum("jfi,jfi->jf", a, np.cross(b, c))
    bottom = length[0] * length[1] * length[2]
    bottom = bottom + (a * b).sum(-1) * length[2] + (a * c).sum(-1) * length[1] + (b * c).sum(-1) * length[0]
    winding = 2 * np.arctan2(product, bottom).sum(axis=1) / (4 * np.pi)
    assert np.allclose(winding, 1.0, atol=1e-5)


def test_named_vertices_are_where_their_names_say(body, shapes):
    ids, template = body["vertex_ids"], shapes[0]
    for name in SIDED:
        assert {f"left_{name}", f"right_{name}"} <= set(ids)
        assert template[ids[f"left_{name}"], 0] > 0
    at = {name: template[vertex] for name, vertex in ids.items()}
    head = template[:, 1] > at["chin"][1]
    assert at["nose"][2] == template[head, 2].max() and at["nose"][0] == 0
    assert at["head_top"][1] > template[:, 1].max() - 0.003
    assert at["chin"][1] < at["nose"][1] < at["left_eye"][1] < at["head_top"][1]
    assert 0.02 < at["left_eye"][0] < 0.045 < at["left_ear"][0]
    sole = template[:, 1].min()
    assert max(at[f"left_{name}"][1] for name in ("heel", "big_toe", "small_toe")) < sole + 0.05
    assert at["left_heel"][2] < 0 < at["left_small_toe"][2] < at["left_big_toe"][2]
    assert at["left_big_toe"][0] < at["left_small_toe"][0]
    depth = [at[f"left_{name}"][2] for name in ("thumb", "index", "middle", "ring", "pinky")]
    assert depth == sorted(depth, reverse=True)
    assert at["left_middle"][0] > template[:, 0].max() - 0.005


def test_every_anchor_is_there_and_plausible(body, shapes):
    names, rows = _anchor_rows(body)
    assert set(ANCHORS) <= set(names)
    at = dict(zip(names, rows @ shapes[0], strict=True))
    assert at["mid_hip"][1] < at["spine_3dhp"][1] < at["spine2_3dhp"][1] < at["spine3_3dhp"][1] < at["spine4_3dhp"][1]
    assert at["neck_openpose"][1] < at["neck_lsp"][1] < at["jaw"][1] < at["head_h36m"][1] < at["head_top"][1]
    assert np.allclose(at["neck_openpose"], (at["left_shoulder"] + at["right_shoulder"]) / 2, atol=1e-6)
    assert np.allclose(at["mid_hip"], (at["left_hip"] + at["right_hip"]) / 2, atol=1e-6)


def test_low_joints_follow_the_full_ones():
    full, low = open_body_arrays("full"), open_body_arrays("low")
    betas = np.random.default_rng(2).standard_normal((50, full["shapedirs"].shape[-1]))
    joints = []
    for body in (full, low):
        shaped = body["v_template"] + np.einsum("vcs,bs->bvc", body["shapedirs"], betas)
        joints.append(body["J_regressor"] @ shaped)
    distance = np.linalg.norm(joints[0] - joints[1], axis=-1)
    assert distance.mean() < 0.001 and distance.max() < 0.008


def test_low_vertices_are_full_vertices():
    full, low = open_body_arrays("full"), open_body_arrays("low")
    known = {tuple(row): k for k, row in enumerate(full["shapedirs"].reshape(len(full["v_template"]), -1).tolist())}
    index = [known[tuple(row)] for row in low["shapedirs"].reshape(len(low["v_template"]), -1).tolist()]
    assert np.abs(full["v_template"][index] - low["v_template"]).max() < 1e-5
    assert np.array_equal(full["lbs_weights"][index], low["lbs_weights"])


def test_population_measures_as_ansur_does(detail):
    """Mean within 2 %, standard deviation within 15 %, over 2,000 bodies with betas ~ N(0, 1)."""
    name = {"full": "open_body.npz", "low": "open_body_low.npz"}[detail]
    with np.load(ASSETS / name, allow_pickle=False) as file:
        found = _tool("report").measured({key: file[key] for key in file.files})
    real = _tool("ansur").stored_statistics()
    for measure, values in found.items():
        k = real.names.index(measure)
        assert abs(values.mean() / real.mean[k] - 1) < 0.02, measure
        assert abs(values.std() / real.sd[k] - 1) < 0.15, measure


def test_measured_acromion_is_that_of_a_body_with_hanging_arms(body):
    acromion = body["vertex_ids"]["left_acromion"]
    assert body["lbs_weights"][acromion, 16] == pytest.approx(_tool("measure").ACROMION_FOLLOWS, abs=0.01)
    assert body["lbs_weights"][body["vertex_ids"]["left_radiale"], [16, 18]].sum() > 0.99


def test_first_direction_makes_taller(body):
    height = body["v_template"][body["vertex_ids"]["head_top"], 1] - body["v_template"][:, 1].min()
    shaped = body["v_template"] + body["shapedirs"][..., 0]
    assert shaped[body["vertex_ids"]["head_top"], 1] - shaped[:, 1].min() > height + 0.05
    spread = (body["shapedirs"].astype(np.float64) ** 2).sum(axis=(0, 1))
    assert spread[0] == spread.max()


def test_stored_table_is_what_the_raw_survey_gives(shared_data):
    ansur = _tool("ansur")
    stored, found = ansur.stored_statistics(), ansur.pooled_statistics(shared_data / "anthro" / "raw")
    assert stored.names == found.names
    assert np.abs(stored.mean - found.mean).max() < 1e-5
    assert np.abs(stored.covariance - found.covariance).max() < 1e-3


def test_assets_are_small_and_load_fast(detail):
    assert sum(path.stat().st_size for path in ASSETS.glob("*.npz")) < 2_000_000
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        open_body_arrays(detail)
        best = min(best, time.perf_counter() - start)
    assert best < 0.1


def test_unknown_detail_is_refused():
    with pytest.raises(ValueError, match='detail: expected "full" or "low", got'):
        open_body_arrays("medium")
