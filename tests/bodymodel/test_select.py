"""A model of some vertices keeps their order, their faces, their names, and all joints."""

import numpy as np
import pytest
from body_arguments import FAMILY_NAMES
from physique.bodymodel import BodyModelData, open_body, synthetic_model
from physique.bodymodel.select import select_vertices
from refusals import refuses

IDS = np.array([9, 4, 5, 6, 4, 20])


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_rows_are_those_of_the_vertices_in_order(family):
    data = synthetic_model(family, num_vertices=30)
    some = select_vertices(data, IDS)
    for name in ("v_template", "lbs_weights", "shapedirs", "posedirs"):
        np.testing.assert_array_equal(getattr(some, name), getattr(data, name)[IDS])
    np.testing.assert_array_equal(some.J_template, data.J_template)
    np.testing.assert_array_equal(some.J_shapedirs, data.J_shapedirs)
    assert some.J_regressor is None and some.coefficients == data.coefficients


def test_faces_with_all_corners_are_kept_and_point_to_the_first_of_a_repeat():
    data = synthetic_model(num_vertices=30)
    kept = [face for face in data.faces if all(corner in IDS for corner in face)]
    expected = [[list(IDS).index(corner) for corner in face] for face in kept]
    assert len(expected) > 0
    np.testing.assert_array_equal(select_vertices(data, IDS).faces, expected)


def test_all_vertices_are_the_same_mesh():
    data = open_body("low")
    every = select_vertices(data, np.arange(data.num_vertices))
    np.testing.assert_array_equal(every.faces, data.faces)
    assert dict(every.vertex_ids) == dict(data.vertex_ids) and set(every.anchors) == set(data.anchors)


def test_names_follow_their_vertices_or_go():
    data = synthetic_model(num_vertices=30)
    fields = {name: getattr(data, name) for name in data.__dataclass_fields__}
    anchors = {"in": (np.array([20, 4]), np.array([0.5, 0.5])), "out": (np.array([20, 3]), np.array([0.5, 0.5]))}
    some = select_vertices(BodyModelData(**fields | {"vertex_ids": {"nose": 6, "ear": 7}, "anchors": anchors}), IDS)
    assert dict(some.vertex_ids) == {"nose": 3}
    assert {name: ids.tolist() for name, (ids, _) in some.anchors.items()} == {"in": [5, 1]}


@pytest.mark.parametrize("ids", ([], [[1, 2]], [30], [-1], [0.5]), ids=str)
def test_ids_that_name_no_vertex_are_refused(ids):
    with refuses("ids"):
        select_vertices(synthetic_model(num_vertices=30), np.array(ids, dtype=float if ids == [0.5] else int))
