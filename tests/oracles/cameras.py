"""Camera maths written point by point in float64 NumPy, each from its own source and not from the package."""

import numpy as np


def rodrigues(vector):
    angle = np.linalg.norm(vector)
    if angle == 0:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def weak(points, scale, translation):
    return np.array([[scale * x + translation[0], scale * y + translation[1]] for x, y, _ in points])


def hmr(points, camera, size):
    """Crop pixels of HMR's projection: s·(x + t) in [-1, 1]."""
    s, tx, ty = camera
    return np.array([[(s * (x + tx) + 1) * 0.5 * size, (s * (y + ty) + 1) * 0.5 * size] for x, y, _ in points])


def opencv_distort(x, y, coefficients):
    """The formulas of OpenCV's calib3d page."""
    k1, k2, p1, p2, k3, k4, k5, k6 = [*coefficients, *([0.0] * (8 - len(coefficients)))]
    r2 = x * x + y * y
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    return (
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
        y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
    )


def opencv(points, focal, center, rotation, translation, distortion=()):
    pixels = []
    for point in points:
        x, y, z = rotation @ point + translation
        u, v = opencv_distort(x / z, y / z, distortion)
        pixels.append([focal[0] * u + center[0], focal[1] * v + center[1]])
    return np.array(pixels)


def opengl(points, view, projection, image_size):
    """Vertex transform, perspective divide and viewport of the OpenGL specification, image rows from the top."""
    pixels = []
    for point in points:
        clip = projection @ view @ np.array([*point, 1.0])
        ndc = clip[:3] / clip[3]
        pixels.append([(ndc[0] + 1) / 2 * image_size[0], (1 - ndc[1]) / 2 * image_size[1]])
    return np.array(pixels)


def pytorch3d(points, R, T, focal_length, principal_point, image_size):
    """Row vectors; NDC with +x left and +y up, half the shorter side being 1; then NDC to screen."""
    shorter = min(image_size)
    pixels = []
    for point in points:
        x, y, z = point @ R + T
        ndc_x = focal_length[0] * x / z + principal_point[0]
        ndc_y = focal_length[1] * y / z + principal_point[1]
        pixels.append([image_size[0] / 2 - ndc_x * shorter / 2, image_size[1] / 2 - ndc_y * shorter / 2])
    return np.array(pixels)


def crop_pixels(pixels, center, size, resolution, flip):
    """Shift, resize, then flip, one pixel at a time."""
    out = []
    for u, v in pixels:
        u = (u - (center[0] - size[0] / 2)) / size[0] * resolution[0]
        v = (v - (center[1] - size[1] / 2)) / size[1] * resolution[1]
        out.append([resolution[0] - u if flip else u, v])
    return np.array(out)


def cliff_translation(camera, box_center, box_size, focal, image_size):
    s, tx, ty = camera
    return np.array(
        [
            tx + 2 * (box_center[0] - image_size[0] / 2) / (box_size * s),
            ty + 2 * (box_center[1] - image_size[1] / 2) / (box_size * s),
            2 * focal / (box_size * s),
        ]
    )


def estimate_translation(points3d, points2d, confidence, focal, center):
    """SPIN's linear system, solved by numpy.linalg.lstsq."""
    rows, values = [], []
    for (x, y, z), pixel, weight in zip(points3d, points2d, np.sqrt(confidence), strict=True):
        for axis, coordinate in enumerate((x, y)):
            row = [0.0, 0.0, -(pixel[axis] - center[axis])]
            row[axis] = focal
            rows.append(weight * np.array(row))
            values.append(weight * ((pixel[axis] - center[axis]) * z - focal * coordinate))
    return np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
