"""A sentence -> its clauses: the reach of a negation, and the room in which words belong to a finding."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise

from crimson_core.judges.rules.change import CHANGING, with_changes, with_years
from crimson_core.judges.rules.denials import any_between, with_directions
from crimson_core.judges.rules.forms import may_answer, with_answers
from crimson_core.judges.rules.lexicon import START, Lexicon, Tag, lexicon, report_words
from crimson_core.judges.rules.ratios import with_ratios
from crimson_core.judges.rules.shared_nouns import JOINING, with_shared_nouns

MODIFIERS = ("side", "dominant", "zone", "sites", "severity", "temporal", "descriptor", "position")

_CUES_WITHIN = ("negated_before", "affirmed", "uncertain_before")  # "the heart is not enlarged", "is not without fluid"
_MODIFIERS = frozenset(MODIFIERS)
_LISTING = ("conjunction", "alternative", "anatomy", "definite", *MODIFIERS)
_TRANSPARENT = ("glue", "clause_end", "link", "showing", "anatomy", "states", "conjunction", *MODIFIERS)
_NAMING = frozenset(("concept", "states", "normal", "anaphor"))
_NAMES = frozenset(("concept", "definite", "glue", "side", "zone", "sites", "anatomy", "conjunction", "descriptor"))
_PARTING = frozenset(("clause_end", "anaphor"))
_DASHES = frozenset((" - ", " – ", " — ", " -- "))
_INSERTED = re.compile(r"\([^()]{1,40}\)")
_DIGIT = re.compile(r"\d")

# No clause that a person writes is longer. Text without an end, as a looping generator writes it, is cut here, so that the
# time for a report grows with its length and no faster.
_LONGEST = 120  # words
_LONGEST_NAME = 12  # words of a place or a name that leads a clause
_SHORT = 3  # words: "small effusion; unchanged" is one clause


@dataclass(slots=True, eq=False)
class Clause:
    """A clause with its phrases.

    Sets of its words are integers, with a bit for each word from its first on.

    Attributes:
        words: Normalised words of the whole sentence.
        spans: Their character spans in the sentence.
        start: First word of the clause.
        end: One past its last word.
        tags: The phrases in it, in the order of the text.
        lead: How it follows the clause before it: contrast, stop, concession or exception; None at the start of a sentence.
        has_numbers: Whether any word of the sentence is a number.
        sentence: Its text.
        by_kind: The phrases by their kind.
        by_cue: Those that say whether something is there, by their value, such as `negated_before`.
    """

    words: list[str]
    spans: list[tuple[int, int]]
    start: int
    end: int
    tags: list[Tag]
    lead: str | None
    has_numbers: bool
    sentence: str
    by_kind: dict[str, list[Tag]] = field(init=False)
    by_cue: dict[str, list[Tag]] = field(init=False)
    _modifiers: list[Tag] = field(init=False)
    _listing: int | None = field(init=False, default=None)
    _transparent: int | None = field(init=False, default=None)
    _saying_nothing: int | None = field(init=False, default=None)
    _joints: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Sort the phrases."""
        by_kind: dict[str, list[Tag]] = {}
        by_cue: dict[str, list[Tag]] = {}
        for tag in self.tags:
            if tag.kind in by_kind:
                by_kind[tag.kind].append(tag)
            else:
                by_kind[tag.kind] = [tag]
        for tag in by_kind.get("assertion", ()):
            by_cue.setdefault(tag.value, []).append(tag)
        self.by_kind, self.by_cue = by_kind, by_cue
        modified = not _MODIFIERS.isdisjoint(by_kind)
        self._modifiers = [tag for tag in self.tags if tag.kind in _MODIFIERS] if modified else []

    def of(self, kind: str, start: int = 0, end: int | None = None) -> Sequence[Tag]:
        """Tags of one kind that lie between two word positions."""
        tags = self.by_kind.get(kind, ())
        if not tags or (end is None and not start):
            return tags
        if end is None:
            return [t for t in tags if t.start >= start]
        return [t for t in tags if t.start >= start and t.end <= end]

    def cues(self, value: str) -> Sequence[Tag]:
        """Tags that say whether something is there, of one value, such as `negated_before`."""
        return self.by_cue.get(value, ())

    def modifiers(self, start: int, end: int) -> list[Tag]:
        """Modifiers that lie between two word positions, in the order of the text."""
        return [t for t in self._modifiers if t.start >= start and t.end <= end] if self._modifiers else []

    def enumerated(self, one: Tag, other: Tag) -> bool:
        """Whether two tags are items of one list, with a conjunction between them."""
        start, end = min(one.end, other.end), max(one.start, other.start)
        joint = self.of("conjunction", start, end) or self.of("clause_end", start, end)
        return bool(joint) and self._all(self.listing | self.places("glue", "clause_end") | self._numbers(), start, end)

    def copula(self, start: int, end: int) -> bool:
        """Whether a form of "to be" or the like is all that stands between two word positions."""
        return start < end and lexicon().words["copulas"].issuperset(self.words[start:end])

    def one_list(self, start: int, end: int, articles: bool = False) -> bool:
        """Whether only commas, conjunctions and modifiers stand between two word positions, or these and articles."""
        among = self.listing
        if articles:
            among |= sum(
                1 << at - self.start for at in range(start, end) if self.words[at] in lexicon().words["indefinite"]
            )
        return self._all(among, start, end)

    def only(self, start: int, end: int, *kinds: str) -> bool:
        """Whether nothing but phrases of some kinds stands between two word positions."""
        return self._all(self.places(*kinds), start, end)

    def joined(self, start: int, end: int, *kinds: str) -> bool:
        """Whether only words that part no structure from its state, and phrases of some kinds, stand between two positions."""
        if end <= start:
            return True
        if self._transparent is None:
            cues = self.bits([tag for value in _CUES_WITHIN for tag in self.cues(value)]) if self.by_cue else 0
            self._transparent = cues | self.places(*_TRANSPARENT)
        left = self.words_between(start, end) & ~(self._transparent | self.places(*kinds))
        if not left:
            return True
        if self._saying_nothing is None:
            self._saying_nothing = self._numbers() | self._leading_on() | self._inserted()
        return not left & ~self._saying_nothing

    def holds_only(self, *kinds: str) -> bool:
        """Whether it holds nothing but phrases of some kinds, numbers, dates and words that say nothing."""
        dating = lexicon().words["dating"]
        dates = sum(1 << place for place, word in enumerate(self.words[self.start : self.end]) if word in dating)
        return self._all(self.places(*kinds) | self._numbers() | self._leading_on() | dates, self.start, self.end)

    def has(self, start: int, end: int, *kinds: str) -> bool:
        """Whether a word between two positions stands in a phrase of some kinds."""
        return start < end and bool(self.places(*kinds) & self.words_between(start, end))

    def is_read(self, start: int, end: int) -> bool:
        """Whether every word between two word positions stands in a phrase of the lexicon or is a number."""
        return self._all(self.bits(self.tags) | self._numbers(), start, end)

    @property
    def listing(self) -> int:
        """Words that may stand between the items of a list: commas, conjunctions, modifiers."""
        if self._listing is None:
            self._listing = self.places(*_LISTING)
        return self._listing

    def set_off(self, position: int) -> bool:
        """Whether a sign that is no word, such as a colon, stands before a word."""
        between = self.sentence[self.spans[position - 1][1] : self.spans[position][0]] if position < self.end else ""
        return len(between) > 1 and not between.isspace()

    def sign(self, position: int) -> str:
        """The signs between a word, or the end of the sentence, and the word before it, without blanks."""
        end = self.spans[position][0] if position < len(self.spans) else len(self.sentence)
        return self.sentence[self.spans[position - 1][1] : end].strip()

    def dashed(self, position: int) -> bool:
        """Whether a dash with blanks around it stands before a word."""
        return self.sentence[self.spans[position - 1][1] : self.spans[position][0]] in _DASHES

    def ends(self, position: int) -> bool:
        """Whether the clause, or a piece of it before a comma, ends at a word position."""
        return position >= self.end or self.words[position] == ","

    def is_joint(self, position: int) -> bool:
        """Whether the words before a noun cannot start at a word: at a conjunction, a preposition or a verb."""
        if self._joints is None:
            verbs = 0
            for place, word in enumerate(self.words[self.start : self.end]):
                if word.endswith("ing"):
                    verbs |= 1 << place
            if verbs:
                verbs &= ~self.places(*MODIFIERS, "concept")
            denying = self.bits([*self.cues("negated_before"), *self.cues("past")])
            self._joints = verbs | denying | self.places("conjunction", "alternative", "link", "joint")
        return bool(self._joints >> position - self.start & 1)

    def places(self, *kinds: str) -> int:
        """The words in phrases of some kinds."""
        return self.bits(chain.from_iterable([self.by_kind[kind] for kind in self.by_kind.keys() & kinds]))

    def bits(self, tags: Iterable[Tag]) -> int:
        """The words of some phrases."""
        found, first = 0, self.start
        for start, end, _, _ in tags:
            found |= (1 << end - first) - (1 << start - first)
        return found

    def words_between(self, start: int, end: int) -> int:
        """The words from one position to another one that does not lie before it."""
        return (1 << end - self.start) - (1 << start - self.start)

    def _all(self, among: int, start: int, end: int) -> bool:
        return end <= start or not (1 << end - self.start) - (1 << start - self.start) & ~among

    def _leading_on(self) -> int:
        """Words such as "heavily", which say how a state is, and those by which a sentence comes to it."""
        among = lexicon().words["leading_on"]
        return sum(
            1 << place
            for place, word in enumerate(self.words[self.start : self.end])
            if word in among or word.endswith("ly")
        )

    def _inserted(self) -> int:
        """Words in brackets, or between a subject and its verb, that name nothing: "stenosis (about half) of the trachea"."""
        found = 0
        for start, end in insertions(self.words, self.start, self.end):
            if not self.has(start, end, "concept"):
                found |= self.words_between(start, end)
        if "(" not in self.sentence:
            return found
        for match in _INSERTED.finditer(self.sentence):
            first, last = (bisect_left(self.spans, (place, 0)) for place in match.span())
            first, last = max(first, self.start), min(last, self.end)
            if first < last and not self.has(first, last, "concept", "clause_end"):
                found |= self.words_between(first, last)
        return found

    def _numbers(self) -> int:
        if not self.has_numbers:
            return 0
        words, units = self.words[self.start : self.end], lexicon().units
        return sum(1 << place for place, word in enumerate(words) if word[0].isdecimal() or word in units)


def insertions(words: Sequence[str], start: int, end: int) -> Iterator[tuple[int, int]]:
    """What stands between commas before a verb: "the heart, although partly hidden, is large"; from comma to behind comma."""
    if "," not in words:
        return
    commas = [place for place in range(start, end) if words[place] == ","]
    verbs = lexicon().words["copulas"] | lexicon().words["having"]
    for first, second in pairwise(commas):
        if second + 1 < end and words[second + 1] in verbs and second - first <= _LONGEST_NAME:
            yield first, second + 1


def clauses(sentence: str, lexicon: Lexicon) -> list[Clause]:
    """The clauses of a sentence that hold any phrase of the lexicon; also one that is nothing but a measurement."""
    words, spans = report_words(sentence)
    if not words:  # "[ ]"
        return []
    tags = lexicon.tags(words)
    if "," in words and (place := _told_in_between(tags, words)):  # read behind what it interrupts
        first, last = place
        words = [*words[:first], *words[last:], *words[first:last]]
        spans = [*spans[:first], *spans[last:], *spans[first:last]]
        tags = lexicon.tags(words)
    numbers = _DIGIT.search(sentence) is not None
    if numbers:
        tags = with_years(with_ratios(tags, words, lexicon.cardiothoracic_ratio), words)
    kinds = {tag.kind for tag in tags}
    if not kinds.isdisjoint(JOINING):
        tags = with_shared_nouns(tags, words, lexicon)
    if not kinds.isdisjoint(CHANGING):
        tags = with_changes(tags, words, lexicon.composites)
    if may_answer(sentence, "side" in kinds, words):
        tags = with_answers(tags, sentence, spans)
        kinds.update(tag.kind for tag in tags)
    if "assertion" in kinds:
        tags = with_directions(tags, words)
    if len(words) <= _LONGEST and kinds.isdisjoint(_PARTING):
        return [Clause(words, spans, 0, len(words), tags, None, numbers, sentence)] if tags or numbers else []
    found = []
    position = 0
    for start, end, lead in _borders(tags, words):
        inside = []
        while position < len(tags) and tags[position].start < end:
            if tags[position].start >= start:
                inside.append(tags[position])
            position += 1
        if inside:
            found.append(Clause(words, spans, start, end, inside, lead, numbers, sentence))
    return found


def _told_in_between(tags: list[Tag], words: list[str]) -> tuple[int, int] | None:
    """The first insertion that tells a finding of its own: "the heart, although hidden by the effusion, is large"."""
    concepts = [tag.start for tag in tags if tag.kind == "concept"]
    opening = lexicon().words["subordinating"] | lexicon().words["relative"]
    for start, end in insertions(words, 0, len(words)) if concepts else ():
        if words[start + 1] in opening and any_between(concepts, start, end):
            return start, end - 1
    return None


_PLACE = frozenset(
    (
        "side",
        "zone",
        "joint",
        "glue",
        "conjunction",
        "anatomy",
        "descriptor",
        "definite",
        "extent",
        "sites",
        "clause_end",
    )
)


def _only_a_place(tags: list[Tag], start: int, end: int) -> bool:
    """Whether a place and nothing else is told between two word positions: "On the left, there is", "In the fissure there is"."""
    inside = _inside(tags, start, end)
    kinds = {t.kind for t in inside}
    begun = any(t.kind == "joint" and t.start == start for t in inside)
    named = {"side", "zone", "anatomy", "sites"} if begun else {"side", "zone"}
    return bool(kinds & named) and kinds <= _PLACE


def _fronted(tags: list[Tag], start: int, contrast: Tag) -> Tag | None:
    """The conjunction behind which only a place stands before "there is"."""
    inside = _inside(tags, max(start, contrast.start - _LONGEST_NAME), contrast.start)
    joint = next((t for t in reversed(inside) if t.kind == "conjunction"), None)
    if joint is None or not any(t.kind == "joint" and t.start == joint.end for t in inside):
        return None
    return joint if _only_a_place(tags, joint.end, contrast.start) else None


def _inside(tags: list[Tag], start: int, end: int) -> list[Tag]:
    """The tags between two word positions that are near each other; none of a longer piece, so that the time stays linear."""
    if end - start > _LONGEST_NAME:
        return []
    first = bisect_left(tags, start, key=START)
    return [t for t in tags[first : bisect_left(tags, end, lo=first, key=START)] if t.end <= end]


def _adds_a_place(tags: list[Tag], words: list[str], end: Tag) -> bool:
    """Whether another place of the same finding follows, and then what it is: "in the ribs and the spine, consistent with"."""
    near = _inside(tags, end.end, min(len(words), end.end + _LONGEST_NAME))
    link = next((t for t in near if t.kind == "link" and t.value != "direct"), None)
    if link is None or words[end.start : end.end] != ["and", "the"]:
        return False
    kinds = {t.kind for t in near if t.end <= link.start}
    return bool(kinds & {"side", "zone", "anatomy", "sites"}) and kinds <= _PLACE


def _only_a_name(tags: list[Tag], words: list[str], start: int, end: int) -> bool:
    """Whether names stand between two word positions and nothing is said of them: "The drain and the tube"."""
    inside = [t for t in _inside(tags, start, end) if t.value != "past"]  # "After treatment the edema and the"
    named = {t.start for t in inside if t.kind == "concept"}  # "edema" is a state of other things as well
    kinds = {"concept" if t.start in named or _is_naming(t) else t.kind for t in inside}
    said = words[max(0, start - 1) : end]  # with the verb of "There is an effusion, but"
    return "concept" in kinds and kinds <= _NAMES and lexicon().words["copulas"].isdisjoint(said)


def _tells_a_state(tags: list[Tag], words: list[str], start: int, contrast: Tag) -> bool:
    """Whether a state follows of what stands before: "The heart is smaller but remains enlarged"."""
    behind = _inside(tags, contrast.end, min(len(words), contrast.end + _SHORT))
    if all(t.kind != "states" for t in behind) or any(t.kind in ("anatomy", "concept") for t in behind):
        return False
    if words[contrast.start] != "but" or lexicon().words["persisting"].isdisjoint(
        words[contrast.end : contrast.end + 1]
    ):
        return False
    kinds = {t.kind for t in _inside(tags, start, contrast.start) if t.value != "decreased"}
    return "anatomy" in kinds and kinds.isdisjoint(("states", "concept", "normal"))


def _is_naming(tag: Tag) -> bool:
    """Whether a state is a name by itself: "the drain and the tube"."""
    return tag.kind == "states" and tag.value in lexicon().naming_states


def _main_clause(tags: list[Tag], words: list[str]) -> int | None:
    """The comma before the main clause of a sentence that begins with another one: "While the effusion is gone, the heart is large"."""
    verbs = lexicon().words["copulas"] | lexicon().words["having"]
    if not words or words[0] not in lexicon().words["subordinating"]:
        return None
    named = [t.start for t in tags if t.kind in _NAMING]
    commas = [place for place, word in enumerate(words) if word == ","]
    for comma, upto in pairwise([*commas, len(words)]):
        piece = words[comma + 1 : upto]
        subject = any_between(named, comma, upto) and piece[:1] and piece[0] not in verbs
        if subject and any_between(named, 0, comma) and (piece[1:2] == ["one"] or not verbs.isdisjoint(piece)):
            return comma
    return None


def _points(anaphor: Tag, words: list[str]) -> bool:
    """Whether a clause of its own begins with a word: ", that on the right has resolved"."""
    pointing = words[anaphor.start] in lexicon().words["pointing"]
    return pointing and anaphor.start > 0 and words[anaphor.start - 1] in (",", "and")


def _borders(tags: list[Tag], words: list[str]) -> Iterator[tuple[int, int, str | None]]:
    length = len(words)
    start, lead = 0, None
    ends = [t for t in tags if t.kind == "clause_end"]
    main = _main_clause(tags, words)
    if main is not None:
        ends = sorted([*ends, Tag(main, main + 1, "clause_end", "contrast")], key=START)
    pointing = [t.start for t in tags if t.kind == "anaphor" and _points(t, words)]
    if pointing:
        ends = sorted([*ends, *(Tag(at - 1, at, "clause_end", "contrast") for at in pointing)], key=START)
    change = {t.end for t in tags if t.kind == "temporal"}
    bare = [t.start for t in tags if t.kind == "states" and t.end in change]  # "larger" by itself is a change
    structures = [t.start for t in tags if t.kind == "anatomy"] if bare else []
    # "the heart, although partly hidden, is large" is one clause
    concepts = [t.start for t in tags if t.kind == "concept"]
    inserted = (
        {a + 1 for a, b in insertions(words, 0, length) if not any_between(concepts, a, b)} if ends else frozenset()
    )
    named = [t.start for t in tags if t.kind in _NAMING and not (t.kind == "states" and t.end in change)]

    def names(start: int, end: int) -> bool:
        return any_between(named, start, end) or (any_between(bare, start, end) and any_between(structures, start, end))

    for position, tag in enumerate([*ends, Tag(length, length, "clause_end", None)]):
        upto = ends[position + 1].start if position + 1 < len(ends) else length
        # "enlarged but stable": what names nothing says more about what was named before
        # but an item of a form that is no place ("finding: nodule; rest: normal") stands by itself
        item = tag.start == tag.end and not any(t.kind in ("side", "zone") for t in _inside(tags, tag.end, upto))
        short = upto - tag.end <= _SHORT and not item
        goes_on = tag.value != "exception" and (tag.value != "stop" or short)
        # "no effusion on the right; on the left there is one"
        leads = (
            position + 1 < len(ends) and ends[position + 1].value == "contrast" and _only_a_place(tags, tag.end, upto)
        )
        if tag.start < length and goes_on and not leads and not names(tag.end, upto):
            continue
        if tag.value == "contrast" and _only_a_place(tags, start, tag.start):
            continue
        if tag.start in inserted:
            continue
        if tag.value == "contrast" and _adds_a_place(tags, words, tag):
            continue
        if tag.value == "contrast" and _tells_a_state(tags, words, start, tag):
            continue
        if tag.value == "contrast" and _only_a_name(tags, words, start, tag.start):
            continue
        place = _fronted(tags, start, tag) if tag.value == "contrast" else None
        if place is not None:  # "effusion on the left, and on the right there is a nodule"
            yield start, place.start, lead
            start, lead = place.end, tag.value
            continue
        while tag.start - start > _LONGEST:
            yield start, start + _LONGEST, lead
            start, lead = start + _LONGEST, None
        yield start, tag.start, lead
        start, lead = tag.end, tag.value
