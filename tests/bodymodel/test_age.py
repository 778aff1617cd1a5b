"""The age direction against smplx's kid models, and at its two ends."""

import numpy as np
import pytest
import smplx
import torch
from official_files import write_official_file
from physique.bodymodel import BodyModel, add_age_direction, load_body_model, segment_scale_model, synthetic_model


@pytest.mark.parametrize("family", ["smpl", "smplx"])
def test_the_kid_model_equals_smplx(family, tmp_path):
    path = write_official_file(tmp_path, family, "npz")
    data = load_body_model(path)
    kid = 0.6 * data.v_template + np.random.default_rng(1).normal(0, 0.01, data.v_template.shape) + (0.3, -0.2, 0.1)
    np.save(tmp_path / "kid.npy", kid)
    options = {"age": "kid", "kid_template_path": str(tmp_path / "kid.npy"), "batch_size": 2, "dtype": torch.float64}
    if family == "smplx":
        theirs = smplx.SMPLX(str(path), use_pca=False, flat_hand_mean=True, **options)
    else:
        with np.load(path) as archive:
            theirs = smplx.SMPL(None, data_struct=smplx.utils.Struct(**archive), **options)
    theirs.vertex_joint_selector.extra_joints_idxs = torch.zeros(0, dtype=torch.long)
    pose = torch.randn(2, theirs.NUM_BODY_JOINTS, 3, dtype=torch.float64)
    arguments = {"betas": torch.randn(2, 11, dtype=torch.float64)}
    if family == "smplx":
        arguments["expression"] = torch.randn(2, 10, dtype=torch.float64)
    expected = theirs(**arguments, body_pose=pose.flatten(1))
    out = BodyModel(add_age_direction(data, kid), dtype=torch.float64)(**arguments, body_pose=pose)
    torch.testing.assert_close(out.vertices, expected.vertices, rtol=0, atol=1e-6)
    torch.testing.assert_close(out.joints, expected.joints[:, : data.num_joints], rtol=0, atol=1e-6)


def test_zero_is_the_adult_and_one_the_centred_kid():
    data = synthetic_model("smplx", num_vertices=80)
    kid = 0.5 * data.v_template + (0.0, 1.0, 0.0)
    aged = BodyModel(add_age_direction(data, kid), dtype=torch.float64)
    betas = torch.randn(10, dtype=torch.float64)
    adult = BodyModel(data, dtype=torch.float64)(betas=betas)
    torch.testing.assert_close(aged(betas=betas).vertices, adult.vertices)
    one = torch.eye(11, dtype=torch.float64)[10]
    rest = aged.rest(betas=one)
    centred = kid - kid.mean(0)
    torch.testing.assert_close(rest.vertices, torch.tensor(centred))
    torch.testing.assert_close(rest.joints, torch.tensor(data.J_regressor @ centred))


def test_it_is_the_last_of_the_betas_and_leaves_the_expression_alone():
    data = synthetic_model("smplx", num_vertices=80, num_betas=7, num_expression=5)
    aged = add_age_direction(data, data.v_template)
    assert aged.coefficients == (("betas", 8), ("expression", 5))
    assert np.array_equal(aged.shapedirs[:, :, 8:], data.shapedirs[:, :, 7:])
    assert np.array_equal(aged.J_shapedirs[:, :, 8:], data.J_shapedirs[:, :, 7:])
    assert np.array_equal(np.delete(aged.shapedirs, 7, 2), data.shapedirs)


def test_segments_can_be_scaled_afterwards():
    data = add_age_direction(synthetic_model("smpl"), 0.5 * synthetic_model("smpl").v_template)
    assert segment_scale_model(data, betas=np.eye(11)[10]).num_joints == 24


def test_errors_say_what_to_do():
    data = synthetic_model("smpl", num_vertices=50)
    with pytest.raises(ValueError, match=r"kid_template: expected \(50, 3\) numbers, got \(49, 3\)"):
        add_age_direction(data, data.v_template[1:])
    with pytest.raises(ValueError, match="kid_template: expected finite numbers"):
        add_age_direction(data, np.full((50, 3), np.inf))
    with pytest.raises(ValueError, match="before scaling segments"):
        add_age_direction(segment_scale_model(data), data.v_template)
