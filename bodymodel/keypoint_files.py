"""Read 2D keypoints of people from the JSON files of OpenPose and COCO."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from .convert import convert_keypoints, source_indices
from .json_files import read_json, refuse_file
from .keypoint_sets import keypoint_set

_OPENPOSE_SETS = {25: "openpose25", 18: "openpose18", 15: "openpose15"}
_COCO_SETS = {17: "coco17", 133: "coco_wholebody133"}
_WHOLE_BODY_PARTS = (("foot_kpts", 6), ("face_kpts", 68), ("lefthand_kpts", 21), ("righthand_kpts", 21))


@dataclass(frozen=True, eq=False)
class Keypoints2D:
    """The 2D keypoints of P people.

    Attributes:
        points: (P, K, 2) pixels, x right and y down; (0, 0) where missing.
        confidence: (P, K) from 0 (missing) to 1.
        keypoint_set: name of the set that the K keypoints are in.
        image_ids: the image of each person, where the file tells; else None.
        image_sizes: (P, 2) width and height of each person's image in pixels, 0 where unknown; else None.
        boxes: (P, 4) x, y of the corner, width, height in pixels, 0 where unknown; else None.
        scores: (P,) a detector's score of each person; else None.
    """

    points: Float[Tensor, "P K 2"]
    confidence: Float[Tensor, "P K"]
    keypoint_set: str
    image_ids: tuple[int | str, ...] | None = None
    image_sizes: Float[Tensor, "P 2"] | None = None
    boxes: Float[Tensor, "P 4"] | None = None
    scores: Float[Tensor, " P"] | None = None

    def __len__(self) -> int:
        """Return the number of people P."""
        return self.points.shape[0]

    def convert(self, target: str, *, approximate: bool = False) -> Keypoints2D:
        """Return the people in another keypoint set, with confidence 0 where it has a point that this one lacks.

        As `convert_keypoints`; a midpoint has the lower confidence of its two ends, so it is missing where either is.
        """
        points, mask = convert_keypoints(self.points, self.keypoint_set, target, approximate=approximate)
        pairs = source_indices(self.keypoint_set, target, approximate=approximate)
        ids = torch.tensor([pair or (0, 0) for pair in pairs], device=self.points.device)
        confidence = torch.minimum(self.confidence[:, ids[:, 0]], self.confidence[:, ids[:, 1]]) * mask
        points = torch.where((confidence > 0).unsqueeze(-1), points, torch.zeros_like(points))
        return Keypoints2D(points, confidence, target, self.image_ids, self.image_sizes, self.boxes, self.scores)


def load_keypoints(
    path: str | os.PathLike[str],
    *,
    keypoint_set: str | None = None,
    occluded: float = 0.5,
    dtype: torch.dtype = torch.float32,
) -> Keypoints2D:
    """Read the people of an OpenPose or COCO keypoint file.

    - OpenPose, one file an image (key `pose_keypoints_2d`, `pose_keypoints` in version 1.0): BODY_25, COCO-18 or
      MPI-15 by the number of points. Confidence above 1 becomes 1. Face and hand arrays are left aside.
    - COCO annotations (a dictionary with `annotations`, and usually `images`, or the list alone): 17 keypoints, whose
      flag 0, 1, 2 becomes confidence 0, `occluded`, 1. Crowd regions are left out; a person without a single labelled
      keypoint stays, with confidence 0, so that people keep their places. Feet, face and hands of COCO-WholeBody
      (`foot_kpts`, ...) make it "coco_wholebody133".
    - COCO results (entries with `score`): 17 or 133 keypoints; the third number is a confidence.

    A file in which nobody was found gives no people (P = 0), of the kind's first set: "openpose25" or "coco17".

    Args:
        path: the .json file.
        keypoint_set: read the keypoints as this set, where the number of points alone would mislead: "openpose25b".
        occluded: confidence of a point that was annotated though hidden (flag 1).
        dtype: floating type of the result.

    Raises:
        FileNotFoundError: no file at `path`.
        ValueError: not JSON, neither format, or arrays of wrong length or with anything but finite numbers; the text
            names the file.

    Example:
        >>> import json, tempfile, pathlib
        >>> from physique.bodymodel import load_keypoints
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "frame.json"
        >>> _ = path.write_text(json.dumps({"version": 1.3, "people": [{"pose_keypoints_2d": [5.0, 6.0, 0.9] * 25}]}))
        >>> people = load_keypoints(path)
        >>> people.keypoint_set, people.points.shape
        ('openpose25', torch.Size([1, 25, 2]))
    """
    reader = _Reader(Path(path), keypoint_set, occluded, dtype)
    content = read_json(reader.path)
    if isinstance(content, dict) and "people" in content:
        return reader.openpose(content["people"])
    if isinstance(content, dict) and "annotations" in content:
        return reader.coco(content["annotations"], content.get("images", []))
    if isinstance(content, list):
        return reader.coco(content, [])
    reader.fail(
        "'people' (OpenPose), 'annotations' (COCO) or a list (COCO results)", _describe(content), "check the file"
    )


@dataclass(frozen=True)
class _Reader:
    """One reading of one file: carries the path for the errors."""

    path: Path
    keypoint_set: str | None
    occluded: float
    dtype: torch.dtype

    def fail(self, expected: str, got: str, advice: str) -> NoReturn:
        refuse_file(self.path, expected, got, advice)

    def openpose(self, people: Any) -> Keypoints2D:
        rows = []
        for person in self.list_of_dicts("people", people):
            key = next((key for key in ("pose_keypoints_2d", "pose_keypoints") if key in person), None)
            if key is None:
                self.fail("'pose_keypoints_2d' in every person", _describe(person), "write the body keypoints")
            rows.append(self.numbers(key, person[key]))
        triples = self.stack("pose_keypoints_2d", rows, _OPENPOSE_SETS)
        return self.result(triples, triples[..., 2], self.name_set(triples.shape[1], _OPENPOSE_SETS))

    def coco(self, annotations: Any, images: Any) -> Keypoints2D:
        entries = self.list_of_dicts("annotations", annotations)
        with_keypoints = [entry for entry in entries if "keypoints" in entry]
        if entries and not with_keypoints:
            self.fail("'keypoints' in the entries", _describe(entries[0]), "choose the person_keypoints file")
        people = [entry for entry in with_keypoints if not entry.get("iscrowd")]
        whole_body = any(key in entry for entry in people for key, _ in _WHOLE_BODY_PARTS)
        rows = [self.coco_numbers(entry, whole_body) for entry in people]
        triples = self.stack("keypoints", rows, _COCO_SETS)
        flagged = torch.tensor(["score" not in entry for entry in people], dtype=torch.bool).unsqueeze(-1)
        flags = triples[..., 2]
        if bool((flagged & (flags > 2)).any()):
            self.fail("flags 0, 1 or 2 in annotations", f"{flags[flagged.expand_as(flags)].max():g}", "check the file")
        confidence = torch.where(flagged & (flags < 2), flags.clamp(max=1) * self.occluded, flags)
        sizes = {}
        for image in self.list_of_dicts("images", images):
            sizes[_hashable(image.get("id"))] = [image.get("width", 0), image.get("height", 0)]
        ids = [_hashable(entry.get("image_id")) for entry in people]
        scores = [[entry.get("score", 1.0)] for entry in people]
        return self.result(
            triples,
            confidence,
            self.name_set(triples.shape[1], _COCO_SETS),
            image_ids=None if None in ids else tuple(ids),
            image_sizes=self.table("images", [sizes.get(i, [0, 0]) for i in ids], 2) if sizes else None,
            boxes=self.table("bbox", [entry.get("bbox", [0] * 4) for entry in people], 4)
            if any("bbox" in entry for entry in people)
            else None,
            scores=None if bool(flagged.all()) else self.table("score", scores, 1)[:, 0],
        )

    def coco_numbers(self, entry: dict[str, Any], whole_body: bool) -> list[float]:
        values = self.numbers("keypoints", entry["keypoints"])
        if whole_body and len(values) == 51:
            for key, count in _WHOLE_BODY_PARTS:
                part = self.numbers(key, entry.get(key, [0.0] * 3 * count))
                if len(part) != 3 * count:
                    self.fail(f"{3 * count} numbers in {key}", f"{len(part)}", "check the file")
                values = values + part
        return values

    def list_of_dicts(self, key: str, value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.fail(f"a list of dictionaries in '{key}'", _describe(value), "check the file")
        return value

    def numbers(self, key: str, value: Any) -> list[float]:
        if not isinstance(value, list) or not all(type(item) in (int, float) for item in value):
            self.fail(f"a list of numbers in '{key}'", _describe(value), "check the file")
        try:
            return [float(item) for item in value]
        except OverflowError:
            self.fail(f"finite numbers in '{key}'", "an integer too large", "the file is damaged")

    def stack(self, key: str, rows: Sequence[list[float]], sets: dict[int, str]) -> Tensor:
        """Return (P, K, 3)."""
        counts = [len(keypoint_set(self.keypoint_set))] if self.keypoint_set is not None else list(sets)
        lengths = {len(row) for row in rows} or {3 * counts[0]}
        if len(lengths) != 1 or not lengths <= {3 * count for count in counts}:
            listed = " or ".join(str(3 * count) for count in counts)
            got = ", ".join(map(str, sorted(lengths)))
            self.fail(
                f"{listed} numbers in '{key}' of every person", got, "use one of these layouts (x, y, confidence)"
            )
        width = lengths.pop()
        return self.table(key, rows, width).unflatten(-1, (width // 3, 3))

    def name_set(self, count: int, sets: dict[int, str]) -> str:
        return self.keypoint_set if self.keypoint_set is not None else sets[count]

    def table(self, key: str, rows: Sequence[Any], width: int) -> Tensor:
        lists = [self.numbers(key, row) for row in rows]
        if any(len(row) != width for row in lists):
            self.fail(
                f"{width} numbers in '{key}'",
                f"{[len(row) for row in lists if len(row) != width][0]}",
                "check the file",
            )
        values = torch.tensor(lists, dtype=torch.float64).reshape(-1, width).to(self.dtype)
        if not bool(torch.isfinite(values).all()):
            self.fail(f"finite numbers in '{key}'", "NaN or infinity", "the file is damaged")
        return values

    def result(self, triples: Tensor, confidence: Tensor, name: str, **more: Any) -> Keypoints2D:
        confidence = confidence.clamp(0, 1)
        points = torch.where((confidence > 0).unsqueeze(-1), triples[..., :2], torch.zeros_like(triples[..., :2]))
        return Keypoints2D(points, confidence, name, **more)


def _hashable(value: Any) -> int | str | None:
    return value if isinstance(value, (int, str)) else None


def _describe(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dictionary with {', '.join(repr(key)[:40] for key in list(value)[:5]) or 'nothing'}"
    if isinstance(value, list):
        return f"a list of {len(value)} items"
    return f"{type(value).__name__} {value!r:.40}"
