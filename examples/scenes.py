"""Scenes with known answers: bodies in poses from motion capture, seen from all sides by an imperfect detector."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from physique.bodymodel import BodyModel, KeypointRegressor, default_joint_limits, load_motion
from physique.cameras import WeakPerspectiveCamera
from physique.fitting import Correspondences, minimise
from physique.geometry import axis_angle_to_matrix, matrix_to_axis_angle, procrustes
from physique.losses import joint_limit_loss, joint_loss
from physique.testing.correspondences import synthetic_correspondences
from torch import Tensor

SIZE = 224.0
NOISE = 3.0
KEYPOINTS = "lsp14"
# A CMU bone's name stands for its end. The spines are divided differently: they are pulled on less.
CMU = {
    "pelvis": "root",
    **{
        f"{side}_{joint}": side[0] + bone
        for side in ("left", "right")
        for joint, bone in (
            ("hip", "hipjoint"),
            ("knee", "femur"),
            ("ankle", "tibia"),
            ("foot", "foot"),
            ("shoulder", "clavicle"),
            ("elbow", "humerus"),
            ("wrist", "radius"),
        )
    },
    "spine1": "lowerback",
    "spine2": "upperback",
    "spine3": "thorax",
    "neck": "lowerneck",
    "head": "upperneck",
}
SPINE_WEIGHT = 0.1


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


def read_poses(model: BodyModel, path: str | Path, count: int, seed: int = 0) -> Tensor:
    """Return body poses (count, 23, 3), taken evenly from the frames of a motion file.

    Args:
        model: gets the poses.
        path: AMASS .npz, .amc or .bvh with CMU's joint names; or an .npz of CMU joint positions: `joint_names`, and
            (T, J, 3) a clip, at 30 frames a second.
        count: how many; 0 or less and more than there are frames is refused.
        seed: decides where in each stretch of the frames.

    Raises:
        ValueError: a file of another kind, or with other joints.
        OSError: it cannot be read.
    """
    poses, joints, names = None, None, ()
    clips = _clips(Path(path))
    if clips is not None:
        joints, names = clips
        total = len(joints)
    else:
        motion = load_motion(path)
        total, names = len(motion), motion.skeleton.names
        if motion.family is not None:
            poses = motion.arguments("smpl", num_betas=0)["body_pose"]
        else:
            joints = motion.joints
    if not 0 < count <= total:
        raise ValueError(f"--people: expected 1 to {total}, the frames of {path}, got {count}; ask for as many")
    place = torch.rand(count, generator=torch.Generator().manual_seed(seed))
    chosen = ((torch.arange(count) + place) * total / count).long().clamp(max=total - 1)
    if poses is not None:
        return poses[chosen].to(model.v_template)
    assert joints is not None
    missing = sorted(set(CMU.values()) - set(names))
    if missing:
        raise ValueError(
            f"{path}: expected CMU's joint names, got none of {', '.join(missing)}; use an AMASS or .amc file"
        )
    return _pose_bodies(model, joints[chosen][:, [names.index(bone) for bone in CMU.values()]].to(model.v_template))


def _clips(path: Path) -> tuple[Tensor, tuple[str, ...]] | None:
    """Return joints (T, J, 3) of all clips and their names; None when the file is not one of joint positions."""
    if path.suffix != ".npz":
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            if "joint_names" not in saved:
                return None
            names = tuple(str(name) for name in saved["joint_names"])
            clips = [saved[key] for key in saved.files if key.startswith("clip_")]
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise ValueError(f"{path}: expected an .npz of arrays, got one that cannot be read; check the file") from error
    if not clips or any(clip.ndim != 3 or clip.shape[1:] != (len(names), 3) for clip in clips):
        raise ValueError(f"{path}: expected clips (T, {len(names)}, 3), got other arrays; name them clip_...")
    return torch.from_numpy(np.concatenate(clips)), names


def _pose_bodies(model: BodyModel, target: Tensor) -> Tensor:
    """Return the body poses (B, 23, 3) that bring the joints of `CMU` to positions (B, N, 3), by Adam."""
    ids = [model.skeleton.index(name) for name in CMU]
    weight = target.new_tensor([SPINE_WEIGHT if "spine" in name else 1.0 for name in CMU])
    rest = model.joints()[ids]
    trunk = [list(CMU).index(name) for name in ("left_hip", "right_hip", "neck", "left_shoulder", "right_shoulder")]
    turn = procrustes(rest[trunk].expand(len(target), -1, -1), target[:, trunk], scale=False).rotation
    limits = default_joint_limits(23, dtype=target.dtype)

    def energy(unknowns: dict[str, Any]) -> Tensor:
        found = model.joints(**unknowns)[:, ids]
        data = joint_loss(found, target, weight)
        outside = joint_limit_loss(unknowns["body_pose"], limits)
        return data + 0.01 * outside + 1e-4 * unknowns["body_pose"].square().sum((-2, -1))

    start = {
        "global_orient": matrix_to_axis_angle(turn),
        "body_pose": target.new_zeros(len(target), 23, 3),
        "betas": target.new_zeros(len(target), model.data.count("betas")),
        "transl": target[:, 0] - model.joints()[0],
    }
    rates = {"global_orient": 0.03, "body_pose": 0.05, "betas": 0.05, "transl": 0.02}
    return minimise(energy, start, steps=200, lr=rates).params["body_pose"]


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
    zero = torch.zeros(count)
    upright = axis_angle_to_matrix(torch.tensor([torch.pi, 0.0, 0.0]))
    view = (
        upright
        @ axis_angle_to_matrix(torch.stack((tilt, zero, zero), -1))
        @ axis_angle_to_matrix(torch.stack((zero, turn, zero), -1))
    )
    params: dict[str, Any] = {
        "betas": torch.randn(count, model.data.count("betas"), generator=generator).to(like),
        "global_orient": matrix_to_axis_angle(view).to(like),
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
