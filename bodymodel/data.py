"""The constants of a body model, validated once and never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from .families import Family, family_by_name
from .skeleton import Skeleton

ROW_SUM_TOLERANCE = 1e-3
ARGUMENTS = ("betas", "expression", "segment_scale")
"""The arguments that shape directions may belong to."""


@dataclass(frozen=True, eq=False)
class BodyModelData:
    """The arrays of a linear-blend-skinning body model of any family, in metres.

    Arrays are NumPy, read-only, float32 or float64 (one type for all) and int64. Everything is checked when the object
    is made, so that nothing needs checking later.

    Attributes:
        family: row of the family table: "smpl", "smplh", "smplx", "mano", "flame" or "star".
        v_template: (V, 3) vertices of the mean shape in the rest pose.
        faces: (F, 3) triangles, counter-clockwise seen from outside; may be empty.
        lbs_weights: (V, J) skinning weights; rows sum to 1.
        shapedirs: (V, 3, S) displacement of each vertex per unit of each coefficient.
        posedirs: (V, 3, P) pose correctives per pose feature, or None where the model has none. P is the family's
            feature width; STAR's files have one column more, driven by betas[1].
        J_regressor: (J, V) rest joints from rest vertices, rows sum to 1; None where the joint bases are given.
        J_template: (J, 3) joints of the mean shape; from J_regressor when None.
        J_shapedirs: (J, 3, S) displacement of each joint per unit of each coefficient; from J_regressor when None.
        coefficients: how many of the S directions each argument drives, in order: pairs (argument, count) of
            "betas", "expression" and "segment_scale". Default: all are betas.
        vertex_ids: named vertices such as "nose" or "left_heel".
        anchors: named points on the surface or inside the body: (ids, weights), a weighted mean of vertices.
        extras: other arrays of the file under their official keys: hands_components*, hands_mean*, lmk_*, vt, ft, ...

    Raises:
        ValueError: any shape, index or value that does not fit; the text names the array.
    """

    family: str
    v_template: np.ndarray
    faces: np.ndarray
    lbs_weights: np.ndarray
    shapedirs: np.ndarray
    posedirs: np.ndarray | None = None
    J_regressor: np.ndarray | None = None
    J_template: np.ndarray | None = None
    J_shapedirs: np.ndarray | None = None
    coefficients: tuple[tuple[str, int], ...] = ()
    vertex_ids: Mapping[str, int] = field(default_factory=dict)
    anchors: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check everything, and make the arrays read-only."""
        self._freeze_arrays()
        if not self.coefficients:
            self._set("coefficients", (("betas", self.shapedirs.shape[-1] if self.shapedirs.ndim else 0),))
        self._check_shapes()
        self._check_values()
        self._derive_joint_bases()
        self._check_names()

    @property
    def table_row(self) -> Family:
        """The family's row: parts, skeleton, pose feature."""
        return family_by_name(self.family)

    @property
    def skeleton(self) -> Skeleton:
        """Parents and names of the joints."""
        return self.table_row.skeleton

    @property
    def num_vertices(self) -> int:
        """Number of vertices V."""
        return self.v_template.shape[0]

    @property
    def num_joints(self) -> int:
        """Number of joints J."""
        return self.skeleton.num_joints

    def count(self, argument: str) -> int:
        """Return how many coefficients `argument` has: 0 where the model lacks it."""
        return dict(self.coefficients).get(argument, 0)

    @property
    def num_betas(self) -> int:
        """Number of shape coefficients."""
        return self.count("betas")

    @property
    def num_expression(self) -> int:
        """Number of expression coefficients."""
        return self.count("expression")

    def __deepcopy__(self, memo: dict[int, Any]) -> BodyModelData:
        """Return itself: nothing in it can change."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the constructor call, so that what is unpickled is validated and read-only again."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("vertex_ids", "anchors", "extras"):
            values[name] = dict(values[name])
        return _construct, (values,)

    def __repr__(self) -> str:
        """Name the family and the sizes."""
        counts = ", ".join(f"{count} {name}" for name, count in self.coefficients)
        return (
            f"BodyModelData({self.family}: {self.num_vertices} vertices, {self.faces.shape[0]} faces, "
            f"{self.num_joints} joints, {counts}, {'with' if self.posedirs is not None else 'no'} pose correctives)"
        )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _freeze_arrays(self) -> None:
        names = ("v_template", "lbs_weights", "shapedirs", "posedirs", "J_regressor", "J_template", "J_shapedirs")
        arrays = {name: _as_array(name, getattr(self, name)) for name in names if getattr(self, name) is not None}
        for name in arrays:
            if arrays[name].dtype.kind not in "fiu":
                raise ValueError(
                    f"{name}: expected numbers, got dtype {arrays[name].dtype}; the file is not a body model"
                )
        dtype = np.result_type(np.float32, *(a.dtype for a in arrays.values() if a.dtype.kind == "f"))
        for name, array in arrays.items():
            self._set(name, _read_only(array, np.float32 if dtype == np.float32 else np.float64))
        faces = _as_array("faces", self.faces)
        if faces.size and faces.dtype.kind not in "iu":
            raise ValueError(f"faces: expected integers, got dtype {faces.dtype}; cast them to int64")
        self._set("faces", _read_only(faces, np.int64))
        self._set("vertex_ids", MappingProxyType({name: int(i) for name, i in self.vertex_ids.items()}))
        self._set("extras", MappingProxyType({name: _read_only(np.asarray(a)) for name, a in self.extras.items()}))
        anchors = {
            name: (_read_only(np.asarray(ids), np.int64), _read_only(np.asarray(weights), np.float64))
            for name, (ids, weights) in self.anchors.items()
        }
        self._set("anchors", MappingProxyType(anchors))

    def _check_shapes(self) -> None:
        row = self.table_row
        joints = row.skeleton.num_joints
        _expect("v_template", self.v_template, ("V", 3))
        vertices = self.num_vertices
        if vertices == 0:
            raise ValueError("v_template: expected at least one vertex, got (0, 3); the mesh is empty")
        _expect("faces", self.faces, ("F", 3))
        _expect("lbs_weights", self.lbs_weights, (vertices, joints))
        _expect("shapedirs", self.shapedirs, (vertices, 3, "S"))
        size = self.shapedirs.shape[2]
        if self.posedirs is not None:
            widths = (
                (row.feature_width, row.feature_width + 1) if row.pose_feature == "quaternion" else (row.feature_width,)
            )
            _expect("posedirs", self.posedirs, (vertices, 3, "P"))
            if self.posedirs.shape[2] not in widths:
                raise ValueError(
                    f"posedirs: expected (V, 3, {' or '.join(map(str, widths))}) for {self.family}, "
                    f"got {self.posedirs.shape}; check the family"
                )
            if self.posedirs.shape[2] > row.feature_width and dict(self.coefficients).get("betas", 0) < 2:
                raise ValueError(
                    "shapedirs: expected at least 2 betas, got fewer; the last corrective is driven by betas[1]"
                )
        if self.J_regressor is not None:
            _expect("J_regressor", self.J_regressor, (joints, vertices))
        elif self.J_template is None or self.J_shapedirs is None:
            raise ValueError("J_regressor: expected (J, V), got None; give J_regressor, or J_template and J_shapedirs")
        if self.J_template is not None:
            _expect("J_template", self.J_template, (joints, 3))
        if self.J_shapedirs is not None:
            _expect("J_shapedirs", self.J_shapedirs, (joints, 3, size))
        names, counts = [name for name, _ in self.coefficients], [count for _, count in self.coefficients]
        if sum(counts) != size or min(counts) < 0 or len(set(names)) < len(names) or not set(names) <= set(ARGUMENTS):
            raise ValueError(
                f"coefficients: expected pairs of {', '.join(ARGUMENTS)} and counts that add up to S = {size}, "
                f"got {self.coefficients}; give each argument its number of shape directions"
            )

    def _check_values(self) -> None:
        for name in ("v_template", "lbs_weights", "shapedirs", "posedirs", "J_regressor", "J_template", "J_shapedirs"):
            array = getattr(self, name)
            if array is not None and not np.isfinite(array).all():
                raise ValueError(f"{name}: expected finite numbers, got NaN or infinity; the file is damaged")
        if self.faces.size and not (0 <= self.faces.min() and self.faces.max() < self.num_vertices):
            raise ValueError(
                f"faces: expected indices 0 to {self.num_vertices - 1}, "
                f"got {self.faces.min()} to {self.faces.max()}; indices count from 0"
            )
        for name in ("lbs_weights", "J_regressor"):
            array = getattr(self, name)
            if array is not None:
                worst = float(np.abs(array.sum(axis=1, dtype=np.float64) - 1).max())
                if worst > ROW_SUM_TOLERANCE:
                    raise ValueError(
                        f"{name}: expected rows that sum to 1, got sums off by {worst:.3g}; the file is damaged"
                    )
        if self.lbs_weights.min() < -ROW_SUM_TOLERANCE:
            raise ValueError(
                f"lbs_weights: expected weights >= 0, got {self.lbs_weights.min():.3g}; the file is damaged"
            )

    def _derive_joint_bases(self) -> None:
        if self.J_regressor is None:
            return
        dtype = self.v_template.dtype
        regressor = self.J_regressor.astype(np.float64)
        if self.J_template is None:
            self._set("J_template", _read_only(regressor @ self.v_template.astype(np.float64), dtype))
        if self.J_shapedirs is None:
            flat = self.shapedirs.reshape(self.num_vertices, -1).astype(np.float64)
            shape = (self.num_joints, *self.shapedirs.shape[1:])
            self._set("J_shapedirs", _read_only((regressor @ flat).reshape(shape), dtype))

    def _check_names(self) -> None:
        for name, index in self.vertex_ids.items():
            if not 0 <= index < self.num_vertices:
                raise ValueError(
                    f"vertex_ids: expected {name} in 0 to {self.num_vertices - 1}, got {index}; check the id"
                )
        for name, (ids, weights) in self.anchors.items():
            fits = ids.ndim == 1 and ids.shape == weights.shape and ids.size > 0
            if not fits or ids.min() < 0 or ids.max() >= self.num_vertices:
                raise ValueError(
                    f"anchors: expected (n,) ids on the mesh and (n,) weights for {name}, "
                    f"got {ids.shape}, {weights.shape}; check the anchor"
                )


def _construct(values: dict[str, Any]) -> BodyModelData:
    return BodyModelData(**values)


def _as_array(name: str, value: object) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype == object:
        raise ValueError(f"{name}: expected a numeric array, got Python objects; convert it with numpy.asarray")
    return array


def _read_only(array: np.ndarray, dtype: Any = None) -> np.ndarray:
    copy = np.array(array, dtype=dtype, order="C")
    copy.setflags(write=False)
    return copy


def _expect(name: str, array: np.ndarray, shape: tuple[int | str, ...]) -> None:
    fits = array.ndim == len(shape) and all(
        isinstance(want, str) or got == want for got, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        expected = ", ".join(map(str, shape))
        raise ValueError(f"{name}: expected ({expected}), got {array.shape}; the array does not belong to this model")
