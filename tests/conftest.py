"""Shared setup: the oracles and helpers of this folder are importable, and random draws are seeded."""

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

if not torch.cuda.is_available():
    # Read when Triton is first imported, which PyTorch's compilers do too: its kernels then run on the processor.
    os.environ["TRITON_INTERPRET"] = "1"

settings.register_profile("physique", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("physique")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def eager():
    """Body models run on operations of PyTorch, whatever was built."""
    from physique.bodymodel import use_backend

    with use_backend("eager"):
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data beside the repository; tests that need it skip where it is absent."""
    folder = HERE.parent.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data set (../shared/data) is not here")
    return folder
