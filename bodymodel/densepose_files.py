"""Read dense correspondences of people: COCO DensePose annotations and IUV images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from .coco_masks import decode_mask
from .json_files import read_json, refuse_file

_LISTS = ("dp_I", "dp_U", "dp_V", "dp_x", "dp_y")
_NUM_MASKS = 14


class DensePoints(NamedTuple):
    """Pixels and what they show of the body's surface.

    Attributes:
        part: (*B, N) DensePose's part I, 1 to 24; 0 where there is no point.
        uv: (*B, N, 2) coordinates on the part, 0 to 1.
        pixels: (*B, N, 2) x right, y down.
    """

    part: Int[Tensor, "*batch N"]
    uv: Float[Tensor, "*batch N 2"]
    pixels: Float[Tensor, "*batch N 2"]


@dataclass(frozen=True, eq=False)
class DensePosePerson:
    """One person of a DensePose annotation file.

    Attributes:
        points: N annotated points.
        box: (4,) x, y of the corner, width, height in pixels.
        mask: (H, W) coarse part 0 to 14 (`COARSE_PART` gives it for each part), spread over the box; None if not given.
        image_id: the image, where the file tells.
        annotation_id: the annotation, where the file tells.
    """

    points: DensePoints
    box: Float[Tensor, " 4"]
    mask: UInt8[Tensor, "H W"] | None
    image_id: int | str | None
    annotation_id: int | str | None


def load_densepose(
    path: str | os.PathLike[str],
    *,
    convention: Literal[255, 256] = 255,
    dtype: torch.dtype = torch.float32,
) -> tuple[DensePosePerson, ...]:
    """Read the people of a COCO DensePose annotation file.

    Entries without `dp_I` are left out. `dp_x` and `dp_y` count on a grid laid over the person's box:
    pixel = corner + dp / convention · size.

    Args:
        path: the .json file: a dictionary with `annotations`, or the list alone.
        convention: 255 as the data set's own tools read it; 256 as some training code does.
        dtype: floating type of the result.

    Returns:
        The people, in the file's order.

    Raises:
        FileNotFoundError: no file at `path`.
        ValueError: not JSON, no such annotations, lists of different lengths, parts other than 0 to 24, numbers that
            are not finite, or damaged masks; the text names the file and the annotation.

    Source: DensePose-COCO (Güler, Neverova, Kokkinos 2018).

    Example:
        >>> import json, tempfile, pathlib
        >>> from physique.bodymodel import load_densepose
        >>> person = {"bbox": [10, 20, 51, 102], "dp_x": [50], "dp_y": [100]}
        >>> person |= {"dp_I": [2.0], "dp_U": [0.4], "dp_V": [0.6]}
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "people.json"
        >>> _ = path.write_text(json.dumps({"annotations": [person]}))
        >>> load_densepose(path)[0].points.pixels
        tensor([[20., 60.]])
    """
    if convention not in (255, 256):
        raise ValueError(f"convention: expected 255 or 256, got {convention!r}; 255 is the data set's own")
    path = Path(path)
    content = read_json(path)
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        refuse_file(path, "a list of dictionaries, or one in 'annotations'", type(content).__name__, "check the file")
    people = []
    for entry in entries:
        if "dp_I" not in entry:
            continue
        try:
            people.append(_person(entry, convention, dtype))
        except ValueError as error:
            raise ValueError(f"{path}: annotation {entry.get('id', '?')!r:.40}: {error}") from None
    if entries and not people:
        refuse_file(path, "'dp_I' in the entries", "none", "choose the densepose_coco file")
    return tuple(people)


def iuv_image_to_points(
    iuv: np.ndarray | Tensor,
    *,
    box: Sequence[float | int] | None = None,
    stride: int = 1,
    count: int | None = None,
    seed: int = 0,
    channels: Literal["IUV", "VUI"] = "IUV",
    uv_max: float = 255.0,
    dtype: torch.dtype = torch.float32,
) -> DensePoints:
    """Take correspondences from an IUV image: part in one channel, U and V times 255 in the others.

    Args:
        iuv: (H, W, 3) image of one person.
        box: x, y of the corner, width and height of what the image shows, in pixels of the whole picture. Default: the
            image is the whole picture.
        stride: take every so many rows and columns.
        count: draw at most so many of these pixels, without repeats and in their order; default: all.
        seed: of the draw.
        channels: "IUV" for an image that OpenCV read (`cv2.imread`) and for network outputs; "VUI" for the same file
            read by Pillow, imageio or matplotlib, which turn the channels round.
        uv_max: the value of U and V that stands for 1: 255, or 1 for floating outputs.
        dtype: floating type of the result.

    Returns:
        N points with part 1 to 24. Pixels are continuous: the centre of the first is at (0.5, 0.5) of the image.

    Raises:
        ValueError: another shape, parts other than whole numbers 0 to 24, or U, V beyond 0 to `uv_max`.

    Example:
        >>> image = np.zeros((4, 4, 3), np.uint8)
        >>> image[1, 2] = 24, 51, 204
        >>> points = iuv_image_to_points(image)
        >>> points.part.tolist(), points.pixels.tolist()
        ([24], [[2.5, 1.5]])
    """
    array = np.asarray(iuv.detach().cpu() if isinstance(iuv, Tensor) else iuv)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind not in "iuf":
        raise ValueError(f"iuv: expected (H, W, 3) numbers, got {array.shape} {array.dtype}; give one image")
    if stride < 1 or (count is not None and count < 0):
        raise ValueError(f"stride: expected stride >= 1 and count >= 0, got {stride} and {count}; leave them out")
    if channels not in ("IUV", "VUI"):
        raise ValueError(f'channels: expected "IUV" or "VUI", got {channels!r}; OpenCV reads "IUV", Pillow "VUI"')
    taken = array[::stride, ::stride].astype(np.float64)
    taken = taken if channels == "IUV" else taken[..., ::-1]
    part, uv = taken[..., 0], taken[..., 1:] / uv_max
    if not ((part == np.rint(part)) & (part >= 0) & (part <= 24)).all():
        raise ValueError("iuv: expected parts 0 to 24 in the first channel, got others; try channels='VUI'")
    rows, columns = np.nonzero(part)
    if count is not None and count < len(rows):
        chosen = np.sort(np.random.default_rng(seed).choice(len(rows), count, replace=False))
        rows, columns = rows[chosen], columns[chosen]
    if not ((uv[rows, columns] >= 0) & (uv[rows, columns] <= 1)).all():
        raise ValueError(f"iuv: expected U and V from 0 to {uv_max}, got others; check uv_max")
    height, width = array.shape[:2]
    x, y, box_width, box_height = _box(box) if box is not None else np.array([0.0, 0.0, width, height])
    pixels = np.stack(
        [
            x + (stride * columns + 0.5) / max(width, 1) * box_width,
            y + (stride * rows + 0.5) / max(height, 1) * box_height,
        ],
        axis=-1,
    )
    return DensePoints(
        torch.from_numpy(part[rows, columns].astype(np.int64)),
        torch.from_numpy(uv[rows, columns]).to(dtype),
        torch.from_numpy(pixels).to(dtype),
    )


def stack_dense_points(people: Sequence[DensePoints]) -> DensePoints:
    """Put people with different numbers of points into one batch (P, N); part 0 fills up, so its weight is 0.

    Raises:
        ValueError: nobody to stack.
    """
    if not people:
        raise ValueError("people: expected at least one, got none; an empty batch has no number of points")
    longest = max(len(points.part) for points in people)

    def stack(name: str) -> Tensor:
        rows = [getattr(points, name) for points in people]
        return torch.stack([torch.cat([row, row.new_zeros(longest - len(row), *row.shape[1:])]) for row in rows])

    return DensePoints(stack("part"), stack("uv"), stack("pixels"))


def _person(entry: dict[str, Any], convention: int, dtype: torch.dtype) -> DensePosePerson:
    part, u, v, x, y = (_numbers(key, entry.get(key)) for key in _LISTS)
    if len({len(values) for values in (part, u, v, x, y)}) != 1:
        lengths = [len(values) for values in (part, u, v, x, y)]
        raise ValueError(f"dp_I: expected as many dp_I, dp_U, dp_V, dp_x, dp_y, got {lengths}; the file is damaged")
    if not ((part == np.rint(part)) & (part >= 0) & (part <= 24)).all():
        raise ValueError("dp_I: expected parts 0 to 24, got others; the file is damaged")
    box = _box(entry.get("bbox"))
    pixels = box[:2] + np.stack([x, y], axis=-1) / convention * box[2:]
    points = DensePoints(
        torch.from_numpy(part.astype(np.int64)),
        torch.from_numpy(np.stack([u, v], axis=-1)).to(dtype),
        torch.from_numpy(pixels).to(dtype),
    )
    image_id, annotation_id = (_name(entry.get(key)) for key in ("image_id", "id"))
    return DensePosePerson(
        points, torch.from_numpy(box).to(dtype), _mask(entry.get("dp_masks")), image_id, annotation_id
    )


def _mask(masks: Any) -> Tensor | None:
    """Return the coarse parts as one image; where masks overlap the later part wins, as in the data set's tools."""
    if masks is None:
        return None
    if not isinstance(masks, list) or len(masks) > _NUM_MASKS:
        raise ValueError(f"dp_masks: expected a list of {_NUM_MASKS} masks, got another; the file is damaged")
    image: np.ndarray | None = None
    for number, mask in enumerate(masks, start=1):
        if not mask:
            continue
        if not isinstance(mask, dict):
            raise ValueError(f"dp_masks: expected run-length masks, got {type(mask).__name__}; the file is damaged")
        try:
            decoded = decode_mask(mask)
        except ValueError as error:
            raise ValueError(f"dp_masks: {error}") from None
        image = np.zeros(decoded.shape, np.uint8) if image is None else image
        if image.shape != decoded.shape:
            raise ValueError(f"dp_masks: expected one size, got {image.shape} and {decoded.shape}; the file is damaged")
        image[decoded] = number
    return None if image is None else torch.from_numpy(image)


def _box(value: Any) -> np.ndarray:
    box = _numbers("bbox", list(value) if isinstance(value, Sequence | np.ndarray) else value)
    if len(box) != 4 or (box[2:] < 0).any():
        raise ValueError(f"bbox: expected x, y, width, height, got {len(box)} numbers {box[:4]}; check the box")
    return box


def _numbers(key: str, value: Any) -> np.ndarray:
    if not isinstance(value, list) or not all(
        isinstance(item, int | float | np.number) and not isinstance(item, bool) for item in value
    ):
        raise ValueError(f"{key}: expected a list of numbers, got {type(value).__name__}; the file is damaged")
    try:
        array = np.array([float(item) for item in value])
    except OverflowError:
        array = np.array([np.inf])
    if not np.isfinite(array).all():
        raise ValueError(f"{key}: expected finite numbers, got others; the file is damaged")
    return array


def _name(value: Any) -> int | str | None:
    return value if isinstance(value, int | str) else None
