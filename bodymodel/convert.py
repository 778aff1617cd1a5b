"""Convert points from one keypoint set to another by what each keypoint is."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..geometry.checks import expect_shape
from .keypoint_points import MIDPOINTS
from .keypoint_sets import keypoint_set
from .skeleton import swap_sides

_PAIRED = (
    ("left_hip", "left_hip_h36m", "left_hip_3dhp", "left_hip_smpl"),
    ("left_foot_smpl", "left_foot_3dhp"),
    ("left_big_toe", "left_toe_3dhp"),
    ("left_hand_smpl", "left_hand_3dhp"),
    ("left_collar_smpl", "left_clavicle_3dhp"),
    ("left_eye", "left_eye_smplhf"),
    ("left_wrist", "left_hand_root"),
)

# Points within a few centimetres of each other that data sets define differently: equal only for `approximate=True`.
NEARBY: tuple[tuple[str, ...], ...] = (
    *_PAIRED,
    *(tuple(map(swap_sides, group)) for group in _PAIRED),
    ("mid_hip", "pelvis_mpii", "pelvis_h36m", "pelvis_3dhp", "pelvis_smpl"),
    ("neck_openpose", "thorax_mpii", "thorax_h36m", "neck_smpl", "neck_lsp", "neck_3dhp", "neck_mhr"),
    ("head_top", "head_h36m"),
    ("head_smpl", "head_3dhp"),
    ("nose", "nose_h36m"),
    ("spine_h36m", "spine2_smpl", "spine2_3dhp"),
    ("spine1_smpl", "spine_3dhp"),
    ("spine3_smpl", "spine3_3dhp"),
)


def convert_keypoints(
    points: Float[Tensor, "*batch K D"], source: str, target: str, *, approximate: bool = False
) -> tuple[Float[Tensor, "*batch K2 D"], Bool[Tensor, " K2"]]:
    """Return the points of one keypoint set in the order of another.

    A target point is taken, in this order:

    1. exactly, where the source has the same point. Shoulders, elbows, wrists, knees, ankles and face points are the
       same in all sets, and the hips in those that are annotated in images (COCO, OpenPose, LSP, MPII, HMR);
    2. exactly by definition, where it is the midpoint of two source points: OpenPose's neck of the shoulders and its
       mid-hip of the hips, Human3.6M's pelvis of its hips, the chest of OpenPose's 15 of MPII's pelvis and thorax;
    3. only with `approximate=True`, from a point a few centimetres away that another data set uses for the same part:
       the hips of Human3.6M, MPI-INF-3DHP and SMPL; pelvis and mid-hip; the necks and thoraxes; head tops; and so on.

    A point that cannot be had is zero and its mask is false. A NaN in one point stays in that point.

    Args:
        points: (*B, K, D) points of `source` in any unit, D = 2 or 3 or anything else. Missing points must be masked by
            the caller: the midpoint of a missing and a seen point means nothing (`Keypoints2D.convert` takes care).
        source: name of the set that `points` are in.
        target: name of the set wanted.
        approximate: also equate nearby points of different definition.

    Returns:
        (*B, K', D) points, and (K',) mask.

    Raises:
        ValueError: an unknown set, or a K that is not the source's.

    Example:
        >>> import torch
        >>> from physique.bodymodel import convert_keypoints
        >>> points, mask = convert_keypoints(torch.randn(5, 17, 2), "coco17", "hmr19")
        >>> points.shape, [i for i, found in enumerate(mask.tolist()) if not found]
        (torch.Size([5, 19, 2]), [12, 13])
    """
    count = len(keypoint_set(source))
    expect_shape("points", points, count, "D", advice=f"{source} has {count} keypoints")
    sources = source_indices(source, target, approximate=approximate)
    found = torch.tensor([pair is not None for pair in sources], device=points.device)
    ids = torch.tensor([pair or (0, 0) for pair in sources], device=points.device)
    first, second = points[..., ids[:, 0], :], points[..., ids[:, 1], :]
    midpoint = torch.where((ids[:, 0] == ids[:, 1]).unsqueeze(-1), first, 0.5 * (first + second))
    return torch.where(found.unsqueeze(-1), midpoint, torch.zeros_like(midpoint)), found


def source_indices(source: str, target: str, *, approximate: bool = False) -> tuple[tuple[int, int] | None, ...]:
    """Return for each target keypoint the two source keypoints that it is the midpoint of, twice the same for one.

    None stands where the target has a point that the source cannot give.
    """
    available = {point: index for index, point in enumerate(keypoint_set(source).keypoints)}

    def exact(point: str) -> tuple[int, int] | None:
        ends = (point, point) if point in available else MIDPOINTS.get(point, ())
        found = [available[end] for end in ends if end in available]
        return (found[0], found[1]) if len(found) == 2 else None

    def resolve(point: str) -> tuple[int, int] | None:
        stand_ins = (other for group in NEARBY if point in group for other in group) if approximate else ()
        return next((pair for pair in map(exact, (point, *stand_ins)) if pair is not None), None)

    return tuple(resolve(point) for point in keypoint_set(target).keypoints)
