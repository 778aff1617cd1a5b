"""Fit bodies to the 2D keypoints of people: an OpenPose or COCO file in; a picture, a mesh and numbers out.

Writes DIR/fit.png, DIR/fit.glb and DIR/fit.npz. Needs `pip install "physique[viz,io]"`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import trimesh
from drawing import Person, draw_people, read_image
from physique.bodymodel import (
    BodyModel,
    KeypointRegressor,
    Keypoints2D,
    keypoint_set,
    load_body_model,
    load_keypoints,
    open_body,
)
from physique.cameras import PerspectiveCamera, WeakPerspectiveCamera, default_focal, weak_to_perspective
from physique.fitting import Solution, Status, fit_keypoints
from physique.geometry import vertex_normals
from torch import Tensor
from tqdm import tqdm

LEAST_KEYPOINTS = 6
MOST_DRAWN = 8
HALF_TURN = torch.tensor([1.0, -1.0, -1.0])  # camera axes (y down, z forward) to those of glTF (y up, z backward)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, and return the exit status: 2 with one line on stderr where the input is of no use."""
    options = parse_options(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        people, indices = select_people(load_keypoints(options.keypoints), options.keypoints)
        image = None if options.image is None else read_image(options.image)
        data = open_body(options.detail) if options.model is None else load_body_model(options.model)
        camera = None if options.focal is None else pinhole(options.focal, people, image)
        model = BodyModel(data)
        regressor = KeypointRegressor(people.keypoint_set, data)
        solution = fit(model, people, camera, options.steps)
    except (OSError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    fitted = (solution.status != Status.INVALID).nonzero().flatten()
    report(people, indices, solution)
    save_numbers(options.out / "fit.npz", people, indices, solution)
    if len(fitted):
        save_meshes(options.out / "fit.glb", model, people, indices, solution, fitted)
        draw(options.out / "fit.png", model, regressor, people, indices, solution, fitted, image)
    print(f"written to {options.out}: {', '.join(sorted(path.name for path in options.out.glob('fit.*')))}")
    return 0


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keypoints", required=True, metavar="FILE", help="OpenPose (1.0 or later) or COCO .json")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument("--model", metavar="PATH", help="official SMPL, SMPL-H, SMPL-X or STAR file; default: built in")
    parser.add_argument("--detail", choices=("full", "low"), default="full", help="of the built-in body")
    parser.add_argument("--image", metavar="PATH", help="the image of the keypoints, to draw on")
    parser.add_argument("--focal", type=float, metavar="PIXELS", help="focal length, if known: fits with perspective")
    parser.add_argument("--steps", type=int, default=300, help="most steps of the fit (default: %(default)s)")
    return parser.parse_args(arguments)


def select_people(people: Keypoints2D, path: str) -> tuple[Keypoints2D, list[int]]:
    """Return the people with enough visible keypoints, and their places in the file, from 0."""
    enough = (people.confidence > 0).sum(-1) >= LEAST_KEYPOINTS
    indices = enough.nonzero().flatten().tolist()
    for i in (~enough).nonzero().flatten().tolist():
        print(f"person {i + 1}: left out, fewer than {LEAST_KEYPOINTS} visible keypoints")
    if not indices:
        raise ValueError(
            f"{path}: expected at least one person with {LEAST_KEYPOINTS} visible keypoints, got {len(people)} people "
            "without; choose another frame"
        )
    return Keypoints2D(
        people.points[indices],
        people.confidence[indices],
        people.keypoint_set,
        None if people.image_ids is None else tuple(people.image_ids[i] for i in indices),
        None if people.image_sizes is None else people.image_sizes[indices],
    ), indices


def sizes_of_images(people: Keypoints2D, image: np.ndarray | None = None) -> Tensor:
    """Return width and height (P, 2) of each person's image; unknown ones are (0, 0)."""
    if image is not None:
        return torch.tensor([image.shape[1], image.shape[0]], dtype=torch.float32).expand(len(people), 2)
    return torch.zeros(len(people), 2) if people.image_sizes is None else people.image_sizes


def pinhole(focal: float, people: Keypoints2D, image: np.ndarray | None) -> PerspectiveCamera:
    """Return a camera a person, of known focal length, whose axis goes through the middle of the image."""
    sizes = sizes_of_images(people, image)
    if not bool((sizes > 0).all()):
        raise ValueError("--focal: expected an image of known size, got keypoints alone; give --image too")
    if focal <= 0:
        raise ValueError(f"--focal: expected pixels above 0, got {focal:g}; give the focal length in pixels")
    count = len(people)
    return PerspectiveCamera(
        torch.full((count, 2), focal), sizes / 2, torch.eye(3).expand(count, 3, 3), torch.zeros(count, 3)
    )


def fit(model: BodyModel, people: Keypoints2D, camera: PerspectiveCamera | None, steps: int) -> Solution:
    """Fit all people at once, with a progress bar."""
    with tqdm(total=steps, desc=f"fitting {len(people)} of {people.keypoint_set}", unit="step") as bar:
        return fit_keypoints(
            model,
            people.points,
            people.confidence,
            keypoint_set=people.keypoint_set,
            camera=camera,
            steps=steps,
            callback=lambda step, _: bar.update(step - bar.n),
        )


def name_of(people: Keypoints2D, indices: list[int], i: int) -> str:
    """Return what to call person `i` of those fitted: its place in the file, from 1, and its image if known."""
    image = "" if people.image_ids is None else f" of image {people.image_ids[i]}"
    return f"person {indices[i] + 1}{image}"


def report(people: Keypoints2D, indices: list[int], solution: Solution) -> None:
    """Print the error of each person in pixels."""
    assert solution.residuals is not None
    sizes = [
        (row[seen].amax(0) - row[seen].amin(0)).norm()
        for row, seen in zip(people.points, people.confidence > 0, strict=True)
    ]
    for i, (residuals, status) in enumerate(zip(solution.residuals, solution.status.tolist(), strict=True)):
        if status == Status.INVALID:
            print(f"{name_of(people, indices, i)}: not fitted, its keypoints do not span a box")
            continue
        seen = residuals[residuals.isfinite()]
        print(
            f"{name_of(people, indices, i)}: mean error {seen.mean():.1f} pixels over {len(seen)} keypoints, "
            f"largest {seen.max():.1f}, of a person {sizes[i]:.0f} pixels across"
        )


def save_numbers(path: Path, people: Keypoints2D, indices: list[int], solution: Solution) -> None:
    """Write parameters, camera and residuals as plain arrays: `model(**params)` gives the bodies again."""
    arrays: dict[str, Tensor] = {**solution.params, "keypoints": people.points, "confidence": people.confidence}
    assert solution.camera is not None and solution.residuals is not None
    for name, value in solution.camera._asdict().items():
        if value is not None:
            arrays[f"camera_{name}"] = value
    arrays |= {"residuals": solution.residuals, "status": solution.status}
    texts = {"keypoint_set": people.keypoint_set}
    if people.image_ids is not None:
        texts["image_ids"] = [str(name) for name in people.image_ids]
    np.savez_compressed(
        path, person=np.array(indices), **{name: value.numpy() for name, value in arrays.items()}, **texts
    )


def full_cameras(people: Keypoints2D, solution: Solution) -> PerspectiveCamera:
    """Return a pinhole camera a person that shows all of an image's people in one space.

    A weak-perspective camera knows no distance. The focal length of an unknown camera is taken as the diagonal of the
    image (CLIFF), or of the keypoints where the size of the image is not known; the scale then tells the distance.
    """
    if isinstance(solution.camera, PerspectiveCamera):
        return solution.camera
    assert isinstance(solution.camera, WeakPerspectiveCamera)
    sizes = sizes_of_images(people)
    sizes = torch.where((sizes > 0).all(-1, keepdim=True), sizes, people.points.flatten(0, 1).amax(0).clamp(min=1))
    return weak_to_perspective(solution.camera, focal=default_focal(sizes), center=sizes / 2)


def save_meshes(
    path: Path, model: BodyModel, people: Keypoints2D, indices: list[int], solution: Solution, fitted: Tensor
) -> None:
    """Write all bodies as one .glb in metres, y up, seen from the camera at the origin; images lie side by side."""
    out = model(**solution.params)
    vertices = full_cameras(people, solution).to_camera(out.vertices)[fitted] * HALF_TURN
    normals = vertex_normals(vertices, model.faces)
    scene, start, image_before, right = trimesh.Scene(), 0.0, None, 0.0
    for i, person in enumerate(fitted.tolist()):
        image = None if people.image_ids is None else people.image_ids[person]
        if image != image_before:
            same = [
                k for k, other in enumerate(fitted.tolist()) if people.image_ids and people.image_ids[other] == image
            ]
            start, image_before = right - float(vertices[same][..., 0].min()) + 0.5, image
        placed = vertices[i] + torch.tensor([start, 0.0, 0.0])
        right = max(right, float(placed[:, 0].max()))
        mesh = trimesh.Trimesh(placed.numpy(), model.data.faces, vertex_normals=normals[i].numpy(), process=False)
        material = trimesh.visual.material.PBRMaterial(
            baseColorFactor=(181, 194, 212, 255), metallicFactor=0.0, roughnessFactor=0.7
        )
        mesh.visual = trimesh.visual.TextureVisuals(material=material)
        scene.add_geometry(mesh, node_name=name_of(people, indices, person))
    scene.export(path, include_normals=True)


def draw(
    path: Path,
    model: BodyModel,
    regressor: KeypointRegressor,
    people: Keypoints2D,
    indices: list[int],
    solution: Solution,
    fitted: Tensor,
    image: np.ndarray | None,
) -> None:
    """Draw the people, the largest ones if they are many."""
    assert solution.camera is not None and solution.residuals is not None
    out = model(**solution.params)
    pixels = solution.camera.project(out.vertices)
    skeleton = solution.camera.project(model.keypoints(regressor, **solution.params))
    if isinstance(solution.camera, PerspectiveCamera):
        seen, scale = solution.camera.to_camera(out.vertices), solution.camera.focal.mean(-1)
        scale = scale / seen[..., 2].mean(-1)
    else:
        seen, scale = out.vertices, solution.camera.scale
    # The depth of each vertex in pixels, as far as the person is from the camera on average.
    solid = torch.cat([pixels, scale[:, None, None] * seen[..., 2:]], dim=-1)
    normals = vertex_normals(solid, model.faces)
    forward = out.joint_rotations[:, 0, 0, 2]
    extent = (pixels.amax(-2) - pixels.amin(-2)).norm(dim=-1)
    largest = sorted(fitted.tolist(), key=lambda i: -extent[i])[:MOST_DRAWN]
    if len(largest) < len(fitted):
        print(f"fit.png shows the {MOST_DRAWN} largest of {len(fitted)} people")
    pictures = [
        Person(
            title=f"{name_of(people, indices, i)}\nmean error {solution.residuals[i].nanmean():.1f} pixels",
            vertices=solid[i].numpy(),
            normals=normals[i].numpy(),
            keypoints=people.points[i].numpy(),
            seen=(people.confidence[i] > 0).numpy(),
            fitted=skeleton[i].numpy(),
            bones=[pair for pair in keypoint_set(people.keypoint_set).bones if regressor.valid[list(pair)].all()],
            from_right=bool(forward[i] >= 0),
            image=image,
        )
        for i in sorted(largest)
    ]
    draw_people(pictures, model.data.faces, path)


if __name__ == "__main__":
    sys.exit(main())
