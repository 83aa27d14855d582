"""HTML from the templates beside this file and those of `crimson_core.compare.html`."""

import math
from pathlib import Path

from crimson_core.compare.html.rendering import renderer


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


render = renderer(Path(__file__).parent / "templates", duration=duration)
