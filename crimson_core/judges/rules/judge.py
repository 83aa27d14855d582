"""The offline judge: findings of both reports, their significance, their matches, and what is wrong."""

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from copy import copy
from functools import lru_cache, partial
from typing import NamedTuple

from crimson_core.judges.base import Judgement
from crimson_core.judges.rules.attribute_errors import (
    Discrepancy,
    compare,
    compare_location,
    contradictions,
    denied_signs,
)
from crimson_core.judges.rules.attributes import ReportFinding
from crimson_core.judges.rules.clause_reading import NameOf, ReadSentence, no_name, read_sentence
from crimson_core.judges.rules.extraction import reading_of
from crimson_core.judges.rules.legible import legible
from crimson_core.judges.rules.lexicon import lexicon, reading_digest, rules
from crimson_core.judges.rules.matching import in_parts, is_sign, match_findings
from crimson_core.judges.rules.significance import Patient, patient_of, significance
from crimson_core.protocol.evaluation import AttributeError, Errors, Evaluation, Finding, Match
from crimson_core.protocol.pair import ReportPair

# What is remembered, only while a call or a run lasts, since it is patient data: reports, since candidates of several systems come with
# the same reference, and sentences, since most of those that radiologists and models write have been written before.
_REPORTS = 1_024  # of two kilobytes each, beside their texts
_SENTENCES = 16_384  # of a kilobyte or two each


class Read(NamedTuple):
    """What the judge needs of a report: its findings, what it denies, and whether it is one that the lexicon can read."""

    findings: list[ReportFinding]
    denied: list[ReportFinding]
    recognised: bool


def read_findings(report: str, name_of: NameOf = no_name, read: ReadSentence | None = None) -> Read:
    """Read a report; `name_of` and `read` are those of `reading_of`."""
    text, places = legible(report)
    reading = reading_of(text, name_of, read=read)
    findings = reading.findings()
    if places:
        findings = [
            one._replace(start=min(at), end=max(at) + 1) for one in findings for at in [places[one.start : one.end]]
        ]
    return Read(findings, reading.denied(), reading.recognised)


class OfflineJudge:
    """Judges by rules and a lexicon. Each finding carries `span`, its characters (start, end) in its report."""

    def __init__(self) -> None:
        """Load the lexicon now, so that the first pair is as fast as the others."""
        lexicon(), rules()
        self._read: Callable[[str], Read] | None = None

    def remembering(self) -> "OfflineJudge":
        """The same judge for calls that are parts of one run: it remembers between them, as long as it is there."""
        judge = copy(self)
        judge._read = _remembering()
        return judge

    def judge(self, pairs: Sequence[ReportPair]) -> Generator[tuple[int, Judgement], None, None]:
        """Yield the judgements in order; this judge fails on no report."""
        read = self._read or _remembering()
        for index, pair in enumerate(pairs):
            yield index, Judgement(evaluate_pair(pair, read))

    def signature(self) -> dict[str, str]:
        """The versions of the lexicon and of the rules, for people, and the digest of all that decides a judgement."""
        versions = {"lexicon": str(lexicon().version), "rules": str(rules()["version"])}
        return {"judge": "offline"} | versions | {"reading": reading_digest()}


def _remembering() -> Callable[[str], Read]:
    return lru_cache(_REPORTS)(partial(read_findings, read=lru_cache(_SENTENCES)(read_sentence)))


def evaluate_pair(pair: ReportPair, read: Callable[[str], Read] = read_findings) -> Evaluation:
    """The evaluation of one report pair; it tells which of the two reports are `unrecognised`, if any."""
    reference, candidate = read(pair.reference), read(pair.candidate)
    patient = patient_of(pair.context)
    ref_findings = listed_findings("R", reference.findings, pair.reference, patient)
    pred_findings = listed_findings("P", candidate.findings, pair.candidate, patient)
    denied = reference.denied, candidate.denied
    matches = match_findings(reference.findings, candidate.findings, denied)
    urgent = [finding.clinical_significance == "urgent" for finding in ref_findings]
    found = discrepancies(reference.findings, candidate.findings, matches, urgent, denied)
    matched_refs, matched_preds = {r for r, _ in matches}, {p for _, p in matches}
    unrecognised = [name for name, of in (("reference", reference), ("candidate", candidate)) if not of.recognised]
    return Evaluation(
        reference_findings=ref_findings,
        predicted_findings=pred_findings,
        matched_findings=[Match(ref_id=ref_findings[r].id, pred_id=pred_findings[p].id) for r, p in matches],
        errors=Errors(
            false_findings=[f.id for p, f in enumerate(pred_findings) if p not in matched_preds],
            missing_findings=[f.id for r, f in enumerate(ref_findings) if r not in matched_refs],
            attribute_errors=[listed_error(ref_findings[r].id, pred_findings[p].id, what) for r, p, what in found],
        ),
        **({"unrecognised": unrecognised} if unrecognised else {}),
    )


def discrepancies(
    references: Sequence[ReportFinding],
    predictions: Sequence[ReportFinding],
    matches: Sequence[tuple[int, int]],
    urgent: Sequence[bool],
    denied: tuple[Sequence[ReportFinding], Sequence[ReportFinding]] = ((), ()),
) -> list[tuple[int, int, Discrepancy]]:
    """What is wrong with each match, by its positions.

    `urgent` tells it of each reference; `denied` is what the reference and the candidate say to be absent.
    """
    parts = in_parts(references, predictions)
    found: list[tuple[int, int, Discrepancy]] = []
    placed: set[int] = set()  # references whose location has been compared
    refs_matched, preds_matched = Counter(r for r, _ in matches), Counter(p for _, p in matches)
    for r, p in matches:
        joined = refs_matched[r] > 1 or preds_matched[p] > 1
        if joined and (is_sign(predictions[p], references[r]) or is_sign(references[r], predictions[p])):
            found += [(r, p, what) for what in contradictions(references[r], predictions[p])]
            continue
        whole = _with_change([references[i] for i, j in matches if j == p], references[r])
        told = _with_change([predictions[j] for i, j in matches if i == r], predictions[p])
        here = compare(whole, told, urgent[r], (r, p) in parts)
        if any(denied):
            here += denied_signs(whole, told, denied)
        if r not in placed:
            refs, preds = _group(r, matches)
            placed |= refs
            here += compare_location([references[i] for i in sorted(refs)], [predictions[i] for i in sorted(preds)])
        found += [(r, p, what) for what in here]
    return found


def _with_change(together: Sequence[ReportFinding], finding: ReportFinding) -> ReportFinding:
    """A finding with the change that is told of another part of what it matches."""
    change = finding.attributes.temporal or next(
        (f.attributes.temporal for f in together if f.attributes.temporal), None
    )
    if change == finding.attributes.temporal:
        return finding
    return finding._replace(attributes=finding.attributes._replace(temporal=change))


def _group(reference: int, matches: Sequence[tuple[int, int]]) -> tuple[set[int], set[int]]:
    """All references and predictions that a reference is matched with, directly or through others."""
    refs, preds = {reference}, {p for r, p in matches if r == reference}
    while True:
        more = {r for r, p in matches if p in preds}
        if more <= refs:
            return refs, preds
        refs |= more
        preds |= {p for r, p in matches if r in refs}


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
