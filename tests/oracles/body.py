"""A body model in plain loops over NumPy float64, written from the equations alone."""

import numpy as np


def rotation(axis_angle):
    """Rodrigues: R = I + sin(a)/a K + (1 - cos(a))/a^2 K^2; np.sinc is smooth through zero."""
    x, y, z = (float(value) for value in axis_angle)
    angle = np.sqrt(x * x + y * y + z * z)
    K = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sinc(angle / np.pi) * K + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * (K @ K)


def half_angle_quaternion(axis_angle):
    """STAR's feature of a joint: (x, y, z) sin(a/2)/a, and cos(a/2) - 1."""
    angle = float(np.linalg.norm(axis_angle))
    vector = 0.5 * np.sinc(angle / (2 * np.pi)) * np.asarray(axis_angle, dtype=float)
    return np.array([*vector, np.cos(angle / 2) - 1])


def shaped(data, shape):
    """Return rest vertices (V, 3) and rest joints (J, 3) of the coefficients (S,)."""
    vertices = np.zeros((data.num_vertices, 3))
    for vertex in range(data.num_vertices):
        for axis in range(3):
            vertices[vertex, axis] = data.v_template[vertex, axis]
            for k, coefficient in enumerate(shape):
                vertices[vertex, axis] += coefficient * data.shapedirs[vertex, axis, k]
    joints = np.zeros((data.num_joints, 3))
    for joint in range(data.num_joints):
        if data.J_regressor is not None:
            for vertex in range(data.num_vertices):
                joints[joint] += data.J_regressor[joint, vertex] * vertices[vertex]
        else:
            joints[joint] = data.J_template[joint] + data.J_shapedirs[joint][:, : len(shape)] @ np.asarray(shape)
    return vertices, joints


def pose_feature(data, axis_angles, shape):
    """Return what drives the columns of posedirs."""
    feature = []
    for axis_angle in axis_angles[1:]:
        if data.table_row.pose_feature == "quaternion":
            feature.extend(half_angle_quaternion(axis_angle))
        else:
            feature.extend((rotation(axis_angle) - np.eye(3)).reshape(-1))
    if data.posedirs is not None and data.posedirs.shape[2] == len(feature) + 1:
        feature.append(shape[1] if len(shape) > 1 else 0.0)
    return np.array(feature)


def chain(rotations, joints, parents):
    """Return world rotations (J, 3, 3) and posed joints (J, 3) down the tree."""
    world, posed = [], []
    for joint, parent in enumerate(parents):
        if parent < 0:
            world.append(rotations[joint])
            posed.append(joints[joint])
        else:
            world.append(world[parent] @ rotations[joint])
            posed.append(posed[parent] + world[parent] @ (joints[joint] - joints[parent]))
    return np.array(world), np.array(posed)


def skinned(vertices, weights, world, posed, joints):
    """Return sum_j w_j (R_j (v - J_j) + J'_j) of each vertex."""
    moved = np.zeros_like(vertices)
    for vertex in range(len(vertices)):
        for joint in range(len(joints)):
            rigid = world[joint] @ (vertices[vertex] - joints[joint]) + posed[joint]
            # Rows of weights may be off from 1 by rounding; a weighted mean of points then is not quite a mean.
            moved[vertex] += weights[vertex, joint] * rigid
    return moved


def body(data, shape, axis_angles, transl=(0.0, 0.0, 0.0)):
    """Return posed vertices (V, 3), joints (J, 3), joint rotations (J, 3, 3), rest vertices and rest joints."""
    vertices, rest_joints = shaped(data, shape)
    rest_vertices = corrected(data, vertices, shape, np.zeros_like(axis_angles))
    rotations = [rotation(axis_angle) for axis_angle in axis_angles]
    world, posed = chain(rotations, rest_joints, data.skeleton.parents)
    vertices = corrected(data, vertices, shape, axis_angles)
    moved = skinned(vertices, data.lbs_weights.astype(float), world, posed, rest_joints)
    return moved + transl, posed + transl, world, rest_vertices, rest_joints


def corrected(data, vertices, shape, axis_angles):
    """Return vertices with the pose correctives; STAR has one that is left in the rest pose."""
    if data.posedirs is None:
        return vertices
    feature = pose_feature(data, axis_angles, shape)
    return np.array([vertex + data.posedirs[i].astype(float) @ feature for i, vertex in enumerate(vertices)])


def segment_frame(joint, parents, joints):
    """Return the three axes (columns) of a segment: along the bone, across it towards forward, across both."""
    children = [child for child, parent in enumerate(parents) if parent == joint]
    if children:
        along = sum(joints[child] for child in children) / len(children) - joints[joint]
    else:
        along = joints[joint] - joints[parents[joint]]
    along = along / np.linalg.norm(along)
    forward = np.array([0.0, 0.0, 1.0]) if abs(along[2]) < 0.9 else np.array([0.0, 1.0, 0.0])
    across = forward - along * float(along @ forward)
    across = across / np.linalg.norm(across)
    return np.stack([along, across, np.cross(along, across)], axis=1)


def segment_scaled(vertices, joints, weights, parents, scale):
    """Return vertices and joints of a rest body with each segment scaled about its joint, by one or three numbers.

    J'_c = J'_p + S_p (J_c - J_p), v' = sum_j w_j (S_j (v - J_j) + J'_j), S_j = Q_j diag(s_j) Q_j^T.
    """
    matrices = []
    for joint, s in enumerate(np.asarray(scale, dtype=float)):
        if np.ndim(s) == 0:
            matrices.append(s * np.eye(3))
        else:
            Q = segment_frame(joint, parents, joints)
            matrices.append(Q @ np.diag(s) @ Q.T)
    scaled_joints = []
    for joint, parent in enumerate(parents):
        if parent < 0:
            scaled_joints.append(joints[joint])
        else:
            scaled_joints.append(scaled_joints[parent] + matrices[parent] @ (joints[joint] - joints[parent]))
    scaled_vertices = np.zeros_like(vertices)
    for vertex in range(len(vertices)):
        for joint in range(len(joints)):
            offset = matrices[joint] @ (vertices[vertex] - joints[joint]) + scaled_joints[joint]
            scaled_vertices[vertex] += weights[vertex, joint] * offset
    return scaled_vertices, np.array(scaled_joints)
