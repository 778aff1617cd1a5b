"""Read and write safetensors files: named tensors and text beside them, and nothing that runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from ..bodymodel.write_file import write_file


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, on the CPU, and its metadata.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged or foreign file, or a floating tensor with NaN or infinity; the text names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a safetensors file, got none; check the path")
    contents = path.read_bytes()
    try:
        tensors = load(contents)
        metadata = _header(contents).get("__metadata__") or {}
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(
            f"{path}: expected a safetensors file, got damaged or foreign data ({error}); download or save it again"
        ) from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{path}: {name}: expected finite numbers, got NaN or infinity; the file is damaged")
    return tensors, metadata


def write_tensors(path: str | os.PathLike[str], tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and metadata as a safetensors file, complete or not at all; equal contents give equal bytes.

    Raises:
        FileNotFoundError: the folder is not there.
    """
    ready = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    contents = save(ready, metadata=metadata)
    # The library writes metadata in any order: write the header again, its length a multiple of 8 as before.
    header = _header(contents)
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_file(Path(path), len(text).to_bytes(8, "little") + text + contents[_header_end(contents) :])


def _header(contents: bytes) -> dict:
    """Return the header of a file that the library has made or accepted: 8 bytes of length, then JSON."""
    return json.loads(contents[8 : _header_end(contents)])


def _header_end(contents: bytes) -> int:
    return 8 + int.from_bytes(contents[:8], "little")
