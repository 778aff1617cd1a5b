"""Rotation vectors where formulas break."""

import math

import torch

PI = math.pi

SPECIAL_AXIS_ANGLES = {
    "zero": (0.0, 0.0, 0.0),
    "plus 1e-8": (1e-8, 1e-8, 1e-8),
    "minus 1e-8": (-1e-8, -1e-8, -1e-8),
    "one component 1e-8": (0.0, 1e-8, 0.0),
    "1e-20": (1e-20, -1e-20, 1e-20),
    "1e-200": (1e-200, 0.0, 0.0),
    "1e-4": (1e-4, -1e-4, 0.5e-4),
    "just below the switch of formulas": (3.45e-4 * 0.99, 0.0, 0.0),
    "just above the switch of formulas": (3.45e-4 * 1.01, 0.0, 0.0),
    "0.1": (0.1, 0.0, 0.0),
    "one": (0.5, -0.7, 0.6),
    "pi - 1e-6": (0.0, PI - 1e-6, 0.0),
    "pi about x": (PI, 0.0, 0.0),
    "pi about a general axis": (PI / 3, 2 * PI / 3, -2 * PI / 3),
    "pi + 1e-6": (0.0, 0.0, PI + 1e-6),
    "beyond pi": (3.0, -2.0, 2.5),
    "2 pi": (2 * PI, 0.0, 0.0),
    "beyond 2 pi": (5.0, 5.0, -6.0),
}


def special_vector(name):
    return torch.tensor(SPECIAL_AXIS_ANGLES[name], dtype=torch.float64)


def special_batch(dtype=torch.float64):
    return torch.tensor(list(SPECIAL_AXIS_ANGLES.values()), dtype=torch.float64).to(dtype)
