"""Read AMASS files: the poses of a body model as arrays in an .npz archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .families import FAMILIES
from .motion import Motion
from .motion_text import MAX_JOINT_FRAMES, read_bytes
from .safe_npz import ZIP_MAGIC, read_npz

_RATES = ("mocap_framerate", "mocap_frame_rate")
_KEYS = frozenset(("poses", "trans", "betas", "gender", *_RATES))
_FAMILIES = {3 * FAMILIES[name].skeleton.num_joints: name for name in ("smpl", "smplh", "smplx")}


def read_amass(path: Path, *, fps: float | int | None, up: str | None, dtype: torch.dtype) -> Motion:
    """Return the motion of an AMASS .npz file; see `load_motion`."""
    contents = read_bytes(path)
    if not contents.startswith(ZIP_MAGIC):
        raise ValueError(
            f"{path}: expected an .npz archive, got a file that starts with {contents[:8]!r}; check the path"
        )
    try:
        with np.errstate(all="ignore"):
            return _assemble(read_npz(contents, _KEYS.__contains__), fps, up, dtype)
    except MemoryError:
        raise
    except Exception as error:
        text = str(error)
        if not isinstance(error, ValueError) or ": expected " not in f": {text}":
            text = f"expected an .npz archive, got damaged data ({type(error).__name__}); download it again"
        raise ValueError(f"{path}: {text}") from None


def _assemble(arrays: dict[str, np.ndarray], fps: float | int | None, up: str | None, dtype: torch.dtype) -> Motion:
    poses = arrays.get("poses")
    if poses is None:
        found = ", ".join(arrays) or "none of AMASS's keys"
        raise ValueError(f"poses: expected an array of poses, got {found}; this file holds no motion")
    width = poses.shape[1] if poses.ndim == 2 else None
    if width not in _FAMILIES:
        listed = ", ".join(f"(T, {count}) for {name}" for count, name in _FAMILIES.items())
        raise ValueError(f"poses: expected {listed}, got {poses.shape}; this is another kind of motion")
    frames, family = poses.shape[0], _FAMILIES[width]
    if poses.size > 3 * MAX_JOINT_FRAMES:
        raise ValueError(f"poses: expected at most {MAX_JOINT_FRAMES} joints times frames, got more; split the file")
    trans, betas = arrays.get("trans"), arrays.get("betas")
    if trans is None or trans.shape != (frames, 3):
        got = "none" if trans is None else str(trans.shape)
        raise ValueError(f"trans: expected ({frames}, 3), one a pose, got {got}; the file is damaged")
    if betas is not None and (betas.ndim not in (1, 2) or betas.shape[:-1] not in ((), (1,))):
        raise ValueError(f"betas: expected (S,), got {betas.shape}; the file is damaged")
    numbers = {"poses": poses, "trans": trans} | ({} if betas is None else {"betas": betas})
    tensors = {name: _to_tensor(name, array, dtype) for name, array in numbers.items()}
    skeleton = FAMILIES[family].skeleton
    return Motion(
        skeleton,
        fps or _rate(arrays),
        poses=tensors["poses"].unflatten(1, (skeleton.num_joints, 3)),
        translation=tensors["trans"],
        up="y" if up == "y" else "z",
        family=family,
        betas=tensors["betas"].flatten() if betas is not None else None,
        gender=_text(arrays.get("gender")),
    )


def _to_tensor(name: str, array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got others ({array.dtype}); the file is damaged")
    return torch.tensor(array.astype(np.float64), dtype=dtype)


def _rate(arrays: dict[str, np.ndarray]) -> float:
    for name in _RATES:
        if name in arrays:
            array = arrays[name]
            if array.size == 1 and array.dtype.kind in "fiu" and 0 < (rate := float(array.reshape(()))) < np.inf:
                return rate
            raise ValueError(f"{name}: expected a positive number, got {array!r:.60}; pass fps=")
    raise ValueError(f"{_RATES[0]}: expected the rate of the motion, got none; pass fps=")


def _text(array: np.ndarray | None) -> str | None:
    """Return the gender: older files hold it as bytes."""
    if array is None or array.size != 1 or array.dtype.kind not in "SU":
        return None
    value = array.reshape(()).item()
    return value.decode("latin1") if isinstance(value, bytes) else value
