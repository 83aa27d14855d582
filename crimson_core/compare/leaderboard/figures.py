"""Figures of a leaderboard as SVG, by matplotlib: they need no script, print as they look, and take the page's colours.

Text and axes are drawn in a colour that is replaced by the page's own, so that light and dark both work. Each figure says in words
what it shows, and the tables beside it have its numbers.
"""

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crimson_core.compare.html import words
from crimson_core.compare.leaderboard.run import Section
from crimson_core.compare.leaderboard.tables import number, signed
from crimson_core.compare.statistics import Estimate
from crimson_core.compare.summary import OTHER, errors_by_significance, errors_by_type
from crimson_core.protocol.evaluation import SIGNIFICANCE_LEVELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK = "#010203"  # stands for the page's text colour
# Told apart on white and on black, and by form too.
_COLOURS = ("#3a7fc4", "#c8643c", "#4f9a4f", "#9467bd", "#b8860b", "#1d8f8f", "#c2528b", "#7f7f7f")
_MARKERS = "osD^vPX*"
_LEVELS = {
    "urgent": ("#c9483e", "//"),
    "actionable_not_urgent": ("#d08a2e", ".."),
    "not_actionable_not_urgent": ("#3a7fc4", ""),
    "benign_expected": ("#8a949e", "\\\\"),
    OTHER: ("#9467bd", "xx"),
}
_WIDTH = 5.2  # inches; narrow, so that a phone shrinks the text little
_LONGEST_NAME = 26  # characters
_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # names are data
    "font.family": "sans-serif",
    "font.size": 9,
    "hatch.linewidth": 0.6,
    **{f"{part}.color": _INK for part in ("text", "xtick", "ytick", "hatch")},
    **{f"axes.{part}color": _INK for part in ("label", "edge", "title")},
}


def means(section: Section) -> str:
    """The mean of each system with its interval."""
    estimates = {name: figures["crimson_score"] for name, figures in section.figures.items()}
    said = "; ".join(f"{name} {number(estimate.value)}" for name, estimate in estimates.items())
    return _intervals(estimates, "mean CRIMSON score", f"Mean score of each system with 95 % interval: {said}.")


def differences(section: Section) -> str:
    """The paired difference of every two systems with its interval."""
    estimates = {f"{_short(a)} less {_short(b)}": c.difference for c in section.comparisons for a, b in [c.systems]}
    said = "; ".join(f"{name} {signed(estimate.value)}" for name, estimate in estimates.items())
    return _intervals(
        estimates, "difference of mean scores", f"Paired differences with 95 % interval: {said}.", zero=True
    )


def distributions(section: Section) -> str:
    """A histogram of the scores of each system, over one scale."""
    names = list(section.results)
    figure, axes = _figure(0.35 + 0.75 * len(names), rows=len(names), sharex=True, sharey=True)
    for axis, name in zip(axes, names, strict=True):
        scores = [score for score in section.scores(name).values() if score == score]
        # 1 belongs to the last bin, so that a perfect score has none of its own.
        axis.hist(scores, bins=[i / 10 for i in range(-10, 11)], color=_COLOURS[0], edgecolor="none", rwidth=0.92)
        mean = section.figures[name]["crimson_score"].value
        if mean == mean:
            axis.axvline(mean, color=_INK, linestyle="--", linewidth=1)
        axis.set_title(_short(name), loc="left", fontsize=9, pad=3)
        axis.yaxis.get_major_locator().set_params(integer=True, nbins=3)
    axes[0].set_xlim(-1.03, 1.03)
    axes[-1].set_xlabel("score (the dashed line is the mean)")
    axes[len(names) // 2].set_ylabel("pairs")
    return _svg(figure, f"Histograms of the scores from −1 to 1 of {', '.join(names)}, one below the other.")


def errors_per_type(section: Section) -> str:
    """Errors per scored pair of each type; a mark for each system."""
    rates = {name: _per_pair(section, name, errors_by_type(results)) for name, results in section.results.items()}
    kinds = list(next(iter(rates.values())))
    figure, (axis,) = _figure(0.6 + 0.26 * len(kinds) + 0.2 * ((len(rates) + 2) // 3))
    axis.grid(axis="y", color=_INK, alpha=0.15, linewidth=0.6)
    width = 0.5 / max(len(rates), 2)  # so that equal rates do not hide each other
    for i, (name, rate) in enumerate(rates.items()):
        heights = [row + (i - (len(rates) - 1) / 2) * width for row in range(len(kinds))]
        axis.plot(
            list(rate.values()),
            heights,
            _MARKERS[i % len(_MARKERS)],
            color=_COLOURS[i % len(_COLOURS)],
            markersize=5,
            label=_short(name),
            clip_on=False,
        )
    axis.set_yticks(range(len(kinds)), kinds)
    axis.invert_yaxis()
    axis.set_xlim(left=0)
    axis.set_xlabel("errors per scored pair")
    _legend(figure)
    return _svg(figure, f"Errors per scored pair by type for {', '.join(rates)}; the table below has the numbers.")


def errors_per_significance(section: Section) -> str:
    """Errors per scored pair of each system, stacked by clinical significance; false, missing and attribute errors apart."""
    counted = {name: errors_by_significance(results) for name, results in section.results.items()}
    kinds = ("missing", "false", "attribute")
    names = list(counted)
    levels = [
        level
        for level in (*SIGNIFICANCE_LEVELS, OTHER)
        if level != OTHER or any(counted[name][kind][OTHER] for name in names for kind in kinds)
    ]
    figure, axes = _figure(0.75 + len(kinds) * (0.35 + 0.22 * len(names)), rows=len(kinds), sharex=True)
    for axis, kind in zip(axes, kinds, strict=True):
        left = [0.0] * len(names)
        for level in levels:
            colour, hatch = _LEVELS[level]
            rates = [_per_pair(section, name, counted[name][kind]).get(level, 0.0) for name in names]
            label = words.SIGNIFICANCE.get(level, level) if axis is axes[0] else None
            axis.barh(
                range(len(names)), rates, left=left, color=colour, hatch=hatch, height=0.7, label=label, linewidth=0
            )
            left = [start + rate for start, rate in zip(left, rates, strict=True)]
        axis.set_yticks(range(len(names)), [_short(name) for name in names])
        axis.invert_yaxis()
        axis.set_title(f"{kind} findings" if kind != "attribute" else "attribute errors", loc="left", fontsize=9, pad=3)
    axes[-1].set_xlabel("errors per scored pair")
    _legend(figure)
    return _svg(
        figure,
        f"Missing findings, false findings and attribute errors per scored pair by clinical significance for {', '.join(names)}; "
        "the table below has the numbers.",
    )


def error_rows(section: Section) -> list[tuple[str, list[float]]]:
    """(what is counted, errors per scored pair of each system): the numbers of the two figures of errors."""
    rows: list[tuple[str, list[float]]] = []
    types = [_per_pair(section, name, errors_by_type(results)) for name, results in section.results.items()]
    rows += [(kind, [rate[kind] for rate in types]) for kind in types[0]]
    levels = [errors_by_significance(results) for results in section.results.values()]
    for kind in ("missing", "false", "attribute"):
        for level in (*SIGNIFICANCE_LEVELS, OTHER):
            rates = [
                _per_pair(section, name, own[kind]).get(level, 0.0)
                for name, own in zip(section.results, levels, strict=True)
            ]
            if any(rates):
                rows.append((f"{kind}, {words.SIGNIFICANCE.get(level, level)}", rates))
    return rows


def _per_pair(section: Section, name: str, counts: dict[str, int]) -> dict[str, float]:
    scored = section.figures[name]["crimson_score"].n
    return {kind: count / scored if scored else 0.0 for kind, count in counts.items()}


def _intervals(estimates: dict[str, Estimate], label: str, said: str, zero: bool = False) -> str:
    figure, (axis,) = _figure(0.55 + 0.32 * len(estimates))
    axis.grid(axis="x", color=_INK, alpha=0.15, linewidth=0.6)
    if zero:
        axis.axvline(0, color=_INK, linewidth=1)
    for row, estimate in enumerate(estimates.values()):
        if estimate.low < estimate.high:  # else there is no interval, or none that says something
            axis.plot([estimate.low, estimate.high], [row, row], color=_COLOURS[0], linewidth=2, solid_capstyle="butt")
            axis.plot([estimate.low, estimate.high], [row, row], "|", color=_COLOURS[0], markersize=9, mew=2)
        if estimate.value == estimate.value:
            axis.plot(estimate.value, row, "o", color=_COLOURS[0], markersize=7)
    axis.set_yticks(range(len(estimates)), [name if zero else _short(name) for name in estimates])
    axis.set_ylim(len(estimates) - 0.5, -0.5)
    axis.set_xlabel(label)
    return _svg(figure, said)


def _figure(height: float, rows: int = 1, **shared: Any) -> tuple["Figure", Sequence[Any]]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.subplots(rows, 1, squeeze=False, **shared)[:, 0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    return figure, axes


def _legend(figure: "Figure") -> None:
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8, labelcolor=_INK)


def _svg(figure: "Figure", said: str) -> str:
    from html import escape

    from matplotlib import rc_context

    out = io.StringIO()
    with rc_context(_STYLE | {"svg.hashsalt": said}):  # the same names in each run, other ones in each figure
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r' id="(?:figure|axes|patch|line2d|text|xtick|ytick|matplotlib\.axis|legend|PathCollection)_\d+"', "", svg
    )
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(said)}" ', 1)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
