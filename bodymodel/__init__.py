"""Body models of the SMPL family: data, files, kinematics, skinning, keypoints and the built-in body."""

from .convert import convert_keypoints as convert_keypoints
from .data import BodyModelData as BodyModelData
from .interop import from_smplx as from_smplx
from .keypoint_files import Keypoints2D as Keypoints2D
from .keypoint_files import load_keypoints as load_keypoints
from .keypoint_sets import KEYPOINT_SETS as KEYPOINT_SETS
from .keypoint_sets import KeypointSet as KeypointSet
from .keypoint_sets import keypoint_set as keypoint_set
from .keypoints import KeypointRegressor as KeypointRegressor
from .kinematics import forward_kinematics as forward_kinematics
from .limits import default_joint_limits as default_joint_limits
from .load import load_body_model as load_body_model
from .model import BodyModel as BodyModel
from .open_body import open_body as open_body
from .outputs import BodyOutput as BodyOutput
from .outputs import RestBody as RestBody
from .outputs import SurfacePoints as SurfacePoints
from .save import save_body_model as save_body_model
from .segment_scale import segment_scale_model as segment_scale_model
from .skeleton import Skeleton as Skeleton
from .skinning import skin as skin
from .synthetic import synthetic_model as synthetic_model
