"""The lifter's surroundings as loops in NumPy float64."""

import math

import numpy as np


def turn(points, angle):
    """Turn each of (K, 3) points about y."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[x * c + z * s, y, -x * s + z * c] for x, y, z in points])


def heading(points, cues):
    """Sum over the cues of how far the front lies behind the side, seen from above."""
    total = 0.0
    for cue in cues:
        ends = [sum(points[i] for i in ids) / len(ids) for ids in cue]
        f, l = ends[1] - ends[0], ends[3] - ends[2]
        sine = (f[0] * l[2] - f[2] * l[0]) / (math.hypot(f[0], f[2]) * math.hypot(l[0], l[2]))
        total += max(0.0, -sine)
    return total


def normalise(points, seen, root):
    """Return (K, 2) points about the root in units of the mean distance of the others, the root, and that unit."""
    at = [i for i in root if seen[i]] or [i for i in range(len(points)) if seen[i]]
    origin = sum(points[i] for i in at) / len(at)
    distances = [np.hypot(*(points[i] - origin)) for i in range(len(points)) if seen[i] and i not in root]
    size = sum(distances) / len(distances)
    return (
        np.array([(p - origin) / size if s else np.zeros(2) for p, s in zip(points, seen, strict=True)]),
        origin,
        size,
    )


def network(state, x):
    """The eight layers, from a state dict of arrays, on one vector."""

    def linear(name, v):
        return state[f"{name}.weight"] @ v + state[f"{name}.bias"]

    def leaky(v):
        return np.array([a if a > 0 else 0.2 * a for a in v])

    h = leaky(linear("first", x))
    for k in range(3):
        h = h + leaky(linear(f"pairs.{k}.1", leaky(linear(f"pairs.{k}.0", h))))
    return linear("last", h)


def depths(state, points, seen, root, flip):
    """Depths (K,) of one person in the unit of the points."""
    pose, _, size = normalise(points, seen, root)
    shown = np.concatenate([pose, np.asarray(seen, float)[:, None]], axis=1)
    straight = network(state, shown.ravel())
    mirrored = network(state, np.array([[-x, y, s] for x, y, s in shown[flip]]).ravel())[flip]
    mean = (straight + mirrored) / 2
    return size * (mean - sum(mean[i] for i in root) / len(root))
