"""A report's text -> its findings, each with its attributes and its place in the text."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import NamedTuple

from crimson_core.judges.rules.attributes import NOTHING, SUSPECTED, Attributes, Mention, ReportFinding, meet
from crimson_core.judges.rules.clauses import Clause, clauses
from crimson_core.judges.rules.histories import reports_in_histories
from crimson_core.judges.rules.joining import explains, made_of
from crimson_core.judges.rules.lexicon import Lexicon, Tag, lexicon
from crimson_core.judges.rules.mentions import (
    answers_none,
    continuation,
    explanation,
    is_under_a_structure,
    mention_of,
    mentions,
    of_several,
    states_told,
    taken_back,
    tells_something,
)
from crimson_core.judges.rules.repeats import each_once, lies_elsewhere
from crimson_core.judges.rules.sentences import EMPTY_LINE, Section, has_findings_section, sections
from crimson_core.judges.rules.sharing import side_of_heading

# Phrases of the lexicon in each character of a report: English ones on chest radiographs hold three times as many.
_LEAST_PHRASES = 0.045
_SHORT = 40  # characters; "Lymphangioleiomyomatosis." is one phrase and no other language
# Kinds of phrases that say something where no finding is named: "Normal chest", "No acute disease", "Unchanged".
_STATEMENTS = frozenset(("normal", "assertion", "temporal", "states", "appearance"))
_OF_HEADINGS = frozenset(("anatomy", "sites", "zone", "conjunction", "alternative", "glue"))
_LONGEST_HEADING = 4  # words
_HEADING_LINE = re.compile(r":\**\s*(?:\n|$)")
_CUT = 2  # words
_FARTHEST_NOUN = 4  # words that a place may take behind its side
NameOf = Callable[[str], str | None]


def no_name(clause: str) -> None:
    """What names no clause."""
    return


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


class Told(NamedTuple):
    """What a clause tells, whatever stands around it.

    Attributes:
        findings: What it says to be present or absent; places are characters of its sentence.
        names: Whether it names a finding at all.
        tentative: Whether it explains the finding before it, and tentatively; see `explanation`.
        implied: It does so only if it names a kind of that finding: "Patchy opacity. Pneumonia is suspected."
        more: What it says about a finding before it that is no device, and about a device, where it names none.
        several: It says that of all that the sentence before names.
        nearby: It says that what it names lies where the finding before it lies.
        states_told: The states that it tells of what was named before.
        none: It answers a question with none, if one was asked.
        taken_back: It says that what was named before is not there.
        only_explains: What it names says something only if it explains the finding before it: "though infection is not excluded".
        exception: It takes back a denial: "no effusion except for a trace on the left".
        phrases: How many phrases of the lexicon it holds.
        states: Whether it says something that may stand without a finding.
        clause: The clause, where it takes up what was named before or says the state of what is not named, or somebody asks;
            else None.
        heading: The structures that it names and nothing else, as a heading over a list does.
        side: The side that stands before its colon, as a heading over what follows: "Right lung: clear".
        named: The findings as `mentions` gives them, for whoever asks.
    """

    findings: tuple[ReportFinding, ...]
    names: bool
    tentative: bool | None
    implied: bool
    more: tuple[Attributes | None, Attributes | None] | None
    several: bool
    nearby: bool
    states_told: tuple[str, ...]
    none: bool
    taken_back: bool
    only_explains: bool
    exception: bool
    phrases: int
    states: bool
    clause: Clause | None
    named: Sequence[Mention]
    heading: tuple[str, ...]
    side: frozenset[str]


ReadSentence = Callable[[str], Sequence[Told]]


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


def read_sentence(sentence: str, name_of: NameOf = no_name, detailed: bool = False) -> tuple[Told, ...]:
    """What the clauses of a sentence tell.

    Args:
        sentence: Its text.
        name_of: Gives the concept of a clause that names none of the lexicon, or None.
        detailed: Keep the clauses and how they were read.
    """
    return tuple([_told(clause, sentence, name_of, (), detailed) for clause in clauses(sentence, lexicon())])


def _end_of_quote(mention: Mention, clause: Clause) -> int:
    """Where to stop a quote that would end in an adjective: "in the left [anterior chest wall]"."""
    last = mention.last
    if last not in [tag.end for tag in mention.told_by if tag.kind in ("side", "zone")]:
        return last
    upto = min(clause.end, last + _FARTHEST_NOUN)
    nouns = [
        t for t in clause.of("anatomy", last, upto) if not clause.has(last, t.start, "joint", "conjunction", "glue")
    ]
    return max((t.end for t in nouns), default=last)


def _told(clause: Clause, sentence: str, name_of: NameOf, before: tuple[str, ...], detailed: bool) -> Told:
    """What a clause tells; `before` are the concepts that were named last."""
    words = lexicon()
    named = mentions(clause, words, before)
    if not named and name_of is not no_name and tells_something(clause):
        text = sentence[clause.spans[clause.start][0] : clause.spans[clause.end - 1][1]]
        named = mention_of(clause, name_of(text), words)
    told = tuple(
        [
            ReportFinding(
                m.concepts,
                m.attributes,
                clause.spans[m.first][0],
                clause.spans[(_end_of_quote(m, clause) if m.told_by else m.last) - 1][1],
                m.appearance,
                m.presence == "present",
                m.taken_up,
                m.signs,
            )
            for m in named
            if m.presence != "unsaid" and words.concepts[m.concepts[0]].reported
        ]
    )
    kept = detailed or "anaphor" in clause.by_kind or _wants_a_structure(clause, named)
    # What is denied explains nothing, nor does "Mediastinum: likely goiter" a mass of the lungs.
    explains_it = bool(told) and not [f for f in told if not f.present] and not is_under_a_structure(clause)
    tentative = explanation(clause) if explains_it else None
    hedged = explains_it and tentative is None and told[0].attributes.uncertain
    implied = hedged and all(f.attributes == SUSPECTED for f in told)
    more = None if named else continuation(clause)
    return Told(
        told,
        bool(named),
        implied or tentative,
        implied,
        more,
        (more is not None or tentative is not None) and of_several(clause),
        bool(named) and "nearby" in clause.by_kind,
        states_told(clause) if more is not None else (),
        not named and "negated_after" in clause.by_cue and answers_none(clause),
        more is not None and taken_back(clause),
        clause.lead == "concession" and bool(clause.cues("not_excluded_after")),
        clause.lead == "exception",
        len(clause.tags),
        "elsewhere" not in clause.by_kind and not _STATEMENTS.isdisjoint(clause.by_kind),
        clause if kept else None,
        named if kept else (),
        _heading(clause) if "anatomy" in clause.by_kind else (),
        _heading_side(clause, named) if ":" in sentence else frozenset(),
    )


def _wants_a_structure(clause: Clause, named: Sequence[Mention]) -> bool:
    return not named and "states" in clause.by_kind and "anatomy" not in clause.by_kind


def _heading(clause: Clause) -> tuple[str, ...]:
    """The structures of a line such as "Heart and mediastinum:" that says nothing of them."""
    kinds = clause.by_kind.keys()
    if not kinds <= _OF_HEADINGS or clause.end - clause.start > _LONGEST_HEADING:
        return ()
    return tuple(tag.value for tag in clause.of("anatomy"))


def _heading_side(clause: Clause, named: Sequence[Mention]) -> frozenset[str]:
    side, colon = side_of_heading(clause)
    return side if side and all(mention.start >= colon for mention in named) else frozenset()


def _under(heading: Sequence[str], clause: Clause) -> Clause:
    """A clause with the structures of the heading above it before its first word: "Heart", and below it "- Enlarged"."""
    structures = [Tag(clause.start, clause.start, "anatomy", structure) for structure in heading]
    return replace(clause, tags=[*structures, *clause.tags])


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
            if told.clause and last and "anaphor" in told.clause.by_kind:
                told = _told(told.clause, bare, name_of, last.concepts, True)
                for gone in told.findings:  # "Bilateral effusions. That on the right has resolved."
                    if not gone.present and gone.concepts == last.concepts and gone.attributes.sides:
                        found[-1] = _without(found[-1], gone.attributes.sides)
            elif told.clause and heading and _wants_a_structure(told.clause, told.named):
                told = _told(_under(heading, told.clause), bare, name_of, (), True)
            heading, side = told.heading or heading, told.side or side
            role = None
            meant = None
            if told.tentative is not None and last:
                # "Together these suggest lung cancer"
                meant = _meant(told, found, earlier if told.several else recent, words)
                if meant is None and not told.implied:
                    # "Aspiration is the likely cause" may be said of any finding before that is akin to it
                    meant = _meant(told, found, 0, words, akin=True)
            if told.tentative is not None and meant is not None:
                found[meant] = _explained(found[meant], _moved(told.findings, start), told.tentative)
                first = min(recent, meant)
                found[first:] = _with_signs(found, first, meant, told.tentative, words)
                role = "explains"
            elif not told.names and last:
                device = words.concepts[last.concepts[0]].device
                more = told.more[device] if told.more and not _is_cut_off(report, start, bare) else None
                since = current if len(found) > current else recent  # findings that "these" means
                if told.none and (last.attributes.uncertain or asked):
                    role = "continues"
                    found[-1] = last._replace(present=False)
                elif more and told.taken_back:
                    role = "continues"
                    since = since if told.several else len(found) - 1
                    found[since:] = [_without(finding, more.sides) for finding in found[since:]]
                elif more and (told.exception or last.present):
                    role = "continues"
                    if told.several and not told.exception:
                        found[since:-1] = [_changed_alike(finding, more) for finding in found[since:-1]]
                    attributes = last.attributes.with_those_of(more)
                    concepts = _in_state(last.concepts, told.states_told, words)
                    found[-1] = last._replace(concepts=concepts, attributes=attributes, present=True)
            elif told.findings and not told.only_explains:
                named = [_beside(f, last) for f in told.findings] if told.nearby and last else told.findings
                found += _moved([_on_side(f, side) for f in named] if side else named, start)
            phrases += told.phrases
            states = states or told.states
            if steps is not None and told.clause:
                steps.append(ClauseRead(start, told.clause, told.named, role))
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


def _is_cut_off(report: str, start: int, sentence: str) -> bool:
    """Whether a report stops within a sentence, as one does that a generator had no room for: "Mild", "There is an increase"."""
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


def _meant(told: Told, found: Sequence[ReportFinding], recent: int, words: Lexicon, akin: bool = False) -> int | None:
    """Which finding of the sentence before a clause explains, at the side that it names.

    It is the last one of which the diagnosis is a kind ("effusion and consolidation; empyema is suspected"), else the last that
    it can explain.
    """
    diagnoses = told.findings
    meant = None
    for place in range(len(found) - 1, recent - 1, -1):
        there = meet(diagnoses[0].attributes.sides, found[place].attributes.sides)
        near = not (told.implied or akin) or words.akin(diagnoses[0].concepts, found[place].concepts)
        if found[place].present and there and near and _explains(diagnoses, found[place], words):
            if words.related(diagnoses[0].concepts, found[place].concepts):
                return place
            meant = place if meant is None else meant
    return meant


def _with_signs(
    found: Sequence[ReportFinding], recent: int, meant: int, tentative: bool, words: Lexicon
) -> list[ReportFinding]:
    """The findings of the sentence before, less the other signs of what a definite diagnosis explains."""
    diagnosis = found[meant]
    if tentative:
        return list(found[recent:])
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
