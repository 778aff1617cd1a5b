"""Face landmarks of SMPL-X and FLAME as surface points: 51 that stay, and 17 of the contour that follow the view."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..geometry.checks import expect_shape
from .data import BodyModelData
from .outputs import SurfacePoints

NUM_STATIC = 51
NUM_CONTOUR = 17
# One row of contour points for each degree that the head turns: 0 to 39 one way, then 1 to 39 the other.
MAX_DEGREES = 39


def face_landmarks(
    data: BodyModelData,
    *,
    lmk_faces_idx: np.ndarray | None = None,
    lmk_bary_coords: np.ndarray | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> SurfacePoints:
    """Return the 51 static face landmarks: points 17 to 67 of the 68-point markup, brows, nose, eyes and lips.

    Args:
        data: a model with these landmarks.
        lmk_faces_idx: (51,) face of each; default the model file's. FLAME keeps it in a file of its own, under
            `lmk_face_idx`.
        lmk_bary_coords: (51, 3) barycentric weights; default the model file's. FLAME's file calls it `lmk_b_coords`.
        dtype: floating type of the weights.
        device: where the result lives.

    Returns:
        Faces (51,) and weights (51, 3), for `model.points`.

    Raises:
        ValueError: no such arrays, or arrays that do not fit the mesh.

    Example:
        >>> from physique.bodymodel import BodyModel, synthetic_model
        >>> data = synthetic_model("flame")
        >>> points = face_landmarks(data, lmk_faces_idx=np.arange(51), lmk_bary_coords=np.full((51, 3), 1 / 3))
        >>> BodyModel(data).points(points).shape
        torch.Size([51, 3])
    """
    given = {"lmk_faces_idx": lmk_faces_idx, "lmk_bary_coords": lmk_bary_coords}
    faces, weights = landmark_arrays(data, given, (NUM_STATIC,))
    return SurfacePoints(
        torch.tensor(faces, device=device),
        torch.tensor(weights, dtype=dtype, device=device),
    )


class FaceContour(nn.Module):
    """The 17 landmarks of the face's outline, points 0 to 16 of the 68-point markup, as a camera in front sees them.

    The outline of a turning head slides over its skin: a table holds its points for each degree of the head's yaw, 39
    to either side. A head turned further has the last row's, and a NaN rotation that of the frontal head. Choosing a
    row has no derivative; the points themselves are differentiable, as any point of the surface is.

    Attributes:
        faces: (79, 17) face of each point, by row.
        barycentric: (79, 17, 3) weights, by row.

    Example:
        >>> from physique.bodymodel import BodyModel, synthetic_model
        >>> data = synthetic_model("flame")
        >>> faces, weights = np.zeros((79, 17), dtype=int), np.full((79, 17, 3), 1 / 3)
        >>> contour = FaceContour(data, dynamic_lmk_faces_idx=faces, dynamic_lmk_bary_coords=weights)
        >>> model, neck_pose = BodyModel(data), torch.zeros(5, 3)
        >>> model.points(contour(model(neck_pose=neck_pose).joint_rotations), neck_pose=neck_pose).shape
        torch.Size([5, 17, 3])
    """

    faces: Tensor
    barycentric: Tensor

    def __init__(
        self,
        data: BodyModelData,
        *,
        dynamic_lmk_faces_idx: np.ndarray | None = None,
        dynamic_lmk_bary_coords: np.ndarray | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        """Make the table from a model file's arrays, or from others.

        Args:
            data: a model with a neck: SMPL-X or FLAME.
            dynamic_lmk_faces_idx: (79, 17); default the model file's. FLAME's file calls it `lmk_face_idx`.
            dynamic_lmk_bary_coords: (79, 17, 3); default the model file's. FLAME's file calls it `lmk_b_coords`.
            dtype: floating type of the weights.
            device: where the table lives.

        Raises:
            ValueError: no such arrays, arrays that do not fit the mesh, or a model without a neck.
        """
        super().__init__()
        given = {"dynamic_lmk_faces_idx": dynamic_lmk_faces_idx, "dynamic_lmk_bary_coords": dynamic_lmk_bary_coords}
        faces, weights = landmark_arrays(data, given, (2 * MAX_DEGREES + 1, NUM_CONTOUR))
        self._neck, self._num_joints = data.skeleton.index("neck"), data.num_joints
        self.register_buffer("faces", torch.tensor(faces, device=device), persistent=False)
        self.register_buffer("barycentric", torch.tensor(weights, dtype=dtype, device=device), persistent=False)

    def forward(self, joint_rotations: Float[Tensor, "*batch J 3 3"]) -> SurfacePoints:
        """Return the contour points of each sample, for `model.points` with the same arguments.

        Args:
            joint_rotations: (*B, J, 3, 3) from each joint's frame to body axes (x left, y up, z towards the camera):
                `model(...).joint_rotations`. Where `global_orient` holds a half turn `look` into camera axes (y down),
                take it out first: `look.mT @ out.joint_rotations`.

        Returns:
            Faces (*B, 17) and weights (*B, 17, 3).

        Source: the look-up of FLAME's TensorFlow code and of smplx; the yaw is the y angle of the neck's R = Rz Ry Rx.
        """
        expect_shape("joint_rotations", joint_rotations, self._num_joints, 3, 3)
        neck = joint_rotations[..., self._neck, :, :].detach()
        yaw = torch.atan2(neck[..., 2, 0], torch.hypot(neck[..., 0, 0], neck[..., 1, 0]))
        degrees = torch.rad2deg(yaw).nan_to_num(0.0).clamp(-MAX_DEGREES, MAX_DEGREES).round().to(torch.int64)
        row = torch.where(degrees < 0, MAX_DEGREES - degrees, degrees)
        return SurfacePoints(self.faces[row], self.barycentric[row])


def landmark_arrays(
    data: BodyModelData, arrays: dict[str, np.ndarray | None], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the faces (*shape) and weights (*shape, 3) of landmarks, checked against the mesh.

    `arrays` holds, under the file's keys, the faces and then the weights; where one is None the file's is taken.
    """
    values = []
    for (key, given), expected in zip(arrays.items(), (shape, (*shape, 3)), strict=True):
        if given is None and key not in data.extras:
            raise ValueError(f"{key}: expected {expected}, got nothing in the model file; pass {key}=")
        value = np.asarray(data.extras[key] if given is None else given)
        if value.shape != expected or value.dtype.kind not in "fiu" or not np.isfinite(value).all():
            raise ValueError(
                f"{key}: expected {expected} finite numbers, got {value.shape} {value.dtype}; check the file"
            )
        values.append(value)
    faces, weights = values[0].astype(np.int64), values[1].astype(np.float64)
    count = len(data.faces)
    if faces.min() < 0 or faces.max() >= count or not np.array_equal(faces, values[0]):
        key = next(iter(arrays))
        raise ValueError(
            f"{key}: expected faces 0 to {count - 1}, got {values[0].min()} to {values[0].max()}; "
            "the landmarks belong to another mesh"
        )
    return faces, weights
