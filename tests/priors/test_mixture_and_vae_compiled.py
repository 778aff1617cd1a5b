"""The mixture and the autoencoder compile to one graph."""

import pytest
import torch
from physique.priors import GaussianMixturePrior, PoseVAE
from torch.testing import assert_close


@pytest.mark.parametrize("method", ["energy", "residuals", "log_prob"])
@pytest.mark.parametrize("joints", [21, 23])
def test_mixture_compiles_in_one_graph(method, joints):
    prior = GaussianMixturePrior.fit(torch.randn(30, 23, 3, generator=torch.Generator().manual_seed(0)), 3, seed=0)
    given = 0.3 * torch.randn(4, joints, 3, generator=torch.Generator().manual_seed(1))
    torch._dynamo.reset()
    function = getattr(prior, method)
    assert_close(torch.compile(function, fullgraph=True, backend="eager")(given), function(given))


@pytest.mark.parametrize("method", ["energy", "residuals"])
def test_autoencoder_compiles_in_one_graph(method):
    torch.manual_seed(0)
    prior = PoseVAE(16, 4).eval()
    given = 0.3 * torch.randn(4, 21, 3)
    torch._dynamo.reset()
    function = getattr(prior, method)
    assert_close(torch.compile(function, fullgraph=True, backend="eager")(given), function(given))
