"""What the pages show runs, what they list exists, and what exists is listed."""

import json
import re
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import physique
import pytest
import smplx
import torch
from official_files import write_official_file
from physique.bodymodel import open_body

ROOT = Path(physique.__file__).parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md"]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))


def name_of(page):
    return str(page.relative_to(ROOT))


def blocks(page):
    """Return the Python blocks of a page, each behind as many empty lines as stand before it in the page."""
    text = page.read_text()
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S)
    return ["\n" * text[: match.start(1)].count("\n") + match.group(1) for match in found]


WITH_CODE = [page for page in PAGES if blocks(page)]


@pytest.fixture(scope="session")
def shown_files(tmp_path_factory):
    """The files that the pages name, in the official layouts and filled with random numbers."""
    folder = tmp_path_factory.mktemp("shown")
    for name, family, kind in (
        ("SMPL_NEUTRAL.pkl", "smpl", "pkl"),
        ("SMPLX_NEUTRAL.npz", "smplx", "npz"),
        ("MANO_RIGHT.pkl", "mano", "pkl"),
    ):
        write_official_file(folder, family, kind, num_vertices=300).rename(folder / name)
    (folder / "models" / "smplx").mkdir(parents=True)
    shutil.copy(folder / "SMPLX_NEUTRAL.npz", folder / "models" / "smplx" / "SMPLX_NEUTRAL.npz")
    for name, rows in (("J_regressor_h36m.npy", 17), ("J_regressor_extra.npy", 9)):
        regressor = np.zeros((rows, open_body().num_vertices))
        regressor[np.arange(rows), np.arange(rows)] = 1
        np.save(folder / name, regressor)
    people = [{"pose_keypoints_2d": [5.0, 6.0, 0.9] * 25}]
    (folder / "frame_000.json").write_text(json.dumps({"version": 1.3, "people": people}))
    shutil.copytree(ROOT / "examples" / "data", folder / "examples" / "data")
    return folder


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_every_block_runs(page, shown_files, tmp_path, monkeypatch):
    folder = tmp_path / "files"
    shutil.copytree(shown_files, folder)
    monkeypatch.chdir(folder)
    matplotlib.use("Agg")
    namespace = {"__name__": "__main__", "np": np, "smplx": smplx, "torch": torch}
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), namespace)


def test_the_readme_has_its_six_snippets():
    assert len(blocks(ROOT / "README.md")) >= 6


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_every_page_is_listed():
    listed = re.findall(r"\]\((\w+\.md)\)", (ROOT / "docs" / "README.md").read_text())
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md") if path.name != "README.md")


def test_the_picture_is_small_enough_to_load():
    assert 20_000 < (ROOT / "docs" / "images" / "fit.png").stat().st_size < 300_000


def test_the_map_of_the_house_lists_every_file_of_the_package_and_no_other():
    listed = re.findall(r"^\| `([\w/]+\.py)` \| .+ \|$", (ROOT / "docs" / "architecture.md").read_text(), re.M)
    assert len(listed) == len(set(listed))
    there = {"__init__.py", *(str(p.relative_to(ROOT)) for name in PACKAGES for p in (ROOT / name).rglob("*.py"))}
    new = [f"| `{name}` | {first_line(ROOT / name)} |" for name in sorted(there - set(listed))]
    assert not new, "lines to add to docs/architecture.md:\n" + "\n".join(new)
    assert not set(listed) - there, "listed in docs/architecture.md and gone"


def first_line(path):
    return path.read_text().split("\n", 1)[0].strip('".')
