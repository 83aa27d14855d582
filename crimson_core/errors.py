"""Errors that stop a run, and helpers that raise them.

A problem with one report pair is not an error but a failed `Judgement`.
"""

from importlib import import_module
from types import ModuleType
from typing import Any

from crimson_core.install import INSTALL_PROMPT, WITHOUT_PROMPT, install_command


class CrimsonError(Exception):
    """Base of every error that this package raises on purpose; the message never contains report text or a key."""


class InputError(CrimsonError, ValueError):
    """The input cannot be scored; the message names the argument (and the row) and says what to do."""


class InputWarning(UserWarning):
    """The input was not taken literally; the message names the place and contains no report text."""


class JudgeError(CrimsonError, RuntimeError):
    """The judge cannot be loaded or cannot continue; the message says what to do."""


class StoreError(CrimsonError, RuntimeError):
    """The store of judgements cannot be read or written; the message says what to do."""


class DamagedStoreError(StoreError):
    """The store's file is damaged."""


def needed(module: str, extra: str, what: str | None = None) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: The module's name.
        extra: The extra of ours that installs it.
        what: What needs it; None stands for the judge of the extra's name.

    Raises:
        JudgeError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise missing(error, extra, what) from None


def missing(error: ImportError, extra: str, what: str | None = None) -> JudgeError:
    """The error for a package that is not installed; for the arguments see `needed`."""
    apart = ", in an environment of its own" * (extra == "vllm")
    run = f"Run{apart}: {install_command(extra)}" + f" && {INSTALL_PROMPT}" * (extra in WITHOUT_PROMPT)
    return JudgeError(f"{what or f'The {extra} judge'} needs {error.name or error}, which is not installed. {run}")


def first_line(error: BaseException) -> str:
    """The first line of another library's error, for one of ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")


def check_whole(name: str, value: Any, least: int = 1) -> int:
    """Check that an argument is a whole number of at least `least`, and return it.

    Raises:
        InputError: It is not; the message names the argument.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} is {value!r}. Give a whole number of at least {least}.")
    return value
