"""Fit bodies to the 2D keypoints of people: an OpenPose or COCO file in; a picture, a mesh and numbers out.

Writes DIR/fit.png, DIR/fit.glb and DIR/fit.npz. Needs `pip install "physique[viz,io]"`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
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
MOST_DRAWN, MOST_MESHES = 8, 50
HALF_TURN = torch.tensor([1.0, -1.0, -1.0])  # camera axes (y down, z forward) to those of glTF (y up, z backward)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, and return the exit status: 2 with one line on stderr where the input is of no use."""
    options = parse_options(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        people, places = select_people(load_keypoints(options.keypoints), options.keypoints)
        image = None if options.image is None else read_image(options.image)
        if image is not None:
            people = replace(people, image_sizes=torch.tensor([image.shape[1::-1]]).float().expand(len(people), 2))
        data = open_body(options.detail) if options.model is None else load_body_model(options.model)
        model, camera = BodyModel(data), None if options.focal is None else pinhole(options.focal, people)
        solution = fit(model, people, camera, options.steps)
        names = [f"person {place + 1}" for place in places]
        if people.image_ids is not None:
            names = [f"{name} of image {image_id}" for name, image_id in zip(names, people.image_ids, strict=True)]
        largest = report(names, people, solution)
        if not largest:
            raise ValueError(
                f"{options.keypoints}: expected a person to fit, got keypoints without extent; check the file"
            )
        save_numbers(options.out / "fit.npz", places, people, solution)
        save_meshes(options.out / "fit.glb", sorted(largest[:MOST_MESHES]), names, model, people, solution)
        draw(options.out / "fit.png", sorted(largest[:MOST_DRAWN]), names, model, people, solution, image)
    except (OSError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    print(f"written to {options.out}: fit.glb, fit.npz, fit.png")
    for file, most in (("fit.png", MOST_DRAWN), ("fit.glb", MOST_MESHES)):
        if len(largest) > most:
            print(f"{file} has the {most} largest of {len(largest)} people")
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
    places = enough.nonzero().flatten().tolist()
    if not places:
        raise ValueError(
            f"{path}: expected at least one person with {LEAST_KEYPOINTS} visible keypoints, "
            f"got {len(people)} people and none; choose another frame"
        )
    for place in (~enough).nonzero().flatten().tolist():
        print(f"person {place + 1}: left out, fewer than {LEAST_KEYPOINTS} visible keypoints")
    return Keypoints2D(
        people.points[places],
        people.confidence[places],
        people.keypoint_set,
        None if people.image_ids is None else tuple(people.image_ids[place] for place in places),
        None if people.image_sizes is None else people.image_sizes[places],
    ), places


def pinhole(focal: float, people: Keypoints2D) -> PerspectiveCamera:
    """Return a camera a person, of known focal length, whose axis goes through the middle of the image."""
    sizes = people.image_sizes
    if sizes is None or not bool((sizes > 0).all()):
        raise ValueError("--focal: expected an image of known size, got keypoints alone; give --image too")
    if not focal > 0:
        raise ValueError(f"--focal: expected pixels above 0, got {focal:g}; give the focal length in pixels")
    count = len(people)
    return PerspectiveCamera(
        torch.full((count, 2), focal), sizes / 2, torch.eye(3).expand(count, 3, 3), torch.zeros(count, 3)
    )


def fit(model: BodyModel, people: Keypoints2D, camera: PerspectiveCamera | None, steps: int) -> Solution:
    """Fit all people at once, with a progress bar."""
    with tqdm(total=steps, desc=f"fitting {len(people)} of {people.keypoint_set}", unit="step") as bar:
        solution = fit_keypoints(
            model,
            people.points,
            people.confidence,
            keypoint_set=people.keypoint_set,
            camera=camera,
            steps=steps,
            callback=lambda step, _: bar.update(step - bar.n),
        )
        bar.total = bar.n  # it stops early once everyone has converged
    return solution


def report(names: Sequence[str], people: Keypoints2D, solution: Solution) -> list[int]:
    """Print the error of each person in pixels, and return those that were fitted, the largest first."""
    assert solution.residuals is not None
    sizes = {}
    for i, (name, residuals) in enumerate(zip(names, solution.residuals, strict=True)):
        if solution.status[i] == Status.INVALID:
            print(f"{name}: not fitted, its keypoints do not span a box")
            continue
        points, errors = people.points[i][people.confidence[i] > 0], residuals[residuals.isfinite()]
        sizes[i] = float((points.amax(0) - points.amin(0)).norm())
        print(
            f"{name}: mean error {errors.mean():.1f} pixels over {len(errors)} keypoints, "
            f"largest {errors.max():.1f}, of a person {sizes[i]:.0f} pixels across"
        )
    return sorted(sizes, key=lambda i: -sizes[i])


def save_numbers(path: Path, places: Sequence[int], people: Keypoints2D, solution: Solution) -> None:
    """Write parameters, camera and residuals as plain arrays: `model(**params)` gives the bodies again."""
    assert solution.camera is not None and solution.residuals is not None
    tensors = {**solution.params, "keypoints": people.points, "confidence": people.confidence}
    tensors |= {f"camera_{name}": value for name, value in solution.camera._asdict().items() if value is not None}
    tensors |= {"residuals": solution.residuals, "status": solution.status}
    arrays = {name: value.numpy() for name, value in tensors.items()}
    arrays |= {"person": np.array(places), "keypoint_set": np.array(people.keypoint_set)}
    if people.image_ids is not None:
        arrays["image_ids"] = np.array([str(image_id) for image_id in people.image_ids])
    np.savez_compressed(path, **arrays)


def full_camera(people: Keypoints2D, solution: Solution) -> PerspectiveCamera:
    """Return a pinhole camera a person that shows all of an image's people in one space.

    A weak-perspective camera knows no distance. The focal length of an unknown camera is taken as the diagonal of the
    image (CLIFF), or of the keypoints where the size of the image is not known; the scale then tells the distance.
    """
    if isinstance(solution.camera, PerspectiveCamera):
        return solution.camera
    assert isinstance(solution.camera, WeakPerspectiveCamera)
    sizes = people.points.flatten(0, 1).amax(0).clamp(min=1).expand(len(people), 2)
    if people.image_sizes is not None:
        sizes = torch.where((people.image_sizes > 0).all(-1, keepdim=True), people.image_sizes, sizes)
    return weak_to_perspective(solution.camera, focal=default_focal(sizes), center=sizes / 2)


def select(solution: Solution, ids: Sequence[int]) -> dict[str, Tensor]:
    """Return the model's arguments for some of the people."""
    return {name: value[list(ids)] for name, value in solution.params.items()}


def save_meshes(
    path: Path, ids: Sequence[int], names: Sequence[str], model: BodyModel, people: Keypoints2D, solution: Solution
) -> None:
    """Write bodies as one .glb in metres, y up, the camera at the origin; several images stand side by side."""
    camera = PerspectiveCamera(
        *(None if field is None else field[list(ids)] for field in full_camera(people, solution))
    )
    vertices = camera.to_camera(model(**select(solution, ids)).vertices) * HALF_TURN
    normals = vertex_normals(vertices, model.faces)
    images = [None if people.image_ids is None else people.image_ids[i] for i in ids]
    if len(set(images)) > 1:
        right = 0.0
        for image in dict.fromkeys(images):
            same = [k for k, other in enumerate(images) if other == image]
            vertices[same] += torch.tensor([right - float(vertices[same][..., 0].min()), 0.0, 0.0])
            right = float(vertices[same][..., 0].max()) + 0.5
    material = trimesh.visual.material.PBRMaterial(
        baseColorFactor=(181, 194, 212, 255), metallicFactor=0.0, roughnessFactor=0.7
    )
    scene = trimesh.Scene()
    for i, body, outward in zip(ids, vertices.numpy(), normals.numpy(), strict=True):
        mesh = trimesh.Trimesh(body, model.data.faces, vertex_normals=outward, process=False)
        mesh.visual = trimesh.visual.TextureVisuals(material=material)
        scene.add_geometry(mesh, node_name=names[i])
    scene.export(path, include_normals=True)


def draw(
    path: Path,
    ids: Sequence[int],
    names: Sequence[str],
    model: BodyModel,
    people: Keypoints2D,
    solution: Solution,
    image: np.ndarray | None,
) -> None:
    """Draw some of the people from the front and from the side."""
    assert solution.camera is not None and solution.residuals is not None
    camera = type(solution.camera)(*(None if field is None else field[list(ids)] for field in solution.camera))
    out = model(**select(solution, ids))
    regressor = KeypointRegressor(people.keypoint_set, model.data)
    skeleton = camera.project(model.keypoints(regressor, **select(solution, ids)))
    bones = [pair for pair in keypoint_set(people.keypoint_set).bones if bool(regressor.valid[list(pair)].all())]
    # Vertices as the image shows them, with a depth in pixels that keeps their proportions.
    if isinstance(camera, PerspectiveCamera):
        depth = camera.to_camera(out.vertices)[..., 2:]
        depth = depth * camera.focal.mean(-1)[:, None, None] / depth.mean(-2, keepdim=True)
    else:
        depth = out.vertices[..., 2:] * camera.scale[:, None, None]
    solid = torch.cat([camera.project(out.vertices), depth], dim=-1)
    normals = vertex_normals(solid, model.faces)
    pictures = [
        Person(
            title=f"{names[i]}\nmean error {solution.residuals[i].nanmean():.1f} pixels",
            vertices=solid[k].numpy(),
            normals=normals[k].numpy(),
            keypoints=people.points[i].numpy(),
            seen=(people.confidence[i] > 0).numpy(),
            fitted=skeleton[k].numpy(),
            bones=bones,
            from_right=bool(out.joint_rotations[k, 0, 0, 2] >= 0),
            image=image,
        )
        for k, i in enumerate(ids)
    ]
    draw_people(pictures, model.data.faces, path)


if __name__ == "__main__":
    torch.set_num_threads(1)  # the products of a few people are so small that threads only wait for each other
    sys.exit(main())
