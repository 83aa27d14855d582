"""A comparison of systems as HTML."""

from collections.abc import Mapping, Sequence

from crimson_core import PairResult, summarize
from crimson_core.compare.leaderboard.data import Systems
from crimson_core.compare.statistics import Comparison, Estimate
from crimson_core.compare.summary import spread_first
from space.judging import Run
from space.rendering import render

MOST_ROWS = 50


def comparison_html(
    results: Mapping[str, Sequence[PairResult]],
    estimates: Mapping[str, Estimate],
    comparisons: Sequence[Comparison],
    run: Run,
) -> str:
    """Means with intervals, and the paired differences.

    Args:
        results: Of each system, over the same pairs.
        estimates: Mean and interval of each system.
        comparisons: Of every two systems.
        run: That judged them.
    """
    n_pairs = len(next(iter(results.values())))
    return render(
        "comparison.html",
        estimates=estimates,
        figures={name: summarize(theirs, run.signature) for name, theirs in results.items()},
        comparisons=comparisons,
        n_pairs=n_pairs,
        n_asked=len(run.pairs) // len(results),
        stopped=run.stopped,
        error=run.error,
        signature=run.signature,
    )


def differing_html(results: Mapping[str, Sequence[PairResult]], systems: Systems) -> str:
    """The pairs on which the systems differ most. A score's button carries the index of its pair in the run."""
    width = len(results)
    rows = []
    for position, spread in spread_first(results)[:MOST_ROWS]:
        row = [theirs[position] for theirs in results.values()]
        index = row[0].index
        pair = next(iter(systems.pairs.values()))[index]
        scores = [(index * width + system, result) for system, result in enumerate(row)]
        rows.append({"name": pair.id or f"row {index + 1}", "pair": pair, "scores": scores, "spread": spread})
    total = len(next(iter(results.values())))
    return render("differing.html", names=list(results), rows=rows, total=total)
