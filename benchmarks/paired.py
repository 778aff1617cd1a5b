"""Measure functions against each other in one process: alternating rounds, process time, medians with spread."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

# A turn takes about the first; a call that takes the second passes over more than caches hold, whatever was in them.
TURN_SECONDS = 0.01
LONG_CALL_SECONDS = 0.05

Call = Callable[[], object]
Clock = Callable[[], float]


class Spread(NamedTuple):
    """Median and tenth and ninetieth percentile of what the rounds gave."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value; of fewer than ten the least and the largest are its ends."""
        ordered = sorted(values)
        tenth = len(ordered) // 10
        return cls(statistics.median(ordered), ordered[tenth], ordered[-1 - tenth])


class Paired(NamedTuple):
    """What a paired measurement found.

    Attributes:
        seconds: a call of each function.
        ratios: of each but the first: its time / that of the first in the same round.
        rounds: how many there were.
    """

    seconds: dict[str, Spread]
    ratios: dict[str, Spread]
    rounds: int


def measure(
    functions: Mapping[str, Call], *, budget: float, rounds: tuple[int, int], clock: Clock = time.process_time
) -> Paired:
    """Time every function in every round, about 10 ms of calls each, and divide within the round.

    Process time does not count while another process has the core, and a slow spell of the machine falls on all. A turn
    of short calls starts with one that is not timed, so that none finds the caches filled with another's data.

    Args:
        functions: the first is the one that the others are compared with.
        budget: seconds that all rounds may take, within `rounds`.
        rounds: the fewest and the most.
        clock: seconds; on a device, one that waits for it.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        turns = {name: _turn(function, clock) for name, function in functions.items()}
        start = clock()
        times = [_round(functions, turns, clock)]
        wanted = int(budget / max(clock() - start, 1e-9))
        times += [_round(functions, turns, clock) for _ in range(1, min(max(wanted, rounds[0]), rounds[1]))]
    finally:
        if collecting:
            gc.enable()
    first, *others = functions
    return Paired(
        seconds={name: Spread.of([taken[name] for taken in times]) for name in functions},
        ratios={
            name: Spread.of([taken[name] / taken[first] for taken in times]) for name in functions if name != first
        },
        rounds=len(times),
    )


def _turn(function: Call, clock: Clock) -> int:
    """Return how many calls make a turn: 0 for one without an untimed call before it."""
    for _ in range(2):
        start = clock()
        function()
        taken = clock() - start
        if taken > LONG_CALL_SECONDS:
            return 0
    return max(1, round(TURN_SECONDS / max(taken, 1e-6)))


def _round(functions: Mapping[str, Call], turns: Mapping[str, int], clock: Clock) -> dict[str, float]:
    return {name: _seconds(function, turns[name], clock) for name, function in functions.items()}


def _seconds(function: Call, calls: int, clock: Clock) -> float:
    if calls:
        function()
    start = clock()
    for _ in range(max(1, calls)):
        function()
    return (clock() - start) / max(1, calls)
