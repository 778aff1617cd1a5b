"""Measure Levenberg-Marquardt against Adam on the same problem: the loss that each reaches, and the time.

`python benchmarks/second_order.py` prints the table and ends with status 1 when a promise is not kept. The problem:
pose, shape and place of bodies from their joints with noise, starting in the T-pose, and the squares of the betas.

Both run on PyTorch alone unless `--backend compiled` asks for the kernel, which serves Adam's steps and not Jacobians.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import torch
from physique.bodymodel import BodyModel, open_body, use_backend
from physique.fitting import Solution, least_squares, minimise
from torch import Tensor

NOISE = 0.01  # metres
FAR = 1.0  # damping for a start far from the answer
STEPS = 15
MOST_OF_TIME = 0.25
# Adam's steps and step sizes: its defaults, and what it does better with.
ADAM = ((300, 0.1), (300, 0.03), (1000, 0.03))
Params = dict[str, Tensor]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 1 when a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", default=32, type=int, help="(default: %(default)s)")
    parser.add_argument("--backend", default="eager", help="that bodies run on (default: %(default)s)")
    options = parser.parse_args(arguments)
    with use_backend(options.backend):
        return 0 if compare(options.bodies) else 1


def compare(bodies: int) -> bool:
    """Print the table for some bodies; return whether the promise is kept."""
    model = BodyModel(open_body("low"))
    target = make_joints(model, bodies)
    start = {
        "betas": target.new_zeros(bodies, model.data.num_betas),
        "global_orient": target.new_zeros(bodies, 3),
        "body_pose": target.new_zeros(bodies, 23, 3),
        "transl": target[:, 0] - model.joints()[0],
    }

    rotations = ("global_orient", "body_pose")
    columns = sum(value.shape[1:].numel() for value in start.values())
    of_betas = torch.eye(columns)[: model.data.num_betas].expand(bodies, -1, -1)

    def residual(params: Params, target: Tensor) -> Tensor:
        return torch.cat(((model.joints(**params) - target).flatten(1) / NOISE, params["betas"]), dim=-1)

    def jacobian(params: Params, target: Tensor) -> tuple[Tensor, Tensor]:
        moved = model.joints_jacobian(**params)
        values = torch.cat(((moved.points - target).flatten(1) / NOISE, params["betas"]), dim=-1)
        return values, torch.cat((moved.matrix(params) / NOISE, of_betas[: len(target)]), dim=-2)

    def loss(params: Params) -> Tensor:
        return residual(params, target).square().sum(-1)

    def second_order(closed_form: bool, steps: int = STEPS) -> Solution:
        given = jacobian if closed_form else None
        return least_squares(
            residual, start, data=target, rotations=rotations, jacobian=given, steps=steps, damping=FAR
        )

    print(f"{bodies} bodies, 24 joints; process time of one core, the least of three")
    print(f"{'':44}{'mean loss':>10}{'worst':>9}{'steps':>7}{'seconds':>9}{'of Adam':>9}")
    show("least_squares, Jacobian in closed form", lambda: second_order(True))
    show("least_squares, Jacobian by differentiation", lambda: second_order(False))
    kept = True
    for steps, lr in ADAM:
        first = show(f"Adam, lr {lr}", lambda steps=steps, lr=lr: minimise(loss, start, steps=steps, lr=lr))
        enough = next((k for k in range(1, STEPS + 1) if second_order(True, k).loss.mean() <= first[0]), STEPS)
        ours = show("least_squares, to no more than that", lambda k=enough: second_order(True, k), first[1])
        kept = kept and ours[0] <= first[0] and ours[1] <= MOST_OF_TIME * first[1]
    return kept


def show(name: str, solve: Callable[[], Solution], adam: float | None = None) -> tuple[float, float]:
    """Solve three times, print the figures as a line, and return the mean loss and the least time in seconds."""
    times = []
    for _ in range(3):
        start = time.process_time()
        solution = solve()
        times.append(time.process_time() - start)
    seconds, mean, worst = min(times), float(solution.loss.mean()), float(solution.loss.max())
    share = f"{'-':>9}" if adam is None else f"{seconds / adam:8.2f}x"
    print(f"{name:44}{mean:10.3f}{worst:9.2f}{solution.steps:7}{seconds:9.3f}{share}", flush=True)
    return mean, seconds


def make_joints(model: BodyModel, count: int) -> Tensor:
    """Return joints (count, 24, 3) of random bodies with noise."""
    generator = torch.Generator().manual_seed(0)
    pose = 0.4 * torch.randn(count, 24, 3, generator=generator)
    betas = torch.randn(count, model.data.num_betas, generator=generator)
    transl = torch.randn(count, 3, generator=generator)
    joints = model.joints(betas=betas, global_orient=pose[:, 0], body_pose=pose[:, 1:], transl=transl)
    return joints + NOISE * torch.randn(joints.shape, generator=generator)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
