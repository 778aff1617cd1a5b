"""Map DensePose coordinates (part I, U, V) to points on a body model's mesh, and back."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from ..geometry.checks import broadcast_batches, expect_shape, expect_values
from .data import BodyModelData
from .outputs import SurfacePoints
from .surface_files import (
    FIELDS,
    densepose_atlas_arrays,
    load_atlas_arrays,
    save_atlas_arrays,
)
from .surface_lookup import Grid, build_grid, closest_weights, nearest_triangle
from .surface_parts import MIRROR_PART, NUM_PARTS


@dataclass(frozen=True, eq=False)
class SurfaceAtlas:
    """24 charts over a mesh: each face is a triangle of one part's (U, V) plane.

    Made by `open_body_atlas`, `SurfaceAtlas.from_densepose` or `SurfaceAtlas.load`. Arrays are NumPy, read-only, and
    everything is checked when the object is made.

    Attributes:
        faces: (A,) the model's face of each triangle; each at most once. Faces that are not listed have no chart.
        part: (A,) DensePose's part I of each triangle, 1 to 24.
        uv: (A, 3, 2) in [0, 1], in the order of the model face's corners.
        num_faces: number of faces F of the model.
        mirrored: the charts of left and right are mirror images: (U, V) on one side is (1 − U, V) on the other.
        symmetry: (24, R, C, 2) tables instead of that: the flipped (U, V) of part I at row V·(R − 1), column U·(C − 1).

    Raises:
        ValueError: any shape, index or value that does not fit; the text names the array.

    Example:
        >>> from physique.bodymodel import open_body_atlas
        >>> atlas = open_body_atlas("low")
        >>> points = atlas.to_surface(torch.tensor([2, 24]), torch.tensor([[0.5, 0.5], [0.3, 0.9]]))
        >>> part, uv = atlas.from_surface(points)
        >>> part.tolist(), uv.round(decimals=4).tolist()
        ([2, 24], [[0.5, 0.5], [0.30000001192092896, 0.8999999761581421]])
    """

    faces: np.ndarray
    part: np.ndarray
    uv: np.ndarray
    num_faces: int
    mirrored: bool = False
    symmetry: np.ndarray | None = None
    _row_of_face: np.ndarray = field(init=False, repr=False)
    _has_part: np.ndarray = field(init=False, repr=False)
    _tensors: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, kind, dtype in (("faces", "iu", np.int64), ("part", "iu", np.int64), ("uv", "fiu", np.float64)):
            array = np.asarray(getattr(self, name))
            if array.dtype.kind not in kind:
                expected = "integers" if kind == "iu" else "numbers"
                raise ValueError(f"{name}: expected {expected}, got dtype {array.dtype}; the array is another one")
            object.__setattr__(self, name, _read_only(array.astype(dtype)))
        if self.symmetry is not None:
            object.__setattr__(self, "symmetry", _read_only(np.array(self.symmetry, dtype=np.float64)))
        object.__setattr__(self, "num_faces", int(self.num_faces))
        object.__setattr__(self, "mirrored", bool(self.mirrored))
        self._check()
        rows = np.full(self.num_faces, -1)
        rows[self.faces] = np.arange(len(self.faces))
        object.__setattr__(self, "_row_of_face", rows)
        object.__setattr__(self, "_has_part", np.isin(np.arange(NUM_PARTS + 1), self.part))

    @classmethod
    def from_densepose(
        cls,
        path: str | os.PathLike[str],
        data: BodyModelData,
        *,
        symmetry: str | os.PathLike[str] | None = None,
    ) -> SurfaceAtlas:
        """Read DensePose's own charts of the SMPL mesh, from the files that its authors give.

        The triangles of UV_Processed.mat are matched with the model's faces by their vertices. It lacks two of SMPL's
        13,776 faces (on the big toes); those get no chart.

        Args:
            path: UV_Processed.mat.
            data: a model with SMPL's mesh (SMPL, SMPL-H).
            symmetry: UV_symmetry_transforms.mat, needed only for `flip`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file that is damaged, hostile or another one, or a model with another mesh; the text names the
                file. No code of a file is ever run.

        Source: DensePose (Güler, Neverova, Kokkinos 2018).
        """
        return cls(**densepose_atlas_arrays(path, data, symmetry), num_faces=len(data.faces))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SurfaceAtlas:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file that is damaged or another one; the text names the file.
        """
        arrays = load_atlas_arrays(path)
        try:
            return cls(**arrays)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the atlas as .npz, complete or not at all.

        Raises:
            ValueError: a name that does not end in .npz.
            FileNotFoundError: the folder is not there.
        """
        save_atlas_arrays(path, {name: getattr(self, name) for name in FIELDS})

    def to_surface(self, part: Integer[Tensor, "*#batch N"], uv: Float[Tensor, "*#batch N 2"]) -> SurfacePoints:
        """Return the surface points at (I, U, V).

        Where no triangle of the part contains (U, V), the nearest point of the part in the (U, V) plane is taken;
        U and V outside [0, 1] are first clamped to it. What `covers` denies (background, a part that the atlas lacks,
        NaN) becomes face 0 with all three weights 0, so that the weights' sum, 1 or 0, serves as the mask.

        Args:
            part: (*B, N) integers, 0 for background.
            uv: (*B, N, 2).

        Returns:
            faces (*B, N) and barycentric (*B, N, 3), in the type of `uv`; the weights are differentiable in `uv`.

        Raises:
            TypeError: `part` does not hold integers.
        """
        _expect_integers(part)
        batch = broadcast_batches({"part": part.shape[:-1], "uv": expect_shape("uv", uv, part.shape[-1], 2)})
        shape = (*batch, part.shape[-1])
        covered = self.covers(part, uv).expand(shape).reshape(-1)
        # what is not covered takes part in the search as some part's corner
        chart = torch.where(covered, part.expand(shape).reshape(-1).long() - 1, int(self.part[0]) - 1)
        points = torch.where(covered.unsqueeze(-1), uv.expand(*shape, 2).reshape(-1, 2), 0).clamp(0, 1)
        points = points.to(torch.promote_types(uv.dtype, torch.float32))
        grid = self._grid(points)
        row = nearest_triangle(grid, chart, points.detach())
        weights = closest_weights(points, grid.triangles[row]) * covered.unsqueeze(-1)
        faces = self._tensor("faces", row.device)[row] * covered
        return SurfacePoints(faces.reshape(shape), weights.to(uv.dtype).reshape(*shape, 3))

    def from_surface(self, surface: SurfacePoints) -> tuple[Int[Tensor, "*batch N"], Float[Tensor, "*batch N 2"]]:
        """Return the part (*B, N) and the (U, V) (*B, N, 2) of surface points; part 0 and (0, 0) where no chart is.

        On a seam between parts, or where a chart is cut open, a point has several names; its face decides.
        """
        weights = surface.barycentric
        expect_shape("surface.barycentric", weights, surface.faces.shape[-1], 3)
        expect_values(
            "surface.faces",
            surface.faces,
            lambda faces: (faces >= 0) & (faces < self.num_faces),
            f"indices 0 to {self.num_faces - 1}",
            "the points belong to another model",
        )
        rows = self._tensor("_row_of_face", weights.device)[surface.faces]
        charted = rows >= 0
        part = self._tensor("part", weights.device)[rows] * charted
        corners = self._tensor("uv", weights.device, weights.dtype)[rows] * charted[..., None, None]
        return part, (corners * weights.unsqueeze(-1)).sum(-2)

    def covers(self, part: Integer[Tensor, "*#batch N"], uv: Float[Tensor, "*#batch N 2"]) -> Bool[Tensor, "*batch N"]:
        """Return whether the atlas has the part and (U, V) is finite."""
        known = self._tensor("_has_part", part.device, torch.bool)
        in_range = (part >= 0) & (part <= NUM_PARTS)
        return known[torch.where(in_range, part, 0).long()] & torch.isfinite(uv).all(-1)

    def flip(
        self, part: Integer[Tensor, "*#batch N"], uv: Float[Tensor, "*#batch N 2"]
    ) -> tuple[Integer[Tensor, "*batch N"], Float[Tensor, "*batch N 2"]]:
        """Return the part and (U, V) of the mirrored body, as for a flipped image; background stays as it is.

        Exact, and its own inverse, where `mirrored`. DensePose's tables hold one value for each of 256 × 256 places;
        the place is found by rounding down, as its own code does, so there the result is right to about 1/255.

        Raises:
            TypeError: `part` does not hold integers.
            ValueError: the atlas was read without tables; or, inside `check_values`, a part beyond 0 to 24.
        """
        _expect_integers(part)
        batch = broadcast_batches({"part": part.shape[:-1], "uv": expect_shape("uv", uv, part.shape[-1], 2)})
        in_range = (part >= 0) & (part <= NUM_PARTS)
        expect_values("part", part, lambda _: in_range, "0 to 24", "0 is background")
        part, uv = part.expand(*batch, part.shape[-1]), uv.expand(*batch, *uv.shape[-2:])
        index = torch.where(in_range, part, 0).long()
        if self.mirrored:
            flipped = torch.stack([1 - uv[..., 0], uv[..., 1]], -1)
        elif self.symmetry is not None:
            rows, columns = self.symmetry.shape[1:3]
            u, v = torch.nan_to_num(uv.detach()).clamp(0, 1).unbind(-1)
            place = ((index - 1).clamp(min=0) * rows + (v * (rows - 1)).long()) * columns + (u * (columns - 1)).long()
            flipped = self._tensor("symmetry", uv.device, uv.dtype).reshape(-1, 2)[place]
        else:
            raise ValueError(
                "symmetry: expected tables, got None; give from_densepose the path of UV_symmetry_transforms.mat"
            )
        other = torch.tensor(MIRROR_PART, device=part.device, dtype=part.dtype)[index]
        return torch.where(in_range, other, part), torch.where((index > 0).unsqueeze(-1), flipped, uv)

    def __deepcopy__(self, memo: dict[int, Any]) -> SurfaceAtlas:
        """Return itself: nothing in it can change."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the constructor call, so that what is unpickled is validated and read-only again."""
        return SurfaceAtlas, (self.faces, self.part, self.uv, self.num_faces, self.mirrored, self.symmetry)

    def __repr__(self) -> str:
        flips = "mirrored" if self.mirrored else "with flip tables" if self.symmetry is not None else "without flip"
        return f"SurfaceAtlas({len(np.unique(self.part))} parts, {len(self.faces)} of {self.num_faces} faces, {flips})"

    def _grid(self, like: Tensor) -> Grid:
        """Return the search grid beside `like`; it is built at first use and kept."""
        if "grid" not in self._tensors:
            self._tensors["grid"] = build_grid(self.part - 1, self.uv, NUM_PARTS)
        key = ("grid", like.device, like.dtype)
        if key not in self._tensors:
            self._tensors[key] = self._tensors["grid"].to(like)
        return self._tensors[key]

    def _tensor(self, name: str, device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
        """Return an attribute as a tensor; made at first use and kept."""
        key = (name, device, dtype)
        if key not in self._tensors:
            self._tensors[key] = torch.tensor(getattr(self, name), dtype=dtype, device=device)
        return self._tensors[key]

    def _check(self) -> None:
        count = len(self.faces) if self.faces.ndim == 1 else 0
        for name, shape in (("faces", (count,)), ("part", (count,)), ("uv", (count, 3, 2))):
            array = getattr(self, name)
            if array.shape != shape or count == 0:
                raise ValueError(f"{name}: expected {shape}, got {array.shape}; give one entry for each charted face")
        if self.faces.min() < 0 or self.faces.max() >= self.num_faces or len(np.unique(self.faces)) != count:
            raise ValueError(
                f"faces: expected different indices 0 to {self.num_faces - 1}, got {self.faces.min()} to "
                f"{self.faces.max()}, {len(np.unique(self.faces))} of {count} different; the atlas is of another model"
            )
        if self.part.min() < 1 or self.part.max() > NUM_PARTS:
            raise ValueError(f"part: expected 1 to 24, got {self.part.min()} to {self.part.max()}; 0 is background")
        if not (self.uv.min() >= 0 and self.uv.max() <= 1):
            raise ValueError(f"uv: expected values 0 to 1, got {self.uv.min()} to {self.uv.max()}; divide by 255")
        if self.symmetry is not None:
            shape = self.symmetry.shape
            if len(shape) != 4 or shape[0] != NUM_PARTS or shape[3] != 2 or min(shape) < 1:
                raise ValueError(f"symmetry: expected (24, R, C, 2), got {shape}; stack U and V last")
            if not np.isfinite(self.symmetry).all():
                raise ValueError("symmetry: expected finite numbers, got NaN or infinity; the table is damaged")


def _expect_integers(part: Tensor) -> None:
    if part.is_floating_point() or part.dtype == torch.bool:
        raise TypeError(f"part: expected integers, got {part.dtype}; use part.long()")


def _read_only(array: np.ndarray) -> np.ndarray:
    copy = np.array(array, order="C")
    copy.setflags(write=False)
    return copy
