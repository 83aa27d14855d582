"""Figures of a corpus, by plotly: histogram of scores, bars of errors, means with intervals."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from crimson_core import PairResult
from crimson_core.compare import summary
from crimson_core.compare.html import words
from crimson_core.compare.statistics import Estimate
from crimson_core.protocol.evaluation import ERROR_TYPES, SIGNIFICANCE_LEVELS

_GREY, _BLUE, _RED, _AMBER = "#808a94", "#3a7fc4", "#d1584f", "#b97a1e"
_BIN = 0.1


def score_histogram(results: Sequence[PairResult]) -> go.Figure:
    """Histogram of the scores from -1 to 1; the mean as a line."""
    scores = [result.crimson_score for result in results if result.score is not None]
    figure = _figure("Scores", "score", "pairs")
    # 1 belongs to the last bin, so that a perfect score has none of its own.
    bins = {"start": -1, "end": 1.001, "size": _BIN}
    figure.add_histogram(x=[min(s, 0.999) for s in scores], xbins=bins, marker_color=_BLUE, name="pairs")
    if scores:
        mean = sum(scores) / len(scores)
        figure.add_vline(x=mean, line_dash="dash", line_color=_GREY, annotation_text=f"mean {mean:.3f}")
    figure.update_xaxes(range=[-1.05, 1.05], dtick=0.5)
    return figure


def errors_by_type(results: Sequence[PairResult]) -> go.Figure:
    """Bars: false and missing findings and each type of attribute error, counted over the scored pairs."""
    counts = summary.errors_by_type(results)
    figure = _figure("Errors by type", "errors", "")
    colours = [_RED, _AMBER] + [_BLUE] * len(ERROR_TYPES)
    figure.add_bar(
        y=list(counts),
        x=list(counts.values()),
        orientation="h",
        marker_color=colours,
        text=list(counts.values()),
        textangle=0,
    )
    figure.update_yaxes(autorange="reversed")
    return figure


def errors_by_significance(results: Sequence[PairResult]) -> go.Figure:
    """Stacked bars: false and missing findings by clinical significance, attribute errors by that of their reference."""
    counted = summary.errors_by_significance(results)
    levels = [*SIGNIFICANCE_LEVELS, *([summary.OTHER] if any(c[summary.OTHER] for c in counted.values()) else [])]
    figure = _figure("Errors by clinical significance", "errors", "")
    looks = {"false": (_RED, "/"), "missing": (_AMBER, "."), "attribute": (_BLUE, "")}
    for kind, counts in counted.items():
        colour, pattern = looks[kind]
        figure.add_bar(
            y=[words.SIGNIFICANCE.get(level, level) for level in levels],
            x=[counts[level] for level in levels],
            orientation="h",
            name=kind,
            marker={"color": colour, "pattern": {"shape": pattern, "solidity": 0.25}},
        )
    figure.update_layout(
        barmode="stack", showlegend=True, legend={"orientation": "h", "y": -0.3, "yanchor": "top", "x": 0}, margin_b=80
    )
    figure.update_yaxes(autorange="reversed")
    return figure


def means(estimates: Mapping[str, Estimate]) -> go.Figure:
    """The mean of each system with its interval."""
    figure = _figure("Mean score with 95 % interval", "score", "")
    figure.add_scatter(
        y=list(estimates),
        x=[e.value for e in estimates.values()],
        mode="markers",
        marker={"size": 11, "color": _BLUE},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [e.high - e.value for e in estimates.values()],
            "arrayminus": [e.value - e.low for e in estimates.values()],
        },
    )
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_layout(height=130 + 45 * len(estimates))
    return figure


def _figure(title: str, x: str, y: str) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        title={"text": title, "font": {"size": 15}},
        xaxis_title=x,
        yaxis_title=y,
        height=340,
        showlegend=False,
        paper_bgcolor="rgba(0,0,0,0)",  # the style sheet colours text and grid, for light and dark
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 10, "r": 20, "t": 45, "b": 10},
        dragmode=False,
    )
    figure.update_yaxes(automargin=True)
    return figure
