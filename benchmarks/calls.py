"""The calls that the rows time: forward, forward+backward, Jacobians; all libraries' results are compared first."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from libraries import OURS, SMPLFITTER, SMPLX, Bodies, Library
from physique.fitting.tangent import left_turns
from torch import Tensor

# Metres that the libraries may differ by, and gradients and Jacobians relative to their largest entry.
MOST_DIFFERENCE, MOST_RELATIVE = 5e-6, 1e-4

Call = Callable[[], object]


def passes(libraries: Mapping[str, Library], quantity: str, bodies: Bodies, *, backward: bool) -> dict[str, Call]:
    """Return what each library does for one quantity, by name.

    Forward is to be called without gradients, which take a microsecond or two to switch off and on for every call.
    Backward is `torch.autograd.grad` to all arguments, the upstream gradient given.
    """
    calls: dict[str, Call] = {}
    upstream = None
    for name, library in libraries.items():
        function = library.functions[quantity]
        arguments = {key: value.detach().clone() for key, value in library.leaves(bodies).items()}
        if not backward:
            calls[name] = lambda f=function, a=arguments: f(a)
            continue
        leaves = [value.requires_grad_() for value in arguments.values()]
        if upstream is None:
            with torch.no_grad():
                shape = function(arguments).shape
            upstream = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(bodies.pose.device)
        calls[name] = lambda f=function, a=arguments, v=leaves, u=upstream: torch.autograd.grad(f(a), v, u)
    return calls


def check_passes(libraries: Mapping[str, Library], quantity: str, bodies: Bodies) -> None:
    """Compare values and gradients of one quantity with those of smplx; raise AssertionError where they differ."""
    with torch.no_grad():
        values = {name: call() for name, call in passes(libraries, quantity, bodies, backward=False).items()}
    slopes = {
        name: torch.cat([part.flatten(1) for part in call()], dim=1)
        for name, call in passes(libraries, quantity, bodies, backward=True).items()
    }
    largest = slopes[SMPLX].abs().max().item()
    for name in libraries:
        _same(f"{name}, {quantity}", values[name], values[SMPLX], MOST_DIFFERENCE)
        _same(f"{name}, gradient of {quantity}", slopes[name], slopes[SMPLX], MOST_RELATIVE * largest)


def joint_jacobians(libraries: Mapping[str, Library], bodies: Bodies) -> dict[str, Call]:
    """Return how each library makes the (B, 3 J, 3 J) derivatives of joints by pose: ours in closed form.

    The others' are those of their own joints, by vmap over whichever of jacrev and jacfwd is the faster there.
    """
    model, arguments = libraries[OURS].model, libraries[OURS].leaves(bodies)
    pose = ("global_orient", "body_pose")
    calls: dict[str, Call] = {OURS: lambda: model.joints_jacobian(wrt=pose, **arguments).matrix(pose)}
    for name, library in libraries.items():
        if name == OURS:
            continue
        transform = torch.func.jacfwd if name == SMPLFITTER else torch.func.jacrev

        def joints(pose: Tensor, betas: Tensor, library: Library = library) -> Tensor:
            one = library.leaves(Bodies(betas.unsqueeze(0), None, pose.unsqueeze(0)))
            return library.functions["joints"](one).flatten()

        mapped = torch.func.vmap(transform(joints))
        calls[name] = lambda mapped=mapped: mapped(bodies.pose, bodies.betas).flatten(2)
    return calls


def check_joint_jacobians(calls: Mapping[str, Call], bodies: Bodies) -> None:
    """Compare: ours is by turns of the rotations, the others' by axis-angle numbers."""
    ours = calls[OURS]()
    turns = left_turns(bodies.pose)
    for name, call in calls.items():
        if name != OURS:
            theirs = call().unflatten(-1, bodies.pose.shape[1:])
            turned = torch.einsum("brjk,bjki->brji", theirs, turns).flatten(2)
            _same(f"{name}, Jacobian", turned, ours, MOST_RELATIVE * ours.abs().max().item())


def _same(name: str, found: Tensor, wanted: Tensor, most: float) -> None:
    difference = (found - wanted).abs().max().item()
    if not difference <= most:
        raise AssertionError(f"{name}: expected the same as the peer within {most:.1e}, got {difference:.1e} apart")
