"""Read the networks of a VPoser v2 checkpoint: tensors only, nothing runs."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_PREFIX = "vp_model."
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_LINEAR = ("weight", "bias")
# Layers by the names that VPoser v2 gives them, and their tensors.
_LAYERS = {
    "encoder_net.1": _NORM,
    "encoder_net.2": _LINEAR,
    "encoder_net.4": _NORM,
    "encoder_net.6": _LINEAR,
    "encoder_net.7": _LINEAR,
    "encoder_net.8.mu": _LINEAR,
    "encoder_net.8.logvar": _LINEAR,
    "decoder_net.0": _LINEAR,
    "decoder_net.3": _LINEAR,
    "decoder_net.5": _LINEAR,
}
_JOINTS = 21


def read_vposer(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], int, int]:
    """Return the tensors of encoder and decoder, the width of the hidden layers, and the number of latents.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is damaged or hostile, or of another kind; the text names the file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected VPoser weights, got no file; check the path")
    try:
        return _checked(_networks(_loaded(path)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _loaded(path: Path) -> object:
    if not path.is_file():
        raise ValueError("expected a file, got a folder or a device; give the path of the .ckpt inside")
    try:
        # PyTorch warns of files that other versions wrote; what it cannot read it refuses, and so does this.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            "expected tensors alone, got other objects, which are never run; save its state_dict with torch.save"
        ) from None
    except MemoryError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0].encode("ascii", "backslashreplace").decode()
        raise ValueError(
            f"expected a file of torch.save, got damaged data ({cause[:120]}); download it again"
        ) from None


def _networks(top: object) -> dict[str, Tensor]:
    """Return the networks' tensors under their own names."""
    if isinstance(top, Mapping) and isinstance(top.get("state_dict"), Mapping):
        top = top["state_dict"]
    if not isinstance(top, Mapping):
        raise ValueError(f"expected a state dict, got {type(top).__name__}; save the model's state_dict()")
    named = {str(name).removeprefix(_PREFIX): value for name, value in top.items()}
    if "bodyprior_enc_fc1.weight" in named:
        raise ValueError("expected VPoser v2, got v1, which has other layers; use the second version's file")
    wanted = [f"{layer}.{part}" for layer, parts in _LAYERS.items() for part in parts]
    missing = [name for name in wanted if not isinstance(named.get(name), Tensor)]
    if missing:
        raise ValueError(f"expected VPoser v2's tensors, got none called {missing[0]}; this is another network")
    return {name: named[name] for name in wanted}


def _checked(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], int, int]:
    """Return the tensors and the sizes, once all shapes agree and all numbers are finite."""
    latents, width = (tensors["encoder_net.8.mu.weight"].shape + (0, 0))[:2]
    dims = 3 * _JOINTS
    sizes = {
        "encoder_net.1": (dims, dims),
        "encoder_net.2": (width, dims),
        "encoder_net.4": (width, width),
        "encoder_net.8.mu": (latents, width),
        "encoder_net.8.logvar": (latents, width),
        "decoder_net.0": (width, latents),
        "decoder_net.5": (6 * _JOINTS, width),
    }
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        rows, columns = sizes.get(layer, (width, width))
        matrix = part == "weight" and _LAYERS[layer] is _LINEAR
        shape = (rows, columns) if matrix else () if part == "num_batches_tracked" else (rows,)
        if tuple(tensor.shape) != shape or 0 in shape:
            raise ValueError(f"{name}: expected {shape}, got {tuple(tensor.shape)}; this is another network")
        if tensor.is_floating_point() == (part == "num_batches_tracked") or not bool(tensor.isfinite().all()):
            raise ValueError(f"{name}: expected finite numbers, got others; the file is damaged")
        if part == "running_var" and bool((tensor < 0).any()):
            raise ValueError(f"{name}: expected variances, got negative numbers; the file is damaged")
    return tensors, width, latents
