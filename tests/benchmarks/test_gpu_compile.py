"""The GPU kernels compile to machine code without a GPU: the interpreter of the other tests is more lenient."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton is not installed: pip install triton (Linux)"
)
ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_every_kernel_compiles_for_hopper(tmp_path):
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": path}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "gpu_compile.py", "--brief", "--precisions", "tf32x3", "--batches", "1"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if "_kernel" in line}
    products = {"forward_kernel", "planes_back_kernel", "blend_back_kernel", "transforms_back_kernel"}
    assert set(rows) == products | {"chain_kernel", "chain_back_kernel"}
    for name in products:
        assert int(rows[name][6]) > 0, f"{name} makes no use of the matrix units"
