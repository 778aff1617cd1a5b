"""What is known of poses and shapes before any image: adversaries, lifters, limits, mixtures and dictionaries."""

from .joint_limits import JointLimits as JointLimits
from .pose_pool import PosePool as PosePool
from .weights import load_prior as load_prior
from .weights import save_prior as save_prior
