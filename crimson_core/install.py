"""How to install this package. Error messages take it from here, and a test holds README, docs and metadata to it."""

HOMEPAGE = "https://huggingface.co/spaces/rajpurkarlab/crimson"
SOURCE = f"git+{HOMEPAGE}"  # it is not on PyPI

# The prompt of the reference implementation needs nothing that crimson-score requires, torch among it.
INSTALL_PROMPT = 'pip install --no-deps "crimson-score>=0.2.0,<0.3"'


def install_command(extra: str) -> str:
    """The command that installs the package with an extra of `pyproject.toml`."""
    return f'pip install "crimson-metric[{extra}] @ {SOURCE}"'
