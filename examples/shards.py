"""Shards of records, parquet or npz: read what may hold anything, write what is whole or not there."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from physique.bodymodel.write_file import write_file

SUFFIXES = (".parquet", ".npz")
NEEDED, OPTIONAL = ("id", "keypoints"), ("confidence", "image_size")


class Piece(NamedTuple):
    """What is fitted and written at once: the records `first` to `stop` of a shard."""

    shard: str
    first: int
    stop: int

    def bodies(self, out: Path) -> Path:
        """Return the file for its bodies. Where that file is, the piece is done."""
        shard = Path(self.shard)
        return out / "bodies" / f"{shard.stem}-{self.first:08}{shard.suffix}"

    def rejected(self, out: Path) -> Path:
        """Return the file for those of its records that cannot be fitted: a line of JSON each."""
        return out / "rejected" / f"{self.bodies(out).name}.jsonl"

    def tries(self, out: Path) -> Path:
        """Return the file with a mark for each time that the piece was begun and not ended."""
        return out / "tries" / self.bodies(out).name


class Record(NamedTuple):
    """A record as the shard has it: anything, or None."""

    id: Any
    keypoints: Any
    confidence: Any = None
    image_size: Any = None


def list_shards(folder: Path) -> list[Path]:
    """Return the shards of a folder, in the order of their names."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of shards, got none; make one with --simulate 1000")
    shards = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and not path.name.startswith("."))
    if not shards:
        raise ValueError(f"{folder}: expected .parquet or .npz files, got none; make some with --simulate 1000")
    return shards


def count_records(shard: Path) -> int:
    """Return how many records a shard has, without reading them all; ValueError where it cannot be read."""
    with _one_line(shard):
        if shard.suffix == ".parquet":
            with pq.ParquetFile(shard) as file:
                _expect_columns(shard, file.schema_arrow.names)
                return file.metadata.num_rows
        with shard.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            _expect_columns(shard, file.files)
            return len(file["id"])


def read_records(piece: Piece) -> list[Record]:
    """Return the records of a piece; ValueError where the shard cannot be read."""
    shard = Path(piece.shard)
    with _one_line(shard):
        columns = _read_parquet(piece) if shard.suffix == ".parquet" else _read_npz(piece)
    lengths = {name: len(column) for name, column in columns.items()}
    if set(lengths.values()) != {piece.stop - piece.first}:
        raise ValueError(f"{shard}: expected columns of one length, got {lengths}; write the shard again")
    rows = zip(*columns.values(), strict=True)
    return [Record(**dict(zip(columns, row, strict=True))) for row in rows]


def write_columns(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Write arrays of one length as parquet or npz, after reading back what would be written."""
    buffer = io.BytesIO()
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: _to_arrow(array) for name, array in columns.items()}), buffer)
    else:
        np.savez(buffer, **columns)
    again = _columns(buffer.getvalue(), path.suffix, None)
    for name, array in columns.items():
        if not np.array_equal(again[name], array, equal_nan=array.dtype.kind == "f"):
            raise OSError(f"{path}: {name} does not read back as it was written; check memory and disk")
    write_file(path, buffer.getvalue())


def read_columns(path: Path, names: list[str] | None = None) -> dict[str, np.ndarray]:
    """Return the arrays that `write_columns` wrote, or those of some names."""
    return _columns(path.read_bytes(), path.suffix, names)


def write_rejected(piece: Piece, out: Path, rejected: list[dict[str, Any]]) -> None:
    """Write why records of a piece were not fitted; no file where all of them were."""
    path = piece.rejected(out)
    if rejected:
        write_file(path, "".join(json.dumps(line) + "\n" for line in rejected).encode())
    else:
        path.unlink(missing_ok=True)


def count_done(piece: Piece, out: Path) -> tuple[int, int] | None:
    """Return how many records of a piece are fitted and how many rejected; None unless each is there exactly once."""
    path, rejected = piece.bodies(out), piece.rejected(out)
    if not path.exists():
        return None
    try:
        fitted = read_columns(path, ["row"])["row"].tolist()
        lines = rejected.read_text().splitlines() if rejected.exists() else []
        refused = [json.loads(line)["row"] for line in lines]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    once = sorted(fitted + refused) == list(range(piece.first, piece.stop))
    return (len(fitted), len(refused)) if once else None


@contextmanager
def _one_line(shard: Path) -> Iterator[None]:
    """Turn what the readers raise at a broken file into a ValueError of one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise ValueError(reason if reason.startswith(str(shard)) else f"{shard}: cannot be read: {reason}") from error


def _expect_columns(shard: Path, names: list[str]) -> None:
    if not set(NEEDED) <= set(names):
        raise ValueError(f"{shard}: expected columns id and keypoints, got {', '.join(names)}; rename them")


def _read_parquet(piece: Piece) -> dict[str, list[Any]]:
    """Return the columns of a piece from those row groups that have part of it."""
    with pq.ParquetFile(piece.shard) as file:
        _expect_columns(Path(piece.shard), file.schema_arrow.names)
        ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
        groups = np.flatnonzero((ends > piece.first) & (np.r_[0, ends[:-1]] < piece.stop)).tolist()
        names = [name for name in NEEDED + OPTIONAL if name in file.schema_arrow.names]
        table = file.read_row_groups(groups, columns=names)
        before = int(ends[groups[0] - 1]) if groups and groups[0] else 0
    return {name: table[name].slice(piece.first - before, piece.stop - piece.first).to_pylist() for name in names}


def _read_npz(piece: Piece) -> dict[str, list[Any]]:
    with open(piece.shard, "rb") as opened, np.load(opened, allow_pickle=False) as file:
        _expect_columns(Path(piece.shard), file.files)
        return {n: list(file[n][piece.first : piece.stop]) for n in NEEDED + OPTIONAL if n in file.files}


def _columns(contents: bytes, suffix: str, names: list[str] | None) -> dict[str, np.ndarray]:
    if suffix == ".npz":
        with np.load(io.BytesIO(contents), allow_pickle=False) as file:
            return {name: file[name] for name in names or file.files}
    table = pq.read_table(pa.BufferReader(contents), columns=names)
    return {name: _from_arrow(table[name].combine_chunks()) for name in table.column_names}


def _to_arrow(array: np.ndarray) -> pa.Array:
    """Return a column; entries of more than one number are tensors, which other readers see as lists."""
    if array.ndim == 1:
        return pa.array(array.tolist(), pa.string()) if array.dtype.kind == "U" else pa.array(array)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), int(np.prod(array.shape[1:])))
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(flat.type.value_type, array.shape[1:]), flat)


def _from_arrow(column: pa.Array) -> np.ndarray:
    if isinstance(column.type, pa.FixedShapeTensorType):
        return column.to_numpy_ndarray()
    return np.array(column.to_pylist(), str) if pa.types.is_string(column.type) else column.to_numpy()
