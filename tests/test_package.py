"""The package as a whole: its version, its layers, and what importing it costs."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import physique
import pytest

ROOT = Path(physique.__file__).parent
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
LAYERS = {
    "geometry": 0,
    "bodymodel": 1,
    "cameras": 1,
    "losses": 2,
    "priors": 2,
    "fitting": 3,
    "regressors": 3,
    "testing": 4,
}


def modules_loaded_by(statement, after="import sys"):
    code = f"{after}; import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_version_is_the_one_in_pyproject():
    assert re.search(rf'^version = "{re.escape(physique.__version__)}"$', (ROOT / "pyproject.toml").read_text(), re.M)


def test_types_are_shipped():
    assert (ROOT / "py.typed").is_file()


def test_every_package_is_in_the_wheel():
    listed = re.search(r"^packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.M | re.S)
    assert set(re.findall(r'"physique\.(\w+)"', listed.group(1))) == set(PACKAGES)


def test_importing_physique_alone_is_light():
    assert not {"torch", "numpy", "scipy", "roma"} & modules_loaded_by("import physique")


def test_optional_and_heavy_packages_wait_until_needed():
    """Only the strategies of `physique.testing` need one, hypothesis, and they are imported when first asked for."""
    optional = {"matplotlib", "tqdm", "trimesh", "smplx", "hypothesis", "beartype", "pytest"}
    heavy = {"scipy.optimize", "scipy.stats", "scipy.spatial", "scipy.signal"}
    names = ", ".join(f"physique.{package}" for package in PACKAGES)
    assert not (optional | heavy) & modules_loaded_by(f"import {names}", after="import torch")


def test_layers_import_only_layers_below():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                other = imported_package(node, len(path.relative_to(ROOT).parts))
                assert other in (None, package) or LAYERS[other] < LAYERS[package], f"{path} imports {other}"


def imported_package(node, depth):
    """Return the subpackage that an import statement of a file `depth` levels below the root names, if any."""
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        if node.level == depth:
            return module.split(".")[0] or None
        if module.startswith("physique."):
            return module.split(".")[1]
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.startswith("physique."):
                return alias.name.split(".")[1]
    return None


@pytest.mark.parametrize("package", PACKAGES)
def test_init_lists_public_names_and_nothing_else(package):
    body = ast.parse((ROOT / package / "__init__.py").read_text()).body
    assert isinstance(body[0], ast.Expr), "one docstring line first"
    if package == "testing":  # strategies need an optional package, so they are imported when first asked for
        assert any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in body)
        body = [body[0], *(node for node in body if isinstance(node, ast.ImportFrom) and node.level)]
    for node in body[1:]:
        assert isinstance(node, ast.ImportFrom) and node.level == 1
        assert all(alias.asname == alias.name for alias in node.names), "public names read `X as X`"


@pytest.mark.parametrize("module", [m.name for m in pkgutil.walk_packages([str(ROOT)], "physique.") if m.ispkg])
def test_every_package_imports(module):
    assert importlib.import_module(module).__doc__
