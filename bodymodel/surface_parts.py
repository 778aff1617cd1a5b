"""DensePose's 24 parts of the body: their numbers, names, reflections and coarse groups."""

from __future__ import annotations

NUM_PARTS = 24

MIRROR_PART = (0, 1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 18, 17, 20, 19, 22, 21, 24, 23)
"""The part on the other side of the body, for 0 (background) and parts 1 to 24."""

PART_NAMES = (
    "background",
    *("torso_back", "torso_front", "right_hand", "left_hand", "left_foot", "right_foot"),
    *("right_thigh_back", "left_thigh_back", "right_thigh_front", "left_thigh_front"),
    *("right_shank_back", "left_shank_back", "right_shank_front", "left_shank_front"),
    *("left_upper_arm_inside", "right_upper_arm_inside", "left_upper_arm_outside", "right_upper_arm_outside"),
    *("left_forearm_inside", "right_forearm_inside", "left_forearm_outside", "right_forearm_outside"),
    *("right_head", "left_head"),
)
"""Names of 0 and DensePose's 24 parts."""

COARSE_PART = (0, 1, 1, 2, 3, 4, 5, 6, 7, 6, 7, 8, 9, 8, 9, 10, 11, 10, 11, 12, 13, 12, 13, 14, 14)
"""DensePose's coarse part, as in `dp_masks`, of 0 and parts 1 to 24."""
