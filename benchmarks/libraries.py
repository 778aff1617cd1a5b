"""The libraries that are compared, behind one face: each with its own arguments and its own way to ask for less."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import pickle
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import physique
import torch
from physique.bodymodel import BodyModel, BodyModelData, KeypointRegressor, synthetic_model
from torch import Tensor

OURS, SMPLX, SMPLFITTER, BODY_MODELS = "physique", "smplx", "smplfitter", "body-models"
MODULES = {OURS: "physique", SMPLX: "smplx", SMPLFITTER: "smplfitter", BODY_MODELS: "body_models"}
QUANTITIES = ("vertices", "joints", "keypoints", "points")
VERTICES = {"smpl": 6890, "smplx": 10475}
NUM_KEYPOINTS, VERTICES_OF_A_KEYPOINT, NUM_POINTS = 19, 30, 500

Arguments = dict[str, Tensor]


class Bodies(NamedTuple):
    """What is posed: betas (B, 10), expression (B, 10) or None, and the axis-angle pose (B, J, 3) of all joints."""

    betas: Tensor
    expression: Tensor | None
    pose: Tensor


class Subject(NamedTuple):
    """A model, and what is asked of it beside all vertices and joints.

    Attributes:
        data: the model.
        regressor: (19, V) dense, 30 entries a row, of neighbours.
        points: (N,) vertices.
    """

    data: BodyModelData
    regressor: np.ndarray
    points: np.ndarray

    @property
    def used(self) -> np.ndarray:
        """Vertices that the regressor needs."""
        return np.flatnonzero(self.regressor.any(0))


class Library(NamedTuple):
    """A library with the model loaded.

    Attributes:
        leaves: makes its arguments; side by side they are betas, expression, and the pose in the order of the joints.
        functions: quantity to function of those arguments.
        model: what it loaded.
    """

    leaves: Callable[[Bodies], Arguments]
    functions: Mapping[str, Callable[[Arguments], Tensor]]
    model: torch.nn.Module


def installed() -> list[str]:
    """Return the names of the libraries that are here, ours first."""
    return [name for name, module in MODULES.items() if importlib.util.find_spec(module) is not None]


def versions() -> dict[str, str]:
    """Return the versions of the libraries that are here and of what they run on."""
    others = (*installed()[1:], "torch", "numpy")
    return {OURS: physique.__version__} | {name: version(name) for name in others}


def make_subject(family: str, num_points: int = NUM_POINTS, seed: int = 0) -> Subject:
    """Return a random model of a family's size: times do not depend on the numbers."""
    data = synthetic_model(family, num_vertices=VERTICES[family])
    random = np.random.default_rng(seed)
    regressor = np.zeros((NUM_KEYPOINTS, data.num_vertices))
    for row, middle in zip(regressor, random.choice(data.num_vertices, NUM_KEYPOINTS, replace=False), strict=True):
        # Like those of real regressors, a keypoint's vertices lie together, and so hang on few joints.
        distance = np.linalg.norm(data.v_template - data.v_template[middle], axis=-1)
        row[np.argsort(distance)[:VERTICES_OF_A_KEYPOINT]] = random.dirichlet(np.ones(VERTICES_OF_A_KEYPOINT))
    return Subject(data, regressor, random.choice(data.num_vertices, num_points, replace=False))


def make_bodies(subject: Subject, count: int, device: str = "cpu", seed: int = 0) -> Bodies:
    """Return random shapes and poses: N(0, 1) coefficients, N(0, 0.35) radians about each axis."""
    generator = torch.Generator().manual_seed(seed)
    pose = 0.35 * torch.randn(count, subject.data.num_joints, 3, generator=generator)
    betas, expression = torch.randn(2, count, 10, generator=generator)
    has_expression = len(subject.data.coefficients) > 1
    return Bodies(betas.to(device), expression.to(device) if has_expression else None, pose.to(device))


def make_library(name: str, subject: Subject, folder: Path, device: str = "cpu") -> Library:
    """Load a subject into a library; files that it wants go into `folder`."""
    make = {OURS: _ours, SMPLX: _smplx, SMPLFITTER: _smplfitter, BODY_MODELS: _body_models}[name]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return make(subject, folder, device)


def _ours(subject: Subject, folder: Path, device: str) -> Library:
    model = BodyModel(subject.data, device=device)
    regressor = KeypointRegressor(
        "hmr19", subject.data, regressor=subject.regressor, regressor_rows="set", device=device
    )
    keypoints = model.keypoint_bases(regressor)
    bases = model.vertex_bases(torch.as_tensor(subject.points, device=device))
    parts = {"smpl": {"body_pose": 23}, "smplx": {"body_pose": 21, "jaw_pose": 1, "leye_pose": 1, "reye_pose": 1}}
    sizes = {"global_orient": 1, **parts[subject.data.family]}
    if subject.data.family == "smplx":
        sizes |= {"left_hand_pose": 15, "right_hand_pose": 15}
    single = {"global_orient", "jaw_pose", "leye_pose", "reye_pose"}

    def leaves(bodies: Bodies) -> Arguments:
        pose = _split(bodies.pose, sizes)
        return _shape(bodies, "betas") | {n: part[:, 0] if n in single else part for n, part in pose.items()}

    return Library(
        leaves,
        {
            "vertices": lambda arguments: model(**arguments).vertices,
            "joints": lambda arguments: model.joints(**arguments),
            "keypoints": lambda arguments: model.keypoints(keypoints, **arguments),
            "points": lambda arguments: model.vertices_and_joints(bases, **arguments)[0],
            "joints and points": lambda a: torch.cat(model.vertices_and_joints(bases, **a)[::-1], dim=-2),
        },
        model,
    )


def _smplx(subject: Subject, folder: Path, device: str) -> Library:
    import smplx
    from smplx.utils import Struct

    joints = subject.data.num_joints
    if subject.data.family == "smpl":
        model = smplx.SMPL("", data_struct=Struct(**_arrays(subject.data)))
        sizes = {"global_orient": 1, "body_pose": 23}
    else:
        path = folder / "smplx.npz"
        np.savez(path, **_arrays(subject.data, full=True))
        model = smplx.SMPLX(str(path), use_pca=False, flat_hand_mean=True)
        sizes = {"global_orient": 1, "body_pose": 21, "jaw_pose": 1, "leye_pose": 1, "reye_pose": 1}
        sizes |= {"left_hand_pose": 15, "right_hand_pose": 15}
    model = model.to(device)
    points, weights, used = _asked(subject, device)

    def leaves(bodies: Bodies) -> Arguments:
        return _shape(bodies, "betas") | {n: part.flatten(1) for n, part in _split(bodies.pose, sizes).items()}

    def both(arguments: Arguments) -> Tensor:
        out = model(**arguments)
        return torch.cat((out.joints[:, :joints], out.vertices[:, points]), dim=1)

    return Library(
        leaves,
        {
            "vertices": lambda arguments: model(**arguments).vertices,
            "joints": lambda arguments: model(**arguments).joints[:, :joints],
            "keypoints": lambda arguments: weights @ model(**arguments).vertices[:, used],
            "points": lambda arguments: model(**arguments).vertices[:, points],
            "joints and points": both,
        },
        model,
    )


def _smplfitter(subject: Subject, folder: Path, device: str) -> Library:
    import smplfitter.pt as smplfitter

    family, arrays = subject.data.family, _arrays(subject.data)
    np.save(folder / "kid_template.npy", np.zeros_like(arrays["v_template"]))
    if family == "smpl":
        (folder / "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl").write_bytes(pickle.dumps(arrays))
    else:
        np.savez(folder / "SMPLX_NEUTRAL.npz", **arrays)

    def load(subset: np.ndarray | None = None) -> torch.nn.Module:
        return smplfitter.BodyModel(family, "neutral", model_root=str(folder), vertex_subset=subset).to(device)

    _, weights, _ = _asked(subject, device)
    whole, for_keypoints, for_points = load(), load(subject.used), load(subject.points)

    def leaves(bodies: Bodies) -> Arguments:
        return {"shape_betas": torch.cat([*_shape(bodies, "betas").values()], dim=1), "pose_rotvecs": bodies.pose}

    def both(arguments: Arguments) -> Tensor:
        out = for_points(**arguments)
        return torch.cat((out["joints"], out["vertices"]), dim=1)

    return Library(
        leaves,
        {
            "vertices": lambda arguments: whole(**arguments)["vertices"],
            "joints": lambda arguments: whole(**arguments, return_vertices=False)["joints"],
            "keypoints": lambda arguments: weights @ for_keypoints(**arguments)["vertices"],
            "points": lambda arguments: for_points(**arguments)["vertices"],
            "joints and points": both,
        },
        whole,
    )


def _body_models(subject: Subject, folder: Path, device: str) -> Library:
    from body_models.smpl.torch import SMPL
    from body_models.smplx.torch import SMPLX as SMPL_X

    path = folder / f"body_models_{subject.data.family}.npz"
    np.savez(path, **_arrays(subject.data, full=True))
    if subject.data.family == "smpl":
        model, sizes = SMPL(model_path=path), {"pelvis_rotation": 1, "body_pose": 23}
    else:
        model = SMPL_X(model_path=path, flat_hand_mean=True)
        sizes = {"pelvis_rotation": 1, "body_pose": 21, "head_pose": 3, "hand_pose": 30}
    model = model.to(device)
    keypoints = model.prepare_point_regressor(torch.as_tensor(subject.regressor, dtype=torch.float32, device=device))
    points = subject.points.tolist()

    def leaves(bodies: Bodies) -> Arguments:
        pose = _split(bodies.pose, sizes)
        return _shape(bodies, "shape") | {n: part[:, 0] if sizes[n] == 1 else part for n, part in pose.items()}

    def joints(arguments: Arguments) -> Tensor:
        return model.forward_skeleton(**arguments)[..., :3, 3]

    def some(arguments: Arguments) -> Tensor:
        return model.forward_vertices(**arguments, vertex_indices=points)

    return Library(
        leaves,
        {
            "vertices": lambda arguments: model.forward_vertices(**arguments),
            "joints": joints,
            "keypoints": lambda arguments: model.forward_points(**arguments, point_regressor=keypoints),
            "points": some,
            "joints and points": lambda arguments: torch.cat((joints(arguments), some(arguments)), dim=1),
        },
        model,
    )


def _shape(bodies: Bodies, name: str) -> Arguments:
    return {name: bodies.betas} if bodies.expression is None else {name: bodies.betas, "expression": bodies.expression}


def _split(pose: Tensor, sizes: Mapping[str, int]) -> Arguments:
    return dict(zip(sizes, pose.split([*sizes.values()], dim=1), strict=True))


def _asked(subject: Subject, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the points, and the regressor's weights with the vertices that its columns are."""
    used = subject.used
    weights = torch.as_tensor(subject.regressor[:, used], dtype=torch.float32, device=device)
    return torch.as_tensor(subject.points, device=device), weights, torch.as_tensor(used, device=device)


def _arrays(data: BodyModelData, *, full: bool = False) -> dict[str, np.ndarray]:
    """Return the model under the official names; `full`: with 300 + 100 columns of shape, as SMPL-X files have."""
    arrays = {
        "v_template": data.v_template,
        "f": data.faces,
        "weights": data.lbs_weights,
        "shapedirs": data.shapedirs,
        "posedirs": data.posedirs,
        "J_regressor": data.J_regressor,
        "kintree_table": np.array([data.skeleton.parents, range(data.num_joints)]),
    }
    if data.family == "smplx":
        hands = {f"hands_mean{side}": np.zeros(45) for side in "lr"}
        arrays |= hands | {f"hands_components{side}": np.eye(45) for side in "lr"}
        arrays["lmk_faces_idx"], arrays["lmk_bary_coords"] = np.arange(51), np.full((51, 3), 1 / 3)
        arrays["joint2num"] = np.array({name: index for index, name in enumerate(data.skeleton.names)})
        if full:
            wide = np.zeros((data.num_vertices, 3, 400), dtype=np.float32)
            wide[..., :10], wide[..., 300:310] = data.shapedirs[..., :10], data.shapedirs[..., 10:]
            arrays["shapedirs"] = wide
    return arrays
