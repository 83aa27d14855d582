"""One report pair and what the judge said about it, as HTML."""

from collections.abc import Mapping
from typing import Any

from crimson_core.compare.html import words
from crimson_core.compare.html.marking import mark_reports, pieces
from crimson_core.compare.html.rendering import renderer
from crimson_core.protocol.pair import ReportPair
from crimson_core.protocol.scoring import grade_weight, score_terms, significance_weight
from crimson_core.run.scorer import PairResult

render = renderer()


def pair_html(
    pair: ReportPair, result: PairResult, signature: str, title: str = "", *, anchor: str = "", label: str = ""
) -> str:
    """The score, both reports with their findings marked, the errors, and how the score came about.

    Args:
        pair: What was judged.
        result: What became of it.
        signature: Of the score.
        title: What to call the pair, where it stands among others.
        anchor: Where the page holds several pairs: start of the names that tell them apart in it, of safe letters.
        label: The same for the names that a screen reader says.
    """
    shared = {"pair": pair, "result": result, "signature": signature, "title": title, "label": label}
    if result.score is None:
        return render("unscored.html", **shared)
    evaluation = result.score["raw_evaluation"]
    reference, candidate = mark_reports(evaluation, pair.reference, pair.candidate, anchor)
    reports = [
        {"name": name, "text": text, "marks": marks, "pieces": list(pieces(text, marks))}
        for name, text, marks in (
            ("Reference report", pair.reference, reference),
            ("Candidate report", pair.candidate, candidate),
        )
    ]
    score = result.score["crimson_score"]
    return render(
        "pair.html",
        **shared,
        score=score,
        meaning=words.meaning(score),
        bands=words.BANDS,
        levels=words.SIGNIFICANCE,
        reports=reports,
        errors=error_rows(evaluation),
        terms=term_rows(evaluation),
        metrics=result.score["metrics"],
        missing_weight=result.score["weighted_error_counts"]["missing_findings"],
    )


def error_rows(evaluation: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per error: its type, the findings that it is about, its grade and why.

    The gravest kinds come first: false and missing findings by weight, then attribute errors by weight.
    """
    references = {finding["id"]: finding for finding in evaluation["reference_findings"]}
    predictions = {finding["id"]: finding for finding in evaluation["predicted_findings"]}
    errors = evaluation["errors"]
    weighed = []
    for kind, ids, findings, where in (
        ("false finding", errors["false_findings"], predictions, "Stands in the candidate only."),
        ("missing finding", errors["missing_findings"], references, "Stands in the reference only."),
    ):
        for i in ids:
            finding = findings.get(i, {})
            row = {
                "type": kind,
                "findings": [(i, finding.get("finding", ""))],
                "grade": words.significance(finding.get("clinical_significance", "")),
                "weight": significance_weight(finding),
                "explanation": where,
            }
            weighed.append(((0, -row["weight"]), row))
    for error in errors["attribute_errors"]:
        row = {
            "type": ", ".join(error["error_types"]) or "attribute",
            "findings": [
                (error["ref_id"], references.get(error["ref_id"], {}).get("finding", "")),
                (error["pred_id"], predictions.get(error["pred_id"], {}).get("finding", "")),
            ],
            "grade": error["severity"] or "not graded",
            "weight": grade_weight(error),
            "explanation": error["explanation"],
        }
        weighed.append(((1, -row["weight"]), row))
    return [row for _, row in sorted(weighed, key=lambda pair: pair[0])]


def term_rows(evaluation: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The terms of the score with the findings that they stand for: `references` and `false`."""
    terms = score_terms(evaluation)
    references = {finding["id"]: finding for finding in evaluation["reference_findings"]}
    predictions = {finding["id"]: finding for finding in evaluation["predicted_findings"]}
    credits = {credit.id: credit for credit in terms.credits}
    partners: dict[str, list[str]] = {}
    for match in evaluation["matched_findings"]:
        partners.setdefault(match["ref_id"], []).append(match["pred_id"])
    return {
        "references": [
            {
                "finding": references[i],
                "weight": weight,
                "credit": credits.get(i),
                "partners": partners.get(i, []),
            }
            for i, weight in terms.references
        ],
        "false": [{"finding": predictions.get(i, {"id": i, "finding": ""}), "weight": w} for i, w in terms.false],
    }
