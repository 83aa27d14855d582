"""Model folders that several tests share. The real weights are built once and kept in the repository's `.cache`."""

from pathlib import Path

import pytest
from models import save_tiny

from training.base import build_gemma


@pytest.fixture(scope="session", autouse=True)
def _own_store(tmp_path_factory):
    """Judgements of tests are kept apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRIMSON_STORE", str(tmp_path_factory.mktemp("store") / "judgements.sqlite"))
        yield


@pytest.fixture(scope="session")
def gemma_folder() -> Path:
    """Gemma 3 270M, real weights of the base model, with Gemma's chat template."""
    target = Path(__file__).parent.parent / ".cache" / "gemma3-270m-1"  # count up when the recipe changes
    if not target.is_dir():
        build_gemma(target)
    return target


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A tiny random model."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")
