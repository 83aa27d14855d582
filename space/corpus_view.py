"""Runs, files and corpora as HTML: what was read, how far a run is, what came out, and its pairs."""

import math
from collections.abc import Sequence

from crimson_core import PairResult, ReportPair, summarize
from crimson_core.compare.statistics import mean_interval
from space.judging import Run
from space.rendering import render
from space.uploads import Table

PAGE = 50  # rows
_PREVIEW_ROWS = 3


def table_html(tables: Sequence[Table]) -> str:
    """What was read: name, rows, and the first ones under their column names."""
    shown = [
        {
            "name": table.name,
            "n": len(table.rows),
            "columns": table.columns,
            "rows": [[_cell(row.get(column)) for column in table.columns] for row in table.rows[:_PREVIEW_ROWS]],
        }
        for table in tables
    ]
    return render("table.html", tables=shown)


def progress_html(run: Run, doing: str = "judged") -> str:
    """How far a run is, and the time left."""
    return render("progress.html", done=run.n_done, total=len(run.pairs), left=run.seconds_left, doing=doing)


def summary_html(run: Run) -> str:
    """The figures of a run, as far as it went."""
    results = run.results
    figures = summarize(results, run.signature)
    return render(
        "summary.html",
        figures=figures,
        estimate=mean_interval(figures["scores"]),
        n_asked=len(run.pairs),
        stopped=run.stopped,
        error=run.error,
        context=sum(pair.context is not None for pair in run.pairs),
    )


def worst_first(results: Sequence[PairResult]) -> list[PairResult]:
    """Results by score, the worst first; the unscored ones before all, since nobody has seen yet how bad they are."""
    return sorted(results, key=lambda r: (-math.inf if r.score is None else r.crimson_score, r.index))


def rows_html(results: Sequence[PairResult], pairs: Sequence[ReportPair], page: int) -> str:
    """One page of a run's pairs, the worst first. A row's button carries the index of its pair."""
    ordered = worst_first(results)
    shown = [
        {"result": result, "pair": pairs[result.index], "counts": result.score and result.score["error_counts"]}
        for result in ordered[page * PAGE : (page + 1) * PAGE]
    ]
    return render("rows.html", rows=shown, first=page * PAGE, total=len(ordered))


def pages(n: int) -> int:
    """Number of pages that n rows fill."""
    return max(1, math.ceil(n / PAGE))


def _cell(value: object) -> str:
    return "" if value is None else str(value)
