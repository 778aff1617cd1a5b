"""Check a built wheel: under 15 MB, every subpackage with its files, nothing that belongs to the repository only."""

import sys
import zipfile
from pathlib import Path

LIMIT = 15_000_000
ROOT = Path(__file__).parent.parent
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
        if path.is_file() and "__pycache__" not in path.parts and name not in names:
            problems.append(f"{name} is missing from the wheel")
for name in ("physique/__init__.py", "physique/py.typed"):
    if name not in names:
        problems.append(f"{name} is missing from the wheel")

if problems:
    sys.exit("\n".join(problems))
print(f"{wheel.name}: {size / 1e6:.2f} MB, {len(names)} files")
