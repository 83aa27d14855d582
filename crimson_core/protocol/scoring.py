"""Evaluation -> score: pure arithmetic, equal to `crimson-score` 0.2.0 (`CRIMSONScore._calculate_crimson`).

Nothing is repaired here: an inconsistent evaluation gets the reference implementation's number. The formula and the
weights come from arXiv:2603.06183 and are explained in docs/scoring.md.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict

from crimson_core.protocol.evaluation import ERROR_TYPES, GRADES, SIGNIFICANCE_LEVELS, Evaluation

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

    raw_evaluation: Mapping[str, Any]
    error_counts: dict[str, int]
    weighted_error_counts: dict[str, float]
    metrics: dict[str, float]
    crimson_score: float


class WeighedFinding(NamedTuple):
    """A finding's id and its weight w."""

    id: str
    weight: float


class Credit(NamedTuple):
    """The contribution of one matched reference finding to C.

    Attributes:
        id: Id of the reference finding.
        weight: Its weight w.
        error_weight: The weight A of its attribute errors; None if it has none.
        credit: w, or w * w / (w + A).
    """

    id: str
    weight: float
    error_weight: float | None
    credit: float


class ScoreTerms(NamedTuple):
    """The terms of a score, each in the evaluation's order.

    Attributes:
        references: All reference findings; their weights make N.
        credits: The matched ones, each once; their credits make C.
        false: The false findings; their weights make F.
        missing: The missing findings; their weights make M. An id without a finding weighs 0.
    """

    references: list[WeighedFinding]
    credits: list[Credit]
    false: list[WeighedFinding]
    missing: list[WeighedFinding]


def score_terms(evaluation: Evaluation | Mapping[str, Any]) -> ScoreTerms:
    """The terms of an evaluation's score.

    Args:
        evaluation: An `Evaluation`, or its wire format (missing lists count as empty).

    Raises:
        KeyError: A finding has no id, or a match or attribute error no ref_id.
    """
    data = evaluation.model_dump() if isinstance(evaluation, Evaluation) else evaluation
    errors = data.get("errors", {})
    references = [WeighedFinding(f["id"], significance_weight(f)) for f in data.get("reference_findings", [])]
    ref_weights = dict(references)
    pred_weights = {f["id"]: significance_weight(f) for f in data.get("predicted_findings", [])}
    error_weights: dict[str, float] = {}  # ref_id -> A_r
    for error in errors.get("attribute_errors", []):
        error_weights[error["ref_id"]] = error_weights.get(error["ref_id"], 0) + grade_weight(error)

    credits = []
    # dict.fromkeys: each matched reference finding counts once, in the order of the matches
    for ref_id in dict.fromkeys(match["ref_id"] for match in data.get("matched_findings", [])):
        weight, error_weight = ref_weights.get(ref_id, 0.0), error_weights.get(ref_id)
        credit = weight if error_weight is None else weight * _share(weight, error_weight)
        credits.append(Credit(ref_id, weight, error_weight, credit))
    return ScoreTerms(
        references,
        credits,
        [WeighedFinding(i, pred_weights.get(i, 0.0)) for i in errors.get("false_findings", [])],
        [WeighedFinding(i, ref_weights.get(i, 0.0)) for i in errors.get("missing_findings", [])],
    )


def score_evaluation(evaluation: Evaluation | Mapping[str, Any]) -> PairScore:
    """Score one evaluation.

    Args:
        evaluation: An `Evaluation`, or its wire format (missing lists count as empty).

    Returns:
        The score in (-1, 1], rounded to 4 decimals, and everything that it was computed from.

    Raises:
        KeyError: A finding has no id, or a match or attribute error no ref_id.
    """
    data = evaluation.model_dump() if isinstance(evaluation, Evaluation) else evaluation
    matches, errors = data.get("matched_findings", []), data.get("errors", {})
    attribute_errors = errors.get("attribute_errors", [])
    terms = score_terms(data)
    false_weight = sum(finding.weight for finding in terms.false)
    missing_weight = sum(finding.weight for finding in terms.missing)
    correct = 0.0
    for (
        credit
    ) in terms.credits:  # added like the reference implementation does; sum() rounds otherwise from Python 3.12 on
        correct += credit.credit
    total = sum(finding.weight for finding in terms.references)
    if not terms.references:
        total = len(matches) + missing_weight

    surplus = false_weight - correct
    if total == 0:
        raw = 1.0 if false_weight == 0 and missing_weight == 0 else -(false_weight + missing_weight + 1)
    else:
        raw = (correct - false_weight) / total
    if raw >= 0:
        score = raw
    else:
        score = -surplus / (1 + surplus) if surplus > 0 else 0.0

    counts = {
        "false_findings": len(terms.false),
        "missing_findings": len(terms.missing),
        "attribute_errors": len(attribute_errors),
    }
    for kind in ERROR_TYPES:
        counts[f"{kind}_errors"] = sum(kind in error.get("error_types", ()) for error in attribute_errors)
    return {
        "raw_evaluation": data,
        "error_counts": counts,
        "weighted_error_counts": {
            "false_findings": false_weight,
            "missing_findings": missing_weight,
            "attribute_errors": sum(map(grade_weight, attribute_errors)),
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


def significance_weight(finding: Mapping[str, Any]) -> float:
    """The weight w of a finding."""
    return SIGNIFICANCE_WEIGHTS.get(finding.get("clinical_significance", ""), UNKNOWN_WEIGHT)


def grade_weight(error: Mapping[str, Any]) -> float:
    """The weight a of an attribute error."""
    return GRADE_WEIGHTS.get(error.get("severity", ""), UNKNOWN_WEIGHT)


def _share(weight: float, error_weight: float) -> float:
    return weight / (weight + error_weight) if weight + error_weight > 0 else 0.0
