"""What is known of poses and shapes before any image: adversaries, lifters, limits, mixtures and dictionaries."""

from .gaussian_mixture import GaussianMixturePrior as GaussianMixturePrior
from .pose_vae import PoseVAE as PoseVAE
