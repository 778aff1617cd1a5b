"""The body poses of AMASS files, clip by clip, as a pose pool takes them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..bodymodel.motion import check_rate
from ..bodymodel.motion_load import load_motion

Paths: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def amass_clips(paths: Paths, *, fps: float | int, num_betas: int, dtype: torch.dtype) -> dict[str, dict[str, Tensor]]:
    """Return SMPL's arguments for each file, with y up; see `PosePool.from_amass`."""
    check_rate(fps)
    files = _find(paths)
    folder = Path(os.path.commonpath([file.absolute().parent for file in files]))
    clips = {}
    for file in files:
        motion = load_motion(file, dtype=dtype)
        # Where bodies stand is left aside, so that the place of the root joint does not matter.
        step = max(1, round(min(motion.fps / fps, len(motion))))
        motion = motion[::step].to_y_up(torch.zeros(3, dtype=dtype))
        params = motion.arguments("smpl", num_betas=0)
        if num_betas:
            betas = motion.poses.new_zeros(0) if motion.betas is None else motion.betas[:num_betas]
            params["betas"] = pad(betas, (0, num_betas - len(betas)))
        clips[file.absolute().relative_to(folder).with_suffix("").as_posix()] = params
    return clips


def _find(paths: Paths) -> list[Path]:
    if isinstance(paths, str | os.PathLike):
        root = Path(paths)
        if not root.exists():
            raise FileNotFoundError(f"{root}: expected a folder or a file of AMASS, got neither; check the path")
        files = sorted(root.rglob("*.npz")) if root.is_dir() else [root]
        if root.is_dir():
            files = [file for file in files if file.name != "shape.npz" and not file.stem.endswith("_stagei")]
    else:
        files = [Path(path) for path in paths]
    if not files:
        raise ValueError(f"paths: expected AMASS .npz files, got none in {paths}; check the folder")
    return files
