"""The constants of a body model are checked by name, read-only, and shared by copies."""

import copy
import pickle

import numpy as np
import pytest
from official_files import random_model_arrays
from physique.bodymodel import BodyModelData, synthetic_model
from refusals import refuses

KEYS = {"v_template": "v_template", "f": "faces", "weights": "lbs_weights", "shapedirs": "shapedirs"}
KEYS |= {"posedirs": "posedirs", "J_regressor": "J_regressor"}
ARRAYS = ("v_template", "lbs_weights", "shapedirs", "posedirs", "J_regressor", "J_template", "J_shapedirs")


def fields(family="smpl", **changes):
    """Return keyword arguments of a good model, with changes."""
    arrays = random_model_arrays(family)
    return {"family": family} | {KEYS[key]: array for key, array in arrays.items() if key in KEYS} | changes


def changed(name, index, value):
    array = fields()[name].astype(np.float64 if name != "faces" else np.int64)
    array[index] = value
    return fields(**{name: array})


def test_the_good_model_is_accepted():
    data = BodyModelData(**fields())
    assert (data.num_vertices, data.num_joints, data.num_betas, data.num_expression) == (60, 24, 10, 0)


@pytest.mark.parametrize(
    "name, array",
    [
        ("v_template", np.zeros((60, 2))),
        ("v_template", np.zeros(60)),
        ("v_template", np.zeros((0, 3))),
        ("faces", np.zeros((5, 4), np.int64)),
        ("faces", np.zeros((5, 3))),
        ("lbs_weights", np.ones((60, 23)) / 23),
        ("lbs_weights", np.ones((59, 24)) / 24),
        ("shapedirs", np.zeros((60, 3))),
        ("shapedirs", np.zeros((59, 3, 10))),
        ("posedirs", np.zeros((60, 3, 93))),
        ("posedirs", np.zeros((3, 60, 207))),
        ("J_regressor", np.ones((60, 24)) / 24),
        ("J_regressor", None),
        ("J_template", np.zeros((23, 3))),
        ("J_shapedirs", np.zeros((24, 3, 9))),
        ("v_template", np.full((60, 3), "a")),
        ("v_template", np.full((60, 3), None)),
        ("shapedirs", np.zeros((60, 3, 10), complex)),
        ("lbs_weights", np.zeros((60, 24), bool)),
    ],
)
def test_a_wrong_shape_or_type_is_refused_by_name(name, array):
    with refuses(name):
        BodyModelData(**fields(**{name: array}))


@pytest.mark.parametrize("bad", (np.nan, np.inf))
@pytest.mark.parametrize("name", ("v_template", "lbs_weights", "shapedirs", "posedirs", "J_regressor"))
def test_numbers_that_are_not_finite_are_refused_by_name(name, bad):
    with refuses(name):
        BodyModelData(**changed(name, (0, 0), bad))


@pytest.mark.parametrize("index", (-1, 60, 2**32 - 1))
def test_faces_that_point_nowhere_are_refused(index):
    with refuses("faces"):
        BodyModelData(**changed("faces", (0, 0), index))


@pytest.mark.parametrize("name", ("lbs_weights", "J_regressor"))
def test_rows_must_sum_to_one_to_within_a_thousandth(name):
    good = fields()[name]
    BodyModelData(**fields(**{name: good * (1 + 5e-4)}))
    with refuses(name):
        BodyModelData(**fields(**{name: good * 1.01}))


def test_negative_weights_are_refused():
    weights = fields()["lbs_weights"].copy()
    weights[0] = 0
    weights[0, :2] = (1.5, -0.5)
    with refuses("lbs_weights"):
        BodyModelData(**fields(lbs_weights=weights))


@pytest.mark.parametrize(
    "coefficients",
    [
        (("betas", 4), ("expression", 5)),
        (("betas", 11), ("expression", -1)),
        (("betas", 5), ("betas", 5)),
        (("betas", 5), ("shape", 5)),
    ],
)
def test_coefficients_must_add_up_under_known_names(coefficients):
    with refuses("coefficients"):
        BodyModelData(**fields(coefficients=coefficients))


def test_a_family_that_is_not_in_the_table_is_refused():
    with refuses("family"):
        BodyModelData(**fields() | {"family": "smal"})


def test_names_of_vertices_and_points_must_lie_on_the_mesh():
    with refuses("vertex_ids"):
        BodyModelData(**fields(vertex_ids={"nose": 60}))
    for ids, weights in (([60], [1.0]), ([1, 2], [1.0]), ([], []), ([[1]], [[1.0]]), ([-1], [1.0])):
        with refuses("anchors"):
            BodyModelData(**fields(anchors={"heel": (np.array(ids, np.int64), np.array(weights))}))
    data = BodyModelData(**fields(vertex_ids={"nose": 3}, anchors={"heel": (np.array([1, 2]), np.array([0.5, 0.5]))}))
    assert data.vertex_ids["nose"] == 3 and data.anchors["heel"][0].tolist() == [1, 2]


def test_stars_last_corrective_needs_two_betas():
    with refuses("shapedirs"):
        BodyModelData(**fields("star", shapedirs=np.zeros((60, 3, 1))))


def test_joint_bases_come_from_the_regressor():
    data = BodyModelData(**fields())
    np.testing.assert_allclose(data.J_template, data.J_regressor @ data.v_template, rtol=0, atol=1e-12)
    for k in range(10):
        expected = data.J_regressor @ data.shapedirs[:, :, k]
        np.testing.assert_allclose(data.J_shapedirs[:, :, k], expected, rtol=0, atol=1e-12)


def test_arrays_are_copies_that_nothing_can_write_to():
    given = fields(extras={"vt": np.zeros((5, 2))})
    data = BodyModelData(**given)
    given["v_template"][:] = 7
    assert not (data.v_template == 7).any()
    for name in (*ARRAYS, "faces"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(data, name)[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        data.extras["vt"][0] = 1
    with pytest.raises(TypeError):
        data.extras["vt"] = np.ones(3)
    with pytest.raises(AttributeError):
        data.family = "star"


@pytest.mark.parametrize("given, kept", [("float32", "float32"), ("float64", "float64"), ("float16", "float32")])
def test_one_floating_type_serves_all_arrays(given, kept):
    arrays = {name: array.astype(given) if array.dtype.kind == "f" else array for name, array in fields().items()
              if name != "family"}  # fmt: skip
    data = BodyModelData("smpl", **arrays)
    assert {getattr(data, name).dtype for name in ARRAYS} == {np.dtype(kept)}
    mixed = BodyModelData("smpl", **arrays | {"v_template": arrays["v_template"].astype(np.float64)})
    assert {getattr(mixed, name).dtype for name in ARRAYS} == {np.dtype(np.float64)}
    assert data.faces.dtype == np.int64


@pytest.mark.parametrize("family", ("smpl", "smplx", "star"))
def test_a_pickle_brings_back_the_same_read_only_data(family):
    data = synthetic_model(family, num_vertices=30)
    other = pickle.loads(pickle.dumps(data))
    for name in (*ARRAYS, "faces"):
        np.testing.assert_array_equal(getattr(other, name), getattr(data, name))
        assert not getattr(other, name).flags.writeable
    assert other.coefficients == data.coefficients and other.family == data.family


def test_a_deep_copy_is_the_object_itself():
    data = synthetic_model(num_vertices=30)
    assert copy.deepcopy(data) is data
    assert copy.deepcopy([data])[0] is data


def test_a_damaged_pickle_is_refused_like_damaged_data():
    data = synthetic_model(num_vertices=30)
    construct, (values,) = data.__reduce__()
    with refuses("v_template"):
        construct(values | {"v_template": np.full((30, 3), np.nan)})


def test_printing_tells_the_sizes_and_not_the_arrays():
    text = repr(synthetic_model("smplx", num_vertices=30))
    assert (
        text == "BodyModelData(smplx: 30 vertices, 56 faces, 55 joints, 10 betas, 10 expression, with pose correctives)"
    )
