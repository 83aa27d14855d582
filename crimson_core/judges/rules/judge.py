"""The offline judge: findings of both reports, their significance, their matches, and what is wrong."""

from collections.abc import Callable, Generator, Sequence
from functools import lru_cache

from crimson_core.judges.base import Judgement
from crimson_core.judges.rules.attribute_errors import Discrepancy, compare, compare_location
from crimson_core.judges.rules.extraction import ReportFinding, extract_findings
from crimson_core.judges.rules.lexicon import lexicon, reading_digest, rules
from crimson_core.judges.rules.matching import in_parts, match_findings
from crimson_core.judges.rules.significance import Patient, patient_of, significance
from crimson_core.protocol.evaluation import AttributeError, Errors, Evaluation, Finding, Match
from crimson_core.protocol.pair import ReportPair

_REMEMBERED = 64  # reports; only while a call lasts, since they are patient data


class OfflineJudge:
    """Judges by rules and a lexicon. Each finding carries `span`, its characters (start, end) in its report."""

    def __init__(self) -> None:
        """Load the lexicon now, so that the first pair is as fast as the others."""
        lexicon(), rules()

    def judge(self, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
        """Yield the judgements in order; this judge fails on no report."""
        read = lru_cache(_REMEMBERED)(extract_findings)  # candidates of several systems come with the same reference
        for index, pair in enumerate(pairs):
            yield index, Judgement(evaluate_pair(pair, read))

    def signature(self) -> dict[str, str]:
        """The versions of the lexicon and of the rules, for people, and the digest of all that decides a judgement."""
        versions = {"lexicon": str(lexicon().version), "rules": str(rules()["version"])}
        return {"judge": "offline"} | versions | {"reading": reading_digest()}


def evaluate_pair(pair: ReportPair, read: Callable[[str], list[ReportFinding]] = extract_findings) -> Evaluation:
    """The evaluation of one report pair; `read` extracts the findings of a report."""
    references, predictions = read(pair.reference), read(pair.candidate)
    patient = patient_of(pair.context)
    ref_findings = listed_findings("R", references, pair.reference, patient)
    pred_findings = listed_findings("P", predictions, pair.candidate, patient)
    matches = match_findings(references, predictions)
    parts = in_parts(references, predictions)

    attribute_errors = []
    placed: set[int] = set()  # references whose location has been compared
    for r, p in matches:
        urgent = ref_findings[r].clinical_significance == "urgent"
        found = compare(references[r], predictions[p], urgent, (r, p) in parts)
        if r not in placed:
            refs, preds = _group(r, matches)
            placed |= refs
            found += compare_location([references[i] for i in sorted(refs)], [predictions[i] for i in sorted(preds)])
        attribute_errors += [listed_error(ref_findings[r].id, pred_findings[p].id, what) for what in found]
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


def _group(reference: int, matches: Sequence[tuple[int, int]]) -> tuple[set[int], set[int]]:
    """All references and predictions that a reference is matched with, directly or through others."""
    refs, preds = {reference}, set()
    while True:
        more = [(r, p) for r, p in matches if r in refs or p in preds]
        if len({r for r, _ in more}) == len(refs) and len({p for _, p in more}) == len(preds):
            return refs, preds
        refs, preds = {r for r, _ in more}, {p for _, p in more}


def listed_error(ref_id: str, pred_id: str, found: Discrepancy) -> AttributeError:
    """A discrepancy on a match, as an evaluation lists it."""
    return AttributeError(
        ref_id=ref_id,
        pred_id=pred_id,
        severity=found.grade,
        error_types=[found.type],
        explanation=found.explanation,
    )


def listed_findings(letter: str, findings: Sequence[ReportFinding], report: str, patient: Patient) -> list[Finding]:
    """The findings of a report as an evaluation lists them, with ids of a letter and a number from 1 on."""
    beside = frozenset(concept for found in findings for concept in found.concepts)
    return [
        Finding(
            id=f"{letter}{number}",
            finding=report[found.start : found.end],
            clinical_significance=significance(found, patient, beside),
            span=[found.start, found.end],
        )
        for number, found in enumerate(findings, 1)
    ]
