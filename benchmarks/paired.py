"""Measure a function against a peer in the same process: alternating rounds, process time, medians."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Ratio(NamedTuple):
    """What a paired measurement found.

    Attributes:
        name: what was measured.
        ours: median seconds a call.
        peer: likewise.
        ratio: median over the rounds of peer time / our time.
        floor: the least ratio that is promised, or None.
    """

    name: str
    ours: float
    peer: float
    ratio: float
    floor: float | None


def measure(
    name: str,
    ours: Callable[[], object],
    peer: Callable[[], object],
    *,
    rounds: int,
    floor: float | None = None,
) -> Ratio:
    """Time both in every round, about 10 ms of calls each, and divide within the round.

    Process time does not count while another process has the core, and a slow spell of the machine falls on both. Each
    turn starts with a call that is not timed, so that neither finds its caches filled with the other's data.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        calls = [calls_in_a_turn(function) for function in (ours, peer)]
        times = [(_seconds(ours, calls[0]), _seconds(peer, calls[1])) for _ in range(rounds)]
    finally:
        if collecting:
            gc.enable()
    ratio = statistics.median(theirs / mine for mine, theirs in times)
    mine, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    return Ratio(name, mine, theirs, ratio, floor)


def calls_in_a_turn(function: Callable[[], object]) -> int:
    """Return how many calls take about 10 ms, at least one."""
    function()
    return max(1, round(0.01 / max(_seconds(function, 3), 1e-6)))


def _seconds(function: Callable[[], object], calls: int) -> float:
    function()
    start = time.process_time()
    for _ in range(calls):
        function()
    return (time.process_time() - start) / calls


def table(title: str, ratios: list[Ratio]) -> str:
    """Return the ratios as a table."""
    lines = [title, f"{'':34}{'ours us':>12}{'peer us':>12}{'ratio':>9}{'floor':>8}"]
    for row in ratios:
        floor = "-" if row.floor is None else f"{row.floor:g}x"
        lines.append(f"{row.name:34}{row.ours * 1e6:12.0f}{row.peer * 1e6:12.0f}{row.ratio:8.2f}x{floor:>8}")
    return "\n".join(lines)
