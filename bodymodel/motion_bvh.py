"""Read BVH files: a hierarchy of joints with channels, then a line of numbers a frame."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..geometry import matrix_to_axis_angle
from .motion import Motion
from .motion_text import MAX_JOINT_FRAMES, MAX_JOINTS, Frames, Lines, numbers, shorten, turn_in_order
from .skeleton import Skeleton

# Above this the numbers of a person's skeleton cannot be metres.
_TALLEST = 5.0

_CHANNEL = re.compile(r"([xyz])(position|rotation)", re.IGNORECASE)
_FRAMES = re.compile(r"frames\s*:?\s*(\d{1,9})", re.IGNORECASE)
_FRAME_TIME = re.compile(r"frame\s*time\s*:?\s*(\S+)", re.IGNORECASE)


@dataclass
class _Joint:
    """A joint as the file tells it; `channels` are pairs such as ("x", "rotation"), in the order of the numbers."""

    name: str
    parent: int
    is_end: bool = False
    offset: list[float] | None = None
    channels: list[tuple[str, str]] = field(default_factory=list)


def read_bvh(
    path: Path,
    *,
    unit: float | int | None,
    fps: float | int | None,
    strict: bool,
    end_sites: bool,
    up: str | None,
    dtype: torch.dtype,
) -> Motion:
    """Return the motion of a .bvh file; see `load_motion`."""
    lines = Lines(path)
    joints = _Hierarchy(lines).read()
    values, frame_time = _read_frames(lines, joints, strict)
    kept = [index for index, joint in enumerate(joints) if end_sites or not joint.is_end]
    skeleton = Skeleton(
        tuple(kept.index(joints[i].parent) if joints[i].parent >= 0 else -1 for i in kept),
        tuple(joints[i].name for i in kept),
    )
    poses, places = _channels_to_poses(joints, values)
    poses, root, bones = poses[:, kept], places[:, 0], places[:, kept]
    bones[:, 0] = 0
    if bool((bones == bones[:1]).all()):
        bones = bones[0]
    rest = torch.as_tensor(skeleton.ancestors, dtype=bones.dtype) @ bones
    if unit is None:
        _warn_of_size(path, rest)
        unit = 1.0
    return Motion(
        skeleton,
        fps or _rate(lines, frame_time),
        poses=poses.to(dtype),
        translation=(root * unit).to(dtype).expand(len(values), 3),
        rest_joints=(rest * unit).to(dtype),
        up="z" if up == "z" else "y",
    )


class _Hierarchy:
    """The first half of the file, read word by word: line ends mean nothing there."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.words: list[str] = []
        self.joints: list[_Joint] = []

    def word(self) -> str:
        while not self.words:
            line = self.lines.next()
            if line is None:
                self.lines.fail("a hierarchy and then MOTION", "the end of the file", "the file is truncated")
            self.words = line.replace("{", " { ").replace("}", " } ").split()[::-1]
        return self.words.pop()

    def read(self) -> list[_Joint]:
        if (first := self.word()).upper() != "HIERARCHY":
            self.lines.fail("HIERARCHY", shorten(first), "this is not a BVH file")
        open_joints: list[int] = []
        while True:
            word = self.word().upper()
            if word in ("ROOT", "JOINT", "END"):
                open_joints.append(self.open_joint(word, open_joints))
            elif word == "OFFSET" and open_joints:
                self.joints[open_joints[-1]].offset = self.lines.floats([self.word() for _ in range(3)], 3, "OFFSET")
            elif word == "CHANNELS" and open_joints:
                self.joints[open_joints[-1]].channels = self.channels()
            elif word == "}" and open_joints:
                joint = self.joints[open_joints.pop()]
                if joint.offset is None:
                    self.lines.fail(f"an OFFSET for {joint.name}", "none", "the file is damaged")
            elif word == "MOTION" and self.joints and not open_joints:
                return self.joints
            else:
                self.lines.fail("JOINT, End Site, OFFSET, CHANNELS or a brace", shorten(word), "the file is damaged")

    def open_joint(self, word: str, open_joints: list[int]) -> int:
        name = []
        while (part := self.word()) != "{":
            name.append(part)
            if len(name) > 20:
                self.lines.fail("a brace after the joint's name", shorten(" ".join(name)), "the file is damaged")
        if (word == "ROOT") != (not self.joints) or bool(self.joints) != bool(open_joints):
            self.lines.fail(
                "one ROOT around all joints", f"{word} {shorten(' '.join(name))}", "split the file by person"
            )
        parent = open_joints[-1] if open_joints else -1
        if parent >= 0 and self.joints[parent].is_end:
            self.lines.fail("nothing inside an End Site", f"{word} {shorten(' '.join(name))}", "the file is damaged")
        title = " ".join(name)
        if word == "END":
            siblings = sum(joint.is_end and joint.parent == parent for joint in self.joints)
            title = f"{self.joints[parent].name}_end{siblings + 1 if siblings else ''}"
        if not title or any(joint.name == title for joint in self.joints):
            self.lines.fail("a distinct name for each joint", shorten(title), "rename the joint")
        if len(self.joints) == MAX_JOINTS:
            self.lines.fail(f"at most {MAX_JOINTS} joints", "more", "this is not a skeleton")
        self.joints.append(_Joint(title, parent, is_end=word == "END"))
        return len(self.joints) - 1

    def channels(self) -> list[tuple[str, str]]:
        count = self.word()
        if count not in tuple("0123456"):
            self.lines.fail("0 to 6 CHANNELS", shorten(count), "the file is damaged")
        channels = []
        for _ in range(int(count)):
            match = _CHANNEL.fullmatch(word := self.word())
            if match is None or (channel := (match[1].lower(), match[2].lower())) in channels:
                self.lines.fail(f"{count} distinct channels such as Xposition or Zrotation", shorten(word), "check it")
            channels.append(channel)
        return channels


def _read_frames(lines: Lines, joints: list[_Joint], strict: bool) -> tuple[Tensor, str]:
    """Return the numbers (T, C), and the frame time as written."""
    declared = int(_header(lines, _FRAMES, "Frames: and a whole number"))
    frame_time = _header(lines, _FRAME_TIME, "Frame Time: and a number")
    width = sum(len(joint.channels) for joint in joints)
    if width == 0 or declared == 0:
        lines.fail("channels and frames", "none", "the file holds no motion")
    if declared * len(joints) > MAX_JOINT_FRAMES:
        lines.fail(f"at most {MAX_JOINT_FRAMES} joints times frames", str(declared * len(joints)), "split the file")
    frames = Frames(lines, width, strict=strict)
    while (line := lines.next()) is not None and frames.count < declared:
        words = line.split(None, width)
        values = numbers(words)
        if values is None or len(values) != width:
            got = f"{len(words)}" if len(words) < width else "more" if len(words) > width else "other words"
            frames.damaged(f"{width} numbers in frame {frames.count + 1}", got)
            return frames.values(), frame_time
        frames.append(values)
    if line is not None or frames.count < declared:
        frames.damaged(f"{declared} frames, as declared", "more" if line is not None else str(frames.count))
    return frames.values(), frame_time


def _header(lines: Lines, pattern: re.Pattern[str], expected: str) -> str:
    line = lines.next()
    match = pattern.fullmatch(line or "")
    if match is None:
        lines.fail(expected, "the end of the file" if line is None else shorten(line), "the file is damaged")
    return match[1]


def _rate(lines: Lines, frame_time: str) -> float:
    """Return the frames a second: the whole number whose frame time, rounded as written, is this; else as it is."""
    (seconds,) = lines.floats([frame_time], 1, "Frame Time")
    if seconds <= 1e-6:
        lines.fail("a Frame Time above zero", shorten(frame_time), "pass fps=")
    fps = 1 / seconds
    digits = re.search(r"\.(\d*)", frame_time)
    rounding = 0.5 * 10.0 ** -len(digits[1]) if digits and "e" not in frame_time.lower() else 0.0
    whole = round(fps)
    return float(whole) if whole and math.isclose(seconds, 1 / whole, rel_tol=1e-9, abs_tol=rounding) else fps


def _channels_to_poses(joints: list[_Joint], values: Tensor) -> tuple[Tensor, Tensor]:
    """Return axis-angle poses (T, J, 3), and each joint's place in its parent's frame (T, J, 3), or (1, J, 3)."""
    poses = torch.zeros(len(values), len(joints), 3, dtype=torch.float64)
    places = torch.tensor([joint.offset for joint in joints], dtype=torch.float64).unsqueeze(0)
    if any(kind == "position" for joint in joints for _, kind in joint.channels):
        places = places.repeat(len(values), 1, 1)
    start = 0
    for index, joint in enumerate(joints):
        columns = {channel: start + place for place, channel in enumerate(joint.channels)}
        start += len(columns)
        for (axis, kind), column in columns.items():
            if kind == "position":
                places[:, index, "xyz".index(axis)] = values[:, column]
        turning = [channel for channel in joint.channels if channel[1] == "rotation"]
        if turning:
            angles = torch.deg2rad(values[:, [columns[channel] for channel in turning]])
            axes = "".join(axis for axis, _ in turning)
            poses[:, index] = matrix_to_axis_angle(turn_in_order(axes, angles))
    return poses, places


def _warn_of_size(path: Path, rest: Tensor) -> None:
    """Warn on behalf of `load_motion`'s caller where the numbers of the file cannot be metres."""
    joints = rest.reshape(-1, *rest.shape[-2:])[:1]
    if joints.numel() and (tall := float((joints.amax((0, 1)) - joints.amin((0, 1))).max())) > _TALLEST:
        warnings.warn(
            f"{path}: expected a skeleton in metres, got one {tall:.3g} units long; BVH files do not tell their unit: "
            "pass unit= in metres (0.01 for centimetres, 0.0254 for inches, 0.0254 / 0.45 for CMU conversions)",
            stacklevel=4,
        )
