"""The offline judge: findings of both reports, their significance, their matches, and what is wrong."""

from collections.abc import Generator, Sequence

from crimson_core.evaluation import AttributeError, Errors, Evaluation, Finding, Match
from crimson_core.judges.base import Judgement
from crimson_core.judges.offline.attributes import compare
from crimson_core.judges.offline.extraction import ReportFinding, extract_findings
from crimson_core.judges.offline.lexicon import lexicon, rules
from crimson_core.judges.offline.matching import match_findings
from crimson_core.judges.offline.significance import significance
from crimson_core.report import PatientContext, ReportPair


class OfflineJudge:
    """Judges by rules and a lexicon. Each finding carries `span`, its characters (start, end) in its report."""

    def __init__(self) -> None:
        """Load the lexicon now, so that the first pair is as fast as the others."""
        lexicon(), rules()

    def judge(self, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
        """Yield the judgements in order; this judge fails on no report."""
        for index, pair in enumerate(pairs):
            yield index, Judgement(evaluate_pair(pair))

    def signature(self) -> dict[str, str]:
        """The versions of the lexicon and of the rules."""
        return {"judge": "offline", "lexicon": str(lexicon().version), "rules": str(rules()["version"])}


def evaluate_pair(pair: ReportPair) -> Evaluation:
    """The evaluation of one report pair."""
    references, predictions = extract_findings(pair.reference), extract_findings(pair.candidate)
    ref_findings = _findings("R", references, pair.reference, pair.context)
    pred_findings = _findings("P", predictions, pair.candidate, pair.context)
    matches = match_findings(references, predictions)

    attribute_errors = []
    for r, p in matches:
        sides = frozenset(side for mr, mp in matches if mr == r for side in predictions[mp].attributes.sides)
        urgent = ref_findings[r].clinical_significance == "urgent"
        attribute_errors += [
            AttributeError(
                ref_id=ref_findings[r].id,
                pred_id=pred_findings[p].id,
                severity=found.grade,
                error_types=[found.type],
                explanation=found.explanation,
            )
            for found in compare(references[r], predictions[p], sides, urgent)
        ]
    matched_refs, matched_preds = {r for r, _ in matches}, {p for _, p in matches}
    return Evaluation(
        reference_findings=ref_findings,
        predicted_findings=pred_findings,
        matched_findings=[Match(ref_id=ref_findings[r].id, pred_id=pred_findings[p].id) for r, p in matches],
        errors=Errors(
            false_findings=[f.id for p, f in enumerate(pred_findings) if p not in matched_preds],
            missing_findings=[f.id for r, f in enumerate(ref_findings) if r not in matched_refs],
            attribute_errors=attribute_errors,
        ),
    )


def _findings(
    letter: str, findings: Sequence[ReportFinding], report: str, context: PatientContext | None
) -> list[Finding]:
    return [
        Finding(
            id=f"{letter}{number}",
            finding=report[found.start : found.end],
            clinical_significance=significance(found, context),
            span=[found.start, found.end],
        )
        for number, found in enumerate(findings, 1)
    ]
