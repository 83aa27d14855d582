"""Reads YAML files that people write; every problem is an error of one line."""

from collections.abc import Hashable
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from crimson_core.errors import InputError

NOT_QUOTED = (bool, int, float, date)  # types that YAML gives to some words without quotes


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
    except Exception as error:  # odd scalars, such as a thirteenth month, and depth, raise many kinds
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
