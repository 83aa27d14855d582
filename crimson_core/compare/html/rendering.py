"""HTML from templates. Every value is escaped: report text is untrusted."""

import math
from collections.abc import Callable
from pathlib import Path

import jinja2

from crimson_core.compare.html import words

FOLDER = Path(__file__).parent


def renderer(*folders: Path, **filters: Callable) -> Callable[..., str]:
    """A function that fills in a template: it takes the template's name, and its values as keywords.

    Args:
        *folders: Of templates, beside those of this package.
        **filters: For values, beside those of this module.
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, FOLDER / "templates"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "exact": exact,
        "fixed": fixed,
        "signed": signed,
        "p_value": p_value,
        "significance": words.significance,
        **filters,
    }
    return lambda template, **values: templates.get_template(template).render(**values)


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


def _minus(text: str) -> str:
    return text.replace("-", "−")
