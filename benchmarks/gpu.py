"""Check the GPU kernels on a GPU, then measure them: one command for a machine that has PyTorch, Triton and a GPU.

Checks: values and gradients against float64 on the processor, at several batches and both precisions; the same bits in
every run; forward and backward in a CUDA graph; a second stream; double backward. Then times in alternating rounds, as
ratios of medians to smplx where it is installed, and over the floor: the larger of

    bytes that must move / bandwidth      the directions once, and 12 V (forward), 24 V (with backward) a body
    operations / rate                     2 * 3 V * (S + P) + 2 * 12 * 4 V + 18 V a body, with backward twice that

with V vertices, S + P directions, at most 4 weights a vertex, and the bandwidth of a copy and the rates of square
matrix products measured in the same run. The bytes are those of the vertices and of the incoming gradient. 3xTF32
does three products for one.

Nothing but this repository, PyTorch, Triton, roma, jaxtyping, scipy and safetensors is needed. `--out` keeps a file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent
if find_spec("physique") is None:  # not installed: the repository's root is the package, whatever its folder's name
    link = Path(tempfile.mkdtemp()) / "physique"
    link.symlink_to(ROOT, target_is_directory=True)
    sys.path.insert(0, str(link.parent))

from gpu_checks import PRECISIONS, capture, checks, make_model  # noqa: E402
from libraries import OURS, SMPLX, Library, make_bodies, make_library, make_subject  # noqa: E402
from paired import measure  # noqa: E402
from physique.bodymodel import gpu_precision, passes  # noqa: E402
from physique.bodymodel import triton_skinning as skinning  # noqa: E402

BATCHES = (1, 32, 256, 1024, 4096)
# Bodies, vertices, warps and pipeline stages of a tile.
TILES = [
    (bodies, vertices, warps, stages)
    for bodies, vertices, warps in (
        (16, 32, 4), (16, 64, 4), (32, 64, 8), (64, 32, 4), (64, 64, 8), (128, 32, 8), (128, 64, 8)
    )
    for stages in (2, 3, 4)
]  # fmt: skip

Call = Callable[[], object]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check and measure; return 1 where a check fails, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file for the numbers, JSON")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--tiles", action="store_true", help="also time other tiles of the forward kernel")
    parser.add_argument("--only", choices=("checks", "times"), help="leave the other half out")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print(
            "gpu: expected an NVIDIA GPU, got none; the tests run the kernels in Triton's interpreter", file=sys.stderr
        )
        return 2
    report: dict[str, Any] = {"machine": describe()}
    print(json.dumps(report["machine"]))
    if options.only != "times":
        report["checks"] = checks()
    if options.only != "checks":
        report["ceilings"] = ceilings()
        print("ceilings: " + ", ".join(f"{name} {value:.4g}" for name, value in report["ceilings"].items()))
        report["rows"] = rows(options.batches, report["ceilings"])
        report["parts"] = parts(options.batches)
        if options.tiles:
            report["tiles"] = tiles()
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(check["holds"] for check in report.get("checks", {}).values()) else 1


def describe() -> dict[str, Any]:
    """Return what the numbers depend on."""
    import triton

    about = torch.cuda.get_device_properties(0)
    return {
        "device": about.name,
        "capability": f"{about.major}.{about.minor}",
        "multiprocessors": about.multi_processor_count,
        "memory_GB": round(about.total_memory / 1e9, 1),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": torch.version.cuda,
        "smplx": find_spec("smplx") is not None,
    }


def clock() -> float:
    """Return seconds, after all work on the GPU."""
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(call: Call, repeats: int = 20) -> float:
    """Return the median time of a call on the GPU, by events."""
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return sorted(times)[repeats // 2]


def ceilings() -> dict[str, float]:
    """Return bytes a second of a copy, and operations a second of square products in float32 and TF32."""
    pair = torch.randn(2, 2**28, device="cuda")
    found = {"bytes_per_s": 4 * pair.numel() / seconds_of(lambda: pair[0].copy_(pair[1]))}
    a, b = torch.randn(2, 8192, 8192, device="cuda")
    for name, allow in (("float32_per_s", False), ("tf32_per_s", True)):
        torch.backends.cuda.matmul.allow_tf32 = allow
        found[name] = 2 * 8192**3 / seconds_of(lambda: a @ b)
    torch.backends.cuda.matmul.allow_tf32 = False
    return found


def floor(bodies: int, *, backward: bool, split: bool, limits: Mapping[str, float]) -> float:
    """Return the seconds below which no kernel for SMPL comes: the module's docstring says how they are counted."""
    vertices, directions = 6890, 217
    operations = (2 * 3 * directions + 2 * 12 * 4 + 18) * vertices * bodies * (2 if backward else 1)
    moved = 12 * directions * vertices + (24 if backward else 12) * vertices * bodies
    rate = limits["tf32_per_s"] / 3 if split else limits["float32_per_s"]
    return max(moved / limits["bytes_per_s"], operations / rate)


def rows(batches: Sequence[int], limits: Mapping[str, float]) -> list[dict[str, Any]]:
    """Time vertices and joints, forward and with backward, in alternating rounds."""
    subject = make_subject("smpl")
    names = [OURS] + ([SMPLX] if find_spec("smplx") is not None else [])
    with tempfile.TemporaryDirectory() as folder:
        libraries = {name: make_library(name, subject, Path(folder), "cuda") for name in names}
    found = []
    print(f"{'row':32} {'way':18} {'us a call':>10} {'x smplx':>8} {'x floor':>8}")
    for quantity in ("vertices", "joints"):
        for kind in ("fwd", "fwd+bwd"):
            for bodies in batches:
                posed = make_bodies(subject, bodies, "cuda")
                calls = _ways(libraries, quantity, posed, backward=kind == "fwd+bwd")
                paired = measure(calls, budget=2, rounds=(5, 41), clock=clock)
                for way in calls:
                    taken = paired.seconds[way].median
                    row: dict[str, Any] = {"row": f"SMPL {quantity} {kind} B={bodies}", "way": way, "us": 1e6 * taken}
                    if SMPLX in paired.seconds:
                        row["ratio"] = paired.seconds[SMPLX].median / taken
                    if quantity == "vertices" and way != SMPLX:
                        least = floor(bodies, backward=kind == "fwd+bwd", split="tf32x3" in way, limits=limits)
                        row["floor_us"], row["over_floor"] = 1e6 * least, taken / least
                    found.append(row)
                    print(
                        f"{row['row']:32} {way:18} {row['us']:10.1f} {row.get('ratio', float('nan')):8.1f} "
                        f"{row.get('over_floor', float('nan')):8.2f}",
                        flush=True,
                    )
                del calls, posed
                torch.cuda.empty_cache()
    return found


def _ways(libraries: Mapping[str, Library], quantity: str, bodies: Any, *, backward: bool) -> dict[str, Call]:
    """Return the ways to make one quantity: ours, eager and as a graph, without kernels, and smplx."""

    def pass_of(library: Library) -> Call:
        function = library.functions[quantity]
        leaves = {n: v.detach().clone().requires_grad_(backward) for n, v in library.leaves(bodies).items()}
        if not backward:
            return torch.no_grad()(lambda: function(leaves))
        with torch.no_grad():
            upstream = torch.randn_like(function(leaves))
        return lambda: torch.autograd.grad(function(leaves), list(leaves.values()), upstream)

    ours = pass_of(libraries[OURS])
    calls: dict[str, Call] = {}
    for precision in PRECISIONS:
        calls[precision] = gpu_precision(precision)(ours)
        graph, kept = capture(calls[precision])
        calls[f"{precision}, graph"] = lambda graph=graph, kept=kept: graph.replay()
    calls["without kernels"] = lambda: _without_kernels(ours)
    if SMPLX in libraries:
        calls[SMPLX] = pass_of(libraries[SMPLX])
    return calls


def _without_kernels(call: Call) -> object:
    kept, passes.runs_on_gpu_kernels = passes.runs_on_gpu_kernels, lambda tensor: False
    try:
        return call()
    finally:
        passes.runs_on_gpu_kernels = kept


def parts(batches: Sequence[int]) -> list[dict[str, Any]]:
    """Time each kernel by itself, and cuBLAS at the products that are most of the work."""
    model = make_model("smpl", "cuda")
    bases = passes.vertex_bases(model._plan, model._constants)
    constants = (bases.directions, bases.weights, None, None)
    used = bases.directions[:, : 3 * model.data.num_vertices]
    found = []
    print(f"{'part':28} {'B':>5} {'us':>9}")
    for bodies in batches:
        coefficients = 0.3 * torch.randn(bodies, len(bases.directions), device="cuda")
        transforms, upstream = (
            torch.randn(bodies, 12, 24, device="cuda"),
            torch.randn(bodies, 3, 6890, device="cuda"),
        )
        flat = upstream.flatten(1)
        timed: dict[str, Call] = {"cuBLAS blend, float32": lambda c=coefficients: c @ used}
        timed["cuBLAS back, float32"] = lambda u=flat: u @ used.t()
        for precision in PRECISIONS:
            timed |= {
                f"forward, {precision}": lambda p=precision, c=coefficients, t=transforms: skinning._forward(
                    p, bases.template, c, t, *constants, keep=False
                ),
                f"planes back, {precision}": lambda p=precision, u=upstream, t=transforms: skinning._planes_back(
                    p, u, t, bases.weights
                ),
                f"transforms back, {precision}": lambda p=precision, u=upstream, f=flat: skinning._transforms_back(
                    p, u, f, bases.weights
                ),
                f"blend back, {precision}": lambda p=precision, f=flat: skinning._blend_back(
                    p, f, bases.directions, None
                ),
            }
        for name, call in timed.items():
            found.append({"part": name, "bodies": bodies, "us": 1e6 * seconds_of(call)})
            print(f"{name:28} {bodies:5} {found[-1]['us']:9.1f}", flush=True)
    return found


def tiles() -> list[dict[str, Any]]:
    """Time other tiles of the forward kernel, the best first."""
    model = make_model("smpl", "cuda")
    bases, found = passes.vertex_bases(model._plan, model._constants), []
    kept = skinning._tile
    for precision in PRECISIONS:
        for bodies in (1, 32, 4096):
            given = 0.3 * torch.randn(bodies, len(bases.directions), device="cuda")
            given = (given, torch.randn(bodies, 12, 24, device="cuda"))
            for tile in TILES:
                skinning._tile = lambda *_, tile=tile: tile
                try:
                    taken = seconds_of(
                        lambda p=precision, g=given: skinning._forward(
                            p, bases.template, *g, bases.directions, bases.weights, None, None, keep=False
                        )
                    )
                except Exception as error:  # a tile that does not fit
                    print(f"tile {tile} {precision} B={bodies}: {type(error).__name__}")
                    continue
                finally:
                    skinning._tile = kept
                found.append({"tile": tile, "precision": precision, "bodies": bodies, "us": 1e6 * taken})
    found.sort(key=lambda row: (row["precision"], row["bodies"], row["us"]))
    for row in found:
        print(f"tile {row['tile']!s:18} {row['precision']:7} B={row['bodies']:5} {row['us']:9.1f} us")
    return found


if __name__ == "__main__":
    sys.exit(main())
