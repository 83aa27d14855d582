"""A clause -> the findings it mentions: what, whether it is there, how certainly, where, how big and since when."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from crimson_core.judges.offline.clauses import MODIFIERS, Clause
from crimson_core.judges.offline.lexicon import Lexicon, Tag

_UNITS = {"mm": 1.0, "millimeter": 1.0, "millimetre": 1.0, "cm": 10.0, "centimeter": 10.0, "centimetre": 10.0}
_SIDES = {"left": {"left"}, "right": {"right"}, "both": {"left", "right"}}
_FARTHEST_STATE = 10  # words between a structure and its state


@dataclass(frozen=True)
class Attributes:
    """What a report says about a finding; empty where it says nothing.

    Attributes:
        sides: Any of left and right.
        zones: Any of upper, mid, lower and diffuse.
        severity: Rank from 1 (trace) to 5 (massive, tension), None if unsaid.
        sizes_mm: Measurements in millimetres, largest first.
        temporal: new, worse, better or stable.
        descriptors: (group, value) pairs, such as ("margin", "irregular").
        misplaced: A device that is not where it should be.
        uncertain: The report hedges.
    """

    sides: frozenset[str] = frozenset()
    zones: frozenset[str] = frozenset()
    severity: int | None = None
    sizes_mm: tuple[float, ...] = ()
    temporal: str | None = None
    descriptors: frozenset[tuple[str, str]] = frozenset()
    misplaced: bool = False
    uncertain: bool = False

    def with_those_of(self, other: "Attributes") -> "Attributes":
        """What two mentions of a finding say together; where they differ, this one counts."""
        return Attributes(
            sides=self.sides | other.sides,
            zones=self.zones | other.zones,
            severity=other.severity if self.severity is None else self.severity,
            sizes_mm=self.sizes_mm or other.sizes_mm,
            temporal=self.temporal or other.temporal,
            descriptors=self.descriptors | other.descriptors,
            misplaced=self.misplaced or other.misplaced,
            uncertain=self.uncertain and other.uncertain,
        )


@dataclass
class Mention:
    """A finding in a clause.

    Attributes:
        concepts: Ids of lexicon concepts; more than one where the report leaves it open.
        start: First word of its name.
        end: One past the last word of its name.
        predicate: The name is a structure and, after it, its state: "the heart is enlarged".
        attributes: What is said about it.
        present: False where it is denied, asked about or past.
        first: First word of all that belongs to it.
        last: One past the last of these words.
    """

    concepts: tuple[str, ...]
    start: int
    end: int
    predicate: bool = False
    attributes: Attributes = field(default_factory=Attributes)
    present: bool = True
    first: int = 0
    last: int = 0


def mentions(clause: Clause, lexicon: Lexicon) -> list[Mention]:
    """The findings that a clause says are there, in the order of the text."""
    found = _named(clause, lexicon)
    if not found:
        return []
    _assign_attributes(found, clause, lexicon)
    found = [part for mention in found for part in _split_sides(mention, clause)]
    _decide_presence(found, clause)
    _share_location(found, clause, lexicon)
    return _joined([mention for mention in found if mention.present], clause, lexicon)


# --- what is mentioned


def _named(clause: Clause, lexicon: Lexicon) -> list[Mention]:
    """Concepts by name, and structures with their state."""
    found = {t.start: Mention((t.value,), t.start, t.end) for t in clause.of("concept")}
    taken = {position for m in found.values() for position in range(m.start, m.end)}
    structures = [t for t in clause.of("anatomy") if t.start not in taken]
    used: set[Tag] = set()
    for state in clause.of("states"):
        for structure in sorted(structures, key=lambda t: abs(t.start - state.start)):
            concept = lexicon.composites.get((structure.value, state.value))
            between = range(min(structure.end, state.end), max(structure.start, state.start))
            if not concept or len(between) > _FARTHEST_STATE or not clause.transparent.issuperset(between):
                continue
            if state.start in found:  # "fracture of the left ribs" names more than a fracture
                if found[state.start].concepts[0] in lexicon.concepts[concept].broader:
                    found[state.start].concepts = (concept,)
            elif not taken & set(range(state.start, state.end)) and not taken & set(between):
                # of "the aorta is tortuous and calcified" the second finding is the second state alone
                start = state.start if structure in used else min(structure.start, state.start)
                end = state.end if structure in used else max(structure.end, state.end)
                found[state.start] = Mention((concept,), start, end, predicate=start < state.start)
                used.add(structure)
            break
    return sorted(found.values(), key=lambda m: (m.start, m.end))


# --- what is said about it


def _assign_attributes(found: list[Mention], clause: Clause, lexicon: Lexicon) -> None:
    borders = [clause.start, *(_border(left, right, clause) for left, right in pairwise(found)), clause.end]
    for mention, (start, end) in zip(found, pairwise(borders), strict=True):
        device = lexicon.concepts[mention.concepts[0]].device
        tags = [t for t in clause.modifiers(start, end) if _belongs(t, mention, device, clause, start, end)]
        sizes = [] if device else list(_sizes(mention, clause, start, end))
        mention.attributes = _attributes(tags, [size for size, _, _ in sizes])
        places = [(t.start, t.end) for t in tags] + [(a, b) for _, a, b in sizes] + [(mention.start, mention.end)]
        mention.first, mention.last = min(a for a, _ in places), max(b for _, b in places)


def _border(left: Mention, right: Mention, clause: Clause) -> int:
    """Where the words about one mention end and those about the next one begin: before the words that lead its name."""
    position = right.start
    while position > left.end and position - 1 not in clause.joints:
        position -= 1
    return max(position, left.end)


def _belongs(tag: Tag, mention: Mention, device: bool, clause: Clause, start: int, end: int) -> bool:
    """Whether a modifier in a mention's words is about it."""
    if device and tag.kind not in ("position", "temporal"):
        # What follows the tip, the end or the course of a device tells where it lies, not where it was put in.
        return tag.start < mention.end or not clause.of("course", mention.end, tag.start)
    if tag.start >= mention.end:  # "in the right lung, not in the left"
        return not any(mention.end <= cue.start < tag.start for cue in clause.cues("negated_before"))
    # "left lung clear, right effusion": what is said to be normal has its own place
    piece = _piece(tag.start, clause, start, end)
    return mention.start in piece or not any(t.start in piece for t in clause.of("normal"))


def _piece(position: int, clause: Clause, start: int, end: int) -> range:
    """The words between the two conjunctions or commas around a position."""
    parts = clause.of("conjunction", start, end)
    first = max((t.end for t in parts if t.end <= position), default=start)
    last = min((t.start for t in parts if t.start > position), default=end)
    return range(first, last)


def _attributes(tags: Sequence[Tag], sizes: Sequence[float]) -> Attributes:
    values = {kind: [t.value for t in tags if t.kind == kind] for kind in MODIFIERS}
    return Attributes(
        sides=frozenset(side for value in values["side"] for side in _SIDES[value]),
        zones=frozenset(values["zone"]),
        severity=max(values["severity"], default=None),
        sizes_mm=tuple(sorted(sizes, reverse=True)),
        temporal=values["temporal"][0] if values["temporal"] else None,
        descriptors=frozenset(values["descriptor"]),
        misplaced="bad" in values["position"],
    )


def _sizes(mention: Mention, clause: Clause, start: int, end: int) -> Iterator[tuple[float, int, int]]:
    """Measurements in millimetres with their word positions: "5 mm", "3.2 x 2.1 cm"; not those of an earlier date."""
    for unit in range(start, end):
        if clause.words[unit] not in _UNITS or clause.of("earlier", mention.end, unit):
            continue
        number = unit - 1
        while number >= start and clause.words[number][0].isdigit():
            yield float(clause.words[number]) * _UNITS[clause.words[unit]], number, unit + 1
            number -= 2 if number > start and clause.words[number - 1] in ("x", "by") else number + 1


def _split_sides(mention: Mention, clause: Clause) -> Iterable[Mention]:
    """Two findings of "large left and small right effusions", each with its own degree."""
    tags = clause.modifiers(mention.first, mention.start)
    sides = [t for t in tags if t.kind == "side" and t.value in ("left", "right")]
    if len(sides) != 2 or sides[0].value == sides[1].value or not any(t.kind == "severity" for t in tags):
        return [mention]
    joint = clause.of("conjunction", sides[0].end, sides[1].start)
    if not joint or clause.modifiers(mention.end, mention.last):
        return [mention]
    halves = [[t for t in tags if t.end <= joint[0].start], [t for t in tags if t.start >= joint[0].end]]
    if not all(any(t.kind == "severity" for t in half) for half in halves):
        return [mention]
    return [replace(mention, attributes=_attributes(half, mention.attributes.sizes_mm)) for half in halves]


# --- whether it is there


def _decide_presence(found: list[Mention], clause: Clause) -> None:
    for cue in clause.cues("negated_before"):
        for mention in _denied_by(cue, found, clause):
            mention.present = False
    for value in ("hypothetical", "history"):
        for cue in clause.cues(value):
            for mention in found:
                mention.present = mention.present and cue.end > mention.start
    for cue in clause.cues("negated_after"):
        for mention in _list_before(found, cue, clause):
            mention.present = False
    for cue in clause.cues("uncertain_after"):
        for mention in _list_before(found, cue, clause):
            mention.attributes = replace(mention.attributes, uncertain=True)
    for cue in clause.cues("uncertain_before"):
        hedged = _list_after(found, cue, clause)
        for mention in hedged:
            mention.attributes = replace(mention.attributes, uncertain=True)
        if hedged and hedged[0].first == cue.end:
            hedged[0].first = cue.start  # "possible left effusion" is quoted whole


def _denied_by(cue: Tag, found: list[Mention], clause: Clause) -> Iterator[Mention]:
    """The mentions that a "no" or "without" before them denies.

    A structure and its state may hold the cue between them: "the heart is not enlarged". A denied list goes on until it is
    ended by "with", or by an item that is plainly affirmed: one with a degree, a side or a change of its own
    ("no consolidation, small left effusion"), or with a verb's sense ("no effusion, heart mildly enlarged"). Where an "or"
    follows, that item is still within the list ("no consolidation, large effusion or pneumothorax").
    """
    after = [m for m in found if cue.end <= m.end]
    for position, mention in enumerate(after):
        if clause.of("negation_end", cue.end, mention.start):
            return
        if position and not clause.of("alternative", after[position - 1].end):
            own = clause.modifiers(mention.first, mention.start)
            if mention.predicate or any(t.kind in ("severity", "side", "temporal") for t in own):
                return
        yield mention


def _list_before(found: list[Mention], cue: Tag, clause: Clause) -> list[Mention]:
    """The mention before a cue and those enumerated with it."""
    before = [m for m in found if m.end <= cue.start]
    enumerated = before[-1:]
    for left, right in pairwise(before[::-1]):
        if not _one_list(right, left, clause):
            break
        enumerated.append(right)
    return enumerated


def _list_after(found: list[Mention], cue: Tag, clause: Clause) -> list[Mention]:
    """The mention after a cue and those enumerated with it; or the one that holds the cue ("heart is borderline enlarged")."""
    after = [m for m in found if m.end > cue.end]
    enumerated = after[:1]
    for left, right in pairwise(after):
        if not _one_list(left, right, clause):
            break
        enumerated.append(right)
    return enumerated


def _one_list(left: Mention, right: Mention, clause: Clause) -> bool:
    """Whether only commas, conjunctions and modifiers part two mentions."""
    return clause.listing.issuperset(range(left.end, right.start))


# --- what belongs together


def _share_location(found: list[Mention], clause: Clause, lexicon: Lexicon) -> None:
    """Carry a location over an enumeration: "left effusion and atelectasis", "effusion and atelectasis at the left base"."""
    for left, right in pairwise(found):
        sided = all(lexicon.concepts[m.concepts[0]].sided for m in (left, right))
        if not sided or not _one_list(left, right, clause):
            continue
        bare = not clause.modifiers(left.end, right.start)
        if bare and _placed(left) and left.first < left.start and not _placed(right):
            _take_location(right, left)
        elif _placed(right) and right.last > right.end and not _placed(left):
            _take_location(left, right)


def _placed(mention: Mention) -> bool:
    return bool(mention.attributes.sides or mention.attributes.zones)


def _take_location(mention: Mention, source: Mention) -> None:
    mention.attributes = replace(mention.attributes, sides=source.attributes.sides, zones=source.attributes.zones)


def _joined(found: list[Mention], clause: Clause, lexicon: Lexicon) -> list[Mention]:
    """Those that tell of one finding as one: an appearance with its explanation, and alternatives."""
    joined: list[Mention] = []
    for mention in found:
        last = joined[-1] if joined else None
        links = [t.value for t in clause.of("link", last.end, mention.start)] if last else []
        if last and links and _explains(mention, last, lexicon):
            tentative = "tentative" in links
            concepts = (*last.concepts, *mention.concepts) if tentative else mention.concepts
            joined[-1] = _merged(last, mention, concepts, tentative)
        elif last and clause.of("alternative", last.end, mention.start) and _one_list(last, mention, clause):
            joined[-1] = _merged(last, mention, (*last.concepts, *mention.concepts), True)
        else:
            joined.append(mention)
    return joined


def _explains(mention: Mention, appearance: Mention, lexicon: Lexicon) -> bool:
    """Whether a diagnosis after "consistent with" and the like is about the appearance before it."""
    if lexicon.concepts[appearance.concepts[0]].vague:
        return True
    return lexicon.related(appearance.concepts, mention.concepts)


def _merged(left: Mention, right: Mention, concepts: tuple[str, ...], uncertain: bool) -> Mention:
    attributes = left.attributes.with_those_of(right.attributes)
    return Mention(
        tuple(dict.fromkeys(concepts)),
        left.start,
        right.end,
        attributes=replace(attributes, uncertain=attributes.uncertain or uncertain),
        first=min(left.first, right.first),
        last=max(left.last, right.last),
    )
