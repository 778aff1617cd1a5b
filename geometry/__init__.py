"""Rotations, alignment and mesh maths, right to second order."""

from .axis_angle import axis_angle_to_matrix as axis_angle_to_matrix
from .axis_angle import axis_angle_to_quaternion_wxyz as axis_angle_to_quaternion_wxyz
from .axis_angle import matrix_to_axis_angle as matrix_to_axis_angle
from .checks import check_values as check_values
from .mesh import face_areas as face_areas
from .mesh import signed_volume as signed_volume
from .mesh import vertex_normals as vertex_normals
from .orthonormal import gram_schmidt as gram_schmidt
from .orthonormal import matrix_to_rotation_6d as matrix_to_rotation_6d
from .orthonormal import nearest_rotation as nearest_rotation
from .orthonormal import rotation_6d_to_matrix as rotation_6d_to_matrix
from .procrustes import Similarity as Similarity
from .procrustes import procrustes as procrustes
from .quaternion import matrix_to_quaternion_wxyz as matrix_to_quaternion_wxyz
from .quaternion import quaternion_wxyz_to_matrix as quaternion_wxyz_to_matrix
from .rotations import RotationFormat as RotationFormat
from .rotations import geodesic_angle as geodesic_angle
from .rotations import to_matrix as to_matrix
