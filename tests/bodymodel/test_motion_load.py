"""Loading motions: arguments that make no sense, and files damaged in ways nobody thought of."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.mocap import random_bvh, write_bvh
from physique.bodymodel import Motion, load_motion
from refusals import refuses

BVH = write_bvh(random_bvh(np.random.default_rng(0), 4, 3)).encode()
ASF = b""":units
length 0.45
angle deg
:root
order TX TY TZ RX RY RZ
axis XYZ
position 0 0 0
orientation 0 0 0
:bonedata
begin
name arm
direction 1 0 0
length 2
axis 0 0 20 XYZ
dof rx rz
end
:hierarchy
begin
root arm
end
"""
AMC = b":DEGREES\n1\nroot 1 2 3 4 5 6\narm 7 8\n2\nroot 1 2 3 4 5 6\narm 7 8\n"


@pytest.mark.parametrize(
    "name, more, error, message",
    [
        ("none.bvh", {}, FileNotFoundError, "none.bvh: expected a motion file, got no file; check the path"),
        ("none.amc", {}, FileNotFoundError, "none.amc: expected its skeleton"),
        ("none.npz", {}, FileNotFoundError, "none.npz: expected a motion file, got no file; check the path"),
        ("clip.fbx", {}, ValueError, "path: expected a name that ends in .npz, .bvh or .amc, got clip.fbx; these"),
        ("02.asf", {}, ValueError, "path: expected a name that ends in .npz, .bvh or .amc, got 02.asf; give the .amc"),
    ],
)
def test_what_cannot_be_loaded_is_said(name, more, error, message, tmp_path):
    with pytest.raises(error, match=message):
        load_motion(tmp_path / name, **more)


def test_arguments_are_checked(tmp_path):
    with refuses("unit"):
        load_motion(tmp_path / "a.bvh", unit=0.0)
    with refuses("fps"):
        load_motion(tmp_path / "a.bvh", fps=-1.0)
    with refuses("up"):
        load_motion(tmp_path / "a.bvh", up="x")


def test_endings_may_be_in_capitals(tmp_path):
    (tmp_path / "A.BVH").write_bytes(BVH)
    assert len(load_motion(tmp_path / "A.BVH", unit=1)) == 3


@st.composite
def damaged(draw, whole):
    """Return the file with a piece cut out, doubled or replaced, or its end missing."""
    start = draw(st.integers(0, len(whole)))
    end = draw(st.integers(start, min(len(whole), start + 40)))
    middle = draw(
        st.one_of(
            st.just(b""),
            st.just(whole[start:end] * 2),
            st.binary(max_size=6),
            st.sampled_from([b"\n", b"nan", b"1e999", b"-", b"{", b"}", b" 7 ", b"\0", b"9999999999", b"1_0"]),
        )
    )
    return whole[:start] + middle + (b"" if draw(st.booleans()) else whole[end:])


def load_damaged(files, strict=True):
    """Return what comes of the files: a sound motion, or the text of a ValueError that names one of them."""
    with TemporaryDirectory() as folder:
        for name, contents in files.items():
            (Path(folder) / name).write_bytes(contents)
        path = Path(folder) / next(iter(files))
        try:
            motion = load_motion(path, unit=None if path.suffix == ".npz" else 0.01, strict=strict)
        except ValueError as error:
            assert any(name in str(error) for name in files) and ": expected " in str(error)
            return
        assert isinstance(motion, Motion) and len(motion) > 0
        finite = motion.poses if motion.rest_joints is None else motion.joints
        assert bool(torch.isfinite(finite).all())


@given(damaged(BVH))
def test_a_damaged_bvh_gives_a_motion_or_a_clear_error(contents):
    load_damaged({"clip.bvh": contents})


@given(damaged(AMC))
def test_a_damaged_amc_gives_a_motion_or_a_clear_error(contents):
    load_damaged({"01_01.amc": contents, "01.asf": ASF})


@given(damaged(ASF))
def test_a_damaged_asf_gives_a_motion_or_a_clear_error(contents):
    load_damaged({"01_01.amc": AMC, "01.asf": contents})


@given(st.data())
def test_a_damaged_npz_gives_a_motion_or_a_clear_error(data):
    load_damaged({"clip.npz": data.draw(damaged(npz()))})


def npz():
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.npz"
        np.savez(path, poses=np.zeros((2, 72)), trans=np.zeros((2, 3)), mocap_framerate=np.array(30.0))
        return path.read_bytes()
