"""Readers of the real data set that more than one test needs."""

from pathlib import Path

import numpy as np
import tomllib
import torch
from physique.bodymodel import keypoint_set
from physique.cameras import PerspectiveCamera
from physique.geometry import axis_angle_to_matrix

LIMBS = tuple(
    f"{side}_{part}" for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")
)
_MARKERS = {
    "Hip": "hip",
    "Knee": "knee",
    "Ankle": "ankle",
    "BigToe": "big_toe",
    "SmallToe": "small_toe",
    "Heel": "heel",
    "Shoulder": "shoulder",
    "Elbow": "elbow",
    "Wrist": "wrist",
    "Nose": "nose",
    "Head": "head_top",
    "Neck": "upper_neck",
}


def multiview_points(folder: Path) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Return the triangulated track (T, N, 3), metres, z up, and the names of its points in snake case."""
    lines = (folder / "multiview/static_single/pose3d_0-12.trc").read_text().splitlines()
    markers = [name for name in lines[3].split("\t")[2:] if name]
    rows = [[float(x) for x in line.split("\t")[2 : 2 + 3 * len(markers)]] for line in lines[5:] if line.strip()]
    points = np.array(rows).reshape(-1, len(markers), 3)[..., [2, 0, 1]]
    names = []
    for marker in markers:
        sided = marker[0] in "LR" and marker[1].isupper()
        side = {"L": "left_", "R": "right_"}[marker[0]] if sided else ""
        names.append(side + _MARKERS[marker[1:] if sided else marker])
    return torch.tensor(points, dtype=torch.float32), tuple(names)


def multiview_cameras(folder: Path) -> list[PerspectiveCamera]:
    """Return the four calibrated cameras, without their slight distortion."""
    calibration = tomllib.loads((folder / "multiview/Calib_qualisys.toml").read_text())
    cameras = []
    for name in ("cam_01", "cam_02", "cam_03", "cam_04"):
        entry = calibration[name]
        matrix = torch.tensor(entry["matrix"])
        rotation = axis_angle_to_matrix(torch.tensor(entry["rotation"]))
        cameras.append(
            PerspectiveCamera(matrix.diagonal()[:2], matrix[:2, 2], rotation, torch.tensor(entry["translation"]))
        )
    return cameras


def in_set(points: torch.Tensor, names: tuple[str, ...], target: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return named points (*B, N, D) in the order of a keypoint set, and the confidence: 1 where there is one."""
    wanted = keypoint_set(target).names
    full = points.new_zeros(*points.shape[:-2], len(wanted), points.shape[-1])
    confidence = points.new_zeros(*points.shape[:-2], len(wanted))
    for index, name in enumerate(wanted):
        if name in names:
            full[..., index, :] = points[..., names.index(name), :]
            confidence[..., index] = 1
    return full, confidence
