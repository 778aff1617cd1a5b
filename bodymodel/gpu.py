"""What a user chooses about the GPU kernels: how exact their products are, and 16-bit storage of the directions."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .model import BodyModel

Precision = Literal["tf32x3", "ieee"]

_precision: ContextVar[Precision] = ContextVar("gpu_precision", default="tf32x3")


class PackedDirections(NamedTuple):
    """Pose directions in 16 bits.

    Attributes:
        steps: (P, W) int16; the planes of each direction in units of its own step.
        step: (P,) metres, the step of each direction.
    """

    steps: Tensor
    step: Tensor


@contextmanager
def gpu_precision(precision: Precision) -> Iterator[None]:
    """Choose how the GPU kernels multiply, inside a `with` block; the backward pass goes as its forward went.

    Args:
        precision: "tf32x3" (the default) splits each float32 number into two of TF32 and runs three products on the
            matrix units, within 1e-6 m of exact; "ieee" multiplies in float32 on the ordinary units.

    Raises:
        ValueError: another name.

    Example:
        >>> with gpu_precision("ieee"):
        ...     pass
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision: expected 'tf32x3' or 'ieee', got {precision!r}; take one of the two")
    token = _precision.set(precision)
    try:
        yield
    finally:
        _precision.reset(token)


def chosen_precision() -> Precision:
    """Return what `gpu_precision` chose."""
    return _precision.get()


def pack_directions(model: BodyModel) -> BodyModel:
    """Return the model with its pose directions rounded to 16 bits, which the GPU kernels read in half the bytes.

    Each direction is a whole number of steps, 1/32767 of its largest entry. All paths of the model returned, on any
    device, compute with the rounded numbers, so that values and gradients are those of one function: off by at most
    half a step times the feature, summed over the directions. On random SMPL-sized models in ordinary poses that is
    4e-6 m at the worst vertex, 5e-7 m in the mean square. It pays where reading the directions takes the time: a few
    bodies.

    Args:
        model: any; it is left as it is. Pack last: `freeze` and `select_vertices` go back to the exact directions.

    Example:
        >>> import torch
        >>> from physique.bodymodel import BodyModel, synthetic_model
        >>> model = BodyModel(synthetic_model("smpl", num_vertices=100))
        >>> pose = 0.3 * torch.ones(23, 3)
        >>> apart = pack_directions(model)(body_pose=pose).vertices - model(body_pose=pose).vertices
        >>> bool(apart.abs().max() < 1e-5)
        True
    """
    directions = model.get_buffer("_directions")
    exact = directions[: len(directions) - len(model.get_buffer("_lever_directions"))].double()
    step = (exact.abs().amax(dim=-1) / 32767) if exact.shape[-1] else exact.new_zeros(len(exact))
    step = step.to(model.dtype)
    steps = exact / step.double().clamp(min=torch.finfo(torch.float64).tiny).unsqueeze(-1)
    steps = steps.round().clamp(-32767, 32767)
    packed = copy.copy(model)
    packed._buffers = dict(model._buffers)
    packed._non_persistent_buffers_set = set(model._non_persistent_buffers_set)
    for name, value in {
        "_directions": torch.cat((steps.to(model.dtype) * step.unsqueeze(-1), directions[len(exact) :])),
        "_packed_steps": steps.to(torch.int16),
        "_packed_step": step,
    }.items():
        packed.register_buffer(name, value, persistent=False)
    return packed


def packed_directions(constants: Mapping[str, Tensor], directions: Tensor) -> PackedDirections | None:
    """Return the packed form of a model's directions, where it has one and `directions` are all of them."""
    if "_packed_steps" not in constants or directions is not constants["_directions"]:
        return None
    return PackedDirections(constants["_packed_steps"], constants["_packed_step"])


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Run a Triton kernel on the device of its first argument, in that device's current stream."""
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, **constants)


def runs_on_gpu_kernels(tensor: Tensor) -> bool:
    """Return whether the kernels serve this tensor: float32 on an NVIDIA GPU of 2020 or later, and Triton is there.

    Subclasses of tensors, which may have no memory of their own, are served by PyTorch's operations.
    """
    if not tensor.is_cuda or tensor.dtype != torch.float32 or type(tensor) not in (Tensor, torch.nn.Parameter):
        return False
    return _has_kernels(tensor.device)


@functools.cache
def _has_kernels(device: torch.device) -> bool:
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        import triton
    except ImportError:
        return False
    # The oldest that the kernels were checked with; it comes with PyTorch 2.11.
    return tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 6)
