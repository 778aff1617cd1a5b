"""The same random arrays as smplx models: from memory where smplx can, else from the files that it expects."""

import pickle
import warnings

import numpy as np
import smplx
import torch
from official_files import npz_entries, random_model_arrays
from smplx.utils import Struct

FAMILIES = ("smpl", "smplh", "smplx", "mano", "flame")


def smplx_model(family, folder, dtype=torch.float64):
    """Return the smplx model of `random_model_arrays(family)`, with absolute hand poses and no PCA."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = _make(family, random_model_arrays(family), folder, dtype)
    if hasattr(model, "vertex_joint_selector"):
        # Its extra joints are vertices of the full mesh by number, which a small mesh does not have.
        model.vertex_joint_selector.extra_joints_idxs.zero_()
    return model


def _make(family, arrays, folder, dtype):
    plain = {"use_pca": False, "flat_hand_mean": True, "dtype": dtype}
    if family == "smpl":
        return smplx.SMPL(str(folder), data_struct=Struct(**arrays), dtype=dtype)
    if family == "smplh":
        return smplx.SMPLH(str(folder), data_struct=Struct(**arrays), **plain)
    if family == "mano":
        return smplx.MANO(str(folder), data_struct=Struct(**arrays), **plain)
    if family == "smplx":
        np.savez(folder / "SMPLX_NEUTRAL.npz", **npz_entries(family, arrays))
        return smplx.SMPLX(str(folder), ext="npz", **plain)
    (folder / "FLAME_NEUTRAL.pkl").write_bytes(pickle.dumps(arrays))
    landmarks = {"lmk_face_idx": np.zeros(3, np.int64), "lmk_b_coords": np.full((3, 3), 1 / 3)}
    (folder / "flame_static_embedding.pkl").write_bytes(pickle.dumps(landmarks))
    return smplx.FLAME(str(folder), dtype=dtype)


def smplx_arguments(arguments):
    """Return our arguments as smplx takes them: joints flattened."""
    return {name: value.flatten(1) for name, value in arguments.items()}
