"""HTML from templates. Every value is escaped: report text is untrusted."""

from collections.abc import Callable
from pathlib import Path

import jinja2

from crimson_core.compare import formats
from crimson_core.compare.html import words

FOLDER = Path(__file__).parent


def renderer(*folders: Path) -> Callable[..., str]:
    """A function that renders a template of this package or of `folders`, from its name and values as keywords."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, FOLDER / "templates"]),
        autoescape=True,
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
