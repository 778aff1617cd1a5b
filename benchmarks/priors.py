"""Measure what each prior is worth to `fit_keypoints`: single views of poses that no prior has seen.

`python benchmarks/priors.py` prints the table and ends with status 1 when the best prior that ships does not keep its
promise: a PA-MPJPE at least 25 % below that of joint limits alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from physique.bodymodel import BodyModel, KeypointRegressor, open_body
from physique.fitting import KeypointWeights, PosePrior, fit_keypoints
from physique.losses.metrics import pa_mpjpe
from physique.priors import PosePool, load_prior
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from scenes import KEYPOINTS, NOISE, SIZE, Scene, make_scene
from training.pool import HELD_OUT, build_pool

MOCAP = Path(__file__).parents[2] / "shared" / "data" / "mocap" / "cmu_joints_30fps.npz"
LEAST_GAIN = 0.25
LIMITS_ONLY = KeypointWeights(pose=0.0)
# What each energy weighs: about half of what is a negative log-likelihood, the limits' own weight for radians², and the
# critic's scores, between 0 and 1 a joint, more.
WEIGHTS = {"limits": 300.0, "gmm": 0.5, "vae": 0.5, "critic": 20.0}


class Row(NamedTuple):
    """Errors over the people of a scene: joints in millimetres after a similarity, keypoints in pixels."""

    pa_mpjpe: float
    median: float
    worst: float
    pixels: float
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 1 when the promise is not kept, 2 when there is nothing to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mocap", default=MOCAP, type=Path, metavar="FILE", help="CMU joints (default: %(default)s)")
    parser.add_argument("--pool", type=Path, metavar="FILE", help="a saved PosePool, in place of fitting --mocap")
    parser.add_argument("--held-out", nargs="+", default=HELD_OUT, metavar="CLIP", help="clips the poses are from")
    parser.add_argument("--people", default=100, type=int, help="(default: %(default)s)")
    parser.add_argument("--steps", default=60, type=int, help="the most (default: %(default)s)")
    parser.add_argument("--priors", nargs="*", default=list(WEIGHTS), choices=WEIGHTS, help="(default: all)")
    parser.add_argument("--weight", type=float, help="of the priors' energies, to try others")
    parser.add_argument("--seed", default=0, type=int)
    options = parser.parse_args(arguments)
    model = BodyModel(open_body("low"))
    try:
        pool = PosePool.load(options.pool) if options.pool else build_pool(options.mocap, model)
        poses = choose(pool, options.held_out, options.people, options.seed)
    except (OSError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    scene = make_scene(model, poses.to(model.v_template), seed=options.seed)
    print(
        f"{options.people} held-out poses, 14 keypoints with {NOISE:g} px noise at {SIZE:g} px, {options.steps} steps"
    )
    print(f"{'':28}{'PA-MPJPE mm':>12}{'median':>8}{'worst tenth':>13}{'gain':>8}{'pixels':>8}{'seconds':>9}")
    base = show("joint limits alone", model, scene, options.steps, None, LIMITS_ONLY)
    show("and a pull to one pose", model, scene, options.steps, None, KeypointWeights(), base)
    gains = []
    for name in options.priors:
        try:
            prior = load_prior(name, dtype=model.dtype)
        except FileNotFoundError:
            print(f"{name:28}is not there: train it with tools/train_priors.py")
            continue
        weights = KeypointWeights(prior=WEIGHTS[name] if options.weight is None else options.weight)
        row = show(name, model, scene, options.steps, prior, weights, base)
        gains.append(1 - row.pa_mpjpe / base.pa_mpjpe)
    return 0 if max(gains, default=0.0) >= LEAST_GAIN else 1


def choose(pool: PosePool, clips: Sequence[str], count: int, seed: int) -> Tensor:
    """Return `count` poses taken evenly from the clips.

    Raises:
        ValueError: clips that the pool does not have, or more poses than they have.
    """
    _, held = pool.split(clips)
    if not 0 < count <= len(held):
        raise ValueError(f"--people: expected 1 to {len(held)}, the poses held out, got {count}; ask for as many")
    place = torch.rand(count, generator=torch.Generator().manual_seed(seed))
    return held.body_pose[((torch.arange(count) + place) * len(held) / count).long().clamp(max=len(held) - 1)]


def show(
    name: str,
    model: BodyModel,
    scene: Scene,
    steps: int,
    prior: PosePrior | None,
    weights: KeypointWeights,
    base: Row | None = None,
) -> Row:
    """Fit, print the errors as a line, and return them."""
    confidence = torch.ones(scene.keypoints.shape[:-1])
    start = time.perf_counter()
    found = fit_keypoints(
        model, scene.keypoints, confidence, keypoint_set=KEYPOINTS, prior=prior, weights=weights, steps=steps
    )
    seconds = time.perf_counter() - start
    regressor = KeypointRegressor(KEYPOINTS, model.data)
    with torch.no_grad():
        error = pa_mpjpe(model.keypoints(regressor, **found.params), model.keypoints(regressor, **scene.params))
    error = 1000 * error.sort().values
    worst = error[-max(1, len(error) // 10) :].mean()
    assert found.residuals is not None
    row = Row(float(error.mean()), float(error.median()), float(worst), float(found.residuals.mean()), seconds)
    gain = "" if base is None else f"{100 * (1 - row.pa_mpjpe / base.pa_mpjpe):.0f} %"
    print(
        f"{name:28}{row.pa_mpjpe:12.1f}{row.median:8.1f}{row.worst:13.1f}{gain:>8}{row.pixels:8.2f}{row.seconds:9.1f}",
        flush=True,
    )
    return row


if __name__ == "__main__":
    sys.exit(main())
