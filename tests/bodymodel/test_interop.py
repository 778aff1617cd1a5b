"""The constants of a smplx object come out as they went in."""

import io
import pickle
from contextlib import redirect_stdout
from types import SimpleNamespace

import numpy as np
import pytest
import smplx
import torch
from official_files import pickle_entries, random_model_arrays, write_official_file
from physique.bodymodel import from_smplx, load_body_model

Struct = smplx.utils.Struct
CLASSES = {"smpl": "SMPL", "smplh": "SMPLH", "smplx": "SMPLX", "mano": "MANO", "flame": "FLAME"}


def build(tmp_path, family, layer=False, **options):
    """Return a smplx object and the same constants through the loader."""
    path = write_official_file(tmp_path, family, "npz")
    data = load_body_model(path)
    cls = getattr(smplx, CLASSES[family] + ("Layer" if layer else ""))
    with redirect_stdout(io.StringIO()):
        if family == "smpl":
            with np.load(path) as archive:
                return cls(None, data_struct=Struct(**archive), **options), data
        if family == "smplh":
            options["data_struct"] = Struct(**random_model_arrays(family))
        if family == "flame":
            write_flame_folder(tmp_path)
            return cls(str(tmp_path), ext="npz", **options), data
        return cls(str(path), ext="npz", **options), data


def write_flame_folder(folder):
    np.savez(folder / "FLAME_NEUTRAL.npz", **random_model_arrays("flame"))
    landmarks = {"lmk_face_idx": np.arange(51), "lmk_b_coords": np.full((51, 3), 1 / 3)}
    (folder / "flame_static_embedding.pkl").write_bytes(pickle.dumps(landmarks))


@pytest.mark.parametrize("layer", [False, True])
@pytest.mark.parametrize("family", CLASSES)
def test_the_constants_are_those_of_the_file(tmp_path, family, layer):
    model, expected = build(tmp_path, family, layer)
    data = from_smplx(model)
    assert data.family == family
    assert data.coefficients == expected.coefficients
    for name in ("v_template", "lbs_weights", "shapedirs", "posedirs", "J_regressor", "J_template"):
        np.testing.assert_allclose(getattr(data, name), getattr(expected, name), atol=1e-6, err_msg=name)
        assert getattr(data, name).dtype == np.float32
    np.testing.assert_array_equal(data.faces, expected.faces)


def test_float64_models_stay_float64(tmp_path):
    model, expected = build(tmp_path, "smpl", dtype=torch.float64)
    data = from_smplx(model)
    assert data.v_template.dtype == np.float64
    np.testing.assert_allclose(data.posedirs, expected.posedirs, atol=1e-7)  # smplx casts through float32


def test_hands_and_landmarks_come_along(tmp_path):
    model, expected = build(tmp_path, "smplx", num_pca_comps=6, use_face_contour=True)
    data = from_smplx(model)
    np.testing.assert_allclose(data.extras["hands_componentsl"], expected.extras["hands_componentsl"][:6], atol=1e-6)
    np.testing.assert_allclose(data.extras["hands_meanr"], expected.extras["hands_meanr"], atol=1e-6)
    for key in ("lmk_faces_idx", "lmk_bary_coords", "dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords"):
        np.testing.assert_allclose(data.extras[key], expected.extras[key], atol=1e-6)


def test_flat_hands_have_a_mean_of_zero(tmp_path):
    model, _ = build(tmp_path, "mano", flat_hand_mean=True)
    data = from_smplx(model)
    assert not data.extras["hands_mean"].any()
    assert data.extras["hands_components"].shape == (6, 45)


def test_fewer_coefficients_stay_fewer(tmp_path):
    model, expected = build(tmp_path, "smplx", num_betas=4, num_expression_coeffs=3)
    data = from_smplx(model)
    assert (data.num_betas, data.num_expression) == (4, 3)
    np.testing.assert_allclose(data.shapedirs[..., 4:], expected.shapedirs[..., 10:13], atol=1e-6)


def test_fewer_expression_coefficients_than_directions_count(tmp_path):
    """Of small files smplx keeps ten expression directions whatever was asked for, and drives only the first."""
    model, _ = build(tmp_path, "flame", num_expression_coeffs=2)
    assert model.expr_dirs.shape[-1] == 10
    assert from_smplx(model).num_expression == 2


def test_only_attributes_are_read():
    arrays = random_model_arrays("mano")
    fake = SimpleNamespace(
        **{key: arrays[key] for key in ("v_template", "shapedirs", "J_regressor")},
        posedirs=arrays["posedirs"].reshape(-1, 135).T,
        lbs_weights=arrays["weights"],
        faces=arrays["f"],
        parents=np.r_[-1, arrays["kintree_table"][0, 1:].astype(int)],
    )
    np.testing.assert_array_equal(from_smplx(fake).posedirs, arrays["posedirs"])


def test_another_object_is_a_type_error():
    with pytest.raises(TypeError, match=r"layer: expected a smplx model, got dict without v_template"):
        from_smplx(pickle_entries("smpl", random_model_arrays("smpl"), chumpy=False))
