"""One report pair and its evaluation as HTML."""

from typing import NamedTuple

from crimson_core.compare.html import words
from crimson_core.compare.html.marking import mark_reports, pieces
from crimson_core.compare.html.rendering import renderer
from crimson_core.compare.summary import urgent_missed
from crimson_core.protocol.pair import ReportPair
from crimson_core.protocol.scoring import JudgedFinding, Outcome
from crimson_core.run.scorer import PairResult

render = renderer()


def pair_html(
    pair: ReportPair, result: PairResult, signature: str, title: str = "", *, anchor: str = "", label: str = ""
) -> str:
    """The score, both reports with highlighted findings, the errors, and the calculation of the score.

    Args:
        pair: The judged pair.
        result: Its result.
        signature: Signature of the score.
        title: The pair's name, if it is one of several.
        anchor: If the page has several pairs, the start of this pair's names in it, in safe letters.
        label: The same for the names that a screen reader reads out.
    """
    shared = {"pair": pair, "result": result, "signature": signature, "title": title, "label": label}
    outcome = result.outcome
    if outcome is None:
        return render("unscored.html", **shared)
    reference, candidate = mark_reports(outcome, pair.reference, pair.candidate, anchor)
    reports = [
        {"name": name, "text": text, "marks": marks, "pieces": list(pieces(text, marks))}
        for name, text, marks in (
            ("Reference report", pair.reference, reference),
            ("Candidate report", pair.candidate, candidate),
        )
    ]
    return render(
        "pair.html",
        **shared,
        urgent_missed=urgent_missed(outcome),
        meaning=words.meaning(outcome.terms.score),
        levels=words.SIGNIFICANCE,
        reports=reports,
        errors=error_rows(outcome),
        outcome=outcome,
        terms=outcome.terms,
    )


class ErrorRow(NamedTuple):
    """An error as shown on a page."""

    type: str
    findings: list[JudgedFinding]
    grade: str  # its grade in words, or the clinical significance of a finding
    weight: float
    explanation: str = ""  # the reason; empty if the type says everything


def error_rows(outcome: Outcome) -> list[ErrorRow]:
    """The errors, most serious kinds first: false and missing findings by weight, then attribute errors by weight."""
    unmatched = [("missing finding", finding) for finding in outcome.missing]
    unmatched += [("false finding", finding) for finding in outcome.false]
    rows = [ErrorRow(kind, [f], words.significance(f.level), f.weight) for kind, f in unmatched]
    flawed = [
        ErrorRow(
            ", ".join(error.types) or "attribute",
            [
                outcome.references.get(error.ref_id, JudgedFinding(error.ref_id)),
                outcome.predictions.get(error.pred_id, JudgedFinding(error.pred_id)),
            ],
            error.grade or "not graded",
            error.weight,
            error.explanation,
        )
        for error in outcome.errors
    ]
    return [row for part in (rows, flawed) for row in sorted(part, key=lambda row: -row.weight)]
