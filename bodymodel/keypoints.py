"""Regress the keypoints of a named set from the joints and a few vertices of a posed body."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..geometry.checks import expect_shape
from .data import BodyModelData
from .keypoint_recipes import REGRESSOR_ROWS, Recipe, recipe_of_joint, recipe_of_point
from .keypoint_sets import KeypointSet, keypoint_set


class KeypointRegressor(nn.Module):
    """The keypoints of a named set as fixed linear combinations of joints and vertices.

    Without `regressor`, each keypoint is made from what the body offers, the first of these that it has: an anchor of
    `data.anchors`, a named vertex of `data.vertex_ids` or of the official meshes (6890 and 10475 vertices), a face
    landmark, joints by name. A keypoint that cannot be made is zero and `valid` is false there. Sets of a family's
    joints (smpl24, smplh52, smplx55, mano16, flame5) are the model's joints themselves.

    A regressor file takes the place of that for the points it has. Its row order is never guessed, because the rows of
    the usual Human3.6M file are left leg first while `h36m17` is right leg first: taken in order, they would exchange
    the legs and no error would show it.

    Args:
        name: the set, such as "coco17"; `KEYPOINT_SETS` lists them.
        data: the body.
        regressor: (R, V) array, or the path of an .npy file with one, that maps posed vertices to points. When None,
            the `cocoplus_regressor` of an HMR model file is used for "hmr19" and "lsp14".
        regressor_rows: what the rows are, needed with `regressor`: "h36m" (the 17 rows of J_regressor_h36m.npy),
            "cocoplus" (HMR's 19), "spin_extra" (the 9 of J_regressor_extra.npy), "set" (the set's keypoints in order),
            or one keypoint of the set a row, by the set's names. A row of zeros stands for a point it does not have.
        dtype: floating type of the weights; the points must have the same.
        device: where the weights live.

    Attributes:
        name: the set's name.
        keypoint_set: the set, with its flip and bones.
        names: what the set calls its K keypoints, in order.
        vertex_ids: (n,) distinct vertices that are needed, ascending.
        vertex_weights: (K, n).
        joint_weights: (K, J).
        valid: (K,) whether this body has the keypoint.

    Raises:
        ValueError: an unknown set, a set of which the body has no point, a regressor of the wrong shape or with NaN, or
            one without `regressor_rows`.
        FileNotFoundError: no file at the path given.
        TypeError: `data` is not the data of a model.

    Example:
        >>> from physique.bodymodel import BodyModel, KeypointRegressor, synthetic_model
        >>> data = synthetic_model("smpl", num_vertices=60)
        >>> regressor = KeypointRegressor("h36m17", data)
        >>> BodyModel(data).keypoints(regressor).shape
        torch.Size([17, 3])
        >>> [name for name, has in zip(regressor.names, regressor.valid) if not has]  # a random body has no nose
        ['nose']
    """

    vertex_ids: Tensor
    vertex_weights: Tensor
    joint_weights: Tensor
    valid: Tensor

    def __init__(
        self,
        name: str,
        data: BodyModelData,
        *,
        regressor: np.ndarray | str | os.PathLike[str] | None = None,
        regressor_rows: str | Sequence[str] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        """Make the regressor; see the class for the arguments."""
        super().__init__()
        if not isinstance(data, BodyModelData):
            raise TypeError(f"data: expected BodyModelData, got {type(data).__name__}; give model.data")
        points = keypoint_set(name)
        if regressor is None and name in ("hmr19", "lsp14") and "cocoplus_regressor" in data.extras:
            regressor, regressor_rows = data.extras["cocoplus_regressor"], "cocoplus"
        rows = {} if regressor is None else _regressor_recipes(points, data, regressor, regressor_rows)
        make, keys = (recipe_of_point, points.keypoints) if points.joints is None else (recipe_of_joint, points.joints)
        recipes = [rows.get(point) or make(key, data) for point, key in zip(points.keypoints, keys, strict=True)]
        if not any(recipes):
            raise ValueError(
                f"name: expected a keypoint set that a {data.family} body has, got {name!r}, of which it has no point; "
                "choose another set"
            )
        self.keypoint_set = points
        used = sorted({index for recipe in recipes if recipe for kind, index in recipe if kind == "vertex"})
        columns = {"vertex": {vertex: column for column, vertex in enumerate(used)}, "joint": range(data.num_joints)}
        weights = {kind: np.zeros((len(points), len(columns[kind]))) for kind in columns}
        for row, recipe in enumerate(recipes):
            for (kind, index), weight in (recipe or {}).items():
                weights[kind][row, columns[kind][index]] = weight
        self.register_buffer("vertex_ids", torch.tensor(used, dtype=torch.int64, device=device), persistent=False)
        self.register_buffer(
            "valid", torch.tensor([bool(recipe) for recipe in recipes], device=device), persistent=False
        )
        for kind, values in weights.items():
            self.register_buffer(f"{kind}_weights", torch.tensor(values, dtype=dtype, device=device), persistent=False)

    @property
    def name(self) -> str:
        """The set's name."""
        return self.keypoint_set.name

    @property
    def names(self) -> tuple[str, ...]:
        """What the set calls its keypoints, in order."""
        return self.keypoint_set.names

    def extra_repr(self) -> str:
        """Describe the regressor in `print(regressor)`."""
        made, count = int(self.valid.sum()), len(self.names)
        return f"{self.name}: {made} of {count} keypoints, from {len(self.vertex_ids)} vertices and the joints"

    def forward(
        self, joints: Float[Tensor, "*#batch J 3"], vertices: Float[Tensor, "*#batch n 3"]
    ) -> Float[Tensor, "*batch K 3"]:
        """Return the keypoints of posed bodies.

        Args:
            joints: (*B, J, 3) the model's joints.
            vertices: (*B, n, 3) the vertices `vertex_ids`, in that order, and no others.

        Returns:
            (*B, K, 3) in the unit and frame of the input; zero where `valid` is false.

        Raises:
            ValueError: shapes that do not fit.
            TypeError: another floating type than the regressor's.
        """
        expect_shape("joints", joints, self.joint_weights.shape[1], 3)
        expect_shape("vertices", vertices, self.vertex_weights.shape[1], 3, advice="give vertices[..., vertex_ids, :]")
        for name, value in (("joints", joints), ("vertices", vertices)):
            if value.dtype != self.joint_weights.dtype:
                expected = self.joint_weights.dtype
                raise TypeError(f"{name}: expected {expected}, got {value.dtype}; use regressor.to({value.dtype})")
        kind = joints.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            # Half precision would lose centimetres: autocast stays out, as it does in the body model.
            with torch.autocast(kind, enabled=False):
                return self.joint_weights @ joints + self.vertex_weights @ vertices
        return self.joint_weights @ joints + self.vertex_weights @ vertices


def _regressor_recipes(
    points: KeypointSet,
    data: BodyModelData,
    regressor: np.ndarray | str | os.PathLike[str],
    regressor_rows: str | Sequence[str] | None,
) -> dict[str, Recipe]:
    """Return the recipe of each point of the set that the regressor has a row for."""
    labels = _row_labels(points, regressor_rows)
    matrix, source = _read_matrix(regressor)
    expected = (len(labels), data.num_vertices)
    if matrix.shape != expected:
        raise ValueError(
            f"{source}: expected {expected} for regressor_rows={regressor_rows!r} and this mesh, got {matrix.shape}; "
            "the regressor belongs to another mesh or has other rows"
        )
    if not np.isfinite(matrix).all():
        raise ValueError(f"{source}: expected finite numbers, got NaN or infinity; the file is damaged")
    recipes: dict[str, Recipe] = {}
    for row, label in zip(matrix, labels, strict=True):
        for point in label.split("|"):
            if point in points.keypoints:
                recipes[point] = {("vertex", int(i)): float(row[i]) for i in np.flatnonzero(row)}
    if not recipes:
        raise ValueError(
            f"regressor_rows: expected rows that {points.name} has, got {regressor_rows!r}; choose another set"
        )
    return recipes


def _row_labels(points: KeypointSet, regressor_rows: str | Sequence[str] | None) -> tuple[str, ...]:
    if regressor_rows == "set":
        return points.keypoints
    if isinstance(regressor_rows, str) and regressor_rows in REGRESSOR_ROWS:
        return REGRESSOR_ROWS[regressor_rows]
    if regressor_rows is None or isinstance(regressor_rows, str):
        listed = ", ".join(map(repr, REGRESSOR_ROWS))
        raise ValueError(
            f"regressor_rows: expected {listed}, 'set' or a name a row, got {regressor_rows!r}; say what the rows are, "
            "because J_regressor_h36m.npy is left leg first and h36m17 is right leg first"
        )
    return tuple(points.keypoints[points.index(name)] for name in regressor_rows)


def _read_matrix(regressor: np.ndarray | str | os.PathLike[str]) -> tuple[np.ndarray, str]:
    """Return the matrix, and what to call it in an error."""
    if isinstance(regressor, (str, os.PathLike)):
        path = Path(regressor)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: expected an .npy file with a regressor, got no file; check the path")
        try:
            # Mapped, not read: a damaged header cannot make us allocate more than the file holds.
            loaded, source = np.load(path, mmap_mode="r", allow_pickle=False), str(path)
        except (ValueError, OSError, EOFError, SyntaxError) as error:
            raise ValueError(f"{path}: expected an .npy file with one numeric array; {error}") from None
    else:
        loaded, source = regressor, "regressor"
    if isinstance(loaded, np.lib.npyio.NpzFile):
        loaded.close()
        raise ValueError(
            f"{source}: expected an .npy file with one numeric array, got an archive; save the array alone"
        )
    matrix = np.asarray(loaded)
    if matrix.dtype.kind not in "fiu":
        raise ValueError(
            f"{source}: expected a numeric (R, V) array, got dtype {matrix.dtype}; use .toarray() if it is sparse"
        )
    return matrix.astype(np.float64), source
