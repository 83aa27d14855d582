"""Reads the YAML configuration of a command, and says in one line what is wrong with it."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from crimson_core.errors import InputError

Config = TypeVar("Config", bound=BaseModel)


def load_config(path: Path, model: type[Config], overrides: list[str] | None = None) -> Config:
    """The configuration in a YAML file, checked.

    Args:
        path: The file.
        model: What it must hold.
        overrides: `key=value` with a YAML value; a dot goes into a section (`candidates.train=100`).

    Raises:
        InputError: The file cannot be read, has an unknown key or a value that is not possible; names the key.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"config {path} cannot be read: {getattr(error, 'strerror', None) or 'no UTF-8 text'}."
        ) from None
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # odd scalars, such as a thirteenth month, and depth
        raise InputError(
            f"config {path} cannot be read: {type(error).__name__}. Quote what is no number or date."
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(f"config {path} is not YAML{f' (line {mark.line + 1})' if mark else ''}.") from None
    if not isinstance(data, dict):
        raise InputError(f"config {path} must hold keys with values, one per line.")
    for override in overrides or ():
        _override(data, override)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(f"config {path}: {_first(error, model)}") from None


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
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError):
        raise InputError(f"--set {key!r}: its value is not YAML.") from None


def _first(error: ValidationError, model: type[BaseModel]) -> str:
    """The first complaint, with the keys that there are where one is unknown."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        fields = _fields_at(model, first["loc"][:-1])
        return f"the key {place!r} is unknown. Keys there: {', '.join(fields)}."
    if first["type"] == "missing":
        return f"the key {place!r} is missing."
    message = first["msg"].removeprefix("Value error, ")
    return f"{place + ': ' if place else ''}{message}."


def _fields_at(model: type[BaseModel], place: tuple[Any, ...]) -> list[str]:
    for key in place:
        inner = model.model_fields[key].annotation if key in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        model = inner
    return list(model.model_fields)
