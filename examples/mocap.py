"""Read motion capture of CMU's skeleton, .amc, .bvh or .npz, and fit bodies to it."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from physique.bodymodel import BodyModel, keypoint_set, load_motion
from physique.fitting import Solution, fit_joints
from torch import Tensor

BONES = keypoint_set("cmu31")
# Acclaim names a bone and means its end; BVH files name the joint that lies there.
BVH_NAMES = {
    **{"Hips": "root", "Chest": "lowerback", "Chest2": "upperback", "Neck": "lowerneck", "Head": "upperneck"},
    **{
        f"{side}{joint}": side[0].lower() + bone
        for side in ("Left", "Right")
        for joint, bone in (
            *(("Hip", "hipjoint"), ("Knee", "femur"), ("Ankle", "tibia"), ("Toe", "foot")),
            *(("Shoulder", "clavicle"), ("Elbow", "humerus"), ("Wrist", "radius")),
        )
    },
}
# Spines are divided differently: those points are pulled on less. The end of the upper neck lies behind the joint of
# the head, where a strong pull would have everybody look up.
WEIGHTS = {"lowerback": 0.3, "upperback": 0.3, "thorax": 0.3, "lowerneck": 0.3, "upperneck": 0.02}
LEAST_BONES = 10


class Clip(NamedTuple):
    """T frames of captured points.

    Attributes:
        joints: (T, 31, 3) metres, in the order of the keypoint set "cmu31"; zero where the file has none.
        weights: (31,) for `fit_joints`: how far each point is the same as the model's joint; zero where either is not.
        fps: frames a second.
    """

    joints: Tensor
    weights: Tensor
    fps: float


def read_clips(path: str | Path, *, fps: float = 30.0, unit: float | None = None) -> dict[str, Clip]:
    """Return the clips of a file by name.

    Args:
        path: .amc with its .asf, .bvh, or an .npz of joint positions: `joint_names` (J,), and `clip_<name>` (T, J, 3)
            in metres.
        fps: of the result; the rate of an .npz, which does not tell it.
        unit: metres in the unit of a .bvh, which does not tell it.

    Raises:
        ValueError: a file of another kind, of another skeleton, or of no human size in this unit.
        OSError: it cannot be read.
    """
    path = Path(path)
    if path.suffix == ".npz":
        stored = read_positions(path)
        if stored is None:
            raise ValueError(f"{path}: expected arrays joint_names and clip_<name>, got neither; see the usage")
        names, clips = stored
        return {name: _in_order(path, joints, names, fps) for name, joints in clips.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # of a skeleton in another unit no body can be made
            motion = load_motion(path, unit=unit)
    except UserWarning as warning:
        raise ValueError(str(warning)) from None
    if motion.fps > fps:
        motion = motion.resample(fps)
    return {path.stem: _in_order(path, motion.joints.float(), motion.skeleton.names, float(motion.fps))}


def read_positions(path: Path) -> tuple[tuple[str, ...], dict[str, Tensor]] | None:
    """Return the names of the joints (J,) and the clips (T, J, 3) of an .npz; None where it has no `joint_names`."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            if "joint_names" not in saved:
                return None
            names = tuple(str(name) for name in saved["joint_names"])
            clips = {key[5:]: torch.from_numpy(saved[key]).float() for key in saved if key.startswith("clip_")}
    except (zipfile.BadZipFile, ValueError, TypeError, EOFError) as error:
        raise ValueError(f"{path}: expected an .npz of arrays, got one that cannot be read; check the file") from error
    if not clips or any(clip.ndim != 3 or clip.shape[1:] != (len(names), 3) for clip in clips.values()):
        raise ValueError(f"{path}: expected clips (T, {len(names)}, 3), got other arrays; name them clip_...")
    return names, clips


def fit_clip(model: BodyModel, clip: Clip, *, sequence: bool = True, **options: Any) -> Solution:
    """Fit a body to a clip: one shape and a smooth motion; without `sequence` each frame for itself."""
    return fit_joints(model, clip.joints, keypoint_set=BONES.name, weights=clip.weights, sequence=sequence, **options)


def _in_order(path: Path, joints: Tensor, names: tuple[str, ...], fps: float) -> Clip:
    """Return captured points (T, J, 3) in the order of the keypoint set."""
    found = {BVH_NAMES.get(name, name): index for index, name in enumerate(names)}
    if len(found.keys() & set(BONES.names)) < LEAST_BONES:
        raise ValueError(
            f"{path}: expected the joint names of CMU's Acclaim or BVH files, got {', '.join(names[:6])}, ...; "
            "extend the table BVH_NAMES"
        )
    ordered = joints.new_zeros(len(joints), len(BONES), 3)
    weights = joints.new_zeros(len(BONES))
    for index, (bone, joint) in enumerate(zip(BONES.names, BONES.joints or (), strict=True)):
        if bone in found:
            ordered[:, index] = joints[:, found[bone]]
            weights[index] = WEIGHTS.get(bone, 1.0) if joint else 0.0
    return Clip(ordered, weights, fps)
