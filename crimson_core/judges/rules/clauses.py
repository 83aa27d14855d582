"""A sentence -> its clauses: the reach of a negation, and the room in which words belong to a finding."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from crimson_core.judges.rules.change import with_changes
from crimson_core.judges.rules.forms import with_answers
from crimson_core.judges.rules.lexicon import Lexicon, Tag, report_words

MODIFIERS = ("side", "dominant", "zone", "sites", "severity", "temporal", "descriptor", "position")

COPULAS = frozenset(("is", "are", "appear", "appears", "remain", "remains", "was", "were"))

_MODIFIERS = frozenset(MODIFIERS)

# No clause that a person writes is longer. Text without an end, as a looping generator writes it, is cut here, so that the
# time for a report grows with its length and no faster.
_LONGEST = 120  # words
_SHORT = 3  # words: "small effusion; unchanged" is one clause


@dataclass(frozen=True)
class Clause:
    """A clause with its phrases.

    Attributes:
        words: Normalised words of the whole sentence.
        spans: Their character spans in the sentence.
        start: First word of the clause.
        end: One past its last word.
        tags: The phrases in it, in the order of the text.
        by_kind: The same by their kind.
        lead: How it follows the clause before it: contrast, stop, concession or exception; None at the start of a sentence.
    """

    words: list[str]
    spans: list[tuple[int, int]]
    start: int
    end: int
    tags: list[Tag]
    by_kind: dict[str, list[Tag]]
    lead: str | None = None

    def of(self, kind: str, start: int = 0, end: int | None = None) -> list[Tag]:
        """Tags of one kind that lie between two word positions."""
        tags = self.by_kind.get(kind)
        if not tags:
            return []
        return [t for t in tags if t.start >= start and (end is None or t.end <= end)]

    def cues(self, value: str) -> list[Tag]:
        """Tags that say whether something is there, of one value, such as `negated_before`."""
        return [t for t in self.by_kind.get("assertion", ()) if t.value == value]

    def modifiers(self, start: int, end: int) -> list[Tag]:
        """Modifiers that lie between two word positions, in the order of the text."""
        return [t for t in self._modifiers if t.start >= start and t.end <= end]

    @cached_property
    def has_numbers(self) -> bool:
        """Whether any word is a number."""
        return any(self.words[p][0].isdecimal() for p in range(self.start, self.end))

    @cached_property
    def listing(self) -> frozenset[int]:
        """Positions of words that may stand between the items of a list: commas, conjunctions, modifiers."""
        return self.places("conjunction", "alternative", "anatomy", "definite", *MODIFIERS)

    def enumerated(self, one: Tag, other: Tag) -> bool:
        """Whether two tags are items of one list, with a conjunction between them."""
        start, end = min(one.end, other.end), max(one.start, other.start)
        listed = self.listing | self.places("glue", "clause_end")
        joint = self.of("conjunction", start, end) or self.of("clause_end", start, end)
        return bool(joint) and listed.issuperset(range(start, end))

    def copula(self, start: int, end: int) -> bool:
        """Whether a form of "to be" or the like is all that stands between two word positions."""
        return start < end and COPULAS.issuperset(self.words[start:end])

    def one_list(self, start: int, end: int) -> bool:
        """Whether only commas, conjunctions and modifiers stand between two word positions."""
        return self.listing.issuperset(range(start, end))

    @cached_property
    def transparent(self) -> frozenset[int]:
        """Positions of words that may stand between a structure and its state."""
        cues = {p for v in ("negated_before", "uncertain_before") for t in self.cues(v) for p in range(t.start, t.end)}
        numbers = {p for p in range(self.start, self.end) if self.words[p][0].isdecimal()}  # "the left 5th rib"
        return self.places("glue", "anatomy", "states", "conjunction", *MODIFIERS) | cues | numbers

    @cached_property
    def joints(self) -> frozenset[int]:
        """Positions of words at which the words before a noun cannot start: conjunctions, prepositions, verbs."""
        verbs = {p for p in range(self.start, self.end) if self.words[p].endswith("ing")}
        verbs -= self.places(*MODIFIERS, "concept")
        denying = {p for t in self.cues("negated_before") for p in range(t.start, t.end)}
        return self.places("conjunction", "alternative", "link", "joint") | verbs | denying

    @cached_property
    def _modifiers(self) -> list[Tag]:
        return [t for t in self.tags if t.kind in _MODIFIERS]

    def places(self, *kinds: str) -> frozenset[int]:
        """Positions of all words in tags of some kinds."""
        return frozenset(p for kind in kinds for t in self.by_kind.get(kind, ()) for p in range(t.start, t.end))


def clauses(sentence: str, lexicon: Lexicon) -> Iterator[Clause]:
    """The clauses of a sentence that hold any phrase of the lexicon."""
    found = report_words(sentence)
    words, spans = [word for word, _, _ in found], [(start, end) for _, start, end in found]
    tags = with_answers(with_changes(lexicon.tags(words), words, lexicon.composites), sentence, spans)
    position = 0
    for start, end, lead in _borders(tags, len(words)):
        inside = []
        while position < len(tags) and tags[position].start < end:
            if tags[position].start >= start:
                inside.append(tags[position])
            position += 1
        if inside:
            by_kind: dict[str, list[Tag]] = {}
            for tag in inside:
                by_kind.setdefault(tag.kind, []).append(tag)
            yield Clause(words, spans, start, end, inside, by_kind, lead)


def _only_a_place(tags: list[Tag], start: int, end: int) -> bool:
    """Whether a place and nothing else is told between two word positions: "On the left, there is"."""
    kinds = {t.kind for t in tags if t.start >= start and t.end <= end}
    return bool(kinds & {"side", "zone"}) and kinds <= {
        "side",
        "zone",
        "by_lobe",
        "joint",
        "glue",
        "conjunction",
        "anatomy",
        "definite",
        "extent",
        "sites",
    }


def _borders(tags: list[Tag], length: int) -> Iterator[tuple[int, int, str | None]]:
    start, lead = 0, None
    ends = [t for t in tags if t.kind == "clause_end"]
    named = [t.start for t in tags if t.kind in ("concept", "states", "normal", "anaphor")]
    for position, tag in enumerate([*ends, Tag(length, length, "clause_end", None)]):
        upto = ends[position + 1].start if position + 1 < len(ends) else length
        # "enlarged but stable": what names nothing says more about what was named before
        goes_on = tag.value != "exception" and (tag.value != "stop" or upto - tag.end <= _SHORT)
        if tag.start < length and goes_on and bisect_left(named, tag.end) == bisect_left(named, upto):
            continue
        if tag.value == "contrast" and _only_a_place(tags, start, tag.start):
            continue
        while tag.start - start > _LONGEST:
            yield start, start + _LONGEST, lead
            start, lead = start + _LONGEST, None
        yield start, tag.start, lead
        start, lead = tag.end, tag.value
