"""Motion capture in plain NumPy loops: Euler angles, BVH files and their joints, Acclaim bones."""

import numpy as np


def axis_turn(axis: str, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    if axis == "x":
        return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def euler(axes: str, degrees) -> np.ndarray:
    """Return R1 R2 R3 ...: the first axis is leftmost."""
    turned = np.eye(3)
    for axis, angle in zip(axes, degrees, strict=True):
        turned = turned @ axis_turn(axis, angle)
    return turned


def random_bvh(random: np.random.Generator, count: int, frames: int) -> dict:
    """Return a random hierarchy: joints of name, parent, offset, channels such as "Xposition", and numbers a frame."""
    joints = []
    for index in range(count):
        rotations = [f"{axis}rotation" for axis in random.permutation(list("XYZ"))]
        channels = rotations[: random.integers(0, 4)] if index else rotations
        if index == 0 or random.random() < 0.3:
            channels = [f"{axis}position" for axis in random.permutation(list("XYZ"))] + channels
        parent = int(random.integers(max(0, index - 3), index)) if index else -1
        joints.append((f"joint{index}", parent, random.normal(0, 1, 3), channels))
    width = sum(len(channels) for *_, channels in joints)
    return {"joints": joints, "values": random.uniform(-170, 170, (frames, width)).round(4)}


def write_bvh(bvh: dict, frame_time: str = "0.0333333") -> str:
    """Return the text of the file; joints are written depth first, with their channels' numbers in that order."""
    starts = np.cumsum([0, *(len(channels) for *_, channels in bvh["joints"])])
    columns = []

    def block(index: int, depth: int) -> str:
        name, parent, offset, channels = bvh["joints"][index]
        columns.extend(range(starts[index], starts[index + 1]))
        pad = "\t" * depth
        inside = f"{pad}\tOFFSET {offset[0]:.5f} {offset[1]:.5f} {offset[2]:.5f}\n"
        inside += f"{pad}\tCHANNELS {len(channels)} {' '.join(channels)}\n"
        children = [i for i, joint in enumerate(bvh["joints"]) if joint[1] == index]
        inside += "".join(block(child, depth + 1) for child in children)
        if not children:
            inside += f"{pad}\tEnd Site\n{pad}\t{{\n{pad}\t\tOFFSET 0.0 0.1 0.0\n{pad}\t}}\n"
        return f"{pad}{'ROOT' if parent < 0 else 'JOINT'} {name}\n{pad}{{\n{inside}{pad}}}\n"

    hierarchy = block(0, 0)
    rows = "\n".join(" ".join(f"{value:.4f}" for value in row[columns]) for row in bvh["values"])
    return f"HIERARCHY\n{hierarchy}MOTION\nFrames: {len(bvh['values'])}\nFrame Time: {frame_time}\n{rows}\n"


def bvh_joints(bvh: dict) -> np.ndarray:
    """Return world positions (T, J, 3) in the order of `bvh["joints"]`."""
    frames = []
    for row in bvh["values"]:
        turned, placed, start = [], [], 0
        for _, parent, offset, channels in bvh["joints"]:
            here, local = np.round(offset, 5), np.eye(3)
            for channel, value in zip(channels, row[start : start + len(channels)], strict=True):
                if channel.endswith("position"):
                    here["XYZ".index(channel[0])] = value
                else:
                    local = local @ axis_turn(channel[0].lower(), value)
            start += len(channels)
            turned.append(local if parent < 0 else turned[parent] @ local)
            placed.append(here if parent < 0 else placed[parent] + turned[parent] @ here)
        frames.append(placed)
    return np.array(frames)
