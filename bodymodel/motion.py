"""A motion: the poses of a skeleton over time, cut, resampled, turned upright and handed to a body model."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry import axis_angle_to_matrix, matrix_to_axis_angle
from ..geometry.checks import expect_shape
from .families import family_by_name
from .kinematics import forward_kinematics
from .motion_text import MAX_JOINT_FRAMES
from .skeleton import Skeleton

# Families whose betas mean the same: SMPL-H is SMPL with articulated hands.
_SHAPE_SPACE = {"smplh": "smpl"}


@dataclass(frozen=True, eq=False)
class Motion:
    """T frames of a skeleton at an even rate, in metres and radians.

    The joints of a frame follow from its poses by forward kinematics; bones are rigid where `rest_joints` is (J, 3).
    A motion of a body model (AMASS) has no rest joints of its own, since they depend on the shape: there
    `model.joints(**motion.arguments())` gives the joints.

    Attributes:
        skeleton: names and parents, as in the file.
        fps: frames a second.
        poses: (T, J, 3) axis-angle of each joint relative to its parent.
        translation: (T, 3); the root joint stands at its rest place plus this.
        rest_joints: (J, 3), or (T, J, 3) where the file moves joints in their parents' frames; None for body models.
        turns: what a joint's rotation turns. "children": the bones that leave the joint (BVH, body models). "bone":
            also the bone that ends in it, since in Acclaim files a bone's name stands for its end.
        up: the axis that points up, "y" or "z".
        family: the body model family that the poses belong to, else None.
        betas: (S,) shape coefficients of that model, where the file has them.
        gender: of that model, as the file writes it.

    Raises:
        ValueError: shapes that do not fit each other, or a rate that is not positive.

    Example:
        >>> skeleton = Skeleton((-1, 0), ("elbow", "wrist"))
        >>> rest = torch.tensor([[0.0, 0.0, 0.0], [0.25, 0.0, 0.0]])
        >>> motion = Motion(skeleton, 60.0, poses=torch.zeros(5, 2, 3), translation=torch.ones(5, 3), rest_joints=rest)
        >>> motion.joints[0, 1], len(motion[::2]), motion[::2].fps
        (tensor([1.2500, 1.0000, 1.0000]), 3, 30.0)
    """

    skeleton: Skeleton
    fps: float | int
    poses: Float[Tensor, "T J 3"]
    translation: Float[Tensor, "T 3"]
    rest_joints: Float[Tensor, "*frames J 3"] | None = None
    turns: Literal["children", "bone"] = "children"
    up: Literal["y", "z"] = "y"
    family: str | None = None
    betas: Float[Tensor, " S"] | None = None
    gender: str | None = None

    def __post_init__(self) -> None:
        check_rate(self.fps)
        if self.poses.ndim != 3:
            raise ValueError(f"poses: expected (T, J, 3), got {tuple(self.poses.shape)}; its only batch is time")
        (frames,) = expect_shape("poses", self.poses, self.skeleton.num_joints, 3)
        if self.translation.shape != (frames, 3):
            raise ValueError(
                f"translation: expected ({frames}, 3), got {tuple(self.translation.shape)}; give one a frame of poses"
            )
        if self.rest_joints is not None:
            batch = expect_shape("rest_joints", self.rest_joints, self.skeleton.num_joints, 3)
            if batch not in ((), (frames,)):
                raise ValueError(
                    f"rest_joints: expected (J, 3) or ({frames}, J, 3), got {tuple(self.rest_joints.shape)}; "
                    "give one skeleton, or one a frame"
                )

    def __len__(self) -> int:
        """Return the number of frames T."""
        return self.poses.shape[0]

    def __getitem__(self, frames: slice) -> Motion:
        """Return the frames of a slice; a step divides the rate, so that the motion keeps its speed.

        Raises:
            TypeError: anything but a slice.
            ValueError: a step below 1.
        """
        if not isinstance(frames, slice):
            raise TypeError(f"frames: expected a slice, got {type(frames).__name__}; use motion[i : i + 1]")
        step = 1 if frames.step is None else frames.step
        if step < 1:
            raise ValueError(f"frames: expected a step >= 1, got {step}; a motion runs forwards")
        rest = self.rest_joints
        return replace(
            self,
            fps=self.fps / step,
            poses=self.poses[frames],
            translation=self.translation[frames],
            rest_joints=rest[frames] if rest is not None and rest.ndim == 3 else rest,
        )

    @cached_property
    def rotations(self) -> Float[Tensor, "T J 3 3"]:
        """Rotation of each joint relative to its parent."""
        return axis_angle_to_matrix(self.poses)

    @cached_property
    def joints(self) -> Float[Tensor, "T J 3"]:
        """World positions of the joints in metres.

        Raises:
            ValueError: a motion of a body model, whose joints depend on the model's shape.
        """
        if self.rest_joints is None:
            raise ValueError(
                "joints: expected a motion with rest joints, got the poses of a body model; "
                "use model.joints(**motion.arguments())"
            )
        turned, joints = forward_kinematics(self.rotations, self.rest_joints, self.skeleton)
        if self.turns == "bone":
            parents = list(self.skeleton.parents[1:])
            bones = self.rest_joints[..., 1:, :] - self.rest_joints[..., parents, :]
            steps = torch.cat((joints[:, :1], (turned[:, 1:] @ bones.unsqueeze(-1)).squeeze(-1)), dim=-2)
            joints = torch.as_tensor(self.skeleton.ancestors, dtype=steps.dtype, device=steps.device) @ steps
        return joints + self.translation.unsqueeze(-2)

    def resample(self, fps: float | int) -> Motion:
        """Return the same movement at another rate, from the first frame to at most the last.

        Rotations between two frames lie on the shortest arc between them; where that is half a turn, its direction is
        arbitrary. Translations (and rest joints that move) lie on the straight line. Frames that coincide with one of
        this motion's are equal to it. Nothing is smoothed: a rate far below can miss fast movement.

        Args:
            fps: the new rate, frames a second.

        Raises:
            ValueError: a rate that is not positive, or so high that the result would be larger than any file may be.
        """
        check_rate(fps)
        last = len(self) - 1
        span = last * fps / self.fps
        if span * self.poses.shape[1] > MAX_JOINT_FRAMES:
            raise ValueError(
                f"fps: expected at most {MAX_JOINT_FRAMES} joints times frames, got more, at {fps:g} a second for "
                f"{self.fps:g}; check both rates"
            )
        count = max(0, math.floor(span + 1e-6) + 1)
        time = torch.arange(count, dtype=torch.float64, device=self.poses.device) * (self.fps / fps)
        time = torch.where((time - time.round()).abs() < 1e-6, time.round(), time).clamp(max=max(last, 0))
        before = time.floor().long()
        after = (before + 1).clamp(max=max(last, 0))
        share = (time - before).to(self.poses.dtype)[:, None]

        def between(value: Tensor) -> Tensor:
            part = share if value.ndim == 2 else share[..., None]
            return value[before] + part * (value[after] - value[before])

        start = self.rotations[before]
        arc = matrix_to_axis_angle(start.mT @ self.rotations[after])
        poses = matrix_to_axis_angle(start @ axis_angle_to_matrix(share[..., None] * arc))
        rest = self.rest_joints
        return replace(
            self,
            fps=fps,
            poses=torch.where(share[..., None] == 0, self.poses[before], poses),
            translation=between(self.translation),
            rest_joints=between(rest) if rest is not None and rest.ndim == 3 else rest,
        )

    def to_y_up(self, root: Float[Tensor, "3"] | None = None) -> Motion:
        """Return the motion in a world whose y axis points up: (x, y, z) with z up becomes (x, z, -y).

        A y-up motion comes back as it is. A body model turns about its root joint J₀, then adds the translation, so
        with Q the turn of the world, the new root orientation is Q R and the new translation Q (J₀ + t) - J₀.

        Args:
            root: (3,) the rest root joint J₀; only for a motion of a body model, where it depends on the shape:
                `model.rest(betas=...).joints[0]`. Zeros instead move the whole motion by the constant J₀ - Q J₀.

        Raises:
            ValueError: a z-up motion of a body model without `root`.
        """
        if self.up == "y":
            return self
        if self.rest_joints is not None:
            root = self.rest_joints[..., 0, :]
        elif root is None:
            raise ValueError(
                "root: expected the rest root joint (3,), got None; "
                "give model.rest(betas=...).joints[0], or zeros where a constant shift does not matter"
            )
        turn = self.poses.new_tensor([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
        first = matrix_to_axis_angle(turn @ self.rotations[:, :1])
        return replace(
            self,
            poses=torch.cat((first, self.poses[:, 1:]), dim=1),
            translation=(root + self.translation) @ turn.mT - root,
            up="y",
        )

    def arguments(self, family: str | None = None, *, num_betas: int | None = None) -> dict[str, Tensor]:
        """Return what a body model takes: `model(**motion.arguments())`.

        Poses go over by joint name to any family with a body: SMPL-H to SMPL leaves out the fingers and keeps both
        hands straight, SMPL-H to SMPL-X keeps jaw and eyes still. SMPL and SMPL-H share their betas; no other two
        families do, and then betas are left out. Rest poses and rest places of the root differ a little between
        families: the poses are near, not equal.

        Args:
            family: the model's family, "smpl", "smplh", "smplx" or "star"; default: the one that the file is for.
            num_betas: the most betas to pass; 0 for none, as for a body with betas of its own (`open_body`). AMASS
                has 16, official SMPL-H pickles take 10.

        Returns:
            `global_orient` (T, 3), the parts of the family that have joints here, `transl` (T, 3), and `betas` (S,).

        Raises:
            ValueError: a motion of a skeleton that no body model has, or a family without these joints.
        """
        names = self.skeleton.names
        if self.family is None:
            raise ValueError(
                f"motion: expected the poses of a body model, got a skeleton with {', '.join(names[:4])}, ...; "
                "fit a body to its joints instead (physique.fitting.fit_joints)"
            )
        family = self.family if family is None else family
        row = family_by_name(family)
        if row.skeleton.names[0] != names[0]:
            raise ValueError(
                f"family: expected one with the root joint {names[0]}, got {family}; give smpl, smplh, smplx or star"
            )
        arguments = {}
        zero = torch.zeros_like(self.translation)
        start = 0
        for part in row.parts:
            wanted = row.skeleton.names[start : start + part.count]
            start += part.count
            found = [self.poses[:, names.index(name)] if name in names else zero for name in wanted]
            if any(name in names for name in wanted):
                arguments[part.name] = found[0] if part.single else torch.stack(found, dim=1)
        arguments["transl"] = self.translation
        same_shape = _SHAPE_SPACE.get(family, family) == _SHAPE_SPACE.get(self.family, self.family)
        if self.betas is not None and same_shape and num_betas != 0:
            arguments["betas"] = self.betas[:num_betas]
        return arguments


def check_rate(fps: float | int) -> None:
    """Raise ValueError unless `fps` is a positive number."""
    if not 0 < fps < math.inf:
        raise ValueError(f"fps: expected a positive number of frames a second, got {fps}; check the rate")
