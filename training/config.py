"""Reads the YAML configuration of a command; every problem is an error of one line."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from crimson_core.errors import InputError
from crimson_core.run.config_file import read_yaml


class Strict(BaseModel):
    """Data whose keys are all known."""

    model_config = ConfigDict(extra="forbid")


Config = TypeVar("Config", bound=Strict)


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
    if not isinstance(data, dict):
        raise InputError(f"{path} must hold keys with values, one per line.")
    for override in overrides or ():
        _override(data, override)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{path}: {_first(error, model)}") from None


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"--set {override!r} is no key=value, for example candidates.train=100.")
    *sections, last = key.split(".")
    for section in sections:
        data = data.setdefault(section, {})
        if not isinstance(data, dict):
            raise InputError(f"--set {key!r}: {section!r} has no keys of its own.")
    try:
        data[last] = yaml.safe_load(value)
    except Exception:  # odd scalars raise many kinds
        raise InputError(f"--set {key!r}: its value is not YAML.") from None


def _first(error: ValidationError, model: type[BaseModel]) -> str:
    """The first complaint; if a key is unknown, with the keys that exist there."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"the key {place!r} is unknown. Keys there: {', '.join(_fields_at(model, first['loc'][:-1]))}."
    if first["type"] == "missing":
        return f"the key {place!r} is missing."
    return f"{place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}."


def _fields_at(model: type[BaseModel], place: tuple[Any, ...]) -> list[str]:
    for key in place:
        inner = model.model_fields[key].annotation if key in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        model = inner
    return list(model.model_fields)
