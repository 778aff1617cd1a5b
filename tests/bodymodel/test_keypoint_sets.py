"""The tables of keypoint sets against the published orders."""

import re
from pathlib import Path

import numpy as np
import pytest
from physique.bodymodel import KEYPOINT_SETS, keypoint_set

SETS = sorted(KEYPOINT_SETS)
JOINTS = ("first_joint", "second_joint", "third_joint")
SIZES = {
    **{"coco17": 17, "coco_wholebody133": 133, "openpose15": 15, "openpose18": 18, "openpose25": 25, "openpose25b": 25},
    **{"h36m17": 17, "lsp14": 14, "mpii16": 16, "mpi_inf_3dhp28": 28, "hmr19": 19, "hand21": 21},
    **{"mhr70": 70, "cmu31": 31, "smpl24": 24, "smplh52": 52, "smplx55": 55, "mano16": 16, "flame5": 5},
}


def test_every_set_has_its_published_number_of_keypoints():
    assert {name: len(KEYPOINT_SETS[name]) for name in SETS} == SIZES


@pytest.mark.parametrize("name", SETS)
def test_names_and_points_are_distinct(name):
    entry = keypoint_set(name)
    assert len(set(entry.names)) == len(set(entry.keypoints)) == len(entry.names) == len(entry.keypoints)


@pytest.mark.parametrize("name", [name for name in SETS if name != "cmu31"])
def test_the_flip_is_an_involution_that_exchanges_the_sides_by_name(name):
    entry = keypoint_set(name)
    assert [entry.flip[k] for k in entry.flip] == list(range(len(entry)))
    for index, other in enumerate(entry.flip):
        left = entry.names[index].replace("right_", "left_")
        assert entry.names[other].replace("right_", "left_") == left
        assert (other == index) == (entry.names[index] == left and "left_" not in left)


@pytest.mark.parametrize("name", SETS)
def test_bones_join_distinct_keypoints_once_and_are_symmetric(name):
    entry = keypoint_set(name)
    bones = {frozenset(bone) for bone in entry.bones}
    assert len(bones) == len(entry.bones) and all(len(bone) == 2 for bone in bones)
    assert {frozenset(entry.flip[k] for k in bone) for bone in bones} == bones
    assert set().union(*bones) == set(range(len(entry)))


def test_flips_are_the_published_permutations():
    assert keypoint_set("hmr19").flip == (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13, 14, 16, 15, 18, 17)
    smpl = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22)
    assert keypoint_set("smpl24").flip == smpl
    cmu = keypoint_set("cmu31").flip
    assert cmu == (0, *range(6, 11), *range(1, 6), *range(11, 17), *range(24, 31), *range(17, 24))
    face = keypoint_set("coco_wholebody133").flip[23:91]
    expected = (
        *range(16, -1, -1),
        *range(26, 16, -1),
        *(27, 28, 29, 30, 35, 34, 33, 32, 31),
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
        *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65),
    )
    assert tuple(k - 23 for k in face) == expected
    assert keypoint_set("coco_wholebody133").flip[91:] == (*range(112, 133), *range(91, 112))


def test_human36m_is_right_leg_first_and_lsp_starts_at_the_right_ankle():
    h36m, lsp = keypoint_set("h36m17"), keypoint_set("lsp14")
    assert h36m.names[1:7] == ("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle")
    assert h36m.names[11:] == (
        *("left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist"),
    )
    assert lsp.names[0] == "right_ankle" and lsp.names[12:] == ("neck", "head_top")


def test_openpose_sets_are_the_published_orders():
    body25 = keypoint_set("openpose25").names
    assert body25[:9] == (
        *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist"),
        *("left_shoulder", "left_elbow", "left_wrist", "mid_hip"),
    )
    assert body25[15:19] == ("right_eye", "left_eye", "right_ear", "left_ear")
    assert body25[19:22] == ("left_big_toe", "left_small_toe", "left_heel")
    assert keypoint_set("openpose18").names == body25[:8] + body25[9:19]
    assert keypoint_set("openpose25b").names[:17] == keypoint_set("coco17").names
    assert keypoint_set("openpose25b").names[17:] == ("upper_neck", "head_top", *body25[19:])


def test_the_hands_of_mhr_run_from_the_tips_to_the_knuckles_right_hand_first():
    entry = keypoint_set("mhr70")
    assert entry.names[:5] == keypoint_set("coco17").names[:5] and entry.names[13:15] == ("left_ankle", "right_ankle")
    assert entry.names[21:25] == tuple(f"right_thumb_{part}" for part in ("tip", *JOINTS))
    assert entry.keypoints[25:29] == ("right_index_tip", "right_index3", "right_index2", "right_index1")
    assert (entry.names[41], entry.names[42], entry.names[62]) == ("right_wrist", "left_thumb_tip", "left_wrist")
    assert entry.names[63:] == (
        *("left_olecranon", "right_olecranon", "left_cubital_fossa", "right_cubital_fossa"),
        *("left_acromion", "right_acromion", "neck"),
    )


def test_captured_bones_are_in_the_order_of_the_files(shared_data):
    entry = keypoint_set("cmu31")
    with np.load(shared_data / "mocap" / "cmu_joints_30fps.npz", allow_pickle=False) as file:
        names, parents = file["joint_names"].tolist(), file["parents"].tolist()
    assert list(entry.names) == names
    assert set(entry.bones) == {(parent, bone) for bone, parent in enumerate(parents) if parent >= 0}


def test_coco_sigmas_are_symmetric_and_one_a_keypoint():
    for name in ("coco17", "coco_wholebody133", "hand21"):
        entry = keypoint_set(name)
        assert entry.sigmas is not None and len(entry.sigmas) == len(entry)
    body = keypoint_set("coco17")
    assert body.sigmas == tuple(body.sigmas[k] for k in body.flip)
    assert body.sigmas[0] == 0.026 and body.sigmas[11] == 0.107


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(ValueError, match=r"keypoint_set: expected one of coco17, .*got 'coco'"):
        keypoint_set("coco")
    with pytest.raises(ValueError, match="keypoint: expected one of nose, .*got 'tail'"):
        keypoint_set("coco17").index("tail")
    assert keypoint_set("coco17").index("left_eye") == 1


def test_the_documented_tables_are_those_of_the_code():
    text = (Path(__file__).parents[2] / "docs" / "keypoints.md").read_text()
    tables = re.findall(
        r"### `(\w+)`\n(?:(?!###)[^\n]*\n)*?\| # \| name \| flip \|[^\n]*\n\|[-|]+\n((?:\|.*\n)+)", text
    )
    documented = {
        name: [tuple(c.strip() for c in row.split("|")[1:4]) for row in rows.splitlines()] for name, rows in tables
    }
    assert {name for name in SETS if KEYPOINT_SETS[name].joints is None} - set(documented) == {
        "coco_wholebody133",
        "lsp14",
        "mhr70",
    }
    for name, rows in documented.items():
        entry = keypoint_set(name)
        assert rows == [(str(i), n, str(f)) for i, (n, f) in enumerate(zip(entry.names, entry.flip, strict=True))]
