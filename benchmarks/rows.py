"""The rows of the table: which there are, and how each is measured."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from calls import check_joint_jacobians, check_passes, joint_jacobians, passes
from fits import Fit
from floors import floors_of
from libraries import (
    NUM_POINTS,
    OURS,
    QUANTITIES,
    SMPLX,
    VERTICES,
    Library,
    make_bodies,
    make_library,
    make_subject,
)
from memory import peak_bytes
from paired import Clock, Paired, Spread, measure
from physique.bodymodel import backend
from results import Result

TITLES = {"smpl": "SMPL", "smplx": "SMPL-X"}
PASSES = ("fwd", "fwd+bwd")
BATCHES = {"smpl": (1, 8, 32, 256, 1024), "smplx": (1, 32, 256)}
GPU_BATCHES = (1, 32, 256, 1024, 4096)
FIT_BATCH, FIT_POINTS, MEMORY_BATCH = 10, 200, 1024


class Effort(NamedTuple):
    """How long a row may take: seconds, and the fewest and most rounds."""

    budget: float
    rounds: tuple[int, int]


class Row(NamedTuple):
    """One row: its name, and what measures it."""

    name: str
    measure: Callable[[], Result]


class Workbench:
    """The models in all libraries, loaded when they are first needed.

    Args:
        names: the libraries, ours and smplx among them.
        folder: for the files that they want.
        quick: whether to measure fewer rounds.
    """

    def __init__(self, names: Sequence[str], folder: Path, *, quick: bool = False) -> None:
        """Keep the arguments."""
        self.names, self.folder, self.quick = names, folder, quick
        self.subject = functools.cache(make_subject)
        self.libraries = functools.cache(self._libraries)
        self.compared = functools.cache(self._compared)

    def _libraries(self, family: str, num_points: int, device: str) -> dict[str, Library]:
        subject, made = self.subject(family, num_points), {}
        for name in self.names:
            place = Path(tempfile.mkdtemp(dir=self.folder))
            made[name] = make_library(name, subject, place, device)
        return made

    def _compared(self, family: str, quantity: str) -> None:
        subject = self.subject(family, NUM_POINTS)
        check_passes(self.libraries(family, NUM_POINTS, "cpu"), quantity, make_bodies(subject, 3))

    def effort(self, bodies: int = 1) -> Effort:
        """Return how long a row of so many bodies may take."""
        if self.quick:
            return Effort(1.0, (3, 41))
        return Effort(1.5, (2 if bodies >= 1024 else 3 if bodies >= 256 else 7, 101))

    @property
    def fit_rounds(self) -> tuple[int, int]:
        """How many rounds of whole fits."""
        return (1, 1) if self.quick else (3, 3)


def all_rows(bench: Workbench) -> Iterator[Row]:
    """Return the rows; with `quick` only those that something is asked of."""
    rows = (*_passes_rows(bench), *_fit_rows(bench), *_memory_rows(bench), *_gpu_rows(bench))
    floors = floors_of(backend())
    return (row for row in rows if not bench.quick or row.name in floors)


def _passes_rows(bench: Workbench) -> Iterator[Row]:
    for family, batches in BATCHES.items():
        for quantity in QUANTITIES:
            for kind in PASSES:
                for bodies in batches:
                    name = f"{TITLES[family]} {quantity} {kind} B={bodies}"
                    yield Row(name, functools.partial(_measure_passes, bench, name, family, quantity, kind, bodies))


def _measure_passes(
    bench: Workbench, name: str, family: str, quantity: str, kind: str, bodies: int, device: str = "cpu"
) -> Result:
    bench.compared(family, quantity)
    posed = make_bodies(bench.subject(family, NUM_POINTS), bodies, device)
    backward = kind == "fwd+bwd"
    calls = passes(bench.libraries(family, NUM_POINTS, device), quantity, posed, backward=backward)
    clock: Clock = _gpu_clock if device == "cuda" else time.process_time
    effort = bench.effort(bodies)
    with torch.set_grad_enabled(backward):
        found = measure(calls, budget=effort.budget, rounds=effort.rounds, clock=clock)
    return _result(name, found, "us", 1e6 / bodies)


def _fit_rows(bench: Workbench) -> Iterator[Row]:
    measured = {
        f"SMPL joint Jacobian 72x72 B={FIT_BATCH}": _measure_jacobian,
        f"SMPL 300 Adam steps B={FIT_BATCH}": _measure_adam,
        f"SMPL LM to Adam's loss B={FIT_BATCH}": _measure_least_squares,
    }
    for name, task in measured.items():
        yield Row(name, functools.partial(task, bench, name))


def _measure_jacobian(bench: Workbench, name: str) -> Result:
    bodies = make_bodies(bench.subject("smpl", NUM_POINTS), FIT_BATCH)
    calls = joint_jacobians(bench.libraries("smpl", NUM_POINTS, "cpu"), bodies)
    check_joint_jacobians(calls, bodies)
    return _result(name, measure(calls, budget=4, rounds=(3, 21)), "ms", 1e3)


def _make_fit(bench: Workbench) -> tuple[Fit, dict[str, Callable[[], object]]]:
    """Return the fit, and Adam over each library."""
    subject = bench.subject("smpl", FIT_POINTS)
    libraries = bench.libraries("smpl", FIT_POINTS, "cpu")
    fit = Fit(libraries, torch.as_tensor(subject.points), make_bodies(subject, FIT_BATCH))
    return fit, {name: functools.partial(fit.adam, name) for name in libraries}


def _measure_adam(bench: Workbench, name: str) -> Result:
    _, calls = _make_fit(bench)
    return _result(name, measure(calls, budget=1, rounds=bench.fit_rounds), "ms", 1e3)


def _measure_least_squares(bench: Workbench, name: str) -> Result:
    fit, calls = _make_fit(bench)
    steps = fit.steps_to(fit.adam(SMPLX))
    calls = {OURS: functools.partial(fit.least_squares, steps), SMPLX: calls[SMPLX]}
    return _result(name, measure(calls, budget=1, rounds=bench.fit_rounds), "ms", 1e3, f"{steps} steps")


def _memory_rows(bench: Workbench) -> Iterator[Row]:
    for kind in PASSES:
        name = f"SMPL memory {kind} B={MEMORY_BATCH}"
        yield Row(name, functools.partial(_measure_memory, bench, name, kind))


def _measure_memory(bench: Workbench, name: str, kind: str) -> Result:
    peaks = {other: peak_bytes(other, "smpl", kind, MEMORY_BATCH) / 1024 / MEMORY_BATCH for other in bench.names}
    ratios = {other: Spread.of([peak / peaks[OURS]]) for other, peak in peaks.items() if other != OURS}
    output = VERTICES["smpl"] * 12 / 1024
    return Result(name, "KiB", peaks, ratios, 1, f"the vertices themselves: {output:.0f} KiB")


def _gpu_rows(bench: Workbench) -> Iterator[Row]:
    if not torch.cuda.is_available():
        return
    for quantity in ("vertices", "joints"):
        for kind in PASSES:
            for bodies in GPU_BATCHES:
                name = f"SMPL {quantity} {kind} B={bodies} on the GPU"
                task = functools.partial(_measure_passes, bench, name, "smpl", quantity, kind, bodies, "cuda")
                yield Row(name, task)


def _gpu_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def _result(name: str, paired: Paired, unit: str, scale: float, note: str = "") -> Result:
    values = {library: scale * spread.median for library, spread in paired.seconds.items()}
    return Result(name, unit, values, paired.ratios, paired.rounds, note)
