"""Make up what a detector would report of many people: shards of keypoints, each from its own seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from physique.bodymodel import BodyModel, KeypointRegressor
from scenes import facing, shipped_poses
from shards import write_columns

SHARD = 1000  # records
SIZE = (640.0, 480.0)  # pixels
NOISE, MISSING = 2.0, 0.05  # pixels; share of the points
JITTER, TILT = 0.1, 0.2  # radians


def write_crowd(folder: Path, count: int, model: BodyModel, keypoint_set: str) -> None:
    """Write shards made-00000.parquet, ... of `count` people in all, those that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    regressor = KeypointRegressor(keypoint_set, model.data)
    for number, first in enumerate(range(0, count, SHARD)):
        path = folder / f"made-{number:05}.parquet"
        if not path.exists():
            write_columns(path, make_people(model, regressor, min(SHARD, count - first), seed=number))


def make_people(model: BodyModel, regressor: KeypointRegressor, count: int, seed: int) -> dict[str, np.ndarray]:
    """Return records of people between two of the poses that ship, of all shapes, sizes and headings, in images.

    Returns:
        `id` (N,), `keypoints` (N, K, 3) in pixels with confidence, `image_size` (N, 2).
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, generator=generator)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(count, *shape, generator=generator)

    poses = shipped_poses()
    one, other = (poses[(uniform() * len(poses)).long()] for _ in range(2))
    lean, turn = TILT * normal(), 2 * torch.pi * uniform()
    with torch.no_grad():
        points = model.keypoints(
            regressor,
            betas=normal(model.data.num_betas),
            global_orient=facing(turn, lean),
            body_pose=torch.lerp(one, other, uniform(1, 1)) + JITTER * normal(*poses.shape[1:]),
        )
    size = torch.tensor(SIZE)
    scale = size[1] * (0.2 + 0.3 * uniform(1, 1))  # pixels a metre
    place = size * (0.3 + 0.4 * uniform(2)).unsqueeze(-2)
    pixels = scale * points[..., :2] + place + NOISE * normal(points.shape[-2], 2)
    seen = (uniform(points.shape[-2], 1) > MISSING) & regressor.valid.unsqueeze(-1)
    return {
        "id": np.array([f"{seed}-{number}" for number in range(count)]),
        "keypoints": torch.cat((pixels * seen, seen), dim=-1).numpy(),
        "image_size": size.expand(count, 2).numpy(),
    }
