import copy

import pytest
import torch
from physique import priors
from physique.geometry import axis_angle_to_matrix
from physique.priors import (
    FactorizedDiscriminator,
    gradient_penalty,
    hinge_discriminator_loss,
    hinge_generator_loss,
    lsgan_discriminator_loss,
    lsgan_generator_loss,
    r1_penalty,
    wasserstein_discriminator_loss,
)
from physique.testing import assert_right_to_second_order
from refusals import refuses
from torch import nn
from torch.func import vmap
from torch.testing import assert_close

GENERATOR = {
    "lsgan": (lsgan_generator_loss, lambda d: (d - 1) ** 2),
    "hinge": (hinge_generator_loss, lambda d: -d),
}
DISCRIMINATOR = {
    "lsgan": (lsgan_discriminator_loss, lambda r, f: (r - 1) ** 2 + f**2),
    "hinge": (hinge_discriminator_loss, lambda r, f: max(0.0, 1 - r) + max(0.0, 1 + f)),
    "wasserstein": (wasserstein_discriminator_loss, lambda r, f: f - r),
}
EVERY_GENERATOR = pytest.mark.parametrize("name", GENERATOR)
EVERY_DISCRIMINATOR = pytest.mark.parametrize("name", DISCRIMINATOR)


def outputs(*shape):
    return 2 * torch.randn(*shape, dtype=torch.float64)


def real_and_fake(count=6):
    """Return inputs of the discriminator for real and for generated samples."""

    def draw(scale):
        rotations = axis_angle_to_matrix(scale * torch.randn(count, 23, 3, dtype=torch.float64))
        return [rotations, scale * torch.randn(count, 10, dtype=torch.float64)]

    return draw(0.5), draw(2.0)


def made():
    torch.manual_seed(0)
    return FactorizedDiscriminator().double()


@EVERY_GENERATOR
@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)], ids=str)
def test_generator_losses_are_sums_over_the_outputs(name, batch):
    loss, term = GENERATOR[name]
    fake = outputs(*batch, 25)
    expected = [sum(term(d) for d in row) for row in fake.reshape(-1, 25).tolist()]
    assert_close(loss(fake), torch.tensor(expected, dtype=torch.float64).reshape(batch))


@EVERY_DISCRIMINATOR
@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)], ids=str)
def test_discriminator_losses_are_sums_over_the_outputs(name, batch):
    loss, term = DISCRIMINATOR[name]
    real, fake = outputs(*batch, 25), outputs(*batch, 25)
    rows = zip(real.reshape(-1, 25).tolist(), fake.reshape(-1, 25).tolist(), strict=True)
    expected = [sum(term(r, f) for r, f in zip(*row, strict=True)) for row in rows]
    assert_close(loss(real, fake), torch.tensor(expected, dtype=torch.float64).reshape(batch))


@EVERY_DISCRIMINATOR
def test_real_batches_may_be_larger_than_fake_ones(name):
    loss, _ = DISCRIMINATOR[name]
    stages, images, others = outputs(3, 4, 25), outputs(4, 25), outputs(7, 25)

    def parts(real, fake):
        # An output that is not finite costs nothing: what is left is the other side's part.
        nothing = torch.full((25,), torch.nan, dtype=torch.float64)
        return loss(real, nothing).mean() + loss(nothing, fake).mean()

    assert_close(loss(stages, images).mean(), parts(stages, images))
    assert_close(loss(others[:, None], images).mean(), parts(others, images))


def test_the_best_outputs_are_one_for_real_and_zero_for_fake():
    assert_close(lsgan_discriminator_loss(torch.ones(25), torch.zeros(25)), torch.tensor(0.0))
    assert_close(lsgan_generator_loss(torch.ones(25)), torch.tensor(0.0))


@EVERY_GENERATOR
def test_generator_losses_are_right_to_second_order(name):
    assert_right_to_second_order(GENERATOR[name][0], outputs(3, 5))


@EVERY_DISCRIMINATOR
def test_discriminator_losses_are_right_to_second_order(name):
    assert_right_to_second_order(DISCRIMINATOR[name][0], outputs(3, 5), outputs(3, 5))


@EVERY_DISCRIMINATOR
def test_outputs_that_are_not_finite_touch_neither_value_nor_gradient(name):
    loss, _ = DISCRIMINATOR[name]
    real, fake = outputs(4, 5), outputs(4, 5)
    broken = real.clone(), fake.clone()
    broken[0][1], broken[1][2, 3] = torch.nan, torch.inf
    leaves = [value.requires_grad_() for value in broken]
    found = loss(*leaves)
    assert found.isfinite().all()
    assert_close(found[[0, 3]], loss(real, fake)[[0, 3]])
    found.sum().backward()
    assert not leaves[0].grad[1].any() and leaves[1].grad[2, 3] == 0
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


def trained(discriminator, real, fake, optimiser, penalties=False):
    """Return a copy of the discriminator after one step."""
    discriminator = copy.deepcopy(discriminator)
    loss = lsgan_discriminator_loss(discriminator(*real), discriminator(*fake)).sum()
    if penalties:
        fraction = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)[: len(fake[0])]
        loss = loss + gradient_penalty(discriminator, real, fake, fraction).sum()
        loss = loss + r1_penalty(discriminator, real).sum()
    step = optimiser(discriminator.parameters())
    loss.backward()
    step.step()
    return dict(discriminator.named_parameters())


OPTIMISERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-2),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
}


@pytest.mark.parametrize("optimiser", OPTIMISERS.values(), ids=OPTIMISERS)
@pytest.mark.parametrize("part", [0, 1], ids=["rotations", "betas"])
@pytest.mark.parametrize("penalties", [False, True], ids=["loss", "with penalties"])
def test_a_nan_sample_never_reaches_the_weights(optimiser, part, penalties):
    discriminator = made()
    real, fake = real_and_fake()
    without = [[value[:5] for value in values] for values in (real, fake)]
    for values in (real, fake):
        values[part].view(6, -1)[5, 3] = torch.nan
    found = trained(discriminator, real, fake, optimiser, penalties)
    expected = trained(discriminator, *without, optimiser, penalties)
    for name, value in found.items():
        assert value.isfinite().all(), name
        # Adam divides by the size of the gradient, and with it rounding.
        assert_close(value, expected[name], rtol=1e-8, atol=1e-8)


def test_a_nan_sample_changes_neither_loss_nor_gradient_of_the_generator():
    discriminator = made()
    _, fake = real_and_fake()
    fake[0][2, 4, 1, 1] = torch.nan
    rotations = fake[0].requires_grad_()
    loss = lsgan_generator_loss(discriminator(rotations, fake[1]))
    assert loss[2] == 0 and loss.isfinite().all()
    loss.mean().backward()
    assert rotations.grad.isfinite().all() and not rotations.grad[2].any() and rotations.grad[3].any()


def test_gradient_penalty_is_the_squared_excess_of_the_gradients_length():
    real, fake = outputs(5, 4), outputs(5, 4)
    weight = outputs(4)
    expected = (weight.norm() - 1).square().expand(5)
    found = gradient_penalty(lambda x: (x @ weight).unsqueeze(-1), [real], [fake], torch.rand(5).double())
    assert_close(found, expected)


def test_gradient_penalty_is_taken_between_real_and_fake():
    real, fake, fraction = outputs(2, 3), outputs(2, 3), torch.tensor([0.0, 0.25]).double()
    between = torch.lerp(real, fake, fraction[:, None])
    found = gradient_penalty(lambda x: x**3, [real], [fake], fraction)
    assert_close(found, ((3 * between**2).norm(dim=-1) - 1).square())


def test_r1_penalty_is_the_squared_gradient_over_all_inputs():
    first, second = outputs(5, 2, 2), outputs(5, 3)
    found = r1_penalty(lambda a, b: torch.cat((a.flatten(1) ** 2, b**3), -1), [first, second])
    assert_close(found, (2 * first).square().sum((1, 2)) + (3 * second**2).square().sum(1))


def test_penalties_train_the_weights():
    for penalty in (
        lambda discriminator, real, fake: gradient_penalty(discriminator, real, fake, torch.full((6,), 0.5).double()),
        lambda discriminator, real, _: r1_penalty(discriminator, real),
    ):
        discriminator = made()
        values = penalty(discriminator, *real_and_fake())
        assert values.shape == (6,)
        values.mean().backward()
        # The gradient of planes does not depend on the last biases.
        weights = {name: value.grad for name, value in discriminator.named_parameters() if "weight" in name}
        assert all(gradient.isfinite().all() and gradient.any() for gradient in weights.values())


def test_penalties_are_right_to_second_order_in_the_weights():
    real, fake, fraction = [outputs(3, 4)], [outputs(3, 4)], torch.rand(3).double()

    def smooth(weight):
        return lambda x: torch.tanh(x @ weight)

    weight = outputs(4, 2)
    assert_right_to_second_order(lambda w: gradient_penalty(smooth(w), real, fake, fraction), weight)
    assert_right_to_second_order(lambda w: r1_penalty(smooth(w), real), weight)


def test_a_flat_discriminator_has_a_finite_gradient_penalty():
    layer = nn.Linear(4, 1)
    nn.init.zeros_(layer.weight)
    penalty = gradient_penalty(layer, [torch.randn(2, 4)], [torch.randn(2, 4)], torch.rand(2))
    assert_close(penalty, torch.ones(2))
    penalty.sum().backward()
    assert not layer.weight.grad.any()


def test_penalties_take_any_batch():
    real, fake = outputs(2, 3, 4), outputs(2, 3, 4)
    fraction = torch.rand(2, 3).double()

    def cube(x):
        return x**3

    whole = gradient_penalty(cube, [real], [fake], fraction)
    assert whole.shape == (2, 3)
    assert_close(whole[1, 2], gradient_penalty(cube, [real[1, 2]], [fake[1, 2]], fraction[1, 2]))
    assert_close(vmap(lambda r, f, t: gradient_penalty(cube, [r], [f], t))(real, fake, fraction), whole)
    assert r1_penalty(cube, [real]).shape == (2, 3)
    assert r1_penalty(cube, [real[:, :0]]).shape == (2, 0)


def test_arguments_that_do_not_fit_are_refused():
    with refuses("fake"):
        lsgan_discriminator_loss(torch.zeros(4, 25), torch.zeros(4, 24))
    with refuses("batch shapes"):
        hinge_discriminator_loss(torch.zeros(4, 25), torch.zeros(5, 25))
    with refuses("fake"):
        lsgan_generator_loss(torch.tensor(1.0))
    with refuses("fake"):
        gradient_penalty(torch.square, [torch.zeros(4, 2)], [torch.zeros(3, 2)], torch.rand(4))
    with refuses("real"):
        gradient_penalty(torch.square, [torch.zeros(4, 2)], [torch.zeros(4, 2)], torch.rand(3))
    with refuses("real"):
        r1_penalty(lambda a, b: a + b, [torch.zeros(4, 2), torch.zeros(1, 2)])


def test_every_loss_is_public():
    public = {"gradient_penalty", "r1_penalty", "wasserstein_discriminator_loss"}
    public |= {f"{game}_{side}_loss" for game in ("lsgan", "hinge") for side in ("generator", "discriminator")}
    assert public <= set(dir(priors))
