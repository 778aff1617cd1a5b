"""What is asked of each row, and what is promised: the one place of these numbers. Ratios to smplx in the same run."""

from __future__ import annotations

from typing import NamedTuple


class Floor(NamedTuple):
    """How many times better than smplx a row must be.

    Attributes:
        asked: the goal.
        stretch: what would be excellent.
        promised: what a run fails below; less than asked where the goal is not reached yet, None where nothing is
            promised yet.
        reason: why less is promised.
    """

    asked: float
    stretch: float
    promised: float | None
    reason: str = ""


MEMORY_BOUND = (
    "one pass over 17 MB of directions takes 0.6 ms at 30 GB/s and empties the caches for the rest of the call"
)
SPREAD = "runs differ by a tenth, and what is asked lies within that"

FLOORS: dict[str, Floor] = {
    "SMPL vertices fwd B=1": Floor(2.3, 3.5, 1.5, MEMORY_BOUND),
    "SMPL vertices fwd B=32": Floor(1.6, 2.2, 1.6),
    "SMPL vertices fwd B=256": Floor(3.0, 4.5, 3.0),
    "SMPL vertices fwd+bwd B=1": Floor(2.7, 3.5, 1.7, MEMORY_BOUND + ", and backward takes a second one"),
    "SMPL vertices fwd+bwd B=32": Floor(2.0, 2.5, 2.0),
    "SMPL vertices fwd+bwd B=256": Floor(3.3, 4.5, 3.3),
    "SMPL joints fwd B=1": Floor(10, 15, 10),
    "SMPL joints fwd B=32": Floor(20, 40, 20),
    "SMPL joints fwd B=256": Floor(200, 300, 200),
    "SMPL joints fwd+bwd B=1": Floor(12, 25, 11, SPREAD),
    "SMPL joints fwd+bwd B=32": Floor(44, 90, 44),
    "SMPL joints fwd+bwd B=256": Floor(265, 400, 265),
    "SMPL keypoints fwd B=256": Floor(105, 150, 85, SPREAD),
    "SMPL keypoints fwd+bwd B=256": Floor(94, 130, 80, SPREAD),
    "SMPL points fwd B=256": Floor(40, 60, 40),
    "SMPL points fwd+bwd B=256": Floor(35, 55, 35),
    "SMPL joint Jacobian 72x72 B=10": Floor(1500, 3000, 1500),
    "SMPL 300 Adam steps B=10": Floor(10, 15, 9, SPREAD),
    "SMPL LM to Adam's loss B=10": Floor(60, 150, 60),
    "SMPL memory fwd B=1024": Floor(4, 5, 4),
    "SMPL memory fwd+bwd B=1024": Floor(4, 5, 4),
}

# With the compiled kernel: of these rows more, of the others the same. Read two thirds of the directions at batch 1.
FEWER_BYTES = "one pass over 12 MB of packed directions takes 0.4 ms at 30 GB/s, of smplx's 2.1 ms"
COMPILED: dict[str, Floor] = FLOORS | {
    "SMPL vertices fwd B=1": Floor(6, 7.5, 3.0, FEWER_BYTES),
    "SMPL vertices fwd B=32": Floor(4, 5, 4),
    "SMPL vertices fwd B=256": Floor(6, 9, 6),
    "SMPL vertices fwd+bwd B=1": Floor(6, 7.5, 3.0, FEWER_BYTES + ", and backward takes a second one"),
    "SMPL vertices fwd+bwd B=32": Floor(4, 5, 4),
    "SMPL vertices fwd+bwd B=256": Floor(5.5, 7, 5.5),
    "SMPL joints fwd B=1": Floor(250, 400, 250),
    "SMPL joints fwd B=8": Floor(250, 550, 250),
    "SMPL joints fwd B=32": Floor(250, 600, 250),
    "SMPL joints fwd B=256": Floor(250, 1000, 250),
    "SMPL joints fwd+bwd B=1": Floor(60, 120, 60),
    "SMPL joints fwd+bwd B=32": Floor(250, 600, 250),
    "SMPL joints fwd+bwd B=256": Floor(500, 1200, 500),
    "SMPL keypoints fwd B=1": Floor(110, 130, 110),
    "SMPL keypoints fwd B=256": Floor(110, 200, 110),
    "SMPL keypoints fwd+bwd B=256": Floor(94, 190, 94),
    "SMPL points fwd B=1": Floor(50, 90, 50),
    "SMPL points fwd B=256": Floor(50, 95, 50),
    "SMPL points fwd+bwd B=256": Floor(50, 85, 50),
    "SMPL 300 Adam steps B=10": Floor(
        25, 35, 22, "of a step the model takes half; the rest is loss, graph and optimiser, which every library pays"
    ),
    "SMPL memory fwd B=1024": Floor(10, 12, 10),
    "SMPL memory fwd+bwd B=1024": Floor(10, 14, 10),
}


def floors_of(backend: str) -> dict[str, Floor]:
    """Return the floors of `physique.bodymodel.backend()`."""
    return FLOORS if backend == "eager" else COMPILED


# In every row: not slower than any library but smplx, which has floors of its own.
LEAST_TO_OTHERS = 1.0
