"""Figures of a corpus, by plotly: histogram of scores, bars of errors, means with intervals."""

from collections import Counter
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from crimson_core import PairResult
from crimson_core.evaluation import ERROR_TYPES, SIGNIFICANCE_LEVELS
from crimson_core.summary import Estimate
from space import words

_GREY, _BLUE, _RED, _AMBER = "#808a94", "#3a7fc4", "#d1584f", "#b97a1e"
_BIN = 0.1
_OTHER = "other"  # levels and types that a judge made up


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
    names = {"false_findings": "false finding", "missing_findings": "missing finding"}
    names |= {f"{kind}_errors": kind for kind in ERROR_TYPES}
    counts = {
        name: sum(result.score["error_counts"][key] for result in results if result.score)
        for key, name in names.items()
    }
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
    counted = {kind: Counter() for kind in ("false", "missing", "attribute")}
    for result in results:
        if result.score is None:
            continue
        evaluation = result.score["raw_evaluation"]
        sides = (evaluation["reference_findings"], evaluation["predicted_findings"])
        references, predictions = ({f["id"]: f.get("clinical_significance", "") for f in side} for side in sides)
        errors = evaluation["errors"]
        counted["false"].update(_level(predictions.get(i, "")) for i in errors["false_findings"])
        counted["missing"].update(_level(references.get(i, "")) for i in errors["missing_findings"])
        counted["attribute"].update(_level(references.get(e["ref_id"], "")) for e in errors["attribute_errors"])
    levels = [
        level for level in (*SIGNIFICANCE_LEVELS, _OTHER) if level != _OTHER or any(c[_OTHER] for c in counted.values())
    ]
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


def _level(level: str) -> str:
    return level if level in SIGNIFICANCE_LEVELS else _OTHER


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
