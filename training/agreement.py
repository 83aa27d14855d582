"""Agreement of a judge's evaluations with the labels of held-out records."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import kendalltau

from crimson_core.judges.rules.lexicon import words_of
from crimson_core.run.scorer import PairResult
from training.records import Record

_SAME = 0.5  # minimum share of common words of two texts for the same finding


def agreement(records: Sequence[Record], results: Sequence[PairResult]) -> dict[str, float]:
    """Figures of a judge on labelled records; `results` are the judge's for the records' pairs, in their order.

    Two errors agree if they are of one kind and about findings with mostly the same words; each counts once.

    Returns:
        `pairs`; `parsed`, the share of pairs with an evaluation; over those, `score_mae` and `score_tau` (Kendall's tau-b)
        of the scores, and micro F1 of `false`, `missing` and `attribute` errors. NaN if there is nothing to count.
    """
    scored = [(record, result) for record, result in zip(records, results, strict=True) if result.evaluation]
    ours = [result.crimson_score for _, result in scored]
    labels = [record.crimson_score for record, _ in scored]
    figures = {
        "pairs": len(records),
        "parsed": len(scored) / len(records) if records else float("nan"),
        "score_mae": float(np.mean(np.abs(np.subtract(ours, labels)))) if scored else float("nan"),
        "score_tau": float(kendalltau(ours, labels).statistic) if len(scored) > 1 else float("nan"),
    }
    for kind in ("false", "missing", "attribute"):
        both = we = they = 0
        for record, result in scored:
            found = _errors(result.evaluation, kind)
            wanted = _errors(record.raw_evaluation, kind)
            both, we, they = both + _common(found, wanted), we + len(found), they + len(wanted)
        figures[f"{kind}_f1"] = 2 * both / (we + they) if we + they else float("nan")
    return figures


def _errors(evaluation: dict[str, Any], kind: str) -> list[tuple[str, frozenset[str]]]:
    """The errors of one kind: the exact type of each, and the words of its finding."""
    findings = [*evaluation["reference_findings"], *evaluation["predicted_findings"]]
    words = {f["id"]: frozenset(word for word, _, _ in words_of(f["finding"])) for f in findings}
    errors = evaluation["errors"]
    if kind == "attribute":
        return [
            (error_type, words.get(e["ref_id"], frozenset()))
            for e in errors["attribute_errors"]
            for error_type in e["error_types"]
        ]
    return [(kind, words.get(i, frozenset())) for i in errors[f"{kind}_findings"]]


def _common(some: list[tuple[str, frozenset[str]]], others: list[tuple[str, frozenset[str]]]) -> int:
    """Number of errors that both lists contain, each matched once."""
    if not some or not others:
        return 0
    same = np.array([[a[0] == b[0] and _alike(a[1], b[1]) >= _SAME for b in others] for a in some])
    rows, columns = linear_sum_assignment(same, maximize=True)
    return int(same[rows, columns].sum())


def _alike(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one | other else 1.0
