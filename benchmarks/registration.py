"""Measure `register_surface` on made scenes: errors from the T-pose, what each loss is worth, and the time.

`python benchmarks/registration.py --mocap FILE` prints the tables and ends with status 1 when a promise is not kept.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from physique.bodymodel import BodyModel, KeypointRegressor, keypoint_set, open_body, segment_scale_model
from physique.fitting import Correspondences, Registration, Solution, Term, default_terms, register_surface
from physique.fitting.registration_terms import DEPTH_UNIT
from physique.losses.metrics import pa_mpjpe, per_pixel_error
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from scenes import KEYPOINTS, Scene, make_scene, read_poses

MOCAP = Path(__file__).parents[2] / "shared" / "data" / "mocap" / "cmu_joints_30fps.npz"
# What is promised: millimetres, pixels, seconds.
MOST_PA_MPJPE, MOST_WITH_DEPTHS, MOST_PIXELS, MOST_SECONDS = 70.0, 35.0, 5.0, 2.0
BATCH = 10
SIGN_WEIGHT, SIGN_MARGIN = 5.0, 0.05


class Row(NamedTuple):
    """Mean errors over the people of a scene: joints in millimetres after a similarity, vertices in pixels."""

    name: str
    pa_mpjpe: float
    worst: float
    pixels: float
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; return 1 when a promise is not kept, 2 when there is nothing to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mocap", default=MOCAP, type=Path, metavar="FILE", help="poses (default: %(default)s)")
    parser.add_argument("--people", default=100, type=int, help="(default: %(default)s)")
    parser.add_argument("--steps", default=80, type=int, help="the most (default: %(default)s)")
    parser.add_argument("--seed", default=0, type=int)
    parser.add_argument("--quick", action="store_true", help="without the ablation")
    options = parser.parse_args(arguments)
    model = BodyModel(open_body("low"))
    try:
        scene = make_scene(model, read_poses(model, options.mocap, options.people, options.seed), seed=options.seed)
    except (OSError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    title = f"{options.people} people, 125 points and 14 keypoints with 3 px noise at 224 px, {options.steps} steps"
    print(f"{title}\n{'':36}{'PA-MPJPE mm':>12}{'worst tenth':>13}{'pixels':>8}{'seconds':>9}", flush=True)
    full = show("all terms", model, scene, options.steps)
    signs = show("and the signs of the bones' depths", model, scene, options.steps, terms=with_signs(scene))
    show("and the keypoints' depths", model, scene, options.steps, depths=scene.depths)
    scaled = BodyModel(segment_scale_model(model.data))
    show("segment scales in place of betas", scaled, scene, options.steps)
    if not options.quick:
        show("without keypoints", model, scene, options.steps, keypoints=None)
        for name in ("dense", "shape", "joint_angles", "joint_limits", "determinant"):
            show(f"without {name}", model, scene, options.steps, terms=without(name))
        show("scales without scale_smoothness", scaled, scene, options.steps, terms=without("scale_smoothness"))
    seconds = time_of_batch(model, scene, options.steps)
    print(f"batch of {min(BATCH, options.people)}: {seconds:.2f} s of one core")
    kept = full.pa_mpjpe <= MOST_PA_MPJPE and full.pixels <= MOST_PIXELS and signs.pa_mpjpe <= MOST_WITH_DEPTHS
    return 0 if kept and seconds <= MOST_SECONDS else 1


def show(
    name: str,
    model: BodyModel,
    scene: Scene,
    steps: int,
    *,
    terms: Mapping[str, Term] | None = None,
    depths: Tensor | None = None,
    **changes: None,
) -> Row:
    """Register, print the errors as a line, and return them."""
    observed = {"keypoints": scene.keypoints, "keypoint_set": KEYPOINTS, **changes}
    start = time.process_time()
    solution = register_surface(model, scene.correspondences, **observed, depths=depths, terms=terms, steps=steps)
    row = measure(name, model, scene, solution, time.process_time() - start)
    print(f"{row.name:36}{row.pa_mpjpe:12.1f}{row.worst:13.1f}{row.pixels:8.2f}{row.seconds:9.1f}", flush=True)
    return row


def measure(name: str, model: BodyModel, scene: Scene, solution: Solution, seconds: float) -> Row:
    """Compare a solution with the truth: the 14 keypoints in space, and all vertices in the image."""
    truth = BodyModel(open_body("low"))
    regressor = KeypointRegressor(KEYPOINTS, truth.data)
    with torch.no_grad():
        joints = pa_mpjpe(model.keypoints(regressor, **solution.params), truth.keypoints(regressor, **scene.params))
        found, wanted = model(**solution.params).vertices, truth(**scene.params).vertices
    assert solution.camera is not None
    pixels = per_pixel_error(solution.camera.project(found), scene.camera.project(wanted))
    worst = 1000 * joints.sort().values[-max(1, len(joints) // 10) :].mean()
    return Row(name, float(1000 * joints.mean()), float(worst), float(pixels.mean()), seconds)


def without(name: str) -> dict[str, Term]:
    """Return the default terms but one."""
    return {other: term for other, term in default_terms().items() if other != name}


def with_signs(scene: Scene) -> dict[str, Term]:
    """Return the default terms and one that knows which end of each bone is nearer: nothing else about depth."""
    first, second = torch.tensor(keypoint_set(KEYPOINTS).bones).unbind(-1)
    nearer = (scene.depths[:, second] - scene.depths[:, first]).sign()

    def signs(body: Registration) -> Tensor:
        depth = body.keypoints[..., 2]
        farther = nearer * (depth[..., second] - depth[..., first])
        return (SIGN_MARGIN - farther).relu() / DEPTH_UNIT

    return {**default_terms(), "signs": Term(SIGN_WEIGHT, SIGN_WEIGHT, signs)}


def time_of_batch(model: BodyModel, scene: Scene, steps: int) -> float:
    """Return the least of three process times in seconds of a batch of 10 with all terms."""
    surface, pixels, weight = scene.correspondences
    few = slice(BATCH)
    seen = Correspondences(type(surface)(surface.faces[few], surface.barycentric[few]), pixels[few], weight[few])
    times = []
    for _ in range(3):
        start = time.process_time()
        register_surface(
            model,
            seen,
            keypoints=scene.keypoints[few],
            keypoint_set=KEYPOINTS,
            depths=scene.depths[few],
            steps=steps,
        )
        times.append(time.process_time() - start)
    return min(times)


if __name__ == "__main__":
    torch.set_num_threads(1)  # process time is then what passes on a core that nothing else uses
    sys.exit(main())
