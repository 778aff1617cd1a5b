"""Measure `fit_joints` on clips of motion capture: how closely joints are followed, overextension, and the time.

`python benchmarks/fit_joints.py --mocap FILE` prints the table and ends with status 1 when a promise is not kept.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from physique.bodymodel import BodyModel, open_body, segment_scale_model
from physique.fitting import Solution
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from mocap import Clip, fit_clip, read_clips

MOCAP = Path(__file__).parents[2] / "shared" / "data" / "mocap" / "cmu_joints_30fps.npz"
# What is promised: millimetres, degrees, frames a second of one core.
MOST_MM = {"betas": 25.0, "segment scales": 12.0}
MOST_DEGREES, LEAST_FRAMES = 10.0, 200.0
# Bends that straighten an elbow or knee further than straight: the joint, its axis, the sign.
OVEREXTENSION = (("left_knee", 0, -1), ("right_knee", 0, -1), ("left_elbow", 1, 1), ("right_elbow", 1, -1))


class Row(NamedTuple):
    """A fit to all frames: mean distance in millimetres, largest overextension in degrees, frames a second."""

    name: str
    millimetres: float
    degrees: float
    frames: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 1 when a promise is not kept, 2 when there is nothing to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mocap", default=MOCAP, type=Path, metavar="FILE", help="clips (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        clips = list(read_clips(options.mocap).values())
    except (OSError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    frames = clips[0]._replace(joints=torch.cat([clip.joints for clip in clips]))
    count = int((frames.weights > 0).sum())
    print(f"{len(clips)} clips, {len(frames.joints)} frames, {count} joints with weight; times of one core")
    print(f"{'':36}{'mean mm':>9}{'at most':>9}{'over deg':>10}{'frames/s':>10}{'at least':>10}{'ratio':>8}")
    data = open_body("low")
    kept = True
    for name, model in (("betas", BodyModel(data)), ("segment scales", BodyModel(segment_scale_model(data)))):
        alone = show(f"{name}, each frame for itself", model, [frames], False, MOST_MM[name])
        show(f"{name}, each clip as a sequence", model, clips, True, None)
        kept = kept and alone.millimetres <= MOST_MM[name] and alone.degrees <= MOST_DEGREES
        kept = kept and alone.frames >= LEAST_FRAMES
    return 0 if kept else 1


def show(name: str, model: BodyModel, clips: Sequence[Clip], sequence: bool, most: float | None) -> Row:
    """Fit, print the figures as a line, and return them."""
    fit_clip(model, clips[0]._replace(joints=clips[0].joints[:8]), sequence=sequence)
    start = time.process_time()
    solutions = [fit_clip(model, clip, sequence=sequence) for clip in clips]
    seconds = time.process_time() - start
    residuals = torch.cat([solution.residuals for solution in solutions])
    degrees = max(float(overextension(model, solution).max()) for solution in solutions)
    row = Row(name, 1000 * float(residuals.nanmean()), degrees, len(residuals) / seconds)
    promise = f"{'-':>9}" if most is None else f"{most:9.0f}"
    least = f"{'-':>10}{'-':>8}" if most is None else f"{LEAST_FRAMES:10.0f}{row.frames / LEAST_FRAMES:7.2f}x"
    print(f"{name:36}{row.millimetres:9.1f}{promise}{row.degrees:10.1f}{row.frames:10.0f}{least}", flush=True)
    return row


def overextension(model: BodyModel, solution: Solution) -> Tensor:
    """Return the degrees (*B, 4) by which knees and elbows bend beyond straight; negative where they bend."""
    pose = solution.params["body_pose"]
    bends = [sign * pose[..., model.skeleton.index(joint) - 1, axis] for joint, axis, sign in OVEREXTENSION]
    return torch.stack(bends, dim=-1).rad2deg()


if __name__ == "__main__":
    torch.set_num_threads(1)  # process time is then what passes on a core that nothing else uses
    sys.exit(main())
