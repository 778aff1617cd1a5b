"""Read the arrays of a pickled body model without running anything that the file names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .pickle_opcodes import unpickle
from .pickle_values import PickledArrays
from .safe_arrays import Budget


def read_pickle(data: bytes, wanted: Callable[[str], bool], budget: Budget | None = None) -> dict[str, np.ndarray]:
    """Return the arrays under the wanted keys of a pickled dict.

    Args:
        data: contents of the file: any protocol, written by Python 2 or 3, NumPy 1 or 2, with or without chumpy.
        wanted: says which keys to turn into arrays; what the others hold is never looked at.
        budget: the numbers that the arrays may hold.

    Raises:
        ValueError: a global, an opcode or a value that body model files do not have, or damaged data.
    """
    top = unpickle(data)
    if not isinstance(top, dict):
        raise ValueError(f"pickle: expected a dict of arrays, got {type(top).__name__}; this is not a body model file")
    return arrays_of_dict(top, wanted, budget or Budget())


def arrays_of_dict(top: dict[Any, object], wanted: Callable[[str], bool], budget: Budget) -> dict[str, np.ndarray]:
    """Return the arrays under the wanted keys of a dict that `unpickle` gave."""
    values = PickledArrays(budget)
    arrays = {}
    for key, value in top.items():
        name = key.decode("latin1") if isinstance(key, bytes) else key
        if isinstance(name, str) and wanted(name) and value is not None:
            arrays[name] = values.named(name, value)
    return arrays
