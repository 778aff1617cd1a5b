"""A left-right symmetric body, and the mirror image of its arguments."""

import numpy as np
from physique.bodymodel import BodyModelData

FLIP = np.array([-1.0, 1.0, 1.0])


def symmetric_model(data):
    """Return a model of twice the vertices: those of `data`, then their mirror images; joints are made symmetric."""
    mirror = list(data.skeleton.mirror)
    both = {name: FLIP[:, None] * getattr(data, name) for name in ("shapedirs", "J_shapedirs")}
    return BodyModelData(
        family=data.family,
        v_template=np.concatenate((data.v_template, FLIP * data.v_template)),
        faces=data.faces,
        lbs_weights=np.concatenate((data.lbs_weights, data.lbs_weights[:, mirror])),
        shapedirs=np.concatenate((data.shapedirs, both["shapedirs"])),
        posedirs=np.concatenate((data.posedirs, mirrored_posedirs(data))),
        J_template=(data.J_template + FLIP * data.J_template[mirror]) / 2,
        J_shapedirs=(data.J_shapedirs + both["J_shapedirs"][mirror]) / 2,
        coefficients=data.coefficients,
    )


def mirrored_posedirs(data):
    """Return the correctives of the mirror images, driven by the feature of the mirrored pose.

    A mirrored rotation is F R F, so entry (r, c) of its matrix has the sign F_r F_c, and its quaternion (x, y, z, w)
    becomes (x, -y, -z, w).
    """
    quaternion = data.table_row.pose_feature == "quaternion"
    signs = np.array([1.0, -1.0, -1.0, 1.0]) if quaternion else np.outer(FLIP, FLIP).reshape(-1)
    width = len(signs)
    mirrored = FLIP[:, None] * data.posedirs
    turned = mirrored.copy()
    for joint, other in enumerate(data.skeleton.mirror):
        if joint > 0:
            to, source = (slice((k - 1) * width, k * width) for k in (other, joint))
            turned[:, :, to] = mirrored[:, :, source] * signs
    return turned


def mirrored_axis_angles(pose, skeleton):
    """Return (..., J, 3) of the mirrored pose: (x, -y, -z), left and right exchanged."""
    flipped = -FLIP * pose
    return flipped[..., list(skeleton.mirror), :]
