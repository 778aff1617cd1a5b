"""Solvers, and the fitting recipes built on them."""

from .correspondences import Correspondences as Correspondences
from .joint_energy import JointWeights as JointWeights
from .joints import fit_joints as fit_joints
from .keypoint_energy import KeypointWeights as KeypointWeights
from .keypoints import fit_keypoints as fit_keypoints
from .least_squares import least_squares as least_squares
from .minimise import minimise as minimise
from .normal_equations import NormalEquations as NormalEquations
from .pose_priors import PosePrior as PosePrior
from .registration import register_surface as register_surface
from .registration_body import Registration as Registration
from .registration_terms import Term as Term
from .registration_terms import default_terms as default_terms
from .solution import Solution as Solution
from .solution import Status as Status
from .tangent import tangent_jacobian as tangent_jacobian
from .vertices import fit_vertices as fit_vertices
