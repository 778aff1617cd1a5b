"""Train the priors that ship with the package on CMU's motion capture, and say how good they are on held-out clips.

    python tools/train_priors.py                       # trains all, writes priors/weights and the model card's figures
    python tools/train_priors.py --only gmm limits     # trains some
    python tools/train_priors.py --pool mine.safetensors --held-out walk run --out weights   # on a pool of your own
    python tools/train_priors.py --check               # judges the shipped weights again; exit 1 if figures differ
    python tools/train_priors.py --judge               # the same, and writes the figures that it found

One thread, so that a seed gives the same weights again on one machine and one version of PyTorch; fifteen minutes for
all. Each prior has a module in `training/` with `train` and `report`.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path

import torch
from physique.bodymodel import BodyModel, open_body
from physique.priors import PosePool, load_prior, save_prior
from training.card import differences, read_figures, write_figures
from training.pool import HELD_OUT, build_pool

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    "limits": "limits",
    "gmm": "mixture",
    "vae": "vae",
    "critic": "critic",
    "dictionary": "dictionary",
    "denoiser": "denoiser",
    "lifter": "lifter",
}
# Mixtures and dictionaries are small, and their energies amplify rounding.
FULL_PRECISION = {"limits", "gmm", "dictionary"}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mocap = ROOT.parent / "shared" / "data" / "mocap" / "cmu_joints_30fps.npz"
    parser.add_argument("--mocap", type=Path, default=mocap, help="an .npz of CMU clips: joint_names, clip_<name>")
    parser.add_argument("--pool", type=Path, help="a saved PosePool to use instead of fitting --mocap")
    parser.add_argument("--save-pool", type=Path, help="where to keep the pool that was fitted")
    parser.add_argument("--held-out", nargs="+", default=HELD_OUT, help="names of the clips to judge by")
    parser.add_argument("--only", nargs="+", choices=MODULES, default=list(MODULES), help="which priors")
    parser.add_argument("--out", type=Path, default=ROOT / "priors" / "weights", help="folder of weights and card")
    judging = parser.add_mutually_exclusive_group()
    judging.add_argument("--check", action="store_true", help="train and write nothing; judge what is there again")
    judging.add_argument("--judge", action="store_true", help="train nothing; write the figures of what is there")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    """Run the command line; return the exit status."""
    options = parse()
    torch.set_num_threads(1)
    body = BodyModel(open_body("low"))
    pool = PosePool.load(options.pool) if options.pool else build_pool(options.mocap, body)
    if options.save_pool:
        pool.save(options.save_pool)
    train, held = pool.split(options.held_out)
    print(
        f"{len(train)} poses of {len(train.clip_names)} clips to train on, {len(held)} of {len(held.clip_names)} held"
    )

    card = options.out / "MODEL_CARD.md"
    status = 0
    for name in options.only:
        module = import_module(f"training.{MODULES[name]}")
        path = options.out / f"{name}.safetensors"
        start = time.process_time()
        trains = not options.check and not options.judge
        if trains:
            options.out.mkdir(parents=True, exist_ok=True)
            prior = module.train(train, body, seed=options.seed)
            save_prior(prior, path, half=name not in FULL_PRECISION)
        seconds = time.process_time() - start
        # The figures are those of the file, rounded as it is.
        figures = module.report(load_prior(path), held, body, seed=options.seed)
        print(f"\n{name}: {path.stat().st_size / 1e6:.2f} MB" + (f", {seconds:.0f} s" if trains else ""))
        for figure, value in figures.items():
            print(f"  {value:10.4g}  {figure}")
        if options.check:
            found = differences(read_figures(card).get(name, {}), figures)
            print(f"  {'; '.join(found) or 'as in the model card'}")
            status |= bool(found)
        else:
            write_figures(card, name, figures)
    return status


if __name__ == "__main__":
    sys.exit(main())
