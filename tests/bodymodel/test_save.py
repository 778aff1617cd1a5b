"""What is saved loads back exactly, here and in smplx, and a failure loses nothing."""

import dataclasses
import io
from contextlib import redirect_stdout

import numpy as np
import pytest
import smplx
from official_files import OFFICIAL_KINDS, random_model_arrays, write_official_file
from physique.bodymodel import BodyModelData, load_body_model, save_body_model


def assert_same(a: BodyModelData, b: BodyModelData) -> None:
    assert (a.family, a.coefficients, a.vertex_ids) == (b.family, b.coefficients, b.vertex_ids)
    names = ("v_template", "faces", "lbs_weights", "shapedirs", "posedirs", "J_regressor", "J_template", "J_shapedirs")
    for name in names:
        first, second = getattr(a, name), getattr(b, name)
        assert (first is None) == (second is None), name
        if first is not None:
            assert first.dtype == second.dtype, name
            np.testing.assert_array_equal(first, second, err_msg=name)
    for group in ("extras", "anchors"):
        first, second = getattr(a, group), getattr(b, group)
        assert set(first) == set(second)
        for key in first:
            for left, right in zip(np.atleast_1d(first[key]), np.atleast_1d(second[key]), strict=True):
                np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("family", OFFICIAL_KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saving_and_loading_gives_the_same_model(tmp_path, family, dtype):
    data = load_body_model(write_official_file(tmp_path, family, OFFICIAL_KINDS[family][0]))
    fields = {f.name: getattr(data, f.name) for f in dataclasses.fields(data)}
    fields |= {"J_template": None, "J_shapedirs": None}
    fields |= {key: value.astype(dtype) for key, value in fields.items() if getattr(value, "dtype", None) == np.float64}
    data = BodyModelData(**fields)
    assert data.v_template.dtype == dtype
    save_body_model(data, tmp_path / "out.npz")
    assert_same(load_body_model(tmp_path / "out.npz"), data)


def unofficial_model() -> BodyModelData:
    arrays = random_model_arrays("smpl", 60, 3)
    return BodyModelData(
        family="smpl",
        v_template=arrays["v_template"],
        faces=arrays["f"],
        lbs_weights=arrays["weights"],
        shapedirs=np.random.default_rng(1).normal(size=(60, 3, 34)),
        J_template=arrays["J_regressor"] @ arrays["v_template"],
        J_shapedirs=np.random.default_rng(2).normal(size=(24, 3, 34)),
        coefficients=(("betas", 10), ("segment_scale", 24)),
        vertex_ids={"nose": 3, "left_heel": 41},
        anchors={"crown": (np.array([1, 2, 3]), np.array([0.5, 0.25, 0.25])), "chin": (np.array([4]), np.array([1.0]))},
        extras={"atlas": np.arange(6).reshape(2, 3), "part_names": np.array(["torso", "head"]), "file": np.ones(2)},
    )


def test_joint_bases_names_anchors_and_own_extras_survive(tmp_path):
    data = unofficial_model()
    save_body_model(data, tmp_path / "out.npz")
    again = load_body_model(tmp_path / "out.npz")
    assert_same(again, data)
    assert again.posedirs is None and again.J_regressor is None


def test_joint_bases_that_differ_from_the_regressor_survive(tmp_path):
    arrays = random_model_arrays("mano")
    data = BodyModelData(
        *("mano", arrays["v_template"], arrays["f"], arrays["weights"], arrays["shapedirs"]),
        J_regressor=arrays["J_regressor"],
        J_template=np.ones((16, 3)),
    )
    save_body_model(data, tmp_path / "out.npz")
    assert_same(load_body_model(tmp_path / "out.npz"), data)


@pytest.mark.parametrize("family", OFFICIAL_KINDS)
def test_the_file_has_the_official_keys_and_types(tmp_path, family):
    data = load_body_model(write_official_file(tmp_path, family, OFFICIAL_KINDS[family][0]))
    save_body_model(data, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files if key != "joint2num"}
        assert ("joint2num" in archive.files) == (family == "smplx")  # as in official files, and nowhere else
    assert {"v_template", "f", "weights", "shapedirs", "posedirs", "J_regressor", "kintree_table"} <= set(arrays)
    assert not [key for key in arrays if key.startswith("physique") or key in ("J_template", "J_shapedirs")]
    assert arrays["kintree_table"][0, 0] == 2**32 - 1
    assert arrays["f"].dtype == arrays["kintree_table"].dtype == np.uint32


def test_absent_pose_correctives_are_written_as_zeros_of_the_official_width(tmp_path):
    save_body_model(unofficial_model(), tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as archive:
        assert archive["posedirs"].shape == (60, 3, 207)
        assert not archive["posedirs"].any()


def test_saving_twice_gives_the_same_bytes(tmp_path):
    save_body_model(unofficial_model(), tmp_path / "a.npz")
    save_body_model(unofficial_model(), tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "out.npz"
    save_body_model(unofficial_model(), path)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(OSError, match="disk full"):
        save_body_model(unofficial_model(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_ending_and_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"path: expected a name that ends in \.npz, got out\.pkl"):
        save_body_model(unofficial_model(), tmp_path / "out.pkl")
    with pytest.raises(FileNotFoundError, match="expected a folder"):
        save_body_model(unofficial_model(), tmp_path / "nowhere" / "out.npz")


def test_objects_in_extras_are_refused(tmp_path):
    data = dataclasses.replace(unofficial_model(), extras={"odd": np.array({}, dtype=object)})
    with pytest.raises(ValueError, match=r"physique\.extras\.odd: expected numbers or text"):
        save_body_model(data, tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("family", ["smpl", "smplh", "smplx", "mano"])
def test_smplx_loads_what_is_saved(tmp_path, family):
    path = tmp_path / "SAVED_RIGHT.npz"
    data = load_body_model(write_official_file(tmp_path, family, "pkl"))
    save_body_model(data, path)
    with redirect_stdout(io.StringIO()):
        if family == "smpl":  # smplx reads plain SMPL from .pkl files and from memory only
            with np.load(path) as archive:
                model = smplx.SMPL(None, data_struct=smplx.utils.Struct(**archive))
        else:
            build = {"smplh": smplx.SMPLH, "smplx": smplx.SMPLX, "mano": smplx.MANO}[family]
            model = build(str(path), ext="npz")
    for name in ("v_template", "lbs_weights", "J_regressor"):
        np.testing.assert_allclose(getattr(model, name).numpy(), getattr(data, name), atol=1e-6)
    np.testing.assert_allclose(model.posedirs.numpy().T.reshape(data.posedirs.shape), data.posedirs, atol=1e-6)
    np.testing.assert_array_equal(model.parents.numpy(), data.skeleton.parents)
