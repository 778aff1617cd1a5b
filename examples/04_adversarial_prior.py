"""Train a regressor from 2D keypoints alone, without and with HMR's adversary: monsters, and people.

Bodies are fitted to motion capture; every third clip is held out. The regressor sees keypoints of the training poses,
from up to 70° to either side of the front, and no pose at all; the discriminator sees poses, but not which keypoints
are theirs. Prints the PA-MPJPE on held-out poses of a training without the adversary and of one with it, and writes
DIR/people.png, three of them side by side. Takes two minutes on one thread. Needs `pip install "physique[viz]"`.

`torchrun --nproc-per-node 2 examples/04_adversarial_prior.py ...` trains in two processes, with the same losses but for
rounding.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from drawing import Person, draw_people
from mocap import fit_clip, read_clips
from parallel import Team, join_team
from physique.bodymodel import BodyModel, KeypointRegressor, keypoint_set, open_body
from physique.cameras import WeakPerspectiveCamera
from physique.geometry import axis_angle_to_matrix, rotation_6d_to_matrix, vertex_normals
from physique.losses import reprojection_loss
from physique.losses.metrics import pa_mpjpe
from physique.priors import FactorizedDiscriminator, PosePool, lsgan_discriminator_loss, lsgan_generator_loss
from scenes import facing
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

KEYPOINTS = "hmr19"
COMMON = 14  # of them are measured: those of LSP, without the face
EVERY = 5  # frames: consecutive ones are alike
NUM_BETAS = 10
STAGES, WIDTH = 3, 512
BATCH = 32
REPROJECTION = 120.0  # against the adversary's 1
RATE, ADAM_BETAS = 1e-3, (0.5, 0.99)
WEIGHT_DECAY = 1e-4
SIDEWAYS, TILT, NOISE = 1.2, 0.2, 0.01  # radians; radians; of half the image
SHOWN, PIXELS = 3, 112
LAST = 100  # steps, of the loss that is printed
# Joints that the capture does not show are at rest in all poses, and so they are in all estimates.
HIDDEN = ("foot", "wrist", "hand", "head")


class Estimate(NamedTuple):
    """What the regressor says: `rotations` (*B, 24, 3, 3) with the root's first, `betas` (*B, 10), a `camera`."""

    rotations: Tensor
    betas: Tensor
    camera: WeakPerspectiveCamera

    def stage(self, index: int) -> Estimate:
        """Return one of the stages."""
        camera = WeakPerspectiveCamera(self.camera.scale[index], self.camera.translation[index])
        return Estimate(self.rotations[index], self.betas[index], camera)

    def arguments(self) -> dict[str, Tensor]:
        """Return the rotations and betas under the names that a body model has for them."""
        rotations = {"global_orient": self.rotations[..., 0, :, :], "body_pose": self.rotations[..., 1:, :, :]}
        return {**rotations, "betas": self.betas}


class Regressor(nn.Module):
    """Keypoints (B, 19, 2) to estimates (T, B, ...): each stage corrects the one before (iterative error feedback)."""

    def __init__(self, body: BodyModel) -> None:
        """Start at the rest pose, upright before the camera."""
        super().__init__()
        rest, upright = torch.tensor([1.0, 0, 0, 0, 1, 0]), torch.tensor([1.0, 0, 0, 0, -1, 0])
        start = torch.cat((upright, rest.repeat(23), torch.zeros(NUM_BETAS), torch.tensor([0.9, 0, 0])))
        moving = torch.tensor([not name.endswith(HIDDEN) for name in body.skeleton.names])
        self.register_buffer("start", start)
        self.register_buffer("free", torch.cat((moving.repeat_interleave(6), torch.ones(NUM_BETAS + 3))))
        inputs = 2 * len(keypoint_set(KEYPOINTS)) + len(start)
        layers = (nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
        self.correction = nn.Sequential(*layers, nn.Linear(WIDTH, len(start)))
        nn.init.xavier_uniform_(self.correction[-1].weight, gain=0.1)
        nn.init.zeros_(self.correction[-1].bias)

    def forward(self, keypoints: Tensor) -> Estimate:
        """Return all stages, the last the best."""
        stages = [self.start.expand(len(keypoints), -1)]
        for _ in range(STAGES):
            correction = self.correction(torch.cat((keypoints.flatten(-2), stages[-1]), -1))
            stages.append(stages[-1] + self.free * correction)
        turns, betas, camera = torch.stack(stages[1:]).split((144, NUM_BETAS, 3), dim=-1)
        rotations = rotation_6d_to_matrix(turns.unflatten(-1, (24, 6)))
        return Estimate(rotations, betas, WeakPerspectiveCamera(camera[..., 0], camera[..., 1:]))


class Photographer:
    """Sees a body's keypoints: those of real poses from random views, and those of estimates."""

    def __init__(self, body: BodyModel) -> None:
        """Take a body."""
        self.body = body
        self._regressor = KeypointRegressor(KEYPOINTS, body.data)

    def photograph(self, poses: PosePool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return keypoints (B, 19, 2) from -1 to 1, with noise, of people in these poses; and the points (B, 19, 3)."""
        count = len(poses)
        turn = SIDEWAYS * (2 * torch.rand(count, generator=generator) - 1)
        tilt = TILT * torch.randn(count, generator=generator).clamp(-2, 2)
        betas = torch.randn(count, NUM_BETAS, generator=generator)
        orient = facing(turn, tilt)
        with torch.no_grad():
            points = self.body.keypoints(self._regressor, betas=betas, global_orient=orient, body_pose=poses.body_pose)
        low, high = points[..., :2].amin(-2, keepdim=True), points[..., :2].amax(-2, keepdim=True)
        seen = (2 * points[..., :2] - low - high) / (high - low).amax(-1, keepdim=True)
        return seen + NOISE * torch.randn(seen.shape, generator=generator), points

    def points(self, estimate: Estimate) -> Tensor:
        """Return the keypoints (*B, 19, 3) of an estimate."""
        return self.body.keypoints(self._regressor, **estimate.arguments(), rotation="matrix")


def train(
    photographer: Photographer, poses: PosePool, adversary: bool, steps: int, seed: int, team: Team
) -> tuple[Regressor, Tensor]:
    """Train a regressor from 2D keypoints, with an adversary or without; return it and its loss at each step."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    regressor, discriminator = Regressor(photographer.body), FactorizedDiscriminator(23, NUM_BETAS)
    shared_regressor, shared_discriminator = team.share(regressor), team.share(discriminator)
    optimiser = torch.optim.Adam(regressor.parameters(), RATE, ADAM_BETAS)
    rival = torch.optim.AdamW(discriminator.parameters(), RATE, ADAM_BETAS, weight_decay=WEIGHT_DECAY)
    regressor_steps, discriminator_steps = (
        LambdaLR(each, lambda step: fade(step / steps)) for each in (optimiser, rival)
    )
    losses = []
    name = f"training {'with' if adversary else 'without'} the adversary"
    for _ in tqdm(range(steps), desc=name, unit="step", disable=team.rank > 0):
        keypoints = team.part(photographer.photograph(poses.sample(BATCH, generator), generator)[0])
        stages = shared_regressor(keypoints)

        # The regressor explains the keypoints at the last stage, and looks real at every stage.
        last = stages.stage(-1)
        projected = last.camera.project(photographer.points(last))
        loss = REPROJECTION * reprojection_loss(projected, keypoints, torch.ones(keypoints.shape[:-1]), penalty="l1")
        if adversary:
            outputs = discriminator(stages.rotations[..., 1:, :, :], stages.betas)
            loss = loss + lsgan_generator_loss(outputs).sum(0)
        losses.append(descend(regressor_steps, loss))

        # The discriminator learns to tell all T stages from T times as many real people, in no way paired with them.
        if adversary:
            real = poses.sample(STAGES * BATCH, generator)
            rotations = axis_angle_to_matrix(real.body_pose).unflatten(0, (STAGES, BATCH))
            betas = torch.randn(STAGES, BATCH, NUM_BETAS, generator=generator)
            on_real = shared_discriminator(team.part(rotations, dim=1), team.part(betas, dim=1))
            on_fake = shared_discriminator(stages.rotations[..., 1:, :, :].detach(), stages.betas.detach())
            descend(discriminator_steps, lsgan_discriminator_loss(on_real, on_fake))
    return regressor.eval(), team.mean(torch.stack(losses))


def descend(schedule: LambdaLR, loss: Tensor) -> Tensor:
    """Take a step down the mean of a loss, and return it."""
    schedule.optimizer.zero_grad()
    mean = loss.mean()
    mean.backward()
    schedule.optimizer.step()
    schedule.step()
    return mean.detach()


def fade(progress: float) -> float:
    """Return the factor on the rates: constant for half of the training, then down to a fiftieth."""
    return min(1.0, 2.02 - 2 * progress)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train twice, and return the exit status: 2 with one line on stderr where the input is of no use."""
    options = parse_options(arguments)
    with join_team() as team:
        try:
            if options.steps < 1:
                raise ValueError(f"--steps: expected 1 or more, got {options.steps}; two thousand are enough")
            if BATCH % team.size:
                raise ValueError(f"--nproc-per-node: expected a divisor of {BATCH}, got {team.size}; take 2 or 4")
            options.out.mkdir(parents=True, exist_ok=True)
            body = BodyModel(open_body("low"))
            training, held = read_pools(options.mocap, body)
        except (OSError, ValueError) as error:
            print(" ".join(str(error).split()), file=sys.stderr)
            return 2
        compare(options, Photographer(body), training, held, team)
    return 0


def compare(
    options: argparse.Namespace, photographer: Photographer, training: PosePool, held: PosePool, team: Team
) -> None:
    """Train without and with the adversary, print the errors on held-out poses and draw some."""
    keypoints, truth = photographer.photograph(held, torch.Generator().manual_seed(options.seed))
    estimates, errors = [], []
    for adversary in (False, True):
        regressor, losses = train(photographer, training, adversary, options.steps, options.seed, team)
        with torch.no_grad():
            estimates.append(regressor(keypoints).stage(-1))
            found = photographer.points(estimates[-1])
            errors.append(1000 * pa_mpjpe(found[:, :COMMON], truth[:, :COMMON]))
        name, end = "with" if adversary else "without", losses[-LAST:].mean()
        print(f"PA-MPJPE {name} the adversary: {errors[-1].mean():.1f} mm; training loss at the end {end:.2f}")
    gain = 100 * (1 - errors[1].mean() / errors[0].mean())
    print(f"{gain:.0f} % lower with it, on {len(held)} held-out poses of {len(held.clip_names)} clips")
    if team.rank == 0:
        draw(options.out / "people.png", photographer, estimates, errors, keypoints)
    print(f"written to {options.out}: people.png")


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mocap = "an .npz of clips of CMU's joint positions, or a saved PosePool (.safetensors)"
    parser.add_argument("--mocap", required=True, type=Path, metavar="FILE", help=mocap)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the picture")
    parser.add_argument("--steps", type=int, default=2000, help="of each training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, views and noise (default: %(default)s)")
    return parser.parse_args(arguments)


def read_pools(path: Path, body: BodyModel) -> tuple[PosePool, PosePool]:
    """Return the poses to train on, with their mirror images, and those of every third clip, held out."""
    if path.suffix == ".safetensors":
        pool = PosePool.load(path).select(slice(None, None, EVERY))
    else:
        clips = {name: clip._replace(joints=clip.joints[::EVERY]) for name, clip in read_clips(path).items()}
        joints = torch.cat([clip.joints for clip in clips.values()])
        print(f"fitting bodies to {len(joints)} frames of {len(clips)} clips")
        fitted = fit_clip(body, next(iter(clips.values()))._replace(joints=joints), sequence=False).params
        lengths = [len(clip.joints) for clip in clips.values()]
        pieces = zip(fitted["body_pose"].split(lengths), fitted["global_orient"].split(lengths), strict=True)
        named = zip(clips, pieces, strict=True)
        pool = PosePool.from_clips({name: {"body_pose": pose, "global_orient": root} for name, (pose, root) in named})
    if len(pool.clip_names) < 2:
        raise ValueError(f"{path}: expected several clips, got {len(pool.clip_names)}; one must be held out")
    training, held = pool.split(pool.clip_names[::3])
    return training.mirrored(), held


def draw(path: Path, photographer: Photographer, estimates: list[Estimate], errors: list[Tensor], seen: Tensor) -> None:
    """Draw some people: on the left what the first regressor makes of their keypoints, on the right the second."""
    chosen = torch.linspace(0, len(seen) - 1, SHOWN + 2).round().long()[1:-1].tolist()
    body, bones = photographer.body, keypoint_set(KEYPOINTS).bones
    pictures = []
    for person in chosen:
        for estimate, error, name in zip(estimates, errors, ("without", "with"), strict=True):
            one = estimate.stage(person)
            vertices = body(**one.arguments(), rotation="matrix").vertices
            solid = torch.cat((one.camera.project(vertices), one.camera.scale * vertices[:, 2:]), dim=-1)
            pictures.append(
                Person(
                    title=f"{name} the adversary\nPA-MPJPE {error[person]:.0f} mm",
                    vertices=PIXELS * solid.numpy(),
                    normals=vertex_normals(solid, body.faces).numpy(),
                    keypoints=PIXELS * seen[person].numpy(),
                    seen=seen[person, :, 0].isfinite().numpy(),
                    fitted=PIXELS * one.camera.project(photographer.points(one)).numpy(),
                    bones=bones,
                    from_right=bool(one.rotations[0, 0, 2] >= 0),
                )
            )
    draw_people(pictures, body.data.faces, path, pixels=420, detected="keypoints that were seen")


if __name__ == "__main__":
    torch.set_num_threads(1)  # the products are so small that threads only wait for each other
    sys.exit(main())
