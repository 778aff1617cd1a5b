"""Load a motion from a file of any known kind."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Literal

import torch

from .motion import Motion, check_rate
from .motion_acclaim import read_acclaim
from .motion_amass import read_amass
from .motion_bvh import read_bvh


def load_motion(
    path: str | os.PathLike[str],
    *,
    skeleton_path: str | os.PathLike[str] | None = None,
    unit: float | int | None = None,
    fps: float | int | None = None,
    up: Literal["y", "z"] | None = None,
    strict: bool = True,
    end_sites: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Motion:
    """Read motion capture: AMASS (.npz), BVH (.bvh) or Acclaim (.amc with its .asf), by the ending of the name.

    - AMASS: the poses of SMPL-H (156 numbers a frame), SMPL-X (165) or SMPL (72), with `trans`, `betas`, `gender` and
      the rate under either of its two names; z is up. Soft-tissue coefficients (`dmpls`) and markers are left aside.
    - BVH: the channels of each joint in their own order, the first rotation leftmost in the product. Position channels
      take the place of OFFSET. A rate that is a whole number but for the rounding of the frame time is that number.
    - Acclaim: bone rotation C M C⁻¹; a bone's name stands for its end (`Motion.turns` is "bone").

    Args:
        path: the file.
        skeleton_path: the .asf of an .amc; default: beside it, with its name up to the last underscore (02_01.amc:
            02.asf) or its whole name.
        unit: metres of one unit of length of the file. BVH does not tell: default 1, with a warning where the skeleton
            is too large for metres; 0.01 for centimetres, 0.0254 / 0.45 for conversions of CMU's files. Acclaim:
            default 0.0254 / (its `length`), as CMU says of its files. AMASS is in metres.
        fps: frames a second, in place of what the file says. An .amc usually does not: default 120, CMU's rate for
            most of its motions.
        up: the axis that points up, where it is not the one that such files usually have: z for AMASS, y for the
            others. Nothing is turned here; see `Motion.to_y_up`.
        strict: whether damage after the first frames, such as a truncated last frame, is an error; else the frames
            before it are read, with a warning.
        end_sites: whether the end sites of a BVH file become joints, called "<parent>_end".
        dtype: floating type of the result.

    Returns:
        The motion in metres and radians.

    Raises:
        FileNotFoundError: no such file, or no .asf for an .amc.
        ValueError: another ending, or a damaged file; the text names the file and, of text files, the line.

    Example:
        >>> import pathlib, tempfile
        >>> from physique.bodymodel import load_motion
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "nod.bvh"
        >>> _ = path.write_text(
        ...     "HIERARCHY ROOT neck { OFFSET 0 0 0 CHANNELS 3 Xposition Yposition Zposition "
        ...     "JOINT head { OFFSET 0 20 0 CHANNELS 1 Xrotation End Site { OFFSET 0 10 0 } } } MOTION\\n"
        ...     "Frames: 2\\nFrame Time: 0.04\\n0 150 0 0\\n0 150 0 90\\n"
        ... )
        >>> motion = load_motion(path, unit=0.01, end_sites=True)
        >>> motion.skeleton.names, motion.fps
        (('neck', 'head', 'head_end'), 25.0)
        >>> motion.joints[1, 2]
        tensor([0.0000, 1.7000, 0.1000])
    """
    path = Path(path)
    if fps is not None:
        check_rate(fps)
    if unit is not None and not 0 < unit < math.inf:
        raise ValueError(f"unit: expected metres above zero, got {unit}; give the length of one unit of the file")
    if up not in (None, "y", "z"):
        raise ValueError(f"up: expected 'y' or 'z', got {up!r}; name the axis that points up")
    ending = path.suffix.lower()
    if ending == ".npz":
        return read_amass(path, fps=fps, up=up, dtype=dtype)
    if ending == ".bvh":
        return read_bvh(path, unit=unit, fps=fps, strict=strict, end_sites=end_sites, up=up, dtype=dtype)
    if ending == ".amc":
        skeleton = Path(skeleton_path) if skeleton_path is not None else _find_asf(path)
        return read_acclaim(path, skeleton, unit=unit, fps=fps, strict=strict, up=up, dtype=dtype)
    advice = "give the .amc, with skeleton_path= the .asf" if ending == ".asf" else "these are the formats it reads"
    raise ValueError(f"path: expected a name that ends in .npz, .bvh or .amc, got {path.name}; {advice}")


def _find_asf(path: Path) -> Path:
    """Return the .asf beside an .amc: of its subject, or of its own name."""
    tried = [
        path.with_name(f"{stem}{end}") for stem in (path.stem.rpartition("_")[0], path.stem) for end in (".asf", ".ASF")
    ]
    for candidate in tried:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"{path}: expected its skeleton {tried[0].name} or {tried[2].name} beside it, got neither; pass skeleton_path="
    )
