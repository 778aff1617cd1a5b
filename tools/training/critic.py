"""Train the shipped discriminator on the pool against made impostors, and measure it on poses that it has not seen.

HMR's adversary sees what an encoder generates. The shipped one has no encoder: its impostors are what encoders and fits
get wrong. Every output has its own truth: in a pose with one wrong joint, that joint and the pose are fake, the other
joints are real.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from physique.bodymodel import BodyModel, default_joint_limits
from physique.geometry import axis_angle_to_matrix, geodesic_angle
from physique.priors import FactorizedDiscriminator
from torch import Tensor

from .impostors import auc

if TYPE_CHECKING:
    from physique.priors import PosePool

NUM_BETAS = 10
STEPS, BATCH, RATE = 1000, 128, 2e-3
WEIGHT_DECAY = 1e-4  # HMR's
# Impostors of a batch: shaken everywhere, uniform in the box of limits; all others have some joints replaced.
SHAKEN, UNIFORM = 0.15, 0.1
SHAKES = (0.15, 1.0)  # radians; any angle in between, small ones as often as large ones
MOST_REPLACED = 5
# A joint turned a little, or within its limits, may well be real: what matters there is the pose.
JOINTS_OF_OTHERS = 0.1
# Real poses are shaken too, by what a fit is uncertain of; joints that the capture does not show, by what it hides.
REAL_SHAKE, HIDDEN_SHAKE, HIDDEN = 0.07, 0.15, math.radians(5)
WIDE_SHAPES = (1.5, 6.0)  # standard deviations of unreal betas

APART = math.radians(30)
REPEATS = 4


class Judged(NamedTuple):
    """N poses, rotations (N, J, 3, 3): what the outputs (N, J + 1) should be, and how much each of them counts."""

    rotations: Tensor
    target: Tensor
    weight: Tensor


class Poses:
    """Endless real poses: clips share draws by the root of their length, so that no long clip outweighs the rest."""

    def __init__(self, pool: PosePool, generator: torch.Generator) -> None:
        """Take the poses of the pool and their mirror images."""
        pool = pool.mirrored()
        self._rotations = axis_angle_to_matrix(pool.body_pose)
        self._share = torch.bincount(pool.clip)[pool.clip].to(pool.body_pose.dtype).rsqrt()
        self._hidden = ~shown_joints(self._rotations)
        self._generator = generator

    def take(self, count: int) -> Tensor:
        """Return rotations (count, J, 3, 3)."""
        chosen = torch.multinomial(self._share, count, replacement=True, generator=self._generator)
        joints = self._rotations.shape[1]
        angle = REAL_SHAKE * torch.randn(count, joints, generator=self._generator)
        turned = turn(self._rotations[chosen], angle, self._generator)
        loose = HIDDEN_SHAKE * torch.randn(count, joints, 3, generator=self._generator)
        return torch.where(self._hidden[:, None, None], turned @ axis_angle_to_matrix(loose), turned)


def train(
    pool: PosePool, body: BodyModel, *, seed: int, steps: int = STEPS, batch: int = BATCH
) -> FactorizedDiscriminator:
    """Return a discriminator trained on the pool's poses; the same seed gives the same one.

    Real shapes are N(0, 1), which is what betas are; unreal ones spread wider. The pool has too few people to learn
    from.

    Args:
        pool: the poses, not mirrored yet.
        body: unused: the discriminator sees rotations alone.
        seed: of weights, impostors and everything else.
        steps: of Adam.
        batch: real poses a step, and as many impostors.
    """
    del body
    generator = torch.Generator().manual_seed(seed)
    poses = Poses(pool, generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        discriminator = FactorizedDiscriminator(pool.body_pose.shape[1], NUM_BETAS)
    optimiser = torch.optim.AdamW(discriminator.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        real = judged(poses.take(batch), 1)
        judgements = [real, *impostors(poses, batch, generator)]
        rotations, target, weight = (torch.cat(values) for values in zip(*judgements, strict=True))
        residual = discriminator.pose_realness(rotations) - target
        loss = (weight * residual.square()).sum() / len(rotations) + shape_loss(discriminator, batch, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return discriminator.eval()


def judged(rotations: Tensor, truth: int, joint_weight: float = 1.0) -> Judged:
    """Return poses of which everything is as real as `truth` says."""
    target = rotations.new_full((len(rotations), rotations.shape[1] + 1), truth)
    weight = torch.full_like(target, joint_weight)
    weight[:, -1] = 1
    return Judged(rotations, target, weight)


def impostors(poses: Poses, count: int, generator: torch.Generator) -> list[Judged]:
    """Return unreal poses: shaken, uniform in the box of limits, and with joints that others have."""
    shaken = poses.take(round(SHAKEN * count))
    low, high = (math.log(angle) for angle in SHAKES)
    angle = (low + (high - low) * torch.rand(len(shaken), 1, generator=generator)).exp()
    boxed = box_poses(round(UNIFORM * count), shaken.shape[1], generator).to(shaken)
    return [
        judged(turn(shaken, angle.expand(shaken.shape[:2]), generator), 0, JOINTS_OF_OTHERS),
        judged(boxed, 0, JOINTS_OF_OTHERS),
        replaced(poses.take(count - len(shaken) - len(boxed)), poses, generator),
    ]


def replaced(rotations: Tensor, poses: Poses, generator: torch.Generator) -> Judged:
    """Return poses of which one joint, or up to five, turn as another joint of another pose does."""
    count, joints = rotations.shape[:2]
    others = torch.stack([torch.randperm(joints, generator=generator) for _ in range(count)])
    foreign = torch.take_along_dim(poses.take(count), others[..., None, None], dim=1)
    several = torch.randint(1, MOST_REPLACED + 1, (count, 1), generator=generator)
    number = torch.where(torch.rand(count, 1, generator=generator) < 0.5, 1, several)
    # What is nearly the same as before is no error.
    wrong = torch.rand(count, joints, generator=generator).argsort(-1) < number
    wrong = wrong & (geodesic_angle(foreign, rotations) > APART * 2 / 3)
    truth = torch.cat((~wrong, ~wrong.any(-1, keepdim=True)), dim=-1).to(rotations.dtype)
    return Judged(torch.where(wrong[..., None, None], foreign, rotations), truth, torch.ones_like(truth))


def shape_loss(discriminator: FactorizedDiscriminator, count: int, generator: torch.Generator) -> Tensor:
    """Return the least-squares loss of the output for the shape."""
    size = (count, discriminator.num_betas)
    narrow, wide = WIDE_SHAPES
    spread = narrow + (wide - narrow) * torch.rand(count, 1, generator=generator)
    real = discriminator.shape_realness(torch.randn(size, generator=generator))
    fake = discriminator.shape_realness(spread * torch.randn(size, generator=generator))
    return ((real - 1).square() + fake.square()).mean()


def turn(rotations: Tensor, angle: Tensor, generator: torch.Generator) -> Tensor:
    """Return rotations (*B, 3, 3) turned further by angles (*B), each about a random axis."""
    axis = torch.nn.functional.normalize(torch.randn(*angle.shape, 3, generator=generator), dim=-1)
    return rotations @ axis_angle_to_matrix(axis.to(rotations) * angle.unsqueeze(-1))


def box_poses(count: int, joints: int, generator: torch.Generator) -> Tensor:
    """Return rotations (count, joints, 3, 3), uniform in the box of the default joint limits."""
    lower, upper = default_joint_limits(joints)
    return axis_angle_to_matrix(lower + (upper - lower) * torch.rand(count, joints, 3, generator=generator))


def shown_joints(rotations: Tensor) -> Tensor:
    """Return which joints (J,) of the poses (N, J, 3, 3) turn: the capture does not show the others."""
    spread = (rotations - rotations.mean(0)).square().sum((-1, -2)).mean(0).sqrt()
    return spread > HIDDEN


def report(
    prior: FactorizedDiscriminator, held: PosePool, body: BodyModel, *, seed: int, repeats: int = REPEATS
) -> dict[str, float]:
    """Return how well poses that it has not seen are told from impostors, and replaced joints are named.

    The score of a pose is its energy. Impostors are those of the issue that set the goals: uniform samples of the box
    of limits; every joint turned by 0.3 rad about a random axis; one joint replaced by another joint of another clip,
    at least 30° away. Everything is also measured with impostors that are wrong only in joints that the capture shows.
    """
    del body
    generator = torch.Generator().manual_seed(seed)
    rotations = axis_angle_to_matrix(held.body_pose)
    joints = rotations.shape[1]
    shown = shown_joints(rotations)
    boxed = box_poses(len(rotations), joints, generator).to(rotations)
    shaken = turn(rotations, torch.full(rotations.shape[:2], 0.3), generator)
    swapped, wrong = swap_one(rotations.repeat(repeats, 1, 1, 1), held.clip.repeat(repeats), generator)
    with torch.no_grad():
        real = energy_of(prior, rotations)
        figures: dict[str, float] = {}
        for name, fake in (("the default box", boxed), ("0.3 rad noise", shaken)):
            figures[f"ROC-AUC against {name}"] = auc(real, energy_of(prior, fake))
            fake = torch.where(shown[:, None, None], fake, rotations)
            figures[f"ROC-AUC against {name}, joints shown"] = auc(real, energy_of(prior, fake))
        energy = energy_of(prior, swapped)
        named = prior.pose_realness(swapped)[:, :joints].argmin(-1) == wrong
        figures["ROC-AUC against one replaced joint"] = auc(real, energy)
        figures["ROC-AUC against one replaced joint, joints shown"] = auc(real, energy[shown[wrong]])
        figures["replaced joint named least real, %"] = percent(named)
        figures["replaced joint named least real, joints shown, %"] = percent(named[shown[wrong]])
        names = prior.joint_report(rotations[:1]).names
        for part in dict.fromkeys(name.removeprefix("left_").removeprefix("right_") for name in names):
            members = torch.tensor([name.endswith(part) for name in names])
            figures[f"replaced {part} named least real, %"] = percent(named[members[wrong]])
        betas = torch.randn(2, 2000, prior.num_betas, generator=generator).to(rotations)
        shape = prior.shape_realness(betas * betas.new_tensor([1.0, 3.0])[:, None, None])
        figures["ROC-AUC of N(0, 1) betas against three times as wide ones"] = auc(-shape[0], -shape[1])
    return figures


def swap_one(rotations: Tensor, clip: Tensor, generator: torch.Generator, tries: int = 60) -> tuple[Tensor, Tensor]:
    """Return poses (M, J, 3, 3) with one joint of another clip's other joint, at least 30° away, and which one (M,).

    Poses for which none of the tries finds such a joint are left out.
    """
    count, joints = rotations.shape[:2]
    rows = torch.arange(count)
    wrong = torch.randint(joints, (count,), generator=generator)
    found, done = rotations[rows, wrong], torch.zeros(count, dtype=torch.bool)
    for _ in range(tries):
        pose = torch.randint(count, (count,), generator=generator)
        joint = (wrong + torch.randint(1, joints, (count,), generator=generator)) % joints
        candidate = rotations[pose, joint]
        apart = geodesic_angle(rotations[rows, wrong], candidate) >= APART
        fits = apart & (clip[pose] != clip) & ~done
        found, done = torch.where(fits[:, None, None], candidate, found), done | fits
    swapped = rotations.clone()
    swapped[rows, wrong] = found
    return swapped[done], wrong[done]


def energy_of(prior: FactorizedDiscriminator, rotations: Tensor) -> Tensor:
    """Return the energy (N,) of rotations."""
    return (prior.pose_realness(rotations) - 1).square().sum(-1)


def percent(mask: Tensor) -> float:
    """Return the share of what is true; NaN for none."""
    return 100 * float(mask.double().mean())
