"""Which text under the heading of a history, a technique or the like is a report, where a generator or a form has put one."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from crimson_core.judges.rules.attributes import ReportFinding
from crimson_core.judges.rules.clauses import Clause, clauses
from crimson_core.judges.rules.lexicon import lexicon
from crimson_core.judges.rules.sentences import Section

# A history tells of "right pneumothorax", too. Beside findings it is one, unless it goes on as only reports do.
_LIKE_A_REPORT = 3  # sentences
_OF_PATIENTS = ("history", "hypothetical", "past")  # cues
_OPERATION = "postsurgical_change"

FindingsIn = Callable[[str], Sequence[ReportFinding]]


class _Sentence(NamedTuple):
    """What speaks for a report: it names a finding and no patient, tells it with its side or degree or in a whole sentence, denies it."""

    start: int
    names: bool = False
    tells: bool = False
    at_length: bool = False  # with its degree, or in a whole sentence
    denies: bool = False


def reports_in_histories(
    report: str, parts: Sequence[Section], told: bool, cut: bool, findings_in: FindingsIn
) -> frozenset[int]:
    """Where those sentences of sections to be left out begin that are to be read.

    A section is read if it tells or denies a finding as a radiologist does, and nothing else in the report says whether there is
    one ("No change" does not), or if it does so in several sentences, of which one denies.

    Args:
        report: Its text.
        parts: Its `sections`.
        told: Whether its other sections tell or deny a finding.
        cut: Whether they are but the rest of these, so that the first sentence of a report may be left out.
        findings_in: Reads a sentence.
    """
    found: set[int] = set()
    normal: bool | None = None  # whether the other sections say in general that nothing is found
    for name, group in groupby(parts, key=lambda part: part[2] if part[3] else None):
        if name not in lexicon().skipped_sections:
            continue
        said = [_sentence(report, start, end, findings_in) for start, end, *_ in group]
        like = [one for one in said if one.tells or one.denies]
        if not like:
            continue
        if len(like) >= _LIKE_A_REPORT and any(one.denies for one in like):
            like = [one for one in said if one.names]
        elif not (cut and like[0].at_length):
            normal = _calls_normal(report, parts) if normal is None and not told else normal
            if told or normal:
                continue
        found.update(one.start for one in said if one.start >= like[0].start)
    return frozenset(found)


def _sentence(report: str, start: int, end: int, findings_in: FindingsIn) -> _Sentence:
    sentence = report[start:end].strip()
    findings = findings_in(sentence)
    words = lexicon()
    whole = normal = False
    for clause in clauses(sentence, words):
        spoken_of = "symptom" in clause.by_kind or any(map(clause.cues, _OF_PATIENTS))
        if spoken_of or not words.words["of_patients"].isdisjoint(clause.words):
            return _Sentence(start)
        whole = whole or not words.words["copulas"].isdisjoint(clause.words)
        normal = normal or _is_normal(clause)
    told = [finding.attributes for finding in findings if _may_be_told(finding)]
    at_length = bool(told) and (whole or any(said.severity or said.sizes_mm for said in told))
    tells = at_length or any(said.sides for said in told)
    denies = (bool(findings) or normal) and not any(finding.present for finding in findings)
    return _Sentence(start, bool(findings) or normal, tells, at_length, denies)


def _may_be_told(finding: ReportFinding) -> bool:
    """Whether a finding is no device and no operation, which histories describe as well, and is sure."""
    words = lexicon()
    done = any(words.concepts[one].device or _OPERATION in words.broader[one] for one in finding.concepts)
    return finding.present and not finding.attributes.uncertain and not done


def _is_normal(clause: Clause) -> bool:
    """Whether it says in general that nothing is found: "Normal heart", "No acute disease"."""
    kinds = clause.by_kind.keys()
    return kinds >= {"normal", "anatomy"} or ("general" in kinds and bool(clause.cues("negated_before")))


def _calls_normal(report: str, parts: Sequence[Section]) -> bool:
    """Whether the sections that are not left out do."""
    told = (report[start:end].strip() for start, end, _, skipped in parts if not skipped)
    return any(_is_normal(clause) or "normal" in clause.by_kind for text in told for clause in clauses(text, lexicon()))
