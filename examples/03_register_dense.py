"""Register bodies to dense correspondences with known answers: an error table, pictures before and after, and a mesh.

The built-in body takes poses of motion capture; a made detector sees some points of its surface, with noise, exchanged
hands and feet, and gross outliers. Writes DIR/before.png (the T-pose that the registration starts from), DIR/after.png
and DIR/bodies.glb. Needs `pip install "physique[viz,io]"`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from drawing import Person, draw_people
from physique.bodymodel import BodyModel, KeypointRegressor, keypoint_set, open_body, save_mesh
from physique.cameras import WeakPerspectiveCamera
from physique.fitting import Solution, register_surface
from physique.geometry import vertex_normals
from physique.losses.metrics import pa_mpjpe, per_pixel_error
from scenes import KEYPOINTS, NOISE, SHIPPED, Scene, make_scene, read_poses
from torch import Tensor
from tqdm import tqdm

MOST_DRAWN = 8
APART = 1.2  # metres between the bodies of the mesh
HALF_TURN = torch.tensor([1.0, -1.0, -1.0])  # camera axes (y down, z forward) to those of glTF (y up, z backward)


def main(arguments: Sequence[str] | None = None) -> int:
    """Register, and return the exit status: 2 with one line on stderr where the input is of no use."""
    options = parse_options(arguments)
    try:
        check_options(options)
        options.out.mkdir(parents=True, exist_ok=True)
        model = BodyModel(open_body(options.detail))
        scene = make_scene(
            model,
            read_poses(model, options.mocap, options.people, options.seed),
            seed=options.seed,
            noise=options.noise,
            swapped=options.swapped,
            outliers=options.outliers,
        )
        start = register(model, scene, 0)
        solution = register(model, scene, options.steps)
        report(model, scene, start, solution)
        draw(options.out / "before.png", model, scene, start)
        draw(options.out / "after.png", model, scene, solution)
        save_bodies(options.out / "bodies.glb", model, solution)
    except (OSError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    print(f"written to {options.out}: before.png, after.png, bodies.glb")
    return 0


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--mocap", default=SHIPPED, type=Path, metavar="FILE", help="AMASS .npz, CMU .amc; default: a few shipped poses"
    )
    parser.add_argument("--people", type=int, default=4, help="how many poses (default: %(default)s)")
    parser.add_argument("--detail", choices=("full", "low"), default="full", help="of the built-in body")
    parser.add_argument("--steps", type=int, default=300, help="most steps (default: %(default)s)")
    parser.add_argument("--noise", type=float, default=NOISE, metavar="PIXELS", help="(default: %(default)s of 224)")
    parser.add_argument("--swapped", type=float, default=0.05, help="share on hands and feet (default: %(default)s)")
    parser.add_argument("--outliers", type=float, default=0.05, help="share of all points (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of shapes, views and errors (default: %(default)s)")
    return parser.parse_args(arguments)


def check_options(options: argparse.Namespace) -> None:
    """Refuse numbers that mean nothing."""
    if options.steps < 0:
        raise ValueError(f"--steps: expected 0 or more, got {options.steps}; 300 are enough")
    if not 0 <= options.noise < float("inf"):
        raise ValueError(f"--noise: expected 0 or more, got {options.noise:g}; give a deviation in pixels")
    for name in ("swapped", "outliers"):
        share = getattr(options, name)
        if not 0 <= share <= 1:
            raise ValueError(f"--{name}: expected 0 to 1, got {share:g}; give a share of the points")


def register(model: BodyModel, scene: Scene, steps: int) -> Solution:
    """Register everyone at once, with a progress bar; without steps this is the start."""
    people = len(scene.depths)
    with tqdm(total=steps, desc=f"registering {people}", unit="step", disable=steps == 0) as bar:
        solution = register_surface(
            model,
            scene.correspondences,
            keypoints=scene.keypoints,
            keypoint_set=KEYPOINTS,
            steps=steps,
            callback=lambda step, _: bar.update(step - bar.n),
        )
        bar.total = bar.n  # it stops early once everyone has converged
    return solution


def joint_errors(model: BodyModel, scene: Scene, solution: Solution) -> Tensor:
    """Return the millimetres (B,) by which the 14 keypoints are off in space, after a similarity."""
    regressor = KeypointRegressor(KEYPOINTS, model.data)
    found, truth = (model.keypoints(regressor, **params) for params in (solution.params, scene.params))
    return 1000 * pa_mpjpe(found, truth)


def pixel_errors(model: BodyModel, scene: Scene, solution: Solution) -> Tensor:
    """Return the pixels (B,) by which the projected vertices are off."""
    found = camera_of(solution).project(model(**solution.params).vertices)
    return per_pixel_error(found, scene.camera.project(model(**scene.params).vertices))


def report(model: BodyModel, scene: Scene, start: Solution, solution: Solution) -> None:
    """Print the errors of everyone, before and after."""
    columns: Mapping[str, Tensor] = {
        "PA-MPJPE before": joint_errors(model, scene, start),
        "after, mm": joint_errors(model, scene, solution),
        "per pixel before": pixel_errors(model, scene, start),
        "after, px": pixel_errors(model, scene, solution),
    }
    print(" " * 10 + "".join(f"{name:>18}" for name in columns))
    for person in range(len(scene.depths)):
        print(f"person {person + 1:<3}" + "".join(f"{float(column[person]):18.1f}" for column in columns.values()))
    print(f"{'mean':10}" + "".join(f"{float(column.mean()):18.1f}" for column in columns.values()))


def draw(path: Path, model: BodyModel, scene: Scene, solution: Solution) -> None:
    """Draw bodies and the surface points that they were registered to."""
    camera, out = camera_of(solution), model(**solution.params)
    depth = out.vertices[..., 2:] * camera.scale[:, None, None]
    solid = torch.cat((camera.project(out.vertices), depth), dim=-1)
    normals = vertex_normals(solid, model.faces)
    fitted = camera.project(model.keypoints(KeypointRegressor(KEYPOINTS, model.data), **solution.params))
    errors = joint_errors(model, scene, solution)
    pictures = [
        Person(
            title=f"person {i + 1}\nPA-MPJPE {errors[i]:.0f} mm",
            vertices=solid[i].numpy(),
            normals=normals[i].numpy(),
            keypoints=scene.correspondences.pixels[i].numpy(),
            seen=(scene.correspondences.weight[i] > 0).numpy(),
            fitted=fitted[i].numpy(),
            bones=keypoint_set(KEYPOINTS).bones,
            from_right=bool(out.joint_rotations[i, 0, 0, 2] >= 0),
        )
        for i in range(min(MOST_DRAWN, len(solid)))
    ]
    draw_people(pictures, model.data.faces, path, detected="surface points, as detected")


def save_bodies(path: Path, model: BodyModel, solution: Solution) -> None:
    """Write all bodies side by side as one mesh, in metres, y up."""
    vertices = model(**solution.params).vertices * HALF_TURN
    count, size = vertices.shape[:2]
    vertices = vertices + APART * torch.arange(count)[:, None, None] * torch.tensor([1.0, 0.0, 0.0])
    faces = model.faces + size * torch.arange(count)[:, None, None]
    save_mesh(path, vertices.flatten(0, 1), faces.flatten(0, 1), normals=True)


def camera_of(solution: Solution) -> WeakPerspectiveCamera:
    """Return the camera of a registration."""
    assert isinstance(solution.camera, WeakPerspectiveCamera)
    return solution.camera


if __name__ == "__main__":
    torch.set_num_threads(1)  # the products of a few people are so small that threads only wait for each other
    sys.exit(main())
