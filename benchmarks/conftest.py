"""One thread for everybody, and the table of ratios at the end of the run."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

TABLES: dict[str, list] = {}


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def report():
    """Return a function that takes a title and a measured ratio, to be shown when all is done."""
    return lambda title, ratio: TABLES.setdefault(title, []).append(ratio)


def pytest_terminal_summary(terminalreporter):
    from paired import table

    for title, ratios in TABLES.items():
        terminalreporter.write_line("")
        terminalreporter.write_line(table(title, ratios))
