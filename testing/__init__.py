"""Checks and hypothesis strategies to import in your own tests; needs hypothesis."""

from .second_order import assert_right_to_second_order as assert_right_to_second_order
from .strategies import betas as betas
from .strategies import body_models as body_models
from .strategies import cameras as cameras
from .strategies import poses as poses
from .strategies import rotations as rotations
from .strategies import segment_scales as segment_scales
