"""DensePose coordinates to the surface and back, on the built-in body's charts and on made-up ones."""

import copy
import io
import pickle
import time

import numpy as np
import pytest
import torch
from oracles.surface import least_distance
from physique.bodymodel import (
    COARSE_PART,
    PART_NAMES,
    BodyModel,
    SurfaceAtlas,
    SurfacePoints,
    open_body,
    open_body_atlas,
)
from physique.bodymodel.surface_parts import MIRROR_PART
from physique.geometry import check_values
from refusals import refuses

CUT_OPEN = (3, 4, 5, 6)


@pytest.fixture(params=["full", "low"])
def detail(request):
    return request.param


def random_coordinates(*shape, dtype=torch.float64):
    return torch.randint(1, 25, shape), torch.rand(*shape, 2, dtype=dtype)


def random_surface(faces, *shape, dtype=torch.float64):
    weights = torch.rand(*shape, 3, dtype=dtype) + 0.01
    return SurfacePoints(torch.randint(0, faces, shape), weights / weights.sum(-1, keepdim=True))


def places(body, points):
    """Return the points' positions on the mean body in its rest pose."""
    corners = torch.tensor(body.v_template, dtype=torch.float64)[torch.tensor(body.faces)[points.faces]]
    return (corners * points.barycentric.unsqueeze(-1)).sum(-2)


def twice_areas(uv):
    a, b = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def scattered_atlas(seed=0, count=40):
    """Return an atlas of three parts whose triangles leave gaps, lie either way round, and two of which are flat."""
    random = np.random.default_rng(seed)
    uv = 0.6 * random.random((count, 1, 2)) + 0.4 * random.random((count, 3, 2))
    uv[3, 2], uv[4, 1], uv[4, 2] = uv[3, 1], uv[4, 0], uv[4, 0]
    return SurfaceAtlas(np.arange(count), random.choice([2, 7, 24], count), uv, num_faces=count)


# The built-in charts


def test_every_face_is_in_exactly_one_chart_and_every_part_has_faces(detail):
    atlas, body = open_body_atlas(detail), open_body(detail)
    assert np.array_equal(np.sort(atlas.faces), np.arange(len(body.faces)))
    assert atlas.num_faces == len(body.faces)
    assert np.array_equal(np.unique(atlas.part), np.arange(1, 25))


def test_charts_fill_the_square_without_folds(detail):
    atlas = open_body_atlas(detail)
    for part in range(1, 25):
        areas = twice_areas(atlas.uv[atlas.part == part])
        assert areas.min() > 0, "a triangle is flat or turned over"
        assert areas.sum() == 2.0, "coordinates are multiples of 2^-15, so the sum is exact"


def test_charts_do_not_overlap(detail):
    # Triangles that add up to the square and cover it cannot overlap; random points find one each.
    atlas, random = open_body_atlas(detail), np.random.default_rng(0)
    for part in range(1, 25):
        uv = atlas.uv[atlas.part == part]
        points = random.random((200, 2))
        around = [
            (uv[None, :, (k + 1) % 3, 0] - uv[None, :, k, 0]) * (points[:, None, 1] - uv[None, :, k, 1])
            - (uv[None, :, (k + 1) % 3, 1] - uv[None, :, k, 1]) * (points[:, None, 0] - uv[None, :, k, 0])
            for k in range(3)
        ]
        assert ((np.stack(around) >= 0).all(axis=0).sum(axis=1) == 1).all()


def test_charts_are_continuous_but_for_the_cuts_of_hands_and_feet(detail):
    atlas, body = open_body_atlas(detail), open_body(detail)
    seen, cuts = {}, set()
    for face, corners in enumerate(body.faces.tolist()):
        for corner, vertex in enumerate(corners):
            key = (int(atlas.part[face]), vertex)
            place = tuple(atlas.uv[face, corner])
            if seen.setdefault(key, place) != place:
                cuts.add(key[0])
    assert cuts == set(CUT_OPEN)


def test_right_charts_are_mirror_images_of_left_ones(detail):
    atlas, body = open_body_atlas(detail), open_body(detail)
    mirror = body.extras["vert_sym_idxs"]
    other = {tuple(sorted(face)): index for index, face in enumerate(body.faces.tolist())}
    for face, corners in enumerate(body.faces.tolist()):
        twin = other[tuple(sorted(mirror[corners].tolist()))]
        assert atlas.part[twin] == MIRROR_PART[atlas.part[face]]
        order = [body.faces[twin].tolist().index(mirror[vertex]) for vertex in corners]
        assert np.array_equal(atlas.uv[twin, order, 0], 1 - atlas.uv[face, :, 0])
        assert np.array_equal(atlas.uv[twin, order, 1], atlas.uv[face, :, 1])


def test_parts_lie_where_their_names_say(detail):
    atlas, body = open_body_atlas(detail), open_body(detail)
    corners = body.v_template[body.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    at = {
        name: np.average(corners.mean(axis=1)[atlas.part == part], axis=0, weights=area[atlas.part == part])
        for part, name in enumerate(PART_NAMES)
        if part
    }
    for name, place in at.items():
        if "torso" not in name:
            assert np.sign(place[0]) == (1 if name.startswith("left") else -1)
        if name.endswith("back"):
            assert place[2] < at[name.replace("back", "front")][2] - 0.03
        if name.endswith("inside"):
            assert place[1] < at[name.replace("inside", "outside")][1] - 0.01, "palms are down in the T-pose"
    down_the_leg = [at[name][1] for name in ("left_thigh_front", "left_shank_front", "left_foot")]
    along_the_arm = [at[name][0] for name in ("left_upper_arm_inside", "left_forearm_inside", "left_hand")]
    assert down_the_leg == sorted(down_the_leg, reverse=True) and along_the_arm == sorted(along_the_arm)
    assert at["left_head"][1] > at["torso_front"][1] + 0.3


def test_named_vertices_are_in_their_parts(detail):
    atlas, body = open_body_atlas(detail), open_body(detail)
    for vertex, part in (
        ("left_index", 4),
        ("right_thumb", 3),
        ("left_big_toe", 5),
        ("right_heel", 6),
        ("left_ear", 24),
        ("right_eye", 23),
        ("left_radiale", 17),
    ):
        faces = (body.faces == body.vertex_ids[vertex]).any(axis=1)
        near = {part, part + 2, part - 2, part + 4} if vertex == "left_radiale" else {part}
        assert set(atlas.part[faces].tolist()) <= near, vertex


def test_v_grows_upwards_on_the_torso():
    atlas, body = open_body_atlas(), open_body()
    front = atlas.to_surface(torch.full((3,), 2), torch.tensor([[0.5, 0.1], [0.5, 0.5], [0.9, 0.9]]).double())
    x, y, z = places(body, front).unbind(-1)
    assert y[0] < y[1] < y[2] and x[2] > 0.1 and bool((z > 0).all()) and x[:2].abs().max() < 1e-6


# Round trips


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coordinates_come_back_from_the_surface(detail, dtype):
    atlas = open_body_atlas(detail)
    part, uv = random_coordinates(20_000, dtype=dtype)
    points = atlas.to_surface(part, uv)
    assert points.barycentric.dtype == dtype and bool((points.barycentric >= 0).all())
    assert torch.allclose(points.barycentric.sum(-1), torch.ones((), dtype=dtype), atol=1e-5)
    back_part, back_uv = atlas.from_surface(points)
    assert torch.equal(back_part, part) and back_uv.dtype == dtype
    assert (back_uv - uv).abs().max() < (2e-6 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_surface_points_come_back_from_coordinates(detail, dtype):
    atlas, body = open_body_atlas(detail), open_body(detail)
    points = random_surface(len(body.faces), 20_000, dtype=dtype)
    part, uv = atlas.from_surface(points)
    back = atlas.to_surface(part, uv)
    assert (places(body, back) - places(body, points)).norm(dim=-1).max() < (1e-5 if dtype == torch.float32 else 1e-10)
    again_part, again_uv = atlas.from_surface(back)
    assert torch.equal(again_part, part) and (again_uv - uv).abs().max() < 2e-6


def test_edges_and_corners_of_the_square_are_on_the_surface(detail):
    atlas = open_body_atlas(detail)
    steps = torch.linspace(0, 1, 33, dtype=torch.float64)
    rim = torch.cat([torch.stack(pair, -1) for pair in ((steps, 0 * steps), (steps, 0 * steps + 1))])
    rim = torch.cat([rim, rim.flip(-1)])
    part = torch.arange(1, 25).unsqueeze(-1).expand(24, len(rim))
    back_part, back_uv = atlas.from_surface(atlas.to_surface(part, rim))
    assert torch.equal(back_part, part) and (back_uv - rim).abs().max() < 1e-12


def test_any_batch_shape_and_broadcasting():
    atlas = open_body_atlas("low")
    for shape in ((), (2,), (0,), (3, 2)):
        part, uv = random_coordinates(*shape, 5)
        points = atlas.to_surface(part, uv)
        assert points.faces.shape == (*shape, 5) and points.barycentric.shape == (*shape, 5, 3)
        back_part, back_uv = atlas.from_surface(points)
        assert torch.equal(back_part, part) and back_uv.shape == uv.shape
        assert atlas.flip(part, uv)[1].shape == uv.shape
    part, uv = torch.arange(1, 25), torch.rand(7, 24, 2)
    shared = atlas.to_surface(part, uv)
    each = atlas.to_surface(part.expand(7, 24), uv)
    assert torch.equal(shared.faces, each.faces) and torch.equal(shared.barycentric, each.barycentric)
    nothing = atlas.to_surface(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0, 2))
    assert nothing.faces.shape == (2, 0)


def test_model_takes_the_points_one_set_a_sample():
    body, atlas = open_body("low"), open_body_atlas("low")
    model = BodyModel(body, dtype=torch.float64)
    part, uv = random_coordinates(4, 30)
    points = atlas.to_surface(part, uv)
    pose = 0.3 * torch.randn(4, 23, 3, dtype=torch.float64)
    posed = model.points(points, body_pose=pose)
    vertices = model(body_pose=pose).vertices
    corners = vertices[torch.arange(4)[:, None, None], model.faces[points.faces]]
    assert torch.allclose(posed, (corners * points.barycentric.unsqueeze(-1)).sum(-2))


def test_a_hundred_thousand_points_are_found_within_a_second():
    atlas = open_body_atlas()
    part, uv = random_coordinates(100_000, dtype=torch.float32)
    atlas.to_surface(part[:1], uv[:1])
    times = []
    for _ in range(5):
        start = time.perf_counter()
        atlas.to_surface(part, uv)
        times.append(time.perf_counter() - start)
    assert min(times) < 1.0


# Nearest points, background, gradients


@pytest.mark.parametrize("seed", range(3))
def test_the_nearest_point_is_found_where_no_triangle_is(seed):
    atlas = scattered_atlas(seed)
    part = torch.tensor([2, 7, 24]).repeat(300)
    uv = torch.rand(900, 2, dtype=torch.float64)
    uv[:90] = torch.tensor(atlas.uv[:30].reshape(90, 2))  # corners exactly
    back_part, back = atlas.from_surface(atlas.to_surface(part, uv))
    assert torch.equal(back_part, part)
    found = (back - uv).norm(dim=-1)
    wanted = [least_distance(u.numpy(), atlas.uv[atlas.part == p]) for p, u in zip(part.tolist(), uv, strict=True)]
    assert 0.2 < (found > 1e-3).double().mean() < 0.9, "some inside, some outside"
    assert torch.allclose(found, torch.tensor(wanted), atol=1e-9)


def test_weights_are_never_negative_and_sum_to_one_off_the_charts():
    atlas = scattered_atlas()
    part = torch.tensor([2, 7, 24]).repeat(300)
    weights = atlas.to_surface(part, torch.rand(900, 2)).barycentric
    assert bool((weights >= 0).all()) and torch.allclose(weights.sum(-1), torch.ones(()))


def test_coordinates_beyond_the_square_are_clamped():
    atlas = open_body_atlas("low")
    uv = torch.tensor([[-0.2, 0.5], [1.3, 2.0], [0.4, -torch.inf], [0.4, -1e30]])
    part = torch.full((4,), 8)
    _, back = atlas.from_surface(atlas.to_surface(part, uv))
    assert torch.allclose(back, torch.tensor([[0.0, 0.5], [1.0, 1.0], [0.0, 0.0], [0.4, 0.0]]), atol=1e-6)
    assert atlas.covers(part, uv).tolist() == [True, True, False, True]


def test_background_unknown_parts_and_nan_get_weight_zero():
    atlas = scattered_atlas()
    part = torch.tensor([0, 1, 25, -3, 2, 2, 10**6])
    uv = torch.full((7, 2), 0.5)
    uv[4, 1] = torch.nan
    points = atlas.to_surface(part, uv)
    assert atlas.covers(part, uv).tolist() == [False, False, False, False, False, True, False]
    assert points.faces[[0, 1, 2, 3, 4, 6]].tolist() == [0] * 6
    assert points.barycentric.sum(-1).tolist() == pytest.approx([0, 0, 0, 0, 0, 1, 0])


def test_faces_without_a_chart_are_background():
    atlas = SurfaceAtlas(np.array([4, 1]), np.array([3, 5]), np.tile([[0, 0], [1, 0], [0, 1.0]], (2, 1, 1)), 6)
    weights = torch.full((6, 3), 1 / 3)
    part, uv = atlas.from_surface(SurfacePoints(torch.arange(6), weights))
    assert part.tolist() == [0, 5, 0, 0, 3, 0]
    assert uv[[0, 2, 3, 5]].abs().max() == 0 and torch.allclose(uv[1], torch.full((2,), 1 / 3))


def test_weights_are_differentiable_in_the_coordinates():
    atlas = open_body_atlas("low")
    part, uv = random_coordinates(50)

    def there_and_back(uv):
        return atlas.from_surface(atlas.to_surface(part, uv))[1].sum(0)

    jacobian = torch.autograd.functional.jacobian(there_and_back, uv)
    assert torch.allclose(jacobian, torch.eye(2).double().unsqueeze(1).expand_as(jacobian), atol=1e-8)


def test_gradients_are_finite_off_the_charts_and_at_corners():
    atlas = scattered_atlas()
    uv = torch.cat([torch.rand(300, 2).double(), torch.tensor(atlas.uv.reshape(-1, 2))]).requires_grad_()
    part = torch.tensor([2, 7, 24, 0])[torch.arange(len(uv)) % 4]
    points = atlas.to_surface(part, uv)
    (gradient,) = torch.autograd.grad((points.barycentric * torch.randn_like(points.barycentric)).sum(), uv)
    assert bool(torch.isfinite(gradient).all())
    assert not gradient[part == 0].any()


def test_each_point_is_looked_up_alone():
    atlas = scattered_atlas()
    part, uv = torch.tensor([2, 7, 24]).repeat(50), torch.rand(150, 2)
    together = atlas.to_surface(part, uv)
    for k in range(0, 150, 10):
        alone = atlas.to_surface(part[k : k + 1], uv[k : k + 1])
        assert alone.faces == together.faces[k] and torch.equal(alone.barycentric[0], together.barycentric[k])


# Flip


def test_flipped_coordinates_are_the_mirrored_place(detail):
    atlas, body = open_body_atlas(detail), open_body(detail)
    part, uv = random_coordinates(5_000)
    here, there = (places(body, atlas.to_surface(*pair)) for pair in ((part, uv), atlas.flip(part, uv)))
    mirrored = here * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    assert (mirrored - there).norm(dim=-1).max() < 1e-6


def test_flipping_twice_changes_nothing():
    atlas = open_body_atlas("low")
    part = torch.randint(0, 25, (500,))
    uv = torch.randint(0, 2**15 + 1, (500, 2)) / 2**15
    flipped = atlas.flip(part, uv)
    again = atlas.flip(*flipped)
    assert torch.equal(again[0], part) and torch.equal(again[1], uv)
    assert torch.equal(flipped[1][part == 0], uv[part == 0]) and not flipped[0][part == 0].any()


def test_tables_are_read_at_row_v_column_u():
    symmetry = np.random.default_rng(0).random((24, 256, 256, 2))
    plain = scattered_atlas()
    atlas = SurfaceAtlas(plain.faces, plain.part, plain.uv, plain.num_faces, symmetry=symmetry)
    part, uv = torch.tensor([2, 7, 24, 0]), torch.tensor([[0.5, 0.1], [1.0, 0.0], [0.9999, 1.0], [0.3, 0.4]])
    other, flipped = atlas.flip(part, uv)
    assert other.tolist() == [2, 8, 23, 0]
    wanted = [symmetry[1, 25, 127], symmetry[6, 0, 255], symmetry[23, 255, 254], [0.3, 0.4]]
    assert torch.allclose(flipped, torch.tensor(np.array(wanted), dtype=torch.float32))


def test_parts_may_be_bytes_as_in_an_image():
    atlas = open_body_atlas("low")
    part, uv = torch.arange(25, dtype=torch.uint8), torch.rand(25, 2)
    wide = part.long()
    assert torch.equal(atlas.to_surface(part, uv).faces, atlas.to_surface(wide, uv).faces)
    assert torch.equal(atlas.flip(part, uv)[0].long(), atlas.flip(wide, uv)[0])
    assert torch.equal(atlas.covers(part, uv), part > 0)


def test_flip_without_tables_says_what_is_missing():
    with refuses("symmetry"):
        scattered_atlas().flip(torch.tensor([2]), torch.rand(1, 2))


def test_parts_map_to_themselves_when_mirrored_twice_and_to_fourteen_coarse_ones():
    assert [MIRROR_PART[MIRROR_PART[part]] for part in range(25)] == list(range(25))
    for part, name in enumerate(PART_NAMES):
        swapped = name.replace("left", "?").replace("right", "left").replace("?", "right")
        assert PART_NAMES[MIRROR_PART[part]] == swapped
    assert sorted(set(COARSE_PART)) == list(range(15))


# The object


def test_arrays_cannot_change_and_copies_are_shared():
    atlas = open_body_atlas("low")
    for name in ("faces", "part", "uv"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(atlas, name)[0] = 0
    assert copy.deepcopy(atlas) is atlas and open_body_atlas("low") is atlas
    again = pickle.loads(pickle.dumps(atlas))
    assert np.array_equal(again.uv, atlas.uv) and again.mirrored and not again.uv.flags.writeable


@pytest.mark.parametrize(
    "name, change",
    [
        ("faces", {"faces": np.array([0, 0, 1])}),
        ("faces", {"faces": np.array([0, 1, 9])}),
        ("faces", {"faces": np.array([0, 1, -1])}),
        ("faces", {"faces": np.array([0.0, 1.0, 2.0])}),
        ("faces", {"faces": np.zeros(0, int), "part": np.zeros(0, int), "uv": np.zeros((0, 3, 2))}),
        ("part", {"part": np.array([1, 2])}),
        ("part", {"part": np.array([0, 1, 2])}),
        ("part", {"part": np.array([1, 2, 25])}),
        ("uv", {"uv": np.zeros((3, 2, 3))}),
        ("uv", {"uv": np.full((3, 3, 2), 1.01)}),
        ("uv", {"uv": np.full((3, 3, 2), np.nan)}),
        ("uv", {"uv": np.full((3, 3, 2), "0.5")}),
        ("symmetry", {"symmetry": np.zeros((23, 4, 4, 2))}),
        ("symmetry", {"symmetry": np.full((24, 4, 4, 2), np.nan)}),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name, change):
    arrays = {"faces": np.arange(3), "part": np.array([1, 2, 3]), "uv": np.random.default_rng(0).random((3, 3, 2))}
    with refuses(name):
        SurfaceAtlas(**(arrays | change), num_faces=5)


def test_arguments_that_do_not_fit_are_refused():
    atlas = open_body_atlas("low")
    with refuses("part", TypeError):
        atlas.to_surface(torch.rand(3), torch.rand(3, 2))
    with refuses("uv"):
        atlas.to_surface(torch.ones(3, dtype=torch.int64), torch.rand(3, 3))
    with refuses("batch shapes"):
        atlas.to_surface(torch.ones(2, 3, dtype=torch.int64), torch.rand(5, 3, 2))
    with refuses("surface.faces"), check_values():
        atlas.from_surface(SurfacePoints(torch.tensor([10**5]), torch.ones(1, 3) / 3))
    with refuses("detail"):
        open_body_atlas("medium")


# Own files


def test_saved_atlases_load_unchanged(tmp_path):
    symmetry = np.random.default_rng(0).random((24, 8, 8, 2))
    plain = scattered_atlas()
    for atlas in (plain, SurfaceAtlas(plain.faces, plain.part, plain.uv, 99, symmetry=symmetry), open_body_atlas()):
        atlas.save(tmp_path / "atlas.npz")
        again = SurfaceAtlas.load(tmp_path / "atlas.npz")
        for name in ("faces", "part", "uv"):
            assert np.array_equal(getattr(again, name), getattr(atlas, name))
        assert (again.num_faces, again.mirrored) == (atlas.num_faces, atlas.mirrored)
        assert (again.symmetry is None) == (atlas.symmetry is None)
    assert [path.name for path in tmp_path.iterdir()] == ["atlas.npz"]
    with refuses("path"):
        plain.save(tmp_path / "atlas.mat")
    with pytest.raises(FileNotFoundError, match="nowhere: expected a folder"):
        plain.save(tmp_path / "nowhere" / "atlas.npz")
    with pytest.raises(FileNotFoundError, match=r"none\.npz: expected a surface atlas"):
        SurfaceAtlas.load(tmp_path / "none.npz")


def test_files_of_another_kind_are_refused_by_name(tmp_path):
    path = tmp_path / "other.npz"
    stream = io.BytesIO()
    np.savez(stream, faces=np.arange(3))
    for contents in (b"", b"PK", b"text", stream.getvalue()):
        path.write_bytes(contents)
        with pytest.raises(ValueError, match=r"other\.npz: .*expected .+, got .+; .+"):
            SurfaceAtlas.load(path)
    with pytest.raises(ValueError, match="expected a surface atlas, got a folder"):
        SurfaceAtlas.load(tmp_path)


def test_damaged_files_are_refused_by_name_or_still_an_atlas(tmp_path):
    path, random = tmp_path / "damaged.npz", np.random.default_rng(0)
    scattered_atlas().save(path)
    whole = path.read_bytes()
    refused = 0
    for trial in range(300):
        damaged = bytearray(whole[: random.integers(1, len(whole))] if trial % 2 else whole)
        for place in random.integers(0, len(damaged), 3):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            SurfaceAtlas.load(path)
        except ValueError as error:
            assert str(error).startswith(str(path)) and ": expected " in str(error)
            refused += 1
    assert refused > 250
