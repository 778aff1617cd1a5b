"""Fit the people of a piece of a shard, and write their bodies and why the others have none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from physique.bodymodel import BodyModel, KeypointRegressor, load_body_model, open_body
from physique.cameras import WeakPerspectiveCamera, default_focal, weak_to_perspective
from physique.fitting import Solution, Status, fit_keypoints
from shards import Piece, Record, count_done, read_records, write_columns, write_rejected
from torch import Tensor

MOST_TRIES = 3  # of a piece in a run


@dataclass(frozen=True)
class Settings:
    """What decides the numbers; a folder of results has one."""

    model: str | None
    detail: str
    keypoint_set: str
    steps: int | None
    batch: int
    piece: int


class Person(NamedTuple):
    """A record of use: row in its shard, `id`, points (K, 2), confidence (K,), image size (2,), NaN where unknown."""

    row: int
    id: str
    points: Tensor
    confidence: Tensor
    image_size: Tensor


class Fitter:
    """A worker: holds a model, and fits and writes a piece at a time."""

    def __init__(self, settings: Settings, out: str, device: str) -> None:
        """Load the model."""
        torch.set_num_threads(1)  # a worker a core
        self.settings, self.out = settings, Path(out)
        self.model = load_model(settings).to(device)
        self.regressor = KeypointRegressor(settings.keypoint_set, self.model.data, device=device)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Fit the pieces of a batch; return what came of each."""
        pieces = zip(batch["shard"].tolist(), batch["first"].tolist(), batch["stop"].tolist(), strict=True)
        reports = [self.work(Piece(*piece)) for piece in pieces]
        return {"shard": batch["shard"].tolist(), "done": [r[0] for r in reports], "error": [r[1] for r in reports]}

    def work(self, piece: Piece) -> tuple[int, str]:
        """Fit and write a piece unless it is done; return how many records are done, and why it could not be done."""
        if count_done(piece, self.out) is None:
            # A worker that a piece kills cannot say so: the next one counts the marks.
            tries = piece.tries(self.out)
            with tries.open("ab") as file:
                file.write(b".")
            if tries.stat().st_size > MOST_TRIES:
                return (
                    0,
                    f"{piece.shard}: records {piece.first} to {piece.stop} end their worker, {MOST_TRIES} times now",
                )
            try:
                people, rejected = self.read(piece)
            except ValueError as error:
                return 0, str(error)
            columns, unfitted = self.fit(piece, people)
            # The bodies go last: a piece with bodies is done.
            write_rejected(piece, self.out, sorted(rejected + unfitted, key=lambda line: line["row"]))
            write_columns(piece.bodies(self.out), columns)
            tries.unlink(missing_ok=True)
        return piece.stop - piece.first, ""

    def read(self, piece: Piece) -> tuple[list[Person], list[dict[str, Any]]]:
        """Return the people of a piece, and the records that are none."""
        people: list[Person] = []
        rejected: list[dict[str, Any]] = []
        for row, record in enumerate(read_records(piece), start=piece.first):
            try:
                people.append(check_record(row, record, len(self.regressor.names)))
            except (ValueError, TypeError) as error:
                rejected.append(rejection(piece.shard, row, record.id, str(error)))
        return people, rejected

    def fit(self, piece: Piece, people: list[Person]) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
        """Fit people in batches of one size, the last filled up, so that nobody's result depends on how many come."""
        size, count = self.settings.batch, len(self.regressor.names)
        options: dict[str, Any] = {} if self.settings.steps is None else {"steps": self.settings.steps}
        parts: list[dict[str, np.ndarray]] = []
        rejected: list[dict[str, Any]] = []
        for start in range(0, max(len(people), 1), size):
            chosen = people[start : start + size]
            points, confidence = torch.zeros(size, count, 2), torch.zeros(size, count)
            for place, person in enumerate(chosen):
                points[place], confidence[place] = person.points, person.confidence
            solution = fit_keypoints(self.model, points, confidence, regressor=self.regressor, **options)
            found = (solution.status[: len(chosen)] != Status.INVALID).tolist()
            fitted = [place for place, good in enumerate(found) if good]
            parts.append(columns_of(piece, [chosen[place] for place in fitted], solution, fitted))
            nowhere = [person for person, good in zip(chosen, found, strict=True) if not good]
            rejected += [
                rejection(piece.shard, person.row, person.id, "keypoints: they span no box") for person in nowhere
            ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, rejected


def load_model(settings: Settings) -> BodyModel:
    """Return the body that is fitted."""
    return BodyModel(open_body(settings.detail) if settings.model is None else load_body_model(settings.model))


def rejection(shard: str | Path, row: int | None, name: Any, reason: str) -> dict[str, Any]:
    """Return the line about a record, or a whole shard, that is not fitted."""
    return {"shard": Path(shard).name, "row": row, "id": None if name is None else str(name), "reason": reason}


def check_record(row: int, record: Record, count: int) -> Person:
    """Return a record with K points as arrays; ValueError or TypeError where it is of no use.

    Points may come flat. Those that are not finite are missing, as are those without confidence.
    """
    if not isinstance(record.id, int | str | np.integer):
        raise TypeError(f"id: expected an integer or a string, got {record.id}")
    values = torch.from_numpy(np.array(record.keypoints, np.float32))
    if values.ndim == 1 and values.numel() in (2 * count, 3 * count):
        values = values.unflatten(0, (count, -1))
    if values.shape not in ((count, 2), (count, 3)):
        raise ValueError(f"keypoints: expected ({count}, 2) or ({count}, 3), got {tuple(values.shape)}")
    points, confidence = values[:, :2], values[:, 2] if values.shape[1] == 3 else torch.ones(count)
    if record.confidence is not None:
        confidence = torch.from_numpy(np.array(record.confidence, np.float32))
        if confidence.shape != (count,):
            raise ValueError(f"confidence: expected ({count},), got {tuple(confidence.shape)}")
    finite = points.isfinite().all(-1)
    if not finite.any():
        raise ValueError("keypoints: expected numbers, got none that is finite")
    visible = finite & (confidence > 0)
    distinct = len(points[visible].unique(dim=0))
    if distinct < 2:
        raise ValueError(f"keypoints: expected two visible points or more, got {distinct}")
    size = torch.full((2,), torch.nan)
    if record.image_size is not None:
        size = torch.from_numpy(np.array(record.image_size, np.float32))
        if size.shape != (2,) or not (size.isfinite() & (size > 0)).all():
            raise ValueError(f"image_size: expected width and height, got {size.tolist()}")
    points, confidence = points.where(visible.unsqueeze(-1), 0), confidence.where(visible, 0)
    return Person(row, str(record.id), points, confidence, size)


def columns_of(piece: Piece, people: list[Person], solution: Solution, fitted: list[int]) -> dict[str, np.ndarray]:
    """Return the columns of the output for the people at some places of a batch."""

    def chosen(value: Tensor) -> Tensor:
        return value[fitted].detach().cpu()

    assert isinstance(solution.camera, WeakPerspectiveCamera) and solution.residuals is not None
    camera = WeakPerspectiveCamera(chosen(solution.camera.scale), chosen(solution.camera.translation))
    errors = chosen(solution.residuals)
    tensors = {name: chosen(value) for name, value in solution.params.items()}
    tensors |= {"camera_scale": camera.scale, "camera_translation": camera.translation}
    # Where the body stands before a camera whose focal length is the diagonal of the image.
    size = torch.stack([person.image_size for person in people]) if people else torch.empty(0, 2)
    focal = default_focal(size)
    before = weak_to_perspective(camera, focal=focal, center=size / 2)
    tensors |= {"image_size": size, "camera_focal": focal, "camera_transl": before.translation}
    tensors |= {"status": chosen(solution.status), "loss": chosen(solution.loss), "visible": errors.isfinite().sum(-1)}
    tensors |= {"error_mean": errors.nanmean(-1), "error_max": errors.nan_to_num(0).amax(-1)}
    keys = {
        "shard": np.array([Path(piece.shard).name] * len(people), str),
        "row": np.array([person.row for person in people], np.int64),
        "id": np.array([person.id for person in people], str),
    }
    return {**keys, **{name: tensor.numpy() for name, tensor in tensors.items()}}
