"""Write a file so that it is either complete or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_file(path: Path, contents: bytes) -> None:
    """Write `contents` beside `path` and move them there, over an older file if need be.

    Raises:
        FileNotFoundError: the folder is not there.
    """
    with whole_file(path) as beside:
        beside.write_bytes(contents)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give the path to write to; what is there at the end of the block, unless an error ends it, becomes `path`.

    Raises:
        FileNotFoundError: the folder is not there.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: expected a folder, got none; make it first")
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
