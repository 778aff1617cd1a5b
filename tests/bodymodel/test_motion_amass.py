"""AMASS files: both generations, and damaged ones."""

import re

import numpy as np
import pytest
import torch
from physique.bodymodel import load_motion


def write(folder, frames=4, joints=52, **more):
    random = np.random.default_rng(0)
    arrays = {
        "poses": random.normal(size=(frames, 3 * joints)),
        "trans": random.normal(size=(frames, 3)),
        "betas": random.normal(size=16),
        "dmpls": random.normal(size=(frames, 8)),
        "gender": np.array("male"),
        "mocap_framerate": np.array(60.0),
    }
    path = folder / "walk_poses.npz"
    np.savez(path, **{key: value for key, value in (arrays | more).items() if value is not None})
    return path


def test_a_file_for_smplh(tmp_path):
    path = write(tmp_path)
    motion = load_motion(path, dtype=torch.float64)
    assert (motion.family, motion.gender, motion.fps, motion.up, len(motion)) == ("smplh", "male", 60.0, "z", 4)
    assert motion.skeleton.names[22] == "left_index1" and motion.rest_joints is None
    with np.load(path) as arrays:
        np.testing.assert_array_equal(motion.poses.flatten(1), arrays["poses"])
        np.testing.assert_array_equal(motion.translation, arrays["trans"])
        np.testing.assert_array_equal(motion.betas, arrays["betas"])
    assert load_motion(path).poses.dtype == torch.float32 and load_motion(path, up="y").up == "y"


def test_a_file_for_smplx(tmp_path):
    """The later generation has another name for the rate, split poses beside the whole ones, and lists of labels."""
    more = {
        "mocap_framerate": None,
        "dmpls": None,
        "mocap_frame_rate": np.array(120.0),
        "surface_model_type": np.array("smplx"),
        "root_orient": np.zeros((4, 3)),
        "pose_body": np.zeros((4, 63)),
        "num_betas": np.array(16),
        "latent_labels": np.array(["LFHD", None], dtype=object),
        "gender": np.array("neutral"),
    }
    motion = load_motion(write(tmp_path, joints=55, **more))
    assert (motion.family, motion.gender, motion.fps) == ("smplx", "neutral", 120.0)
    assert motion.skeleton.names[22] == "jaw"


def test_older_spellings(tmp_path):
    motion = load_motion(write(tmp_path, joints=24, gender=np.array(b"female"), betas=np.zeros((1, 10), np.float32)))
    assert (motion.family, motion.gender) == ("smpl", "female") and motion.betas.shape == (10,)
    bare = load_motion(write(tmp_path, gender=None, betas=None, mocap_framerate=None), fps=30)
    assert bare.gender is None and bare.betas is None and bare.fps == 30.0
    assert load_motion(write(tmp_path), fps=25).fps == 25.0


DAMAGE = {
    "no poses": ({"poses": None}, "poses: expected an array of poses, got .*trans"),
    "another width": ({"poses": np.zeros((4, 66))}, r"poses: expected \(T, 72\) for smpl, .* got \(4, 66\)"),
    "another rank": ({"poses": np.zeros((4, 52, 3))}, r"poses: expected .* got \(4, 52, 3\)"),
    "no translation": ({"trans": None}, r"trans: expected \(4, 3\), one a pose, got none"),
    "a frame too few": ({"trans": np.zeros((3, 3))}, r"trans: expected \(4, 3\), one a pose, got \(3, 3\)"),
    "no number": ({"trans": np.full((4, 3), np.nan)}, "trans: expected finite numbers"),
    "an infinite pose": ({"poses": np.full((4, 156), np.inf)}, "poses: expected finite numbers"),
    "words": ({"poses": np.full((4, 156), "a")}, "poses: expected finite numbers"),
    "a shape a frame": ({"betas": np.zeros((4, 16))}, r"betas: expected \(S,\), got \(4, 16\)"),
    "no rate": ({"mocap_framerate": None}, "mocap_framerate: expected the rate of the motion, got none; pass fps="),
    "a rate of zero": ({"mocap_framerate": np.array(0.0)}, "mocap_framerate: expected a positive number"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_refused_by_name(damage, tmp_path):
    change, message = DAMAGE[damage]
    path = write(tmp_path, **change)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: {message}"):
        load_motion(path)


def test_objects_in_place_of_numbers_run_nothing(tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "trap"), "w")

    with pytest.raises(ValueError, match=r"walk_poses\.npz: .*poses"):
        load_motion(write(tmp_path, poses=np.array([Trap()], dtype=object)))
    assert not (tmp_path / "trap").exists()


def test_other_files_are_refused(tmp_path):
    for contents, message in (
        (b"hello", "expected an .npz archive"),
        (b"", "empty file"),
        (b"PK\3\4xx", "damaged data"),
    ):
        (tmp_path / "a.npz").write_bytes(contents)
        with pytest.raises(ValueError, match=rf"a\.npz: .*{message}"):
            load_motion(tmp_path / "a.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(ValueError, match=r"folder\.npz: expected a motion file, got a folder"):
        load_motion(tmp_path / "folder.npz")
