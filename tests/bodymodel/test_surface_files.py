"""DensePose's own files: written here in their layout, on meshes of any size and of SMPL's."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from physique.bodymodel import SurfaceAtlas, open_body, open_body_atlas, synthetic_model
from scipy.io import savemat

MISSING = (17, 40)


def uv_processed(data, atlas, seed=0, missing=MISSING):
    """Return the variables of UV_Processed.mat for a known atlas: split vertices, indices from 1, corners rotated."""
    random = np.random.default_rng(seed)
    kept = random.permutation(np.setdiff1d(np.arange(len(atlas.faces)), missing))
    vertices = data.faces[atlas.faces[kept]]
    keys = np.concatenate([vertices[..., None], atlas.part[kept, None, None].repeat(3, 1)], -1).reshape(-1, 2)
    rows = np.concatenate([keys, atlas.uv[kept].reshape(-1, 2)], -1)
    split, corner = np.unique(rows, axis=0, return_inverse=True)
    corner = corner.reshape(-1, 3)
    turn = random.integers(0, 3, len(kept))
    corner = np.take_along_axis(corner, (np.arange(3) + turn[:, None]) % 3, axis=1)
    corner[::2] = corner[::2, ::-1]
    return {
        "All_FaceIndices": atlas.part[kept][:, None].astype(np.uint8),
        "All_Faces": (corner + 1).astype(np.uint16),
        "All_U_norm": split[:, 2:3],
        "All_V_norm": split[:, 3:4],
        "All_vertices": (split[:, 0] + 1).astype(np.uint16)[None],
        "All_U": split[:, 2:3] * 3,
        "note": "text that nobody asked for",
    }


def smpl_sized():
    """Return a model with SMPL's counts (a globe: two poles and 82 rings of 84 vertices) and random charts for it."""
    ring, place = np.divmod(np.arange(81 * 84), 84)
    here, beside = 1 + 84 * ring + place, 1 + 84 * ring + (place + 1) % 84
    first, last = np.stack([here[:84], beside[:84]], -1), np.stack([here[-84:], beside[-84:]], -1) + 84
    faces = np.concatenate(
        [
            np.insert(first, 0, 0, axis=1),
            np.stack([here, here + 84, beside], -1),
            np.stack([beside, here + 84, beside + 84], -1),
            np.insert(last[:, ::-1], 0, 6889, axis=1),
        ]
    )
    data = replace(synthetic_model("smpl", num_vertices=6890), faces=faces)
    random = np.random.default_rng(1)
    uv = (random.random((13776, 1, 2)) + 0.02 * random.random((13776, 3, 2))).clip(0, 1)
    return data, SurfaceAtlas(np.arange(13776), random.integers(1, 25, 13776), uv, 13776)


@pytest.fixture(scope="module")
def low():
    data, atlas = open_body("low"), open_body_atlas("low")
    return data, uv_processed(data, atlas)


def save(folder, variables, name="UV_Processed.mat", **options):
    savemat(folder / name, variables, **options)
    return folder / name


@pytest.mark.parametrize("compress", [False, True])
def test_the_triangles_find_their_faces_and_corners(low, compress, tmp_path):
    data, variables = low
    atlas, known = (
        SurfaceAtlas.from_densepose(save(tmp_path, variables, do_compression=compress), data),
        open_body_atlas("low"),
    )
    order = np.argsort(atlas.faces)
    kept = np.setdiff1d(np.arange(len(data.faces)), MISSING)
    assert np.array_equal(atlas.faces[order], kept)
    assert np.array_equal(atlas.part[order], known.part[kept])
    assert np.array_equal(atlas.uv[order], known.uv[kept])
    assert atlas.num_faces == len(data.faces) and not atlas.mirrored


def test_a_file_with_the_counts_of_smpl(tmp_path):
    data, known = smpl_sized()
    assert data.faces.shape == (13776, 3)
    variables = uv_processed(data, known)
    assert variables["All_Faces"].shape == (13774, 3)
    atlas = SurfaceAtlas.from_densepose(save(tmp_path, variables), data)
    assert repr(atlas) == "SurfaceAtlas(24 parts, 13774 of 13776 faces, without flip)"
    part, uv = torch.randint(1, 25, (1000,)), torch.rand(1000, 2)
    points, same = atlas.to_surface(part, uv), known.to_surface(part, uv)
    agree = (points.faces == same.faces) | torch.isin(same.faces, torch.tensor(MISSING))
    assert agree.double().mean() > 0.99 and not torch.isin(points.faces, torch.tensor(MISSING)).any()


def test_corners_may_be_stored_as_floating_numbers(low, tmp_path):
    data, variables = low
    floating = {key: value.astype(float) if key.startswith("All") else value for key, value in variables.items()}
    atlas = SurfaceAtlas.from_densepose(save(tmp_path, floating), data)
    assert len(atlas.faces) == len(data.faces) - len(MISSING)


def test_symmetry_tables_are_read(low, tmp_path):
    data, variables = low
    random = np.random.default_rng(0)
    cells = {name: np.empty((1, 24), dtype=object) for name in ("U_transforms", "V_transforms")}
    for name in cells:
        cells[name][0] = [random.random((256, 256)) for _ in range(24)]
    tables = save(tmp_path, cells, "UV_symmetry_transforms.mat", do_compression=True)
    atlas = SurfaceAtlas.from_densepose(save(tmp_path, variables), data, symmetry=tables)
    part, uv = atlas.flip(torch.tensor([11]), torch.tensor([[0.25, 0.75]], dtype=torch.float64))
    assert part.tolist() == [12]
    assert uv.tolist() == [[cells["U_transforms"][0, 10][191, 63], cells["V_transforms"][0, 10][191, 63]]]
    cells["U_transforms"] = cells["U_transforms"][:, :20]
    tables = save(tmp_path, cells, "UV_symmetry_transforms.mat")
    with pytest.raises(ValueError, match=r"UV_symmetry_transforms\.mat: U_transforms: expected 24 tables"):
        SurfaceAtlas.from_densepose(tmp_path / "UV_Processed.mat", data, symmetry=tables)


def test_a_model_with_another_mesh_is_refused(low, tmp_path):
    _, variables = low
    with pytest.raises(ValueError, match=r"UV_Processed\.mat: All_Faces: expected triangles of .* SMPL's mesh"):
        SurfaceAtlas.from_densepose(save(tmp_path, variables), synthetic_model("smpl", num_vertices=2000))


def test_a_few_strange_triangles_are_left_out_with_a_warning(low, tmp_path):
    data, variables = low
    faces = variables["All_Faces"].copy()
    faces[:3] = faces[0, :1], faces[1, :1], faces[2, :1]
    path = save(tmp_path, variables | {"All_Faces": faces})
    with pytest.warns(UserWarning, match="left out 3 triangles"):
        atlas = SurfaceAtlas.from_densepose(path, data)
    assert len(atlas.faces) == len(data.faces) - len(MISSING) - 3


def changed(variables, key, value, at=0):
    array = variables[key].astype(float)
    array.reshape(-1)[at] = value
    return variables | {key: array}


@pytest.mark.parametrize(
    "change",
    [
        lambda v: {key: value for key, value in v.items() if key != "All_U_norm"},
        lambda v: v | {"All_U_norm": v["All_U_norm"][:-1]},
        lambda v: v | {"All_vertices": v["All_vertices"][:, :-1]},
        lambda v: v | {"All_FaceIndices": v["All_FaceIndices"][:-1]},
        lambda v: v | {"All_Faces": v["All_Faces"].T},
        lambda v: v | {"All_Faces": v["All_Faces"][:, :2]},
        lambda v: v | {"All_Faces": np.zeros((0, 3))},
        lambda v: v | {"All_Faces": "text"},
        lambda v: changed(v, "All_FaceIndices", 25),
        lambda v: changed(v, "All_FaceIndices", 0),
        lambda v: changed(v, "All_FaceIndices", 1.5),
        lambda v: changed(v, "All_Faces", 0),
        lambda v: changed(v, "All_Faces", 10**6),
        lambda v: changed(v, "All_vertices", 0),
        lambda v: changed(v, "All_vertices", np.inf),
        lambda v: changed(v, "All_U_norm", np.nan),
        lambda v: changed(v, "All_V_norm", 1.1),
    ],
)
def test_damaged_contents_are_refused_by_name(low, change, tmp_path):
    data, variables = low
    with pytest.raises(ValueError, match=r"(?s)UV_Processed\.mat: .*expected .+, got .+; .+"):
        SurfaceAtlas.from_densepose(save(tmp_path, change(variables)), data)


def test_missing_and_foreign_files_are_refused_by_name(low, tmp_path):
    data, _ = low
    with pytest.raises(FileNotFoundError, match=r"none\.mat: expected a \.mat file, got no file"):
        SurfaceAtlas.from_densepose(tmp_path / "none.mat", data)
    with pytest.raises(ValueError, match=r"expected a \.mat file, got a folder"):
        SurfaceAtlas.from_densepose(tmp_path, data)
    path = tmp_path / "other.mat"
    for contents in (b"", b"PK\x03\x04", b"MATLAB 7.3 MAT-file", bytes(1000)):
        path.write_bytes(contents)
        with pytest.raises(ValueError, match=r"other\.mat: file: expected MATLAB|other\.mat: file: expected a MATLAB"):
            SurfaceAtlas.from_densepose(path, data)


def test_scrambled_files_are_refused_by_name_or_still_an_atlas(low, tmp_path):
    data, variables = low
    stream = io.BytesIO()
    savemat(stream, variables, do_compression=True)
    whole, random, path = stream.getvalue(), np.random.default_rng(0), tmp_path / "scrambled.mat"
    for trial in range(60):
        damaged = bytearray(whole[: random.integers(1, len(whole))] if trial % 2 else whole)
        for place in random.integers(min(120, len(damaged) - 1), len(damaged), 3):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            SurfaceAtlas.from_densepose(path, data)
        except ValueError as error:
            assert str(error).startswith(str(path)) and ": expected " in str(error)
