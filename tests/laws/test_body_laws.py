"""Laws that every body obeys, whatever its family, shape and pose."""

from functools import lru_cache

import numpy as np
import torch
from body_arguments import FAMILY_NAMES, axis_angles, pose_arguments, random_arguments
from hypothesis import given
from hypothesis import strategies as st
from oracles.mirror import FLIP, mirrored_axis_angles, symmetric_model
from physique.bodymodel import BodyModel, segment_scale_model, synthetic_model
from physique.geometry import axis_angle_to_matrix, matrix_to_axis_angle

families = st.sampled_from(FAMILY_NAMES)
seeds = st.integers(0, 2**32 - 1)
angles = st.sampled_from([0.0, 1e-8, 0.1, 0.5, 1.5, 4.0])
TOLERANCE = {"rtol": 0, "atol": 1e-10}


@lru_cache
def model_of(family, kind="plain"):
    data = synthetic_model(family, num_vertices=60, pose_correctives=kind != "rigid")
    if kind == "symmetric":
        data = symmetric_model(data)
    if kind == "scaled":
        data = segment_scale_model(data)
    return BodyModel(data, dtype=torch.float64)


def random_motion(seed):
    generator = torch.Generator().manual_seed(seed)
    turn, shift = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    return axis_angle_to_matrix(turn), shift


def descendants(skeleton, joint):
    """Return the joints below `joint`, itself included."""
    return [other for other in range(skeleton.num_joints) if skeleton.ancestors[other, joint]]


@given(families, seeds, angles)
def test_root_rotation_turns_about_the_pelvis(family, seed, angle):
    model = model_of(family)
    arguments = random_arguments(model.data, seed=seed, angle=angle, transl=False)
    turned = model(**arguments)
    upright = model(**arguments | {"global_orient": None})
    rotation, pelvis = axis_angle_to_matrix(arguments["global_orient"]), turned.rest.joints[0]
    torch.testing.assert_close(turned.joints[0], pelvis, **TOLERANCE)
    for ours, before in ((turned.vertices, upright.vertices), (turned.joints, upright.joints)):
        torch.testing.assert_close(ours, (before - pelvis) @ rotation.mT + pelvis, **TOLERANCE)
    torch.testing.assert_close(turned.joint_rotations, rotation @ upright.joint_rotations, **TOLERANCE)


@given(families, seeds, angles)
def test_a_motion_of_the_world_moves_the_translation_by_the_fields_rule(family, seed, angle):
    model = model_of(family)
    arguments = random_arguments(model.data, seed=seed, angle=angle)
    rotation, shift = random_motion(seed)
    before = model(**arguments)
    pelvis = before.rest.joints[0]
    orientation = rotation @ axis_angle_to_matrix(arguments["global_orient"])
    moved = model(
        **arguments
        | {
            "global_orient": matrix_to_axis_angle(orientation),
            "transl": rotation @ (arguments["transl"] + pelvis) + shift - pelvis,
        }
    )
    torch.testing.assert_close(moved.vertices, before.vertices @ rotation.mT + shift, **TOLERANCE)
    torch.testing.assert_close(moved.joints, before.joints @ rotation.mT + shift, **TOLERANCE)


@given(families, seeds)
def test_translation_is_added_last(family, seed):
    model = model_of(family)
    arguments = random_arguments(model.data, seed=seed)
    transl = arguments.pop("transl")
    here, there = model(**arguments), model(**arguments, transl=transl)
    torch.testing.assert_close(there.vertices, here.vertices + transl, **TOLERANCE)
    torch.testing.assert_close(there.joints, here.joints + transl, **TOLERANCE)
    assert torch.equal(there.joint_rotations, here.joint_rotations)
    assert torch.equal(there.rest.vertices, here.rest.vertices)


@given(families, seeds, angles)
def test_the_mirrored_pose_gives_the_mirrored_body(family, seed, angle):
    model = model_of(family, "symmetric")
    data, flip = model.data, torch.tensor(FLIP)
    arguments = random_arguments(data, seed=seed, angle=angle)
    pose = mirrored_axis_angles(axis_angles(arguments, data), data.skeleton)
    mirrored = arguments | pose_arguments(pose, data) | {"transl": flip * arguments["transl"]}
    out, image = model(**arguments), model(**mirrored)
    left, right = out.vertices.chunk(2)
    torch.testing.assert_close(image.vertices, flip * torch.cat((right, left)), **TOLERANCE)
    torch.testing.assert_close(image.joints, flip * out.joints[list(data.skeleton.mirror)], **TOLERANCE)


@given(families, seeds, angles)
def test_world_rotations_compose_down_the_tree(family, seed, angle):
    model = model_of(family)
    arguments = random_arguments(model.data, seed=seed, angle=angle)
    local = axis_angle_to_matrix(torch.as_tensor(axis_angles(arguments, model.data)))
    world = model(**arguments).joint_rotations
    for joint, parent in enumerate(model.skeleton.parents):
        expected = local[joint] if parent < 0 else world[parent] @ local[joint]
        torch.testing.assert_close(world[joint], expected, **TOLERANCE)


@given(families, seeds, angles)
def test_bones_keep_their_length(family, seed, angle):
    model = model_of(family)
    out = model(**random_arguments(model.data, seed=seed, angle=angle))
    above = list(model.skeleton.parents[1:])
    before, after = ((joints[1:] - joints[above]).norm(dim=-1) for joints in (out.rest.joints, out.joints))
    torch.testing.assert_close(after, before, **TOLERANCE)


@given(families, seeds, st.data())
def test_turning_a_joint_moves_only_what_hangs_on_it(family, seed, data):
    model = model_of(family, "rigid")
    joint = data.draw(st.integers(1, model.data.num_joints - 1))
    arguments = random_arguments(model.data, seed=seed)
    pose = axis_angles(arguments, model.data)
    pose[joint] += 1.0
    before, after = model(**arguments), model(**arguments | pose_arguments(pose, model.data))
    below = descendants(model.skeleton, joint)
    others = [other for other in range(model.data.num_joints) if other not in below]
    torch.testing.assert_close(after.joints[[*others, joint]], before.joints[[*others, joint]], **TOLERANCE)
    free = model.lbs_weights[:, below].sum(dim=1) == 0
    torch.testing.assert_close(after.vertices[free], before.vertices[free], **TOLERANCE)
    assert not torch.allclose(after.vertices, before.vertices)


@given(families, seeds, angles)
def test_vertices_of_one_joint_move_rigidly_with_it(family, seed, angle):
    model = model_of(family, "rigid")
    out = model(**random_arguments(model.data, seed=seed, angle=angle, transl=False))
    for vertex, weights in enumerate(model.lbs_weights):
        expected = torch.zeros(3, dtype=torch.float64)
        for joint in weights.nonzero().flatten().tolist():
            offset = out.rest.vertices[vertex] - out.rest.joints[joint]
            expected += weights[joint] * (out.joint_rotations[joint] @ offset + out.joints[joint])
        torch.testing.assert_close(out.vertices[vertex], expected, **TOLERANCE)


@given(families, seeds)
def test_the_rest_body_is_linear_in_its_coefficients(family, seed):
    model = model_of(family)
    one, two = (
        {
            name: value
            for name, value in random_arguments(model.data, seed=seed + k).items()
            if name in ("betas", "expression")
        }
        for k in range(2)
    )
    between = {name: 0.3 * one[name] + 0.7 * two[name] for name in one}
    for first, second, mean in zip(model.rest(**one), model.rest(**two), model.rest(**between), strict=True):
        torch.testing.assert_close(mean, 0.3 * first + 0.7 * second, **TOLERANCE)


@given(families, seeds)
def test_the_zero_pose_is_the_rest_body(family, seed):
    model = model_of(family)
    arguments = random_arguments(model.data, seed=seed, angle=0, transl=False)
    out = model(**arguments)
    torch.testing.assert_close(out.vertices, out.rest.vertices, **TOLERANCE)
    torch.testing.assert_close(out.joints, out.rest.joints, **TOLERANCE)


@given(families, seeds)
def test_a_full_turn_more_changes_nothing_but_stars_correctives(family, seed):
    model = model_of(family, "rigid" if family == "star" else "plain")
    arguments = random_arguments(model.data, seed=seed)
    pose = axis_angles(arguments, model.data)
    further = pose * (1 + 2 * np.pi / np.linalg.norm(pose, axis=1, keepdims=True))
    out, other = model(**arguments), model(**arguments | pose_arguments(further, model.data))
    torch.testing.assert_close(other.vertices, out.vertices, **TOLERANCE)


@given(families, seeds, st.floats(0.5, 2.0))
def test_one_scale_for_all_segments_scales_the_posed_skeleton_about_the_pelvis(family, seed, scale):
    model = model_of(family, "scaled")
    arguments = random_arguments(model.data, seed=seed, transl=False) | {"expression": None}
    ones = torch.ones(model.data.num_joints, dtype=torch.float64)
    out, scaled = (model.joints(**arguments | {"segment_scale": s * ones}) for s in (1.0, scale))
    torch.testing.assert_close(scaled, out[0] + scale * (out - out[0]), **TOLERANCE)


@given(families, seeds)
def test_stages_compose_to_the_whole(family, seed):
    model = model_of(family)
    arguments = random_arguments(model.data, seed=seed)
    shape = {name: arguments.pop(name) for name in ("betas", "expression") if name in arguments}
    staged, whole = model.pose(model.rest(**shape), **arguments), model(**shape, **arguments)
    torch.testing.assert_close(staged.vertices, whole.vertices, **TOLERANCE)
    torch.testing.assert_close(staged.joints, whole.joints, **TOLERANCE)
