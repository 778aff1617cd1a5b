"""Acclaim files: CMU's clips against published joint positions, small ones by hand, and damaged ones."""

import re

import numpy as np
import pytest
import torch
from damage import damaged
from oracles.mocap import euler
from physique.bodymodel import load_motion

ASF = """# made by hand
:version 1.10
:units
  mass 1.0
  length 0.5
  angle deg
:root
  order TX TY TZ RX RY RZ
  axis XYZ
  position 1 2 3
  orientation 0 0 0
:bonedata
  begin
    id 1
    name upper
    direction 0 1 0
    length 2
    axis 10 20 30 XYZ
    dof rx ry rz
    limits (-160.0 20.0)
           (-70.0 70.0)
           (-60.0 70.0)
  end
  begin
    id 2
    name fixed
    direction 1 0 0
    length 3
    axis 0 0 0 XYZ
  end
  begin
    id 3
    name lower
    direction 0 0 1
    length 1.5
    axis 40 -50 60 ZXY
    dof rz rx
  end
:hierarchy
  begin
    root upper fixed
    upper lower
  end
"""
AMC = """#!OML:ASF
:FULLY-SPECIFIED
:DEGREES
1
root 1 2 3 10 20 30
upper 40 50 60
lower 70 80
2
root 4 5 6 -10 -20 -30
lower -7 8
upper -40 -50 -60
"""


def write(folder, asf=ASF, amc=AMC, name="07_01.amc"):
    (folder / "07.asf").write_text(asf)
    (folder / name).write_text(amc)
    return folder / name


@pytest.mark.parametrize("clip", ["02_01", "02_03"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cmu_clips_stand_where_the_published_joints_are(clip, dtype, shared_data):
    motion = load_motion(shared_data / "mocap" / f"{clip}.amc", dtype=dtype)
    with np.load(shared_data / "mocap" / "cmu_joints_30fps.npz") as published:
        assert motion.skeleton.names == tuple(published["joint_names"])
        assert motion.skeleton.parents == tuple(published["parents"])
        expected = torch.tensor(published[f"clip_{clip}"], dtype=dtype)
    assert motion.fps == 120.0 and motion.turns == "bone" and motion.up == "y"
    torch.testing.assert_close(motion[::4].joints, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(motion.resample(30).joints, expected, rtol=0, atol=1e-6)


def test_a_truncated_clip_is_refused_and_read_up_to_there_on_request(shared_data):
    path = shared_data / "mocap" / "golf_01.amc"
    message = r"golf_01\.amc: line 13313: expected 29 bones in frame 444, got 19, no lfemur"
    with pytest.raises(ValueError, match=message + "; the file is damaged: pass strict=False to read the 443 frames"):
        load_motion(path)
    with pytest.warns(UserWarning, match=message + "; read the 443 frames before"):
        motion = load_motion(path, strict=False)
    with np.load(shared_data / "mocap" / "cmu_joints_30fps.npz") as published:
        expected = torch.tensor(published["clip_golf_01"])
    torch.testing.assert_close(motion[::4].joints, expected, rtol=0, atol=1e-6)


def test_bones_turn_about_their_axes_in_the_order_listed(tmp_path):
    """Each listed turn acts after the ones before it, about axes that the bone's `axis` has turned likewise."""
    motion = load_motion(write(tmp_path), dtype=torch.float64)
    assert motion.skeleton.names == ("root", "upper", "fixed", "lower") and motion.skeleton.parents == (-1, 0, 0, 1)
    upper_frame, lower_frame = euler("zyx", (30, 20, 10)), euler("yxz", (-50, 40, 60))
    rows = (((1, 2, 3), (10, 20, 30), (40, 50, 60), (70, 80)), ((4, 5, 6), (-10, -20, -30), (-40, -50, -60), (-7, 8)))
    for frame, (place, (x, y, z), (a, b, c), (d, e)) in enumerate(rows):
        root = euler("zyx", (z, y, x))
        upper = root @ upper_frame @ euler("zyx", (c, b, a)) @ upper_frame.T
        lower = upper @ lower_frame @ euler("xz", (e, d)) @ lower_frame.T
        start = np.array(place) + (1, 2, 3)
        joints = [
            start,
            start + upper @ (0, 2, 0),
            start + root @ (3, 0, 0),
            start + upper @ (0, 2, 0) + lower @ (0, 0, 1.5),
        ]
        expected = torch.tensor(np.array(joints) * 0.0254 / 0.5)
        torch.testing.assert_close(motion.joints[frame], expected)


def test_units_of_length_and_angle(tmp_path):
    metres = load_motion(write(tmp_path), unit=1, dtype=torch.float64)
    inches = load_motion(write(tmp_path, asf=ASF.replace("length 0.5", "length 1.0")), dtype=torch.float64)
    torch.testing.assert_close(inches.joints, metres.joints * 0.0254)
    turns = AMC.replace(":DEGREES", ":RADIANS")
    for degrees in ("10 20 30", "40 50 60", "70 80", "-10 -20 -30", "-7 8", "-40 -50 -60"):
        radians = " ".join(repr(float(np.radians(float(word)))) for word in degrees.split())
        turns = turns.replace(f" {degrees}\n", f" {radians}\n")
    radians = load_motion(write(tmp_path, amc=turns), unit=1, dtype=torch.float64)
    torch.testing.assert_close(radians.joints, metres.joints)


def test_rates(tmp_path):
    assert load_motion(write(tmp_path)).fps == 120.0
    assert load_motion(write(tmp_path), fps=60).fps == 60.0
    written = AMC.replace(":DEGREES", ":DEGREES\n:SAMPLES-PER-SECOND 100")
    assert load_motion(write(tmp_path, amc=written)).fps == 100.0


def test_bones_listed_before_their_parents_are_put_in_order(tmp_path):
    swapped = (
        ASF.replace("name upper", "name other").replace("name lower", "name upper").replace("name other", "name lower")
    )
    swapped = swapped.replace("dof rz rx", "dof rx ry rz").replace("dof rx ry rz\n    limits", "dof rz rx\n    limits")
    assert load_motion(write(tmp_path, asf=swapped)).skeleton.names == ("root", "fixed", "upper", "lower")


def test_the_skeleton_is_looked_for_beside_the_motion(tmp_path):
    path = write(tmp_path)
    expected = load_motion(path).joints
    (tmp_path / "07.asf").rename(tmp_path / "07_01.asf")
    assert torch.equal(load_motion(path).joints, expected)
    (tmp_path / "07_01.asf").rename(tmp_path / "elsewhere.asf")
    with pytest.raises(FileNotFoundError, match=r"07_01\.amc: expected its skeleton 07\.asf or 07_01\.asf beside it"):
        load_motion(path)
    assert torch.equal(load_motion(path, skeleton_path=tmp_path / "elsewhere.asf").joints, expected)
    with pytest.raises(FileNotFoundError, match=r"none\.asf: expected a motion file"):
        load_motion(path, skeleton_path=tmp_path / "none.asf")


AMC_DAMAGE = {
    "another kind": (lambda text: '{"a": 1}', "line 1: expected the number of the first frame"),
    "no frames": (lambda text: text.split("1\nroot")[0], "line 3: expected the number of the first frame"),
    "a bone missing": ("lower 70 80\n", "", "line 7: expected 3 bones in frame 1, got 2, no lower"),
    "a bone twice": ("lower 70 80", "upper 1 2 3", "line 7: expected each bone .* once"),
    "a bone unknown": ("lower 70 80", "tail 1 2 3", "line 7: expected each bone of the .asf"),
    "a bone that is fixed": ("lower 70 80", "fixed 1", "line 7: .* that moves"),
    "a number missing": ("lower 70 80", "lower 70", "line 7: expected 2 numbers for lower"),
    "a number too many": ("lower -7 8", "lower -7 8 9", "line 10: expected 2 numbers for lower"),
    "no number": ("lower -7 8", "lower -7 nan", "line 10: expected 2 numbers for lower in frame 2"),
    "a frame skipped": ("\n2\n", "\n3\n", "line 8: expected number 2 in frame 2, got '3'"),
    "a frame cut": (lambda text: text.split("upper -40")[0], "line 10: expected 3 bones in frame 2, got 2, no upper"),
    "a number cut": (lambda text: text.rstrip()[:-4] + "5e-", "line 11: expected 3 numbers for upper in frame 2"),
}
ASF_DAMAGE = {
    "another kind": (lambda text: "hello there", "expected bones that all hang on the root, got none"),
    "truncated": (
        lambda text: text.split(":hierarchy")[0],
        "expected bones that all hang on the root, got upper, fixed",
    ),
    "a loop": ("root upper", "lower upper", "expected bones .* got upper, fixed, lower elsewhere"),
    "an unknown child": ("upper lower", "upper tail", "line 42: expected each bone"),
    "two parents": ("upper lower", "upper lower fixed", "line 42: expected each bone"),
    "a name twice": ("name lower", "name upper", "line 38: expected a distinct name"),
    "no name": ("name lower", "name", "line 38: expected a distinct name"),
    "no begin": ("  begin\n    id 3", "    id 3", "line 31: expected begin, got 'id'"),
    "a cut direction": ("direction 0 1 0", "direction 0 1", "line 16: expected 3 numbers"),
    "no axis order": ("10 20 30 XYZ", "10 20 30", "line 18: expected an order of axes"),
    "a wrong axis order": ("30 XYZ", "30 XYX", "line 18: expected an order of axes .* 'XYX'"),
    "a length that moves": ("dof rz rx", "dof rz l", "line 37: expected distinct words among rx"),
    "no unit": ("length 0.5", "length 0", "line 5: expected a length above zero"),
    "another angle": ("angle deg", "angle grad", "line 6: expected deg or rad"),
}


@pytest.mark.parametrize("damage", AMC_DAMAGE)
def test_damaged_motions_are_refused_by_name_and_line(damage, tmp_path):
    changed, message = damaged(AMC, AMC_DAMAGE[damage])
    path = write(tmp_path, amc=changed)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: {message}"):
        load_motion(path)


@pytest.mark.parametrize("damage", ASF_DAMAGE)
def test_damaged_skeletons_are_refused_by_name_and_line(damage, tmp_path):
    changed, message = damaged(ASF, ASF_DAMAGE[damage])
    path = write(tmp_path, asf=changed)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path.with_name('07.asf')))}: line \d+: .*") as raised:
        load_motion(path)
    assert re.search(message, str(raised.value))


@pytest.mark.parametrize("damage", ["a number too many", "no number", "a frame skipped", "a frame cut", "a number cut"])
def test_frames_before_the_damage_can_be_read(damage, tmp_path):
    expected = load_motion(write(tmp_path)).joints
    path = write(tmp_path, amc=damaged(AMC, AMC_DAMAGE[damage])[0])
    with pytest.warns(UserWarning, match=r"07_01\.amc: line \d+: expected .+; read the 1 frames before"):
        motion = load_motion(path, strict=False)
    assert torch.equal(motion.joints, expected[:1])


def test_damage_in_the_first_frame_leaves_nothing_to_read(tmp_path):
    with pytest.raises(ValueError, match="line 7: expected 2 numbers for lower in frame 1"):
        load_motion(write(tmp_path, amc=damaged(AMC, AMC_DAMAGE["a number missing"])[0]), strict=False)
