"""The benchmark's own logic: spreads, tables, promises, regressions, what is kept. No times are judged."""

import json
import sys
from itertools import count
from pathlib import Path

import physique
import pytest
import torch

sys.path.insert(0, str(Path(physique.__file__).parent / "benchmarks"))

import floors
import libraries
import paired
import plot
import results
import rows
import speed
from floors import Floor
from libraries import OURS, SMPLX, make_bodies, make_library, make_subject
from paired import Spread
from physique.bodymodel import backend, use_backend
from results import Result, Run


def row(name, ratio, other=None):
    ratios = {SMPLX: Spread(ratio, 0.9 * ratio, 1.1 * ratio)}
    values = {OURS: 10.0, SMPLX: 10.0 * ratio}
    if other is not None:
        ratios["smplfitter"], values["smplfitter"] = Spread(other, other, other), 10.0 * other
    return Result(name, "us", values, ratios, 9)


class TestPaired:
    def test_spread_of_few_values_is_their_range(self):
        assert Spread.of([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)

    def test_spread_of_many_leaves_out_the_outer_tenths(self):
        assert Spread.of([float(value) for value in range(21)]) == (10.0, 2.0, 18.0)

    def test_ratios_are_taken_within_the_round(self):
        """A machine that gets slower all the time, on both functions alike, does not change the ratio."""
        now = [0.0]
        slower = count(1)

        def work(seconds):
            now[0] += seconds * next(slower)

        # Long calls, so that a turn is one call: ours and theirs alternate at n and n + 1 times their time.
        found = paired.measure(
            {"ours": lambda: work(1.0), "theirs": lambda: work(3.0)}, budget=0, rounds=(50, 50), clock=lambda: now[0]
        )
        assert found.rounds == 50
        assert 3.0 < found.ratios["theirs"].median < 3.2
        assert found.seconds["theirs"].high > 5 * found.seconds["theirs"].low

    def test_rounds_stop_when_the_budget_is_spent(self):
        now = [0.0]

        def call():
            now[0] += 1.0

        found = paired.measure({"ours": call, "theirs": call}, budget=10, rounds=(2, 100), clock=lambda: now[0])
        assert found.rounds == 5
        assert found.ratios["theirs"].median == 1


class TestPromises:
    floors = {"a": Floor(4, 6, 3, "the bus"), "b": Floor(2, 3, None)}

    def test_only_what_is_promised_breaks(self):
        broken = results.broken_promises([row("a", 2.9), row("b", 0.1), row("c", 0.1)], self.floors)
        assert len(broken) == 1 and broken[0].startswith("a: expected at least 3")
        assert not results.broken_promises([row("a", 3.1)], self.floors)

    def test_a_goal_that_is_missed_is_marked(self):
        assert results.marks(row("a", 3.5), self.floors["a"]) == ["below what is asked"]
        assert results.marks(row("a", 7.0), self.floors["a"]) == ["excellent"]
        assert results.marks(row("a", 4.5), self.floors["a"]) == []

    def test_a_faster_library_is_named(self):
        assert results.marks(row("a", 4.5, other=0.8), self.floors["a"]) == ["smplfitter is faster"]

    def test_less_is_promised_only_for_a_reason_or_a_margin(self):
        for floor in (*floors.FLOORS.values(), *floors.COMPILED.values()):
            assert floor.asked <= floor.stretch
            assert floor.promised is None or floor.promised <= floor.asked
            assert floor.reason or floor.promised is None or floor.promised >= 0.6 * floor.asked


class TestRegressions:
    def test_a_row_that_fell_is_named(self):
        found = results.regressions([row("a", 7.0), row("b", 7.6)], [row("a", 10.0), row("b", 10.0)], 0.25)
        assert found == ["a: stored 10 times smplx, got 7"]

    def test_new_rows_and_gone_rows_are_no_regressions(self):
        assert results.regressions([row("new", 1.0)], [row("gone", 10.0)], 0.25) == []

    @pytest.mark.parametrize(("ratio", "status"), [(9.0, 0), (5.0, 1)])
    def test_the_command_fails_for_a_row_that_stays_slow(self, ratio, status, tmp_path, monkeypatch, capsys):
        path = tmp_path / "results.json"
        results.save(results.new_run([row("SMPL points fwd B=8", 10.0)]), path)
        measured = []

        def measure():
            measured.append(ratio)
            return row("SMPL points fwd B=8", ratio)

        monkeypatch.setattr(speed, "kept_of", lambda _: speed.Kept(path, path, path))
        monkeypatch.setattr(speed, "all_rows", lambda bench: [rows.Row("SMPL points fwd B=8", measure)])
        threads = torch.get_num_threads()
        assert speed.main(["--check"]) == status
        torch.set_num_threads(threads)
        shown = capsys.readouterr()
        assert ("SMPL points fwd B=8: stored 10" in shown.err) == (status == 1)
        assert len(measured) == 1 + status, "a row that fails is measured once more"

    def test_each_backend_has_its_own_floors_and_its_own_page(self):
        compiled = "compiled: avx512, 2 threads"
        assert floors.floors_of("eager") is floors.FLOORS and floors.floors_of(compiled) is floors.COMPILED
        assert speed.kept_of("eager").page.name == "RESULTS.md"
        assert not set(speed.kept_of("eager")) & set(speed.kept_of(compiled))
        with use_backend("eager"):
            assert results.describe_machine()["backend"] == "eager"

    def test_nothing_stored_is_no_success(self, tmp_path, monkeypatch, capsys):
        none = tmp_path / "none.json"
        monkeypatch.setattr(speed, "kept_of", lambda _: speed.Kept(none, none, none))
        assert speed.main(["--check"]) == 2
        assert "--record" in capsys.readouterr().err


class TestKept:
    def test_a_run_is_read_as_it_was_written(self, tmp_path):
        run = Run({"processor": "x"}, {OURS: "0"}, [row("a", 2.0, other=3.0), row("b", 5.0)])
        results.save(run, tmp_path / "run.json")
        assert results.load(tmp_path / "run.json") == run
        json.loads((tmp_path / "run.json").read_text())

    def test_the_table_has_a_line_a_row_and_a_column_a_library(self):
        lines = results.table([row("a", 2.0, other=3.0), row("b", 5.0)], TestPromises.floors).splitlines()
        assert len(lines) == 4 and len({len(line) for line in lines}) == 1
        cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
        assert cells[0][1:4] == [OURS, "smplx / ours", "smplfitter / ours"]
        assert cells[2] == ["a", "10 us", "2 [1.8, 2.2]", "3 [3, 3]", "4", "below what is asked"]
        assert cells[3][3] == "-"

    def test_the_page_names_machine_versions_and_promises(self):
        page = results.page(Run({"processor": "Abacus"}, {"torch": "9.9"}, [row("a", 2.0)]), TestPromises.floors)
        assert "processor Abacus" in page and "torch 9.9" in page and "| a | 4 | 6 | 3 | the bus |" in page

    def test_the_picture_is_drawn(self, tmp_path):
        run = Run({}, {}, [row("SMPL joints fwd B=1", 20.0, other=2.0), row("SMPL joints fwd B=8", 40.0, other=2.0)])
        assert plot.speed_lines(run) == {
            ("joints", "fwd", OURS): [(1, 20.0), (8, 40.0)],
            ("joints", "fwd", "smplfitter"): [(1, 10.0), (8, 20.0)],
        }
        plot.draw(run, tmp_path / "speed.png")
        assert (tmp_path / "speed.png").stat().st_size > 10_000


class TestRows:
    def test_every_floor_is_of_a_row(self, tmp_path):
        names = [each.name for each in rows.all_rows(rows.Workbench([OURS, SMPLX], tmp_path))]
        assert len(names) == len(set(names))
        assert set(floors.FLOORS) <= set(floors.COMPILED) <= set(names)

    def test_quick_measures_the_floors_alone(self, tmp_path):
        names = [each.name for each in rows.all_rows(rows.Workbench([OURS, SMPLX], tmp_path, quick=True))]
        assert set(names) == set(floors.floors_of(backend()))

    def test_names_say_what_the_plot_reads(self, tmp_path):
        names = [each.name for each in rows.all_rows(rows.Workbench([OURS, SMPLX], tmp_path))]
        assert sum(bool(plot.ROW.match(name)) for name in names) == 4 * 2 * 5
        assert not any(":" in name for name in names), "a line about a row starts with its name and a colon"


def test_arguments_are_betas_then_pose_in_the_order_of_the_joints(tmp_path, monkeypatch):
    monkeypatch.setitem(libraries.VERTICES, "smplx", 600)
    subject = make_subject("smplx")
    bodies = make_bodies(subject, 2)
    leaves = make_library(OURS, subject, tmp_path).leaves(bodies)
    flat = torch.cat([value.flatten(1) for value in leaves.values()], dim=1)
    assert flat.equal(torch.cat((bodies.betas, bodies.expression, bodies.pose.flatten(1)), dim=1))
