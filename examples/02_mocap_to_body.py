"""Turn motion capture into a body: a .bvh or .amc file in; an animated mesh, its parameters and a picture out.

Writes DIR/NAME.glb, DIR/NAME.npz and DIR/NAME.png. Also reads .npz files of joint positions: arrays `clip_<name>`
(T, N, 3) in metres and `joint_names`. Needs `pip install "physique[viz,io]"`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from drawing import rasterise
from mocap import Clip, fit_clip, read_clips
from physique.bodymodel import BodyModel, load_body_model, open_body, save_animation, segment_scale_model
from physique.fitting import Solution
from physique.geometry import vertex_normals

SHOWN, PIXELS, DPI = 8, 420, 110
CAPTURED = "#e8590c"


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, and return the exit status: 2 with one line on stderr where the input is of no use."""
    options = parse_options(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        data = open_body(options.detail) if options.model is None else load_body_model(options.model)
        model = BodyModel(segment_scale_model(data) if options.scales else data)
        clips = read_clips(options.motion, fps=options.fps, unit=options.unit)
        if options.clip is not None and options.clip not in clips:
            raise ValueError(f"--clip: expected one of {', '.join(clips)}, got {options.clip}; check the name")
        for name, clip in clips.items():
            if options.clip in (None, name):
                convert(name, clip, model, options.out)
    except (OSError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    print(f"written to {options.out}: .glb, .npz and .png of each clip")
    return 0


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--motion", required=True, type=Path, metavar="FILE", help=".bvh, .amc (with its .asf) or .npz")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for the results")
    parser.add_argument("--clip", metavar="NAME", help="which clip of an .npz; default: all")
    parser.add_argument("--fps", type=float, default=30.0, help="of the result and of .npz (default: %(default)s)")
    parser.add_argument("--unit", type=float, metavar="METRES", help="of a .bvh file, which does not tell its unit")
    parser.add_argument("--scales", action="store_true", help="fit a scale for each segment instead of betas")
    parser.add_argument("--model", metavar="PATH", help="official SMPL, SMPL-H, SMPL-X or STAR file; default: built in")
    parser.add_argument("--detail", choices=("full", "low"), default="full", help="of the built-in body")
    return parser.parse_args(arguments)


def convert(name: str, clip: Clip, model: BodyModel, folder: Path) -> None:
    """Fit one clip, write the three files and print a line."""
    solution = fit_clip(model, clip)
    save_animation(folder / f"{name}.glb", model, solution.params, fps=clip.fps)
    np.savez(
        folder / f"{name}.npz",
        fps=clip.fps,
        residuals=solution.residuals.numpy(),
        status=solution.status.numpy(),
        **{key: value.numpy() for key, value in solution.params.items()},
    )
    draw(folder / f"{name}.png", name, model, solution, clip)
    count = int((~solution.residuals[0].isnan()).sum())
    error = 1000 * solution.residuals.nanmean().item()
    print(f"{name}: {len(clip.joints)} frames, {count} joints, {error:.1f} mm off on average")


def draw(path: Path, name: str, model: BodyModel, solution: Solution, clip: Clip) -> None:
    """Write a row of frames, seen along the z axis of the capture, with the captured points."""
    length = len(clip.joints)
    frames = torch.linspace(0, length - 1, min(SHOWN, length)).round().long()
    with torch.no_grad():
        vertices = model(**{key: value[frames] for key, value in solution.params.items()}).vertices
    points = clip.joints[frames][:, clip.weights > 0]
    middle = vertices.mean(1, keepdim=True)
    down = vertices.new_tensor([1.0, -1.0, -1.0])  # y up to y down, z to the viewer to z away
    bodies, dots = (vertices - middle) * down, (points - middle) * down
    half = 1.05 * bodies[..., :2].abs().amax(1)  # of each frame: (frames, 2)
    half[:, 1] = half[:, 1].max()
    scale = PIXELS / (2 * half[0, 1])
    widths = [int(width) + 1 for width in (2 * scale * half[:, 0]).tolist()]
    faces = model.faces
    figure, axes = plt.subplots(
        1,
        len(frames),
        squeeze=False,
        dpi=DPI,
        figsize=(sum(widths) / DPI + 0.1 * len(frames), PIXELS / DPI + 0.5),
        width_ratios=widths,
        layout="constrained",
    )
    for axis, frame, width, corner, body, dot in zip(axes[0], frames.tolist(), widths, half, bodies, dots, strict=True):
        placed = (body + torch.cat((corner, corner.new_zeros(1)))) * scale
        normals = vertex_normals(body, faces)
        axis.imshow(rasterise(placed.numpy(), normals.numpy(), faces.numpy(), width, PIXELS))
        axis.scatter(
            *((dot[:, :2] + corner) * scale).T.numpy(), s=14, color=CAPTURED, edgecolors="white", linewidths=0.5
        )
        axis.set_title(f"{frame / clip.fps:.2f} s", fontsize=9)
        axis.axis("off")
    figure.suptitle(f"{name}: fitted body, captured joints in orange", fontsize=10)
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
