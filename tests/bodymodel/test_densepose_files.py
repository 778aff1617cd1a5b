"""DensePose annotations and IUV images, by hand and damaged."""

import json

import numpy as np
import pytest
import torch
from physique.bodymodel import (
    COARSE_PART,
    BodyModel,
    iuv_image_to_points,
    load_densepose,
    open_body,
    open_body_atlas,
    stack_dense_points,
)
from refusals import refuses


def person(**change):
    entry = {
        "id": 5,
        "image_id": 9,
        "bbox": [10.0, 20.0, 100.0, 200.0],
        "dp_I": [1.0, 4.0, 24.0],
        "dp_U": [0.1, 0.2, 0.3],
        "dp_V": [0.9, 0.8, 0.7],
        "dp_x": [0.0, 127.5, 255.0],
        "dp_y": [255.0, 51.0, 0.0],
    }
    return {key: value for key, value in (entry | change).items() if value is not ...}


def run_lengths(mask):
    runs, current = [0], False
    for value in mask.ravel(order="F").tolist():
        if value != current:
            runs.append(0)
            current = value
        runs[-1] += 1
    return {"size": list(mask.shape), "counts": runs}


def write(folder, content):
    path = folder / "people.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_points_are_placed_in_the_box(tmp_path):
    for content in ({"images": [], "annotations": [person()]}, [person()]):
        (one,) = load_densepose(write(tmp_path, content))
        assert one.points.part.tolist() == [1, 4, 24]
        assert torch.allclose(one.points.uv, torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]))
        assert torch.allclose(one.points.pixels, torch.tensor([[10.0, 220], [60, 60], [110, 20]]))
        assert one.box.tolist() == [10, 20, 100, 200] and one.mask is None
        assert (one.image_id, one.annotation_id) == (9, 5)


def test_the_other_convention_divides_by_256(tmp_path):
    path = write(tmp_path, [person()])
    points = load_densepose(path, convention=256, dtype=torch.float64)[0].points
    assert points.pixels[2].tolist() == [10 + 100 * 255 / 256, 20]
    assert points.uv.dtype == torch.float64
    with refuses("convention"):
        load_densepose(path, convention=254)


def test_people_without_dense_points_are_left_out(tmp_path):
    bare = {"id": 1, "bbox": [0, 0, 1, 1], "keypoints": [0] * 51}
    people = load_densepose(write(tmp_path, [bare, person(), bare, person(id="b")]))
    assert [one.annotation_id for one in people] == [5, "b"]
    assert load_densepose(write(tmp_path, {"annotations": []})) == ()
    with pytest.raises(ValueError, match=r"people\.json: expected 'dp_I' in the entries, got none; choose"):
        load_densepose(write(tmp_path, [bare]))


def test_masks_become_one_image_of_coarse_parts(tmp_path):
    masks = [[] for _ in range(14)]
    first, second = np.zeros((8, 6), bool), np.zeros((8, 6), bool)
    first[1:4, 2:5], second[3:, 3:] = True, True
    masks[0], masks[13] = run_lengths(first), run_lengths(second)
    mask = load_densepose(write(tmp_path, [person(dp_masks=masks)]))[0].mask
    assert mask is not None and mask.dtype == torch.uint8
    assert np.array_equal(mask.numpy(), np.where(second, 14, np.where(first, 1, 0)))
    assert load_densepose(write(tmp_path, [person(dp_masks=[[]] * 14)]))[0].mask is None
    assert COARSE_PART[24] == 14


@pytest.mark.parametrize(
    "change",
    [
        {"dp_I": [1, 2]},
        {"dp_I": [1, 2, 25]},
        {"dp_I": [1, 2, -1]},
        {"dp_I": [1, 2, 2.5]},
        {"dp_I": "123"},
        {"dp_I": [1, 2, True]},
        {"dp_I": [1, 2, [3]]},
        {"dp_U": ...},
        {"dp_V": [0.1, None, 0.2]},
        {"dp_y": [0, 0, 10**400]},
        {"bbox": ...},
        {"bbox": [0, 0, 1]},
        {"bbox": [0, 0, -1, 1]},
        {"bbox": "abcd"},
        {"dp_masks": 3},
        {"dp_masks": [{"size": [2, 2], "counts": [4]}] * 15},
        {"dp_masks": [7]},
        {"dp_masks": [{"size": [2, 2], "counts": [5]}]},
        {"dp_masks": [{"size": [2, 2], "counts": [4]}, {"size": [2, 3], "counts": [6]}]},
    ],
)
def test_damaged_people_are_refused_with_file_and_annotation(change, tmp_path):
    with pytest.raises(ValueError, match=r"people\.json: annotation 5: \w+: .*expected .+, got .+; "):
        load_densepose(write(tmp_path, [person(**change)]))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff\xfe\x00",
        b"3",
        b"null",
        b'{"annotations": 3}',
        b'{"people": []}',
        b'["a"]',
        b"[NaN]",
    ],
)
def test_files_of_another_kind_are_refused_by_name(content, tmp_path):
    with pytest.raises(ValueError, match=r"people\.json: expected .+, got .+; .+"):
        load_densepose(write(tmp_path, content))


def test_missing_files_and_folders_are_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json: expected a \.json file, got no file"):
        load_densepose(tmp_path / "none.json")
    with pytest.raises(ValueError, match="expected a .json file, got a folder"):
        load_densepose(tmp_path)


def test_scrambled_files_give_people_or_value_errors(tmp_path):
    random = np.random.default_rng(0)
    whole = json.dumps({"annotations": [person(dp_masks=[run_lengths(np.eye(6, dtype=bool))])]}).encode()
    for trial in range(300):
        damaged = bytearray(whole[: random.integers(1, len(whole))] if trial % 3 == 0 else whole)
        for place in random.integers(0, len(damaged), 2):
            damaged[place] = random.integers(32, 127)
        path = write(tmp_path, bytes(damaged))
        try:
            load_densepose(path)
        except ValueError as error:
            assert str(error).startswith(str(path)) and "expected " in str(error)


# IUV images


@pytest.fixture
def iuv():
    random = np.random.default_rng(0)
    image = np.zeros((20, 30, 3), np.uint8)
    image[4:16, 6:25] = random.integers(1, 256, (12, 19, 3))
    image[4:16, 6:25, 0] = random.integers(1, 25, (12, 19))
    return image


def test_every_foreground_pixel_is_a_point(iuv):
    points = iuv_image_to_points(iuv, dtype=torch.float64)
    assert len(points.part) == 12 * 19
    for k in (0, 100, 227):
        x, y = points.pixels[k].tolist()
        part, u, v = iuv[int(y - 0.5), int(x - 0.5)].tolist()
        assert points.part[k].item() == part and points.uv[k].tolist() == [u / 255, v / 255]
    assert points.pixels.amin(0).tolist() == [6.5, 4.5] and points.pixels.amax(0).tolist() == [24.5, 15.5]


def test_tensors_floats_and_turned_channels_say_the_same(iuv):
    points = iuv_image_to_points(iuv)
    floating = iuv.astype(np.float32)
    floating[..., 1:] /= 255
    for other in (
        iuv_image_to_points(torch.tensor(iuv)),
        iuv_image_to_points(floating, uv_max=1.0),
        iuv_image_to_points(iuv[..., ::-1], channels="VUI"),
    ):
        assert torch.equal(other.part, points.part) and torch.equal(other.pixels, points.pixels)
        assert torch.allclose(other.uv, points.uv)


def test_a_box_places_the_image_in_the_picture(iuv):
    points = iuv_image_to_points(iuv)
    placed = iuv_image_to_points(iuv, box=(100, 200, 15, 40))
    assert torch.allclose(placed.pixels, torch.tensor([100.0, 200.0]) + points.pixels * torch.tensor([0.5, 2.0]))


def test_strides_and_draws_take_some_of_the_points(iuv):
    every = iuv_image_to_points(iuv)
    known = {(*pixel, part) for pixel, part in zip(map(tuple, every.pixels.tolist()), every.part.tolist(), strict=True)}
    for points, count in (
        (iuv_image_to_points(iuv, stride=3), 4 * 7),
        (iuv_image_to_points(iuv, count=50), 50),
        (iuv_image_to_points(iuv, count=10**6), 228),
        (iuv_image_to_points(iuv, count=0), 0),
    ):
        found = {(*p, i) for p, i in zip(map(tuple, points.pixels.tolist()), points.part.tolist(), strict=True)}
        assert len(found) == len(points.part) == count and found <= known
    same, again, other = (iuv_image_to_points(iuv, count=50, seed=seed).pixels for seed in (1, 1, 2))
    assert torch.equal(same, again) and not torch.equal(same, other)


def test_an_empty_image_has_no_points():
    assert len(iuv_image_to_points(np.zeros((5, 5, 3), np.uint8)).part) == 0
    assert len(iuv_image_to_points(np.zeros((0, 5, 3), np.uint8)).part) == 0


def test_images_of_another_kind_are_refused(iuv):
    for other in (iuv[..., 0], iuv[..., :2], iuv.astype(str)):
        with refuses("iuv"):
            iuv_image_to_points(other)
    with refuses("iuv"):
        iuv_image_to_points(iuv[..., ::-1])
    with refuses("iuv"):
        iuv_image_to_points(iuv, uv_max=1.0)
    with refuses("iuv"):
        iuv_image_to_points(np.full((2, 2, 3), np.nan))
    for change in ({"stride": 0}, {"count": -1}):
        with refuses("stride"):
            iuv_image_to_points(iuv, **change)
    with refuses("channels"):
        iuv_image_to_points(iuv, channels="IVU")
    with refuses("bbox"):
        iuv_image_to_points(iuv, box=(1, 2, 3))


def test_people_stack_into_a_batch_for_the_model(tmp_path, iuv):
    (one,) = load_densepose(write(tmp_path, [person()]))
    batch = stack_dense_points([one.points, iuv_image_to_points(iuv, count=7)])
    assert batch.part.shape == (2, 7) and batch.uv.shape == batch.pixels.shape == (2, 7, 2)
    assert batch.part[0, 3:].tolist() == [0] * 4 and torch.equal(batch.part[0, :3], one.points.part)
    atlas, model = open_body_atlas("low"), BodyModel(open_body("low"))
    weight = atlas.covers(batch.part, batch.uv)
    assert weight.sum(-1).tolist() == [3, 7]
    assert model.points(atlas.to_surface(batch.part, batch.uv), betas=torch.zeros(2, 10)).shape == (2, 7, 3)
    with refuses("people"):
        stack_dense_points([])
