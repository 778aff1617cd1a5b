"""Check a built wheel: under 15 MB, every subpackage with its files, nothing that belongs to the repository only.

The compiled kernel is in it where there was a compiler; its sources are not.
"""

import sys
import zipfile
from pathlib import Path

LIMIT = 15_000_000
ROOT = Path(__file__).parent.parent
BUILT_FROM, BUILT = {".c", ".h"}, {".so", ".pyd"}
NOT_SHIPPED = {".ci", ".venv", "benchmarks", "build", "dist", "docs", "examples", "out", "tests", "tools"}

wheel = Path(sys.argv[1])
size = wheel.stat().st_size
names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

problems = []
if size >= LIMIT:
    problems.append(f"{size} bytes, the limit is {LIMIT}")
for name in sorted(names):
    top, inside, *_ = [*Path(name).parts, ""]
    if top != "physique" or inside in NOT_SHIPPED:
        problems.append(f"{name} does not belong in the wheel")
for package in ROOT.glob("*/__init__.py"):
    for path in package.parent.rglob("*"):
        name = f"physique/{path.relative_to(ROOT)}"
        if path.suffix in BUILT_FROM | BUILT or "__pycache__" in path.parts:
            continue
        if path.is_file() and name not in names:
            problems.append(f"{name} is missing from the wheel")
for name in ("physique/__init__.py", "physique/py.typed"):
    if name not in names:
        problems.append(f"{name} is missing from the wheel")

if problems:
    sys.exit("\n".join(problems))
kernel = "with" if any(Path(name).suffix in BUILT for name in names) else "without"
print(f"{wheel.name}: {size / 1e6:.2f} MB, {len(names)} files, {kernel} the compiled kernel")
