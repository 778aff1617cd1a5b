"""Hand PCA against smplx, and as linear algebra."""

import numpy as np
import pytest
import smplx
import torch
from hypothesis import given
from hypothesis import strategies as st
from official_files import write_official_file
from physique.bodymodel import BodyModel, HandPCA, load_body_model, mean_hand_pose, synthetic_model
from refusals import refuses


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hands")
    return {family: write_official_file(folder, family, "npz") for family in ("smplx", "mano")}


def only_own_joints(model):
    """Keep smplx from picking vertices of the official mesh, which the small file lacks."""
    model.vertex_joint_selector.extra_joints_idxs = torch.zeros(0, dtype=torch.long)
    return model


@pytest.mark.parametrize("flat_hand_mean", [False, True])
@pytest.mark.parametrize("num_components", [6, 12, 45])
def test_a_body_poses_its_hands_as_smplx_does(files, num_components, flat_hand_mean):
    theirs = only_own_joints(
        smplx.SMPLX(
            str(files["smplx"]),
            num_pca_comps=num_components,
            use_pca=True,
            flat_hand_mean=flat_hand_mean,
            batch_size=3,
            dtype=torch.float64,
        )
    )
    data = load_body_model(files["smplx"])
    options = {"num_components": num_components, "flat_hand_mean": flat_hand_mean, "dtype": torch.float64}
    left, right = HandPCA.from_data(data, "left", **options), HandPCA.from_data(data, "right", **options)
    coefficients = torch.randn(2, 3, num_components, dtype=torch.float64)
    expected = theirs(left_hand_pose=coefficients[0], right_hand_pose=coefficients[1]).vertices
    model = BodyModel(data, dtype=torch.float64)
    vertices = model(left_hand_pose=left(coefficients[0]), right_hand_pose=right(coefficients[1])).vertices
    torch.testing.assert_close(vertices, expected, rtol=0, atol=1e-6)  # smplx casts the mean through float32


def test_mano_poses_its_hand_as_smplx_does(files):
    theirs = smplx.MANO(
        str(files["mano"]), ext="npz", num_pca_comps=9, use_pca=True, batch_size=4, dtype=torch.float64, is_rhand=True
    )
    data = load_body_model(files["mano"])
    hand = HandPCA.from_data(data, num_components=9, dtype=torch.float64)
    coefficients = torch.randn(4, 9, dtype=torch.float64)
    expected = theirs(hand_pose=coefficients).vertices
    vertices = BodyModel(data, dtype=torch.float64)(hand_pose=hand(coefficients)).vertices
    torch.testing.assert_close(vertices, expected, rtol=0, atol=1e-6)


def test_the_mean_pose_is_what_smplx_adds(files):
    theirs = smplx.SMPLX(str(files["smplx"]), use_pca=False, flat_hand_mean=False, dtype=torch.float64)
    data = load_body_model(files["smplx"])
    means = torch.cat(
        [mean_hand_pose(data, "left", dtype=torch.float64), mean_hand_pose(data, "right", dtype=torch.float64)]
    )
    torch.testing.assert_close(theirs.pose_mean[-90:].double(), means.flatten(), rtol=0, atol=1e-7)
    hand = HandPCA.from_data(data, "left", dtype=torch.float64)
    assert torch.equal(hand(torch.zeros(6, dtype=torch.float64)), means[:15])


def space(num_components: int = 6, dtype: torch.dtype = torch.float64) -> HandPCA:
    """A space whose rows are independent but neither orthogonal nor of unit length."""
    random = np.random.default_rng(3)
    return HandPCA(random.normal(size=(num_components, 45)), random.normal(size=45), dtype=dtype)


@given(st.integers(1, 45))
def test_encoding_undoes_decoding(num_components):
    hand = space(num_components)
    coefficients = torch.randn(5, num_components, dtype=torch.float64)
    torch.testing.assert_close(hand.encode(hand(coefficients)), coefficients)


def test_encoding_gives_the_nearest_pose_of_the_space():
    hand = space()
    pose = torch.randn(15, 3, dtype=torch.float64)
    residual = (hand(hand.encode(pose)) - pose).flatten()
    torch.testing.assert_close(hand.components @ residual, torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)])
def test_any_batch(batch):
    hand = space(dtype=torch.float32)
    pose = hand(torch.randn(*batch, 6))
    assert pose.shape == (*batch, 15, 3) and pose.dtype == torch.float32
    assert hand.encode(pose).shape == (*batch, 6)


def test_it_is_differentiable_and_holds_nothing_to_save():
    hand = space()
    assert hand.state_dict() == {} and repr(hand) == "HandPCA(num_components=6)"
    assert torch.autograd.gradcheck(hand, torch.randn(2, 6, dtype=torch.float64, requires_grad=True))
    torch.testing.assert_close(
        torch.func.jacrev(hand)(torch.zeros(6, dtype=torch.float64)).flatten(0, 1), hand.components.mT
    )


def test_errors_say_what_to_do(files):
    body, mano = load_body_model(files["smplx"]), load_body_model(files["mano"])
    with pytest.raises(ValueError, match="hands_components: expected in the model file, got only hands_componentsl, "):
        HandPCA.from_data(body)
    with pytest.raises(
        ValueError, match="hands_meanr: expected in the model file, got only hands_mean; choose the side"
    ):
        mean_hand_pose(mano, "right")
    with pytest.raises(
        ValueError, match="hands_meanl: expected in the model file, got none; merge it from the MANO file"
    ):
        mean_hand_pose(synthetic_model("smplh"), "left")
    with pytest.raises(ValueError, match="num_components: expected 1 to 45, got 46"):
        HandPCA.from_data(mano, num_components=46)
    with pytest.raises(ValueError, match="num_components: expected 1 to 45, got 0"):
        HandPCA.from_data(mano, num_components=0)
    with pytest.raises(ValueError, match=r"components: expected \(n, 45\) numbers, got \(45, 6\)"):
        HandPCA(np.zeros((45, 6)), np.zeros(45))
    with pytest.raises(ValueError, match=r"mean: expected \(45,\) numbers, got \(44,\)"):
        HandPCA(np.eye(45), np.zeros(44))
    with pytest.raises(ValueError, match="components: expected 2 independent rows"):
        HandPCA(np.ones((2, 45)), np.zeros(45))
    with pytest.raises(ValueError, match="mean: expected finite numbers"):
        HandPCA(np.eye(45), np.full(45, np.nan))
    with pytest.raises(ValueError, match=r"coefficients: expected \(\*batch, 6\), got \(45,\)"):
        space()(torch.zeros(45, dtype=torch.float64))
    with refuses("hand_pose"):
        space().encode(torch.zeros(2, 45, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"coefficients: expected torch.float64, got torch.float32; use hand.to"):
        space()(torch.zeros(6))
