"""Draw a run: how many times faster than smplx each library is, over the batch size."""

from __future__ import annotations

import re
from pathlib import Path

from libraries import OURS, SMPLX
from results import Run

TITLES = {"vertices": "all vertices", "joints": "24 joints", "keypoints": "19 keypoints", "points": "500 vertices"}
ROW = re.compile(rf"^SMPL (?P<quantity>{'|'.join(TITLES)}) (?P<kind>fwd|fwd\+bwd) B=(?P<bodies>\d+)$")
COLORS = {OURS: "#c2410c", "smplfitter": "#2563eb", "body-models": "#6b7280"}
STYLES = {"fwd": "-", "fwd+bwd": "--"}


def draw(run: Run, path: Path) -> None:
    """Write the picture: a panel a quantity, solid forward, dashed forward and backward."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = speed_lines(run)
    figure, axes = pyplot.subplots(1, len(TITLES), figsize=(13, 3.4), layout="constrained")
    for axis, (quantity, title) in zip(axes, TITLES.items(), strict=True):
        for (which, kind, library), points in lines.items():
            if which == quantity:
                bodies, speeds = zip(*sorted(points), strict=True)
                label = library if kind == "fwd" else None
                axis.plot(bodies, speeds, STYLES[kind], color=COLORS[library], marker="o", markersize=3, label=label)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set(xscale="log", yscale="log", title=title, xlabel="bodies in the batch")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("times as fast as smplx")
    handles = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    axes[0].legend(handles.values(), handles.keys(), frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def speed_lines(run: Run) -> dict[tuple[str, str, str], list[tuple[int, float]]]:
    """Return, for quantity, kind of pass and library, the batch sizes with how many times as fast as smplx it is."""
    lines: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for row in run.results:
        found = ROW.match(row.name)
        if found is None or SMPLX not in row.values:
            continue
        for library, value in row.values.items():
            if library != SMPLX:
                key = (found["quantity"], found["kind"], library)
                lines.setdefault(key, []).append((int(found["bodies"]), row.values[SMPLX] / value))
    return lines
