"""Model folders that several tests share. The real weights are built once and kept in the repository's `.cache`."""

import os
from pathlib import Path

import pytest
from filelock import FileLock

# Before torch counts the cores: threads beyond them only wait for each other.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))


@pytest.fixture(scope="session", autouse=True)
def _own_store(tmp_path_factory):
    """Judgements of tests are kept apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRIMSON_STORE", str(tmp_path_factory.mktemp("store") / "judgements.sqlite"))
        yield


@pytest.fixture(scope="session")
def gemma_folder() -> Path:
    """Gemma 3 270M, real weights of the base model, with Gemma's chat template."""
    from training.from_gguf import build_gemma

    target = Path(__file__).parent.parent / ".cache" / "gemma3-270m-1"  # count up when the recipe changes
    target.parent.mkdir(exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not target.is_dir():
            build_gemma(target)
    return target


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A tiny random model."""
    from models import save_tiny

    return save_tiny(tmp_path_factory.mktemp("tiny") / "model")
