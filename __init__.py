"""Differentiable, batched human body models for PyTorch; import what you need from its subpackages."""

__version__ = "0.1.0"
