"""The mixture is SMPLify's, number by number; its file is read safely; fits find what poses are made of."""

import functools
import os
import pickle

import numpy as np
import pytest
import torch
from official_files import dumps
from oracles.mixture import random_moments, smplify_energy
from physique.priors import GaussianMixturePrior
from physique.testing import assert_right_to_second_order
from refusals import refuses
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch.testing import assert_close

COUNT, DIMS = 4, 69


@functools.cache
def moments():
    return random_moments(COUNT, DIMS)


@functools.cache
def prior():
    return GaussianMixturePrior.from_moments(*(torch.from_numpy(value) for value in moments()))


def poses(*batch, joints=23, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 0.4 * torch.randn(*batch, joints, 3, dtype=torch.float64, generator=generator)


def density(x, means, covars, weights):
    """Log density of the mixture by SciPy."""
    each = [multivariate_normal(mean, covar).logpdf(x) for mean, covar in zip(means, covars, strict=True)]
    return logsumexp(np.stack(each, -1) + np.log(weights), axis=-1)


def test_energy_is_that_of_smplify():
    means, covars, weights = moments()
    # Far poses, and one at each mean: every component is the cheapest once.
    given = torch.cat((poses(6), torch.from_numpy(means).unflatten(-1, (23, 3))))
    expected = [smplify_energy(pose, means, covars, weights) for pose in given.flatten(-2).numpy()]
    assert_close(prior().energy(given), torch.tensor(expected, dtype=torch.float64))


def test_log_prob_is_the_density_of_the_whole_mixture():
    given = poses(6)
    assert_close(prior().log_prob(given), torch.from_numpy(density(given.flatten(-2).numpy(), *moments())))


def test_residuals_square_to_the_energy():
    given = poses(2, 3)
    assert prior().residuals(given).shape == (2, 3, DIMS + 1)
    assert_close(prior().residuals(given).square().sum(-1), prior().energy(given))
    assert (prior().residuals(given)[..., -1] > 0).all()
    assert_close(prior()(given), prior().energy(given))


def test_without_hands_it_is_the_marginal_of_the_other_joints():
    means, covars, weights = moments()
    given = poses(5, joints=21)
    short = means[:, :63], covars[:, :63, :63], weights
    assert_close(prior().log_prob(given), torch.from_numpy(density(given.flatten(-2).numpy(), *short)))
    expected = [smplify_energy(pose, *short) for pose in given.flatten(-2).numpy()]
    assert_close(prior().energy(given), torch.tensor(expected, dtype=torch.float64))
    assert prior().residuals(given).shape == (5, 64)


def test_mean_pose_weighs_the_components():
    means, _, weights = moments()
    assert_close(prior().mean_pose, torch.from_numpy(np.average(means, axis=0, weights=weights)).view(23, 3))
    assert_close(prior().start_poses[2].flatten(), torch.from_numpy(means[2]))


def test_samples_have_the_moments_of_the_mixture():
    means, covars, weights = moments()
    drawn = prior().sample(20_000, generator=torch.Generator().manual_seed(0)).flatten(-2)
    mean = np.average(means, axis=0, weights=weights)
    away = means - mean
    spread = sum(w * (covar + np.outer(a, a)) for w, covar, a in zip(weights, covars, away, strict=True))
    assert_close(drawn.mean(0), torch.from_numpy(mean), atol=0.03, rtol=0)
    assert_close(drawn.mT.cov(), torch.from_numpy(spread), atol=0.03, rtol=0.1)
    again = prior().sample(3, generator=torch.Generator().manual_seed(5))
    assert torch.equal(again, prior().sample(3, generator=torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("method", ["energy", "log_prob", "residuals"])
@pytest.mark.parametrize("joints", [23, 21])
def test_right_to_second_order(method, joints):
    assert_right_to_second_order(getattr(prior(), method), poses(2, joints=joints), rtol=1e-4)


@pytest.mark.parametrize("method", ["energy", "log_prob", "residuals"])
def test_vmap_is_the_batch(method):
    function = getattr(prior(), method)
    given = poses(3)
    assert_close(torch.func.vmap(function)(given), function(given))
    assert_close(torch.func.jacrev(function)(given[0]), torch.func.jacfwd(function)(given[0]))


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
def test_any_batch(batch):
    assert prior().energy(poses(*batch)).shape == prior().log_prob(poses(*batch)).shape == batch
    assert prior().residuals(poses(*batch)).shape == (*batch, DIMS + 1)


def test_state_and_sizes_are_all_there_is():
    again = GaussianMixturePrior(prior().num_components, prior().num_dims).double()
    again.load_state_dict(prior().state_dict())
    assert torch.equal(again.energy(poses(3)), prior().energy(poses(3)))


def test_a_new_one_is_a_standard_gaussian():
    given = poses(3)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(given).sum((-2, -1))
    assert_close(GaussianMixturePrior().double().log_prob(given), expected)


def entries(**changes):
    return dict(zip(("means", "covars", "weights"), moments(), strict=True)) | changes


@pytest.mark.parametrize("python2", [False, True])
def test_the_official_file_is_read(tmp_path, python2):
    path = tmp_path / "gmm_08.pkl"
    path.write_bytes(dumps(entries(), python2=python2))
    read = GaussianMixturePrior.from_file(path, dtype=torch.float64)
    assert_close(read.state_dict(), prior().state_dict())
    single = GaussianMixturePrior.from_file(path)
    assert {value.dtype for value in single.state_dict().values()} == {torch.float32}
    assert_close(single.energy(poses(4).float()), prior().energy(poses(4)).float(), rtol=1e-4, atol=1e-3)


class Hostile:
    def __reduce__(self):
        return os.system, ("touch ran",)


DAMAGED = {
    "hostile": pickle.dumps(entries(means=Hostile())),
    "hostile elsewhere": pickle.dumps(entries(other=Hostile())),
    "empty": b"",
    "text": b"hello",
    "truncated": dumps(entries())[:5000],
    "a list": pickle.dumps([1, 2]),
    "no weights": pickle.dumps({"means": moments()[0], "covars": moments()[1]}),
    "one covariance": dumps(entries(covars=moments()[1][0])),
    "other sizes": dumps(entries(means=moments()[0][:, :66])),
    "two numbers a joint": dumps(entries(means=moments()[0][:, :68], covars=moments()[1][:, :68, :68])),
    "NaN": dumps(entries(means=np.full((COUNT, DIMS), np.nan))),
    "negative weight": dumps(entries(weights=np.array([-0.5, 0.5, 0.5, 0.5]))),
    "not positive definite": dumps(entries(covars=-moments()[1])),
    "not symmetric": dumps(entries(covars=np.triu(moments()[1]))),
    "no components": dumps({"means": np.zeros((0, 69)), "covars": np.zeros((0, 69, 69)), "weights": np.zeros(0)}),
    "texts": pickle.dumps({"means": "a", "covars": "b", "weights": "c"}),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_and_hostile_files_are_refused_by_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "gmm.pkl"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(ValueError, match=r"(?s)gmm\.pkl: .*expected .+, got .+; .+"):
        GaussianMixturePrior.from_file(path)
    assert not (tmp_path / "ran").exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pkl: expected a mixture file"):
        GaussianMixturePrior.from_file(tmp_path / "nowhere.pkl")
    with pytest.raises(ValueError, match="got a folder"):
        GaussianMixturePrior.from_file(tmp_path)


def two_groups(count=600):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 4, 3, dtype=torch.float64, generator=generator)
    centres = torch.tensor([[0.5], [-0.5]], dtype=torch.float64).repeat_interleave(count // 2, 0)
    return 0.1 * noise + centres.view(-1, 1, 1)


def test_fit_finds_the_groups_that_poses_are_drawn_from():
    found = GaussianMixturePrior.fit(two_groups(), 2, seed=0, floor=1e-3, shared=1.0)
    order = found.means[:, 0].argsort()
    assert_close(found.means[order], torch.tensor([[-0.5], [0.5]]).double().expand(2, 12), atol=0.03, rtol=0)
    covars = torch.linalg.inv(found.whitening.mT @ found.whitening)
    assert_close(covars, 0.01 * torch.eye(12).double().expand(2, 12, 12), atol=3e-3, rtol=0)
    assert_close(found.weights, torch.full((2,), 0.5).double(), atol=1e-6, rtol=0)


def test_fit_beats_one_gaussian_and_is_the_same_for_the_same_seed():
    given = two_groups()
    one, two = (GaussianMixturePrior.fit(given, count, seed=3) for count in (1, 2))
    assert two.log_prob(given).mean() > one.log_prob(given).mean() + 0.5
    assert torch.equal(two.means, GaussianMixturePrior.fit(given, 2, seed=3).means)


def test_joints_that_never_move_are_held_by_the_floor_alone():
    given = torch.zeros(50, 23, 3)
    given[:, 0] = torch.linspace(-1, 1, 50).unsqueeze(-1)
    found = GaussianMixturePrior.fit(given, 3, seed=0, floor=0.1)
    assert found.means.dtype == torch.float32
    stiff = found.whitening.diagonal(dim1=-2, dim2=-1)[:, 3:]
    assert_close(stiff, torch.full_like(stiff, 10.0))
    same = GaussianMixturePrior.fit(torch.zeros(8, 23, 3), 3, seed=0)
    assert same.energy(torch.zeros(23, 3)).isfinite()


def test_wrong_arguments_are_refused_by_name():
    with refuses("body_pose"):
        prior().energy(torch.zeros(5, 22, 3, dtype=torch.float64))
    with refuses("body_pose"):
        prior().log_prob(torch.zeros(69, dtype=torch.float64))
    with refuses("num_components, num_dims"):
        GaussianMixturePrior(8, 70)
    with refuses("poses"):
        GaussianMixturePrior.fit(torch.zeros(3, 23, 3), 4, seed=0)
    with refuses("poses"):
        GaussianMixturePrior.fit(torch.full((9, 23, 3), torch.nan), 4, seed=0)
    with refuses("floor"):
        GaussianMixturePrior.fit(torch.zeros(9, 23, 3), 4, seed=0, floor=0.0)
