"""What is known of poses and shapes before any image: adversaries, lifters, limits, mixtures and dictionaries."""

from .convex_lifting import ConvexLift as ConvexLift
from .convex_lifting import convex_lift as convex_lift
from .convex_lifting import spectral_prox as spectral_prox
from .depth_lifter import DepthLifter as DepthLifter
from .dictionary_learning import learn_dictionary as learn_dictionary
from .dictionary_learning import sparse_codes as sparse_codes
from .gaussian_mixture import GaussianMixturePrior as GaussianMixturePrior
from .joint_limits import JointLimits as JointLimits
from .lifting_losses import HeadingCue as HeadingCue
from .lifting_losses import heading_cues as heading_cues
from .lifting_losses import heading_loss as heading_loss
from .lifting_losses import lifting_critic_loss as lifting_critic_loss
from .lifting_losses import lifting_generator_loss as lifting_generator_loss
from .lifting_losses import turn_about_vertical as turn_about_vertical
from .lifting_losses import turned_views as turned_views
from .pose_critic import PoseCritic as PoseCritic
from .pose_denoiser import PoseDenoiser as PoseDenoiser
from .pose_dictionary import LiftedPose as LiftedPose
from .pose_dictionary import PoseDictionary as PoseDictionary
from .pose_pool import PosePool as PosePool
from .pose_vae import PoseVAE as PoseVAE
from .weights import load_prior as load_prior
from .weights import save_prior as save_prior
