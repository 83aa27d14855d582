"""HTML from templates. Every value is escaped: report text is untrusted."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from crimson_core.compare import formats
from crimson_core.compare.html import words

FOLDER = Path(__file__).parent
# Control characters except tabs and ends of lines, and marks that turn the direction of the text behind them.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def renderer(*folders: Path) -> Callable[..., str]:
    """A function that renders a template of this package or of `folders`, from its name and values as keywords."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, FOLDER / "templates"]),
        autoescape=True,
        finalize=_without_control,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        form.__name__: form
        for form in (
            formats.count,
            formats.duration,
            formats.exact,
            formats.fixed,
            formats.interval,
            words.band,
            words.significance,
        )
    }
    return lambda template, **values: templates.get_template(template).render(**values)


def _without_control(value: Any) -> Any:
    """What a template shows of a value: report text may be read otherwise than it is shown, and nobody would see why."""
    return _CONTROL.sub("\ufffd", value) if isinstance(value, str) and not hasattr(value, "__html__") else value
