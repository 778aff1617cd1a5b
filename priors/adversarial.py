"""Losses of adversarial training: least squares, hinge and Wasserstein, with the two gradient penalties.

A discriminator gives H outputs a sample, larger for what looks more real; each output is a game of its own, and the
losses sum over them. One loss a sample is returned. An output that is NaN or infinite has no say: its loss is 0, and so
is its gradient, so that one broken sample does not reach the weights of the discriminator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry.checks import broadcast_batches, expect_shape
from ..geometry.norms import length


def lsgan_generator_loss(fake: Float[Tensor, "*batch H"]) -> Float[Tensor, "*batch"]:
    """Return the sum of the squared distances of the outputs from 1, what the discriminator says of the real.

    Σ_h (D_h − 1)² (Mao et al. 2017), the adversarial loss that HMR (Kanazawa et al. 2018) trains its encoder with.

    Args:
        fake: (*B, H) outputs for what was generated.

    Returns:
        (*B,), one loss a sample.

    Raises:
        ValueError: no last dimension.

    Example:
        >>> lsgan_generator_loss(torch.tensor([1.0, 0.0, 3.0]))
        tensor(5.)
    """
    return _summed("fake", fake, lambda output: (output - 1).square())


def lsgan_discriminator_loss(real: Float[Tensor, "*real H"], fake: Float[Tensor, "*fake H"]) -> Float[Tensor, "*batch"]:
    """Return the sum of the squared distances of real outputs from 1 and of fake ones from 0.

    Σ_h (D_h(real) − 1)² + D_h(fake)² (Mao et al. 2017; HMR). Detach what was generated before the discriminator sees
    it, so that this loss trains nothing else.

    The two need not be pairs: their batches broadcast. HMR's T estimates of B images are (T, B, H), and so are as many
    real samples. With real (T, B, H) and fake (B, H) the mean of the result is the mean of one plus the mean of the
    other; for any N and M, so is that of real (N, 1, H) and fake (M, H).

    Args:
        real: (*B, H) outputs for real samples.
        fake: (*B, H) outputs for generated ones.

    Returns:
        (*B,), one loss a pair.

    Raises:
        ValueError: another number of outputs, or batches that do not broadcast.

    Example:
        >>> lsgan_discriminator_loss(torch.ones(3, 4, 25), torch.full((4, 25), 0.2)).mean()
        tensor(1.)
    """
    _expect_pair(real, fake)
    return lsgan_generator_loss(real) + _summed("fake", fake, torch.square)


def hinge_generator_loss(fake: Float[Tensor, "*batch H"]) -> Float[Tensor, "*batch"]:
    """Return minus the sum of the outputs: the generator's part of the hinge and of the Wasserstein game.

    Args:
        fake: (*B, H) outputs for what was generated.

    Returns:
        (*B,), one loss a sample.

    Raises:
        ValueError: no last dimension.

    Example:
        >>> hinge_generator_loss(torch.tensor([1.0, 0.5]))
        tensor(-1.5000)
    """
    return _summed("fake", fake, torch.neg)


def hinge_discriminator_loss(real: Float[Tensor, "*real H"], fake: Float[Tensor, "*fake H"]) -> Float[Tensor, "*batch"]:
    """Return the sum of what real outputs lack to 1 and of what fake ones exceed −1.

    Σ_h max(0, 1 − D_h(real)) + max(0, 1 + D_h(fake)) (Lim and Ye 2017). Batches broadcast as in
    `lsgan_discriminator_loss`; the corners have gradient 0.

    Args:
        real: (*B, H) outputs for real samples.
        fake: (*B, H) outputs for generated ones.

    Returns:
        (*B,), one loss a pair.

    Raises:
        ValueError: another number of outputs, or batches that do not broadcast.

    Example:
        >>> hinge_discriminator_loss(torch.tensor([2.0, 0.0]), torch.tensor([-2.0, 0.0]))
        tensor(2.)
    """
    _expect_pair(real, fake)
    return _summed("real", real, lambda output: (1 - output).relu()) + _summed(
        "fake", fake, lambda output: (1 + output).relu()
    )


def wasserstein_discriminator_loss(
    real: Float[Tensor, "*real H"], fake: Float[Tensor, "*fake H"]
) -> Float[Tensor, "*batch"]:
    """Return the sum of the fake outputs minus that of the real ones.

    Σ_h D_h(fake) − D_h(real) (Arjovsky et al. 2017). It has no lower bound: add `gradient_penalty`, ten times in the
    paper. The generator's part is `hinge_generator_loss`. Batches broadcast as in `lsgan_discriminator_loss`.

    Args:
        real: (*B, H) outputs for real samples.
        fake: (*B, H) outputs for generated ones.

    Returns:
        (*B,), one loss a pair.

    Raises:
        ValueError: another number of outputs, or batches that do not broadcast.

    Example:
        >>> wasserstein_discriminator_loss(torch.tensor([2.0, 0.0]), torch.tensor([-2.0, 0.5]))
        tensor(-3.5000)
    """
    _expect_pair(real, fake)
    return hinge_generator_loss(real) - hinge_generator_loss(fake)


def gradient_penalty(
    discriminator: Callable[..., Tensor],
    real: Sequence[Tensor],
    fake: Sequence[Tensor],
    fraction: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch"]:
    """Return the squared distance from 1 of the gradient's length, between real and generated samples.

    (‖∇ Σ_h D_h(x)‖ − 1)² at x = real + fraction · (fake − real) (Gulrajani et al. 2017). The gradient is with respect
    to all inputs of a sample together; the penalty can be differentiated with respect to the weights. Points between
    two rotation matrices are matrices, but no rotations. A gradient of length 0 is penalised by 1, with gradient 0.
    A sample with a number that is not finite has penalty 0.

    Args:
        discriminator: maps inputs (*B, …) to outputs (*B, H), each sample for itself.
        real: its inputs for real samples, each (*B, …), all of the same batch.
        fake: its inputs for generated ones, of the same shapes.
        fraction: (*B,) where in between, uniform from 0 to 1: `torch.rand(batch)`.

    Returns:
        (*B,), one penalty a sample.

    Raises:
        ValueError: inputs whose shapes differ, or without the batch of `fraction`.

    Example:
        >>> real, fake = torch.zeros(4, 3), torch.ones(4, 3)
        >>> gradient_penalty(lambda x: 3 * x[..., :1], [real], [fake], torch.rand(4))
        tensor([4., 4., 4., 4.])
    """
    if [value.shape for value in real] != [value.shape for value in fake]:
        shapes = [[tuple(value.shape) for value in values] for values in (real, fake)]
        raise ValueError(f"fake: expected the shapes of real, {shapes[0]}, got {shapes[1]}; draw as many of both")
    _expect_batch("real", real, fraction.shape)
    between = []
    for first, second in zip(real, fake, strict=True):
        part = fraction.reshape(fraction.shape + (1,) * (first.dim() - fraction.dim()))
        between.append(first + part * (second - first))
    gradient, valid = _input_gradient(discriminator, between, fraction.dim())
    return torch.where(valid, (length(gradient) - 1).square(), 0)


def r1_penalty(discriminator: Callable[..., Tensor], real: Sequence[Tensor]) -> Float[Tensor, "*batch"]:
    """Return the squared length of the discriminator's gradient at real samples.

    ‖∇ Σ_h D_h(x)‖² (Mescheder et al. 2018, who weight it by γ/2 with γ = 10 for images). The gradient is with respect
    to all inputs of a sample together; the penalty can be differentiated with respect to the weights. A sample with a
    number that is not finite has penalty 0.

    Args:
        discriminator: maps inputs (*B, …) to outputs (*B, H), each sample for itself.
        real: its inputs for real samples, each (*B, …), all of the same batch.

    Returns:
        (*B,), one penalty a sample.

    Raises:
        ValueError: inputs without the batch of the outputs.

    Example:
        >>> r1_penalty(lambda x: 3 * x[..., :1], [torch.zeros(4, 3)])
        tensor([9., 9., 9., 9.])
    """
    batch = discriminator(*(value.detach() for value in real)).shape[:-1]
    _expect_batch("real", real, batch)
    gradient, valid = _input_gradient(discriminator, real, len(batch))
    return torch.where(valid, gradient.square().sum(-1), 0)


def _summed(name: str, outputs: Tensor, penalty: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the penalties summed over the outputs that are finite."""
    expect_shape(name, outputs, "H")
    finite = outputs.isfinite()
    # Replaced before the penalty and again after it: a NaN in the branch not taken would still make a NaN gradient.
    return torch.where(finite, penalty(torch.where(finite, outputs, 0)), 0).sum(-1)


def _expect_pair(real: Tensor, fake: Tensor) -> None:
    batch = expect_shape("real", real, "H")
    broadcast_batches({"real": batch, "fake": expect_shape("fake", fake, real.shape[-1])})


def _expect_batch(name: str, values: Sequence[Tensor], batch: torch.Size) -> None:
    for value in values:
        if value.shape[: len(batch)] != batch:
            raise ValueError(
                f"{name}: expected inputs of batch {tuple(batch)}, got {tuple(value.shape)}; expand them to one batch"
            )


def _input_gradient(
    discriminator: Callable[..., Tensor], inputs: Sequence[Tensor], batch_dims: int
) -> tuple[Tensor, Tensor]:
    """Return the gradient (*B, D) of the sum of each sample's outputs by its inputs, and which samples are finite."""
    valid = torch.stack([_flat(value, batch_dims).isfinite().all(-1) for value in inputs]).all(0)
    clean = tuple(
        torch.where(valid.reshape(valid.shape + (1,) * (value.dim() - batch_dims)), value, 0) for value in inputs
    )
    # Samples do not see each other, so the gradient of the total is that of each.
    gradient = torch.func.grad(lambda leaves: discriminator(*leaves).sum())(clean)
    return torch.cat([_flat(value, batch_dims) for value in gradient], dim=-1), valid


def _flat(value: Tensor, batch_dims: int) -> Tensor:
    return value.reshape(*value.shape[:batch_dims], value.shape[batch_dims:].numel())
