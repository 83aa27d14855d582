"""What became of each finding of an evaluation, read once for all figures, tables and pages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from crimson_core.protocol.scoring import Credit, grade_weight, score_terms, significance_weight


class JudgedError(NamedTuple):
    """An attribute error.

    Attributes:
        ref_id: Of the reference finding.
        pred_id: Of the predicted finding that it is matched with.
        types: As the judge wrote them.
        grade: The same; empty where it gave none.
        weight: The weight a of the grade.
        explanation: Why, in the judge's words.
    """

    ref_id: str
    pred_id: str
    types: tuple[str, ...]
    grade: str
    weight: float
    explanation: str


@dataclass(frozen=True)
class JudgedFinding:
    """A finding and what became of it.

    Attributes:
        id: R1, P1, …
        text: The observation.
        level: Its clinical significance, as the judge wrote it.
        weight: The weight w of that.
        partners: Ids of the findings that it is matched with; without any it is missing or false.
        errors: The attribute errors of its matches.
        credit: What it adds to C; None unless it is a matched reference finding.
        span: What the judge says of its place in the report.
    """

    id: str
    text: str = field(default="", repr=False)  # report text
    level: str = ""
    weight: float = 0.0
    partners: tuple[str, ...] = ()
    errors: tuple[JudgedError, ...] = field(default=(), repr=False)
    credit: Credit | None = None
    span: Any = None


class Outcome(NamedTuple):
    """The findings of both reports, by id, and the errors.

    Attributes:
        references: Findings of the reference report.
        predictions: Of the candidate report.
        matches: The distinct matches, as (reference id, prediction id).
        false: The false findings.
        missing: The missing findings. Here and in `false`, an id without a finding has no text and weighs nothing.
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
