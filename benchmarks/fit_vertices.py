"""Measure `fit_vertices` on the model's own vertices: error and time, beside smplfitter's where that is installed.

`python benchmarks/fit_vertices.py` prints the table and ends with status 1 when a promise is not kept. smplfitter reads
the same built-in body, written for it as a SMPL file, in the same process; without it only our own figures are shown.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from paired import measure
from physique.bodymodel import BodyModel, open_body, save_body_model
from physique.fitting import fit_vertices
from torch import Tensor

MOST_MM = 1.0
# The peer's rounds of pose and shape in turn: its default, and more.
PEER_ITERATIONS = (1, 2, 3, 5)
# Batches from this size on are promised not to be slower than any setting of the peer, at no larger error.
BATCH = 32
ROUNDS, BUDGET_S = (5, 9), 20.0
SPREAD = 0.35  # radians, of every joint


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 1 when a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", default=(1, 32), type=int, nargs="+", help="batch sizes (default: 1 32)")
    parser.add_argument("--detail", choices=("full", "low"), default="full", help="of the built-in body")
    options = parser.parse_args(arguments)
    model = BodyModel(open_body(options.detail))
    peer = make_peer(model)
    print(f"{model.data.num_vertices} vertices; process time of one core, medians of rounds in turn")
    print(f"{'':24}{'mean mm':>9}{'max mm':>9}{'ms a body':>11}{'peer ms / ours':>16}")
    kept = True
    for count in options.bodies:
        target = make_bodies(model, count)
        distances = 1000 * fit_vertices(model, target).residuals
        error = float(distances.mean())
        kept = kept and error <= MOST_MM
        fits = {"ours": partial(fit_vertices, model, target)}
        if peer is not None:
            fits |= {str(each): partial(peer.fit, target, each) for each in PEER_ITERATIONS}
        times = measure(fits, budget=BUDGET_S, rounds=ROUNDS)
        line(f"fit_vertices, {count}", distances, times.seconds["ours"].median / count)
        for iterations in PEER_ITERATIONS if peer is not None else ():
            name, theirs = str(iterations), peer.fit(target, iterations)
            distances = 1000 * (peer.vertices(theirs) - target).norm(dim=-1)
            ratio = times.ratios[name].median
            line(f"smplfitter x{iterations}, {count}", distances, times.seconds[name].median / count, ratio)
            kept = kept and float(distances.mean()) >= error and (ratio >= 1 or count < BATCH)
    return 0 if kept else 1


def line(name: str, millimetres: Tensor, seconds: float, ratio: float | None = None) -> None:
    """Print the figures of one fit."""
    text = f"{name:24}{float(millimetres.mean()):9.3f}{float(millimetres.max()):9.3f}{1000 * seconds:11.2f}"
    print(text + ("" if ratio is None else f"{ratio:15.2f}x"), flush=True)


def make_bodies(model: BodyModel, count: int) -> Tensor:
    """Return the vertices (count, V, 3) of bodies in random poses, shapes and places."""
    generator = torch.Generator().manual_seed(count)
    pose = SPREAD * torch.randn(count, 24, 3, generator=generator)
    betas = torch.randn(count, model.data.num_betas, generator=generator)
    transl = torch.randn(count, 3, generator=generator)
    with torch.no_grad():
        return model(betas=betas, global_orient=pose[:, 0], body_pose=pose[:, 1:], transl=transl).vertices


class Peer:
    """smplfitter with a model of its own, read from files that we wrote."""

    def __init__(self, model: BodyModel) -> None:
        from smplfitter.pt import BodyFitter
        from smplfitter.pt import BodyModel as PeerModel

        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            save_body_model(model.data, root / "body.npz")
            with np.load(root / "body.npz") as saved:
                arrays = {name: saved[name] for name in saved.files if saved[name].dtype.kind in "iuf"}
            with (root / "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl").open("wb") as file:
                pickle.dump(arrays, file)
            np.save(root / "kid_template.npy", np.zeros_like(arrays["v_template"]))
            self.model = PeerModel("smpl", "neutral", model_root=str(root))
        self.fitter = BodyFitter(self.model)

    @torch.no_grad()
    def fit(self, target: Tensor, iterations: int) -> dict[str, Tensor]:
        """Return the parameters after some iterations, without a prior on betas, which would only add to its error."""
        keys = ["pose_rotvecs", "shape_betas", "trans"]
        return self.fitter.fit(target, num_iter=iterations, beta_regularizer=0, requested_keys=keys)

    @torch.no_grad()
    def vertices(self, params: dict[str, Tensor]) -> Tensor:
        """Return the vertices (B, V, 3) of its parameters."""
        return self.model(**{name: params[name] for name in ("pose_rotvecs", "shape_betas", "trans")})["vertices"]


def make_peer(model: BodyModel) -> Peer | None:
    """Return the peer, or None where it is not installed."""
    try:
        return Peer(model)
    except ImportError:
        return None


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
