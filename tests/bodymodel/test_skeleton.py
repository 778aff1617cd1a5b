"""The kinematic tree: what it derives from parents and names, and what it refuses."""

import pytest
from physique.bodymodel import Skeleton
from physique.bodymodel.families import FAMILIES
from physique.bodymodel.skeleton import swap_sides
from refusals import refuses

SKELETONS = {name: family.skeleton for name, family in FAMILIES.items()}


def path(skeleton, joint):
    """Return the joints from `joint` up to the root."""
    steps = []
    while joint >= 0:
        steps.append(joint)
        joint = skeleton.parents[joint]
    return steps


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_children_depth_and_ancestors_follow_the_parents(skeleton):
    for joint in range(skeleton.num_joints):
        steps = path(skeleton, joint)
        assert skeleton.depth[joint] == len(steps) - 1
        assert [k for k in range(skeleton.num_joints) if skeleton.ancestors[joint, k]] == sorted(steps)
        assert skeleton.children[joint] == tuple(c for c, p in enumerate(skeleton.parents) if p == joint)


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_mirroring_twice_is_nothing_and_keeps_the_tree(skeleton):
    mirror = skeleton.mirror
    assert [mirror[m] for m in mirror] == list(range(skeleton.num_joints))
    for joint, parent in enumerate(skeleton.parents):
        if parent >= 0:
            assert skeleton.parents[mirror[joint]] == mirror[parent]


def test_the_mirror_of_smpl_is_the_fields_flip():
    flip = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22)
    assert SKELETONS["smpl"].mirror == flip


@pytest.mark.parametrize("name, other", [("left_hip", "right_hip"), ("right_index1", "left_index1"), ("head", "head")])
def test_sides_swap_by_name(name, other):
    assert swap_sides(name) == other


def test_joints_are_found_by_name():
    skeleton = SKELETONS["smpl"]
    assert [skeleton.index(name) for name in skeleton.names] == list(range(24))
    with refuses("joint"):
        skeleton.index("tail")


@pytest.mark.parametrize(
    "parents", [(), (0,), (-1, -1), (-1, 1), (-1, 2, 0), (-1, 0, 3, 1), (-1, -2), (1, -1)], ids=str
)
def test_what_is_no_tree_in_order_is_refused(parents):
    with refuses("parents"):
        Skeleton(parents, tuple(map(str, range(len(parents)))))


@pytest.mark.parametrize("names", [("a",), ("a", "a"), ("a", "b", "c")], ids=str)
def test_names_must_be_distinct_and_one_a_joint(names):
    with refuses("names"):
        Skeleton((-1, 0), names)


def test_equal_trees_are_equal_and_hash_alike():
    one, two = (Skeleton((-1, 0), ("a", "b")) for _ in range(2))
    assert one == two and hash(one) == hash(two)
    assert one != Skeleton((-1, 0), ("a", "c"))
