"""The outcome of each finding of an evaluation, as typed records for all figures, tables and pages."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from crimson_core.protocol.scoring import Credit, grade_weight, score_terms, significance_weight


class JudgedError(NamedTuple):
    """An attribute error.

    Attributes:
        ref_id: Id of the reference finding.
        pred_id: Id of the predicted finding.
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


class JudgedFinding(NamedTuple):
    """A finding and its outcome.

    Attributes:
        id: R1, P1, …
        text: The observation.
        level: Its clinical significance, as the judge wrote it.
        weight: The weight w of the significance.
        partners: Ids of the findings that it matches; without any, it is missing or false.
        errors: The attribute errors of its matches.
        credit: Its contribution to C; None unless it is a matched reference finding.
        span: Its characters in the report, as the judge gave them.
    """

    id: str
    text: str = ""
    level: str = ""
    weight: float = 0.0
    partners: tuple[str, ...] = ()
    errors: tuple[JudgedError, ...] = ()
    credit: Credit | None = None
    span: Any = None

    def __repr__(self) -> str:
        """Without report text."""
        return f"JudgedFinding(id={self.id!r}, level={self.level!r}, partners={self.partners!r})"


class Outcome(NamedTuple):
    """The findings of both reports, by id, and the errors.

    Attributes:
        references: The reference report's findings.
        predictions: The candidate report's findings.
        matches: The distinct matches, as (reference id, prediction id).
        false: The false findings.
        missing: The missing findings. Here and in `false`, an id without a finding has no text and weighs 0.
        errors: The attribute errors.
    """

    references: dict[str, JudgedFinding]
    predictions: dict[str, JudgedFinding]
    matches: list[tuple[str, str]]
    false: list[JudgedFinding]
    missing: list[JudgedFinding]
    errors: list[JudgedError]


def read_outcome(evaluation: Mapping[str, Any]) -> Outcome:
    """The outcome of an evaluation in the wire format; missing lists count as empty."""
    terms = score_terms(evaluation)
    errors = evaluation.get("errors", {})
    matches = list(dict.fromkeys((m["ref_id"], m["pred_id"]) for m in evaluation.get("matched_findings", [])))
    judged = [
        JudgedError(
            error["ref_id"],
            error["pred_id"],
            tuple(error.get("error_types", ())),
            error.get("severity", ""),
            grade_weight(error),
            error.get("explanation", ""),
        )
        for error in errors.get("attribute_errors", [])
    ]
    credits = {credit.id: credit for credit in terms.credits}

    def findings(key: str, side: int) -> dict[str, JudgedFinding]:
        return {
            finding["id"]: JudgedFinding(
                finding["id"],
                finding.get("finding", ""),
                finding.get("clinical_significance", ""),
                significance_weight(finding),
                tuple(match[1 - side] for match in matches if match[side] == finding["id"]),
                tuple(e for e in judged if e[side] == finding["id"] and (e.ref_id, e.pred_id) in matches),
                credits.get(finding["id"]) if side == 0 else None,
                finding.get("span"),
            )
            for finding in evaluation.get(key, [])
        }

    references, predictions = findings("reference_findings", 0), findings("predicted_findings", 1)
    return Outcome(
        references,
        predictions,
        matches,
        [predictions.get(i, JudgedFinding(i)) for i in errors.get("false_findings", [])],
        [references.get(i, JudgedFinding(i)) for i in errors.get("missing_findings", [])],
        judged,
    )
