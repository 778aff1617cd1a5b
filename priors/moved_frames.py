"""Which frames of a motion differ enough from the one before that was kept."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..bodymodel.model import BodyModel

_CHUNK = 1 << 15


def moved_frames(
    body_pose: Float[Tensor, "N 23 3"],
    global_orient: Float[Tensor, "N 3"],
    clip: Int[Tensor, " N"],
    body: BodyModel,
    movement: float,
) -> Int[Tensor, " M"]:
    """Return the ids of frames in which some joint is `movement` metres from the last frame kept of its clip.

    Positions are relative to the pelvis; the first frame of each clip is kept.
    """
    like = body.rest().joints
    table = np.empty((len(body_pose), body.skeleton.num_joints, 3), dtype=np.float32)
    for start in range(0, len(body_pose), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        joints = body.joints(body_pose=body_pose[chunk].to(like), global_orient=global_orient[chunk].to(like))
        table[chunk] = (joints - joints[:, :1]).detach().cpu().numpy()
    last: dict[int, np.ndarray] = {}
    kept = []
    for frame, owner in enumerate(clip.tolist()):
        before = last.get(owner)
        if before is None or np.square(table[frame] - before).sum(-1).max() >= movement**2:
            last[owner] = table[frame]
            kept.append(frame)
    return torch.tensor(kept, dtype=torch.long, device=clip.device)
