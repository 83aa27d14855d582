"""The packages that local judges run on, which need not be installed."""

from importlib import import_module
from types import ModuleType

from crimson_core.errors import JudgeError
from crimson_core.install import install_command


def missing(package: str) -> JudgeError:
    """The error for a package that is not there."""
    return JudgeError(f"The hf judge needs {package}, which is not installed. Run: {install_command('hf')}")


def engine(module: str) -> ModuleType:
    """A package that only some judgements need.

    Raises:
        JudgeError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise missing(module) from None


def first_line(error: BaseException) -> str:
    """The first line of what an engine says, for an error of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
