"""Shape checks of jaxtyping are on in the tests (and only there: they would break torch.compile)."""

import os
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test never reaches for the network
hook = install_import_hook("reliev3r", "beartype.beartype")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _two_threads():
    torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real captures; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"no real captures at {SHARED}")
    return SHARED
