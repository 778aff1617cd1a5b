"""Losses on keypoints, poses and shapes: one number per sample, never weighted or reduced over the batch."""

from .limits import joint_limit_loss as joint_limit_loss
from .reprojection import reprojection_loss as reprojection_loss
from .robust import geman_mcclure as geman_mcclure
from .robust import huber as huber
from .robust import l1 as l1
from .robust import l2 as l2
from .robust import penalise as penalise
