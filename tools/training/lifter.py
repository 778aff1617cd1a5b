"""Train the shipped depth lifter from 2D poses alone, and measure it on poses that it has not seen.

What stands for detected people are projections of the pool's poses from random sides. The lifter sees some, its critic
others; neither ever sees a depth, and no two views are known to be of one pose. Known besides is what people look like
on average: the lengths of their bones.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from physique.bodymodel import BodyModel, KeypointRegressor, keypoint_set
from physique.geometry import axis_angle_to_matrix
from physique.losses import bone_lengths, bone_ratio_loss, bone_ratios, bone_symmetry_loss
from physique.losses.metrics import Protocol, scale_aligned_mpjpe
from physique.priors import (
    DepthLifter,
    PoseCritic,
    heading_cues,
    heading_loss,
    lifting_critic_loss,
    lifting_generator_loss,
    turn_about_vertical,
    turned_views,
)
from torch import Tensor, nn

if TYPE_CHECKING:
    from physique.priors import PosePool

KEYPOINTS = "coco17"
WIDTH = 256
STEPS, BATCH, ANGLES = 6000, 128, 2
RATE, BETAS = 7e-4, (0.5, 0.99)
# The first is that of Yoshiyasu and Gamez (2019), whose other weights are not preserved.
ADVERSARIAL, RATIO, SYMMETRY, HEADING = 0.1, 0.2, 0.2, 0.2
CONSISTENT, SPOILT = 0.1, 0.1
# Kudo et al.: whoever is right too often waits for the other.
CRITIC_WAITS, LIFTER_WAITS = 0.9, 0.1
AVERAGE = 0.999
# Half of the poses have limbs of other frames, as often as this, and all of their joints shaken, in radians.
LIMBS = (("hip knee ankle foot", 0.5), ("shoulder elbow wrist hand", 0.5))
SHAKEN = 0.05
TILT = 0.1  # radians: cameras are held level, give or take
FACE = ("nose", "eye", "ear")
NOISE, MOST_HIDDEN = 0.06, 0.15  # of the pose's unit; 0.06 are about 3 pixels of 224


class Skeleton(NamedTuple):
    """The body of the losses: the keypoints, and midpoints after them.

    Attributes:
        midpoints: pairs of keypoints.
        bones: pairs of points, first those of the left side, then their mirror images, then those of the middle.
        pairs: of the first two.
        trunk: the points along it.
    """

    midpoints: tuple[tuple[int, int], ...]
    bones: tuple[tuple[int, int], ...]
    pairs: tuple[tuple[tuple[int, int], tuple[int, int]], ...]
    trunk: tuple[int, int]

    def points(self, keypoints: Tensor) -> Tensor:
        """Return the keypoints (*B, K, D) and the midpoints after them."""
        first, second = zip(*self.midpoints, strict=True)
        middle = (keypoints[..., list(first), :] + keypoints[..., list(second), :]) / 2
        return torch.cat((keypoints, middle), dim=-2)


def skeleton() -> Skeleton:
    """Return the skeleton on the keypoints of COCO."""
    points = keypoint_set(KEYPOINTS)
    at = {name: index for index, name in enumerate((*points.names, "pelvis", "neck", "head"))}
    chains = (
        ("neck", "shoulder", "elbow", "wrist"),
        ("pelvis", "hip", "knee", "ankle"),
        ("head", "ear", "eye", "nose"),
    )
    sides = []
    for side in ("left_", "right_"):
        named = [[at[name] if name in at else at[side + name] for name in chain] for chain in chains]
        sides.append([bone for chain in named for bone in zip(chain, chain[1:], strict=False)])
    middle = ((at["neck"], at["head"]), (at["head"], at["nose"]))
    midpoints = tuple((at[f"left_{name}"], at[f"right_{name}"]) for name in ("hip", "shoulder", "ear"))
    return Skeleton(
        midpoints, (*sides[0], *sides[1], *middle), tuple(zip(*sides, strict=True)), (at["pelvis"], at["neck"])
    )


def mixed(pool: PosePool, body: BodyModel, generator: torch.Generator) -> Tensor:
    """Return as many body poses (N, 23, 3): half have both legs, and half both arms, of another frame."""
    poses = pool.body_pose + SHAKEN * torch.randn(pool.body_pose.shape, generator=generator)
    names = body.skeleton.names[1:]
    for limb, share in LIMBS:
        joints = torch.tensor([name.split("_")[-1] in limb.split() for name in names])
        other = pool.body_pose[torch.randint(len(poses), (len(poses),), generator=generator)]
        moved = joints & (torch.rand(len(poses), 1, generator=generator) < share)
        poses = torch.where(moved.unsqueeze(-1), other, poses)
    return poses


def keypoints_of(pool: PosePool, body: BodyModel, body_pose: Tensor | None = None) -> Tensor:
    """Return the keypoints (N, K, 3) of all poses, in metres from the middle of the hips, x right and y down.

    Args:
        pool: the poses.
        body: that has them.
        body_pose: (N, 23, 3) in place of the pool's.
    """
    regressor = KeypointRegressor(KEYPOINTS, body.data, dtype=body.dtype)
    body_pose = pool.body_pose if body_pose is None else body_pose
    with torch.no_grad():
        points = body.keypoints(regressor, body_pose=body_pose, global_orient=pool.global_orient, betas=pool.betas)
    points = points * points.new_tensor([1.0, -1.0, -1.0])
    hips = [keypoint_set(KEYPOINTS).index(f"{side}_hip") for side in ("left", "right")]
    return points - points[:, hips].mean(1, keepdim=True)


def view(points: Tensor, generator: torch.Generator, tilt: float = TILT) -> Tensor:
    """Return points (N, K, 3) in the axes of cameras on random sides, a little from above or below."""
    count = len(points)
    turn = 2 * math.pi * torch.rand(count, generator=generator)
    lean = tilt * torch.randn(count, generator=generator).clamp(-2, 2)
    zero = torch.zeros(count)
    camera = axis_angle_to_matrix(torch.stack((lean, zero, zero), -1)) @ axis_angle_to_matrix(
        torch.stack((zero, turn, zero), -1)
    )
    return points @ camera.to(points).mT


class Photographs:
    """Endless 2D poses: all that training ever sees of the pool."""

    def __init__(self, points: Tensor, generator: torch.Generator) -> None:
        """Keep the keypoints (N, K, 3) and the source of chance."""
        self._points = points
        self._generator = generator
        self._flip = list(keypoint_set(KEYPOINTS).flip)

    def take(self, count: int) -> Tensor:
        """Return poses (count, K, 2), each of a random person from a random side, half of them mirrored."""
        chosen = torch.randint(len(self._points), (count,), generator=self._generator)
        seen = view(self._points[chosen], self._generator)[..., :2]
        mirrored = torch.rand(count, generator=self._generator) < 0.5
        return torch.where(mirrored[:, None, None], seen[:, self._flip] * seen.new_tensor([-1.0, 1.0]), seen)


def train(pool: PosePool, body: BodyModel, *, seed: int, steps: int = STEPS, batch: int = BATCH) -> DepthLifter:
    """Return a lifter trained on the pool's poses from 2D alone; the same seed gives the same lifter.

    Args:
        pool: the poses, not mirrored yet.
        body: that has them.
        seed: of weights, views and everything else.
        steps: of lifter and critic.
        batch: people a step.
    """
    generator = torch.Generator().manual_seed(seed)
    points = torch.cat((keypoints_of(pool, body), keypoints_of(pool, body, mixed(pool, body, generator))))
    photographs = Photographs(points, generator)
    bones, cues = skeleton(), heading_cues(keypoint_set(KEYPOINTS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lifter, critic = DepthLifter(KEYPOINTS, width=WIDTH), PoseCritic(KEYPOINTS, width=WIDTH)
    average_person = _average_person(pool, body)
    lifter.bone_lengths.copy_(bone_lengths(average_person, keypoint_set(KEYPOINTS).bones))
    ratios = bone_ratios(bones.points(average_person), bones.bones, bones.trunk)
    averaged = copy.deepcopy(lifter).requires_grad_(False)
    optimisers = [torch.optim.Adam(network.parameters(), RATE, betas=BETAS) for network in (lifter, critic)]
    accuracy = 0.5
    for step in range(steps):
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = RATE * _fade(step / steps)
        seen = photographs.take(batch)
        size = seen.norm(dim=-1).mean(-1)[:, None, None]
        lifted = lifter.lift(seen / size)
        turns = 2 * math.pi * torch.rand(batch, ANGLES, generator=generator)
        fakes = turned_views(lifted, turns).flatten(0, 1)

        on_real, on_fake = critic(photographs.take(len(fakes))), critic(fakes.detach())
        right = (on_real > 0).float().mean() + (on_fake < 0).float().mean()
        accuracy = 0.9 * accuracy + 0.05 * right.item()
        if accuracy < CRITIC_WAITS:
            _descend(optimisers[1], lifting_critic_loss(on_real, on_fake).mean())

        body_points = bones.points(lifted)
        adversarial = lifting_generator_loss(critic.requires_grad_(False)(fakes)).unflatten(0, (batch, ANGLES)).mean(-1)
        loss = (
            ADVERSARIAL * adversarial
            + RATIO * bone_ratio_loss(body_points, bones.bones, ratios, bones.trunk)
            + SYMMETRY * bone_symmetry_loss(body_points, bones.pairs)
            + HEADING * heading_loss(lifted, cues)
            + CONSISTENT * _consistency_loss(lifter, lifted, turns[:, 0])
            + SPOILT * _spoilt_loss(lifter, seen / size, lifted[..., 2].detach(), generator)
        )
        if accuracy > LIFTER_WAITS:
            _descend(optimisers[0], loss.mean())
        critic.requires_grad_(True)
        _follow(averaged, lifter, min(AVERAGE, (step + 1) / (step + 10)))
    return averaged.requires_grad_(True).eval()


def _average_person(pool: PosePool, body: BodyModel) -> Tensor:
    """Return the keypoints (K, 3) of a body at rest with the average shape of the pool."""
    betas = None if pool.betas is None else pool.betas.mean(0)
    with torch.no_grad():
        return body.keypoints(KeypointRegressor(KEYPOINTS, body.data, dtype=body.dtype), betas=betas)


def _consistency_loss(lifter: DepthLifter, lifted: Tensor, angle: Tensor) -> Tensor:
    """Return how far the depths (N,) are from those that the lifter gives a turned view (Chen et al. 2019)."""
    turned = turn_about_vertical(lifted, angle)
    return (lifter(turned[..., :2]) - turned[..., 2]).abs().mean(-1)


def _spoilt_loss(lifter: DepthLifter, clean: Tensor, depths: Tensor, generator: torch.Generator) -> Tensor:
    """Return how far the depths (N,) move where points are hidden and shaken as detectors do."""
    noise = NOISE * torch.rand(len(clean), 1, 1, generator=generator) * torch.randn(clean.shape, generator=generator)
    share = MOST_HIDDEN * torch.rand(len(clean), 1, generator=generator)
    confidence = (torch.rand(clean.shape[:-1], generator=generator) >= share).to(clean.dtype)
    return ((lifter(clean + noise, confidence) - depths).abs() * confidence).mean(-1)


def _fade(progress: float) -> float:
    """Return the factor on the step size: constant for half of the training, then down to a fiftieth."""
    return 1.0 if progress < 0.5 else 0.51 + 0.49 * math.cos(2 * math.pi * (progress - 0.5))


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take a step, unless the gradients hold NaN: a bad sample must not reach the weights."""
    optimiser.zero_grad()
    loss.backward()
    gradients = [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
    if all(bool(gradient.isfinite().all()) for gradient in gradients):
        optimiser.step()


@torch.no_grad()
def _follow(averaged: nn.Module, module: nn.Module, memory: float) -> None:
    for mean, value in zip(averaged.parameters(), module.parameters(), strict=True):
        mean.lerp_(value, 1 - memory)


def report(prior: DepthLifter, held: PosePool, body: BodyModel, *, seed: int) -> dict[str, float]:
    """Return the figures of a lifter on poses it has not seen.

    Each error is the mean over poses and three random sides of the distance between lifted and true keypoints, both
    from the middle of the hips, the lifted ones scaled to fit.
    """
    points = keypoints_of(held, body).repeat(3, 1, 1)
    generator = torch.Generator().manual_seed(seed)
    level, tilted = view(points, generator, 0.0), view(points, generator)
    size = (level[..., :2].amax(-2) - level[..., :2].amin(-2)).amax(-1)[:, None, None]
    noise = 3 / (0.8 * 224) * size * torch.randn(level[..., :2].shape, generator=generator)
    limbs = tuple(i for i, name in enumerate(keypoint_set(KEYPOINTS).names) if name.split("_")[-1] not in FACE)

    def error(found: Tensor, truth: Tensor, joints: tuple[int, ...] | None = None) -> Tensor:
        return 1000 * scale_aligned_mpjpe(found, truth, protocol=Protocol(prior.root, joints))

    with torch.no_grad():
        lifted = prior.lift(level[..., :2])
        errors = error(lifted, level)
        figures = {
            "MPJPE from 2D alone, mm": errors,
            "MPJPE of the 12 joints of the limbs, mm": error(lifted, level, limbs),
            "MPJPE with tilted cameras, mm": error(prior.lift(tilted[..., :2]), tilted),
            "MPJPE with 3 px noise at 224, mm": error(prior.lift(level[..., :2] + noise), level),
            "MPJPE of all depths 0, for comparison, mm": error(lifted * lifted.new_tensor([1.0, 1.0, 0.0]), level),
            "people better with depths negated": (error(lifted * lifted.new_tensor([1.0, 1.0, -1.0]), level) < errors),
        }
        return {name: values.float().mean().item() for name, values in figures.items()}
