"""Load and save trained priors: those that ship with the package, and the user's own."""

from __future__ import annotations

import inspect
import json
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import torch
from torch import Tensor, nn
from typing_extensions import TypedDict, Unpack

from .tensor_files import read_tensors, write_tensors

if TYPE_CHECKING:
    from .depth_lifter import DepthLifter
    from .discriminator import FactorizedDiscriminator
    from .gaussian_mixture import GaussianMixturePrior
    from .joint_limits import JointLimits
    from .pose_denoiser import PoseDenoiser
    from .pose_dictionary import PoseDictionary
    from .pose_vae import PoseVAE

# Name of a prior -> module and class in this package, imported when asked for.
PRIORS = {
    "critic": "discriminator:FactorizedDiscriminator",
    "denoiser": "pose_denoiser:PoseDenoiser",
    "dictionary": "pose_dictionary:PoseDictionary",
    "gmm": "gaussian_mixture:GaussianMixturePrior",
    "lifter": "depth_lifter:DepthLifter",
    "limits": "joint_limits:JointLimits",
    "vae": "pose_vae:PoseVAE",
}
WEIGHTS = Path(__file__).parent / "weights"
_HALF_MAX = torch.finfo(torch.float16).max


class _Options(TypedDict, total=False):
    dtype: torch.dtype
    device: torch.device | str | None


@overload
def load_prior(name: Literal["critic"], **options: Unpack[_Options]) -> FactorizedDiscriminator: ...
@overload
def load_prior(name: Literal["denoiser"], **options: Unpack[_Options]) -> PoseDenoiser: ...
@overload
def load_prior(name: Literal["dictionary"], **options: Unpack[_Options]) -> PoseDictionary: ...
@overload
def load_prior(name: Literal["gmm"], **options: Unpack[_Options]) -> GaussianMixturePrior: ...
@overload
def load_prior(name: Literal["lifter"], **options: Unpack[_Options]) -> DepthLifter: ...
@overload
def load_prior(name: Literal["limits"], **options: Unpack[_Options]) -> JointLimits: ...
@overload
def load_prior(name: Literal["vae"], **options: Unpack[_Options]) -> PoseVAE: ...
@overload
def load_prior(name: str | os.PathLike[str], **options: Unpack[_Options]) -> nn.Module: ...
def load_prior(
    name: str | os.PathLike[str], *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> nn.Module:
    """Return a trained prior in evaluation mode: one that ships with the package, or one from a file.

    Args:
        name: "critic", "denoiser", "dictionary", "gmm", "lifter", "limits" or "vae" for what ships, or the path of a
            .safetensors file that `save_prior` wrote.
        dtype: floating type of its parameters and buffers.
        device: where they lie.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown name, or a file that is damaged or holds something else; the text names the file.

    Example:
        >>> limits = load_prior("limits", dtype=torch.float64)
        >>> bool(limits.energy(torch.zeros(23, 3, dtype=torch.float64)) < 1e-3)
        True
    """
    if isinstance(name, str) and name in PRIORS:
        return _read(WEIGHTS / f"{name}.safetensors", name, dtype, device)
    if isinstance(name, str) and not name.endswith(".safetensors"):
        raise ValueError(
            f"name: expected one of {', '.join(sorted(PRIORS))}, got {name!r}; or give the path of a .safetensors file"
        )
    return _read(Path(name), None, dtype, device)


def save_prior(prior: nn.Module, path: str | os.PathLike[str], *, half: bool = True) -> None:
    """Write a prior of this package as a safetensors file for `load_prior`.

    The file holds the state_dict and, in its metadata, the name of the prior and its constructor's arguments, which
    are read from the attributes of the same names.

    Args:
        prior: an object of one of the classes that `load_prior` returns.
        path: the file, ending in .safetensors.
        half: whether floating tensors are stored in half precision (three digits); those with numbers beyond its range
            are not.

    Raises:
        FileNotFoundError: the folder is not there.
        TypeError: another class, or an object without the attributes that its constructor's arguments are read from.
        ValueError: another ending, or numbers that are not finite.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path: expected a name that ends in .safetensors, got {path.name}; rename it")
    kinds = {target.partition(":")[2]: name for name, target in PRIORS.items()}
    kind = kinds.get(type(prior).__name__)
    if kind is None or type(prior) is not _class_of(kind):
        raise TypeError(f"prior: expected one of {', '.join(kinds)}, got {type(prior).__name__}; save its state_dict")
    parameters = inspect.signature(type(prior)).parameters
    if absent := [name for name in parameters if not hasattr(prior, name)]:
        raise TypeError(f"prior: expected the attributes {', '.join(parameters)}, got no {absent[0]}; store them in it")
    arguments = {name: getattr(prior, name) for name in parameters}
    tensors = {}
    for name, tensor in prior.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name}: expected finite numbers, got NaN or infinity; look at the training")
        tensors[name] = _halved(tensor) if half else tensor
    write_tensors(path, tensors, {"prior": kind, "arguments": json.dumps(arguments, sort_keys=True)})


def _read(path: Path, kind: str | None, dtype: torch.dtype, device: torch.device | str | None) -> nn.Module:
    tensors, metadata = read_tensors(path)
    found = metadata.get("prior")
    if found not in PRIORS or kind not in (None, found):
        wanted = kind or f"one of {', '.join(PRIORS)}"
        raise ValueError(f"{path}: prior: expected {wanted}, got {found!r}; check which file this is")
    try:
        arguments = json.loads(metadata.get("arguments", ""))
        # Without memory first: sizes must agree with the tensors that are there before any is made.
        with torch.device("meta"):
            _expect_state(_class_of(found)(**arguments), tensors)
    except MemoryError:
        raise
    except Exception as error:
        text = str(error) if ": expected " in str(error) else f"arguments: expected those of a {found}, got others"
        raise ValueError(f"{path}: {text}; save it again with this version of the package") from None
    # Constructors draw initial weights: leave the caller's random numbers alone.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        prior = _class_of(found)(**arguments)
    prior = prior.to(device=device, dtype=dtype)
    prior.load_state_dict(tensors)
    return prior.eval()


def _expect_state(prior: nn.Module, tensors: dict[str, Tensor]) -> None:
    state = prior.state_dict()
    if other := sorted(set(state) ^ set(tensors)):
        raise ValueError(f"tensors: expected {len(state)} names, got {', '.join(other)} too many or too few")
    for name, tensor in state.items():
        other = tensors[name]
        if tensor.shape != other.shape or tensor.is_floating_point() != other.is_floating_point():
            raise ValueError(
                f"{name}: expected {tuple(tensor.shape)} {tensor.dtype}, got {tuple(other.shape)} {other.dtype}"
            )


def _class_of(kind: str) -> type[nn.Module]:
    module, _, name = PRIORS[kind].partition(":")
    return getattr(import_module(f".{module}", __package__), name)


def _halved(tensor: Tensor) -> Tensor:
    fits = tensor.is_floating_point() and (tensor.numel() == 0 or float(tensor.abs().max()) <= _HALF_MAX)
    return tensor.to(torch.float16) if fits else tensor
