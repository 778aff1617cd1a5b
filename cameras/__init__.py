"""Weak-perspective and perspective cameras, crops, and exact conversions between camera conventions."""

from .axes import OpenGLCamera as OpenGLCamera
from .axes import PyTorch3DCamera as PyTorch3DCamera
from .axes import look_at as look_at
from .axes import opencv_to_opengl as opencv_to_opengl
from .axes import opencv_to_pytorch3d as opencv_to_pytorch3d
from .axes import opengl_to_opencv as opengl_to_opencv
from .axes import pytorch3d_to_opencv as pytorch3d_to_opencv
from .convert import default_focal as default_focal
from .convert import full_translation_to_hmr as full_translation_to_hmr
from .convert import hmr_to_full_translation as hmr_to_full_translation
from .convert import perspective_to_weak as perspective_to_weak
from .convert import weak_to_perspective as weak_to_perspective
from .crop import BOX_UNIT as BOX_UNIT
from .crop import Crop as Crop
from .distortion import distort as distort
from .distortion import undistort as undistort
from .perspective import PerspectiveCamera as PerspectiveCamera
from .translation import translation_from_points as translation_from_points
from .weak import WeakPerspectiveCamera as WeakPerspectiveCamera
