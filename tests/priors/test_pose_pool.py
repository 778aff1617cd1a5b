"""PosePool: where its poses come from, how it is divided, and files that lie."""

import json

import numpy as np
import pytest
import torch
from physique.bodymodel import BodyModel, open_body, synthetic_model
from physique.priors import PosePool
from refusals import refuses
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def body():
    return BodyModel(open_body("low"), dtype=torch.float64)


def random_pool(counts=(3, 4, 2), betas=10, dtype=torch.float64):
    count = sum(counts)
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) * 0.4

    return PosePool(
        draw(count, 23, 3),
        draw(count, 3),
        draw(count, betas) if betas else None,
        torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)),
        tuple(f"clip {letter}" for letter in "abcdefgh"[: len(counts)]),
    )


def assert_same(a, b):
    assert a.clip_names == b.clip_names and len(a) == len(b)
    for name in ("body_pose", "global_orient", "betas", "clip"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=0)


# Construction.


def test_shapes_must_fit_each_other():
    pool = random_pool()
    parts = {name: getattr(pool, name) for name in ("body_pose", "global_orient", "betas", "clip", "clip_names")}
    for name, value in (
        ("body_pose", pool.body_pose[:, :21]),
        ("body_pose", pool.body_pose[None]),
        ("global_orient", pool.global_orient[:4]),
        ("betas", pool.betas[:4]),
        ("clip", pool.clip[:4]),
        ("clip", pool.clip.double()),
        ("clip_names", ("a", "b", "a")),
    ):
        with refuses(name):
            PosePool(**(parts | {name: value}))


def test_clips_of_21_joints_get_hands_at_rest_and_one_shape_serves_a_clip():
    random = torch.randn(4, 23, 3)
    pool = PosePool.from_clips(
        {
            "a": {"body_pose": random[:, :21], "global_orient": random[:, 0], "betas": torch.ones(7), "transl": None},
            "b": {"body_pose": random[:2], "global_orient": random[:2, 0], "betas": torch.zeros(2, 7)},
        }
    )
    assert pool.clip.tolist() == [0, 0, 0, 0, 1, 1] and pool.clip_names == ("a", "b")
    assert torch.equal(pool.body_pose[:4, :21], random[:, :21]) and not pool.body_pose[:4, 21:].any()
    assert torch.equal(pool.betas.sum(-1), torch.tensor([7.0] * 4 + [0.0] * 2))


@pytest.mark.parametrize(
    ("clips", "name"),
    [
        ({}, "clips"),
        ({"a": {"body_pose": torch.zeros(2, 23, 3)}}, "a"),
        ({"a": {"body_pose": torch.zeros(2, 5, 3), "global_orient": torch.zeros(2, 3)}}, "a: body_pose"),
        ({"a": {"body_pose": torch.full((2, 23, 3), torch.nan), "global_orient": torch.zeros(2, 3)}}, "a: body_pose"),
        (
            {
                name: {"body_pose": torch.zeros(2, 23, 3), "global_orient": torch.zeros(2, 3), "betas": torch.zeros(n)}
                for name, n in (("a", 3), ("b", 4))
            },
            "betas",
        ),
    ],
)
def test_clips_that_cannot_be_used_are_refused(clips, name):
    with refuses(name):
        PosePool.from_clips(clips)


# Dividing.


def test_a_split_keeps_every_pose_once_with_its_clip_and_betas():
    pool = random_pool()
    train, held = pool.split(["clip b"])
    assert train.clip_names == ("clip a", "clip c") and held.clip_names == ("clip b",)
    assert_same(held, PosePool(pool.body_pose[3:7], pool.global_orient[3:7], pool.betas[3:7], held.clip, ("clip b",)))
    assert train.clip.tolist() == [0, 0, 0, 1, 1] and torch.equal(train.body_pose[3:], pool.body_pose[7:])
    with refuses("held_out"):
        pool.split(["clip z"])


def test_a_sample_is_drawn_from_the_pool_and_repeats_with_its_seed():
    pool = random_pool()
    first, again, other = (pool.sample(50, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert_same(first, again)
    assert not torch.equal(first.clip, other.clip) and first.clip.unique().numel() == 3
    ids = (first.body_pose[:, None] == pool.body_pose).all(-1).all(-1).float().argmax(1)
    assert_same(first, pool.select(ids))
    assert len(pool.select(slice(0, 0)).sample(0)) == 0
    with refuses("pool"):
        pool.select(slice(0, 0)).sample(1)


def test_mirrored_poses_are_reflections_of_the_body(body):
    pool = random_pool()
    both = pool.mirrored()
    assert_same(both.select(slice(0, len(pool))), pool)
    skeleton = body.skeleton

    def joints(part):
        return body.joints(body_pose=part.body_pose, global_orient=part.global_orient)

    real, mirrored = joints(pool), joints(both.select(slice(len(pool), None)))
    reflection = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    # The built-in body's own left and right agree to a tenth of a millimetre.
    torch.testing.assert_close(mirrored, (real * reflection)[:, list(skeleton.mirror)], rtol=0, atol=2e-3)
    assert_same(both.select(slice(len(pool), None)).mirrored().select(slice(len(pool), None)), pool)


def test_subsampling_keeps_frames_that_moved_since_the_last_kept_one(body):
    pool = random_pool((40, 30))
    # A slow swing: a random pose of each clip, reached over its frames.
    share = torch.cat((torch.linspace(0, 3, 40), torch.linspace(1, 0, 30))).double()
    swing = PosePool(share[:, None, None] * pool.body_pose[:1], 0 * pool.global_orient, None, pool.clip, ("a", "b"))
    joints = body.joints(body_pose=swing.body_pose).numpy()
    joints = joints - joints[:, :1]
    kept, last = [], {}
    for frame in range(70):
        before = last.get(int(swing.clip[frame]))
        if before is None or max(np.linalg.norm(joints[frame, j] - joints[before, j]) for j in range(24)) >= 0.1:
            last[int(swing.clip[frame])] = frame
            kept.append(frame)
    assert 4 < len(kept) < 60
    assert_same(swing.subsampled(body, movement=0.1), swing.select(torch.tensor(kept)))


def test_walking_away_is_no_movement_but_turning_is(body):
    turn = torch.zeros(9, 3)
    turn[:, 1] = torch.linspace(0, torch.pi, 9)
    still = PosePool(torch.zeros(9, 23, 3), torch.zeros(9, 3), None, torch.zeros(9).long(), ("a",))
    assert len(still.subsampled(body)) == 1
    turning = PosePool(torch.zeros(9, 23, 3), turn, None, torch.zeros(9).long(), ("a",))
    assert len(turning.subsampled(body)) == 9
    with refuses("body"):
        still.subsampled(BodyModel(synthetic_model("mano")))


# Files.


@pytest.mark.parametrize("betas", [0, 10])
def test_a_pool_survives_its_file(tmp_path, betas):
    pool = random_pool(betas=betas)
    pool.save(tmp_path / "pool.safetensors")
    assert_same(PosePool.load(tmp_path / "pool.safetensors", dtype=torch.float64), pool)
    half = pool.to(dtype=torch.float16)
    half.save(tmp_path / "half.safetensors")
    assert_same(PosePool.load(tmp_path / "half.safetensors"), half.to(dtype=torch.float32))
    half.save(tmp_path / "again.safetensors")
    assert (tmp_path / "half.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def test_a_pool_cut_short_anywhere_is_refused_by_name(tmp_path):
    path = tmp_path / "pool.safetensors"
    random_pool((2,)).to(dtype=torch.float16).save(path)
    contents = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 60, len(contents) // 2, len(contents) - 1):
        path.write_bytes(contents[:length])
        with refuses(str(path)):
            PosePool.load(path)
    path.write_bytes(contents + b"0")
    with refuses(str(path)):
        PosePool.load(path)
    with refuses(str(tmp_path / "none.safetensors"), FileNotFoundError):
        PosePool.load(tmp_path / "none.safetensors")


def test_a_header_that_promises_too_much_is_refused(tmp_path):
    path = tmp_path / "pool.safetensors"
    entry = {"dtype": "F32", "shape": [10**12, 23, 3], "data_offsets": [0, 10**12 * 276]}
    header = json.dumps({"__metadata__": {"format": "physique pose pool 1"}, "body_pose": entry}).encode()
    for claimed in (len(header), 2**63 - 1):
        path.write_bytes(claimed.to_bytes(8, "little") + header)
        with refuses(str(path)):
            PosePool.load(path)


def test_damage_anywhere_is_refused_by_name_or_harmless(tmp_path):
    path = tmp_path / "pool.safetensors"
    random_pool((2,)).save(path)
    contents = path.read_bytes()
    header = 8 + int.from_bytes(contents[:8], "little")
    random = np.random.default_rng(0)
    refused = 0
    for trial in range(400):
        damaged = bytearray(contents)
        damaged[random.integers(header if trial % 4 else len(contents))] = random.integers(256)
        path.write_bytes(damaged)
        try:
            PosePool.load(path)
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and ": expected " in str(error), error
    assert refused > 200


@pytest.mark.parametrize(
    ("change", "metadata"),
    [
        ({}, {"format": "another"}),
        ({}, {"clip_names": "[[["}),
        ({}, {"clip_names": "[" * 100_000}),
        ({}, {"clip_names": '{"a": 1}'}),
        ({}, {"clip_names": '["a", "a"]'}),
        ({"clip": torch.tensor([0, 2])}, {}),
        ({"clip": torch.tensor([-1, 0])}, {}),
        ({"clip": torch.zeros(2)}, {}),
        ({"body_pose": torch.zeros(2, 69)}, {}),
        ({"body_pose": torch.full((2, 23, 3), torch.inf)}, {}),
        ({"body_pose": torch.zeros(2, 23, 3).int()}, {}),
        ({"global_orient": torch.zeros(3, 3)}, {}),
        ({"betas": torch.zeros(10)}, {}),
        ({"betas": torch.zeros(())}, {}),
    ],
)
def test_a_file_with_other_contents_is_refused_by_name(tmp_path, change, metadata):
    tensors = {"body_pose": torch.zeros(2, 23, 3), "global_orient": torch.zeros(2, 3), "clip": torch.tensor([0, 1])}
    good = {"format": "physique pose pool 1", "clip_names": '["a", "b"]'}
    path = tmp_path / "pool.safetensors"
    save_file(tensors, path, metadata=good)
    assert len(PosePool.load(path)) == 2
    save_file(tensors | change, path, metadata=good | metadata)
    with refuses(rf"{path}(: \w+)?"):
        PosePool.load(path)


# AMASS.


def write_amass(path, frames, *, fps=120.0, joints=52, **more):
    poses = np.zeros((frames, joints, 3))
    poses[:, 0, 0] = np.pi / 2  # upright in a world with z up
    poses[:, 4, 0] = np.linspace(0, 1, frames)  # the left knee bends
    arrays = {"poses": poses.reshape(frames, -1), "trans": np.ones((frames, 3)), "betas": np.arange(16.0)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, mocap_framerate=np.array(fps), **(arrays | more))
    return path


def test_a_folder_of_amass_becomes_a_pool_with_y_up(tmp_path):
    write_amass(tmp_path / "CMU/02/02_01_poses.npz", 9)
    write_amass(tmp_path / "CMU/03/03_01_poses.npz", 5, fps=30.0, joints=55, betas=np.arange(6.0))
    np.savez(tmp_path / "CMU/02/shape.npz", betas=np.zeros(16))
    np.savez(tmp_path / "CMU/02/neutral_stagei.npz", betas=np.zeros(16))
    pool = PosePool.from_amass(tmp_path, fps=30, dtype=torch.float64)
    assert pool.clip_names == ("02/02_01_poses", "03/03_01_poses") and pool.clip.tolist() == [0] * 3 + [1] * 5
    torch.testing.assert_close(pool.global_orient, torch.zeros(8, 3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert pool.body_pose[:3, 3, 0].tolist() == [0.0, 0.5, 1.0] and not pool.body_pose[:, 21:].any()
    assert pool.betas[0].tolist() == list(range(10)) and pool.betas[-1].tolist() == [*range(6), 0, 0, 0, 0]
    assert PosePool.from_amass(tmp_path, num_betas=0).betas is None


def test_one_file_and_files_of_one_folder(tmp_path):
    paths = [write_amass(tmp_path / f"{name}.npz", 4, fps=30.0) for name in ("a", "b")]
    assert PosePool.from_amass(paths[0]).clip_names == ("a",)
    assert PosePool.from_amass(reversed(paths)).clip_names == ("b", "a")


def test_amass_that_is_not_there_or_damaged_is_refused(tmp_path):
    with refuses("paths"):
        PosePool.from_amass(tmp_path)
    for name in ("none.npz", "folder"):
        with refuses(str(tmp_path / name), FileNotFoundError):
            PosePool.from_amass(tmp_path / name)
    path = write_amass(tmp_path / "a.npz", 4)
    path.write_bytes(path.read_bytes()[:200])
    with refuses(str(path)):
        PosePool.from_amass([path])
    with refuses("fps"):
        PosePool.from_amass(write_amass(tmp_path / "b.npz", 4), fps=0)


def test_an_absurd_rate_leaves_the_first_frame(tmp_path):
    assert len(PosePool.from_amass(write_amass(tmp_path / "a.npz", 4, fps=1e300))) == 1
