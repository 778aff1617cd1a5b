"""Write files in the layouts of the official downloads, filled with random but plausible models.

The pickles are genuine: they name chumpy, SciPy and NumPy classes as the official ones do, although nothing but Python
and NumPy is needed to write them.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from physique.bodymodel.families import FAMILIES

OFFICIAL_VERTICES = {"smpl": 6890, "smplh": 6890, "smplx": 10475, "mano": 778, "flame": 5023, "star": 6890}

OFFICIAL_KINDS = {
    "smpl": ("pkl", "pkl-py3", "npz"),
    "smplh": ("pkl", "npz"),
    "smplx": ("npz", "pkl"),
    "mano": ("pkl",),
    "flame": ("pkl",),
    "star": ("npz",),
}
"""Which layouts `write_official_file` knows: "pkl" as Python 2 wrote it (protocol 2, chumpy), "pkl-ascii" the same in
protocol 0, "pkl-py3" as saved again by Python 3 without chumpy, "pkl-numpy1" that with the names of NumPy 1."""

_COLUMNS = {"smpl": 10, "smplh": 10, "smplx": 20, "mano": 10, "flame": 20, "star": 10}

# Child offset from parent in metres, x left, y up, z forward: the mean neutral SMPL body, left side mirrored to right.
_SMPL_OFFSETS = {
    "pelvis": (-0.0018, -0.2233, 0.0282),
    "hip": (0.0695, -0.0914, -0.0068),
    "knee": (0.0343, -0.3752, -0.0045),
    "ankle": (-0.0136, -0.3980, -0.0437),
    "foot": (0.0264, -0.0558, 0.1193),
    "spine1": (-0.0025, 0.1090, -0.0267),
    "spine2": (0.0055, 0.1352, 0.0011),
    "spine3": (0.0015, 0.0529, 0.0254),
    "neck": (-0.0028, 0.2139, -0.0429),
    "head": (0.0052, 0.0650, 0.0513),
    "collar": (0.0788, 0.1217, -0.0341),
    "shoulder": (0.0910, 0.0305, -0.0089),
    "elbow": (0.2596, -0.0128, -0.0275),
    "wrist": (0.2492, 0.0090, -0.0012),
    "hand": (0.0841, -0.0082, -0.0149),
    "jaw": (0.0, 0.01, 0.02),
    "eye_smplhf": (0.03, 0.06, 0.07),
    "eye": (0.03, 0.06, 0.07),
    "root": (0.0, 0.0, 0.0),
}
_FINGERS = ("index", "middle", "pinky", "ring", "thumb")


def rest_joints(family: str) -> np.ndarray:
    """Return (J, 3) rest joints in metres; fingers are 3 cm apart."""
    skeleton = FAMILIES[family].skeleton
    joints = np.zeros((skeleton.num_joints, 3))
    for joint, (name, parent) in enumerate(zip(skeleton.names, skeleton.parents, strict=True)):
        side = -1 if name.startswith("right_") else 1
        plain = re.sub("^(left|right)_", "", name)
        spread = 0.015 * (2 - _FINGERS.index(plain[:-1])) if plain[:-1] in _FINGERS else 0.0
        offset = np.array(_SMPL_OFFSETS.get(plain, (0.03, 0.0, spread)))
        joints[joint] = offset * (side, 1, 1) + (joints[parent] if parent >= 0 else 0)
    return joints


def random_model_arrays(family: str, num_vertices: int = 60, seed: int = 0, **sizes: int) -> dict[str, np.ndarray]:
    """Return random float64 constants under official keys, dense and plain.

    Args:
        family: row of the family table.
        num_vertices: V; at least three a joint keeps the joints near the rest skeleton.
        seed: of the generator.
        sizes: `columns`, the number of shape directions.
    """
    rng = np.random.default_rng(seed)
    row = FAMILIES[family]
    joints = row.skeleton.num_joints
    columns = sizes.get("columns", _COLUMNS[family])
    anchors = rest_joints(family)
    owner = np.arange(num_vertices) % joints
    v_template = anchors[owner] + rng.normal(0, 0.03, (num_vertices, 3))
    weights = _sparse_rows(rng, owner, row.skeleton.parents, joints)
    regressor = np.zeros((joints, num_vertices))
    for joint in range(joints):
        near = np.argsort(np.linalg.norm(v_template - anchors[joint], axis=1))[:6]
        regressor[joint, near] = rng.dirichlet(np.ones(near.size))
    scale = 0.02 / np.sqrt(1 + np.arange(columns))
    width = row.feature_width + (row.pose_feature == "quaternion")
    parents = np.array(row.skeleton.parents, np.int64).astype(np.uint32)
    arrays = {
        "v_template": v_template,
        "f": _faces(rng, num_vertices),
        "weights": weights,
        "shapedirs": rng.normal(0, 1, (num_vertices, 3, columns)) * scale,
        "posedirs": rng.normal(0, 0.002, (num_vertices, 3, width)),
        "J_regressor": regressor,
        "kintree_table": np.stack([parents, np.arange(joints, dtype=np.uint32)]),
    }
    return arrays | _extras(rng, family, num_vertices, arrays["f"].shape[0])


def write_official_file(
    folder: str | Path, family: str, kind: str, *, num_vertices: int = 60, seed: int = 0, **sizes: int
) -> Path:
    """Write the arrays of `random_model_arrays` in one of `OFFICIAL_KINDS` and return the path."""
    arrays = random_model_arrays(family, num_vertices, seed, **sizes)
    path = Path(folder) / f"{family}_{kind}.{kind[:3]}"
    if kind == "npz":
        np.savez(path, **npz_entries(family, arrays))
        return path
    classic = kind in ("pkl", "pkl-ascii")
    entries = pickle_entries(family, arrays, chumpy=classic)
    protocol = 0 if kind == "pkl-ascii" else 2
    numpy_core = "numpy.core" if classic or kind == "pkl-numpy1" else "numpy._core"
    path.write_bytes(dumps(entries, protocol, python2=classic, numpy_core=numpy_core))
    return path


def npz_entries(family: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the entries of an official .npz: SMPL-X has dicts among them, AMASS SMPL-H texts and leftovers."""
    entries: dict[str, Any] = dict(arrays)
    if family == "smplx":
        names = FAMILIES[family].skeleton.names
        entries["joint2num"] = np.array({name: index for index, name in enumerate(names)}, dtype=object)
        entries["part2num"] = np.array({"Global": 0, "Head": 15}, dtype=object)
        entries["allow_pickle"] = np.array(True)
    if family == "smplh":
        entries = {key: value for key, value in entries.items() if not key.startswith("hands_")}
        entries |= {"bs_style": np.array(b"lbs"), "bs_type": np.array(b"lrotmin"), "weights_prior": arrays["weights"]}
        entries["J"] = arrays["J_regressor"] @ arrays["v_template"]
    return entries


def pickle_entries(family: str, arrays: dict[str, np.ndarray], *, chumpy: bool) -> dict[str, Any]:
    """Return the entries of an official .pkl, with the chumpy objects and sparse matrices of the real ones."""
    entries: dict[str, Any] = dict(arrays)
    entries["J_regressor"] = csc_matrix(arrays["J_regressor"])
    entries |= {"bs_style": "lbs", "bs_type": "lrotmin", "weights_prior": arrays["weights"]}
    entries["pose_training_info"] = {"name": ["scan_0001", "scan_0002"], "count": 1786, "ids": {1, 2}}
    entries["J"] = arrays["J_regressor"] @ arrays["v_template"]
    if not chumpy:
        return entries
    entries["shapedirs"] = ch(arrays["shapedirs"])
    entries["J"] = Foreign("chumpy.ch", "MatVecMult", {"mtx": entries["J_regressor"], "vec": ch(arrays["v_template"])})
    if family == "mano":
        source = np.concatenate([arrays["shapedirs"], np.zeros_like(arrays["shapedirs"])], axis=2)
        entries["shapedirs"] = select(source, np.s_[:, :, : arrays["shapedirs"].shape[2]])
    if family == "flame":
        entries["v_template"] = ch(arrays["v_template"])
        entries["posedirs"] = ch(arrays["posedirs"])
    return entries


class Foreign:
    """An object that pickles as an instance of a class that is not installed here."""

    def __init__(self, module: str, name: str, state: object, args: tuple[object, ...] = ()) -> None:
        self.module, self.name, self.state, self.args = module, name, state, args


def ch(array: np.ndarray) -> Foreign:
    """Return a chumpy array."""
    return Foreign("chumpy.ch", "Ch", {"x": array, "_dirty_vars": set(), "_itr": None})


def select(array: np.ndarray, index: Any) -> Foreign:
    """Return the chumpy object for `Ch(array)[index]`."""
    ids = np.arange(array.size).reshape(array.shape)[index]
    return Foreign("chumpy.reordering", "Select", {"a": ch(array), "idxs": ids.ravel(), "preferred_shape": ids.shape})


def csc_matrix(dense: np.ndarray) -> Foreign:
    """Return the SciPy CSC matrix of a dense one."""
    columns, rows = np.nonzero(dense.T)
    starts = np.concatenate([[0], np.cumsum(np.bincount(columns, minlength=dense.shape[1]))]).astype(np.int32)
    state = {"_shape": dense.shape, "maxprint": 50, "indices": rows.astype(np.int32), "indptr": starts}
    return Foreign("scipy.sparse.csc", "csc_matrix", state | {"data": dense.T[columns, rows]})


def dumps(value: object, protocol: int = 2, *, python2: bool = False, numpy_core: str = "numpy.core") -> bytes:
    """Pickle `value`; with `python2`, texts and array contents are Python 2 strings and names are those of Python 2."""
    return _Writer(protocol, python2, numpy_core).dump(value)


class _Writer:
    def __init__(self, protocol: int, python2: bool, numpy_core: str) -> None:
        self.protocol, self.python2, self.core = protocol, python2, numpy_core
        self.parts: list[bytes] = []
        self.memos = 0

    def dump(self, value: object) -> bytes:
        self.parts = [b"\x80\x02"] if self.protocol == 2 else []
        self.write(value)
        return b"".join([*self.parts, b"."])

    def emit(self, *parts: bytes) -> None:
        self.parts.extend(parts)

    def memoize(self) -> None:
        self.emit(b"p%d\n" % self.memos if self.protocol == 0 else b"r" + self.memos.to_bytes(4, "little"))
        self.memos += 1

    def name(self, module: str, name: str) -> None:
        self.emit(f"c{module}\n{name}\n".encode())

    def write(self, value: Any) -> None:
        match value:
            case Foreign():
                self.foreign(value)
            case np.ndarray():
                self.array(value)
            case dict():
                self.emit(b"(d" if self.protocol == 0 else b"}")
                self.memoize()
                for key, item in value.items():
                    self.write(key)
                    self.write(item)
                    self.emit(b"s")
            case set():
                self.name("__builtin__", "set")
                self.write((sorted(value),))
                self.emit(b"R")
            case list():
                self.emit(b"(l")
                self.memoize()
                for item in value:
                    self.write(item)
                    self.emit(b"a")
            case tuple():
                self.emit(b"(")
                for item in value:
                    self.write(item)
                self.emit(b"t")
            case bytes():
                self.raw(value)
            case str():
                self.raw(value.encode("latin1")) if self.python2 else self.plain(value)
            case _:
                self.plain(value)

    def plain(self, value: object) -> None:
        """Write a value that Python's pickler writes the same way, without its header and end."""
        self.emit(pickle.dumps(value, self.protocol)[2 if self.protocol == 2 else 0 : -1])

    def raw(self, value: bytes) -> None:
        """Write bytes as Python 2 wrote str, or as Python 3 writes bytes in old protocols."""
        if not self.python2:
            text = value.decode("latin1").encode()
            self.name("_codecs", "encode")
            self.emit(b"(X", len(text).to_bytes(4, "little"), text, b"X\x06\x00\x00\x00latin1tR")
        elif self.protocol == 0:
            self.emit(b"S", repr(value)[1:].encode(), b"\n")
        elif len(value) < 256:
            self.emit(b"U", len(value).to_bytes(1, "little"), value)
        else:
            self.emit(b"T", len(value).to_bytes(4, "little"), value)
        self.memoize()

    def array(self, value: np.ndarray) -> None:
        self.name(f"{self.core}.multiarray", "_reconstruct")
        self.emit(b"(")
        self.name("numpy", "ndarray")
        self.write((0,))
        self.raw(b"b")
        self.emit(b"tR")
        self.memoize()
        self.emit(b"(")
        self.write(1)
        self.write(value.shape)
        self.dtype(value.dtype)
        fortran = value.flags.f_contiguous and not value.flags.c_contiguous
        self.write(fortran)
        self.raw(value.tobytes("F" if fortran else "C"))
        self.emit(b"tb")

    def dtype(self, dtype: np.dtype) -> None:
        self.name("numpy", "dtype")
        self.write((dtype.str[1:], False, True))
        self.emit(b"R")
        order = dtype.str[0]
        self.write((3, order, None, None, None, -1, -1, 0))
        self.emit(b"b")

    def foreign(self, value: Foreign) -> None:
        if self.protocol == 0:
            self.name("copy_reg", "_reconstructor")
            self.emit(b"(")
            self.name(value.module, value.name)
            self.name("__builtin__", "object")
            self.emit(b"NtR")
        else:
            self.name(value.module, value.name)
            self.write(value.args)
            self.emit(b"\x81")
        self.memoize()
        self.write(value.state)
        self.emit(b"b")


def _sparse_rows(rng: np.random.Generator, owner: np.ndarray, parents: tuple[int, ...], joints: int) -> np.ndarray:
    """Return skinning weights: the owning joint, its parent and two others, largest first."""
    weights = np.zeros((owner.size, joints))
    for vertex, joint in enumerate(owner):
        others = rng.choice(joints, size=2, replace=False)
        ids = [joint, max(parents[joint], 0), *others]
        np.add.at(weights[vertex], ids, rng.dirichlet((8.0, 3.0, 0.5, 0.5)))
    return weights / weights.sum(axis=1, keepdims=True)


def _faces(rng: np.random.Generator, num_vertices: int) -> np.ndarray:
    """Return twice as many triangles as vertices, each of three different ones."""
    first = np.arange(2 * num_vertices) % num_vertices
    near = rng.integers(1, num_vertices - 1, first.size)
    far = rng.integers(near + 1, num_vertices)
    return np.stack([first, (first + near) % num_vertices, (first + far) % num_vertices], axis=1).astype(np.uint32)


def _extras(rng: np.random.Generator, family: str, num_vertices: int, num_faces: int) -> dict[str, np.ndarray]:
    extras: dict[str, np.ndarray] = {}
    if family in ("smpl", "smplh"):
        extras["vert_sym_idxs"] = rng.permutation(num_vertices)
    for side in {"smplh": "lr", "smplx": "lr", "mano": ("",)}.get(family, ()):
        extras[f"hands_components{side}"] = np.linalg.qr(rng.normal(size=(45, 45)))[0]
        extras[f"hands_mean{side}"] = rng.normal(0, 0.2, 45)
        extras[f"hands_coeffs{side}"] = rng.normal(size=(7, 45))
    if family == "smplx":
        extras["lmk_faces_idx"] = rng.integers(0, num_faces, 51)
        extras["lmk_bary_coords"] = rng.dirichlet(np.ones(3), 51)
        extras["dynamic_lmk_faces_idx"] = rng.integers(0, num_faces, (79, 17))
        extras["dynamic_lmk_bary_coords"] = rng.dirichlet(np.ones(3), (79, 17))
        extras["vt"] = rng.uniform(size=(num_vertices + 5, 2))
        extras["ft"] = rng.integers(0, num_vertices + 5, (num_faces, 3))
    return extras
