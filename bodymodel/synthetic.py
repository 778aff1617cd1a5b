"""Random small models of any family: for tests and examples that need no file."""

from __future__ import annotations

import numpy as np

from .data import BodyModelData
from .families import Family, family_by_name
from .skeleton import Skeleton

# Direction and length (metres) from a joint to each child by name, for a plausible T-pose; others fan out.
_BONES = {
    "hip": (0.07, -0.09, -0.01),
    "knee": (0.03, -0.38, -0.01),
    "ankle": (-0.01, -0.40, -0.04),
    "foot": (0.03, -0.06, 0.12),
    "spine1": (0.0, 0.11, -0.03),
    "spine2": (0.0, 0.14, 0.0),
    "spine3": (0.0, 0.05, 0.03),
    "neck": (0.0, 0.21, -0.04),
    "head": (0.0, 0.07, 0.05),
    "collar": (0.08, 0.12, -0.03),
    "shoulder": (0.09, 0.03, -0.01),
    "elbow": (0.26, -0.01, -0.03),
    "wrist": (0.25, 0.01, 0.0),
    "hand": (0.08, -0.01, -0.01),
    "jaw": (0.0, 0.0, 0.02),
    "eye": (0.03, 0.07, 0.07),
}


def synthetic_model(
    family: str = "smpl",
    *,
    num_vertices: int = 200,
    num_betas: int = 10,
    num_expression: int | None = None,
    pose_correctives: bool = True,
    seed: int = 0,
) -> BodyModelData:
    """Make a random model in a family's layout, with a plausible skeleton and a closed-looking cloud of skin.

    Same seed, same model. Vertices lie around the bones, weights have at most four entries a vertex, and every constant
    is generic (nothing is zero that could hide a mistake). It is for testing code, not for looking at: `open_body()`
    is the human one.

    Args:
        family: "smpl", "smplh", "smplx", "mano", "flame" or "star".
        num_vertices: V, at least 3.
        num_betas: shape coefficients.
        num_expression: expression coefficients; default 10 for SMPL-X and FLAME, 0 for the others.
        pose_correctives: whether the model has posedirs.
        seed: of the random numbers.

    Raises:
        ValueError: an unknown family, or fewer than 3 vertices.

    Example:
        >>> synthetic_model("mano", num_vertices=50)
        BodyModelData(mano: 50 vertices, 96 faces, 16 joints, 10 betas, with pose correctives)
    """
    row = family_by_name(family)
    if num_vertices < 3:
        raise ValueError(f"num_vertices: expected at least 3, got {num_vertices}; ask for more")
    if num_expression is None:
        num_expression = 10 if family in ("smplx", "flame") else 0
    random = np.random.default_rng(seed)
    joints = _rest_joints(row.skeleton, random)
    weights, vertices = _skin_cloud(row.skeleton, joints, num_vertices, random)
    size = num_betas + num_expression
    shapedirs = random.normal(0, 0.01, (num_vertices, 3, size)) + 0.02 * vertices[:, :, None] * random.normal(
        0, 1, size
    )
    regressor = _regressor(joints, vertices, random)
    return BodyModelData(
        family=family,
        v_template=vertices,
        faces=_fan(num_vertices),
        lbs_weights=weights,
        shapedirs=shapedirs,
        posedirs=_posedirs(row, num_vertices, num_betas, random) if pose_correctives else None,
        J_regressor=regressor,
        coefficients=(("betas", num_betas), ("expression", num_expression))
        if num_expression
        else (("betas", num_betas),),
    )


def _rest_joints(skeleton: Skeleton, random: np.random.Generator) -> np.ndarray:
    joints = np.zeros((skeleton.num_joints, 3))
    for joint, (parent, name) in enumerate(zip(skeleton.parents, skeleton.names, strict=True)):
        side = -1.0 if "right" in name else 1.0
        bone = next((offset for key, offset in _BONES.items() if key in name), (0.03, 0.0, 0.01 * (joint % 5 - 2)))
        if parent >= 0:
            joints[joint] = joints[parent] + np.array(bone) * (side, 1.0, 1.0) + random.normal(0, 0.003, 3)
    return joints


def _skin_cloud(
    skeleton: Skeleton, joints: np.ndarray, num_vertices: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (V, J) on up to four joints near each vertex in the tree, and vertices around the bones."""
    weights = np.zeros((num_vertices, skeleton.num_joints))
    vertices = np.zeros((num_vertices, 3))
    for vertex in range(num_vertices):
        joint = vertex % skeleton.num_joints
        parent = max(skeleton.parents[joint], 0)
        near = list(dict.fromkeys((joint, parent, max(skeleton.parents[parent], 0), *skeleton.children[joint])))[:4]
        weights[vertex, near] = random.dirichlet(np.ones(len(near)))
        along = random.random()
        vertices[vertex] = along * joints[joint] + (1 - along) * joints[parent] + random.normal(0, 0.05, 3)
    return weights, vertices


def _regressor(joints: np.ndarray, vertices: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return (J, V) weights, rows summing to 1, on the vertices nearest to each joint."""
    distance = np.linalg.norm(joints[:, None] - vertices[None], axis=-1)
    nearest = np.argsort(distance, axis=1)[:, : min(6, len(vertices))]
    regressor = np.zeros(distance.shape)
    np.put_along_axis(regressor, nearest, random.dirichlet(np.ones(nearest.shape[1]), size=len(joints)), axis=1)
    return regressor


def _posedirs(row: Family, num_vertices: int, num_betas: int, random: np.random.Generator) -> np.ndarray:
    coupled = row.pose_feature == "quaternion" and num_betas > 1
    return random.normal(0, 0.005, (num_vertices, 3, row.feature_width + coupled))


def _fan(num_vertices: int) -> np.ndarray:
    """Return the faces of a closed strip over the vertices in order: enough for code that walks faces."""
    first = np.arange(num_vertices - 2)
    even = np.stack((first, first + 1, first + 2), axis=1)
    return np.concatenate((even, even[:, ::-1]))
