"""Numbers as text, formatted alike in tables, pages, figures and the terminal."""

import math
from collections.abc import Callable

from crimson_core.compare.statistics import Estimate


def exact(value: float) -> str:
    """A weight or a score, with at most four decimals and no trailing zeros."""
    return _minus(f"{round(value, 4) + 0.0:.4f}".rstrip("0").rstrip("."))


def fixed(value: float, digits: int = 3) -> str:
    """A figure in a table; a dash if it is undefined."""
    return "–" if math.isnan(value) else _minus(f"{value + 0.0:.{digits}f}")


def two(value: float) -> str:
    """A figure in a wide table: two decimals."""
    return fixed(value, 2)


def signed(value: float, digits: int = 3) -> str:
    """A difference, with its sign."""
    return ("+" if value > 0 else "") + fixed(value, digits)


def p_value(value: float) -> str:
    """A p value; small ones are "< 0.001"."""
    return "–" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def interval(estimate: Estimate, form: Callable[[float], str] = fixed) -> str:
    """The ends of an interval. If all values are equal, resampling shows no spread, which does not mean certainty."""
    if math.isnan(estimate.low):
        return "–"
    if estimate.low == estimate.high:
        return "no spread"
    return f"{form(estimate.low)} to {form(estimate.high)}"


def with_interval(estimate: Estimate) -> str:
    """A figure, its interval, and the number of values it averages, on separate lines."""
    if math.isnan(estimate.value):
        return "–\nn 0"
    ends = interval(estimate, two)
    return f"{two(estimate.value)}\n" + (f"{ends}\n" if ends != "–" else "") + f"n {estimate.n}"


def count(n: int, one: str, many: str = "") -> str:
    """A number of things: "1 pair", "1,200 pairs"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """The remaining time."""
    seconds = math.ceil(seconds)
    minutes, rest = divmod(seconds, 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    if minutes >= 10:
        return f"{minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def shortened(text: str, longest: int) -> str:
    """A text of at most `longest` characters; an ellipsis shows the cut."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def printable(text: str) -> str:
    """Text without control characters, which could control a terminal or turn the direction of what follows them."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def _minus(text: str) -> str:
    return text.replace("-", "−")
