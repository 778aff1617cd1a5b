"""The GPU benchmark's own logic. No times are judged, and no GPU is needed."""

import sys
from pathlib import Path

import physique
import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: pip install triton")
sys.path.insert(0, str(Path(physique.__file__).parent / "benchmarks"))

import gpu
import gpu_checks
from physique.bodymodel import passes

# On the processor, the compiled kernel would take the calls that are tested here.
pytestmark = pytest.mark.usefixtures("eager")
LIMITS = {"bytes_per_s": 4e12, "float32_per_s": 6e13, "tf32_per_s": 4.5e14}


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "NVIDIA GPU" in capsys.readouterr().err


def test_the_floor_of_one_body_is_reading_the_directions_and_that_of_many_is_arithmetic():
    one = gpu.floor(1, backward=False, split=True, limits=LIMITS)
    assert one == pytest.approx((12 * 217 + 12) * 6890 / 4e12)
    many = gpu.floor(4096, backward=False, split=True, limits=LIMITS)
    assert many == pytest.approx(4096 * (2 * 3 * 217 + 114) * 6890 / 1.5e14)
    assert gpu.floor(4096, backward=True, split=False, limits=LIMITS) == pytest.approx(2 * many * 1.5e14 / 6e13)


def test_a_check_compares_with_float64_and_sees_a_wrong_kernel(monkeypatch):
    monkeypatch.setattr(passes, "runs_on_gpu_kernels", lambda tensor: tensor.dtype == torch.float32)
    body = gpu_checks.make_model

    def on_the_processor(family, device, dtype=torch.float32):
        return body(family, "cpu", dtype).select_vertices(torch.arange(40))

    leaves = gpu_checks._leaves
    monkeypatch.setattr(gpu_checks, "make_model", on_the_processor)
    monkeypatch.setattr(gpu_checks, "_leaves", lambda f, b, d, dtype=torch.float32: leaves(f, b, "cpu", dtype))
    holds, said = gpu_checks._exact("smpl", "tf32x3", 2)
    assert holds, said
    whole = passes.whole_pass

    def off(plan, constants, given):
        out = whole(plan, constants, given)
        return out if out.vertices.dtype == torch.float64 else out._replace(vertices=out.vertices + 1e-5)

    monkeypatch.setattr("physique.bodymodel.model.whole_pass", off)
    assert not gpu_checks._exact("smpl", "tf32x3", 2)[0]
