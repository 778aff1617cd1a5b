"""Run all the steps from the MakeHuman data to the arrays of both assets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import sparse

from . import packing
from .ansur import COLUMNS, Population, stored_statistics
from .decimate import decimate
from .landmarks import named_vertices
from .makehuman import MakeHuman
from .measure import ANSUR_COLUMNS, measure, measure_further
from .population import Factors, body, random_factors
from .regressors import anchors, joint_regressor
from .rig import JOINT_MIRROR, JOINT_NAMES, joint_operator, skin_weights
from .shape_space import shape_space
from .topology import ClosedMesh, closed_mesh
from .tpose import t_pose

SEED = 20240607
SAMPLES = 600
DIRECTIONS = 16
RESIDUALS = 24
RESIDUAL_SPREAD = 0.8
CALIBRATION_ROUNDS = 8
CALIBRATION_BODIES = 600
REGRESSOR_DIRECTIONS = 24
DECIMETRES = 0.1
LOW_VERTICES = 2000
LOW_IMPORTANCE = (
    (("left_hand", "right_hand"), 12.0),
    (("left_wrist", "right_wrist"), 5.0),
    (("head",), 4.0),
    (("left_foot", "right_foot"), 3.0),
)
"""Joints whose vertices the decimation values more, so that fingers, face and toes remain."""


class Bodies:
    """MakeHuman bodies on the closed mesh, in the T-pose and in metres."""

    def __init__(self, source: MakeHuman):
        """Prepare mesh, weights and joints, the same for every body."""
        self.source = source
        self.mesh: ClosedMesh = closed_mesh(source)
        weights = self.mesh.merge @ skin_weights(source)
        self.weights = 0.5 * (weights + weights[self.mesh.mirror][:, JOINT_MIRROR])
        self._joints = joint_operator(source)
        self._knuckles = [[source.cube(f"{side}-finger-{k}-1") for k in (2, 3, 5)] for side in "lr"]

    def __call__(self, factors: Factors) -> tuple[np.ndarray, np.ndarray]:
        """Return vertices (V, 3) and joints (24, 3) of one body."""
        vertices = body(self.source, factors)
        knuckles = np.array([[vertices[corners].mean(axis=0) for corners in side] for side in self._knuckles])
        posed, joints = t_pose(self.mesh.place @ vertices, self._joints @ vertices, knuckles, self.weights)
        return DECIMETRES * posed, DECIMETRES * joints


def build(source: MakeHuman, say: Callable[[str], None] = lambda _: None) -> dict[str, dict[str, np.ndarray]]:
    """Return the arrays of the assets, by file name."""
    bodies = Bodies(source)
    mirror, faces, count = bodies.mesh.mirror, bodies.mesh.faces, len(bodies.mesh.mirror)
    say(f"mesh: {count} vertices, {len(faces)} faces")

    rng = np.random.default_rng(SEED)
    drawn = [random_factors(rng, male=bool(k % 2)) for k in range(SAMPLES)]
    samples = [bodies(factors) for factors in drawn]
    points = np.stack([np.concatenate(sample).ravel() for sample in samples])
    middle = points.mean(axis=0).reshape(-1, 3)
    ids = named_vertices(source, bodies.mesh, middle[:count], middle[count:])
    say(f"sampled {SAMPLES} bodies")

    # a first, uncalibrated shape space is what the joint regressor is fitted on; from then on J = regressor @ v holds
    sex = np.array([[2.0 * factors.male - 1.0] for factors in drawn])
    mean, directions = _first_space(points, count)
    regressor = joint_regressor(mean[:count], directions[:count], mean[count:], directions[count:], mirror)
    say("fitted the joint regressor")
    ruler = Ruler(regressor, faces, ids)
    mean, directions = _calibrated(points[:, : 3 * count], sex, ruler, say)
    shape = packing.quantised_shape(mean - regressor[0] @ mean, directions, mirror)
    weights = packing.packed_weights(bodies.weights, mirror)
    full = packing.asset(shape, faces, mirror, weights, regressor, anchors(regressor, ids), ids)
    low = _low(full, bodies.weights, ids)
    say(f"low: {len(low['v_template'])} vertices, {len(low['faces'])} faces")
    return {"open_body.npz": full, "open_body_low.npz": low}


def _low(full: dict[str, np.ndarray], weights: np.ndarray, ids: dict[str, int]) -> dict[str, np.ndarray]:
    """Decimate the full asset: vertices, directions and weights are a subset; the joint regressor is fitted anew."""
    template = full["v_template"].astype(np.float64)
    directions = full["shapedirs"] * full["shapedirs_scale"].astype(np.float64)
    mirror = full["vert_sym_idxs"].astype(np.int64)
    importance = 1.0 + sum(
        share * weights[:, [JOINT_NAMES.index(name) for name in names]].sum(axis=1) for names, share in LOW_IMPORTANCE
    )
    # the lowest vertex carries the sole, from which heights are measured
    keep = {*ids.values(), int(template[:, 1].argmin())}
    faces = full["faces"].astype(np.int64)
    kept, faces = decimate(template, faces, mirror, weights, importance, keep, LOW_VERTICES)
    new_mirror = np.searchsorted(kept, mirror[kept])
    new_ids = {name: int(np.searchsorted(kept, k)) for name, k in ids.items()}
    joints = packing.dense_rows(full, "J_regressor", len(template))
    regressor = joint_regressor(
        template[kept],
        directions[kept],
        joints @ template,
        np.einsum("jv,vcs->jcs", joints, directions),
        new_mirror,
    )
    shape = {"v_template": full["v_template"][kept], "shapedirs": full["shapedirs"][kept]}
    # x stays untouched, or symmetry would no longer be exact
    shift = np.r_[0.0, (regressor[0] @ template[kept])[1:]]
    shape["v_template"] = (template[kept] - shift).astype(np.float32)
    return packing.asset(
        {**shape, "shapedirs_scale": full["shapedirs_scale"]},
        np.searchsorted(kept, faces),
        new_mirror,
        {name: full[name][kept] for name in ("weights_index", "weights_value")},
        regressor,
        anchors(regressor, new_ids),
        new_ids,
    )


class Ruler:
    """Measures flattened bodies (N, V*3), a few at a time to save memory."""

    def __init__(self, regressor: np.ndarray, faces: np.ndarray, ids: dict[str, int]):
        """Remember what `measure` needs beside the vertices."""
        self._regressor, self._faces, self._ids = sparse.csr_matrix(regressor), faces, ids

    def __call__(self, bodies: np.ndarray) -> np.ndarray:
        """Return (N, M), columns as in `ansur.COLUMNS`."""
        rows = []
        for flat in bodies:
            vertices = flat.reshape(-1, 3)
            joints = self._regressor @ vertices
            found = measure(vertices, joints, self._faces, self._ids) | measure_further(vertices, joints, self._ids)
            rows.append([found[name] for name in COLUMNS])
        return np.array(rows)


def _first_space(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (V+24, 3) and principal directions (V+24, 3, S) of the sampled bodies as they are."""
    mean = points.mean(axis=0)
    centred = points - mean
    values, vectors = np.linalg.eigh(centred @ centred.T / len(points))
    leading = vectors[:, np.argsort(values)[::-1][:REGRESSOR_DIRECTIONS]]
    directions = leading.T @ centred / np.sqrt(len(points))
    return mean.reshape(-1, 3), directions.reshape(len(directions), -1, 3).transpose(1, 2, 0)


def _calibrated(points: np.ndarray, sex: np.ndarray, ruler: Ruler, say) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (V, 3) and directions (V, 3, S) whose sampled bodies measure as the population does.

    Weight is not linear in the shape, so the target is corrected by what sampled bodies turn out to measure.
    """
    wanted = real = stored_statistics()
    measures = np.concatenate([sex, ruler(points)], axis=1)
    half = np.linalg.qr(np.random.default_rng(SEED + 1).standard_normal((CALIBRATION_BODIES // 2, DIRECTIONS)))[0]
    betas = np.concatenate([half, -half]) * np.sqrt(len(half))
    claimed = np.array([name in ANSUR_COLUMNS for name in wanted.names])
    for _ in range(CALIBRATION_ROUNDS):
        mean, directions = shape_space(points, measures, wanted, claimed, DIRECTIONS, RESIDUALS, RESIDUAL_SPREAD)
        found = np.concatenate([ruler(mean + some @ directions) for some in np.array_split(betas, 20)])
        error, ratio = found.mean(axis=0) - real.mean[1:], found.std(axis=0) / real.sd[1:]
        mean_error, sd_error = np.abs(error / real.mean[1:])[claimed[1:]], np.abs(ratio - 1.0)[claimed[1:]]
        say(f"calibration: mean off by {mean_error.max():.2%}, SD by {sd_error.max():.2%}")
        factor = np.r_[1.0, np.where(claimed[1:], 1.0 / ratio, 1.0)]
        wanted = Population(wanted.names, wanted.mean - np.r_[0.0, error], wanted.covariance * np.outer(factor, factor))
    return mean.reshape(-1, 3), directions.reshape(DIRECTIONS, -1, 3).transpose(1, 2, 0)
