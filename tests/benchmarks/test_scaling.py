"""The logic of the simulated table: shares of work, waits at the end, kills. No times are judged."""

import sys
from pathlib import Path

import physique
import pytest

pytest.importorskip("pyarrow", reason='needs pip install "physique[scale]"')
sys.path.insert(0, str(Path(physique.__file__).parent / "benchmarks"))

import scaling

WORK = scaling.FRAMES * 0.02 / 3600  # hours of one core


def test_one_worker_that_nobody_kills_takes_the_time_of_all_frames():
    run = scaling.simulate(0.02, workers=1, piece=1000, kills=0)
    assert run.hours == pytest.approx(WORK, rel=0.02)
    assert run.worker_hours == run.hours and run.lost == 0


def test_many_workers_share_the_work_and_wait_for_the_last_piece():
    alone, many, too_many = (scaling.simulate(0.02, count, 1000, 0) for count in (1, 100, 999))
    assert alone.hours / 100 < many.hours < 1.3 * alone.hours / 100
    assert too_many.worker_hours > 1.8 * alone.worker_hours, "most have one piece, some two, and all are paid for"
    finer = scaling.simulate(0.02, 100, 100, 0)
    assert finer.hours < many.hours


def test_what_a_kill_loses_grows_with_the_piece():
    fine, coarse = (scaling.simulate(0.02, 100, piece, kills=2) for piece in (500, 10_000))
    assert 0 < fine.lost < 0.05 * WORK and coarse.lost > 3 * fine.lost
    assert coarse.hours > fine.hours


def test_an_estimate_of_a_gpu_says_that_it_is_one(monkeypatch):
    monkeypatch.setattr(scaling.torch.cuda, "is_available", lambda: False)
    options = scaling.parse_options(["--gpu-batch", "1000", "--gpu-host", "2", "--gpu-speed", "50"])
    estimate = scaling.gpu_cost(scaling.Cost("fit", 100, fixed=0.5, each=0.01), options)
    assert "ESTIMATED" in estimate.name and estimate.per_frame() == pytest.approx(2 * 0.5 / 1000 + 0.01 / 50)


def test_every_fit_of_the_table_runs_on_one_person():
    for name, make, _ in scaling.FITS:
        assert make(1, "cpu")().loss.isfinite().all(), name
