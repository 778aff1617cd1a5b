"""Scenes with known answers: bodies in poses from motion capture, seen from all sides by an imperfect detector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mocap import Clip, fit_clip, read_clips, read_positions
from physique.bodymodel import BodyModel, KeypointRegressor, load_motion
from physique.cameras import WeakPerspectiveCamera
from physique.fitting import Correspondences
from physique.geometry import axis_angle_to_matrix, matrix_to_axis_angle
from physique.testing.correspondences import synthetic_correspondences
from torch import Tensor

SHIPPED = Path(__file__).parent / "data" / "poses.json"
SIZE = 224.0
NOISE = 3.0
KEYPOINTS = "lsp14"


class Scene(NamedTuple):
    """B people as they are and as they are seen.

    Attributes:
        params: the model's arguments in camera axes.
        camera: in pixels, of an image of 224 pixels.
        correspondences: (B, N) visible surface points with noise, swaps and outliers.
        keypoints: (B, 14, 2) with noise, in pixels.
        depths: (B, 14) of the keypoints, true.
    """

    params: dict[str, Tensor]
    camera: WeakPerspectiveCamera
    correspondences: Correspondences
    keypoints: Tensor
    depths: Tensor


def shipped_poses() -> Tensor:
    """Return the body poses (P, 23, 3) that ship with the examples."""
    return torch.tensor(json.loads(SHIPPED.read_text())["body_pose"])


def facing(turn: Tensor, lean: Tensor) -> Tensor:
    """Return the global_orient (B, 3), in camera axes, of people turned (B,) and leaning (B,) by radians."""
    zero = torch.zeros_like(turn)
    upright = axis_angle_to_matrix(torch.tensor([torch.pi, 0.0, 0.0]))
    leaning = axis_angle_to_matrix(torch.stack((lean, zero, zero), -1))
    turned = axis_angle_to_matrix(torch.stack((zero, turn, zero), -1))
    return matrix_to_axis_angle(upright @ leaning @ turned)


def read_poses(model: BodyModel, path: str | Path, count: int, seed: int = 0) -> Tensor:
    """Return body poses (count, 23, 3), taken evenly from the frames of a motion file; or the first that ship.

    Args:
        model: gets the poses.
        path: AMASS .npz, motion capture that `mocap.read_clips` reads, or `SHIPPED`.
        count: how many; 0 or less and more than there are frames is refused.
        seed: decides where in each stretch of the frames.

    Raises:
        ValueError: a file of another kind, or with other joints.
        OSError: it cannot be read.
    """
    path = Path(path)
    if path == SHIPPED:
        poses = shipped_poses()
        if not 0 < count <= len(poses):
            raise ValueError(f"--people: expected 1 to {len(poses)}, got {count}; name a --mocap FILE for more")
        return poses[:count]
    clips: list[Clip] = []
    if path.suffix == ".npz" and read_positions(path) is None:
        frames = load_motion(path).arguments("smpl", num_betas=0)["body_pose"]
    else:
        clips = list(read_clips(path).values())
        frames = torch.cat([clip.joints for clip in clips])
    total = len(frames)
    if not 0 < count <= total:
        raise ValueError(f"--people: expected 1 to {total}, the frames of {path}, got {count}; ask for as many")
    place = torch.rand(count, generator=torch.Generator().manual_seed(seed))
    chosen = frames[((torch.arange(count) + place) * total / count).long().clamp(max=total - 1)].to(model.v_template)
    if not clips:
        return chosen
    return fit_clip(model, clips[0]._replace(joints=chosen), sequence=False).params["body_pose"]


def make_scene(
    model: BodyModel,
    body_pose: Tensor,
    *,
    seed: int = 0,
    noise: float = NOISE,
    swapped: float = 0.05,
    outliers: float = 0.05,
) -> Scene:
    """Show bodies in poses (B, 23, 3), with random shapes and from random sides, in images of 224 pixels.

    Args:
        model: the body, with betas.
        body_pose: one a person.
        seed: of all random numbers.
        noise: standard deviation of points and keypoints, in pixels.
        swapped: share of the points on hands and feet with the label of the other side.
        outliers: share of the points that are anywhere in the image.
    """
    generator = torch.Generator().manual_seed(seed)
    count, like = len(body_pose), body_pose
    turn = 2 * torch.pi * torch.rand(count, generator=generator)
    tilt = 0.3 * torch.randn(count, generator=generator).clamp(-2, 2)
    params: dict[str, Any] = {
        "betas": torch.randn(count, model.data.count("betas"), generator=generator).to(like),
        "global_orient": facing(turn, tilt).to(like),
        "body_pose": body_pose,
    }
    with torch.no_grad():
        vertices = model(**params).vertices[..., :2]
        low, high = vertices.amin(-2), vertices.amax(-2)
        scale = 0.8 * SIZE / (high - low).amax(-1)
        camera = WeakPerspectiveCamera(scale, SIZE / 2 - scale.unsqueeze(-1) * (low + high) / 2)
        points = model.keypoints(KeypointRegressor(KEYPOINTS, model.data), **params)
    pixels = camera.project(points)
    keypoints = pixels + noise * torch.randn(pixels.shape, generator=generator).to(like)
    seen = synthetic_correspondences(
        model, params, camera, noise=noise, swapped=swapped, outliers=outliers, size=SIZE, seed=seed
    )
    return Scene(params, camera, seen, keypoints, points[..., 2])
