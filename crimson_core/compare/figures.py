"""Plotly figures of a section, interactive in both the Space and the report.

Style sheets colour text and grid, for light, dark and paper. A figure fills the width that it gets, and its names are short enough for a
phone's. Each has a description in words, and a table beside it has its numbers.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from crimson_core.compare.formats import count, fixed, interval, shortened, signed
from crimson_core.compare.html import words
from crimson_core.compare.section import Section
from crimson_core.compare.statistics import Estimate
from crimson_core.compare.summary import OTHER
from crimson_core.compare.tables import difference_name
from crimson_core.protocol.evaluation import SIGNIFICANCE_LEVELS

# Told apart on white and on black, and by pattern too.
_GREY = "#808a94"
_COLOURS = ("#3a7fc4", "#c8643c", "#4f9a4f", "#9467bd", "#b8860b", "#1d8f8f", "#c2528b", "#7f7f7f")
_PATTERNS = ("", "/", ".", "x", "-", "\\", "|", "+")
_LEVELS = {
    "urgent": ("#c9483e", "/"),
    "actionable_not_urgent": ("#d08a2e", "."),
    "not_actionable_not_urgent": ("#3a7fc4", ""),
    "benign_expected": ("#8a949e", "\\"),
    OTHER: ("#9467bd", "x"),
}
_TOP, _AXIS, _LEGEND_ROW, _TITLE_ROW = 42, 48, 21, 26  # pixels
_LONGEST_NAME = 16  # characters beside a figure; what is on a line of its own may have twice as many
_BINS = 20  # from -1 to 1


class Figure(NamedTuple):
    """A figure, and its description in words for people who cannot see it."""

    plot: go.Figure
    description: str


def figures_of(section: Section) -> list[Figure]:
    """All figures of a section; none if nothing was scored."""
    if not any(figures["crimson_score"].n for figures in section.figures.values()):
        return []
    compared = [means(section), differences(section)] if section.comparisons else []
    return [*compared, distributions(section), errors_per_type(section), errors_per_significance(section)]


def means(section: Section) -> Figure:
    """The mean of each system with its interval."""
    estimates = {name: figures["crimson_score"] for name, figures in section.figures.items()}
    labels = [_label(name) for name in estimates]
    return _intervals("Mean score with 95 % interval", "mean CRIMSON score", estimates, labels, fixed)


def differences(section: Section) -> Figure:
    """The paired difference of each pair of systems, with its interval."""
    estimates = {difference_name(*c.systems): c.difference for c in section.comparisons}
    labels = [f"{_label(a)}<br>− {_label(b)}" for a, b in (c.systems for c in section.comparisons)]
    return _intervals("Difference with 95 % interval", "difference of mean scores", estimates, labels, signed)


def distributions(section: Section) -> Figure:
    """A histogram of the scores of each system, over one scale."""
    means = {name: figures["crimson_score"].value for name, figures in section.figures.items()}
    figure = _figure(
        "Scores; the dashed line is the mean",
        "score",
        [130] * len(means),
        [f"{_label(n, 2)}: mean {fixed(m)}" for n, m in means.items()],
    )
    edges = [2 * i / _BINS - 1 for i in range(_BINS + 1)]
    for row, (name, mean) in enumerate(means.items(), 1):
        pairs = [0] * _BINS
        for score in section.scores(name).values():
            if score == score:  # 1 belongs to the last bin, so that a perfect score has none of its own
                pairs[min(int(round((score + 1) * 10_000) * _BINS // 20_000), _BINS - 1)] += 1
        figure.add_bar(
            x=[edge + 1 / _BINS for edge in edges[:-1]],
            y=pairs,
            width=1.84 / _BINS,
            marker_color=_COLOURS[0],
            hovertext=[
                f"{fixed(a, 1)} to {fixed(b, 1)}: {count(n, 'pair')}"
                for a, b, n in zip(edges, edges[1:], pairs, strict=False)
            ],
            hoverinfo="text",
            row=row,
            col=1,
        )
        if mean == mean:
            figure.add_vline(x=mean, line_dash="dash", line_color=_GREY, row=row, col=1)
    figure.update_xaxes(range=[-1.05, 1.05], dtick=0.5)
    figure.update_yaxes(title_text="pairs", nticks=4, rangemode="tozero", tickformat=",d")
    for row in range(2, len(means) + 1):
        figure.update_yaxes(matches="y", row=row, col=1)
    return Figure(figure, f"Histograms of the scores from −1 to 1 of {', '.join(means)}, one below the other.")


def errors_per_type(section: Section) -> Figure:
    """Errors per scored pair of each type; a bar for each system."""
    counts = {name: summary.errors_by_type for name, summary in section.summaries.items()}
    kinds = list(next(iter(counts.values())))
    figure = _figure(
        "Errors by type", "errors per scored pair", [len(kinds) * (16 + 9 * len(counts))], legend=list(counts)
    )
    for number, (name, own) in enumerate(counts.items()):
        rates = section.per_pair(name, own)
        figure.add_bar(
            **_bars([rates[kind] for kind in kinds], [f"{name}: {own[kind]:,} {kind}" for kind in kinds]),
            name=_label(name, 2),
            marker=_look(_COLOURS[number % 8], _PATTERNS[number % 8]),
        )
    figure.update_yaxes(autorange="reversed", tickvals=list(range(len(kinds))), ticktext=kinds)
    return Figure(figure, f"Errors per scored pair by type for {', '.join(counts)}; the table has the numbers.")


def errors_per_significance(section: Section) -> Figure:
    """Errors per scored pair of each system, stacked by clinical significance; missing, false and attribute errors apart."""
    counted = {name: summary.errors_by_significance for name, summary in section.summaries.items()}
    titles = {"missing": "missing findings", "false": "false findings", "attribute": "attribute errors"}
    levels = [
        level
        for level in (*SIGNIFICANCE_LEVELS, OTHER)
        if level != OTHER or any(kinds[kind][OTHER] for kinds in counted.values() for kind in titles)
    ]
    figure = _figure(
        "Errors by clinical significance",
        "errors per scored pair",
        [24 * len(counted)] * 3,
        list(titles.values()),
        list(map(words.significance, levels)),
    )
    for row, kind in enumerate(titles, 1):
        for level in levels:
            rates = [section.per_pair(name, kinds[kind]).get(level, 0.0) for name, kinds in counted.items()]
            texts = [f"{name}: {kinds[kind][level]:,} {words.significance(level)}" for name, kinds in counted.items()]
            figure.add_bar(
                **_bars(rates, texts),
                name=words.significance(level),
                legendgroup=level,
                showlegend=row == 1,
                marker=_look(*_LEVELS[level]),
                row=row,
                col=1,
            )
    figure.update_layout(barmode="stack", legend_traceorder="normal")
    names = [_label(name) for name in counted] if len(counted) > 1 else [""]
    figure.update_yaxes(autorange="reversed", tickvals=list(range(len(counted))), ticktext=names)
    return Figure(
        figure,
        f"Missing findings, false findings and attribute errors per scored pair by clinical significance for {', '.join(counted)}; "
        "the table has the numbers.",
    )


def _bars(rates: Sequence[float], texts: Sequence[str]) -> dict[str, Any]:
    hover = [_hover(text, rate) for text, rate in zip(texts, rates, strict=True)]
    return {"x": rates, "y": list(range(len(rates))), "orientation": "h", "hovertext": hover, "hoverinfo": "text"}


def _intervals(
    title: str, axis: str, estimates: Mapping[str, Estimate], labels: Sequence[str], form: Callable[[float], str]
) -> Figure:
    figure = _figure(title, axis, [20 + 40 * len(estimates)])
    rows = list(range(len(estimates)))
    found = list(estimates.values())
    figure.add_scatter(
        y=rows,
        x=[e.value for e in found],
        mode="markers",
        marker={"size": 11, "color": _COLOURS[0]},
        error_x={
            "type": "data",
            "symmetric": False,  # where there is no interval, there are no ends
            "array": [e.high - e.value for e in found],
            "arrayminus": [e.value - e.low for e in found],
            "color": _COLOURS[0],
        },
        hovertext=[_hover(f"{name}: {form(e.value)}", interval(e, form)) for name, e in estimates.items()],
        hoverinfo="text",
    )
    figure.update_yaxes(range=[len(rows) - 0.5, -0.5], tickvals=rows, ticktext=list(labels))
    if form is signed:
        figure.add_vline(x=0, line_color=_GREY)
        figure.update_xaxes(rangemode="tozero")
    values = "; ".join(f"{name} {form(estimate.value)}" for name, estimate in estimates.items())
    return Figure(figure, f"{title}: {values}.")


def _figure(
    title: str, axis: str, heights: Sequence[int], titles: Sequence[str] = (), legend: Sequence[str] = ()
) -> go.Figure:
    """A figure of stacked plots, of these heights in pixels, that share their value axis; one name needs no legend."""
    rows = len(heights)
    inner = sum(heights) + (rows - 1) * _TITLE_ROW
    figure = make_subplots(
        rows, 1, shared_xaxes="all", row_heights=list(heights), subplot_titles=list(titles) or None, vertical_spacing=_TITLE_ROW / inner if rows > 1 else 0
    )  # fmt: skip
    figure.update_annotations(x=0, xanchor="left", font_size=12)
    below = _AXIS + (_LEGEND_ROW * len(legend) if len(legend) > 1 else 0)
    above = _TOP + (_TITLE_ROW if titles else 0)
    figure.update_layout(
        template="none",
        title={"text": title, "font_size": 15, "pad": {"t": 12, "l": 4}},
        title_x=0, title_xref="container", title_xanchor="left", title_y=1, title_yanchor="top",
        height=inner + above + below,
        margin={"l": 10, "r": 14, "t": above, "b": below},
        font={"family": "system-ui, sans-serif", "size": 12},
        showlegend=len(legend) > 1,
        legend={"orientation": "h", "entrywidth": 1, "entrywidthmode": "fraction"},
        legend_x=0, legend_y=0, legend_yref="container", legend_yanchor="bottom",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        dragmode=False,
        bargap=0.25,
    )  # fmt: skip
    figure.update_xaxes(fixedrange=True, zeroline=False, gridcolor=_GREY)
    figure.update_xaxes(title_text=axis, row=rows, col=1)
    figure.update_yaxes(fixedrange=True, zeroline=False, showgrid=False, automargin=True)
    figure.update_yaxes(ticks="outside", ticklen=6, tickcolor="rgba(0,0,0,0)")
    return figure


def _look(colour: str, pattern: str) -> dict[str, Any]:
    return {"color": colour, "pattern": {"shape": pattern, "fillmode": "overlay", "solidity": 0.2, "size": 7}}


def _label(name: str, lines: int = 1) -> str:
    """Escape a name for plotly, which reads text as HTML."""
    return html.escape(shortened(name, lines * _LONGEST_NAME), quote=False)


def _hover(text: str, figure: float | str) -> str:
    more = figure if isinstance(figure, str) else f"{fixed(figure)} per scored pair"
    return f"{html.escape(text, quote=False)}<br>{more}"
