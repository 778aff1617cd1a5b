"""The autoencoder has VPoser's layers and reads its file; poses come back; energies are right to second order."""

import copy
import functools
import pickle
import zipfile

import pytest
import torch
from physique.geometry import axis_angle_to_matrix, geodesic_angle
from physique.priors import PoseVAE
from physique.testing import assert_right_to_second_order
from refusals import refuses
from torch import nn
from torch.testing import assert_close

WIDTH, LATENTS = 24, 6


class Reshape(nn.Module):
    """Has no tensors: a place in the sequence, as in VPoser."""

    def forward(self, x):
        return x.flatten(1)


class Head(nn.Module):
    def __init__(self, features, count):
        super().__init__()
        self.mu = nn.Linear(features, count)
        self.logvar = nn.Linear(features, count)


def vposer(width=WIDTH, latents=LATENTS):
    """A network with the layers that VPoser v2 is described to have, weights and statistics at random."""
    torch.manual_seed(0)
    net = nn.Module()
    net.encoder_net = nn.Sequential(
        Reshape(),
        nn.BatchNorm1d(63),
        nn.Linear(63, width),
        nn.LeakyReLU(),
        nn.BatchNorm1d(width),
        nn.Dropout(0.1),
        nn.Linear(width, width),
        nn.Linear(width, width),
        Head(width, latents),
    )
    net.decoder_net = nn.Sequential(
        nn.Linear(latents, width),
        nn.LeakyReLU(),
        nn.Dropout(0.1),
        nn.Linear(width, width),
        nn.LeakyReLU(),
        nn.Linear(width, 126),
        Reshape(),
    )
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if "running" in name:
                value.copy_(torch.rand(value.shape) + 0.5)
    return net.eval()


def checkpoint(net, **changes):
    """What Lightning writes: the tensors under a prefix, beside those of a body model that it was trained with."""
    state = {f"vp_model.{name}": value for name, value in net.state_dict().items()}
    return {"state_dict": {**state, "bm_train.v_template": torch.zeros(10, 3), **changes}, "epoch": 3}


@functools.cache
def prior():
    net = vposer()
    made = PoseVAE(WIDTH, LATENTS, num_starts=2).double()
    made.load_state_dict({**made.state_dict(), **net.state_dict()})
    return made.eval()


def poses(*batch, joints=23, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 0.4 * torch.randn(*batch, joints, 3, dtype=torch.float64, generator=generator)


def by_hand(net, pose):
    """Mean and deviation of z, and the decoded matrices, from the description: 6D as rows of (3, 2)."""
    features = pose.reshape(-1, 63)
    for layer in net.encoder_net[1:8]:
        features = layer(features)
    mean, spread = net.encoder_net[8].mu(features), nn.functional.softplus(net.encoder_net[8].logvar(features))
    out = mean
    for layer in net.decoder_net[:6]:
        out = layer(out)
    first, second = out.view(-1, 21, 3, 2).unbind(-1)
    first = first / first.norm(dim=-1, keepdim=True)
    second = second - (first * second).sum(-1, keepdim=True) * first
    second = second / second.norm(dim=-1, keepdim=True)
    return mean, spread, torch.stack((first, second, torch.linalg.cross(first, second)), dim=-1)


@pytest.mark.parametrize("form", ["checkpoint", "state dict", "old format"])
def test_a_users_vposer_is_read_and_does_what_it_did(tmp_path, form):
    net = vposer()
    path = tmp_path / "V02_05_epoch=13_val_loss=0.03.ckpt"
    saved = checkpoint(net) if form == "checkpoint" else net.state_dict()
    torch.save(saved, path, _use_new_zipfile_serialization=form != "old format")
    read = PoseVAE.from_vposer(path, dtype=torch.float64)
    assert not read.training and (read.width, read.num_latents, read.num_starts) == (WIDTH, LATENTS, 1)
    given = poses(5, joints=21)
    with torch.no_grad():
        mean, spread, matrices = by_hand(net.double(), given)
        assert_close(read.encode(given).mean, mean)
        assert_close(read.encode(given).stddev, spread)
        assert_close(read.decode_matrices(mean), matrices)
    assert_close(axis_angle_to_matrix(read.decode(mean)), matrices)


class Anything:
    pass


def broken(tensors, name, value):
    return {**tensors, name: value}


STATE = vposer().state_dict()
REFUSED = {
    "other objects": checkpoint(vposer(), extra=Anything()),
    "a whole module": vposer(),
    "another network": nn.Linear(3, 3).state_dict(),
    "a list": [torch.zeros(3)],
    "the first version": broken(STATE, "bodyprior_enc_fc1.weight", torch.zeros(512, 63)),
    "a missing tensor": {name: value for name, value in STATE.items() if name != "decoder_net.3.bias"},
    "no tensor": broken(STATE, "decoder_net.3.bias", 3.0),
    "another size": broken(STATE, "decoder_net.5.weight", torch.zeros(138, WIDTH)),
    "NaN": broken(STATE, "decoder_net.5.bias", torch.full((126,), torch.nan)),
    "a negative variance": broken(STATE, "encoder_net.1.running_var", -torch.ones(63)),
    "a scalar": broken(STATE, "encoder_net.8.mu.weight", torch.tensor(1.0)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused_by_name(tmp_path, name):
    path = tmp_path / "vposer.pt"
    torch.save(REFUSED[name], path)
    with pytest.raises(ValueError, match=r"(?s)vposer\.pt: .*expected .+, got .+; .+"):
        PoseVAE.from_vposer(path)


class Hostile:
    def __reduce__(self):
        return open, ("ran", "w")


def test_nothing_runs_and_damage_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "vposer.pt"
    torch.save(STATE, path)
    whole = path.read_bytes()
    torch.save({"state_dict": Hostile()}, tmp_path / "hostile.pt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a", "b")
    for damaged in (b"", b"hello", whole[: len(whole) // 2], pickle.dumps(Hostile()), b"\x80\x04."):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"(?s)vposer\.pt: expected .+, got .+; .+"):
            PoseVAE.from_vposer(path)
    for other in ("hostile.pt", "other.zip", "."):
        with pytest.raises(ValueError, match=r"expected .+, got .+; .+"):
            PoseVAE.from_vposer(other)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(FileNotFoundError, match="nowhere.pt: expected VPoser weights"):
        PoseVAE.from_vposer("nowhere.pt")


def test_energy_is_half_the_latent_and_the_angles_to_the_reconstruction():
    given = poses(4, joints=21)
    latent = prior().encode(given).mean
    angle = geodesic_angle(prior().decode_matrices(latent), axis_angle_to_matrix(given))
    expected = (latent.square().sum(-1) + (angle / prior().spread).square().sum(-1)) / 2
    assert_close(prior().energy(given), expected)
    assert_close(prior().residuals(given).square().sum(-1), expected)
    assert prior().residuals(given).shape == (4, LATENTS + 63)
    assert_close(prior()(given), expected)


def test_hands_are_not_looked_at():
    given = poses(3)
    other = given.clone()
    other[:, 21:] += 1
    assert_close(prior().energy(other), prior().energy(given))
    assert_close(prior().energy(given), prior().energy(given[:, :21]))


@functools.cache
def trained():
    """An autoencoder of poses on one line, and those poses."""
    torch.manual_seed(0)
    line = torch.linspace(-1, 1, 64).view(-1, 1, 1)
    given = line * 0.5 * torch.randn(21, 3)
    made = PoseVAE(32, 4)
    optimiser = torch.optim.Adam(made.parameters(), 5e-3)
    for _ in range(300):
        latent = made.encode(given)
        error = (made.decode_matrices(latent.mean) - axis_angle_to_matrix(given)).square().sum((-3, -2, -1))
        optimiser.zero_grad()
        (error.mean() + 1e-3 * latent.mean.square().mean()).backward()
        optimiser.step()
    return made.eval(), given


def test_what_it_was_trained_on_comes_back_and_costs_less_than_the_rest():
    made, given = trained()
    back = made.decode(made.encode(given).mean)
    angle = geodesic_angle(axis_angle_to_matrix(back), axis_angle_to_matrix(given))
    assert angle.mean().rad2deg() < 3
    other = given + 0.3 * torch.randn(given.shape, generator=torch.Generator().manual_seed(0))
    assert made.energy(other).min() > made.energy(given).max()


def test_evaluation_is_deterministic_and_treats_samples_apart():
    given = poses(5)
    assert torch.equal(prior().energy(given), prior().energy(given))
    assert_close(prior().energy(given[2]), prior().energy(given)[2])


@pytest.mark.parametrize("method", ["energy", "residuals"])
def test_right_to_second_order(method):
    # Leaky rectifiers have corners: narrow steps stay on one side of them.
    assert_right_to_second_order(getattr(prior(), method), poses(2, joints=21), rtol=1e-3, atol=1e-4, step=1e-5)


def test_vmap_is_the_batch():
    given = poses(3)
    assert_close(torch.func.vmap(prior().energy)(given), prior().energy(given))
    assert_close(torch.func.jacrev(prior().residuals)(given[0]), torch.func.jacfwd(prior().residuals)(given[0]))


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
def test_any_batch(batch):
    assert prior().energy(poses(*batch)).shape == batch
    latent = prior().encode(poses(*batch)).mean
    assert latent.shape == (*batch, LATENTS)
    assert prior().decode(latent).shape == (*batch, 21, 3)


def test_state_and_sizes_are_all_there_is():
    again = PoseVAE(prior().width, prior().num_latents, prior().num_starts).double().eval()
    again.load_state_dict(copy.deepcopy(prior().state_dict()))
    assert torch.equal(again.energy(poses(3)), prior().energy(poses(3)))
    assert again.start_poses.shape == (2, 21, 3)


def test_wrong_arguments_are_refused_by_name():
    with refuses("body_pose"):
        prior().energy(torch.zeros(5, 22, 3, dtype=torch.float64))
    with refuses("latent"):
        prior().decode(torch.zeros(5, 7, dtype=torch.float64))
    with refuses("width, num_latents, num_starts"):
        PoseVAE(0)
    with refuses("spread"):
        PoseVAE.from_vposer("any.pt", spread=0.0)
