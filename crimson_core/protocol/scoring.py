"""Evaluation -> outcome -> score: pure arithmetic, equal to `crimson-score` 0.2.0 (`CRIMSONScore._calculate_crimson`).

Nothing is repaired here: an inconsistent evaluation gets the reference implementation's number. The formula and the
weights come from arXiv:2603.06183 and are explained in docs/scoring.md.
"""

from collections.abc import Mapping
from functools import reduce
from operator import add
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


class JudgedError(NamedTuple):
    """An attribute error.

    Attributes:
        ref_id: Id of the reference finding.
        pred_id: Id of the predicted finding; empty if the judge names none.
        types: The error types, as the judge wrote them.
        grade: The grade, as the judge wrote it; may be empty.
        weight: The grade's weight a.
        explanation: The judge's explanation.
    """

    ref_id: str
    pred_id: str
    types: tuple[str, ...]
    grade: str
    weight: float
    explanation: str

    def __repr__(self) -> str:
        """Without the explanation, which quotes reports."""
        return f"JudgedError(ref_id={self.ref_id!r}, pred_id={self.pred_id!r}, weight={self.weight})"


class JudgedFinding(NamedTuple):
    """A finding and its outcome.

    Attributes:
        id: R1, P1, …
        text: The observation.
        level: Its clinical significance, as the judge wrote it.
        weight: The weight w of the significance.
        partners: Ids of the findings that it matches; without any, it is missing or false.
        errors: Its attribute errors.
        span: Its characters in the report, as the judge gave them.
    """

    id: str
    text: str = ""
    level: str = ""
    weight: float = 0.0
    partners: tuple[str, ...] = ()
    errors: tuple[JudgedError, ...] = ()
    span: Any = None

    @property
    def error_weight(self) -> float:
        """The weight A of its attribute errors."""
        return sum(error.weight for error in self.errors)

    @property
    def credit(self) -> float:
        """A reference finding's part of C: w, or w * w / (w + A) if it has attribute errors; 0 if it is missing."""
        if not self.partners or not self.weight:
            return 0.0
        return self.weight * (self.weight / (self.weight + self.error_weight)) if self.errors else self.weight

    def __repr__(self) -> str:
        """Without report text."""
        return f"JudgedFinding(id={self.id!r}, level={self.level!r}, partners={self.partners!r})"


class Terms(NamedTuple):
    """The terms of the formula: sums of weights, without unit.

    Attributes:
        N: Weight of the reference findings.
        F: Weight of the false findings.
        M: Weight of the missing findings.
        C: Credit of the matched reference findings.
    """

    N: float
    F: float
    M: float
    C: float

    @property
    def surplus(self) -> float:
        """The errors in excess of the credit: d = F - C."""
        return self.F - self.C

    @property
    def S(self) -> float:
        """The score before squashing."""
        if self.N == 0:
            return 1.0 if self.F == 0 and self.M == 0 else -(self.F + self.M + 1)
        return (self.C - self.F) / self.N

    @property
    def score(self) -> float:
        """The score in (-1, 1], rounded to 4 decimals."""
        if self.S >= 0:
            return round(self.S, 4)
        return round(-self.surplus / (1 + self.surplus), 4) if self.surplus > 0 else 0.0


class Outcome(NamedTuple):
    """The state of each finding in an evaluation, and the terms of its score.

    Attributes:
        references: The reference report's findings, by id.
        predictions: The candidate report's findings, by id.
        matches: The distinct matches, as (reference id, prediction id).
        false: The false findings.
        missing: The missing findings. Here and in `false`, an id without a finding has no text and weighs 0.
        errors: The attribute errors.
        terms: The terms of the score.
    """

    references: dict[str, JudgedFinding]
    predictions: dict[str, JudgedFinding]
    matches: list[tuple[str, str]]
    false: list[JudgedFinding]
    missing: list[JudgedFinding]
    errors: list[JudgedError]
    terms: Terms

    @property
    def error_counts(self) -> dict[str, int]:
        """How many errors there are of each kind of `ERROR_COUNT_KEYS`."""
        counts = (len(self.false), len(self.missing), len(self.errors))
        types = (sum(kind in error.types for error in self.errors) for kind in ERROR_TYPES)
        return dict(zip(ERROR_COUNT_KEYS, (*counts, *types), strict=True))


class PairScore(TypedDict):
    """Score of one report pair as a dictionary with the reference implementation's keys.

    `metrics` contains N_G (our N), E_penalty (F), correct (C), errors_more_than_correct (F - C) and S.
    """

    raw_evaluation: Mapping[str, Any]
    error_counts: dict[str, int]
    weighted_error_counts: dict[str, float]
    metrics: dict[str, float]
    crimson_score: float


def read_outcome(evaluation: Mapping[str, Any]) -> Outcome:
    """The outcome of an evaluation in the wire format; missing lists count as empty.

    Raises:
        KeyError: A finding has no id, or a match or attribute error no ref_id.
    """
    listed = evaluation.get("reference_findings", [])
    matched = [(match["ref_id"], match.get("pred_id", "")) for match in evaluation.get("matched_findings", [])]
    matches = list(dict.fromkeys(matched))
    errors = evaluation.get("errors", {})
    judged = list(map(_judged_error, errors.get("attribute_errors", [])))

    def findings(records: list[Mapping[str, Any]], side: int) -> dict[str, JudgedFinding]:
        partners: dict[str, list[str]] = {}
        for match in matches:
            partners.setdefault(match[side], []).append(match[1 - side])
        return {
            finding["id"]: JudgedFinding(
                finding["id"],
                finding.get("finding", ""),
                finding.get("clinical_significance", ""),
                significance_weight(finding),
                tuple(partners.get(finding["id"], ())),
                tuple([error for error in judged if error[side] == finding["id"]]) if judged else (),
                finding.get("span"),
            )
            for finding in records
        }

    references, predictions = findings(listed, 0), findings(evaluation.get("predicted_findings", []), 1)
    false = [predictions.get(i, JudgedFinding(i)) for i in errors.get("false_findings", [])]
    missing = [references.get(i, JudgedFinding(i)) for i in errors.get("missing_findings", [])]
    missing_weight = sum(finding.weight for finding in missing)
    # Each matched finding once, in the order of the matches, and added one by one as the reference implementation does:
    # sum() rounds otherwise from Python 3.12 on.
    credits = (references[i].credit for i in dict.fromkeys(ref_id for ref_id, _ in matches) if i in references)
    terms = Terms(
        N=sum(map(significance_weight, listed)) if listed else len(matched) + missing_weight,
        F=sum(finding.weight for finding in false),
        M=missing_weight,
        C=reduce(add, credits, 0.0),
    )
    return Outcome(references, predictions, matches, false, missing, judged, terms)


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
    return score_outcome(data, read_outcome(data))


def score_outcome(data: Mapping[str, Any], outcome: Outcome) -> PairScore:
    """The same of an evaluation in the wire format whose outcome has been read."""
    terms = outcome.terms
    return {
        "raw_evaluation": data,
        "error_counts": outcome.error_counts,
        "weighted_error_counts": {
            "false_findings": terms.F,
            "missing_findings": terms.M,
            "attribute_errors": sum(error.weight for error in outcome.errors),
        },
        "metrics": {
            "N_G": terms.N,
            "E_penalty": terms.F,
            "correct": terms.C,
            "errors_more_than_correct": terms.surplus,
            "S": terms.S,
        },
        "crimson_score": terms.score,
    }


def significance_weight(finding: Mapping[str, Any]) -> float:
    """The weight w of a finding."""
    return SIGNIFICANCE_WEIGHTS.get(finding.get("clinical_significance", ""), UNKNOWN_WEIGHT)


def _judged_error(error: Mapping[str, Any]) -> JudgedError:
    types = error.get("error_types", ())
    if isinstance(types, str):  # a text with the types somewhere in it
        types = [kind for kind in ERROR_TYPES if kind in types]
    grade = error.get("severity", "")
    weight = GRADE_WEIGHTS.get(grade, UNKNOWN_WEIGHT)
    return JudgedError(
        error["ref_id"], error.get("pred_id", ""), tuple(types), grade, weight, error.get("explanation", "")
    )
