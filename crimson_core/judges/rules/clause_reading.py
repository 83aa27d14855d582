"""A clause -> what it tells, whatever stands around it: the findings that it names, and what it says of others."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from crimson_core.judges.rules.attributes import SUSPECTED, Mention, ReportFinding
from crimson_core.judges.rules.clauses import Clause, clauses
from crimson_core.judges.rules.continuations import (
    Continuation,
    continuation,
    explanation,
    is_of_all,
    is_under_a_structure,
)
from crimson_core.judges.rules.lexicon import Tag, lexicon
from crimson_core.judges.rules.mentions import mention_of, mentions, tells_something
from crimson_core.judges.rules.sharing import side_of_heading

# Kinds of phrases that say something where no finding is named: "Normal chest", "No acute disease", "Unchanged".
_STATEMENTS = frozenset(("normal", "assertion", "temporal", "states", "appearance"))
_OF_HEADINGS = frozenset(("anatomy", "sites", "zone", "conjunction", "alternative", "glue"))
_LONGEST_HEADING = 4  # words
_FARTHEST_NOUN = 4  # words that a place may take behind its side
Explains = Literal["firmly", "tentatively", "suspected"]
NameOf = Callable[[str], str | None]


def no_name(clause: str) -> None:
    """What names no clause."""
    return


class ClauseReading(NamedTuple):
    """What a clause tells, whatever stands around it.

    Attributes:
        findings: What it says to be present or absent; places are characters of its sentence.
        names_any: Whether it names a finding at all, also one that is only asked about or past.
        explains: How it says what the finding before it is: firmly, tentatively, or as a mere suspicion, which explains only a
            finding of the same kind ("Patchy opacity. Pneumonia is suspected."); None if it does not.
        continuation: What it says of the findings before it, where it names none.
        of_all: It says so of all that the sentence before names: "These are unchanged".
        nearby: What it names lies where the finding before it lies.
        concedes: What it names counts only if it explains the finding before it: "though infection is not excluded".
        heading: The structures that it names and nothing else, as a heading over a list does.
        heading_side: The side before its colon, as a heading over what follows: "Right lung: clear".
        n_phrases: How many phrases of the lexicon it holds.
        makes_statement: Whether it says something that may stand without a finding: "Normal chest".
        clause: The clause, where it may have to be read again in its context, or somebody asks; else None.
        mentions: The findings as `mentions` gives them, where the clause is kept.
    """

    findings: tuple[ReportFinding, ...]
    names_any: bool
    explains: Explains | None
    continuation: Continuation | None
    of_all: bool
    nearby: bool
    concedes: bool
    heading: tuple[str, ...]
    heading_side: frozenset[str]
    n_phrases: int
    makes_statement: bool
    clause: Clause | None
    mentions: Sequence[Mention]


ReadSentence = Callable[[str], Sequence[ClauseReading]]


def read_sentence(sentence: str, name_of: NameOf = no_name, detailed: bool = False) -> tuple[ClauseReading, ...]:
    """What the clauses of a sentence tell.

    Args:
        sentence: Its text.
        name_of: Gives the concept of a clause that names none of the lexicon, or None.
        detailed: Keep the clauses and how they were read.
    """
    return tuple([_read_clause(clause, sentence, name_of, (), detailed) for clause in clauses(sentence, lexicon())])


def in_context(
    reading: ClauseReading, sentence: str, last: ReportFinding | None, heading: Sequence[str], name_of: NameOf
) -> ClauseReading:
    """What a clause tells where it takes up the `last` finding ("that on the right") or the structures of a `heading`."""
    clause = reading.clause
    if clause is None:
        return reading
    if last and "anaphor" in clause.by_kind:
        return _read_clause(clause, sentence, name_of, last.concepts, True)
    if heading and _wants_a_structure(clause, reading.mentions):
        return _read_clause(_under(heading, clause), sentence, name_of, (), True)
    return reading


def _read_clause(
    clause: Clause, sentence: str, name_of: NameOf, before: tuple[str, ...], detailed: bool
) -> ClauseReading:
    """What a clause tells; `before` are the concepts that were named last."""
    words = lexicon()
    named = mentions(clause, words, before)
    if not named and name_of is not no_name and tells_something(clause):
        text = sentence[clause.spans[clause.start][0] : clause.spans[clause.end - 1][1]]
        named = mention_of(clause, name_of(text), words)
    findings = tuple(
        [
            _finding(mention, clause)
            for mention in named
            if mention.presence != "unsaid" and words.concepts[mention.concepts[0]].reported
        ]
    )
    more = None if named else continuation(clause)
    explains = _explains(clause, findings) if findings else None
    kept = detailed or "anaphor" in clause.by_kind or _wants_a_structure(clause, named)
    return ClauseReading(
        findings,
        bool(named),
        explains,
        more,
        (more is not None or explains is not None) and is_of_all(clause),
        bool(named) and "nearby" in clause.by_kind,
        clause.lead == "concession" and bool(clause.cues("not_excluded_after")),
        _heading(clause) if "anatomy" in clause.by_kind else (),
        _heading_side(clause, named) if ":" in sentence else frozenset(),
        len(clause.tags),
        "elsewhere" not in clause.by_kind and not _STATEMENTS.isdisjoint(clause.by_kind),
        clause if kept else None,
        named if kept else (),
    )


def _explains(clause: Clause, findings: Sequence[ReportFinding]) -> Explains | None:
    """How a clause says what the finding before it is; what is denied explains nothing.

    Nor does "Mediastinum: likely goiter" explain a mass of the lungs.
    """
    if [finding for finding in findings if not finding.present] or is_under_a_structure(clause):
        return None
    unsure = [finding for finding in findings if finding.attributes == SUSPECTED]
    return explanation(clause) or ("suspected" if len(unsure) == len(findings) else None)


def _finding(mention: Mention, clause: Clause) -> ReportFinding:
    """A mention at its characters of the sentence."""
    return ReportFinding(
        mention.concepts,
        mention.attributes,
        clause.spans[mention.first][0],
        clause.spans[(_end_of_quote(mention, clause) if mention.told_by else mention.last) - 1][1],
        mention.appearance,
        mention.presence == "present",
        mention.taken_up,
        mention.signs,
    )


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
