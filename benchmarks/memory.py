"""How much memory one call takes at its peak, measured in a fresh process: `python memory.py LIBRARY fwd|fwd+bwd B`.

The kernel's high-water mark is set back just before the call, so that what loading the model took does not count.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from physique.bodymodel import backend

HERE = Path(__file__).parent


def peak_bytes(library: str, family: str, passes: str, bodies: int) -> float:
    """Return by how many bytes the memory of a process rises during one call: vertices of `bodies` bodies."""
    command = [sys.executable, str(HERE / "memory.py"), library, family, passes, str(bodies)]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PHYSIQUE_BACKEND": backend().removeprefix("compiled: ").split(",")[0],
    }
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1])


def _measure(name: str, family: str, passes: str, bodies: int) -> int:
    import torch
    from libraries import make_bodies, make_library, make_subject

    torch.set_num_threads(1)
    subject = make_subject(family)
    with tempfile.TemporaryDirectory() as folder:
        library = make_library(name, subject, Path(folder))

    def call(count: int) -> object:
        arguments = library.leaves(make_bodies(subject, count))
        function = library.functions["vertices"]
        if passes == "fwd":
            with torch.no_grad():
                return function(arguments)
        leaves = [value.requires_grad_() for value in arguments.values()]
        vertices = function(arguments)
        return torch.autograd.grad(vertices, leaves, torch.ones((), dtype=vertices.dtype).expand_as(vertices))

    call(2)
    before = _lower_the_mark()
    result = call(bodies)
    after = _high_water_mark()
    del result
    return after - before


def _lower_the_mark() -> int:
    """Set the high-water mark to what is in use, where the system lets it, and return it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _high_water_mark()
    return _high_water_mark()


def _high_water_mark() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    print(_measure(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
