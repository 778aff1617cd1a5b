"""The poses that priors are trained on and judged by: bodies fitted to CMU's motion capture."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from physique.bodymodel import BodyModel
from physique.priors import PosePool

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

# No prior is ever trained on these: other takes than those it sees, of people and styles that may come back.
HELD_OUT = ("02_03", "03_01", "131_07", "135_08", "charleston1", "md_03", "pirouette")

# What 20 joints of the capture do not tell: these joints stay where the fit's own prior leaves them.
UNSEEN_JOINTS = frozenset(
    f"{side}_{joint}" for joint in ("foot", "wrist", "hand") for side in ("left", "right")
) | {"head"}  # fmt: skip


def build_pool(mocap: Path, body: BodyModel) -> PosePool:
    """Return the poses of all clips of an .npz of joint positions, one fit a clip: one shape, smooth in time."""
    if str(EXAMPLES) not in sys.path:
        sys.path.append(str(EXAMPLES))
    from mocap import fit_clip, read_clips

    clips = {}
    with torch.no_grad():
        for name, clip in read_clips(mocap).items():
            clips[name] = fit_clip(body, clip).params
    return PosePool.from_clips(clips)
