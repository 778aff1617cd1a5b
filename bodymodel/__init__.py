"""Body models of the SMPL family: data, files, kinematics, skinning, keypoints and the built-in body."""

from .data import BodyModelData as BodyModelData
from .skeleton import Skeleton as Skeleton
from .convert import convert_keypoints as convert_keypoints
from .keypoint_files import Keypoints2D as Keypoints2D
from .keypoint_files import load_keypoints as load_keypoints
from .keypoint_sets import KEYPOINT_SETS as KEYPOINT_SETS
from .keypoint_sets import KeypointSet as KeypointSet
from .keypoint_sets import keypoint_set as keypoint_set
from .keypoints import KeypointRegressor as KeypointRegressor
