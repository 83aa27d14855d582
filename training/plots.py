"""Plots of a data set as PNG files, in colours that colour-blind people can tell apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from crimson_core.errors import CrimsonError

Counts = Mapping[str, Mapping[str, int]]

_COLOURS = ("#0072B2", "#E69F00", "#009E73")  # Okabe and Ito
_DPI = 150
_BAR = 0.8  # height of a group of bars, of the space it has
_BINS = 40


def plot_all(
    folder: Path,
    *,
    regimes: Counts,
    errors: Counts,
    significance: Counts,
    scores: Sequence[float],
    words: Mapping[str, Sequence[int]],
    findings: Mapping[str, Sequence[int]],
) -> dict[str, str]:
    """Draw all plots of a data card as `<name>.png`, and return their titles by name.

    Raises:
        CrimsonError: The folder cannot be written.
    """
    drawn = {
        "regimes": (_bars(regimes, "records of the split (%)", percent=True), "Records by regime and split"),
        "errors": (_bars(errors, "errors of the split (%)", percent=True), "Errors by kind and split"),
        "significance": (_bars(significance, "findings"), "Findings by clinical significance"),
        "scores": (_score_histogram(scores), "Histogram of the scores"),
        "lengths": (_histograms(words, "words per report"), "Histogram of the words per report"),
        "findings": (_histograms(findings, "findings per report"), "Histogram of the findings per report"),
    }
    titles = {}
    for name, (figure, title) in drawn.items():
        if figure:
            _save(figure, folder / f"{name}.png")
            titles[name] = title
    return titles


def _bars(counts: Counts, label: str, percent: bool = False) -> Figure | None:
    """Horizontal bars: a group per name, a bar per column, with the count at its end."""
    if not counts:
        return None
    names, columns = list(counts), list(next(iter(counts.values())))
    figure, axes = _axes(height=1.1 + len(names) * (0.25 + 0.2 * len(columns)))
    height = _BAR / max(len(columns), 1)
    for number, (column, colour) in enumerate(zip(columns, _COLOURS, strict=False)):
        values = np.array([counts[name][column] for name in names])
        shown = 100 * values / max(values.sum(), 1) if percent else values
        places = np.arange(len(names)) + (number + 0.5) * height - _BAR / 2
        bars = axes.barh(places, shown, height * 0.92, color=colour, label=column)
        axes.bar_label(bars, [f"{value:,}" for value in values], padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)
    axes.set_xlabel(label)
    axes.grid(axis="x", color="0.9")
    if not percent:
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    if len(columns) > 1:
        _legend(figure, axes)
    return figure


def _score_histogram(scores: Sequence[float]) -> Figure | None:
    if not scores:
        return None
    figure, axes = _axes(height=3.2)
    axes.hist(scores, bins=np.linspace(-1, 1, _BINS + 1), color=_COLOURS[0])
    axes.axvline(0, color="0.3", linewidth=1, linestyle="--")
    axes.set_xlim(-1.02, 1.02)
    axes.set_xlabel("CRIMSON score of the label (a bar holds its left end, the last one 1 too)")
    _count_axis(axes, "records")
    return figure


def _histograms(measured: Mapping[str, Sequence[int]], label: str) -> Figure | None:
    values = {name: np.asarray(numbers) for name, numbers in measured.items() if len(numbers)}
    if not values:
        return None
    # A few very long reports would press all others into one bin, so they share the last bin.
    most = max(1, int(np.percentile(np.concatenate(list(values.values())), 99.5)))
    step = max(1, -(-most // _BINS))
    edges = np.arange(0, most + 2 * step, step) - 0.5
    figure, axes = _axes(height=3.2)
    for (name, numbers), colour in zip(values.items(), _COLOURS, strict=False):
        clipped = np.minimum(numbers, edges[-1] - 0.5)
        axes.hist(clipped, bins=edges, histtype="step", color=colour, linewidth=1.8, label=name)
    beyond = any((numbers > edges[-1]).any() for numbers in values.values())
    axes.set_xlim(edges[0] - 0.02 * edges[-1], edges[-1] * 1.02)
    axes.set_xlabel(label + (" (the last bin holds all beyond)" if beyond else ""))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _count_axis(axes, "reports")
    _legend(figure, axes)
    return figure


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    return figure, axes


def _count_axis(axes: Axes, label: str) -> None:
    axes.set_ylabel(label)
    axes.grid(axis="y", color="0.9")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(_thousands))


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)


def _thousands(value: float, _: int) -> str:
    return f"{value:,.0f}"


def _save(figure: Figure, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=_DPI)
    except OSError as error:
        raise CrimsonError(f"{path} cannot be written: {error.strerror}.") from None
