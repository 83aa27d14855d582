"""Reads YAML files that people write; every problem is an error of one line."""

import difflib
from collections.abc import Hashable, Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from crimson_core.errors import InputError

NOT_QUOTED = (bool, int, float, date)  # types that YAML gives to some words without quotes


class Strict(BaseModel):
    """Data whose keys are all known."""

    model_config = ConfigDict(extra="forbid")


Config = TypeVar("Config", bound=Strict)


def checked(model: type[Config], data: Any, source: str) -> Config:
    """The content of a config, which errors call `source`.

    Raises:
        InputError: A key is unknown or missing, or a value is impossible; names the key.
    """
    if not isinstance(data, dict):
        needed = (name for name, field in model.model_fields.items() if field.is_required())
        raise InputError(f"{source} must hold the keys {', '.join(needed)}.")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(_problem(one, model) for one in error.errors(include_url=False))
        raise InputError(f"{source}: {problems}") from None


def _problem(error: ErrorDetails, model: type[BaseModel]) -> str:
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f"{where} is missing."
    if error["type"] == "extra_forbidden":
        *parents, key = error["loc"]
        known = _keys_at(model, parents)
        return f"{where} is an unknown key." + (meant(str(key), known) or f" The keys are {', '.join(known)}.")
    message = error["msg"].removeprefix("Value error, ")
    quote = " Quote it." if error["type"] == "string_type" and isinstance(error["input"], NOT_QUOTED) else ""
    return f"{where}: {message[:1].lower()}{message[1:]}.{quote}" if where else f"{message}."


def _keys_at(model: type[BaseModel], place: Sequence[Any]) -> list[str]:
    """The keys of the part at a place in a config."""
    for key in place:
        if key in model.model_fields:
            model = _model_in(model.model_fields[key].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in a type, such as the values of a dictionary; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def meant(name: str, known: Iterable[str]) -> str:
    """What to say about a name that may be a misspelt one; may be empty."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def read_yaml(file: Path) -> Any:
    """The content of a YAML file.

    Raises:
        InputError: It cannot be read, or gives a key twice.
    """
    try:
        return yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe loader
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"{file} cannot be read: {reason}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise InputError(f"{file}{where} is no YAML: {getattr(error, 'problem', None) or 'check it'}.") from None
    except RecursionError:
        raise InputError(f"{file} cannot be read: it is nested too deeply for a config.") from None
    except Exception as error:  # odd scalars, such as a thirteenth month, raise many kinds
        raise InputError(
            f"{file} cannot be read: {type(error).__name__}. Quote dates and numbers that are none."
        ) from None


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Refuses duplicate keys, of which YAML would silently keep the last.

    It also refuses keys that YAML does not read as text, such as a number or yes: no key of a config is one.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key, (written, _) in zip(keys, node.value, strict=True):
            problem = None
            if isinstance(key, NOT_QUOTED):
                problem = f"the key {written.value} is no text to YAML: quote it"
            elif keys.count(key) > 1:
                problem = f"the key {key!r} is given twice"
            if problem:
                raise yaml.constructor.ConstructorError(None, None, problem, written.start_mark)
        return super().construct_mapping(node, deep)
