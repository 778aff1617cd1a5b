"""What is known of poses and shapes before any image: adversaries, lifters, limits, mixtures and dictionaries."""

from .convex_lifting import ConvexLift as ConvexLift
from .convex_lifting import convex_lift as convex_lift
from .convex_lifting import spectral_prox as spectral_prox
from .dictionary_learning import learn_dictionary as learn_dictionary
from .dictionary_learning import sparse_codes as sparse_codes
from .pose_denoiser import PoseDenoiser as PoseDenoiser
from .pose_dictionary import LiftedPose as LiftedPose
from .pose_dictionary import PoseDictionary as PoseDictionary
