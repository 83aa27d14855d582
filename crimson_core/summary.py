"""Scores -> corpus figures."""

from collections.abc import Sequence
from typing import Any

from crimson_core.scorer import PairResult
from crimson_core.scoring import ERROR_COUNT_KEYS


def summarize(results: Sequence[PairResult], signature: str) -> dict[str, Any]:
    """Corpus figures of scored pairs, flat and JSON-ready but for NaN.

    Args:
        results: In the order in which `scores` shall stand.
        signature: Of the scorer that made them.

    Returns:
        `crimson_score` (mean over scored pairs; NaN if there are none), `scores` (one per pair, NaN where unscored), `n_pairs`,
        `n_unscored`, `n_repaired`, `failures` (position -> reason), `mean_<kind>` (errors per scored pair, for each kind of
        `ERROR_COUNT_KEYS`) and `signature`.
    """
    scored = [result.score for result in results if result.score is not None]
    return {
        "crimson_score": _mean([score["crimson_score"] for score in scored]),
        "scores": [result.crimson_score for result in results],
        "n_pairs": len(results),
        "n_unscored": len(results) - len(scored),
        "n_repaired": sum(bool(result.repairs) for result in results),
        "failures": {result.index: result.failure for result in results if result.score is None},
        **{f"mean_{kind}": _mean([score["error_counts"][kind] for score in scored]) for kind in ERROR_COUNT_KEYS},
        "signature": signature,
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
