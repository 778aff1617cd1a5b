"""Lift 2D keypoints to three dimensions with the lifters that ship, and fit bodies to the depths: pictures and numbers.

Takes the people of an OpenPose or COCO file; or, with --mocap, poses of motion capture seen from random sides, whose
truth is known. Writes DIR/lift.png (each person as detected, lifted by each lifter and seen from the side, and the body
fitted to keypoints and depths) and DIR/lift.npz. Needs `pip install "physique[viz,io]"`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from drawing import DETECTED, DPI, FITTED, MARGIN, SHAPE, rasterise
from matplotlib.axes import Axes
from physique.bodymodel import (
    BodyModel,
    KeypointRegressor,
    Keypoints2D,
    SurfacePoints,
    convert_keypoints,
    keypoint_set,
    load_keypoints,
    open_body,
)
from physique.fitting import Correspondences, Solution, fit_keypoints, register_surface
from physique.geometry import vertex_normals
from physique.losses.metrics import Protocol, pa_mpjpe, scale_aligned_mpjpe
from physique.priors import load_prior
from scenes import SHIPPED, facing, read_poses
from torch import Tensor

KEYPOINTS = Path(__file__).parent / "data" / "keypoints.json"
SIZE, NOISE, TILT = 224.0, 3.0, 0.1
LEAST_KEYPOINTS, MOST_DRAWN = 6, 6
LIFTERS = {"lifter": "coco17", "dictionary": "lsp14", "denoiser": "lsp14"}
DRAWN = {"coco17": "openpose18"}


class Lifted(NamedTuple):
    """What one lifter makes of P people.

    Attributes:
        keypoint_set: of its K points.
        points: (P, K, 3) from the middle of the hips, in pixels and camera axes, NaN where unknown.
        errors: (P,) millimetres, or None where the truth is not known.
    """

    keypoint_set: str
    points: Tensor
    errors: Tensor | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Lift, and return the exit status: 2 with one line on stderr where the input is of no use."""
    options = parse_options(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        model = BodyModel(open_body(options.detail))
        truth: dict[str, Any] | None = None
        if options.mocap is None:
            people = visible_people(load_keypoints(options.keypoints), options.keypoints)
        else:
            truth = turned_bodies(model, options.mocap, options.people, options.seed)
            people = photograph(model, truth, options.seed)
        lifted = {name: lift(name, points, people, model, truth) for name, points in LIFTERS.items()}
        depths = lifter_depths(people)
        flat = fit(model, people)
        solution = refit(model, people, depths, flat, options.steps)
        report(lifted, model, truth, {"keypoints alone": flat, "keypoints and the lifter's depths": solution})
        save_numbers(options.out / "lift.npz", people, lifted, depths, solution)
        draw(options.out / "lift.png", people, lifted, model, solution)
    except (OSError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    print(f"written to {options.out}: lift.npz, lift.png")
    return 0


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument("--keypoints", default=KEYPOINTS, metavar="FILE", help="OpenPose or COCO .json")
    parser.add_argument(
        "--mocap",
        nargs="?",
        const=SHIPPED,
        type=Path,
        metavar="FILE",
        help="poses with a known answer instead: AMASS .npz, CMU .amc; without FILE, a few that ship",
    )
    parser.add_argument("--people", type=int, default=4, help="how many poses of --mocap (default: %(default)s)")
    parser.add_argument("--detail", choices=("full", "low"), default="full", help="of the built-in body")
    parser.add_argument("--steps", type=int, default=100, help="of the fit to the depths (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of views and noise (default: %(default)s)")
    return parser.parse_args(arguments)


def visible_people(people: Keypoints2D, path: str | Path) -> Keypoints2D:
    """Return the people with enough visible keypoints."""
    places = ((people.confidence > 0).sum(-1) >= LEAST_KEYPOINTS).nonzero().flatten()
    if not len(places):
        raise ValueError(
            f"{path}: expected a person with {LEAST_KEYPOINTS} visible keypoints, got none; choose another frame"
        )
    return Keypoints2D(people.points[places], people.confidence[places], people.keypoint_set)


def turned_bodies(model: BodyModel, path: Path, count: int, seed: int) -> dict[str, Any]:
    """Return the arguments of bodies in poses of motion capture, in the axes of cameras on random sides."""
    poses = read_poses(model, path, count, seed)
    generator = torch.Generator().manual_seed(seed)
    turn, lean = 2 * math.pi * torch.rand(count, generator=generator), TILT * torch.randn(count, generator=generator)
    return {"body_pose": poses, "global_orient": facing(turn, lean)}


def points_of(model: BodyModel, params: dict[str, Any], keypoints: str) -> Tensor:
    """Return the keypoints (P, K, 3) of bodies."""
    with torch.no_grad():
        return model.keypoints(KeypointRegressor(keypoints, model.data), **params)


def photograph(model: BodyModel, truth: dict[str, Any], seed: int) -> Keypoints2D:
    """Return what a detector sees of bodies: all points of HMR's set, in pixels, with noise."""
    points = points_of(model, truth, "hmr19")[..., :2]
    low, high = points.amin(-2, keepdim=True), points.amax(-2, keepdim=True)
    pixels = SIZE / 2 + 0.8 * SIZE / (high - low).amax(-1, keepdim=True) * (points - (low + high) / 2)
    noise = NOISE * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed))
    return Keypoints2D(pixels + noise, torch.ones(pixels.shape[:-1]), "hmr19")


def lift(name: str, points: str, people: Keypoints2D, model: BodyModel, truth: dict[str, Any] | None) -> Lifted:
    """Return what a lifter makes of the people, and how far it is from the truth."""
    prior: Any = load_prior(name)
    seen = people.convert(points, approximate=True)
    with torch.no_grad():
        found = prior.lift(seen.points, seen.confidence) if name == "lifter" else prior(seen.points, seen.confidence)
    if truth is None:
        return Lifted(points, found, None)
    hips = tuple(keypoint_set(points).index(f"{side}_hip") for side in ("left", "right"))
    target = points_of(model, truth, points)
    mask = (seen.confidence > 0).to(found)
    return Lifted(points, found, 1000 * scale_aligned_mpjpe(found, target, mask=mask, protocol=Protocol(hips)))


def lifter_depths(people: Keypoints2D) -> Tensor:
    """Return the depths (P, 17) of the keypoints of COCO in metres, NaN where unseen."""
    prior: Any = load_prior("lifter")
    seen = people.convert(prior.keypoint_set)
    with torch.no_grad():
        return prior.metric_depths(seen.points, seen.confidence)


def fit(model: BodyModel, people: Keypoints2D) -> Solution:
    """Fit bodies to the keypoints alone."""
    seen = people.convert("coco17")
    return fit_keypoints(model, seen.points, seen.confidence, keypoint_set="coco17")


def refit(model: BodyModel, people: Keypoints2D, depths: Tensor, init: Solution, steps: int) -> Solution:
    """Register the fitted bodies to keypoints and their depths; there are no dense correspondences here."""
    seen, count = people.convert("coco17"), len(people)
    surface = SurfacePoints(torch.zeros(count, 0, dtype=torch.int64), torch.zeros(count, 0, 3))
    return register_surface(
        model,
        Correspondences(surface, torch.zeros(count, 0, 2), torch.zeros(count, 0)),
        keypoints=seen.points,
        confidence=seen.confidence,
        keypoint_set="coco17",
        depths=depths,
        init=init,
        steps=steps,
    )


def report(
    lifted: dict[str, Lifted], model: BodyModel, truth: dict[str, Any] | None, fitted: dict[str, Solution]
) -> None:
    """Print errors where the truth is known, else how deep each person is."""
    if truth is None:
        for name, one in lifted.items():
            deep = [f"{float(np.ptp(z[np.isfinite(z)])):.0f}" for z in one.points[..., 2].numpy()]
            print(f"{name:<10}  depth from front to back, pixels: {', '.join(deep)}")
        return
    for name, one in lifted.items():
        assert one.errors is not None
        print(f"{name:<10}  MPJPE {one.errors.mean():.0f} mm: {', '.join(f'{e:.0f}' for e in one.errors)}")
    target = points_of(model, truth, "coco17")
    for label, found in fitted.items():
        error = 1000 * pa_mpjpe(points_of(model, found.params, "coco17"), target)
        print(f"body fitted to {label}: PA-MPJPE {error.mean():.0f} mm")


def save_numbers(
    path: Path, people: Keypoints2D, lifted: dict[str, Lifted], depths: Tensor, solution: Solution
) -> None:
    """Write plain arrays: keypoints, the points of each lifter, depths in metres, and the model's arguments."""
    arrays = {"keypoints": people.points, "confidence": people.confidence, "depths": depths, **solution.params}
    arrays |= {f"points_{name}": one.points for name, one in lifted.items()}
    np.savez_compressed(path, **{name: value.numpy() for name, value in arrays.items()})


def draw(path: Path, people: Keypoints2D, lifted: dict[str, Lifted], model: BodyModel, solution: Solution) -> None:
    """Draw a row a person: as detected, then each lifter's skeleton and the fitted body from the image's right."""
    rows, columns = min(len(people), MOST_DRAWN), len(lifted) + 2
    height = 3.4
    figure, axes = plt.subplots(
        rows, columns, squeeze=False, dpi=DPI, figsize=(columns * height * SHAPE, rows * height), layout="constrained"
    )
    vertices = model(**solution.params).vertices
    assert solution.camera is not None
    solid = vertices * solution.camera.scale[:, None, None]
    normals = vertex_normals(vertices, model.faces)
    for i in range(rows):
        views = [(people.keypoint_set, people.points[i], people.confidence[i] > 0)]
        for one in lifted.values():
            # OpenPose's points have a neck, which joins COCO's head to the trunk.
            shown = DRAWN.get(one.keypoint_set, one.keypoint_set)
            points, known = convert_keypoints(one.points[i], one.keypoint_set, shown)
            side = points[:, [2, 1]]  # depth to the right: as seen from the image's right
            views.append((shown, side, known & side.isfinite().all(-1)))
        # All of a row at one scale, at which nothing is cut off: what was not detected may be the largest.
        drawn = [points[seen] for _, points, seen in views] + [solid[i][:, [2, 1]]]
        wide, high = torch.stack([points.amax(0) - points.amin(0) for points in drawn]).amax(0).tolist()
        extent = max(wide / SHAPE, high)
        for axis, (name, points, seen) in zip(axes[i], views, strict=False):
            draw_skeleton(axis, points, name, seen, extent, DETECTED if axis is axes[i, 0] else FITTED)
        draw_body(axes[i, -1], solid[i].numpy(), normals[i].numpy(), model.data.faces, extent)
        lifters = [k if one.errors is None else f"{k}, {one.errors[i]:.0f} mm" for k, one in lifted.items()]
        titles = (f"person {i + 1}, keypoints", *lifters, "body fitted to the depths")
        for axis, title in zip(axes[i], titles, strict=True):
            axis.set_title(title, fontsize=10, loc="left")
    figure.suptitle("keypoints as detected; what each lifter makes of them, seen from the image's right", fontsize=11)
    figure.savefig(path)
    plt.close(figure)


def draw_skeleton(axis: Axes, points: Tensor, name: str, seen: Tensor, extent: float, colour: str) -> None:
    """Draw points (K, 2) and the bones between those seen, `extent` pixels high."""
    for a, b in keypoint_set(name).bones:
        if bool(seen[a] & seen[b]):
            axis.plot(*points[[a, b]].T, color=colour, linewidth=2, solid_capstyle="round")
    axis.scatter(*points[seen].T, s=14, color=colour, edgecolors="white", linewidths=0.6, zorder=3)
    low, high = points[seen].amin(0), points[seen].amax(0)
    frame(axis, (low + high).numpy() / 2, extent)


def draw_body(axis: Axes, vertices: np.ndarray, normals: np.ndarray, faces: np.ndarray, extent: float) -> None:
    """Draw a mesh from the image's right."""
    quarter = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    turned, turned_normals = vertices @ quarter.T, normals @ quarter.T
    middle = (turned[:, :2].min(0) + turned[:, :2].max(0)) / 2
    pixels = 400
    left, right, bottom, top = frame(axis, middle, extent)
    placed = (turned - (left, top, 0)) * (pixels / (bottom - top))
    image = rasterise(placed, turned_normals, faces, round(pixels * SHAPE), pixels)
    axis.imshow(image, extent=(left, right, bottom, top))


def frame(axis: Axes, middle: np.ndarray, extent: float) -> tuple[float, float, float, float]:
    """Show what lies about `middle`, y down, and return left, right, bottom and top."""
    height = (1 + 2 * MARGIN) * extent
    left, right = middle[0] - SHAPE * height / 2, middle[0] + SHAPE * height / 2
    bottom, top = middle[1] + height / 2, middle[1] - height / 2
    axis.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axis.axis("off")
    return left, right, bottom, top


if __name__ == "__main__":
    torch.set_num_threads(1)  # the products of a few people are so small that threads only wait for each other
    sys.exit(main())
