"""Rotations, alignment and mesh maths, right to second order."""

from .checks import check_values as check_values
