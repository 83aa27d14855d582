"""How to install this package: the one source for error messages; a test compares README, docs and metadata with it."""

HOMEPAGE = "https://huggingface.co/spaces/rajpurkarlab/crimson"
SOURCE = f"git+{HOMEPAGE}"  # the package is not on PyPI

# The reference implementation's prompt needs none of the requirements of crimson-score, which include torch.
INSTALL_PROMPT = 'pip install --no-deps "crimson-score>=0.2.0,<0.3"'

WITHOUT_PROMPT = ("openai", "vllm")  # extras that lack it: it would bring another torch, or one that nothing needs


def install_command(extra: str) -> str:
    """The command that installs the package with an extra of `pyproject.toml`."""
    return f'pip install "crimson-metric[{extra}] @ {SOURCE}"'
