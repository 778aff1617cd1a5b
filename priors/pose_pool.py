"""A pool of real body poses: what priors are trained on and judged by."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..bodymodel.families import FAMILIES
from ..bodymodel.model import BodyModel
from ..geometry.checks import expect_shape
from .amass_clips import Paths, amass_clips
from .moved_frames import moved_frames
from .tensor_files import read_tensors, write_tensors

_FORMAT = "physique pose pool 1"
_MIRROR = tuple(joint - 1 for joint in FAMILIES["smpl"].skeleton.mirror[1:])


@dataclass(frozen=True, eq=False)
class PosePool:
    """N poses of the SMPL skeleton in a world with y up, each from a frame of a named clip.

    Poses of a clip stand in the order of time. A pool of a body model with 21 body joints has zeros for the two hands.

    Attributes:
        body_pose: (N, 23, 3) axis-angle of the joints after the root, radians.
        global_orient: (N, 3) axis-angle of the root.
        betas: (N, S) shape coefficients, or None.
        clip: (N,) which clip each pose is from; index into `clip_names`.
        clip_names: one distinct name a clip.

    Raises:
        ValueError: shapes that do not fit each other, or names that repeat.

    Example:
        >>> pool = PosePool(torch.zeros(5, 23, 3), torch.zeros(5, 3), None, torch.tensor([0, 0, 0, 1, 1]), ("a", "b"))
        >>> train, held = pool.split(["b"])
        >>> len(train.mirrored()), len(held), held.clip_names
        (6, 2, ('b',))
    """

    body_pose: Float[Tensor, "N 23 3"]
    global_orient: Float[Tensor, "N 3"]
    betas: Float[Tensor, "N S"] | None
    clip: Int[Tensor, " N"]
    clip_names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check the shapes and the names."""
        if expect_shape("body_pose", self.body_pose, "N", 23, 3) != ():
            raise ValueError(f"body_pose: expected (N, 23, 3), got {tuple(self.body_pose.shape)}; flatten the batch")
        count = self.body_pose.shape[0]
        others = {"global_orient": (self.global_orient, (count, 3)), "clip": (self.clip, (count,))}
        if self.betas is not None:
            others["betas"] = (self.betas, (count, self.betas.shape[-1] if self.betas.ndim else 0))
        for name, (value, shape) in others.items():
            if tuple(value.shape) != shape:
                raise ValueError(f"{name}: expected {shape}, got {tuple(value.shape)}; give one row a pose")
        if self.clip.is_floating_point() or self.clip.is_complex() or self.clip.dtype == torch.bool:
            raise ValueError(f"clip: expected integers, got {self.clip.dtype}; index into clip_names")
        if len(set(self.clip_names)) != len(self.clip_names):
            raise ValueError(f"clip_names: expected distinct names, got {self.clip_names}; rename the repeated ones")

    def __len__(self) -> int:
        """Return the number of poses N."""
        return self.body_pose.shape[0]

    @classmethod
    def from_clips(cls, clips: Mapping[str, Mapping[str, Tensor]]) -> PosePool:
        """Return the pool of named clips, each the arguments of a body model over time, such as `Solution.params`.

        Args:
            clips: name -> `body_pose` (T, 21 or 23, 3), `global_orient` (T, 3) and, in all clips or in none, `betas`
                (T, S) or (S,); other entries are left aside.

        Raises:
            ValueError: no clip, missing entries, shapes that do not fit, or numbers that are not finite.

        Example:
            >>> from physique.bodymodel import BodyModel, open_body
            >>> from physique.fitting import fit_joints
            >>> model = BodyModel(open_body("low"))
            >>> solution = fit_joints(model, model.joints(body_pose=torch.zeros(4, 23, 3)), sequence=True)
            >>> pool = PosePool.from_clips({"stand": solution.params})
            >>> pool.body_pose.shape, pool.clip_names
            (torch.Size([4, 23, 3]), ('stand',))
        """
        if not clips:
            raise ValueError("clips: expected at least one clip, got none; check where the poses come from")
        poses, orients, betas = [], [], []
        for name, params in clips.items():
            pose, orient = _entry(name, params, "body_pose"), _entry(name, params, "global_orient")
            if pose.ndim != 3 or pose.shape[1:] not in ((21, 3), (23, 3)):
                raise ValueError(f"{name}: body_pose: expected (T, 21 or 23, 3), got {tuple(pose.shape)}; fit SMPL")
            hands = pose.new_zeros(len(pose), 23 - pose.shape[1], 3)
            poses.append(torch.cat((pose, hands), dim=1))
            orients.append(orient)
            if "betas" in params:
                shape = _entry(name, params, "betas")
                betas.append(shape.expand(len(pose), -1) if shape.ndim == 1 else shape)
        if len(betas) not in (0, len(clips)) or len({shape.shape[-1] for shape in betas}) > 1:
            widths = sorted({shape.shape[-1] for shape in betas})
            raise ValueError(f"betas: expected one width in all clips, got widths {widths}; cut or leave them out")
        counts = torch.tensor([len(pose) for pose in poses])
        return cls(
            torch.cat(poses),
            torch.cat(orients),
            torch.cat(betas) if betas else None,
            torch.repeat_interleave(torch.arange(len(counts)), counts).to(poses[0].device),
            tuple(clips),
        )

    @classmethod
    def from_amass(
        cls,
        paths: Paths,
        *,
        fps: float | int = 30,
        num_betas: int = 10,
        dtype: torch.dtype = torch.float32,
    ) -> PosePool:
        """Return the body poses of AMASS .npz files, turned so that y is up; hands are at rest.

        Betas are as in the files, of the body of each file's gender.

        Args:
            paths: files, or one folder, which is searched with its subfolders; there AMASS's files of shapes
                (shape.npz, *_stagei.npz) are passed over.
            fps: about how many frames a second to keep: every n-th frame, n the rounded ratio of the rates.
            num_betas: width S of betas; narrower ones are padded with zeros, 0 gives None.
            dtype: floating type of the pool.

        Raises:
            FileNotFoundError: no such file or folder.
            ValueError: a folder without motions, or a damaged file, which the text names.
        """
        return cls.from_clips(amass_clips(paths, fps=fps, num_betas=num_betas, dtype=dtype))

    def select(self, ids: Int[Tensor, " M"] | Bool[Tensor, " N"] | slice) -> PosePool:
        """Return the poses at `ids`: integers (M,), a mask (N,) or a slice. Names of clips stay as they are."""
        betas = None if self.betas is None else self.betas[ids]
        return replace(
            self, body_pose=self.body_pose[ids], global_orient=self.global_orient[ids], betas=betas, clip=self.clip[ids]
        )

    def split(self, held_out: Iterable[str]) -> tuple[PosePool, PosePool]:
        """Return the poses of all other clips, and those of the clips named; each with the names of its own clips.

        Raises:
            ValueError: a name that no clip has.
        """
        names = [held_out] if isinstance(held_out, str) else list(held_out)
        unknown = [name for name in names if name not in self.clip_names]
        if unknown:
            raise ValueError(f"held_out: expected names among {', '.join(self.clip_names)}, got {unknown}; check them")
        held = [name in names for name in self.clip_names]
        mask = torch.tensor(held, dtype=torch.bool, device=self.clip.device)[self.clip]
        pools = []
        for chosen, wanted in ((~mask, False), (mask, True)):
            ids = [index for index, is_held in enumerate(held) if is_held == wanted]
            number = torch.zeros(len(held), dtype=torch.long, device=self.clip.device)
            number[ids] = torch.arange(len(ids), device=number.device)
            part = self.select(chosen)
            pools.append(
                replace(part, clip=number[part.clip], clip_names=tuple(self.clip_names[index] for index in ids))
            )
        return pools[0], pools[1]

    def mirrored(self) -> PosePool:
        """Return twice the poses: these, then their reflections left to right, of the same clips and betas.

        A reflection exchanges left and right joints and takes each axis-angle (x, y, z) to (x, -y, -z), the root's
        too; betas describe both sides at once and stay.
        """
        flip = self.body_pose.new_tensor([1.0, -1.0, -1.0])
        betas = None if self.betas is None else torch.cat((self.betas, self.betas))
        return replace(
            self,
            body_pose=torch.cat((self.body_pose, self.body_pose[:, list(_MIRROR)] * flip)),
            global_orient=torch.cat((self.global_orient, self.global_orient * flip)),
            betas=betas,
            clip=torch.cat((self.clip, self.clip)),
        )

    def subsampled(self, body: BodyModel, movement: float | int = 0.2) -> PosePool:
        """Return the frames in which some joint has moved since the last frame that was kept of the same clip.

        As in the training data of HMR (Kanazawa et al. 2018), with the movement measured relative to the pelvis, since
        a pool does not know where bodies stand: turning moves joints, walking through the room does not.

        Args:
            body: a model with SMPL's 23 body joints; its mean shape says how far joints move.
            movement: metres; the first frame of each clip is always kept.

        Raises:
            ValueError: a body with other joints.
        """
        if body.skeleton.names[1:] != FAMILIES["smpl"].skeleton.names[1:]:
            raise ValueError(
                f"body: expected SMPL's 24 joints, got {body.skeleton.num_joints} others; use a model of the family"
            )
        return self.select(moved_frames(self.body_pose, self.global_orient, self.clip, body, float(movement)))

    def sample(self, count: int, generator: torch.Generator | None = None) -> PosePool:
        """Return `count` poses drawn uniformly with replacement.

        Args:
            count: how many.
            generator: the source of randomness, of any device; default: torch's own.

        Raises:
            ValueError: a draw from an empty pool.
        """
        if len(self) == 0 < count:
            raise ValueError("pool: expected poses to draw from, got none; check how the pool was made")
        device = self.body_pose.device if generator is None else generator.device
        ids = torch.randint(max(len(self), 1), (count,), generator=generator, device=device)
        return self.select(ids.to(self.body_pose.device))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> PosePool:
        """Return the pool on another device or with another floating type."""
        betas = None if self.betas is None else self.betas.to(device=device, dtype=dtype)
        return replace(
            self,
            body_pose=self.body_pose.to(device=device, dtype=dtype),
            global_orient=self.global_orient.to(device=device, dtype=dtype),
            betas=betas,
            clip=self.clip.to(device=device),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pool as a safetensors file, in the types that it has; half precision holds 0.06°.

        Raises:
            FileNotFoundError: the folder is not there.
        """
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        write_tensors(path, tensors, {"format": _FORMAT, "clip_names": json.dumps(self.clip_names)})

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> PosePool:
        """Read a pool that `save` wrote.

        Args:
            path: the file.
            dtype: floating type of the result.
            device: of the result.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a damaged or another file; the text names it.

        Example:
            >>> import pathlib, tempfile
            >>> path = pathlib.Path(tempfile.mkdtemp()) / "pool.safetensors"
            >>> PosePool(torch.zeros(2, 23, 3), torch.zeros(2, 3), None, torch.zeros(2).long(), ("walk",)).save(path)
            >>> len(PosePool.load(path))
            2
        """
        tensors, metadata = read_tensors(path)
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"{path}: expected a pose pool, got another safetensors file; check the path")
        try:
            pool = _assemble(tensors, metadata)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return pool.to(device, dtype)


def _assemble(tensors: dict[str, Tensor], metadata: dict[str, str]) -> PosePool:
    try:
        names = json.loads(metadata.get("clip_names", ""))
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("clip_names: expected a list of names, got others; the file is damaged")
    for name in ("body_pose", "global_orient", "clip"):
        if name not in tensors:
            raise ValueError(f"{name}: expected a tensor, got {', '.join(tensors) or 'none'}; the file is damaged")
    for name in ("body_pose", "global_orient", "betas"):
        if name in tensors and not tensors[name].is_floating_point():
            raise ValueError(f"{name}: expected floating numbers, got {tensors[name].dtype}; the file is damaged")
    pool = PosePool(tensors["body_pose"], tensors["global_orient"], tensors.get("betas"), tensors["clip"], tuple(names))
    if len(pool) and not (0 <= int(pool.clip.min()) and int(pool.clip.max()) < len(names)):
        raise ValueError(f"clip: expected indices from 0 to {len(names) - 1}, got others; the file is damaged")
    return replace(pool, clip=pool.clip.long())


def _entry(clip: str, params: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in params:
        raise ValueError(f"{clip}: expected {name}, got {', '.join(params)}; give the arguments of a body model")
    value = params[name].detach()
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{clip}: {name}: expected finite numbers, got others; leave these frames out")
    return value
