"""Reads the YAML configuration of a command, with values of the command line."""

from pathlib import Path
from typing import Any

import yaml

from crimson_core.errors import InputError
from crimson_core.run.config_file import Config, checked, read_yaml


def load_config(path: Path, model: type[Config], overrides: list[str] | None = None) -> Config:
    """The configuration in a YAML file.

    Args:
        path: The file.
        model: The keys and values that it may have.
        overrides: `key=value` with a YAML value; a dot leads into a section (`candidates.train=100`).

    Raises:
        InputError: The file cannot be read, or a key or a value is impossible; names the key.
    """
    data = read_yaml(path)
    for override in overrides or ():
        _override(data, override)
    return checked(model, data, str(path))


def _override(data: Any, override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"--set {override!r} is no key=value, for example candidates.train=100.")
    *sections, last = key.split(".")
    for section in sections:
        data = data.setdefault(section, {}) if isinstance(data, dict) else None
    if not isinstance(data, dict):
        raise InputError(f"--set {key!r}: {'.'.join(sections) or 'the file'} has no keys of its own.")
    try:
        data[last] = yaml.safe_load(value)
    except Exception:  # odd scalars raise many kinds
        raise InputError(f"--set {key!r}: its value is not YAML.") from None
