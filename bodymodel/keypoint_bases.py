"""Keypoints as few rigid points: a keypoint's vertices that hang on one joint move together, and so does their mean."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .arguments import Arguments
from .keypoints import KeypointRegressor
from .passes import Constants, Plan, joints_pass, subset_pass
from .skinning import VertexBases

# Where regressor weights of both signs leave less than this share of a mean's mass, the vertices stay as they are.
LEAST_MASS = 0.1


class KeypointBases(NamedTuple):
    """The constants of a set of keypoints on a model.

    Attributes:
        points: P points to pose, like vertices.
        point_weights: (K, P) of them in the keypoints.
        joint_weights: (K, J) of the joints in the keypoints, or None where none has a part.
    """

    points: VertexBases
    point_weights: Float[Tensor, "K P"]
    joint_weights: Float[Tensor, "K J"] | None


def keypoint_bases(vertices: VertexBases, regressor: KeypointRegressor) -> KeypointBases:
    """Return the bases of a regressor's keypoints, from those of the vertices `regressor.vertex_ids`.

    Each joint moves vertices rigidly: Σ_v M_kv Σ_j w_jv T_j(x_v) = Σ_j m_kj T_j(x_kj), where m_kj is the sum of the
    M_kv w_jv and x_kj the mean of the vertices by these weights. So a keypoint of many vertices that hang on few joints
    is that many points. Where that does not make fewer points, the vertices are what is posed.
    """
    joint_weights = regressor.joint_weights if bool(regressor.joint_weights.any()) else None
    mix = regressor.vertex_weights.unsqueeze(1) * vertices.weights  # (K, J, N)
    used = (mix != 0).any(-1)
    mass = mix.sum(-1)
    cancels = mass.abs() < LEAST_MASS * mix.abs().sum(-1)
    if int(used.sum()) >= mix.shape[-1] or bool((used & cancels).any()):
        return KeypointBases(vertices, regressor.vertex_weights, joint_weights)
    keypoint, joint = used.nonzero().unbind(-1)
    mass = mass[keypoint, joint]
    means = (mix[keypoint, joint] / mass.unsqueeze(-1)).mT  # (N, P)

    def mean(planes: Tensor) -> Tensor:
        return (planes.unflatten(-1, (3, -1)) @ means).flatten(-2)

    every = torch.arange(len(mass), device=mass.device)
    weights = vertices.weights.new_zeros(len(vertices.weights), len(mass))
    weights[joint, every] = 1
    point_weights = mass.new_zeros(len(regressor.vertex_weights), len(mass))
    point_weights[keypoint, every] = mass
    points = VertexBases(mean(vertices.template), mean(vertices.directions), weights, vertices.shapes)
    return KeypointBases(points, point_weights, joint_weights)


def keypoints_pass(plan: Plan, constants: Constants, bases: KeypointBases, given: Arguments) -> Tensor:
    """Return the posed keypoints (*B, K, 3)."""
    if bases.joint_weights is not None and not bases.points.weights.shape[-1]:
        return bases.joint_weights @ joints_pass(plan, constants, given)
    return mix_keypoints(bases, *subset_pass(plan, constants, bases.points, given, given.batch))


def mix_keypoints(bases: KeypointBases, points: Tensor, joints: Tensor) -> Tensor:
    """Return the keypoints (*B, K, 3) of posed points (*B, P, 3) and joints (*B, J, 3)."""
    keypoints = _mean(bases.point_weights, points)
    return keypoints if bases.joint_weights is None else keypoints + _mean(bases.joint_weights, joints)


def _mean(weights: Tensor, points: Tensor) -> Tensor:
    """Return weights (K, P) times points (*B, P, 3) as one product, for which planes lie one after the other."""
    return (points.mT @ weights.mT).mT
