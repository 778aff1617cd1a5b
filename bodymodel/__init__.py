"""Body models of the SMPL family: data, files, kinematics, skinning, keypoints and the built-in body."""

from .data import BodyModelData as BodyModelData
from .skeleton import Skeleton as Skeleton
