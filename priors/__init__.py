"""Priors on poses: what people's bodies do, learnt from motion capture."""

from .gaussian_mixture import GaussianMixturePrior as GaussianMixturePrior
