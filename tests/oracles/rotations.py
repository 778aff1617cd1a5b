"""Rotations, alignment and mesh maths one sample at a time in plain NumPy float64, from definitions, not formulas."""

import numpy as np


def cross_matrix(v):
    x, y, z = v
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def exponential(axis_angle):
    """The matrix exponential of the cross-product matrix: power series of a small fraction, squared back."""
    matrix = cross_matrix(np.asarray(axis_angle, dtype=np.float64)) / 2**4
    total, power = np.eye(3), np.eye(3)
    for k in range(1, 25):
        power = power @ matrix / k
        total = total + power
    for _ in range(4):
        total = total @ total
    return total


def hamilton(p, q):
    """The product of two quaternions (w, x, y, z)."""
    w1, x1, y1, z1 = p
    w2, x2, y2, z2 = q
    return np.array(
        [
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
        ]
    )


def quaternion_rotation(quaternion):
    """The matrix whose columns are q e q⁻¹ for the three axes e."""
    q = np.asarray(quaternion, dtype=np.float64)
    inverse = q * [1, -1, -1, -1] / (q @ q)
    return np.stack([hamilton(hamilton(q, np.array([0.0, *axis])), inverse)[1:] for axis in np.eye(3)], axis=1)


def gram_schmidt(matrix):
    first, second = np.asarray(matrix, dtype=np.float64)[:, :2].T
    x = first / np.sqrt(first @ first)
    rest = second - (x @ second) * x
    y = rest / np.sqrt(rest @ rest)
    return np.stack([x, y, np.cross(x, y)], axis=1)


def nearest_rotation(matrix):
    left, _, right = np.linalg.svd(np.asarray(matrix, dtype=np.float64))
    return left @ np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))]) @ right


def procrustes(source, target, weights):
    """Scale, rotation and translation of the similarity, by sums over points."""
    total = sum(weights)
    source_mean = sum(w * s for w, s in zip(weights, source, strict=True)) / total
    target_mean = sum(w * t for w, t in zip(weights, target, strict=True)) / total
    covariance, variance = np.zeros((3, 3)), 0.0
    for w, s, t in zip(weights, source, target, strict=True):
        covariance += w * np.outer(t - target_mean, s - source_mean)
        variance += w * (s - source_mean) @ (s - source_mean)
    rotation = nearest_rotation(covariance)
    scale = np.trace(rotation.T @ covariance) / variance
    return scale, rotation, target_mean - scale * rotation @ source_mean


def face_normals(vertices, faces):
    """Normals as long as twice the face's area."""
    return [np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a]) for a, b, c in faces]


def vertex_normals(vertices, faces):
    normals = np.zeros((len(vertices), 3))
    for face, normal in zip(faces, face_normals(vertices, faces), strict=True):
        for vertex in face:
            normals[vertex] += normal
    for i, normal in enumerate(normals):
        if normal.any():
            normals[i] = normal / np.sqrt(normal @ normal)
    return normals


def signed_volume(vertices, faces):
    return sum(np.linalg.det(np.stack([vertices[i] for i in face])) for face in faces) / 6


def each(function, batch, event_dims):
    """Apply an oracle to every entry of a batch whose events have `event_dims` dimensions."""
    batch = np.asarray(batch, dtype=np.float64)
    shape = batch.shape[: batch.ndim - event_dims]
    flat = batch.reshape(-1, *batch.shape[batch.ndim - event_dims :])
    results = np.stack([function(entry) for entry in flat])
    return results.reshape((*shape, *results.shape[1:]))
