"""Official layouts load exactly; broken ones are refused with a text that names the file and the array."""

import pickle
import sys
import types

import numpy as np
import pytest
import scipy.sparse
from official_files import (
    OFFICIAL_KINDS,
    csc_matrix,
    dumps,
    npz_entries,
    pickle_entries,
    random_model_arrays,
    write_official_file,
)
from physique.bodymodel import load_body_model
from physique.bodymodel.families import FAMILIES

LAYOUTS = [(family, kind) for family, kinds in OFFICIAL_KINDS.items() for kind in kinds] + [
    (family, kind) for family in OFFICIAL_KINDS for kind in ("pkl-ascii", "pkl-numpy1") if family != "star"
]
FIELDS = {
    "v_template": "v_template",
    "faces": "f",
    "lbs_weights": "weights",
    "shapedirs": "shapedirs",
    "posedirs": "posedirs",
    "J_regressor": "J_regressor",
}


def save(path, entries):
    np.savez(path, **entries)
    return path


@pytest.mark.parametrize(("family", "kind"), LAYOUTS)
def test_every_official_layout_gives_the_arrays_that_were_written(tmp_path, family, kind):
    data = load_body_model(write_official_file(tmp_path, family, kind))
    arrays = random_model_arrays(family)
    assert data.family == family
    for field, key in FIELDS.items():
        np.testing.assert_array_equal(getattr(data, field), arrays[key])
    for key, array in data.extras.items():
        np.testing.assert_array_equal(array, arrays[key])
    assert data.v_template.dtype == np.float64


@pytest.mark.parametrize("family", ["smplx", "mano"])
def test_hands_and_landmarks_come_out_as_extras(tmp_path, family):
    data = load_body_model(write_official_file(tmp_path, family, "pkl"))
    official = {"smplx": {"hands_meanl", "hands_componentsr", "lmk_faces_idx", "dynamic_lmk_bary_coords", "vt", "ft"}}
    assert official.get(family, {"hands_components", "hands_mean", "hands_coeffs"}) <= set(data.extras)


@pytest.mark.parametrize(
    ("columns", "betas", "expression"),
    [(400, 300, 100), (401, 300, 100), (20, 10, 10), (16, 10, 6), (8, 8, 0), (64, 10, 10)],
)
@pytest.mark.parametrize("family", ["smplx", "flame"])
def test_shapedirs_split_into_shape_and_expression(tmp_path, family, columns, betas, expression):
    data = load_body_model(write_official_file(tmp_path, family, "pkl", columns=columns))
    assert (data.num_betas, data.num_expression) == (betas, expression)
    expected = random_model_arrays(family, columns=columns)["shapedirs"][:, :, : betas + expression]
    np.testing.assert_array_equal(data.shapedirs, expected)


def test_amass_smplh_has_sixteen_betas_and_no_hand_means(tmp_path):
    data = load_body_model(write_official_file(tmp_path, "smplh", "npz", columns=16))
    assert data.num_betas == 16
    assert not any(key.startswith("hands_") for key in data.extras)


@pytest.mark.parametrize(
    "rename",
    [
        {"v_template": "default_v"},
        {"v_template": "template_v", "J_regressor": "joint_regressor", "posedirs": "blendshapes"},
    ],
)
def test_older_key_names_are_known(tmp_path, rename):
    arrays = random_model_arrays("smpl")
    path = save(tmp_path / "old.npz", {rename.get(key, key): array for key, array in arrays.items()})
    np.testing.assert_array_equal(load_body_model(path).posedirs, arrays["posedirs"])


@pytest.mark.parametrize("flatten", [lambda p: p.reshape(-1, 93), lambda p: p])
def test_star_posedirs_may_be_flattened(tmp_path, flatten):
    arrays = random_model_arrays("star")
    path = save(tmp_path / "star.npz", arrays | {"posedirs": flatten(arrays["posedirs"])})
    data = load_body_model(path)
    assert data.family == "star"
    np.testing.assert_array_equal(data.posedirs, arrays["posedirs"])


@pytest.mark.parametrize("root", [np.int64(-1), np.uint32(2**32 - 1), np.uint64(2**64 - 1), np.float64(-1)])
def test_the_root_may_be_written_in_any_way(tmp_path, root):
    arrays = random_model_arrays("smpl")
    table = arrays["kintree_table"].astype(root.dtype)
    table[0, 0] = root
    assert load_body_model(save(tmp_path / "a.npz", arrays | {"kintree_table": table})).family == "smpl"


def test_pose_correctives_that_are_all_zero_become_none(tmp_path):
    arrays = random_model_arrays("smpl")
    path = save(tmp_path / "a.npz", arrays | {"posedirs": np.zeros_like(arrays["posedirs"])})
    assert load_body_model(path).posedirs is None


def test_objects_in_an_archive_are_read_where_they_stand_for_arrays(tmp_path):
    arrays = random_model_arrays("smpl")
    entries = arrays | {
        "J_regressor": np.array(scipy.sparse.csc_matrix(arrays["J_regressor"]), dtype=object),
        "weights": np.array(arrays["weights"].tolist(), dtype=object),
        "cocoplus_regressor": np.array(scipy.sparse.coo_matrix(arrays["J_regressor"][:19]), dtype=object),
    }
    data = load_body_model(save(tmp_path / "a.npz", entries))
    np.testing.assert_array_equal(data.J_regressor, arrays["J_regressor"])
    np.testing.assert_array_equal(data.lbs_weights, arrays["weights"])
    np.testing.assert_array_equal(data.extras["cocoplus_regressor"], arrays["J_regressor"][:19])


def test_a_dict_saved_as_npy_loads(tmp_path):
    np.save(tmp_path / "a.npy", random_model_arrays("flame"), allow_pickle=True)
    assert load_body_model(tmp_path / "a.npy").family == "flame"


def test_the_format_comes_from_the_contents_not_the_name(tmp_path):
    path = write_official_file(tmp_path, "smpl", "pkl").rename(tmp_path / "smplx_model.npz")
    assert load_body_model(path).family == "smpl"


@pytest.mark.parametrize("dtype", [">f8", "<f4", "f2"])
@pytest.mark.parametrize("kind", ["npz", "pkl"])
def test_other_number_types_and_byte_orders_load(tmp_path, dtype, kind):
    arrays = random_model_arrays("smpl")
    arrays["v_template"] = np.asfortranarray(arrays["v_template"].astype(dtype))
    path = tmp_path / "a"
    path.write_bytes(dumps(arrays, python2=True)) if kind == "pkl" else save(tmp_path / "a.npz", arrays).rename(path)
    data = load_body_model(path)
    np.testing.assert_array_equal(data.v_template, arrays["v_template"])
    assert data.v_template.dtype.isnative


def test_a_missing_file_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.pkl: expected a body model file"):
        load_body_model(tmp_path / "nothing.pkl")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected a file, got a folder"):
        load_body_model(tmp_path)


@pytest.mark.parametrize(
    ("contents", "text"),
    [
        (b"", "empty file"),
        (b"<html>please log in</html>", "starts with b'<html>"),
        (b"version https://git-lfs.github.com/spec/v1\n", "starts with"),
        (b"PK\x03\x04 but no archive", "BadZipFile"),
        (b"\x89HDF\r\n\x1a\n", "starts with"),
    ],
)
def test_foreign_files_are_refused_by_their_contents(tmp_path, contents, text):
    path = tmp_path / "model.pkl"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=text) as caught:
        load_body_model(path)
    assert str(caught.value).startswith(str(path))


def altered(key, change):
    arrays = random_model_arrays("smpl")
    return arrays | {key: change(arrays[key].copy())}


def put(index, value):
    def change(array):
        array[index] = value
        return array

    return change


@pytest.mark.parametrize(
    ("key", "change", "text"),
    [
        ("v_template", lambda a: a[:-1], "expected .59, 24., got .60, 24."),
        ("v_template", put((3, 1), np.nan), "v_template: expected finite"),
        ("posedirs", put((3, 1, 7), np.inf), "posedirs: expected finite"),
        ("weights", lambda a: a * 1.01, "lbs_weights: expected rows that sum to 1"),
        ("weights", lambda a: a[:, :23], "lbs_weights"),
        ("J_regressor", lambda a: a * 0.9, "J_regressor: expected rows that sum to 1"),
        ("J_regressor", lambda a: a.T, "J_regressor"),
        ("f", put((0, 0), 60), "faces: expected indices 0 to 59"),
        ("f", lambda a: a + 0.5, "faces: expected integers"),
        ("f", lambda a: a[:, :2], "faces"),
        ("posedirs", lambda a: a[:, :, :200], "family: expected joints and posedirs width"),
        ("posedirs", lambda a: a[:, 0, :], "posedirs: expected"),
        ("shapedirs", lambda a: a[:, :, 0], "shapedirs: expected"),
        ("kintree_table", put((0, 5), 9), "kintree_table: expected the tree of smpl, got parent 9 for joint 5"),
        ("kintree_table", put((0, 2), 2), "kintree_table: expected the tree"),
        ("kintree_table", put((1, 2), 7), "kintree_table: expected joints 0, 1, 2"),
        ("kintree_table", lambda a: a[:, :20], "family: expected joints"),
        ("kintree_table", lambda a: np.stack([a, a]), "kintree_table: expected"),
        ("vert_sym_idxs", put(0, 60), "vert_sym_idxs: expected indices 0 to 59"),
        ("vert_sym_idxs", lambda a: a[:-1], "vert_sym_idxs: expected"),
        ("weights", lambda a: a.astype("U8"), "lbs_weights: expected numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(tmp_path, key, change, text):
    path = save(tmp_path / "bad.npz", altered(key, change))
    with pytest.raises(ValueError, match=text) as caught:
        load_body_model(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("key", ["v_template", "f", "weights", "shapedirs", "posedirs", "J_regressor", "kintree_table"])
def test_a_missing_key_is_named(tmp_path, key):
    arrays = random_model_arrays("smpl")
    del arrays[key]
    with pytest.raises(ValueError, match=f"got none called {key}"):
        load_body_model(save(tmp_path / "a.npz", arrays))


def test_rows_may_be_off_by_a_thousandth(tmp_path):
    path = save(tmp_path / "a.npz", altered("weights", lambda a: a * 1.0009))
    assert load_body_model(path).family == "smpl"


def test_a_foreign_archive_is_refused(tmp_path):
    path = save(tmp_path / "motion.npz", {"poses": np.zeros((5, 156)), "betas": np.zeros(16)})
    with pytest.raises(ValueError, match="motion.npz: expected the keys v_template"):
        load_body_model(path)


def test_a_pickle_of_something_else_is_refused(tmp_path):
    path = tmp_path / "list.pkl"
    path.write_bytes(dumps([1, 2, 3]))
    with pytest.raises(ValueError, match=r"list\.pkl: pickle: expected a dict of arrays, got list"):
        load_body_model(path)


@pytest.mark.parametrize("cut", range(20))
@pytest.mark.parametrize(
    ("family", "kind"), [("smpl", "pkl"), ("mano", "pkl-ascii"), ("smplx", "npz"), ("flame", "pkl-py3")]
)
def test_truncated_files_are_refused(tmp_path, family, kind, cut):
    path = write_official_file(tmp_path, family, kind)
    contents = path.read_bytes()
    path.write_bytes(contents[: len(contents) * cut // 20])
    with pytest.raises(ValueError, match="expected") as caught:
        load_body_model(path)
    assert str(caught.value).startswith(str(path))


def test_the_official_pickles_of_these_tests_are_genuine(tmp_path, monkeypatch):
    """Python's own unpickler reads them too, once modules stand in for chumpy and the old names."""
    for name in ("chumpy", "chumpy.ch", "chumpy.reordering", "scipy.sparse.csc"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for module, name in (("ch", "Ch"), ("ch", "MatVecMult"), ("reordering", "Select")):
        setattr(sys.modules[f"chumpy.{module}"], name, type(name, (), {}))
    sys.modules["scipy.sparse.csc"].csc_matrix = type("csc_matrix", (), {})
    if hasattr(np, "_core"):
        monkeypatch.setitem(sys.modules, "numpy.core", np._core)
        monkeypatch.setitem(sys.modules, "numpy.core.multiarray", np._core.multiarray)
    for kind in ("pkl", "pkl-ascii"):
        entries = pickle.loads(write_official_file(tmp_path, "mano", kind).read_bytes(), encoding="latin1")
        picked = entries["shapedirs"]
        source = picked.a.x.ravel()[picked.idxs].reshape(picked.preferred_shape)
        np.testing.assert_array_equal(source, random_model_arrays("mano")["shapedirs"])
        assert entries["J_regressor"].data.size == np.count_nonzero(random_model_arrays("mano")["J_regressor"])
        assert entries["pose_training_info"]["ids"] == {1, 2}


@pytest.mark.parametrize("family", FAMILIES)
def test_entries_that_are_not_read_may_hold_anything_inert(tmp_path, family):
    arrays = random_model_arrays(family)
    entries = pickle_entries(family, arrays, chumpy=True) | {"bs_style": None, "extra": csc_matrix(np.eye(3))}
    path = tmp_path / "a.pkl"
    path.write_bytes(dumps(entries, python2=True))
    assert load_body_model(path).family == family
    np.savez(tmp_path / "a.npz", **npz_entries(family, arrays), mine=np.array({"a": {1}}, dtype=object))
    assert load_body_model(tmp_path / "a.npz").family == family
