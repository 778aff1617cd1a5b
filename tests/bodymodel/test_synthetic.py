"""Random models: in the family's layout, generic, and the same for the same seed."""

import numpy as np
import pytest
from body_arguments import FAMILY_NAMES
from official_files import random_model_arrays
from physique.bodymodel import synthetic_model
from refusals import refuses


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_arrays_have_the_shapes_of_the_familys_files(family):
    data = synthetic_model(family, num_vertices=60)
    arrays = random_model_arrays(family)
    for key, name in (("weights", "lbs_weights"), ("posedirs", "posedirs"), ("J_regressor", "J_regressor")):
        assert getattr(data, name).shape == arrays[key].shape
    assert data.num_betas == 10
    assert data.num_expression == (10 if family in ("smplx", "flame") else 0)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_seed_decides(family):
    one, two, other = (synthetic_model(family, num_vertices=30, seed=seed) for seed in (3, 3, 4))
    for name in ("v_template", "lbs_weights", "shapedirs", "posedirs", "J_regressor"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        assert (getattr(one, name) != getattr(other, name)).any()


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_nothing_is_zero_that_could_hide_a_mistake(family):
    data = synthetic_model(family, num_vertices=200)
    assert (np.abs(data.shapedirs).max(axis=(0, 1)) > 1e-3).all()
    assert (np.abs(data.posedirs).max(axis=(0, 1)) > 1e-3).all()
    assert (data.lbs_weights.max(axis=0) > 0.1).all()
    assert np.count_nonzero(data.lbs_weights, axis=1).max() <= 4
    bones = data.J_template[1:] - data.J_template[list(data.skeleton.parents[1:])]
    assert (np.linalg.norm(bones, axis=1) > 1e-3).all()


def test_sizes_are_as_asked():
    data = synthetic_model("smplx", num_vertices=70, num_betas=4, num_expression=3, pose_correctives=False)
    assert (data.num_vertices, data.num_betas, data.num_expression) == (70, 4, 3)
    assert data.posedirs is None
    assert synthetic_model("star", num_vertices=30, num_betas=1).posedirs.shape[2] == 92
    assert synthetic_model("smpl", num_vertices=3).num_vertices == 3


def test_what_cannot_be_made_is_refused():
    with refuses("family"):
        synthetic_model("smal")
    with refuses("num_vertices"):
        synthetic_model(num_vertices=2)
