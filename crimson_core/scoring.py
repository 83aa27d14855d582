"""Evaluation -> score: pure arithmetic, equal to `crimson-score` 0.2.0 (`CRIMSONScore._calculate_crimson`).

Nothing is repaired here: an inconsistent evaluation gets the reference implementation's number. The formula and its
weights are those of arXiv:2603.06183; the README states them.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

from crimson_core.evaluation import ERROR_TYPES, GRADES, SIGNIFICANCE_LEVELS, Evaluation

SIGNIFICANCE_WEIGHTS = dict(zip(SIGNIFICANCE_LEVELS, (1.0, 0.5, 0.25, 0.0), strict=True))
GRADE_WEIGHTS = dict(zip(GRADES, (0.5, 0.0), strict=True))
UNKNOWN_WEIGHT = 0.25

# Keys of `error_counts`, in the reference implementation's order.
ERROR_COUNT_KEYS = (
    "false_findings",
    "missing_findings",
    "attribute_errors",
    *(f"{kind}_errors" for kind in ERROR_TYPES),
)


class PairScore(TypedDict):
    """Score of one report pair, with the reference implementation's keys.

    `metrics` holds N_G (weight of the reference findings), E_penalty (of the false findings), correct (credit of the
    matched ones), errors_more_than_correct and S (the score before squashing); all are unitless sums of weights.
    """

    raw_evaluation: dict[str, Any]
    error_counts: dict[str, int]
    weighted_error_counts: dict[str, float]
    metrics: dict[str, float]
    crimson_score: float


def score_evaluation(evaluation: Evaluation | Mapping[str, Any]) -> PairScore:
    """Score one evaluation.

    Args:
        evaluation: An `Evaluation`, or its wire format (missing lists count as empty).

    Returns:
        The score in (-1, 1], rounded to 4 decimals, and everything that it was made from.

    Raises:
        KeyError: A finding has no id, or a match or attribute error no ref_id.
    """
    data = evaluation.model_dump() if isinstance(evaluation, Evaluation) else evaluation
    references, predictions = data.get("reference_findings", []), data.get("predicted_findings", [])
    matches, errors = data.get("matched_findings", []), data.get("errors", {})
    false, missing = errors.get("false_findings", []), errors.get("missing_findings", [])
    attribute_errors = errors.get("attribute_errors", [])

    ref_weights = {finding["id"]: _significance_weight(finding) for finding in references}
    pred_weights = {finding["id"]: _significance_weight(finding) for finding in predictions}
    false_weight = sum(pred_weights.get(i, 0.0) for i in false)
    missing_weight = sum(ref_weights.get(i, 0.0) for i in missing)
    error_weights: dict[str, float] = {}  # ref_id -> A_r
    for error in attribute_errors:
        error_weights[error["ref_id"]] = error_weights.get(error["ref_id"], 0) + _grade_weight(error)

    total = sum(map(_significance_weight, references))
    if not references:
        total = len(matches) + missing_weight
    # dict.fromkeys: each matched reference finding counts once, in the order of the matches
    correct = 0.0
    for ref_id in dict.fromkeys(match["ref_id"] for match in matches):
        weight = ref_weights.get(ref_id, 0.0)
        correct += weight * _credit(weight, error_weights[ref_id]) if ref_id in error_weights else weight

    surplus = false_weight - correct
    if total == 0:
        raw = 1.0 if false_weight == 0 and missing_weight == 0 else -(false_weight + missing_weight + 1)
    else:
        raw = (correct - false_weight) / total
    if raw >= 0:
        score = raw
    else:
        score = -surplus / (1 + surplus) if surplus > 0 else 0.0

    counts = {"false_findings": len(false), "missing_findings": len(missing), "attribute_errors": len(attribute_errors)}
    for kind in ERROR_TYPES:
        counts[f"{kind}_errors"] = sum(kind in error.get("error_types", ()) for error in attribute_errors)
    return {
        "raw_evaluation": data,
        "error_counts": counts,
        "weighted_error_counts": {
            "false_findings": false_weight,
            "missing_findings": missing_weight,
            "attribute_errors": sum(map(_grade_weight, attribute_errors)),
        },
        "metrics": {
            "N_G": total,
            "E_penalty": false_weight,
            "correct": correct,
            "errors_more_than_correct": surplus,
            "S": raw,
        },
        "crimson_score": round(score, 4),
    }


def _significance_weight(finding: Mapping[str, Any]) -> float:
    return SIGNIFICANCE_WEIGHTS.get(finding.get("clinical_significance", ""), UNKNOWN_WEIGHT)


def _grade_weight(error: Mapping[str, Any]) -> float:
    return GRADE_WEIGHTS.get(error.get("severity", ""), UNKNOWN_WEIGHT)


def _credit(weight: float, error_weight: float) -> float:
    return weight / (weight + error_weight) if weight + error_weight > 0 else 0.0
