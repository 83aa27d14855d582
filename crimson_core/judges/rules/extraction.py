"""A report's text -> its findings, each with its attributes and its place in the text."""

import re
from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import NamedTuple

from crimson_core.judges.rules.attributes import NOTHING, SUSPECTED, Attributes, Mention, ReportFinding, meet
from crimson_core.judges.rules.clause_reading import (
    ClauseReading,
    NameOf,
    ReadSentence,
    in_context,
    no_name,
    read_sentence,
)
from crimson_core.judges.rules.clauses import Clause
from crimson_core.judges.rules.continuations import Continuation
from crimson_core.judges.rules.histories import reports_in_histories
from crimson_core.judges.rules.joining import explains, made_of
from crimson_core.judges.rules.lexicon import Lexicon, lexicon
from crimson_core.judges.rules.repeats import each_once, lies_elsewhere
from crimson_core.judges.rules.sentences import EMPTY_LINE, Section, has_findings_section, sections

# Phrases of the lexicon in each character of a report: English ones on chest radiographs hold three times as many.
_LEAST_PHRASES = 0.045
_SHORT = 40  # characters; "Lymphangioleiomyomatosis." is one phrase and no other language
_HEADING_LINE = re.compile(r":\**\s*(?:\n|$)")
_CUT = 2  # words


class ClauseRead(NamedTuple):
    """What became of a clause.

    Attributes:
        start: First character of its sentence in the report that is no blank.
        clause: The clause.
        named: The findings that it names.
        role: explains (it says what the finding before it is), continues (it says more of it), or None.
    """

    start: int
    clause: Clause
    named: Sequence[Mention]
    role: str | None


class Reading(NamedTuple):
    """What a report says.

    Attributes:
        report: Its text.
        told: Every finding that it says to be present or absent, as often as it says so, in the order of the text.
        recognised: False where next to nothing of it could be read, or no finding and no normal statement: text in another
            language, say. An empty report is recognised.
        sections: Its sentences, as `sentences.sections` gives them; those that were read are not left out.
    """

    report: str
    told: list[ReportFinding]
    recognised: bool
    sections: Sequence[Section]

    def findings(self) -> list[ReportFinding]:
        """The abnormal findings of the report, in the order in which they first stand in it.

        A finding that the report tells twice, as findings and impression do, comes once.
        """
        return each_once([finding for finding in self.told if finding.present], self.report)

    def denied(self) -> list[ReportFinding]:
        """What the report says to be absent."""
        return [finding for finding in self.told if not finding.present]


def extract_findings(report: str, name_of: NameOf = no_name) -> list[ReportFinding]:
    """The abnormal findings of a report, in the order in which they first stand in it, each once.

    Args:
        report: Its text.
        name_of: Gives the concept of a clause that names none of the lexicon, or None.
    """
    return reading_of(report, name_of).findings()


def unnamed_clauses(report: str) -> list[str]:
    """The clauses of a report about which `extract_findings` asks its `name_of`."""
    asked: list[str] = []
    read_report(report, asked.append)
    return asked


def read_report(report: str, name_of: NameOf = no_name) -> list[ReportFinding]:
    """Every finding that a report says to be present or absent, as often as it says so, in the order of the text."""
    return reading_of(report, name_of).told


def reading_of(
    report: str,
    name_of: NameOf = no_name,
    steps: list[ClauseRead] | None = None,
    read: ReadSentence | None = None,
) -> Reading:
    """What a report says.

    A report that seems to hold nothing but a history or a technique has its findings in the same paragraph, or line, as these. What
    stands there and reads like a report is one.

    Args:
        report: Its text.
        name_of: Gives the concept of a clause that names none of the lexicon, or None.
        steps: Where to note what became of each clause, for whoever asks.
        read: A `read_sentence` that remembers what it has read; not together with `name_of` and `steps`.
    """
    read = read or partial(read_sentence, name_of=name_of, detailed=steps is not None)
    words, cut = lexicon(), False
    parts = list(sections(report, words))
    reading = _read(report, name_of, parts, steps, read)
    if not reading.told and not has_findings_section(report, words):
        for section_end in ("line", "sentence"):
            parts, cut = list(sections(report, words, section_end)), True
            reading = _read(report, name_of, parts, steps, read)
            if reading.told:
                break
    if not any(map(_SKIPPED, parts)):
        return reading

    def findings_in(sentence: str) -> list[ReportFinding]:
        return [finding for told in read(sentence) for finding in told.findings]

    kept = reports_in_histories(report, parts, bool(reading.told), cut, findings_in)
    parts = [(start, end, name, skipped and start not in kept) for start, end, name, skipped in parts]
    return _read(report, name_of, parts, steps, read) if kept else reading


def _read(
    report: str, name_of: NameOf, parts: Sequence[Section], steps: list[ClauseRead] | None, read: ReadSentence
) -> Reading:
    words = lexicon()
    if steps is not None:
        steps.clear()
    length = phrases = 0
    bare = ""  # the sentence, without blanks around it
    states = False  # whether something is said that may stand without a finding
    found: list[ReportFinding] = []
    seen: set[str] = set()
    heading: tuple[str, ...] = ()  # over the list in which we are
    side = frozenset[str]()  # that the heading names
    asking = True  # whether the report has only asked questions so far
    earlier = recent = current = 0  # where the findings of the two sentences before, and of this one, begin in `found`
    for start, end, _, skipped in parts:
        sentence = report[start:end]
        text = sentence.strip()
        if skipped or not text:
            continue
        if sentence in seen:  # what a looping generator repeats says nothing new
            continue
        seen.add(sentence)
        asked, bare = bare.endswith("?"), text
        blank = sentence.index(bare)
        start += blank
        if side and (":" in bare or EMPTY_LINE.match(sentence, 0, blank)):
            side = frozenset()
        length += len(bare)
        earlier, recent, current = recent, current, len(found)
        for told in read(bare):
            last = found[-1] if len(found) > recent else None
            if told.clause:
                takes_up = "anaphor" in told.clause.by_kind
                told = in_context(told, bare, last, heading, name_of)
                if last and takes_up:
                    found[-1] = _without_gone(last, told.findings)
            heading, side = told.heading or heading, told.heading_side or side
            role = None
            meant = _explained_by(told, found, earlier if told.of_all else recent) if told.explains and last else None
            if meant is not None:
                found[meant] = _explained(found[meant], _moved(told.findings, start), told.explains != "firmly")
                if told.explains == "firmly":
                    first = min(recent, meant)
                    found[first:] = _without_signs(found, first, meant)
                role = "explains"
            elif last and told.continuation:
                since = current if len(found) > current else recent  # findings that "these" means
                cut_off = _is_cut_off(report, start, bare)
                continued = _continued(found[since:], told.continuation, told.of_all, asked, cut_off)
                if continued is not None:
                    found[since:] = continued
                    role = "continues"
            elif told.findings and not told.concedes:
                named = [_beside(f, last) for f in told.findings] if told.nearby and last else told.findings
                found += _moved([_on_side(f, side) for f in named] if side else named, start)
            phrases += told.n_phrases
            states = states or told.makes_statement
            if steps is not None and told.clause:
                steps.append(ClauseRead(start, told.clause, told.mentions, role))
        if side and ":" in bare and not _HEADING_LINE.search(bare):
            side = frozenset()
        if asking and not (bare.endswith("?") or bare.startswith("?")):
            asking = False
            if current and (states or len(found) > current) and not _tells_the_rest(bare):
                kept = [finding for finding in found[:current] if not _may_be_asked(finding, words)]
                found[:current] = kept
                current = len(kept)
    # A word of another language may name a finding ("Kein Pneumothorax"), so that much of the rest has to be known too.
    known = phrases >= _LEAST_PHRASES * length
    recognised = (known or length < _SHORT) and bool(found or states) or not report.strip()
    return Reading(report, found, recognised, parts)


def _explained_by(told: ClauseReading, found: Sequence[ReportFinding], recent: int) -> int | None:
    """Which finding a clause explains: one from `recent` on, of the sentence before, or any that is akin to it.

    "Aspiration is the likely cause" may be said of any finding before.
    """
    meant = _meant(told, found, recent)
    if meant is None and told.explains != "suspected":
        return _meant(told, found, 0, akin=True)
    return meant


def _continued(
    findings: Sequence[ReportFinding], told: Continuation, of_all: bool, asked: bool, cut_off: bool
) -> list[ReportFinding] | None:
    """The findings that a clause may speak of, with what it says of the last one or `of_all`; None if it says nothing.

    Args:
        findings: Those of the sentence before, or of this one.
        told: What it says.
        of_all: Whether that is said of all.
        asked: Whether the sentence before asks.
        cut_off: Whether the report ends within the clause.
    """
    *others, last = findings
    if told.answers_none and (asked or last.attributes.uncertain):
        return [*others, last._replace(present=False)]
    more = told.of_device if lexicon().concepts[last.concepts[0]].device else told.attributes
    if more is None or cut_off:
        return None
    if told.gone:
        return [*([_without(one, more.sides) for one in others] if of_all else others), _without(last, more.sides)]
    if not (told.exception or last.present):
        return None
    if of_all and not told.exception:
        others = [_changed_alike(one, more) for one in others]
    concepts = _in_state(last.concepts, told.states, lexicon())
    return [*others, last._replace(concepts=concepts, attributes=last.attributes.with_those_of(more), present=True)]


def _without_gone(last: ReportFinding, findings: Sequence[ReportFinding]) -> ReportFinding:
    """A finding without the sides at which it has gone: "Bilateral effusions. That on the right has resolved."."""
    for gone in findings:
        if not gone.present and gone.concepts == last.concepts and gone.attributes.sides:
            last = _without(last, gone.attributes.sides)
    return last


def _is_cut_off(report: str, start: int, sentence: str) -> bool:
    """Whether a report stops within a sentence, as one does that a generator had no room for: "There is an increase"."""
    if start + len(sentence) < len(report.rstrip()) or not sentence[-1].isalpha():
        return False
    words = sentence.lower().split()
    return "." in report[:start] and (len(words) <= _CUT or words[0] in lexicon().words["opening"])


def _tells_the_rest(sentence: str) -> bool:
    """Whether a sentence goes on after a finding: "Otherwise normal"."""
    return not lexicon().words["remaining"].isdisjoint(sentence.lower().split(maxsplit=2)[:2])


def _may_be_asked(finding: ReportFinding, words: Lexicon) -> bool:
    """Whether a question before the first statement may be the referrer's: "Cough, pneumonia? Lungs clear."."""
    bare = finding.attributes in (NOTHING, SUSPECTED)
    return finding.present and bare and not words.concepts[finding.concepts[0]].vague


def _without(finding: ReportFinding, sides: frozenset[str]) -> ReportFinding:
    """A finding that is not there any more, at some sides or, where none is named, at all."""
    left = finding.attributes.sides - sides
    if sides and left:
        return finding._replace(attributes=finding.attributes._replace(sides=left))
    return finding if sides and not finding.attributes.sides else finding._replace(present=False)


def _beside(finding: ReportFinding, other: ReportFinding) -> ReportFinding:
    """A finding at the side of the one before it: "Left consolidation. There is also an effusion on that side."."""
    there = lexicon().concepts[other.concepts[0]]
    return _on_side(finding, other.attributes.sides) if there.sided and not there.directed else finding


def _on_side(finding: ReportFinding, side: frozenset[str]) -> ReportFinding:
    """A finding at a side, unless it has one or can have none."""
    told, concept = finding.attributes, lexicon().concepts[finding.concepts[0]]
    alike = concept.sided and not concept.directed and not told.sides
    return finding._replace(attributes=told._replace(sides=side)) if alike else finding


def _in_state(concepts: tuple[str, ...], states: Sequence[str], words: Lexicon) -> tuple[str, ...]:
    """What a state makes of a finding that was named before: of a nodule that "has cavitated" a cavity."""
    made = [words.composites[state, concepts[0]] for state in states if (state, concepts[0]) in words.composites]
    return (made[0],) if made and len(concepts) == 1 else concepts


def _changed_alike(finding: ReportFinding, told: Attributes) -> ReportFinding:
    """A finding with a change that is told of several; its own one holds."""
    change = finding.attributes.temporal or told.temporal
    return finding._replace(attributes=finding.attributes._replace(temporal=change)) if finding.present else finding


def _moved(findings: Sequence[ReportFinding], by: int) -> list[ReportFinding]:
    """Findings of a sentence at their places in the report."""
    return [
        ReportFinding(
            concepts,
            attributes,
            start + by,
            end + by,
            appearance,
            present,
            taken_up,
            signs,
            ((start + by, end + by),),
        )
        for concepts, attributes, start, end, appearance, present, taken_up, signs, _ in findings
    ]


def _meant(told: ClauseReading, found: Sequence[ReportFinding], recent: int, akin: bool = False) -> int | None:
    """Which finding from `recent` on a clause explains, at the side that it names; with `akin` only one of the same kind.

    It is the last one of which the diagnosis is a kind ("effusion and consolidation; empyema is suspected"), else the last that
    it can explain.
    """
    diagnoses, words = told.findings, lexicon()
    akin = akin or told.explains == "suspected"
    meant = None
    for place in range(len(found) - 1, recent - 1, -1):
        there = meet(diagnoses[0].attributes.sides, found[place].attributes.sides)
        near = not akin or words.akin(diagnoses[0].concepts, found[place].concepts)
        if found[place].present and there and near and _explains(diagnoses, found[place], words):
            if words.related(diagnoses[0].concepts, found[place].concepts):
                return place
            meant = place if meant is None else meant
    return meant


def _without_signs(found: Sequence[ReportFinding], recent: int, meant: int) -> list[ReportFinding]:
    """The findings from `recent` on, where the other signs of the one that is `meant` become signs of it."""
    diagnosis, words = found[meant], lexicon()
    signs = [
        place
        for place in range(recent, len(found))
        if place != meant
        and found[place].present
        and words.related(diagnosis.concepts, found[place].concepts)
        and meet(diagnosis.attributes.sides, found[place].attributes.sides)
    ]
    concepts = tuple(concept for place in signs for concept in found[place].concepts)
    whole = diagnosis._replace(signs=(*diagnosis.signs, *concepts)) if signs else diagnosis
    return [whole if place == meant else found[place] for place in range(recent, len(found)) if place not in signs]


def _explains(diagnoses: Sequence[ReportFinding], last: ReportFinding, words: Lexicon) -> bool:
    if lies_elsewhere(diagnoses[0], last, words):
        return False
    return all(d.present for d in diagnoses) and explains(diagnoses[0].concepts, last.concepts, words)


def _explained(last: ReportFinding, diagnoses: list[ReportFinding], tentative: bool) -> ReportFinding:
    """A finding with what a later clause takes it to be."""
    concepts = made_of(last.concepts, tuple(dict.fromkeys(concept for d in diagnoses for concept in d.concepts)))
    return last._replace(
        concepts=tuple(dict.fromkeys((*last.concepts, *concepts))) if tentative else concepts,
        attributes=last.attributes._replace(uncertain=last.attributes.uncertain or tentative),
        appearance=tuple(c for c in last.appearance or last.concepts if c not in concepts) if tentative else (),
        signs=last.signs if tentative else (*last.signs, *last.concepts),
        told_at=last.told_at + tuple(place for d in diagnoses for place in d.told_at),
    )


_SKIPPED = itemgetter(3)  # of a `Section`
