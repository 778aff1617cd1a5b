import math

import pytest
import torch
from oracles.discriminator import realness
from physique.bodymodel import BodyModel, open_body, synthetic_model
from physique.geometry import axis_angle_to_matrix
from physique.priors import FactorizedDiscriminator, JointReport, lsgan_generator_loss
from physique.testing import assert_right_to_second_order
from refusals import refuses
from torch.func import functional_call, jacfwd, jacrev, vmap
from torch.testing import assert_close

BATCHES = pytest.mark.parametrize("batch", [(), (4,), (2, 3), (0,)], ids=str)


def turns(*batch, joints=23, dtype=torch.float64):
    return axis_angle_to_matrix(torch.randn(*batch, joints, 3, dtype=dtype))


def made(num_joints=23, num_betas=10, seed=0):
    torch.manual_seed(seed)
    return FactorizedDiscriminator(num_joints, num_betas).double()


def with_biases(discriminator):
    """Biases start at zero: give them values that an error in their place would show."""
    for name, parameter in discriminator.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return discriminator


@BATCHES
def test_outputs_are_those_of_the_layers_written_as_loops(batch):
    discriminator = with_biases(made())
    rotations, betas = turns(*batch), torch.randn(*batch, 10, dtype=torch.float64)
    found = discriminator(rotations, betas)
    assert found.shape == (*batch, 25)
    state = discriminator.state_dict()
    for one, rotation, shape in zip(
        found.reshape(-1, 25), rotations.reshape(-1, 23, 3, 3), betas.reshape(-1, 10), strict=True
    ):
        assert_close(one.detach(), torch.from_numpy(realness(state, rotation.numpy(), shape.numpy())))


def test_layers_have_the_sizes_of_hmr():
    sizes = {name: tuple(value.shape) for name, value in FactorizedDiscriminator().named_parameters()}
    assert sizes == {
        "embedding.0.weight": (32, 9),
        "embedding.0.bias": (32,),
        "embedding.2.weight": (32, 32),
        "embedding.2.bias": (32,),
        "joint_weight": (23, 32),
        "joint_bias": (23,),
        "all_joints.0.weight": (1024, 736),
        "all_joints.0.bias": (1024,),
        "all_joints.2.weight": (1024, 1024),
        "all_joints.2.bias": (1024,),
        "all_joints.4.weight": (1, 1024),
        "all_joints.4.bias": (1,),
        "shape.0.weight": (10, 10),
        "shape.0.bias": (10,),
        "shape.2.weight": (5, 10),
        "shape.2.bias": (5,),
        "shape.4.weight": (1, 5),
        "shape.4.bias": (1,),
    }
    assert sum(math.prod(size) for size in sizes.values()) == 1_807_619


def test_weights_start_uniform_after_glorot_and_biases_at_zero():
    for name, value in FactorizedDiscriminator().named_parameters():
        if name.endswith("bias"):
            assert not value.any(), name
            continue
        outputs, inputs = (1, 32) if name == "joint_weight" else value.shape
        bound = math.sqrt(6 / (inputs + outputs))
        assert value.abs().max() <= bound, name
        assert value.abs().max() > 0.55 * bound, name
        if value.numel() > 500:
            assert_close(value.std().item(), bound / math.sqrt(3), rtol=0.06, atol=0.0)
            assert abs(value.mean().item()) < 0.12 * bound, name


def test_one_seed_makes_one_discriminator():
    first, second, third = (made(seed=seed)(turns(3) * 0 + 0.3, torch.ones(3, 10).double()) for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.allclose(first, third)


def test_gradients_reach_every_parameter():
    discriminator = with_biases(made())
    lsgan_generator_loss(discriminator(turns(32), torch.randn(32, 10, dtype=torch.float64))).mean().backward()
    for name, parameter in discriminator.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), name
    assert discriminator.joint_weight.grad.any(-1).all(), "each joint's layer"


def test_the_embedding_is_shared_and_the_heads_are_not():
    discriminator = with_biases(made())
    same = turns(1).mT[:, :1].expand(1, 23, 3, 3)
    outputs = discriminator.pose_realness(same)[0, :23]
    assert outputs.unique().numel() == 23
    with torch.no_grad():
        discriminator.joint_weight.copy_(discriminator.joint_weight[:1].expand(23, 32))
        discriminator.joint_bias.fill_(0.5)
    outputs = discriminator.pose_realness(same)[0, :23]
    assert_close(outputs, outputs[:1].expand(23))


def test_a_joint_changes_its_own_output_and_that_of_the_pose():
    discriminator = made()
    before, betas = turns(), torch.randn(10, dtype=torch.float64)
    after = before.clone()
    after[7] = turns(joints=1)[0]
    changed = discriminator(before, betas) != discriminator(after, betas)
    assert changed.nonzero().flatten().tolist() == [7, 23]


def test_the_shape_changes_the_last_output_alone():
    discriminator = made()
    rotations = turns()
    changed = discriminator(rotations, torch.ones(10).double()) != discriminator(rotations, torch.zeros(10).double())
    assert changed.nonzero().flatten().tolist() == [24]


def test_the_parts_are_the_outputs_of_the_whole():
    discriminator = made()
    rotations, betas = turns(5), torch.randn(5, 10, dtype=torch.float64)
    whole = discriminator(rotations, betas)
    assert_close(whole[:, :24], discriminator.pose_realness(rotations))
    assert_close(whole[:, 24], discriminator.shape_realness(betas))


def test_batches_broadcast():
    discriminator = made()
    rotations, betas = turns(4, 1), torch.randn(3, 10, dtype=torch.float64)
    assert_close(
        discriminator(rotations, betas),
        discriminator(rotations.expand(4, 3, 23, 3, 3), betas.expand(4, 3, 10)),
    )
    assert discriminator(turns(), torch.zeros(0, 10).double()).shape == (0, 25)


@pytest.mark.parametrize(("family", "joints"), [("smplx", 54), ("mano", 15), ("smplh", 51)])
def test_any_family_has_one(family, joints):
    model = BodyModel(synthetic_model(family, seed=0))
    count = model.skeleton.num_joints - 1
    assert count == joints
    discriminator = FactorizedDiscriminator(count, model.data.num_betas).double()
    betas = torch.zeros(2, model.data.num_betas).double()
    assert discriminator(turns(2, joints=count), betas).shape == (2, count + 2)


def test_segment_scales_can_take_the_place_of_betas():
    assert made(23, 24)(turns(2), torch.ones(2, 24).double()).shape == (2, 25)


def test_energy_sums_the_squares_that_the_generator_loss_sums_without_the_shape():
    discriminator = made()
    pose = torch.randn(6, 23, 3, dtype=torch.float64)
    outputs = discriminator.pose_realness(axis_angle_to_matrix(pose))
    assert_close(discriminator.energy(pose), lsgan_generator_loss(outputs))
    assert_close(discriminator.residuals(pose), outputs - 1)
    whole = discriminator(axis_angle_to_matrix(pose), torch.zeros(10).double())
    shape = (discriminator.shape_realness(torch.zeros(10).double()) - 1).square()
    assert_close(discriminator.energy(pose) + shape, lsgan_generator_loss(whole))


# The layers are planes with corners: steps must be short enough not to cross one.
@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_energy_is_right_to_second_order_between_its_corners(scale):
    discriminator = with_biases(made(2, 1))
    pose = scale * torch.randn(3, 2, 3, dtype=torch.float64)
    assert_right_to_second_order(discriminator.energy, pose, step=1e-5, atol=1e-6)


def test_outputs_are_right_to_second_order_in_the_weights():
    discriminator = with_biases(made(1, 1))
    rotations, betas = turns(2, joints=1), torch.randn(2, 1, dtype=torch.float64)
    fixed = {name: value.detach() for name, value in discriminator.named_parameters()}

    def loss(weight, bias):
        changed = fixed | {"embedding.0.weight": weight, "joint_bias": bias}
        return lsgan_generator_loss(functional_call(discriminator, changed, (rotations, betas)))

    assert_right_to_second_order(loss, fixed["embedding.0.weight"], fixed["joint_bias"], step=1e-5, atol=1e-6)


def test_vmap_and_both_jacobians_agree_with_the_batch():
    discriminator = made()
    rotations, betas = turns(3), torch.randn(3, 10, dtype=torch.float64)
    assert_close(vmap(discriminator)(rotations, betas), discriminator(rotations, betas))
    one = rotations[0]
    assert_close(jacfwd(discriminator.pose_realness)(one), jacrev(discriminator.pose_realness)(one))


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["rotations", "betas"])
def test_a_broken_sample_has_nan_outputs_and_no_gradient(wrong, where):
    discriminator = with_biases(made())
    inputs = {"rotations": turns(3), "betas": torch.randn(3, 10, dtype=torch.float64)}
    inputs[where].view(3, -1)[1, 4] = wrong
    leaves = {name: value.requires_grad_() for name, value in inputs.items()}
    outputs = discriminator(**leaves)
    assert outputs[1].isnan().all() and outputs[[0, 2]].isfinite().all()
    lsgan_generator_loss(outputs).sum().backward()
    for value in leaves.values():
        assert value.grad[[0, 2]].any() and not value.grad[1].any()


def test_the_energy_of_a_broken_pose_is_nan_with_gradient_zero():
    pose = torch.randn(2, 23, 3, dtype=torch.float64)
    pose[1, 3, 2] = torch.nan
    energy = made().energy(pose.requires_grad_())
    assert energy[0].isfinite() and energy[1].isnan()
    energy.nansum().backward()
    assert pose.grad[0].any() and not pose.grad[1].any()


def test_a_report_names_the_least_real_joints():
    discriminator = made()
    with torch.no_grad():
        discriminator.joint_weight.zero_()
        discriminator.joint_bias.fill_(1.0)
        discriminator.joint_bias[[3, 16]] = torch.tensor([0.2, -0.1], dtype=torch.float64)
    report = discriminator.joint_report(turns(2))
    assert report.least_real(2) == [["right_shoulder", "left_knee"]] * 2
    assert report.names == open_body("low").skeleton.names[1:]
    assert discriminator.joint_report(turns()).least_real() == ["right_shoulder"]
    assert_close(report.realness, discriminator.joint_bias.detach().expand(2, 23))


def test_a_report_takes_names_for_other_skeletons():
    report = made(2).joint_report(turns(joints=2), ("hip", "knee"))
    assert sorted(report.least_real(2)) == ["hip", "knee"] and isinstance(report, JointReport)
    with refuses("joints"):
        made(2).joint_report(turns(joints=2))
    with refuses("joints"):
        made().joint_report(turns(), ("hip", "knee"))


def test_inputs_of_another_size_are_refused():
    discriminator = made()
    with refuses("rotations"):
        discriminator(turns(joints=21), torch.zeros(10).double())
    with refuses("rotations"):
        discriminator(torch.zeros(23, 3).double(), torch.zeros(10).double())
    with refuses("betas"):
        discriminator(turns(), torch.zeros(16).double())
    with refuses("batch shapes"):
        discriminator(turns(2), torch.zeros(3, 10).double())
    with refuses("body_pose"):
        discriminator.energy(torch.zeros(69).double())
    with refuses("num_joints"):
        FactorizedDiscriminator(0)
    with refuses("num_betas"):
        FactorizedDiscriminator(23, 0)
