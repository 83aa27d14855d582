"""A sentence -> its clauses: the reach of a negation, and the room in which words belong to a finding."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from crimson_core.judges.offline.lexicon import Lexicon, Tag, words_of

MODIFIERS = ("side", "zone", "severity", "temporal", "descriptor", "position")

# No clause that a person writes is longer. Text without an end, as a looping generator writes it, is cut here, so that the
# time for a report grows with its length and no faster.
_LONGEST = 120  # words


@dataclass(frozen=True)
class Clause:
    """A clause with its phrases.

    Attributes:
        words: Normalised words of the whole sentence.
        spans: Their character spans in the sentence.
        start: First word of the clause.
        end: One past its last word.
        tags: The phrases in it, in the order of the text.
    """

    words: list[str]
    spans: list[tuple[int, int]]
    start: int
    end: int
    tags: list[Tag]

    def of(self, kind: str, start: int = 0, end: int | None = None) -> list[Tag]:
        """Tags of one kind that lie between two word positions."""
        return [t for t in self._by_kind.get(kind, ()) if t.start >= start and (end is None or t.end <= end)]

    def cues(self, value: str) -> list[Tag]:
        """Tags that say whether something is there, of one value, such as `negated_before`."""
        return [t for t in self._by_kind.get("assertion", ()) if t.value == value]

    def modifiers(self, start: int, end: int) -> list[Tag]:
        """Modifiers that lie between two word positions."""
        return [t for kind in MODIFIERS for t in self.of(kind, start, end)]

    @cached_property
    def listing(self) -> frozenset[int]:
        """Positions of words that may stand between the items of a list: commas, conjunctions, modifiers."""
        return self._positions("conjunction", "alternative", *MODIFIERS)

    @cached_property
    def transparent(self) -> frozenset[int]:
        """Positions of words that may stand between a structure and its state."""
        cues = {p for v in ("negated_before", "uncertain_before") for t in self.cues(v) for p in range(t.start, t.end)}
        numbers = {p for p in range(self.start, self.end) if self.words[p][0].isdigit()}  # "the left 5th rib"
        return self._positions("glue", "anatomy", "states", "conjunction", *MODIFIERS) | cues | numbers

    @cached_property
    def joints(self) -> frozenset[int]:
        """Positions of words at which the words before a noun cannot start: conjunctions, prepositions, verbs."""
        verbs = {p for p in range(self.start, self.end) if self.words[p].endswith("ing")}
        verbs -= self._positions(*MODIFIERS, "concept")
        return self._positions("conjunction", "alternative", "link", "joint") | verbs

    @cached_property
    def _by_kind(self) -> dict[str, list[Tag]]:
        kinds: dict[str, list[Tag]] = {}
        for tag in self.tags:
            kinds.setdefault(tag.kind, []).append(tag)
        return kinds

    def _positions(self, *kinds: str) -> frozenset[int]:
        return frozenset(p for kind in kinds for t in self._by_kind.get(kind, ()) for p in range(t.start, t.end))


def clauses(sentence: str, lexicon: Lexicon) -> Iterator[Clause]:
    """The clauses of a sentence that hold any phrase of the lexicon."""
    found = words_of(sentence)
    words, spans = [word for word, _, _ in found], [(start, end) for _, start, end in found]
    tags = list(lexicon.tags(words))
    position = 0
    for start, end in _borders(tags, len(words)):
        inside = []
        while position < len(tags) and tags[position].start < end:
            if tags[position].start >= start and tags[position].kind != "clause_end":
                inside.append(tags[position])
            position += 1
        if inside:
            yield Clause(words, spans, start, end, inside)


def _borders(tags: list[Tag], length: int) -> Iterator[tuple[int, int]]:
    start = 0
    ends = [t for t in tags if t.kind == "clause_end"]
    named = [t.start for t in tags if t.kind in ("concept", "anatomy", "states")]
    for position, tag in enumerate([*ends, Tag(length, length, "clause_end", None)]):
        upto = ends[position + 1].start if position + 1 < len(ends) else length
        # "enlarged but stable": what names nothing says more about what was named before
        if tag.start < length and bisect_left(named, tag.end) == bisect_left(named, upto):
            continue
        while tag.start - start > _LONGEST:
            yield start, start + _LONGEST
            start += _LONGEST
        yield start, tag.start
        start = tag.end
