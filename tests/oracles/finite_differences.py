"""Derivatives by central differences, in float64."""

import torch


def directional(f, x, direction, step=1e-5):
    """Return the derivative of `f` at `x` along `direction`."""
    return (f(x + step * direction) - f(x - step * direction)) / (2 * step)


def gradient(f, x, step=1e-5):
    """Return the gradient of a number-valued `f`, one coordinate at a time."""
    flat = torch.zeros(x.numel(), dtype=x.dtype)
    for index in range(x.numel()):
        direction = torch.zeros(x.numel(), dtype=x.dtype)
        direction[index] = 1
        flat[index] = directional(f, x, direction.reshape(x.shape), step)
    return flat.reshape(x.shape)


def assert_right_to_second_order(f, x, tolerance=1e-5, directions=3):
    """Check gradient and Hessian-vector products of a number-valued `f` at `x` against central differences."""
    assert x.dtype == torch.float64
    x = x.detach().requires_grad_()

    def exact_gradient(point):
        point = point.detach().requires_grad_()
        return torch.autograd.grad(f(point), point)[0]

    with torch.no_grad():
        expected = gradient(f, x.detach())
    torch.testing.assert_close(exact_gradient(x), expected, rtol=tolerance, atol=tolerance)
    generator = torch.Generator().manual_seed(1)
    for _ in range(directions):
        direction = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        (first,) = torch.autograd.grad(f(x), x, create_graph=True)
        (product,) = torch.autograd.grad((first * direction).sum(), x)
        expected = directional(exact_gradient, x.detach(), direction)
        torch.testing.assert_close(product, expected, rtol=tolerance, atol=tolerance)
