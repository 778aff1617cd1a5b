"""Evaluation protocols: which joints count, what the root is, and how prediction and truth are aligned."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from ..bodymodel.keypoint_sets import keypoint_set

Alignment: TypeAlias = Literal["none", "root", "scale", "rigid", "procrustes"]

ALIGNMENTS: tuple[Alignment, ...] = ("none", "root", "scale", "rigid", "procrustes")


class Protocol(NamedTuple):
    """How joints are compared; change one part with `_replace`.

    Attributes:
        root: joints whose mean is subtracted by the alignments "root" and "scale". The default, joint 0, is the pelvis
            of SMPL's joints and of Human3.6M's 17; it is an ankle in LSP's order.
        joints: joints that count, in any order; None: all. The root need not be among them.
        alignment: "none"; "root"; "scale", which after subtracting the root multiplies the prediction by
            ⟨P, G⟩/⟨P, P⟩, a negative number where it points away from the target; "rigid", a rotation and translation;
            "procrustes", a similarity (PA).
        keypoint_set: name of the order that the indices belong to; points of another number are refused.
    """

    root: tuple[int, ...] = (0,)
    joints: tuple[int, ...] | None = None
    alignment: Alignment = "root"
    keypoint_set: str | None = None


ROOT_RELATIVE = Protocol()

# LSP's 14 by the names of Human3.6M's 17; the head's top is Human3.6M's head.
_LSP14_IN_H36M17 = (
    *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
    *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
    *("thorax", "head"),
)
_MPI_INF_3DHP_TEST17 = (
    *("head_top", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "pelvis", "spine", "head"),
)
_MID_HIP = ("right_hip", "left_hip")

# For each preset its alignment, and for each order of joints the root and the joints that count; the first is default.
_PRESETS: dict[str, tuple[Alignment, dict[str, tuple[tuple[str, ...], tuple[str, ...] | None]]]] = {
    "h36m_p1": ("root", {"h36m17": (("pelvis",), None), "lsp14": (_MID_HIP, None)}),
    "h36m_p2": ("procrustes", {"h36m17": (("pelvis",), None), "lsp14": (_MID_HIP, None)}),
    "3dpw": (
        "root",
        {"h36m17": (("pelvis",), _LSP14_IN_H36M17), "lsp14": (_MID_HIP, None), "smpl24": (("pelvis",), None)},
    ),
    "mpi_inf_3dhp": ("root", {"mpi_inf_3dhp28": (("pelvis",), _MPI_INF_3DHP_TEST17), "lsp14": (_MID_HIP, None)}),
}


def protocol(name: str, keypoint_set_name: str | None = None) -> Protocol:
    """Return a preset protocol for joints in the order of a keypoint set.

    - "h36m_p1": root-relative. In "h36m17" (default) all 17 joints relative to the pelvis, as lifting methods report;
      in "lsp14" the 14 joints relative to the mid-hip, as HMR does.
    - "h36m_p2": the same joints after a similarity alignment, the reconstruction error. HMR's papers also restrict P2
      to the frontal camera, which is a choice of images.
    - "3dpw": root-relative; in "h36m17" (default) LSP's 14 of the 17 regressed joints relative to the pelvis, as SPIN
      and its successors do; in "smpl24" all joints of the model relative to its pelvis.
    - "mpi_inf_3dhp": root-relative; in "mpi_inf_3dhp28" (default) the 17 joints of the test set relative to the pelvis;
      in "lsp14" relative to the mid-hip.

    Args:
        name: "h36m_p1", "h36m_p2", "3dpw" or "mpi_inf_3dhp".
        keypoint_set_name: the order of the joints; default: the first of those named above.

    Returns:
        The protocol, with indices into that order.

    Raises:
        ValueError: an unknown preset, or an order that it has no rule for.

    Example:
        >>> protocol("h36m_p1", "lsp14").root
        (2, 3)
        >>> protocol("3dpw").joints
        (3, 2, 1, 4, 5, 6, 16, 15, 14, 11, 12, 13, 8, 10)
    """
    if name not in _PRESETS:
        raise ValueError(f"protocol: expected one of {', '.join(_PRESETS)}, got {name!r}; or make your own Protocol")
    alignment, orders = _PRESETS[name]
    order = keypoint_set_name or next(iter(orders))
    if order not in orders:
        raise ValueError(f"keypoint_set: expected one of {', '.join(orders)}, got {order!r}; make your own Protocol")
    names = keypoint_set(order).names
    root, joints = orders[order]
    ids = None if joints is None else tuple(map(names.index, joints))
    return Protocol(tuple(map(names.index, root)), ids, alignment, order)
