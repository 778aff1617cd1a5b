"""Compile the GPU kernels without a GPU, as the first calls on one would, and print what each needs.

Registers are those of a thread, of 255 at most; what does not fit is spilled to memory. Ends with status 1 where a
kernel does not compile. It needs Triton, which brings NVIDIA's assembler.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
from physique.bodymodel import BodyModel, gpu_precision, pack_directions, passes, synthetic_model, use_backend
from physique.bodymodel import triton_chain as chain
from physique.bodymodel import triton_skinning as skinning
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
TYPES = {torch.float32: "*fp32", torch.int16: "*i16", torch.int64: "*i64"}
# One for each size of tiles.
BATCHES = (1, 32, 64, 128)


class Compiled(NamedTuple):
    """What a compiled kernel needs."""

    registers: int
    spilled: int
    shared: int
    matrix: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile all; return 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, default=90, help="80 for A100, 86, 89, 90 for H100 and H200")
    parser.add_argument("--family", default="smpl", choices=("smpl", "smplx"))
    parser.add_argument("--precisions", nargs="+", default=["tf32x3", "ieee"])
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--brief", action="store_true", help="one launch of each kernel")
    options = parser.parse_args(arguments)
    done: set[str] = set()
    print(f"triton {triton.__version__}, compute capability {options.capability / 10}")
    print(f"{'kernel':24} {'precision':9} {'B':>4} {'registers':>9} {'spilled':>7} {'shared':>7} {'matrix':>6} seconds")
    failed = 0
    for precision in options.precisions:
        for bodies in options.batches:
            for kernel, given, constants in launches(options.family, bodies, precision):
                start = time.perf_counter()
                name = kernel.__name__
                if options.brief and name in done:
                    continue
                done.add(name)
                try:
                    found = compile_launch(kernel, given, constants, options.capability)
                except Exception as error:
                    failed += 1
                    print(f"{name:24} {precision:9} {bodies:4} {type(error).__name__}: {str(error)[:200]}")
                    continue
                taken = time.perf_counter() - start
                print(
                    f"{name:24} {precision:9} {bodies:4} {found.registers:9} {found.spilled:7} {found.shared:7} "
                    f"{found.matrix:6} {taken:.1f}"
                )
    return 1 if failed else 0


def launches(family: str, bodies: int, precision: Any) -> Iterator[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    """Return kernel, arguments and constants of every launch of a forward and a backward pass."""
    recorded: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def record(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        recorded.append((kernel, arguments, constants))

    whole = {"smpl": 6890, "smplx": 10475}[family]
    model = BodyModel(synthetic_model(family, num_vertices=whole))
    part = {"smpl": 23, "smplx": 21}[family]
    with (
        patched(passes, "runs_on_gpu_kernels", lambda tensor: True),
        patched(chain, "launch", record),
        patched(skinning, "launch", record),
        gpu_precision(precision),
        use_backend("eager"),
    ):
        for each in (model, pack_directions(model)):
            leaves = {"betas": torch.zeros(bodies, 10), "body_pose": torch.zeros(bodies, part, 3)}
            leaves = {name: value.requires_grad_() for name, value in leaves.items()}
            each(**leaves).vertices.sum().backward()
            with torch.no_grad():
                each(**leaves)
                each.joints(**leaves)
    seen = set()
    for kernel, arguments, constants in recorded:
        key = (kernel.__name__, str(signature(kernel, arguments, constants)))
        if key not in seen:
            seen.add(key)
            yield kernel, arguments, constants


class patched:
    """A context in which an attribute of a module is another."""

    def __init__(self, module: Any, name: str, value: Callable[..., Any]) -> None:
        self.module, self.name, self.value = module, name, value

    def __enter__(self) -> None:
        self.kept = getattr(self.module, self.name)
        setattr(self.module, self.name, self.value)

    def __exit__(self, *_: object) -> None:
        setattr(self.module, self.name, self.kept)


def signature(
    kernel: Any, arguments: tuple[Any, ...], constants: dict[str, Any]
) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], list[list[Any]]]]:
    """Return types, compile-time constants and known divisibilities, as Triton finds them at a launch."""
    types: dict[str, str] = {}
    fixed = {name: value for name, value in constants.items() if name in kernel.arg_names}
    known: dict[tuple[int], list[list[Any]]] = {}
    for place, name in enumerate(kernel.arg_names):
        value = arguments[place] if place < len(arguments) else fixed[name]
        if isinstance(value, torch.Tensor):
            types[name] = TYPES[value.dtype]
            known[(place,)] = [["tt.divisibility", 16]]
        elif name in fixed or value is None or (value == 1 and name != "bodies"):
            types[name], fixed[name] = "constexpr", value
        else:
            types[name] = "i32"
            if value % 16 == 0 and name != "bodies":
                known[(place,)] = [["tt.divisibility", 16]]
    return types, fixed, known


def compile_launch(kernel: Any, arguments: tuple[Any, ...], constants: dict[str, Any], capability: int) -> Compiled:
    """Compile a launch to machine code and read what it needs."""
    types, fixed, known = signature(kernel, arguments, constants)
    source = ASTSource(kernel, signature=types, constexprs=fixed, attrs=known)
    options = {name: value for name, value in constants.items() if name in ("num_warps", "num_stages")}
    found = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(found.asm["cubin"])
        file.flush()
        usage = _run("cuobjdump", "--dump-resource-usage", file.name)
        code = _run("cuobjdump", "--dump-sass", file.name)
    registers, stack = (int(n) for n in re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())
    return Compiled(registers, stack, found.metadata.shared, len(re.findall(r"\bHG?MMA\b", code)))


def _run(tool: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
