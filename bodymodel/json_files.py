"""Read a .json file: bounded in size, with errors that name it in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

# Parsed JSON takes several times the size of its text; the largest annotation files are a little over 1 GB.
MAX_BYTES = 2**31


def read_json(path: Path) -> Any:
    """Return what a file holds.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: a folder, an unreadable or oversized file, one that is not JSON, or with NaN or infinity.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a .json file, got no file; check the path")
    if not path.is_file():
        refuse_file(path, "a .json file", "a folder or a device", "give one file")
    if path.stat().st_size > MAX_BYTES:
        refuse_file(path, f"at most {MAX_BYTES} bytes", f"{path.stat().st_size}", "split the file")
    try:
        return json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except OSError as error:
        refuse_file(path, "a readable file", f"{error.strerror}", "check its permissions")
    except RecursionError:
        refuse_file(path, "JSON", "brackets nested too deep", "the file is of another kind")
    except ValueError as error:
        got = " ".join(str(error).split())
        refuse_file(path, "JSON", f"'{got:.80}'", "the file is damaged or of another kind")


def refuse_file(path: Path, expected: str, got: str, advice: str) -> NoReturn:
    """Raise the error of a file."""
    raise ValueError(f"{path}: expected {expected}, got {got}; {advice}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"the number {name}")
