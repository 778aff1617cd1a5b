"""Read Acclaim files: a skeleton of bones with axes (.asf), and the turns of each bone frame by frame (.amc)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..geometry import matrix_to_axis_angle
from .motion import Motion
from .motion_text import MAX_JOINT_FRAMES, MAX_JOINTS, Frames, Lines, numbers, shorten, turn_in_order
from .skeleton import Skeleton

_INCH = 0.0254
_CMU_FPS = 120.0
_FREEDOMS = ("tx", "ty", "tz", "rx", "ry", "rz")
_ORDER = re.compile(r"(?!.*(.).*\1)[xyz]{3}", re.IGNORECASE)


@dataclass
class _Bone:
    """A bone: where its end lies from its start, the axes that its turns are about, and what is free to move."""

    name: str = ""
    direction: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    length: float = 0.0
    axis: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    order: str = "xyz"
    freedoms: tuple[str, ...] = ()


@dataclass
class _Asf:
    """What an .asf file says; `parents` holds each bone's parent by name, `bones` begins with the root."""

    length: float = 1.0
    radians: float = math.pi / 180
    position: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    bones: dict[str, _Bone] = field(default_factory=lambda: {"root": _Bone("root")})
    parents: dict[str, str] = field(default_factory=dict)

    def depth(self, name: str) -> int:
        """Return the number of bones from the root to `name`, or -1 where no path leads there."""
        for steps in range(len(self.bones)):
            if name == "root":
                return steps
            name = self.parents.get(name, "")
        return -1

    def parents_first(self) -> list[_Bone]:
        """Return the bones in the order of the file where parents come first there, else by depth."""
        names = list(self.bones)
        if all(names.index(self.parents[name]) < names.index(name) for name in names[1:]):
            return list(self.bones.values())
        return sorted(self.bones.values(), key=lambda bone: self.depth(bone.name))


def read_acclaim(
    path: Path,
    skeleton_path: Path,
    *,
    unit: float | int | None,
    fps: float | int | None,
    strict: bool,
    up: str | None,
    dtype: torch.dtype,
) -> Motion:
    """Return the motion of an .amc file over the skeleton of an .asf file; see `load_motion`."""
    asf = _read_asf(Lines(skeleton_path))
    bones = asf.parents_first()
    names = tuple(bone.name for bone in bones)
    skeleton = Skeleton((-1, *(names.index(asf.parents[name]) for name in names[1:])), names)
    values, radians, written_fps = _read_amc(Lines(path), bones, asf.radians, strict)
    unit = _INCH / asf.length if unit is None else unit
    translation, poses = _to_poses(bones, values, asf.radians, radians)
    ends = torch.tensor([[bone.length * part for part in bone.direction] for bone in bones], dtype=torch.float64)
    rest = torch.as_tensor(skeleton.ancestors, dtype=ends.dtype) @ ends
    return Motion(
        skeleton,
        fps or written_fps or _CMU_FPS,
        poses=poses.to(dtype),
        translation=((translation + torch.tensor(asf.position, dtype=torch.float64)) * unit).to(dtype),
        rest_joints=(rest * unit).to(dtype),
        turns="bone",
        up="z" if up == "z" else "y",
    )


def _read_asf(lines: Lines) -> _Asf:
    asf = _Asf()
    section, bone = "", None
    while (line := lines.next()) is not None:
        key, *words = line.split()
        if key.startswith("#"):
            continue
        if key.startswith(":"):
            section = key.lower()
        elif section == ":units":
            _read_unit(lines, asf, key, words)
        elif section == ":root":
            _read_root(lines, asf, key, words)
        elif section == ":bonedata":
            bone = _read_bone(lines, asf, bone, key, words)
        elif section == ":hierarchy" and key not in ("begin", "end"):
            for child in words:
                if child not in asf.bones or key not in asf.bones or child in asf.parents or child == "root":
                    lines.fail("each bone of :bonedata once, under another", shorten(line), "the file is damaged")
                asf.parents[child] = key
    loose = [name for name in asf.bones if asf.depth(name) < 0]
    if len(asf.bones) == 1 or loose:
        got = f"{', '.join(loose[:3])} elsewhere" if loose else "none"
        lines.fail("bones that all hang on the root", got, "this is not a complete .asf file")
    return asf


def _read_unit(lines: Lines, asf: _Asf, key: str, words: list[str]) -> None:
    if key == "length":
        (asf.length,) = lines.floats(words, 1, "length")
        if asf.length < 1e-6:
            lines.fail("a length above zero", shorten(words[0]), "the file is damaged")
    elif key == "angle":
        asf.radians = _angle(lines, words[0] if words else "")


def _angle(lines: Lines, word: str) -> float:
    """Return the radians of one unit of angle."""
    start = word.lower()[:3]
    if start not in ("deg", "rad"):
        lines.fail("deg or rad", shorten(word), "the file is damaged")
    return math.pi / 180 if start == "deg" else 1.0


def _read_root(lines: Lines, asf: _Asf, key: str, words: list[str]) -> None:
    root = asf.bones["root"]
    if key == "order":
        root.freedoms = _freedoms(lines, words, _FREEDOMS)
    elif key == "axis":
        root.order = _order(lines, words)
    elif key == "position":
        asf.position = lines.floats(words, 3, "position")
    elif key == "orientation":
        root.axis = lines.floats(words, 3, "orientation")


def _read_bone(lines: Lines, asf: _Asf, bone: _Bone | None, key: str, words: list[str]) -> _Bone | None:
    """Read a line of :bonedata; return the bone that is open after it."""
    if key == "begin":
        return _Bone()
    if bone is None:
        lines.fail("begin", shorten(key), "the file is damaged")
    if key == "end":
        if not bone.name or bone.name in asf.bones:
            lines.fail("a distinct name for each bone", shorten(bone.name), "the file is damaged")
        if len(asf.bones) == MAX_JOINTS:
            lines.fail(f"at most {MAX_JOINTS} bones", "more", "this is not a skeleton")
        asf.bones[bone.name] = bone
        return None
    if key == "name":
        bone.name = words[0] if len(words) == 1 else ""
    elif key == "direction":
        bone.direction = lines.floats(words, 3, "direction")
    elif key == "length":
        (bone.length,) = lines.floats(words, 1, "length")
    elif key == "axis":
        bone.axis = lines.floats(words[:3], 3, "axis")
        bone.order = _order(lines, words[3:])
    elif key == "dof":
        bone.freedoms = _freedoms(lines, words, _FREEDOMS[3:])
    return bone


def _freedoms(lines: Lines, words: list[str], known: tuple[str, ...]) -> tuple[str, ...]:
    freedoms = tuple(word.lower() for word in words)
    if len(set(freedoms)) != len(freedoms) or not set(freedoms) <= set(known):
        lines.fail(f"distinct words among {', '.join(known)}", shorten(" ".join(words)), "other freedoms are not read")
    return freedoms


def _order(lines: Lines, words: list[str]) -> str:
    if len(words) != 1 or not _ORDER.fullmatch(words[0]):
        lines.fail("an order of axes such as XYZ", shorten(" ".join(words)), "the file is damaged")
    return words[0].lower()


def _read_amc(lines: Lines, bones: list[_Bone], radians: float, strict: bool) -> tuple[Tensor, float, float | None]:
    """Return the numbers (T, freedoms in the order of `bones`), radians of an angle unit, and the rate if written."""
    slots: dict[str, slice] = {}
    width = 0
    for bone in bones:
        if bone.freedoms:
            slots[bone.name] = slice(width, width + len(bone.freedoms))
            width += len(bone.freedoms)
    fps, line = None, lines.next()
    while line is not None and line.startswith(("#", ":")):
        key, *words = line.lower().split()
        if key in (":degrees", ":radians"):
            radians = _angle(lines, key[1:])
        elif key == ":samples-per-second":
            (fps,) = lines.floats(words, 1, key)
        line = lines.next()
    if line is None or not _is_frame_number(line):
        lines.fail("the number of the first frame", shorten(line or ""), "this is not an .amc file")
    first, frames = int(line), Frames(lines, width, strict=strict)
    while line is not None:
        problem, row, line = None, [0.0] * width, lines.next()
        missing = dict(slots)
        while line is not None and problem is None and not _is_frame_number(line):
            key, *words = line.split(None, len(_FREEDOMS) + 1)
            slot, values = missing.pop(key, None), numbers(words)
            if slot is None:
                problem = ("each bone of the .asf that moves, once", shorten(line))
            elif values is None or len(values) != slot.stop - slot.start:
                problem = (f"{slot.stop - slot.start} numbers for {key}", shorten(" ".join(words)))
            else:
                row[slot], line = values, lines.next()
        number = first + frames.count
        if missing and problem is None:
            problem = (f"{len(slots)} bones", f"{len(slots) - len(missing)}, no {next(iter(missing))}")
        if problem is None:
            frames.append(row)
            number += 1
            if line is not None and int(line) != number:
                problem = (f"number {number}", shorten(line))
        if problem:
            frames.damaged(f"{problem[0]} in frame {number}", problem[1])
            break
        if frames.count * len(bones) > MAX_JOINT_FRAMES:
            lines.fail(f"at most {MAX_JOINT_FRAMES} bones times frames", "more", "split the file")
    return frames.values(), radians, fps


def _is_frame_number(line: str) -> bool:
    return len(line) < 10 and line.isascii() and line.isdigit()


def _to_poses(bones: list[_Bone], values: Tensor, axis_unit: float, unit: float) -> tuple[Tensor, Tensor]:
    """Return the translation of the root (T, 3) and axis-angle poses (T, J, 3).

    A bone turns by C M C⁻¹: C from its axis, M from its numbers. Both turn about the axes in the order listed: the
    first turn acts first, so it stands last in the product.
    """
    translation = torch.zeros(len(values), 3, dtype=torch.float64)
    poses = torch.zeros(len(values), len(bones), 3, dtype=torch.float64)
    start = 0
    for index, bone in enumerate(bones):
        column = {freedom: start + place for place, freedom in enumerate(bone.freedoms)}
        start += len(column)
        for axis in "xyz":
            if f"t{axis}" in column:
                translation[:, "xyz".index(axis)] = values[:, column[f"t{axis}"]]
        turning = "".join(freedom[1] for freedom in bone.freedoms[::-1] if freedom[0] == "r")
        if turning:
            moved = turn_in_order(turning, values[:, [column[f"r{axis}"] for axis in turning]] * unit)
            order = bone.order[::-1]
            angles = torch.tensor([[bone.axis["xyz".index(axis)] * axis_unit for axis in order]], dtype=torch.float64)
            frame = turn_in_order(order, angles)
            poses[:, index] = matrix_to_axis_angle(frame @ moved @ frame.mT)
    return translation, poses
