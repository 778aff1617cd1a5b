"""Conversions between keypoint sets: the published tables, and laws that hold for every pair of sets."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from physique.bodymodel import KEYPOINT_SETS, convert_keypoints, keypoint_set

SETS = st.sampled_from(sorted(KEYPOINT_SETS))


def indices(source: str, target: str) -> list[int | None]:
    """The source index of each target keypoint: convert the points 0, 1, 2, ..."""
    points, mask = convert_keypoints(
        torch.arange(len(keypoint_set(source)), dtype=torch.float64)[:, None], source, target
    )
    return [int(p) if m else None for p, m in zip(points[:, 0].tolist(), mask.tolist(), strict=True)]


def test_published_tables_come_out():
    assert indices("coco17", "hmr19") == [16, 14, 12, 11, 13, 15, 10, 8, 6, 5, 7, 9, None, None, 0, 1, 2, 3, 4]
    assert indices("mpii16", "lsp14") == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9]
    assert indices("hmr19", "lsp14") == list(range(14))
    assert indices("openpose25", "openpose18") == [*range(8), *range(9, 19)]
    hand = [0, 13, 14, 15, None, 1, 2, 3, None, 4, 5, 6, None, 10, 11, 12, None, 7, 8, 9, None]
    assert indices("mano16", "hand21") == hand
    smpl = [0, 1, 6, 11, 2, 7, 12, 3, 8, 13, 4, 9, 14, None, None, 15, 17, 24, 18, 25, 19, 26, None, None]
    assert indices("cmu31", "smpl24") == smpl


def test_midpoints_are_those_of_their_definition():
    coco = torch.randn(3, 17, 2, dtype=torch.float64)
    points, mask = convert_keypoints(coco, "coco17", "openpose25")
    assert torch.equal(points[:, 1], (coco[:, 5] + coco[:, 6]) / 2)
    assert torch.equal(points[:, 8], (coco[:, 11] + coco[:, 12]) / 2)
    assert mask.tolist() == [True] * 19 + [False] * 6
    assert torch.equal(points[:, 19:], torch.zeros(3, 6, 2, dtype=torch.float64))


def test_unlike_points_are_equated_only_when_asked():
    points = torch.randn(17, 3)
    _, exact = convert_keypoints(points, "h36m17", "coco17")
    hips = [keypoint_set("coco17").index(f"{side}_hip") for side in ("left", "right")]
    assert not exact[hips].any()
    near, mask = convert_keypoints(points, "h36m17", "coco17", approximate=True)
    assert mask[hips].all()
    assert torch.equal(near[hips], points[[keypoint_set("h36m17").index(f"{s}_hip") for s in ("left", "right")]])


@given(SETS)
def test_a_set_converts_to_itself_unchanged(name):
    points = torch.randn(2, len(keypoint_set(name)), 3)
    converted, mask = convert_keypoints(points, name, name)
    assert torch.equal(converted, points) and bool(mask.all())


@given(SETS, SETS)
def test_a_round_trip_returns_what_the_other_set_holds_itself(source, target):
    points = torch.randn(len(keypoint_set(source)), 2, dtype=torch.float64)
    there, there_mask = convert_keypoints(points, source, target)
    back, _ = convert_keypoints(there, target, source)
    shared = set(keypoint_set(source).keypoints) & set(keypoint_set(target).keypoints)
    for index, point in enumerate(keypoint_set(source).keypoints):
        if point in shared:
            assert torch.equal(back[index], points[index])
    for index, point in enumerate(keypoint_set(target).keypoints):
        assert not (point in shared and not there_mask[index])


@given(SETS, SETS, st.booleans())
def test_converting_commutes_with_the_flip(source, target, approximate):
    points = torch.randn(len(keypoint_set(source)), 2, dtype=torch.float64)
    points_flipped = points[list(keypoint_set(source).flip)]
    first, first_mask = convert_keypoints(points_flipped, source, target, approximate=approximate)
    second, second_mask = convert_keypoints(points, source, target, approximate=approximate)
    flip = list(keypoint_set(target).flip)
    torch.testing.assert_close(first, second[flip], rtol=0, atol=1e-15)
    assert torch.equal(first_mask, second_mask[flip])


@given(SETS, SETS)
def test_approximate_only_adds_points(source, target):
    points = torch.randn(len(keypoint_set(source)), 2)
    exact, mask = convert_keypoints(points, source, target)
    near, near_mask = convert_keypoints(points, source, target, approximate=True)
    assert bool((near_mask | ~mask).all()) and torch.equal(near[mask], exact[mask])


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)])
def test_any_batch_shape_and_type(batch):
    points = torch.randn(*batch, 25, 3, dtype=torch.float64)
    converted, mask = convert_keypoints(points, "openpose25", "lsp14")
    assert converted.shape == (*batch, 14, 3) and converted.dtype == torch.float64 and mask.shape == (14,)


def test_nan_stays_in_its_point_and_gradients_are_finite():
    points = torch.randn(17, 2, dtype=torch.float64)
    points[0] = float("nan")
    points.requires_grad_()
    converted, _ = convert_keypoints(points, "coco17", "openpose25")
    assert converted.isnan().any(-1).nonzero().flatten().tolist() == [0]
    (gradient,) = torch.autograd.grad(converted[1:].sum(), points)
    assert bool(gradient.isfinite().all())
    assert gradient[5].tolist() == [1.5, 1.5]  # itself and half the neck


def test_errors_name_the_argument():
    with pytest.raises(
        ValueError, match=r"points: expected \(\*batch, 17, D\), got \(18, 2\); coco17 has 17 keypoints"
    ):
        convert_keypoints(torch.zeros(18, 2), "coco17", "lsp14")
    with pytest.raises(ValueError, match="got 'kinect'"):
        convert_keypoints(torch.zeros(17, 2), "coco17", "kinect")
