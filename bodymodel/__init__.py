"""Body models of the SMPL family: data, files, kinematics, skinning, keypoints and the built-in body."""

from .data import BodyModelData as BodyModelData
from .interop import from_smplx as from_smplx
from .load import load_body_model as load_body_model
from .save import save_body_model as save_body_model
from .skeleton import Skeleton as Skeleton
from .model import BodyModel as BodyModel
from .outputs import BodyOutput as BodyOutput
from .outputs import RestBody as RestBody
from .outputs import SurfacePoints as SurfacePoints
from .segment_scale import segment_scale_model as segment_scale_model
from .synthetic import synthetic_model as synthetic_model
