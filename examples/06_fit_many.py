"""Fit bodies to the keypoints of millions of people with Ray Data: a folder of shards in, a folder of bodies out.

A shard is a .parquet or .npz with a record a person: `id`, `keypoints` (K, 2) or, with confidence, (K, 3) in pixels,
and where known `confidence` (K,) and `image_size` (2,), width and height. Writes

  OUT/bodies/SHARD-FIRST.parquet or .npz   body, camera, status and errors of each record, with its `shard` and `row`
  OUT/rejected.jsonl                       the records and shards that are of no use, each with the reason
  OUT/manifest.json                        how many records of each shard are fitted, rejected and left

A run that was killed goes on when the same command is given again; nothing is lost and nothing is there twice. The exit
status is 0 when all is done, 1 when a shard cannot be read or a piece is left over, 2 when nothing could be started.
To try it: --simulate 2000 makes up as many people first. Needs `pip install "physique[scale,viz]"`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from crowd import write_crowd
from fit_pieces import Fitter, Settings, load_model, rejection
from physique.bodymodel import KeypointRegressor
from physique.bodymodel.write_file import write_file
from shards import Piece, count_done, count_records, list_shards
from tqdm import tqdm

MOST_TASKS = 10_000  # that the scheduler is given; where there are more pieces, a task has several
STORE = 100 * 2**20  # bytes of Ray's shared memory: names and counts pass through it, records do not


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit what is left, and return the exit status: 2 with one line on stderr where nothing could be started."""
    options = parse_options(arguments)
    names = [field.name for field in dataclasses.fields(Settings)]
    settings = Settings(**{name: value for name, value in vars(options).items() if name in names})
    try:
        check_options(options)
        model = load_model(settings)
        KeypointRegressor(settings.keypoint_set, model.data)
        if options.simulate:
            write_crowd(options.keypoints, options.simulate, model, settings.keypoint_set)
        shards = list_shards(options.keypoints)
        keep_settings(settings, options.out)
        pieces, broken = cut(shards, settings.piece, options.limit)
    except (OSError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    sizes = {piece: piece.stop - piece.first for piece in pieces}
    looking = tqdm(pieces, "looking for what is done", leave=False)
    left = [piece for piece in looking if count_done(piece, options.out) is None]
    total, before = sum(sizes.values()), sum(sizes.values()) - sum(sizes[piece] for piece in left)
    if before:
        print(f"going on: {before} of {total} records are done")
    start = time.perf_counter()
    with tqdm(total=total, initial=before, desc=f"fitting with {options.workers} workers", unit="record") as bar:
        for report in fit(left, settings, options) if left else ():
            bar.update(report["done"])
            if report["error"]:
                broken[report["shard"]] = report["error"]
    seconds = time.perf_counter() - start
    counts = write_manifest(pieces, broken, options.out)
    summary = ", ".join(f"{count} {name}" for name, count in counts.items())
    print(f"{total - before} records in {seconds:.0f} s; {summary}; written to {options.out}")
    for reason in broken.values():
        print(reason, file=sys.stderr)
    if counts["left"] and not broken:
        print("some pieces are left over, see above; the same command tries them again", file=sys.stderr)
    return 1 if broken or counts["left"] else 0


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--keypoints", required=True, type=absolute, metavar="DIR", help="folder of .parquet and .npz shards")
    add(
        "--out",
        required=True,
        type=absolute,
        metavar="DIR",
        help="folder for the results; one begun before is continued",
    )
    add("--keypoint-set", default="openpose25", metavar="NAME", help="what the points are (default: %(default)s)")
    add(
        "--model",
        type=lambda path: str(absolute(path)),
        metavar="PATH",
        help="official SMPL, SMPL-H, SMPL-X or STAR file; default: built in",
    )
    add("--detail", choices=("full", "low"), default="full", help="of the built-in body (default: %(default)s)")
    add("--steps", type=int, help="most steps of a fit; default: that of fit_keypoints")
    add("--workers", type=int, default=os.cpu_count(), help="processes, a core each (default: the cores, %(default)s)")
    add("--batch", type=int, default=128, help="people fitted at once (default: %(default)s)")
    add("--piece", type=int, default=1024, help="records written at once; a kill loses at most one a worker's work")
    add("--limit", type=int, metavar="N", help="only the first N records, and the rest of their piece")
    add("--simulate", type=int, metavar="N", help="first make up shards of N people in the folder of keypoints")
    add("--gpus", type=float, default=0, help="GPUs a worker, such as 1 or 0.25 (default: none)")
    add("--address", default="local", help="of a Ray cluster, such as auto; default: start Ray on this machine")
    return parser.parse_args(arguments)


def absolute(path: str) -> Path:
    """Return a path as workers in other folders find it."""
    return Path(path).resolve()


def check_options(options: argparse.Namespace) -> None:
    """Refuse numbers that mean nothing."""
    for name in ("workers", "batch", "piece", "limit", "simulate", "steps"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name}: expected 1 or more, got {value}; leave it out for the default")


def keep_settings(settings: Settings, out: Path) -> None:
    """Make the folders of the results, or make sure that those there come from the same settings."""
    for folder in ("bodies", "rejected", "tries"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for tries in (out / "tries").iterdir():  # of a run that was killed: that says nothing against the pieces
        tries.unlink(missing_ok=True)
    path, new = out / "settings.json", dataclasses.asdict(settings)
    old = json.loads(path.read_text()) if path.exists() else new
    if old != new:
        differing = ", ".join(f"{name} {old.get(name)}" for name in new if old.get(name) != new[name])
        raise ValueError(f"{out}: expected the settings of the run that it holds, {differing}; choose another folder")
    write_file(path, json.dumps(new, indent=1).encode())


def cut(shards: Sequence[Path], size: int, limit: int | None) -> tuple[list[Piece], dict[str, str]]:
    """Return the pieces of the shards, and by shard why some have none."""
    pieces, broken = [], {}
    for shard in shards:
        try:
            count = count_records(shard)
        except ValueError as error:
            broken[str(shard)] = str(error)
            continue
        pieces += [Piece(str(shard), first, min(first + size, count)) for first in range(0, count, size)]
    if limit is not None:
        # Whole pieces: half a piece would take the place of a whole one that is done.
        before = [0, *itertools.accumulate(piece.stop - piece.first for piece in pieces)]
        pieces = [piece for piece, start in zip(pieces, before, strict=False) if start < limit]
    return pieces, broken


def fit(pieces: Sequence[Piece], settings: Settings, options: argparse.Namespace) -> Iterator[dict]:
    """Yield what came of each piece as soon as it is done. A worker that dies is replaced and its task done again."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported, which takes a while
    import ray.data

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Where no cluster is named: one of this machine, without dashboard, with little shared memory.
    here = {"num_cpus": options.workers, "object_store_memory": STORE, "include_dashboard": False}
    alone = options.address == "local"
    ray.init(options.address, log_to_driver=False, logging_level="error", **(here if alone else {}))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # they count tasks; records are counted here
    context.max_errored_blocks = -1  # a task that fails must not stop the others
    tasks = ray.data.from_items([piece._asdict() for piece in pieces], override_num_blocks=min(len(pieces), MOST_TASKS))
    done = tasks.map_batches(
        Fitter,
        fn_constructor_args=(settings, str(options.out), "cuda" if options.gpus else "cpu"),
        compute=ray.data.ActorPoolStrategy(size=options.workers),
        batch_size=1,
        num_cpus=1,
        num_gpus=options.gpus or None,
    )
    yield from done.iter_rows()
    ray.shutdown()


def write_manifest(pieces: Sequence[Piece], broken: dict[str, str], out: Path) -> dict[str, int]:
    """Count what is there by reading it back, write it and the rejected records, and return the sums."""
    shards: dict[str, dict[str, int]] = {}
    lines = [json.dumps(rejection(shard, None, None, reason)) + "\n" for shard, reason in broken.items()]
    for piece in pieces:
        counts = shards.setdefault(Path(piece.shard).name, {"fitted": 0, "rejected": 0, "left": 0})
        done = count_done(piece, out)
        if done is None:
            counts["left"] += piece.stop - piece.first
            continue
        counts["fitted"] += done[0]
        counts["rejected"] += done[1]
        if done[1]:
            lines.append(piece.rejected(out).read_text())
    sums = {name: sum(counts[name] for counts in shards.values()) for name in ("fitted", "rejected", "left")}
    write_file(out / "rejected.jsonl", "".join(lines).encode())
    write_file(out / "manifest.json", json.dumps({"shards": shards, **sums}, indent=1).encode())
    if not sums["left"]:
        for folder in ("bodies", "rejected"):
            for partial in (out / folder).glob(".*.partial"):  # of workers that were killed while writing
                partial.unlink()
    return sums


if __name__ == "__main__":
    sys.exit(main())
