"""A random perspective camera in front of random points."""

import pytest
import torch
from physique.cameras import PerspectiveCamera


@pytest.fixture
def points():
    return torch.randn(4, 7, 3, dtype=torch.float64)


@pytest.fixture
def camera():
    batch, double = (4,), torch.float64
    return PerspectiveCamera(
        focal=800 + 400 * torch.rand(*batch, 2, dtype=double),
        center=300 + 100 * torch.rand(*batch, 2, dtype=double),
        rotation=torch.linalg.qr(torch.randn(*batch, 3, 3, dtype=double)).Q,
        translation=torch.cat([torch.randn(*batch, 2, dtype=double), 9 + torch.rand(*batch, 1, dtype=double)], -1),
    )
