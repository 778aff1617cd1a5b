"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import physique
import pytest
import torch

ROOT = Path(physique.__file__).parent
PACKAGES = [path.parent for path in sorted(ROOT.glob("*/__init__.py"))]
MODULES = [
    f"physique.{package.name}.{module.name}" for package in PACKAGES for module in pkgutil.iter_modules([str(package)])
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    if name.startswith("physique.bodymodel.triton_"):
        pytest.importorskip("triton", reason="Triton is not installed: pip install triton")
    module = importlib.import_module(name)
    results = doctest.testmod(module, extraglobs={"torch": torch}, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


def test_there_are_modules_to_look_at():
    assert len(MODULES) > 10
