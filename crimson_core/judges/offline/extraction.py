"""A report's text -> its abnormal findings, each with its attributes and its place in the text.

A sentence is cut into clauses. In a clause each mention of a concept is found first, then what is said about it: whether it
is there at all (negation, history, question), how certainly, where, how big and since when. Mentions that tell of one
finding ("opacity, likely pneumonia"; a finding that the impression repeats) become one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from crimson_core.judges.offline.lexicon import Lexicon, Tag, lexicon, words_of
from crimson_core.judges.offline.sentences import sentences

_UNITS = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "centimeter": 10.0, "centimetre": 10.0, "millimetre": 10.0}
_SIDES = {"left": {"left"}, "right": {"right"}, "both": {"left", "right"}}
_MODIFIERS = ("side", "zone", "severity", "temporal", "descriptor", "position")
_FARTHEST_STATE = 6  # words between a structure and its state


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


@dataclass(frozen=True)
class ReportFinding:
    """One abnormal finding of a report.

    Attributes:
        concepts: Ids of lexicon concepts; more than one where the report leaves it open ("atelectasis or pneumonia").
        attributes: What the report says about it.
        start: First character of its text in the report.
        end: One past the last character.
    """

    concepts: tuple[str, ...]
    attributes: Attributes
    start: int
    end: int


@dataclass
class _Mention:
    """A concept in a clause. `start` and `end` are word positions, `first` and `last` those of all that belongs to it."""

    concepts: tuple[str, ...]
    start: int
    end: int
    attributes: Attributes = field(default_factory=Attributes)
    present: bool = True
    first: int = 0
    last: int = 0


def extract_findings(report: str) -> list[ReportFinding]:
    """The abnormal findings of a report, in the order in which they first stand in it."""
    words = lexicon()
    found: list[ReportFinding] = []
    for start, end in sentences(report, words):
        found += _sentence_findings(report[start:end], start, words)
    return _without_repeats(found, words)


def _sentence_findings(sentence: str, offset: int, words: Lexicon) -> Iterable[ReportFinding]:
    tokens = words_of(sentence)
    texts = [token[0] for token in tokens]
    for clause in _clauses(list(words.tags(texts)), len(tokens)):
        mentions = _mentions(clause, words)
        _assign_attributes(mentions, clause, texts, words)
        _decide_presence(mentions, clause)
        _share_location(mentions, clause, words)
        for mention in _joined(mentions, clause, words):
            yield ReportFinding(
                mention.concepts,
                mention.attributes,
                offset + tokens[mention.first][1],
                offset + tokens[mention.last - 1][2],
            )


@dataclass(frozen=True)
class _Clause:
    start: int
    end: int
    tags: list[Tag]

    def of(self, kind: str, start: int = 0, end: int | None = None) -> list[Tag]:
        """Tags of one kind that lie between two word positions."""
        return [t for t in self.tags if t.kind == kind and t.start >= start and (end is None or t.end <= end)]


def _clauses(tags: list[Tag], length: int) -> Iterable[_Clause]:
    start = 0
    for stop, after in [*((t.start, t.end) for t in tags if t.kind == "clause_end"), (length, length)]:
        inside = [t for t in tags if start <= t.start and t.end <= stop]
        if inside:
            yield _Clause(start, stop, inside)
        start = after


# --- what is mentioned


def _mentions(clause: _Clause, words: Lexicon) -> list[_Mention]:
    """Concepts by name, and structures with their state, in the order of the text."""
    mentions = [_Mention((t.value,), t.start, t.end) for t in clause.of("concept")]
    named = {position for m in mentions for position in range(m.start, m.end)}
    transparent = {
        position
        for t in clause.tags
        if t.kind in ("glue", "anatomy", "states", "conjunction", *_MODIFIERS) or t.value == "negated_before"
        for position in range(t.start, t.end)
    }
    structures = [t for t in clause.of("anatomy") if t.start not in named]
    used = set()
    for state in clause.of("states"):
        for structure in sorted(structures, key=lambda t: abs(t.start - state.start)):
            concept = words.composites.get((structure.value, state.value))
            start, end = min(structure.start, state.start), max(structure.end, state.end)
            between = range(min(structure.end, state.end), max(structure.start, state.start))
            if not concept or len(between) > _FARTHEST_STATE or not transparent.issuperset(between):
                continue
            if not named & set(range(start, end)):
                # of "the aorta is tortuous and calcified" the second finding is the second state alone
                mentions.append(
                    _Mention((concept,), *((state.start, state.end) if structure in used else (start, end)))
                )
                used.add(structure)
                break
    return sorted(mentions, key=lambda m: m.start)


# --- what is said about it


def _assign_attributes(mentions: list[_Mention], clause: _Clause, texts: list[str], words: Lexicon) -> None:
    for position, mention in enumerate(mentions):
        start = _border(mentions[position - 1], mention, clause) if position else clause.start
        end = _border(mention, mentions[position + 1], clause) if position + 1 < len(mentions) else clause.end
        mention.first, mention.last = mention.start, mention.end
        device = words.concepts[mention.concepts[0]].device
        tags = [t for t in clause.tags if t.kind in _MODIFIERS and start <= t.start and t.end <= end]
        if device:  # what follows a device tells its course and tip, not where it was put in
            tags = [t for t in tags if t.start < mention.end or t.kind in ("position", "temporal")]
        sizes = [] if device else list(_sizes(texts, start, end))
        mention.attributes = _attributes(tags, [size for size, _, _ in sizes])
        for first, last in [(t.start, t.end) for t in tags] + [(a, b) for _, a, b in sizes]:
            mention.first, mention.last = min(mention.first, first), max(mention.last, last)


def _border(left: _Mention, right: _Mention, clause: _Clause) -> int:
    """Where the words about one mention end and those about the next one begin."""
    for kind in ("link", "alternative"):
        between = clause.of(kind, left.end, right.start)
        if between:
            return between[0].end
    between = clause.of("conjunction", left.end, right.start)
    # "effusion, unchanged, and new opacity": the word parts better than the comma
    longest = max(between, key=lambda t: (t.end - t.start, t.start), default=None)
    return longest.end if longest else left.end


def _attributes(tags: Sequence[Tag], sizes: Sequence[float]) -> Attributes:
    values = {kind: [t.value for t in tags if t.kind == kind] for kind in _MODIFIERS}
    return Attributes(
        sides=frozenset(side for value in values["side"] for side in _SIDES[value]),
        zones=frozenset(values["zone"]),
        severity=max(values["severity"], default=None),
        sizes_mm=tuple(sorted(sizes, reverse=True)),
        temporal=values["temporal"][0] if values["temporal"] else None,
        descriptors=frozenset(values["descriptor"]),
        misplaced="bad" in values["position"],
    )


def _sizes(texts: list[str], start: int, end: int) -> Iterable[tuple[float, int, int]]:
    """Measurements in millimetres with their word positions: "5 mm", "3.2 x 2.1 cm"."""
    for unit in range(start, end):
        if texts[unit] not in _UNITS:
            continue
        number = unit - 1
        while number >= start and texts[number][0].isdigit():
            yield float(texts[number]) * _UNITS[texts[unit]], number, unit + 1
            number -= 2 if number > start and texts[number - 1] in ("x", "by") else number + 1


# --- whether it is there


def _decide_presence(mentions: list[_Mention], clause: _Clause) -> None:
    for tag in clause.of("assertion"):
        if tag.value in ("negated_before", "hypothetical", "history"):
            for mention in mentions:
                # A structure and its state may hold the cue between them: "the heart is not enlarged".
                ended = tag.value == "negated_before" and clause.of("negation_end", tag.end, mention.start)
                if tag.end <= mention.end and not ended:
                    mention.present = False
        elif tag.value == "negated_after":
            for mention in _list_before(mentions, tag, clause):
                mention.present = False
        elif tag.value == "uncertain_after":
            for mention in _list_before(mentions, tag, clause):
                mention.attributes = replace(mention.attributes, uncertain=True)
        elif tag.value == "uncertain_before":
            hedged = _list_after(mentions, tag, clause)
            for mention in hedged:
                mention.attributes = replace(mention.attributes, uncertain=True)
            if hedged and hedged[0].first == tag.end:
                hedged[0].first = tag.start  # "possible left effusion" is quoted whole


def _list_before(mentions: list[_Mention], tag: Tag, clause: _Clause) -> list[_Mention]:
    """The mention before a cue and those enumerated with it."""
    before = [m for m in mentions if m.end <= tag.start]
    enumerated = before[-1:]
    for left, right in zip(before[-2::-1], before[:0:-1], strict=False):
        if not _one_list(left, right, clause):
            break
        enumerated.append(left)
    return enumerated


def _list_after(mentions: list[_Mention], tag: Tag, clause: _Clause) -> list[_Mention]:
    """The mention after a cue and those enumerated with it."""
    after = [m for m in mentions if m.start >= tag.end]
    enumerated = after[:1]
    for left, right in zip(after, after[1:], strict=False):
        if not _one_list(left, right, clause):
            break
        enumerated.append(right)
    return enumerated


def _one_list(left: _Mention, right: _Mention, clause: _Clause) -> bool:
    """Whether only commas, conjunctions and modifiers part two mentions."""
    listing = {
        position
        for t in clause.tags
        if t.kind in ("conjunction", "alternative", *_MODIFIERS)
        for position in range(t.start, t.end)
    }
    return all(position in listing for position in range(left.end, right.start))


# --- what belongs together


def _share_location(mentions: list[_Mention], clause: _Clause, words: Lexicon) -> None:
    """Carry a location over an enumeration: "left effusion and atelectasis", "effusion and atelectasis at the left base"."""
    for left, right in zip(mentions, mentions[1:], strict=False):
        if not _one_list(left, right, clause) or not _sided(left, words) or not _sided(right, words):
            continue
        bare = not any(t.kind in _MODIFIERS and left.end <= t.start < right.start for t in clause.tags)
        if bare and _placed(left) and left.first < left.start and not _placed(right):
            _take_location(right, left)
        elif _placed(right) and right.last > right.end and not _placed(left):
            _take_location(left, right)


def _sided(mention: _Mention, words: Lexicon) -> bool:
    return words.concepts[mention.concepts[0]].sided


def _placed(mention: _Mention) -> bool:
    return bool(mention.attributes.sides or mention.attributes.zones)


def _take_location(mention: _Mention, source: _Mention) -> None:
    mention.attributes = replace(mention.attributes, sides=source.attributes.sides, zones=source.attributes.zones)


def _joined(mentions: list[_Mention], clause: _Clause, words: Lexicon) -> list[_Mention]:
    """The mentions that are present, those that tell of one finding as one."""
    joined: list[_Mention] = []
    for mention in mentions:
        if not mention.present:
            continue
        last = joined[-1] if joined else None
        links = [t.value for t in clause.of("link", last.end, mention.start)] if last else []
        if (
            last
            and links
            and (words.concepts[last.concepts[0]].vague or _related(last.concepts, mention.concepts, words))
        ):
            tentative = "tentative" in links
            concepts = (*last.concepts, *mention.concepts) if tentative else mention.concepts
            joined[-1] = _merged(last, mention, concepts, tentative)
        elif last and clause.of("alternative", last.end, mention.start) and _one_list(last, mention, clause):
            joined[-1] = _merged(last, mention, (*last.concepts, *mention.concepts), True)
        else:
            joined.append(mention)
    return joined


def _merged(left: _Mention, right: _Mention, concepts: tuple[str, ...], uncertain: bool) -> _Mention:
    attributes = _union(left.attributes, right.attributes)
    return _Mention(
        tuple(dict.fromkeys(concepts)),
        left.start,
        right.end,
        replace(attributes, uncertain=attributes.uncertain or uncertain),
        True,
        min(left.first, right.first),
        max(left.last, right.last),
    )


def _union(one: Attributes, other: Attributes) -> Attributes:
    """What two mentions of a finding say together; where they differ, the first one counts."""
    return Attributes(
        sides=one.sides | other.sides,
        zones=one.zones | other.zones,
        severity=other.severity if one.severity is None else one.severity,
        sizes_mm=one.sizes_mm or other.sizes_mm,
        temporal=one.temporal or other.temporal,
        descriptors=one.descriptors | other.descriptors,
        misplaced=one.misplaced or other.misplaced,
        uncertain=one.uncertain and other.uncertain,
    )


def _without_repeats(found: list[ReportFinding], words: Lexicon) -> list[ReportFinding]:
    """One finding for each that the report tells twice, as findings and impression do."""
    kept: list[ReportFinding] = []
    for finding in found:
        for position, earlier in enumerate(kept):
            if _same_finding(earlier, finding, words):
                narrower = _narrower(earlier.concepts, finding.concepts, words)
                kept[position] = replace(
                    earlier, concepts=narrower, attributes=_union(earlier.attributes, finding.attributes)
                )
                break
        else:
            kept.append(finding)
    return kept


def _same_finding(earlier: ReportFinding, later: ReportFinding, words: Lexicon) -> bool:
    one, other = earlier.attributes, later.attributes
    if set(earlier.concepts) & set(later.concepts):
        sides = not one.sides or not other.sides or one.sides <= other.sides or other.sides <= one.sides
        zones = not one.zones or not other.zones or bool(one.zones & other.zones)
        return sides and zones
    if not _related(earlier.concepts, later.concepts, words):
        return False
    if words.concepts[earlier.concepts[0]].device:  # "a right PICC … the catheter ends in the SVC"
        return not one.sides or not other.sides
    # The impression names the disease ("pneumonia") that the findings describe ("airspace opacity"), at the same place.
    return bool(one.sides) and one.sides == other.sides and (one.zones == other.zones or bool(one.zones & other.zones))


def _related(some: tuple[str, ...], others: tuple[str, ...], words: Lexicon) -> bool:
    return any((a, b) in words.distances or (b, a) in words.distances for a in some for b in others)


def _narrower(some: tuple[str, ...], others: tuple[str, ...], words: Lexicon) -> tuple[str, ...]:
    """Of two names of one finding the one that says more."""
    if set(some) & set(others):
        return some if len(some) <= len(others) else others
    return others if any((b, a) in words.distances for a in some for b in others) else some
