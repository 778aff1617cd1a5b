import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "05_lift_2d.py"
LIFTERS = ("lifter", "dictionary", "denoiser")


def run(out, *arguments):
    command = [sys.executable, str(EXAMPLE), "--out", str(out), "--detail", "low", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def mocap(tmp_path_factory):
    out = tmp_path_factory.mktemp("lift") / "new" / "folder"
    return run(out, "--mocap", "--people", 4, "--steps", 60), out


def test_it_prints_the_errors_of_every_lifter(mocap):
    done, _ = mocap
    assert done.returncode == 0, done.stderr
    for name in LIFTERS:
        line = next(line for line in done.stdout.splitlines() if line.startswith(name))
        mean, *each = map(int, re.findall(r"\d+", line))
        assert len(each) == 4 and abs(mean - sum(each) / 4) <= 1
        assert mean < 130, "better than people without depth"


def test_the_depths_help_the_fit(mocap):
    found = re.findall(r"body fitted .+: PA-MPJPE (\d+) mm", mocap[0].stdout)
    without, with_depths = map(int, found)
    assert with_depths < 0.8 * without


def test_the_picture_has_keypoints_skeletons_and_bodies(mocap):
    picture = matplotlib.image.imread(mocap[1] / "lift.png")[..., :3]
    for colour in ((0.91, 0.35, 0.05), (0.09, 0.39, 0.67)):
        assert (np.abs(picture - colour).max(-1) < 0.1).sum() > 1000
    grey = np.ptp(picture, axis=-1) < 0.2
    assert (grey & (picture[..., 0] < 0.9)).mean() > 0.01, "shaded meshes"


def test_a_file_of_keypoints_is_lifted_in_its_pixels(tmp_path):
    done = run(tmp_path / "out", "--steps", 20)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out" / "lift.npz") as saved:
        seen = saved["confidence"] > 0
        assert saved["points_lifter"].shape == (2, 17, 3) and saved["points_denoiser"].shape == (2, 14, 3)
        height = np.ptp(np.where(seen, saved["keypoints"][..., 1], np.nan)[0][seen[0]])
        lifted = np.nanmax(saved["points_lifter"][0, :, 1]) - np.nanmin(saved["points_lifter"][0, :, 1])
        assert 0.6 * height < lifted < 1.01 * height
        depths = saved["depths"]
        assert 0.05 < np.nanmax(depths) - np.nanmin(depths) < 2, "metres"


def test_a_useless_file_is_refused_in_a_line(tmp_path):
    done = run(tmp_path / "out", "--keypoints", tmp_path / "none.json")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
