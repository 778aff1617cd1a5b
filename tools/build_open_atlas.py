"""Build the DensePose-style atlas of the built-in body from its shipped arrays; needs physique installed.

python tools/build_open_atlas.py            # writes bodymodel/assets/open_body_atlas*.npz
python tools/build_open_atlas.py --check    # compares with what is there
python tools/build_open_atlas.py --table    # prints how much each chart distorts, from what is there
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from open_body.atlas_assemble import build
from open_body.atlas_report import table
from physique.bodymodel import SurfaceAtlas, open_body

ASSETS = Path(__file__).resolve().parents[1] / "bodymodel" / "assets"
FILES = {"full": "open_body_atlas.npz", "low": "open_body_atlas_low.npz"}


def differences(built: SurfaceAtlas, shipped: SurfaceAtlas) -> list[str]:
    """Say how two atlases differ, beyond one step of quantisation."""
    found = [name for name in ("faces", "part") if not np.array_equal(getattr(built, name), getattr(shipped, name))]
    if not found and np.abs(built.uv - shipped.uv).max() > 1.5 / 32768:
        found.append("uv")
    return found


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder of the assets")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the shipped atlases differ")
    parser.add_argument("--table", action="store_true", help="only print the distortion of the shipped charts")
    parser.add_argument("--picture", type=Path, help="only draw the full body's parts and charts to this file")
    options = parser.parse_args()
    if options.picture:
        from open_body.atlas_picture import draw

        draw(options.picture, SurfaceAtlas.load(options.out / FILES["full"]), open_body())
        return 0
    status = 0
    for detail, name in FILES.items():
        path = options.out / name
        if options.table:
            print(f"{detail}\n{table(SurfaceAtlas.load(path), open_body(detail))}")
            continue
        atlas = SurfaceAtlas(**build(open_body(detail)), mirrored=True)
        if options.check:
            found = differences(atlas, SurfaceAtlas.load(path))
            print(f"{name}: {'differs in ' + ', '.join(found) if found else 'as shipped'}")
            status |= bool(found)
        else:
            atlas.save(path)
            print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
    return status


if __name__ == "__main__":
    sys.exit(main())
