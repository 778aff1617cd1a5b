"""Which code runs body models: the compiled kernel where it was built, else operations of PyTorch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

VARIABLE = "PHYSIQUE_BACKEND"

try:
    from . import _kernel  # pyright: ignore[reportAttributeAccessIssue]

    _kernel.ask(torch.Tensor, torch.nn.Parameter, torch.float32, torch.strided)
except ImportError:  # no compiler when it was installed
    _kernel = None

_active: ModuleType | None = None
_name = "eager"


def backend() -> str:
    """Return which code runs body models: "eager", or the compiled kernel's instruction set and threads.

    The kernel takes float32 on the CPU; what it does not take runs as "eager" does, whatever this returns. Its
    instruction sets are "avx512", "avx2" and "sse2" on x86, "neon" on ARM and "plain"; threads are
    `torch.get_num_threads()`, or 1 where it was built without OpenMP.

    Returns:
        "eager", or text like "compiled: avx512, 2 threads".

    Example:
        >>> backend() == "eager" or backend().startswith("compiled: ")
        True
    """
    if _active is None:
        return "eager"
    threads = torch.get_num_threads() if _active.openmp else 1
    return f"compiled: {_name}, {threads} thread{'s' if threads > 1 else ''}"


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run body models with one backend inside the block, in all threads of the process.

    The environment variable PHYSIQUE_BACKEND, read once at import, sets what holds outside of any block.

    Args:
        name: "eager"; "compiled" for the kernel with the processor's best instruction set; or an instruction set.

    Raises:
        ValueError: a name that is none of these, or the kernel was not built.

    Example:
        >>> with use_backend("eager"):
        ...     print(backend())
        eager
    """
    before = _name
    _choose(name)
    try:
        yield
    finally:
        _choose(before)


def active_kernel() -> ModuleType | None:
    """Return the compiled kernel where it is in use."""
    return _active


def built_kernel() -> ModuleType | None:
    """Return the compiled kernel where it was built, in use or not."""
    return _kernel


def _choose(name: str) -> None:
    global _active, _name
    names = _kernel.supported() if _kernel is not None else []
    if name == "compiled" and names:
        name = names[0]
    if name in names and _kernel is not None:
        _kernel.use(name)
        _active, _name = _kernel, name
    elif name == "eager":
        _active, _name = None, name
    else:
        has = ", ".join(("eager", "compiled", *names) if names else ("eager",))
        advice = "check the name" if names else "the compiled kernel was not built: install again with a C compiler"
        raise ValueError(f"backend: expected one of {has}, got {name!r}; {advice}")


_choose(os.environ.get(VARIABLE) or ("compiled" if _kernel is not None else "eager"))
