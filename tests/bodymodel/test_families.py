"""The table of families: its rows are those of the field."""

import pytest
from physique.bodymodel.families import FAMILIES, family_by_name
from refusals import refuses

# joints, width of the pose feature, and the flattened pose vector of each family's files
SIZES = {
    "smpl": (24, 207),
    "smplh": (52, 459),
    "smplx": (55, 486),
    "mano": (16, 135),
    "flame": (5, 36),
    "star": (24, 92),
}
BODY = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)


@pytest.mark.parametrize("name", FAMILIES)
def test_sizes_are_those_of_the_files(name):
    family = family_by_name(name)
    assert (family.skeleton.num_joints, family.feature_width) == SIZES[name]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_parts_cover_the_joints_root_first(family):
    assert family.parts[0].name == "global_orient"
    assert sum(part.count for part in family.parts) == family.skeleton.num_joints
    assert all(part.count == 1 for part in family.parts if part.single)
    assert len(set(family.part_names)) == len(family.parts)


@pytest.mark.parametrize(
    "name, tail",
    [
        ("smpl", (20, 21)),
        ("star", (20, 21)),
        (
            "smplh",
            (20, 22, 23, 20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35)
            + (21, 37, 38, 21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50),
        ),
        (
            "smplx",
            (15, 15, 15, 20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35, 20, 37, 38)
            + (21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50, 21, 52, 53),
        ),
    ],
)
def test_body_trees_are_those_of_the_field(name, tail):
    assert FAMILIES[name].skeleton.parents == BODY + tail


def test_hand_and_head_trees_are_those_of_the_field():
    assert FAMILIES["mano"].skeleton.parents == (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
    assert FAMILIES["flame"].skeleton.parents == (-1, 0, 1, 1, 1)


def test_pose_parts_start_at_the_joints_of_the_field():
    starts = {}
    for name in ("smplx", "smplh"):
        joint = 0
        for part in FAMILIES[name].parts:
            starts[name, part.name] = FAMILIES[name].skeleton.names[joint]
            joint += part.count
    assert starts["smplx", "jaw_pose"] == "jaw"
    assert starts["smplx", "leye_pose"] == "left_eye_smplhf"
    assert starts["smplx", "reye_pose"] == "right_eye_smplhf"
    assert starts["smplx", "left_hand_pose"] == starts["smplh", "left_hand_pose"] == "left_index1"
    assert starts["smplx", "right_hand_pose"] == starts["smplh", "right_hand_pose"] == "right_index1"


def test_fingers_come_in_the_order_of_the_field():
    order = [name[:-1] for name in FAMILIES["mano"].skeleton.names[1::3]]
    assert order == ["index", "middle", "pinky", "ring", "thumb"]


def test_an_unknown_family_is_refused_with_those_known():
    with refuses("family"):
        family_by_name("SMPL")
