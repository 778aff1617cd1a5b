"""What must hold on a GPU before anything is timed there; `gpu.py` runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from libraries import make_subject
from physique.bodymodel import BodyModel, gpu_precision, pack_directions

PRECISIONS = ("tf32x3", "ieee")
# Metres that values, and shares of the largest entry that gradients, may be off; and metres with 16-bit directions.
MICROMETRE, GRADIENT, PACKED = 1e-6, 1e-5, 1e-5


def checks() -> dict[str, dict[str, Any]]:
    """Run all checks, print each, and go on after one that fails."""
    found: dict[str, dict[str, Any]] = {}

    def check(name: str, function: Callable[[], tuple[bool, Any]]) -> None:
        try:
            holds, value = function()
        except Exception as error:  # the others still tell something
            holds, value = False, f"{type(error).__name__}: {error}"[:500]
        found[name] = {"holds": holds, "value": value}
        print(f"{'ok  ' if holds else 'FAIL'} {name}: {value}", flush=True)

    for family in ("smpl", "smplx"):
        for precision in PRECISIONS:
            for bodies in (1, 17, 65, 300):
                check(f"{family} {precision} B={bodies}", lambda f=family, p=precision, b=bodies: _exact(f, p, b))
    check("16-bit directions", lambda: _exact("smpl", "tf32x3", 65, packed=True))
    check("same bits in 100 runs", _repeats)
    check("forward and backward in a CUDA graph", _graph)
    check("a second stream", _stream)
    check("double backward", _twice)
    return found


def make_model(family: str, device: str, dtype: torch.dtype = torch.float32) -> BodyModel:
    return BodyModel(make_subject(family).data, device=device, dtype=dtype)


def _leaves(family: str, bodies: int, device: str, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(bodies)
    count = {"smpl": 23, "smplx": 21}[family]
    shapes = {"betas": (10,), "global_orient": (3,), "body_pose": (count, 3), "transl": (3,)}
    drawn = {name: torch.randn(bodies, *shape, generator=generator) for name, shape in shapes.items()}
    drawn["body_pose"] *= 0.35
    return {name: value.to(device, dtype).requires_grad_() for name, value in drawn.items()}


def _pass(model: BodyModel, leaves: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Return vertices, joints and the gradients of a function of them and of the rest body."""
    out = model(**leaves)
    upstream = torch.linspace(-1, 1, out.vertices[0].numel(), dtype=out.vertices.dtype, device=out.vertices.device)
    energy = (out.vertices * upstream.view(out.vertices[0].shape)).sum() + out.rest.vertices.square().sum()
    slopes = torch.autograd.grad(energy + out.joints.square().sum(), list(leaves.values()))
    return [out.vertices.detach(), out.joints.detach(), *slopes]


def _exact(family: str, precision: Any, bodies: int, *, packed: bool = False) -> tuple[bool, Any]:
    model = make_model(family, "cuda")
    with gpu_precision(precision):
        found = _pass(pack_directions(model) if packed else model, _leaves(family, bodies, "cuda"))
    expected = _pass(make_model(family, "cpu", torch.float64), _leaves(family, bodies, "cpu", torch.float64))
    apart = [(a.double().cpu() - b).abs().max().item() for a, b in zip(found, expected, strict=True)]
    relative = [d / b.abs().max().item() for d, b in zip(apart[2:], expected[2:], strict=True)]
    most = PACKED if packed else MICROMETRE
    holds = max(apart[:2]) <= most and max(relative) <= (1e-3 if packed else GRADIENT)
    return holds, f"vertices {apart[0]:.1e} m, joints {apart[1]:.1e} m, gradients {max(relative):.1e}"


def _repeats() -> tuple[bool, Any]:
    model, leaves = make_model("smpl", "cuda"), _leaves("smpl", 65, "cuda")
    first = _pass(model, leaves)
    same = all(all(map(torch.equal, first, _pass(model, leaves))) for _ in range(100))
    return same, "bitwise equal" if same else "not equal"


def _graph() -> tuple[bool, Any]:
    model, leaves = make_model("smpl", "cuda"), _leaves("smpl", 64, "cuda")
    graph, kept = capture(lambda: _pass(model, leaves))
    fresh = _leaves("smpl", 65, "cuda")
    with torch.no_grad():
        for name, value in leaves.items():
            value.copy_(fresh[name][:64])
    graph.replay()
    torch.cuda.synchronize()
    expected = _pass(model, leaves)
    same = all(map(torch.equal, kept, expected))
    return same, "a replay with other inputs equals the eager call" if same else "a replay differs from the eager call"


def _stream() -> tuple[bool, Any]:
    model, leaves = make_model("smpl", "cuda"), _leaves("smpl", 65, "cuda")
    expected = _pass(model, leaves)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = _pass(model, leaves)
    stream.synchronize()
    return all(map(torch.equal, found, expected)), "equal"


def _twice() -> tuple[bool, Any]:
    slopes = []
    for device, dtype in (("cuda", torch.float32), ("cpu", torch.float64)):
        model, leaves = make_model("smpl", device, dtype), _leaves("smpl", 3, device, dtype)
        energy = model(**leaves).vertices.square().sum()
        once = torch.autograd.grad(energy, leaves["body_pose"], create_graph=True)[0]
        slopes.append(torch.autograd.grad(once.square().sum(), leaves["body_pose"])[0].double().cpu())
    apart = ((slopes[0] - slopes[1]).abs().max() / slopes[1].abs().max()).item()
    return apart < 1e-4, f"{apart:.1e}"


def capture(call: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Return a graph of a call, and the tensors that its replays write to."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # compiles the kernels, and fills the allocator
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call()
    return graph, kept
