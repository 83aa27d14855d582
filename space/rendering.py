"""HTML from the templates beside this file. Every value is escaped: report text is untrusted."""

import math
from pathlib import Path
from typing import Any

import jinja2

from space import words

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """A template filled in."""
    return _templates.get_template(template).render(**values)


def exact(value: float) -> str:
    """A weight or a score as it is added up: at most four decimals, none that say nothing."""
    return _minus(f"{round(value, 4) + 0.0:.4f}".rstrip("0").rstrip("."))


def fixed(value: float, digits: int = 3) -> str:
    """A figure in a table; one that is not defined is a dash."""
    return "–" if math.isnan(value) else _minus(f"{value + 0.0:.{digits}f}")


def signed(value: float, digits: int = 3) -> str:
    """A difference, with its sign."""
    return ("+" if value > 0 else "") + fixed(value, digits)


def p_value(value: float) -> str:
    """A p value for reading."""
    if math.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def duration(seconds: float) -> str:
    """A time that is left."""
    seconds = math.ceil(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    return (
        f"{minutes} min {rest} s"
        if minutes < 10
        else f"{minutes // 60} h {minutes % 60} min"
        if minutes >= 60
        else f"{minutes} min"
    )


def _minus(text: str) -> str:
    return text.replace("-", "−")


_templates.filters |= {
    "exact": exact,
    "fixed": fixed,
    "signed": signed,
    "p_value": p_value,
    "duration": duration,
    "significance": words.significance,
}
