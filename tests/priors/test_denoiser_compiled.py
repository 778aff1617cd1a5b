"""The denoiser and the prox under torch.compile(fullgraph=True), vmap and double backward."""

import torch
from physique.priors import PoseDenoiser, spectral_prox


def test_denoiser_compiles_whole():
    denoiser = PoseDenoiser(width=16).eval()
    torch.nn.init.normal_(denoiser.correction.weight)
    points, mask = torch.randn(3, 14, 3), torch.rand(3, 14) > 0.3
    for method, inputs in ((denoiser.denoise, (points, mask)), (denoiser.lift, (points[..., :2], mask.float()))):
        compiled = torch.compile(method, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*inputs), method(*inputs))


def test_denoiser_runs_under_vmap_and_to_second_order():
    denoiser = PoseDenoiser(width=16).double().eval()
    torch.nn.init.normal_(denoiser.correction.weight)
    points = torch.randn(3, 14, 3, dtype=torch.float64)
    torch.testing.assert_close(torch.vmap(denoiser.denoise)(points), denoiser.denoise(points))
    assert torch.autograd.gradgradcheck(lambda x: denoiser.denoise(x)[0, :2], points[:1].requires_grad_())


def test_prox_compiles_whole_and_runs_under_vmap():
    matrix, level = torch.randn(5, 2, 3), torch.rand(5)
    expected = spectral_prox(matrix, level)
    compiled = torch.compile(spectral_prox, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(matrix, level), expected)
    torch.testing.assert_close(torch.vmap(spectral_prox)(matrix, level), expected)
