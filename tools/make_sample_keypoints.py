"""Write examples/data/keypoints.json: the built-in body as two people, seen by a camera, in OpenPose's format."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from physique.bodymodel import BodyModel, KeypointRegressor, open_body
from physique.cameras import PerspectiveCamera
from physique.geometry import axis_angle_to_matrix

NOISE = 2.0  # pixels
# Degrees about x, y, z, turned in the order z, y, x. A person: betas, heading, place in metres, pose, missing points.
WALKING = {
    **{"left_hip": (-26, 0, 2), "left_knee": (12, 0, 0), "left_ankle": (-4, 0, 0)},
    **{"right_hip": (16, 0, -2), "right_knee": (28, 0, 0), "right_ankle": (12, 0, 0)},
    **{"left_shoulder": (22, 0, -72), "left_elbow": (0, -18, 0), "left_collar": (0, 0, -4)},
    **{"right_shoulder": (-28, 0, 72), "right_elbow": (0, 38, 0), "right_collar": (0, 0, 4)},
    **{"spine1": (4, -5, 0), "spine2": (2, -4, 0), "head": (-2, 8, 0)},
}
WAVING = {
    **{"right_shoulder": (-75, 0, -12), "right_elbow": (0, 88, 0), "right_collar": (0, 0, -8)},
    **{"left_shoulder": (0, -10, -68), "left_elbow": (0, -22, 0), "left_collar": (0, 0, -4)},
    **{
        "left_hip": (-6, 0, 6),
        "left_knee": (12, 0, 0),
        "right_hip": (0, 0, -3),
        "spine1": (0, 0, 3),
        "head": (4, -6, 4),
    },
}
PEOPLE = (
    ([-1.2, 0.5, 0.0], 40, (-0.7, 0.0, 0.0), WAVING, ("left_ear", "right_small_toe")),
    ([1.0, -0.6, 0.4], -62, (0.75, 0.0, 0.2), WALKING, ("left_ear", "right_small_toe", "right_heel")),
)


def euler(degrees: tuple[float, float, float]) -> torch.Tensor:
    """Return the rotation (3, 3) about z, then y, then x."""
    x, y, z = (axis_angle_to_matrix(math.radians(a) * axis) for a, axis in zip(degrees, torch.eye(3), strict=True))
    return x @ y @ z


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "examples/data/keypoints.json")
    torch.manual_seed(3)
    data = open_body()
    model, regressor = BodyModel(data), KeypointRegressor("openpose25", data)
    # At chest height, 8 m away, looking along -z of the world and a little down.
    tilt = euler((180 + 2, 0, 0))
    place = -tilt @ torch.tensor([0.0, 0.2, 8.0])
    camera = PerspectiveCamera(torch.tensor([2000.0, 2000.0]), torch.tensor([640.0, 360.0]), tilt, place)
    people = []
    for betas, heading, place, pose, missing in PEOPLE:
        body_pose = torch.stack([euler(pose.get(name, (0, 0, 0))) for name in data.skeleton.names[1:]])
        arguments = {"global_orient": euler((0, heading, 0)), "body_pose": body_pose, "rotation": "matrix"}
        points = model.keypoints(regressor, betas=torch.tensor(betas), transl=torch.tensor(place), **arguments)
        pixels = camera.project(points) + NOISE * torch.randn(25, 2)
        seen = torch.tensor([name not in missing for name in regressor.names])
        confidence = 0.75 + 0.2 * torch.rand(25)
        triples = torch.where(seen[:, None], torch.cat([pixels, confidence[:, None]], -1), 0)
        numbers = [round(number, 3) for number in triples.flatten().tolist()]
        people.append({"person_id": [-1], "pose_keypoints_2d": numbers})
    parser.parse_args().out.write_text(json.dumps({"version": 1.3, "people": people}) + "\n")


if __name__ == "__main__":
    main()
