"""Check an installed physique: every module imports without optional packages, and quickly."""

import importlib
import pkgutil
import statistics
import subprocess
import sys
from importlib.metadata import version

import physique

RUNS = 7
LIMIT_S = 0.5
TIMER = """
import time, torch
start = time.perf_counter()
import physique.bodymodel
print(time.perf_counter() - start)
"""

assert "site-packages" in physique.__file__, f"imported {physique.__file__}, not the installed wheel"
assert physique.__version__ == version("physique")
names = [module.name for module in pkgutil.walk_packages(physique.__path__, "physique.")]
for name in names:
    # Those need hypothesis, and Triton.
    if name != "physique.testing.strategies" and not name.startswith("physique.bodymodel.triton_"):
        importlib.import_module(name)

seconds = statistics.median(
    float(subprocess.run([sys.executable, "-c", TIMER], check=True, capture_output=True, text=True).stdout)
    for _ in range(RUNS)
)
assert seconds < LIMIT_S, f"import physique.bodymodel adds {seconds:.2f} s to import torch, the limit is {LIMIT_S} s"
print(f"body models run on: {importlib.import_module('physique.bodymodel').backend()}")
print(f"{len(names)} modules import; import physique.bodymodel adds {seconds:.2f} s to import torch")
