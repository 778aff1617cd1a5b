"""Write a body model as an .npz file with the official keys."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from .data import BodyModelData
from .file_keys import EXTRAS, JOINT_BASES, own_arrays
from .safe_npz import MEMBER_NAME
from .write_file import whole_file


def save_body_model(data: BodyModelData, path: str | os.PathLike[str]) -> None:
    """Write `data` as .npz with the keys and layouts of official files, so that other libraries load it too.

    `load_body_model` gives back the same arrays, types included. Other loaders need `posedirs`, so an absent one is
    written as zeros, and `joint2num` in SMPL-X files. Joint bases that do not follow from `J_regressor` are added as
    `J_template` and `J_shapedirs`; what official files have no key for goes under names that begin with `physique.`.
    The file is complete or not there: it is written beside its place and then moved, over an older one if need be.

    Args:
        data: the constants.
        path: where to write; the name ends in .npz.

    Raises:
        ValueError: another ending, or a text array or object in `extras` that .npz cannot hold as plain data.
        FileNotFoundError: the folder is not there.

    Example:
        >>> from physique.bodymodel import load_body_model, save_body_model
        >>> save_body_model(load_body_model("SMPL_NEUTRAL.pkl"), "SMPL_NEUTRAL.npz")  # doctest: +SKIP
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path: expected a name that ends in .npz, got {path.name}; other libraries go by the ending")
    arrays = _official_arrays(data) | own_arrays(data)
    for key, array in arrays.items():
        if array.dtype.kind not in "biufU" or not MEMBER_NAME.fullmatch(key):
            raise ValueError(
                f"{key}: expected numbers or text under a plain name, got {array.dtype}; leave it out of extras"
            )
    if data.family == "smplx":
        # The one object of official files that another loader (body-models) insists on; this library never reads it.
        names = {name: index for index, name in enumerate(data.skeleton.names)}
        arrays["joint2num"] = np.array(names, dtype=object)
    with whole_file(path) as beside, zipfile.ZipFile(beside, "x") as archive:
        for key, array in arrays.items():
            member = zipfile.ZipInfo(f"{key}.npy")
            member.compress_type = zipfile.ZIP_STORED if array.any() else zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=key == "joint2num")


def _official_arrays(data: BodyModelData) -> dict[str, np.ndarray]:
    row, dtype = data.table_row, data.v_template.dtype
    parents = np.array(row.skeleton.parents, np.int64).astype(np.uint32)  # the root's -1 becomes 4294967295
    arrays = {
        "v_template": data.v_template,
        "f": data.faces.astype(np.uint32),
        "weights": data.lbs_weights,
        "shapedirs": data.shapedirs,
        "posedirs": data.posedirs,
        "kintree_table": np.stack([parents, np.arange(parents.size, dtype=np.uint32)]),
    }
    if data.posedirs is None:
        width = row.feature_width + (row.pose_feature == "quaternion")
        arrays["posedirs"] = np.zeros((data.num_vertices, 3, width), dtype)
    if data.J_regressor is not None:
        arrays["J_regressor"] = data.J_regressor
    if data.J_regressor is None or not _bases_follow(data):
        arrays |= {key: getattr(data, key) for key in JOINT_BASES}
    return arrays | {key: array for key, array in data.extras.items() if key in EXTRAS}


def _bases_follow(data: BodyModelData) -> bool:
    """Return whether the joint bases are the ones that `J_regressor` gives."""
    fields = {
        "family": data.family,
        "v_template": data.v_template,
        "faces": data.faces,
        "lbs_weights": data.lbs_weights,
    }
    derived = BodyModelData(**fields, shapedirs=data.shapedirs, J_regressor=data.J_regressor)
    return all(np.array_equal(getattr(derived, key), getattr(data, key)) for key in JOINT_BASES)
