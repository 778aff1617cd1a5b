"""Measure what a fit costs here, and simulate what a million frames cost on many cores: hours, money, what is lost.

`python benchmarks/scaling.py --workers 1 64 --core-price 0.04` measures and prints the tables of docs/scaling.md. Rates
are process times of one thread; the GPU is measured where there is one and otherwise estimated, and the row says which.
Needs `pip install "physique[scale,viz]"`.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from physique.bodymodel import BodyModel, KeypointRegressor, open_body
from physique.fitting import fit_joints, fit_keypoints, register_surface

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from crowd import make_people
from fit_pieces import Fitter, Settings
from scenes import make_scene
from shards import SUFFIXES, Piece, write_columns

FRAMES = 1_000_000
KEYPOINTS = "openpose25"
START_S = 12.0  # of a worker: Python, torch, Ray, the model


class Cost(NamedTuple):
    """What a batch costs: seconds of its own, and seconds a frame."""

    name: str
    batch: int
    fixed: float
    each: float

    def per_frame(self, batch: int | None = None) -> float:
        """Return the seconds a frame in batches of a size."""
        return self.fixed / (batch or self.batch) + self.each


class Run(NamedTuple):
    """A simulated run: wall time and time of all workers in hours, and the part of that which was lost to kills."""

    hours: float
    worker_hours: float
    lost: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables."""
    options = parse_options(arguments)
    if options.worker:
        print_memory()
        return 0
    torch.set_num_threads(1)
    print(f"cost of a frame, process time of one thread of this machine, torch {torch.__version__}")
    print(f"{'':34}{'batch':>6}{'ms a batch':>12}{'ms a frame':>12}{'frames/s':>10}")
    costs = [measure(name, make, batch, "cpu", options.rounds) for name, make, batch in FITS]
    for cost in costs:
        show(cost)
    print("\nfit_keypoints on a GPU")
    gpu = gpu_cost(costs[0], options)
    show(gpu)
    print_records()
    child = [sys.executable, __file__, "--worker"]
    print("\nmemory of a worker\n" + subprocess.run(child, check=True, capture_output=True, text=True).stdout, end="")

    print(f"\n{FRAMES:,} frames in pieces of {options.piece}, a worker a core at {options.core_price:g} an hour,")
    print(f"each killed {options.kills:g} times an hour; {START_S:.0f} s until a worker works; simulated")
    print(f"{'':22}{'workers':>8}{'hours':>9}{'core hours':>12}{'busy':>7}{'lost':>8}{'price':>9}")
    for cost in costs:
        for workers in options.workers:
            run = simulate(cost.per_frame(), workers, options.piece, options.kills)
            busy = FRAMES * cost.per_frame() / 3600 / run.worker_hours
            price = options.core_price * run.worker_hours
            line = f"{run.hours:9.2f}{run.worker_hours:12.1f}{busy:7.0%}{run.lost / run.worker_hours:8.1%}{price:9.2f}"
            print(f"{cost.name:22}{workers:8}{line}")
    hours = FRAMES * gpu.per_frame() / 3600
    print(f"{gpu.name}: {hours:.2f} GPU hours, {options.gpu_price * hours:.2f} at {options.gpu_price:g} an hour")
    return 0


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--workers", type=int, nargs="+", default=[1, 2, 16, 64, 256], help="cores (default: %(default)s)")
    add("--core-price", type=float, default=0.04, help="an hour, in any currency (default: %(default)s)")
    add("--gpu-price", type=float, default=3.0, help="an hour (default: %(default)s)")
    add("--piece", type=int, default=1024, help="records written at once (default: %(default)s)")
    add("--kills", type=float, default=0.05, help="of a worker in an hour, as on spot machines (default: %(default)s)")
    add("--gpu-batch", type=int, default=4096, help="(default: %(default)s)")
    add(
        "--gpu-host", type=float, default=1.5, help="assumed: launching kernels for a batch takes so many times as long"
    )
    add("--gpu-speed", type=float, default=100.0, help="assumed: cores that it takes to do the arithmetic of a GPU")
    add("--rounds", type=int, default=3, help="of each measurement, the least counts (default: %(default)s)")
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def keypoints_fit(batch: int, device: str) -> Callable[[], object]:
    """Return a fit of people to their keypoints in images."""
    model = BodyModel(open_body())
    regressor = KeypointRegressor(KEYPOINTS, model.data)
    seen = torch.from_numpy(make_people(model, regressor, batch, seed=0)["keypoints"]).to(device)
    model, regressor = model.to(device), regressor.to(device)
    return lambda: fit_keypoints(model, seen[..., :2], seen[..., 2], regressor=regressor)


def joints_fit(batch: int, device: str) -> Callable[[], object]:
    """Return a fit of bodies to their 24 joints in space."""
    model = BodyModel(open_body("low")).to(device)
    generator = torch.Generator().manual_seed(0)
    pose = 0.3 * torch.randn(batch, 23, 3, generator=generator)
    betas = torch.randn(batch, model.data.num_betas, generator=generator)
    joints = model.joints(betas=betas.to(device), body_pose=pose.to(device))
    return lambda: fit_joints(model, joints + 0.01 * torch.sin(1e3 * joints))


def surface_fit(batch: int, device: str) -> Callable[[], object]:
    """Return a registration of bodies to dense correspondences and keypoints."""
    model = BodyModel(open_body("low"))
    pose = 0.3 * torch.randn(batch, 23, 3, generator=torch.Generator().manual_seed(0))
    scene = make_scene(model, pose)
    seen = {"keypoints": scene.keypoints, "confidence": torch.ones(batch, 14), "keypoint_set": "lsp14"}
    return lambda: register_surface(model, scene.correspondences, **seen)


FITS = (("fit_keypoints", keypoints_fit, 128), ("fit_joints", joints_fit, 512), ("register_surface", surface_fit, 32))


def measure(name: str, make: Callable[[int, str], Callable[[], object]], batch: int, device: str, rounds: int) -> Cost:
    """Time a fit at a batch and at a quarter of it, and return the line through both."""
    small = max(batch // 4, 1)
    little, much = (min(seconds(make(size, device), device) for _ in range(rounds)) for size in (small, batch))
    each = max((much - little) / (batch - small), 0.0)
    return Cost(name, batch, much - batch * each, each)


def seconds(call: Callable[[], object], device: str) -> float:
    """Return the process time of a call, or on a GPU its wall time."""
    if device == "cpu":
        start = time.process_time()
        call()
        return time.process_time() - start
    call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def gpu_cost(core: Cost, options: argparse.Namespace) -> Cost:
    """Return what fit_keypoints costs on the GPU here, or an estimate from a core and the assumed ratios."""
    if torch.cuda.is_available():
        measured = measure("", keypoints_fit, options.gpu_batch, "cuda", options.rounds)
        return measured._replace(name=f"{torch.cuda.get_device_name()}, measured")
    return Cost("a GPU, ESTIMATED", options.gpu_batch, options.gpu_host * core.fixed, core.each / options.gpu_speed)


def show(cost: Cost) -> None:
    """Print a line."""
    ms = 1000 * cost.per_frame()
    print(f"{cost.name:34}{cost.batch:6}{ms * cost.batch:12.0f}{ms:12.3f}{1000 / ms:10.1f}", flush=True)


def print_records(count: int = 1024) -> None:
    """Print the bytes of records in and out, and the time to read, check and write them."""
    print(f"\n{'a record':12}{'bytes in':>10}{'bytes out':>11}{'ms to read, check, write':>26}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        worker = prepared_worker(folder, 40)  # enough to tell people apart, or they would take less room
        people = make_people(worker.model, worker.regressor, count, seed=0)
        for suffix in SUFFIXES:
            shard = folder / f"people{suffix}"
            write_columns(shard, people)
            piece = Piece(str(shard), 0, count)
            read = seconds(lambda piece=piece: worker.read(piece), "cpu")
            columns, _ = worker.fit(piece, worker.read(piece)[0])
            written = seconds(lambda piece=piece, c=columns: write_columns(piece.bodies(folder), c), "cpu")
            sizes = [path.stat().st_size / count for path in (shard, piece.bodies(folder))]
            print(f"{suffix:12}{sizes[0]:10.0f}{sizes[1]:11.0f}{1000 * (read + written) / count:26.3f}")


def prepared_worker(folder: Path, steps: int | None) -> Fitter:
    """Return a worker like those of examples/06_fit_many.py."""
    for name in ("bodies", "rejected", "tries"):
        (folder / name).mkdir()
    return Fitter(Settings(None, "full", KEYPOINTS, steps, 128, 1024), str(folder), "cpu")


def print_memory() -> None:
    """Print what a worker takes in memory at its peak: before it has a model, with it, and after a piece."""

    def peak() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()  # Linux
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    imported = peak()
    with tempfile.TemporaryDirectory() as name:
        worker = prepared_worker(Path(name), None)
        loaded = peak()
        write_columns(Path(name) / "people.parquet", make_people(worker.model, worker.regressor, 128, seed=0))
        worker.work(Piece(str(Path(name) / "people.parquet"), 0, 128))
    print(f"{imported:.0f} MB with torch and physique, {loaded:.0f} MB with the model, {peak():.0f} MB after a batch")


def simulate(per_frame: float, workers: int, piece: int, kills: float, seed: int = 0) -> Run:
    """Let workers take one piece after the other, as they get free, until all frames are done.

    Pieces take 10 % more or less. A worker that is killed loses the piece it is at, and its successor starts anew.
    """
    chance = random.Random(seed)
    free = [START_S] * workers
    lost = 0.0
    left = FRAMES
    while left > 0:
        count = min(piece, left)
        left -= count
        now, length = heapq.heappop(free), count * per_frame * math.exp(chance.gauss(0, 0.1))
        while kills and (life := 3600 * chance.expovariate(kills)) < length:
            now, lost = now + life + START_S, lost + life + START_S
        heapq.heappush(free, now + length)
    return Run(max(free) / 3600, workers * max(free) / 3600, lost / 3600)


if __name__ == "__main__":
    sys.exit(main())
