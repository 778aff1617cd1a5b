"""Write a moving body as an animated, skinned GLB."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..geometry import matrix_to_quaternion_wxyz, vertex_normals
from ..geometry.checks import broadcast_batches
from .arguments import Signature, local_rotations, rotation_constants
from .data import ARGUMENTS, BodyModelData
from .glb import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, GlbWriter
from .model import BodyModel
from .motion import check_rate
from .write_file import write_file

INFLUENCES = 4
"""Joints that move a vertex in the file; viewers need not support more."""

_SAME_SHAPE = 1e-5


def save_animation(
    path: str | os.PathLike[str],
    model: BodyModel | BodyModelData,
    arguments: Mapping[str, Any],
    *,
    fps: float | int = 30.0,
) -> None:
    """Write T poses of one body as .glb: a mesh, its skeleton, its skin, and one animation that viewers play.

    The shape is baked into the mesh. Each vertex follows its 4 strongest joints, weights renormalised. Pose correctives
    are left out: glTF has no place for them, so bent joints of a model that has them are thinner than `model(...)`.
    For a model without them, and with at most 4 joints a vertex, glTF's skinning gives the vertices of
    `model(**arguments)`. Axes and units are glTF's own: y up, z forward, metres.

    Args:
        path: ends in .glb.
        model: the body.
        arguments: what `model(...)` takes; poses and `transl` (T, ...), or without T where nothing moves. Shape
            arguments may have a T as well, where all frames have the same shape, as fitted sequences do.
        fps: frames a second.

    Raises:
        ValueError: another ending, shapes that do not fit, shapes that differ between frames, no frames, a model
            without faces, or numbers that are not finite.
        TypeError: tensors of another floating type than the model's.
        FileNotFoundError: the folder is not there.

    Source: glTF 2.0 specification (Khronos), sections 3.7.3 (skins) and 3.11 (animations).

    Example:
        >>> import pathlib, tempfile, torch
        >>> from physique.bodymodel import open_body, save_animation
        >>> wave = torch.zeros(30, 23, 3)
        >>> wave[:, 16, 2] = torch.linspace(0.0, 1.2, 30)  # right shoulder
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "wave.glb"
        >>> save_animation(path, open_body("low"), {"body_pose": wave}, fps=30)
        >>> path.read_bytes()[:4]
        b'glTF'
    """
    path = Path(path)
    if path.suffix.lower() != ".glb":
        raise ValueError(f"path: expected a name that ends in .glb, got {path.name}; it is the only format with motion")
    check_rate(fps)
    model = BodyModel(model) if isinstance(model, BodyModelData) else model
    if not model.data.faces.size:
        raise ValueError("model: expected faces, got none; save a model that has a surface")
    with torch.no_grad():
        vertices, joints, turns, places = _frames(model, arguments)
    for name, array in (("arguments", turns), ("arguments", places), ("arguments", vertices)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers, got NaN or infinity; look for it upstream")
    writer = GlbWriter()
    _add_body(writer, model.data, vertices, joints)
    _add_motion(writer, turns, places, float(fps))
    write_file(path, writer.contents())


def _frames(model: BodyModel, arguments: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """Return rest vertices (V, 3), rest joints (J, 3), local rotations (T, J, 4) as xyzw, and root places (T, 3)."""
    given = Signature(model.data.table_row, model.data.coefficients).read(arguments, model.dtype)
    batch = broadcast_batches(given.batches) or torch.Size((1,))
    if len(batch) > 1 or batch[0] == 0:
        raise ValueError(f"arguments: expected one batch dimension, time, got {tuple(batch)}; save one body a file")
    shape = {name: _one_shape(name, arguments[name]) for name in ARGUMENTS if arguments.get(name) is not None}
    rest = model.rest(**shape)
    constants = rotation_constants(model.dtype, model.device)
    rotations, _ = local_rotations(given.parts, given.rotation, model.data.table_row, constants)
    turns = matrix_to_quaternion_wxyz(rotations[..., :-1, :, :])[..., [1, 2, 3, 0]].expand(*batch, -1, 4)
    # q and -q are the same rotation, but players blend the numbers: neighbours keep to one side.
    flips = torch.where((turns[1:] * turns[:-1]).sum(-1, keepdim=True) < 0, -1, 1).cumprod(0)
    turns = torch.cat((turns[:1], turns[1:] * flips))
    places = rest.joints[0] if given.transl is None else rest.joints[0] + given.transl
    arrays = (rest.vertices, rest.joints, turns, places.expand(*batch, 3))
    return tuple(array.double().cpu().numpy() for array in arrays)


def _one_shape(name: str, value: Tensor) -> Tensor:
    """Return shape arguments without their frames, which must all agree."""
    events = 2 if name == "segment_scale" and value.ndim > 1 and value.shape[-1] == 3 else 1
    rows = value.flatten(0, -1 - events) if value.ndim > events else value.unsqueeze(0)
    if rows.shape[0] == 0 or bool(((rows - rows[:1]).abs() > _SAME_SHAPE).any()):
        raise ValueError(
            f"{name}: expected one shape for all frames, got {tuple(value.shape)} that differ; use {name}.mean(0)"
        )
    return rows[0]


def _add_body(writer: GlbWriter, data: BodyModelData, vertices: np.ndarray, joints: np.ndarray) -> None:
    """Add the mesh (node J), the joints (nodes 0 to J - 1) and the skin that binds them."""
    skeleton = data.skeleton
    indices, weights = strongest_weights(data.lbs_weights)
    normals = vertex_normals(torch.from_numpy(vertices), torch.tensor(data.faces)).numpy()
    normals[~normals.any(axis=1)] = (0, 1, 0)
    attributes = {
        "POSITION": writer.accessor(vertices.astype(np.float32), target=ARRAY_BUFFER, bounds=True),
        "NORMAL": writer.accessor(normals.astype(np.float32), target=ARRAY_BUFFER),
        "JOINTS_0": writer.accessor(indices, target=ARRAY_BUFFER),
        "WEIGHTS_0": writer.accessor(weights, target=ARRAY_BUFFER),
    }
    corners = writer.accessor(data.faces.reshape(-1).astype(np.uint32), target=ELEMENT_ARRAY_BUFFER)
    to_joints = np.tile(np.eye(4), (len(joints), 1, 1))
    to_joints[:, :3, 3] = -joints
    nodes: list[dict[str, Any]] = []
    for joint, (name, parent) in enumerate(zip(skeleton.names, skeleton.parents, strict=True)):
        bone = joints[joint] - (joints[parent] if parent >= 0 else 0)
        nodes.append({"name": name, "translation": bone.tolist()})
        if skeleton.children[joint]:
            nodes[-1]["children"] = list(skeleton.children[joint])
    nodes.append({"name": "body", "mesh": 0, "skin": 0})
    paint = {"baseColorFactor": [0.72, 0.72, 0.75, 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.7}
    writer.json |= {
        "scene": 0,
        "scenes": [{"nodes": [0, len(joints)]}],
        "nodes": nodes,
        "meshes": [{"name": "body", "primitives": [{"attributes": attributes, "indices": corners, "material": 0}]}],
        "materials": [{"name": "body", "pbrMetallicRoughness": paint}],
        "skins": [
            {
                "inverseBindMatrices": writer.accessor(to_joints.astype(np.float32)),
                "joints": list(range(len(joints))),
                "skeleton": 0,
            }
        ],
    }


def _add_motion(writer: GlbWriter, turns: np.ndarray, places: np.ndarray, fps: float) -> None:
    """Add the rotations of every joint and the translation of the root, all at the same times."""
    times = writer.accessor((np.arange(len(turns)) / fps).astype(np.float32), bounds=True)
    samplers: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []
    for node, path, values in [
        (0, "translation", places),
        *((j, "rotation", turns[:, j]) for j in range(turns.shape[1])),
    ]:
        output = writer.accessor(values.astype(np.float32))
        channels.append({"sampler": len(samplers), "target": {"node": node, "path": path}})
        samplers.append({"input": times, "output": output, "interpolation": "LINEAR"})
    writer.json["animations"] = [{"name": "motion", "samplers": samplers, "channels": channels}]


def strongest_weights(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the strongest joints of each vertex (V, 4) and their weights (V, 4) float32, which sum to 1.

    A joint of weight 0 is joint 0, as glTF wants it. Models have fewer than 256 joints, so that a byte holds an index.
    """
    wanted = np.clip(weights, 0, None).astype(np.float64)
    wanted = np.pad(wanted, ((0, 0), (0, max(0, INFLUENCES - wanted.shape[1]))))
    order = np.argsort(-wanted, axis=1, kind="stable")[:, :INFLUENCES]
    kept = np.take_along_axis(wanted, order, axis=1)
    kept = (kept / kept.sum(axis=1, keepdims=True)).astype(np.float32)
    return np.where(kept > 0, order, 0).astype(np.uint8), kept
