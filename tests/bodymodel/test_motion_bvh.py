"""BVH files: random ones against loops, a real one, and damaged ones."""

import re

import numpy as np
import pytest
import torch
from damage import damaged
from oracles.mocap import bvh_joints, random_bvh, write_bvh
from physique.bodymodel import load_motion

CMU_UNIT = 0.0254 / 0.45

NOD = """HIERARCHY
ROOT neck
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT head
  {
    OFFSET 0 1 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 0.5 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.0083333
0 1 0  0 0 0  0 0 0
0 1 0  0 0 0  0 90 0
"""


def write(folder, text, name="clip.bvh"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("seed", range(5))
def test_random_files_move_as_loops_say(seed, tmp_path):
    """Joints with none to six channels in any order; position channels stand in for offsets."""
    bvh = random_bvh(np.random.default_rng(seed), count=9, frames=4)
    motion = load_motion(write(tmp_path, write_bvh(bvh)), unit=0.5, dtype=torch.float64)
    expected = 0.5 * bvh_joints(bvh)
    names = [name for name, *_ in bvh["joints"]]
    order = [names.index(name) for name in motion.skeleton.names]
    torch.testing.assert_close(motion.joints, torch.tensor(expected[:, order]), rtol=0, atol=1e-9)
    parents = [bvh["joints"][i][1] for i in order]
    assert [p if p < 0 else order[p] for p in motion.skeleton.parents] == parents
    assert motion.fps == 30.0 and motion.up == "y"


def test_a_real_file(shared_data):
    motion = load_motion(shared_data / "mocap" / "cmu_jumping_jacks.bvh", unit=CMU_UNIT)
    assert motion.joints.shape == (125, 31, 3) and motion.fps == 30.0 and motion.rest_joints.shape == (31, 3)
    names = motion.skeleton.names
    assert names[:3] == ("Hips", "LHipJoint", "LeftHip") and motion.skeleton.parents[3] == 2
    first = torch.tensor([-1.9935, 17.6817, 0.1012]) * CMU_UNIT
    torch.testing.assert_close(motion.joints[0, 0], first)
    thigh = torch.linalg.vector_norm(torch.tensor([2.57139, -7.06484, 0.0])) * CMU_UNIT
    left = motion.joints[:, names.index("LeftKnee")] - motion.joints[:, names.index("LeftHip")]
    torch.testing.assert_close(left.norm(dim=-1), thigh.expand(125))
    head, ankle = motion.joints[:, names.index("Head"), 1], motion.joints[:, names.index("LeftAnkle"), 1]
    assert bool((head - ankle > 1.2).all()), "upright, y up"
    hands = motion.joints[:, names.index("LeftWrist"), 1]
    assert float(hands.max() - hands.min()) > 0.8, "jumping jacks raise the hands"


def test_units_are_asked_for_where_numbers_cannot_be_metres(shared_data):
    with pytest.warns(UserWarning, match="expected a skeleton in metres, got one 24.1 units long.*pass unit="):
        motion = load_motion(shared_data / "mocap" / "cmu_jumping_jacks.bvh")
    torch.testing.assert_close(motion.joints[0, 0], torch.tensor([-1.9935, 17.6817, 0.1012]))


def test_end_sites_become_joints_on_request(tmp_path):
    path = write(tmp_path, NOD)
    assert load_motion(path).skeleton.names == ("neck", "head")
    motion = load_motion(path, end_sites=True)
    assert motion.skeleton.names == ("neck", "head", "head_end") and motion.skeleton.parents == (-1, 0, 1)
    expected = torch.tensor([[[0, 1, 0], [0, 2, 0], [0, 2.5, 0]], [[0, 1, 0], [0, 2, 0], [0, 2, 0.5]]])
    torch.testing.assert_close(motion.joints, expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: text.replace("  ", "\t\t "),
        lambda text: "\ufeff" + text,
        lambda text: re.sub(r"\s+(?=[^\n]*\{)", " ", text.split("MOTION")[0]) + "MOTION" + text.split("MOTION")[1],
        lambda text: text.replace("\n", "\n\n \n"),
        lambda text: text.replace("Frames: 2", "FRAMES:2").replace("Frame Time: ", "frame time:\t"),
        lambda text: text.replace("rotation", "ROTATION").replace("HIERARCHY", "Hierarchy"),
        lambda text: text.replace("OFFSET 0 1 0", "OFFSET\n0\n1\n0"),
        lambda text: text.rstrip("\n"),
    ],
)
def test_odd_spacing_changes_nothing(change, tmp_path):
    expected = load_motion(write(tmp_path, NOD))
    motion = load_motion(write(tmp_path, change(NOD), "odd.bvh"))
    assert torch.equal(motion.joints, expected.joints) and motion.skeleton.names == expected.skeleton.names


def test_names_may_have_spaces_and_any_letters(tmp_path):
    motion = load_motion(write(tmp_path, NOD.replace("JOINT head", "JOINT Köpf und  Hals")))
    assert motion.skeleton.names == ("neck", "Köpf und Hals")
    odd = load_motion(write(tmp_path, NOD.encode().replace(b"JOINT head", b"JOINT K\xf6pf")))
    assert odd.skeleton.names == ("neck", "K\\xf6pf")


@pytest.mark.parametrize(
    "written, fps",
    [
        ("0.0083333", 120.0),
        (".03333", 30.0),
        ("0.04", 25.0),
        ("0.0166667", 60.0),
        ("0.033367", 1 / 0.033367),
        ("1", 1.0),
        ("2", 0.5),
        ("4.16667e-2", 1 / 4.16667e-2),
    ],
)
def test_the_rate_is_the_whole_number_that_was_rounded(written, fps, tmp_path):
    path = write(tmp_path, NOD.replace("0.0083333", written))
    assert load_motion(path).fps == fps and load_motion(path, fps=50.0).fps == 50.0


def test_an_up_axis_can_be_named(tmp_path):
    motion = load_motion(write(tmp_path, NOD), up="z")
    assert motion.up == "z"
    torch.testing.assert_close(motion.to_y_up().joints[0, 1], torch.tensor([0.0, 0.0, -2.0]))


DAMAGE = {
    "empty file": (lambda text: "", "an empty file"),
    "another kind": (lambda text: '{"people": []}', "line 1: expected HIERARCHY"),
    "binary": (lambda text: "HIERARCHY\n\0\1\2", "line 2: expected lines of text"),
    "no motion": (lambda text: text.split("MOTION")[0], "line 15: expected a hierarchy and then MOTION, got the end"),
    "two people": (
        "MOTION",
        "ROOT other { OFFSET 0 0 0 }\nMOTION",
        "line 16: expected one ROOT around all joints, got ROOT 'other'",
    ),
    "no root": ("ROOT", "JOINT", "line 3: expected one ROOT"),
    "a name twice": ("JOINT head", "JOINT neck", "line 7: expected a distinct name"),
    "no name": ("JOINT head", "JOINT", "line 7: expected a distinct name"),
    "no offset": ("    OFFSET 0 1 0\n", "", "line 13: expected an OFFSET for head, got none"),
    "offset in words": ("OFFSET 0 1 0", "OFFSET 0 one 0", "line 8: expected 3 numbers"),
    "offset in underscores": ("0 1 0\n    C", "0 1_0 0\n    C", "line 8: expected 3 numbers"),
    "too few channels": ("CHANNELS 3", "CHANNELS 4", "line 10: expected 4 distinct channels"),
    "too many channels": ("CHANNELS 3", "CHANNELS 2", "line 9: expected JOINT, End Site"),
    "a channel twice": ("3 Zr", "3 Xr", "line 9: expected 3 distinct channels"),
    "a channel of another kind": ("3 Zr", "3 Wr", "line 9: .* got 'Wrotation'"),
    "seven channels": ("CHANNELS 3", "CHANNELS 7", "line 9: expected 0 to 6 CHANNELS"),
    "an open brace": ("}\nMOTION", "MOTION", "line 15: expected JOINT, End Site"),
    "a joint in an end": ("0 0.5 0", "0 1 0 JOINT tip {", "nothing inside an End Site"),
    "no count": ("Frames: 2", "Frames: many", "line 17: expected Frames: and a whole number"),
    "no time": ("Frame Time: 0.0083333\n", "", "line 18: expected Frame Time: and a number"),
    "no time left": ("0.0083333", "0", "expected a Frame Time above zero"),
    "no frames": ("Frames: 2", "Frames: 0", "expected channels and frames, got none"),
    "a promise of frames": ("Frames: 2", "Frames: 999999999", "joints times frames"),
    "a frame missing": ("Frames: 2", "Frames: 3", "expected 3 frames, as declared, got 2"),
    "a frame too many": ("Frames: 2", "Frames: 1", "line 20: expected 1 frames, .* got more"),
    "a number missing": (lambda text: text.rstrip()[:-2], "line 20: expected 9 numbers in frame 2, got 8"),
    "a number too many": (lambda text: text.rstrip() + " 4 5", "line 20: expected 9 numbers in frame 2, got more"),
    "no number": ("0 90 0", "0 nan 0", "line 20: expected 9 numbers in frame 2"),
    "a number too large": ("0 90 0", "0 1e300 0", "line 20: expected 9 numbers in frame 2"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_refused_by_name_and_line(damage, tmp_path):
    changed, message = damaged(NOD, DAMAGE[damage])
    path = write(tmp_path, changed, "damaged.bvh")
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: .*{message}"):
        load_motion(path)


@pytest.mark.parametrize("damage, count", [("a frame missing", 2), ("a number missing", 1), ("a frame too many", 1)])
def test_frames_before_the_damage_can_be_read(damage, count, tmp_path):
    path = write(tmp_path, damaged(NOD, DAMAGE[damage])[0], "damaged.bvh")
    with pytest.warns(UserWarning, match=rf"damaged\.bvh: line 20: expected .+; read the {count} frames before"):
        motion = load_motion(path, strict=False)
    assert torch.equal(motion.joints, load_motion(write(tmp_path, NOD)).joints[:count])


def test_deep_hierarchies_need_no_deep_stack(tmp_path):
    depth = 900
    opened = "".join(
        f"{'JOINT' if i else 'ROOT'} j{i} {{ OFFSET 0 0.001 0 CHANNELS 1 Xrotation\n" for i in range(depth)
    )
    text = f"HIERARCHY\n{opened}{'}' * depth}\nMOTION\nFrames: 1\nFrame Time: 1\n{'0 ' * depth}\n"
    assert load_motion(write(tmp_path, text)).skeleton.num_joints == depth
    with pytest.raises(ValueError, match="expected at most 1000 joints"):
        load_motion(
            write(
                tmp_path,
                text.replace(
                    "ROOT j0 {",
                    "ROOT r { OFFSET 0 0 0 "
                    + "JOINT a { OFFSET 0 0 0 }"
                    + "".join(f"JOINT b{i} {{ OFFSET 0 0 0 }}\n" for i in range(120))
                    + "JOINT j0 {",
                ),
            )
        )
