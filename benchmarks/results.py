"""What a run found: kept as JSON, shown as a table, held against floors and against an earlier run."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from floors import LEAST_TO_OTHERS, Floor
from libraries import OURS, SMPLX, versions
from paired import Spread
from physique.bodymodel import backend


class Result(NamedTuple):
    """One row.

    Attributes:
        name: what was measured.
        unit: of `values`: "us" or "KiB" a body, "ms" a batch.
        values: median of each library.
        ratios: of each other library to ours: how many times more it takes.
        rounds: how many there were.
        note: what else there is to say.
    """

    name: str
    unit: str
    values: dict[str, float]
    ratios: dict[str, Spread]
    rounds: int
    note: str = ""


class Run(NamedTuple):
    """Rows, and the machine and versions that they were measured with."""

    machine: dict[str, str]
    versions: dict[str, str]
    results: list[Result]


def describe_machine() -> dict[str, str]:
    """Return what of this machine times depend on."""
    described = {"processor": _processor(), "cores": str(os.cpu_count())}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        described["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    described |= {
        "vector unit": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "backend": backend(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name()
    return described


def new_run(results: list[Result]) -> Run:
    """Return rows with this machine and the versions installed."""
    return Run(describe_machine(), versions(), results)


def save(run: Run, path: Path) -> None:
    """Write a run as JSON, numbers to four digits."""
    rows = [
        row._asdict()
        | {
            "values": {name: _short(value) for name, value in row.values.items()},
            "ratios": {name: [_short(value) for value in spread] for name, spread in row.ratios.items()},
        }
        for row in run.results
    ]
    lines = ",\n    ".join(json.dumps(row) for row in rows)
    head = "".join(f'  "{name}": {json.dumps(getattr(run, name))},\n' for name in ("machine", "versions"))
    path.write_text(f'{{\n{head}  "results": [\n    {lines}\n  ]\n}}\n')


def load(path: Path) -> Run:
    """Read a run."""
    kept = json.loads(path.read_text())
    results = [
        Result(**row | {"ratios": {name: Spread(*spread) for name, spread in row["ratios"].items()}})
        for row in kept["results"]
    ]
    return Run(kept["machine"], kept["versions"], results)


def table(results: Iterable[Result], floors: Mapping[str, Floor]) -> str:
    """Return rows as a Markdown table: ours, then how many times more each library takes [10 %, 90 % of rounds]."""
    results = list(results)
    others = list(dict.fromkeys(name for row in results for name in row.ratios))
    head = ("", OURS, *(f"{name} / ours" for name in others), "asked", "")
    cells = [head, *(_cells(row, others, floors.get(row.name)) for row in results)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    return "\n".join([lines[0], rule, *lines[1:]])


def _cells(row: Result, others: Sequence[str], floor: Floor | None) -> tuple[str, ...]:
    ratios = [_ratio(row.ratios[name]) if name in row.ratios else "-" for name in others]
    asked = "-" if floor is None else f"{floor.asked:g}"
    return (row.name, f"{_short(row.values[OURS]):g} {row.unit}", *ratios, asked, ", ".join(marks(row, floor)))


def marks(row: Result, floor: Floor | None) -> list[str]:
    """Return what is to be said of a row: that it is below what is asked, or slower than a library; and its note."""
    said = []
    if floor is not None and SMPLX in row.ratios:
        if row.ratios[SMPLX].median < floor.asked:
            said.append("below what is asked")
        elif row.ratios[SMPLX].median >= floor.stretch:
            said.append("excellent")
    slower = [name for name, spread in row.ratios.items() if spread.median < LEAST_TO_OTHERS]
    return said + [f"{name} is faster" for name in slower] + ([row.note] if row.note else [])


def broken_promises(results: Iterable[Result], floors: Mapping[str, Floor]) -> list[str]:
    """Return a line for each row that is below what is promised of it."""
    lines = []
    for row in results:
        floor = floors.get(row.name)
        if floor is None or floor.promised is None or SMPLX not in row.ratios:
            continue
        found = row.ratios[SMPLX].median
        if found < floor.promised:
            lines.append(f"{row.name}: expected at least {floor.promised:g} times {SMPLX}, got {found:.3g}")
    return lines


def regressions(found: Iterable[Result], stored: Iterable[Result], tolerance: float) -> list[str]:
    """Return a line for each row whose ratio to smplx fell by more than the share `tolerance` of the stored one."""
    before = {row.name: row.ratios[SMPLX].median for row in stored if SMPLX in row.ratios}
    lines = []
    for row in found:
        if row.name not in before or SMPLX not in row.ratios:
            continue
        now = row.ratios[SMPLX].median
        if now < (1 - tolerance) * before[row.name]:
            lines.append(f"{row.name}: stored {before[row.name]:.3g} times {SMPLX}, got {now:.3g}")
    return lines


def page(run: Run, floors: Mapping[str, Floor], plot: str = "speed.png") -> str:
    """Return the run as a page; `plot` is the picture's file in docs/images."""
    machine = ", ".join(f"{name} {value}" for name, value in run.machine.items())
    used = ", ".join(f"{name} {value}" for name, value in run.versions.items())
    promises = [
        f"| {name} | {floor.asked:g} | {floor.stretch:g} | {'-' if floor.promised is None else f'{floor.promised:g}'} "
        f"| {floor.reason} |"
        for name, floor in floors.items()
    ]
    return "\n".join(
        (
            "# Results",
            "",
            "Written by `make bench-record`; how it is measured, and how to read it: [README](README.md).",
            "",
            f"![How many times as fast as smplx](../docs/images/{plot})",
            "",
            f"Machine: {machine}.",
            "",
            f"Versions: {used}.",
            "",
            "Ours is the median, in microseconds or KiB of a body, or in milliseconds of a whole batch. Under each",
            "library is how many times more it takes: the median over rounds, and the tenth and ninetieth percentile.",
            "",
            table(run.results, floors),
            "",
            "What is asked, what would be excellent, and what the run fails below, times smplx:",
            "",
            "| | asked | stretch | promised | because |",
            "|---|---|---|---|---|",
            *promises,
            "",
        )
    )


def _ratio(spread: Spread) -> str:
    low, high = f"{_short(spread.low, 2):g}", f"{_short(spread.high, 2):g}"
    return f"{_short(spread.median, 3):g} [{low}, {high}]"


def _short(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
