"""Compare bodies drawn from the shipped assets with ANSUR II."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from .ansur import Population, stored_statistics
from .measure import ANSUR_COLUMNS, measure
from .packing import dense_rows

BODIES = 2000
SEED = 0


def measured(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Measure 2,000 bodies with betas ~ N(0, 1) over the packed `arrays`; each value (2000,)."""
    template = arrays["v_template"].astype(np.float64)
    directions = arrays["shapedirs"] * arrays["shapedirs_scale"].astype(np.float64)
    regressor = sparse.csr_matrix(dense_rows(arrays, "J_regressor", len(template)))
    ids = dict(zip(arrays["vertex_names"].tolist(), arrays["vertex_ids"].tolist(), strict=True))
    faces = arrays["faces"].astype(np.int64)
    found = []
    for betas in np.random.default_rng(SEED).standard_normal((BODIES, directions.shape[-1])):
        vertices = template + directions @ betas
        found.append(measure(vertices, regressor @ vertices, faces, ids))
    return {name: np.array([one[name] for one in found]) for name in ANSUR_COLUMNS}


def table(assets: dict[str, dict[str, np.ndarray]], real: Population | None = None) -> str:
    """Return a Markdown table: ANSUR II against each asset, mean ± SD, metres and kilograms."""
    real = real or stored_statistics()
    found = {name: measured(arrays) for name, arrays in assets.items()}
    head = ["measure", "ANSUR II"] + [column for name in found for column in (name, "mean off", "SD off")]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for k, name in enumerate(real.names):
        if name not in ANSUR_COLUMNS:
            continue
        cells = [name, f"{real.mean[k]:.4g} ± {real.sd[k]:.3g}"]
        for values in found.values():
            mean, sd = values[name].mean(), values[name].std()
            cells += [f"{mean:.4g} ± {sd:.3g}", f"{mean / real.mean[k] - 1:+.1%}", f"{sd / real.sd[k] - 1:+.1%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
