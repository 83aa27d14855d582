"""The rule-based writer: rewords a report and makes errors in it by rule, and so knows the label.

The findings of a candidate are known by construction: those of the ground truth, with one left out, one changed or one added.
The candidate is read again with the lexicon of the offline judge. It is kept only if it has exactly these findings; otherwise
another one is tried.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from crimson_core.judges.rules.attribute_errors import Discrepancy, compare, compare_location
from crimson_core.judges.rules.attributes import ReportFinding
from crimson_core.judges.rules.extraction import extract_findings
from crimson_core.judges.rules.judge import listed_error, listed_findings
from crimson_core.judges.rules.lexicon import lexicon, rules
from crimson_core.judges.rules.significance import patient_of
from crimson_core.protocol.evaluation import Errors, Evaluation, Match
from crimson_core.protocol.pair import PatientContext
from training.readable import with_whole_texts
from training.writers import Aim, Change, Draft, ErrorKind, Task
from training.writers.checking import significant
from training.writers.edits import Edit, attribute_errors, false_findings, omissions
from training.writers.pieces import Piece, joined, phrases, pieces_of
from training.writers.rewording import reworded

_TRIES = 12  # drafts of one task
_MOST_EDITS = 8  # errors of one kind that are tried in one draft
_STRENGTHS = (0.9, 0.7, 0.5, 0.3)  # of the rewording; it decreases as drafts fail


class _Expected(NamedTuple):
    """A finding that a candidate must contain: one of the ground truth, perhaps with an error, or a false one."""

    reference: int | None
    edit: Edit | None


class RuleWriter:
    """Writes candidates by rule; the same task always has the same draft."""

    def possible(self, report: str, kinds: Sequence[ErrorKind], aim: Aim | None = None) -> bool:
        """Whether one candidate for a report can have all these errors."""
        findings = extract_findings(report)
        pieces = pieces_of(report, findings)
        task = Task(report, tuple(kinds), "", None, aim)
        return bool(pieces) and _chosen(task, pieces, findings, random.Random(0)) is not None

    def aims(self, report: str) -> frozenset[Aim]:
        """The attribute errors that a report allows."""
        findings = extract_findings(report)
        return frozenset(
            Aim(edit.attribute, findings[edit.target].concepts[0])
            for edit in attribute_errors(pieces_of(report, findings), findings, random.Random(0))
            if _labelled(report, findings, edit.pieces, (edit,), None) is not None
        )

    def write(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Draft]]:
        """Yield (position in `tasks`, draft), in order."""
        for index, task in enumerate(tasks):
            yield index, _draft(task)

    def signature(self) -> dict[str, str]:
        """The versions of the phrases, the lexicon and the rules."""
        versions = {"phrases": phrases()["version"], "lexicon": lexicon().version, "rules": rules()["version"]}
        return {"writer": "rules", **{name: str(version) for name, version in versions.items()}}


def _draft(task: Task) -> Draft:
    findings = extract_findings(task.report)
    pieces = pieces_of(task.report, findings)
    if not pieces:
        return Draft(failure="no sentence of the report tells findings")
    rng = random.Random(task.seed)
    for attempt in range(_TRIES):
        edits = _chosen(task, pieces, findings, rng)
        if edits is None:
            continue
        last = edits[-1].pieces if edits else pieces
        # The last tries do not reword: a candidate with the error alone is better than none.
        strength = _STRENGTHS[min(attempt // 2, len(_STRENGTHS) - 1)] if attempt < _TRIES - 3 or not edits else 0.0
        present = {c for finding in findings for c in finding.concepts} | {c for e in edits for c in e.concepts}
        made = reworded(last, present, rng, strength)
        evaluation = _labelled(task.report, findings, made, edits, task.context)
        told = [piece.text for piece in made]
        if len(set(told)) < len(told):
            continue  # nobody repeats a sentence word by word
        if evaluation is not None and " ".join(joined(made).split()) != " ".join(task.report.split()):
            changes = {
                e.kind: Change(kind=e.kind, attribute=e.attribute, before=e.before, after=e.after) for e in edits
            }
            whole = with_whole_texts(evaluation, task.report, joined(made))
            return Draft(joined(made), tuple(changes[kind] for kind in task.kinds), whole)
    what = " and ".join(task.kinds).replace("_", " ") or "rewrite"
    return Draft(failure=f"no {what} of this report holds what it should, in {_TRIES} tries")


def _chosen(
    task: Task, pieces: list[Piece], findings: list[ReportFinding], rng: random.Random
) -> tuple[Edit, ...] | None:
    """One error of each kind of a task, each made after the one before it; None if they cannot be made."""
    # A false finding needs no finding, and so comes last.
    kinds = sorted(task.kinds, key=("omission", "attribute_error", "false_finding").index)

    def from_here(made: tuple[Edit, ...]) -> tuple[Edit, ...] | None:
        if len(made) == len(kinds):
            return made
        taken = {edit.target for edit in made if edit.target is not None}
        options = _edits(kinds[len(made)], made[-1].pieces if made else pieces, findings, rng, task.aim)
        for edit in islice(options, _MOST_EDITS):
            if edit.target in taken:
                continue
            more = (*made, edit)
            if _labelled(task.report, findings, edit.pieces, more, task.context) is not None:
                whole = from_here(more)
                if whole is not None:
                    return whole
        return None

    return from_here(())


def _edits(
    kind: ErrorKind, pieces: list[Piece], findings: list[ReportFinding], rng: random.Random, aim: Aim | None
) -> Iterator[Edit]:
    if kind == "false_finding":
        return false_findings(pieces, findings, rng)
    if kind == "attribute_error":
        return attribute_errors(pieces, findings, rng, aim)
    return omissions(pieces, significant(findings), findings, rng)


def _labelled(
    report: str,
    findings: list[ReportFinding],
    pieces: list[Piece],
    edits: Sequence[Edit],
    context: PatientContext | None,
) -> Evaluation | None:
    """The evaluation of a candidate by construction; None if it does not contain the expected findings."""
    candidate = joined(pieces)
    told = extract_findings(candidate)
    about = {edit.target: edit for edit in edits if edit.target is not None}
    gone = {target for target, edit in about.items() if edit.kind == "omission"}
    expected = [_Expected(None, edit) for edit in edits if edit.kind == "false_finding"]
    kept = [_Expected(i, about.get(i)) for i in range(len(findings)) if i not in gone]
    # findings with an error first, so that no other finding takes their place
    expected += sorted(kept, key=lambda e: e.edit is None)
    if len(told) != len(expected):
        return None

    patient = patient_of(context)
    ref_findings = listed_findings("R", findings, report, patient)
    pred_findings = listed_findings("P", told, candidate, patient)
    places: dict[int, int] = {}  # reference -> prediction
    errors = []
    free = set(range(len(told)))
    for wanted in expected:
        for place in sorted(free):
            found = _fits(wanted, findings, told[place], ref_findings)
            if found is not None:
                break
        else:
            return None
        free.discard(place)
        if wanted.reference is not None:
            places[wanted.reference] = place
            errors += [listed_error(ref_findings[wanted.reference].id, pred_findings[place].id, what) for what in found]
    return Evaluation(
        reference_findings=ref_findings,
        predicted_findings=pred_findings,
        matched_findings=[
            Match(ref_id=ref_findings[r].id, pred_id=pred_findings[p].id) for r, p in sorted(places.items())
        ],
        errors=Errors(
            false_findings=[pred_findings[p].id for p in range(len(told)) if p not in places.values()],
            missing_findings=[ref_findings[r].id for r in sorted(gone)],
            attribute_errors=errors,
        ),
    )


def _fits(
    wanted: _Expected, findings: list[ReportFinding], told: ReportFinding, ref_findings: list
) -> list[Discrepancy] | None:
    """The attribute errors of a finding that is the expected one; None if it is another one."""
    if wanted.reference is None:
        return [] if wanted.edit.concepts & set(told.concepts) else None
    reference = findings[wanted.reference]
    if set(reference.concepts) != set(told.concepts):
        return None
    urgent = ref_findings[wanted.reference].clinical_significance == "urgent"
    found = _discrepancies(reference, told, urgent)
    if wanted.edit is None:
        return [] if not found and not _discrepancies(told, reference, urgent) else None
    return found if {what.type for what in found} == {wanted.edit.attribute} else None


def _discrepancies(one: ReportFinding, other: ReportFinding, urgent: bool) -> list[Discrepancy]:
    return [*compare(one, other, urgent), *compare_location([one], [other])]
