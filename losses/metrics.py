"""The metrics that the field reports, by name, and the protocols under which they are comparable."""

from .correct_joints import auc as auc
from .correct_joints import pck as pck
from .image_metrics import SegmentationScores as SegmentationScores
from .image_metrics import densepose_kappa as densepose_kappa
from .image_metrics import gps as gps
from .image_metrics import oks as oks
from .image_metrics import per_pixel_error as per_pixel_error
from .image_metrics import scores_from_confusion as scores_from_confusion
from .image_metrics import segmentation_scores as segmentation_scores
from .joint_metrics import acceleration_error as acceleration_error
from .joint_metrics import joint_errors as joint_errors
from .joint_metrics import mpjpe as mpjpe
from .joint_metrics import pa_mpjpe as pa_mpjpe
from .joint_metrics import pve as pve
from .joint_metrics import scale_aligned_mpjpe as scale_aligned_mpjpe
from .protocols import ROOT_RELATIVE as ROOT_RELATIVE
from .protocols import Protocol as Protocol
from .protocols import protocol as protocol
