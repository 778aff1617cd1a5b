"""Compare the body model with smplx, and with smplfitter and body-models where they are installed.

Prints a table of ratios and ends with status 1, naming the rows, when one is below what is promised, or with --check
when one has fallen against the stored run.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from floors import Floor, floors_of
from libraries import installed
from physique.bodymodel import backend, use_backend
from results import Result, Run, broken_promises, describe_machine, load, new_run, page, regressions, save, table
from rows import Row, Workbench, all_rows

HERE = Path(__file__).parent
TOLERANCE = 0.25


class Kept(NamedTuple):
    """Where the run of a backend is kept: its numbers, its page, its plot."""

    results: Path
    page: Path
    plot: Path


def kept_of(backend: str) -> Kept:
    """Return where a run on `physique.bodymodel.backend()` is kept."""
    kind = "" if backend == "eager" else "_compiled"
    plot = HERE.parent / "docs" / "images" / f"speed{kind}.png"
    return Kept(HERE / f"results{kind}.json", HERE / f"RESULTS{kind.upper()}.md", plot)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return 1 when a promise is not kept or a row has fallen, 2 when there is nothing to compare with."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    if options.backend is None:
        return _compare(options)
    with use_backend(options.backend):
        return _compare(options)


def _compare(options: argparse.Namespace) -> int:
    kept, floors = kept_of(backend()), floors_of(backend())
    if options.plot:
        return _draw(kept)
    stored = None
    if options.check:
        if not kept.results.exists():
            print(f"results: expected {kept.results.name} of an earlier run; make it with --record", file=sys.stderr)
            return 2
        stored = load(kept.results)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(installed(), Path(folder), quick=options.quick)
        rows = [row for row in all_rows(bench) if re.search(options.rows, row.name)]
        results = _measure(rows)
        wrong = broken_promises(results, floors)
        if stored is not None:
            wrong += regressions(results, stored.results, options.tolerance)
        if wrong:
            # A neighbour on the machine passes; what is slower stays so.
            results = _again(rows, results, wrong)
            wrong = broken_promises(results, floors)
            if stored is not None:
                wrong += regressions(results, stored.results, options.tolerance)
    run = new_run(results)
    _show(run, floors, time.process_time() - start)
    if options.record:
        save(run, kept.results)
        kept.page.write_text(page(run, floors, kept.plot.name))
        _draw(kept)
    if stored is not None and stored.machine["processor"] != describe_machine()["processor"]:
        print(f"note: the stored run is of another processor, {stored.machine['processor']}", file=sys.stderr)
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only the rows that something is asked of, fewer rounds")
    parser.add_argument("--rows", default="", metavar="REGEX", help="only rows whose name it is found in")
    parser.add_argument("--check", action="store_true", help="compare with the stored run")
    parser.add_argument("--tolerance", default=TOLERANCE, type=float, help="share of a ratio that it may lose")
    parser.add_argument("--record", action="store_true", help="store the run, its page and its plot")
    parser.add_argument("--backend", help="eager, compiled, or an instruction set; default: what is in use")
    parser.add_argument("--plot", action="store_true", help="only draw the stored run")
    return parser


def _measure(rows: Sequence[Row]) -> list[Result]:
    results = []
    for index, row in enumerate(rows, 1):
        if sys.stderr.isatty():
            print(f"\r{index}/{len(rows)} {row.name:50}", end="", file=sys.stderr, flush=True)
        results.append(row.measure())
    if sys.stderr.isatty():
        print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return results


def _again(rows: Sequence[Row], results: Sequence[Result], wrong: Sequence[str]) -> list[Result]:
    """Measure the rows named in `wrong` once more."""
    named = {line.split(":")[0] for line in wrong}
    fresh = {result.name: result for result in _measure([row for row in rows if row.name in named])}
    return [fresh.get(result.name, result) for result in results]


def _show(run: Run, floors: Mapping[str, Floor], seconds: float) -> None:
    print(", ".join(f"{name} {value}" for name, value in {**run.machine, **run.versions}.items()))
    print(table(run.results, floors))
    print(f"{len(run.results)} rows, {seconds:.0f} s of processor time")


def _draw(kept: Kept) -> int:
    from plot import draw

    kept.plot.parent.mkdir(exist_ok=True)
    draw(load(kept.results), kept.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
