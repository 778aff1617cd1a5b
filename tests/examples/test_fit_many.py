import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from physique.bodymodel import BodyModel, KeypointRegressor, open_body
from physique.cameras import WeakPerspectiveCamera
from torch.testing import assert_close

pa = pytest.importorskip("pyarrow", reason='needs pip install "physique[scale]"')
pq = pytest.importorskip("pyarrow.parquet")

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "06_fit_many.py"
QUICK = ("--detail", "low", "--steps", "20", "--batch", "16", "--piece", "16")
with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs pip install "physique[scale]"')


def load(name):
    """Import a module of the examples by name, as the examples do."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "examples"))


shards, fit_pieces, crowd = load("shards"), load("fit_pieces"), load("crowd")


@pytest.fixture(scope="module")
def people():
    """Twenty records."""
    model = BodyModel(open_body("low"))
    return crowd.make_people(model, KeypointRegressor("openpose25", model.data), 20, seed=0)


@pytest.fixture
def out(tmp_path):
    for folder in ("bodies", "rejected", "tries"):
        (tmp_path / "out" / folder).mkdir(parents=True)
    return tmp_path / "out"


def fitter(out, **changes):
    settings = {"model": None, "detail": "low", "keypoint_set": "openpose25", "steps": 20, "batch": 8, "piece": 16}
    return fit_pieces.Fitter(fit_pieces.Settings(**{**settings, **changes}), str(out), "cpu")


def bodies(out):
    """Return the columns of all bodies, ordered by shard and row, and how many files they are in."""
    files = sorted((out / "bodies").iterdir())
    parts = [shards.read_columns(path) for path in files]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort((joined["row"], joined["shard"]))
    return {name: values[order] for name, values in joined.items()}, len(files)


# What a record may be.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": None}, "id: expected an integer or a string, got None"),
        ({"keypoints": np.zeros((24, 3))}, "keypoints: expected (25, 2) or (25, 3), got (24, 3)"),
        ({"keypoints": [[1.0, 2.0], [3.0]]}, "inhomogeneous"),
        ({"keypoints": None}, "keypoints: expected (25, 2)"),
        ({"keypoints": "text"}, "could not convert"),
        ({"keypoints": np.full((25, 2), np.nan)}, "none that is finite"),
        ({"keypoints": np.ones((25, 3))}, "two visible points or more, got 1"),
        ({"confidence": np.zeros(25)}, "two visible points or more, got 0"),
        ({"confidence": np.ones(24)}, "confidence: expected (25,), got (24,)"),
        ({"image_size": (640, 0)}, "image_size: expected width and height, got [640.0, 0.0]"),
        ({"image_size": (640, 480, 3)}, "image_size: expected width and height"),
    ],
)
def test_a_record_of_no_use_is_refused_with_its_reason(people, change, words):
    record = shards.Record("one", people["keypoints"][0])._replace(**change)
    with pytest.raises((ValueError, TypeError)) as caught:
        fit_pieces.check_record(3, record, 25)
    assert words in str(caught.value)


def test_points_may_come_flat_with_or_without_confidence_and_missing_ones_as_nan(people):
    points = people["keypoints"][0].astype(np.float64)
    whole = fit_pieces.check_record(3, shards.Record("one", points), 25)
    flat = fit_pieces.check_record(3, shards.Record("one", points.ravel().tolist()), 25)
    apart = fit_pieces.check_record(3, shards.Record("one", points[:, :2], points[:, 2]), 25)
    points[points[:, 2] == 0] = np.nan
    lost = fit_pieces.check_record(3, shards.Record("one", points[:, :2]), 25)
    assert 0 < (whole.confidence == 0).sum() < 25
    for other in (flat, apart, lost):
        assert_close(other.points, whole.points)
        assert_close(other.confidence, whole.confidence)
    assert whole.row == 3 and whole.image_size.isnan().all()


# Shards.


def test_columns_read_back_as_they_were_written(tmp_path):
    columns = {
        "id": np.array(["a", "long name", ""]),
        "row": np.arange(3),
        "loss": np.array([1.5, np.nan, -np.inf], np.float32),
        "pose": np.arange(18, dtype=np.float32).reshape(3, 3, 2),
    }
    for suffix in shards.SUFFIXES:
        for count in (3, 0):
            some = {name: values[:count] for name, values in columns.items()}
            shards.write_columns(tmp_path / f"file{suffix}", some)
            again = shards.read_columns(tmp_path / f"file{suffix}")
            assert again.keys() == some.keys()
            for name, values in some.items():
                np.testing.assert_array_equal(again[name], values)
                assert again[name].dtype.kind == values.dtype.kind
    plain = pq.read_table(tmp_path / "file.parquet")
    assert plain.schema.field("pose").type.storage_type == pa.list_(pa.float32(), 6), "others see lists of numbers"


def test_a_piece_is_read_from_the_row_groups_that_have_it(tmp_path, people):
    path = tmp_path / "people.parquet"
    table = pa.table({"id": list(range(20)), "keypoints": [values.tolist() for values in people["keypoints"]]})
    pq.write_table(table, path, row_group_size=6)
    assert shards.count_records(path) == 20
    for first, stop in ((0, 20), (5, 7), (6, 12), (13, 20), (0, 1)):
        records = shards.read_records(shards.Piece(str(path), first, stop))
        assert [record.id for record in records] == list(range(first, stop))
        np.testing.assert_array_equal(np.float32(records[0].keypoints), people["keypoints"][first])


def test_shards_of_no_use_are_refused_by_name_in_one_line(tmp_path, people):
    shards.write_columns(tmp_path / "good.parquet", people)
    whole = (tmp_path / "good.parquet").read_bytes()
    (tmp_path / "truncated.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "text.npz").write_text("nothing")
    pq.write_table(pa.table({"name": ["a"]}), tmp_path / "columns.parquet")
    np.savez(tmp_path / "columns.npz", keypoints=people["keypoints"])
    np.savez(tmp_path / "objects.npz", id=np.array([{}], object), keypoints=people["keypoints"][:1])
    for path in shards.list_shards(tmp_path):
        if path.stem != "good":
            with pytest.raises(ValueError, match=path.name) as caught:
                shards.count_records(path)
            assert "\n" not in str(caught.value)
    # The end of the file, which tells the counts, is whole, but what it counts is not.
    (tmp_path / "inside.parquet").write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    assert shards.count_records(tmp_path / "inside.parquet") == 20
    with pytest.raises(ValueError, match="inside.parquet"):
        shards.read_records(shards.Piece(str(tmp_path / "inside.parquet"), 0, 20))
    np.savez(tmp_path / "lengths.npz", id=np.arange(3), keypoints=people["keypoints"][:2])
    with pytest.raises(ValueError, match="columns of one length"):
        shards.read_records(shards.Piece(str(tmp_path / "lengths.npz"), 0, 3))


def test_a_piece_is_done_when_each_of_its_records_is_there_once(out):
    piece = shards.Piece("many/a.npz", 4, 8)

    def count(rows, rejected=()):
        lines = [fit_pieces.rejection(piece.shard, row, "x", "why") for row in rejected]
        shards.write_rejected(piece, out, lines)
        shards.write_columns(piece.bodies(out), {"row": np.array(rows)})
        return shards.count_done(piece, out)

    assert shards.count_done(piece, out) is None
    assert count([4, 5, 6, 7]) == (4, 0)
    assert count([5, 7], [4, 6]) == (2, 2)
    assert count([4, 5, 6]) is None, "one is lost"
    assert count([4, 5, 6, 7], [7]) is None, "one is there twice"
    assert count([3, 4, 5, 6]) is None
    assert count([4, 5, 6, 7]) == (4, 0), "what had been rejected is forgotten"
    piece.bodies(out).write_bytes(piece.bodies(out).read_bytes()[:50])
    assert shards.count_done(piece, out) is None


# The worker.


def test_bodies_explain_their_keypoints_and_stand_where_the_image_shows_them(tmp_path, out, people):
    shards.write_columns(tmp_path / "people.parquet", people)
    piece = shards.Piece(str(tmp_path / "people.parquet"), 0, 20)
    worker = fitter(out, steps=200)
    assert worker.work(piece) == (20, "")
    columns, _ = bodies(out)
    found = {name: torch.from_numpy(values) for name, values in columns.items() if values.dtype.kind != "U"}
    params = {name: found[name] for name in ("betas", "global_orient", "body_pose", "transl")}
    camera = WeakPerspectiveCamera(found["camera_scale"], found["camera_translation"])
    points = worker.model.keypoints(worker.regressor, **params)
    seen = torch.from_numpy(people["keypoints"])
    errors = (camera.project(points) - seen[..., :2]).norm(dim=-1)
    visible = seen[..., 2] > 0
    assert_close(found["visible"], visible.sum(-1))
    assert_close(found["error_mean"], (errors * visible).sum(-1) / visible.sum(-1), atol=1e-3, rtol=1e-4)
    assert_close(found["error_max"], (errors * visible).amax(-1), atol=1e-3, rtol=1e-4)
    assert found["error_mean"].mean() < 5
    # Where a weak-perspective camera is exact: at the plane of the body's origin.
    assert_close(found["camera_focal"], torch.full((20,), 800.0))
    origin = 800 * found["camera_transl"][:, :2] / found["camera_transl"][:, 2:] + torch.tensor([320.0, 240.0])
    assert_close(origin, camera.translation, atol=1e-2, rtol=1e-4)
    assert columns["id"].tolist() == people["id"].tolist() and columns["row"].tolist() == list(range(20))


def test_parquet_and_npz_give_the_same_and_the_cut_does_not_matter(tmp_path, people):
    results = []
    for suffix, size in ((".parquet", 20), (".npz", 20), (".npz", 7)):
        out = tmp_path / f"{suffix[1:]}{size}"
        for folder in ("bodies", "rejected", "tries"):
            (out / folder).mkdir(parents=True)
        shard = tmp_path / f"people{suffix}"
        shards.write_columns(shard, people)
        for first in range(0, 20, size):
            fitter(out).work(shards.Piece(str(shard), first, min(first + size, 20)))
        results.append(bodies(out))
    assert [count for _, count in results] == [1, 1, 3]
    for columns, _ in results[1:]:
        for name in columns.keys() - {"shard"}:
            if columns[name].dtype.kind == "f":
                np.testing.assert_allclose(columns[name], results[0][0][name], atol=1e-4, rtol=1e-4, err_msg=name)
            else:
                assert columns[name].tolist() == results[0][0][name].tolist()


def test_a_piece_without_a_record_of_use_is_done_all_the_same(tmp_path, out, people):
    points = people["keypoints"][:3].copy()
    points[0] = np.nan
    points[1, :, 2] = 0
    points[2] = np.where(points[2] > 0, 3e38, -3e38)  # finite, unlike their box
    np.savez(tmp_path / "none.npz", id=np.arange(3), keypoints=points)
    piece = shards.Piece(str(tmp_path / "none.npz"), 0, 3)
    assert fitter(out).work(piece) == (3, "")
    assert shards.count_done(piece, out) == (0, 3)
    lines = [json.loads(line) for line in piece.rejected(out).read_text().splitlines()]
    assert [(line["shard"], line["row"], line["id"]) for line in lines] == [("none.npz", k, str(k)) for k in range(3)]
    assert all(line["reason"].startswith("keypoints: ") for line in lines)
    assert bodies(out)[0]["body_pose"].shape == (0, 23, 3)


def test_a_piece_that_keeps_killing_its_worker_is_given_up(tmp_path, out, people, monkeypatch):
    shards.write_columns(tmp_path / "people.npz", people)
    piece, worker = shards.Piece(str(tmp_path / "people.npz"), 0, 8), fitter(out)

    def die(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(worker, "fit", die)
        for _ in range(fit_pieces.MOST_TRIES):
            with pytest.raises(MemoryError):
                worker.work(piece)
    done, error = worker.work(piece)
    assert done == 0 and "records 0 to 8 end their worker, 3 times" in error
    piece.tries(out).unlink()  # as the next run does
    assert worker.work(piece) == (8, "") and not piece.tries(out).exists()


def test_made_up_crowds_are_the_same_each_time_and_are_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(crowd, "SHARD", 30)
    model = BodyModel(open_body("low"))
    for folder in ("one", "other"):
        crowd.write_crowd(tmp_path / folder, 70, model, "openpose25")
    names = [path.name for path in shards.list_shards(tmp_path / "one")]
    assert names == ["made-00000.parquet", "made-00001.parquet", "made-00002.parquet"]
    assert [shards.count_records(tmp_path / "one" / name) for name in names] == [30, 30, 10]
    contents = [(tmp_path / "one" / name).read_bytes() for name in names]
    (tmp_path / "one" / names[1]).unlink()
    crowd.write_crowd(tmp_path / "one", 70, model, "openpose25")
    assert [(tmp_path / "one" / name).read_bytes() for name in names] == contents
    assert contents == [(tmp_path / "other" / name).read_bytes() for name in names] and contents[0] != contents[1]


# The whole.


@pytest.fixture
def main(monkeypatch):
    """The example's main function; what has nothing left to fit does not need Ray."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    spec = importlib.util.spec_from_file_location("fit_many_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda keypoints, out, *more: module.main(["--keypoints", str(keypoints), "--out", str(out), *QUICK, *more])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, people):
    """A folder of shards: one good, one of the other kind, one with records of no use, one cut off."""
    folder = tmp_path_factory.mktemp("mixed")
    crowd.write_crowd(folder, 150, BodyModel(open_body("low")), "openpose25")
    shards.write_columns(folder / "other.npz", people)
    points = [values.tolist() for values in people["keypoints"]]
    points[3], points[17] = points[3][:24], [[float("nan")] * 3] * 25
    pq.write_table(pa.table({"id": list(range(20)), "keypoints": points}), folder / "some.parquet")
    (folder / "zcut.parquet").write_bytes((folder / "some.parquet").read_bytes()[:-20])
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, mixed):
    """What a worker makes of the folder in this process."""
    out = tmp_path_factory.mktemp("undisturbed")
    for folder in ("bodies", "rejected", "tries"):
        (out / folder).mkdir()
    worker = fitter(out, batch=16)
    for name, count in (("made-00000.parquet", 150), ("other.npz", 20), ("some.parquet", 20)):
        for first in range(0, count, 16):
            worker.work(shards.Piece(str(mixed / name), first, min(first + 16, count)))
    return out


def test_a_finished_run_has_nothing_to_do_and_counts_what_is_there(main, undisturbed, mixed, capsys):
    files = {path: path.stat().st_mtime_ns for path in (undisturbed / "bodies").iterdir()}
    assert main(mixed, undisturbed) == 1
    printed = capsys.readouterr()
    assert "0 records in 0 s; 188 fitted, 2 rejected, 0 left" in printed.out
    assert "zcut.parquet: cannot be read" in printed.err
    assert {path: path.stat().st_mtime_ns for path in (undisturbed / "bodies").iterdir()} == files
    lines = [json.loads(line) for line in (undisturbed / "rejected.jsonl").read_text().splitlines()]
    by_key = {(line["shard"], line["row"]): line for line in lines}
    assert by_key.keys() == {("some.parquet", 3), ("some.parquet", 17), ("zcut.parquet", None)}
    assert by_key["some.parquet", 3]["id"] == "3"
    assert "(25, 3), got (24, 3)" in by_key["some.parquet", 3]["reason"]
    manifest = json.loads((undisturbed / "manifest.json").read_text())
    assert manifest["shards"]["some.parquet"] == {"fitted": 18, "rejected": 2, "left": 0}
    for limit, count in ((1, 16), (16, 16), (17, 32), (150, 150), (151, 166)):
        assert main(mixed, undisturbed, "--limit", str(limit)) == 1
        assert f"0 records in 0 s; {count} fitted, 0 rejected, 0 left" in capsys.readouterr().out


def test_what_cannot_be_started_ends_with_status_2_and_one_line(main, undisturbed, mixed, tmp_path, capsys):
    main(mixed, undisturbed)
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    for keypoints, arguments, words in (
        (mixed, ("--steps", "30"), "steps 20; choose another folder"),
        (mixed, ("--batch", "0"), "--batch: expected 1 or more"),
        (mixed, ("--keypoint-set", "nobody"), "nobody"),
        (mixed, ("--model", "absent.pkl"), "absent.pkl"),
        (tmp_path / "empty", (), "expected .parquet or .npz files"),
        (tmp_path / "absent", (), "expected a folder of shards"),
    ):
        assert main(keypoints, undisturbed, *arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.count("\n") == 1 and words in printed.err


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs pip install "physique[scale]"')
def test_nothing_is_lost_or_twice_when_a_worker_and_then_the_driver_are_killed(main, undisturbed, mixed, tmp_path):
    out = tmp_path / "new" / "folder"
    options = ["--keypoints", str(mixed), "--out", str(out), *QUICK, "--workers", "2"]
    run = subprocess.Popen([sys.executable, str(EXAMPLE), *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_for_files(run, out, 1)
        worker = next(
            pid for pid, name in descendants(run.pid) if name.startswith("ray::MapWorker(MapBatches(Fitter))")
        )
        os.kill(worker, signal.SIGKILL)
        wait_for_files(run, out, 4)
    finally:
        run.kill()
        run.communicate()
    assert len(list((out / "bodies").glob("[!.]*"))) < 14, "killed before the end"

    again = subprocess.run([sys.executable, str(EXAMPLE), *options], capture_output=True, text=True)
    assert again.returncode == 1 and "zcut.parquet: cannot be read" in again.stderr, again.stderr
    assert "going on: " in again.stdout and "188 fitted, 2 rejected, 0 left" in again.stdout
    main(mixed, undisturbed)
    expected, files = bodies(undisturbed)
    columns, files_again = bodies(out)
    assert files_again == files == 14 and columns.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(columns[name], values, err_msg=name)
    for name in ("manifest.json", "rejected.jsonl"):
        assert (out / name).read_text() == (undisturbed / name).read_text()
    assert not list(out.rglob("*.partial")) and not list((out / "tries").iterdir())


def wait_for_files(run, out, count):
    """Wait until so many pieces are done."""
    end = time.monotonic() + 60
    while len(list((out / "bodies").glob("[!.]*"))) < count:
        assert run.poll() is None and time.monotonic() < end
        time.sleep(0.02)


def descendants(root):
    """Return the process ids below one, and their names."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], check=True, capture_output=True, text=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    below = {root}
    for _ in range(5):
        below |= {int(pid) for pid, parent, _ in rows if int(parent) in below}
    return [(int(pid), name) for pid, _, name in rows if int(pid) in below]
