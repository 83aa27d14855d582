"""What a report says about a finding: where, how big, how certain, since when; read from the words of its clause."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from typing import Any, NamedTuple

from crimson_core.judges.rules.clauses import Clause
from crimson_core.judges.rules.lexicon import Tag, lexicon

_BOTH = frozenset(("left", "right"))
_SIDES = {"left": frozenset(("left",)), "right": frozenset(("right",)), "both": _BOTH}
_GRAVEST_CHANGE = ("new", "worse", "acute", "increased", "better", "old", "stable", None)
_GRAVEST_POSITION = ("bad", "coiled", "moved", "good")
_NEAR = 2  # words
_SAME_SIZE = 0.1  # share by which a size may differ and still be the same
_LEVELS = range(1, 13)
_FROM_TO = re.compile(r"(?:st|nd|rd|th)?\s*(?:-|–|to|through|thru)\s*", re.IGNORECASE)


class Attributes(NamedTuple):
    """What a report says about a finding; empty where it says nothing.

    Attributes:
        sides: Any of left and right.
        zones: Any of upper, mid, lower and diffuse.
        places: (side, zone) pairs, where every zone is told with its side.
        dominant: The side that is worse, of two.
        sites: Places that say more than side and zone: a vein, a rib ("rib 7"), a vertebra ("T8"). Of a device, where its tip is.
        severity: Rank from 1 (trace) to 5 (massive, tension), None if unsaid.
        sizes_mm: Measurements in millimetres, largest first.
        earlier_mm: Measurements of an earlier date.
        above_carina_mm: Distance of a device's tip from the carina in millimetres, negative below it, None if unsaid.
        temporal: new, worse, better, stable, acute, old, or increased (which may mean dense).
        descriptors: (group, value) pairs, such as ("margin", "irregular").
        position: Of a device, good, moved, coiled or bad where the report says so in words.
        uncertain: The report hedges.
    """

    sides: frozenset[str] = frozenset()
    zones: frozenset[str] = frozenset()
    places: frozenset[tuple[str, str]] = frozenset()
    dominant: str | None = None
    sites: frozenset[str] = frozenset()
    severity: int | None = None
    sizes_mm: tuple[float, ...] = ()
    earlier_mm: tuple[float, ...] = ()
    above_carina_mm: float | None = None
    temporal: str | None = None
    descriptors: frozenset[tuple[str, str]] = frozenset()
    position: str | None = None
    uncertain: bool = False

    @property
    def placed(self) -> bool:
        """Whether a side or a zone is told."""
        return bool(self.sides or self.zones)

    def with_those_of(self, other: "Attributes") -> "Attributes":
        """What two mentions of a finding say together, whichever stands first; where they differ, the graver one counts."""
        return Attributes(
            sides=self.sides | other.sides,
            zones=self.zones | other.zones,
            places=self.places | other.places,
            dominant=self.dominant or other.dominant,
            sites=self.sites | other.sites,
            severity=max((self.severity or 0), (other.severity or 0)) or None,
            sizes_mm=max(self.sizes_mm, other.sizes_mm),
            above_carina_mm=min(self.above_carina_mm, other.above_carina_mm, key=_last_none),
            earlier_mm=self.earlier_mm or other.earlier_mm,
            temporal=min(self.temporal, other.temporal, key=_GRAVEST_CHANGE.index)
            or _by_sizes(max(self.sizes_mm, other.sizes_mm), self.earlier_mm or other.earlier_mm),
            descriptors=self.descriptors | other.descriptors,
            position=next((value for value in _GRAVEST_POSITION if value in (self.position, other.position)), None),
            uncertain=self.uncertain and other.uncertain,
        )


def meet(one: frozenset[str], other: frozenset[str], within: bool = False) -> bool:
    """Whether two sets of places can be the same: one is unsaid, or they share a place (or one lies within the other)."""
    return not one or not other or ((one <= other or other <= one) if within else bool(one & other))


def _last_none(value: float | None) -> tuple[bool, float]:
    return value is None, value or 0.0


NOTHING = Attributes()
SUSPECTED = Attributes(uncertain=True)


@dataclass(slots=True, eq=False)
class Mention:
    """A finding in a clause.

    Attributes:
        concepts: Ids of lexicon concepts; more than one where the report leaves it open.
        start: First word of its name.
        end: One past the last word of its name.
        predicate: The name is a structure and, after it, its state: "the heart is enlarged".
        appearance: Those of the concepts that the report takes to be the other ones ("opacity, likely atelectasis").
        taken_up: It stands for a finding that was named before ("the opacity", "a smaller one").
        attributes: What is said about it.
        signs: What it explains, where this is no finding of its own any more.
        state: Words of its state, where its name is a structure and a state.
        presence: present, absent (denied, past or normal) or unsaid (asked about, history, not to be assessed).
        first: First word of all that belongs to it.
        last: One past the last of these words.
        named_by: The phrases that name it.
        decided_by: What each phrase that decides whether it is there makes of it; the last of those that differ holds.
        told_by: The modifiers that are about it.
    """

    concepts: tuple[str, ...]
    start: int
    end: int
    predicate: bool = False
    appearance: tuple[str, ...] = ()
    taken_up: bool = False
    attributes: Attributes = NOTHING
    signs: tuple[str, ...] = ()
    presence: str = "present"
    state: tuple[int, int] = (0, 0)
    first: int = 0
    last: int = 0
    named_by: tuple[Tag, ...] = ()
    decided_by: tuple[tuple[str, Tag], ...] = ()
    told_by: tuple[Tag, ...] = ()


class ReportFinding(NamedTuple):
    """One finding of a report.

    Attributes:
        concepts: Ids of lexicon concepts; more than one where the report leaves it open ("atelectasis or pneumonia").
        attributes: What the report says about it.
        start: First character of its text in the report.
        end: One past the last character.
        appearance: Those of the concepts that the report takes to be the other ones ("opacity, likely atelectasis").
        present: False where the report denies it.
        taken_up: The report speaks of a finding named before ("the opacity").
        signs: The appearance that it explains and that is no concept of its own any more ("Kerley lines from edema").
        told_at: Characters of each place where the report tells it; one that is told twice has several.
    """

    concepts: tuple[str, ...]
    attributes: Attributes
    start: int
    end: int
    appearance: tuple[str, ...] = ()
    present: bool = True
    taken_up: bool = False
    signs: tuple[str, ...] = ()
    told_at: tuple[tuple[int, int], ...] = ()

    @property
    def diagnoses(self) -> tuple[str, ...]:
        """The concepts without the appearance that they explain; all of them where the report explains nothing."""
        if not self.appearance:
            return self.concepts
        return tuple(c for c in self.concepts if c not in self.appearance) or self.concepts


def attributes_of(
    tags: Sequence[Tag], clause: Clause, start: int, end: int, named: int, device: bool, percent: bool = False
) -> Attributes:
    """What the modifiers `tags` and the numbers between two word positions tell of a finding whose name ends at `named`.

    `percent` tells whether a percentage is its degree.
    """
    words = clause.words[start:end]
    numbered = clause.has_numbers or "rib" in words or not lexicon().spine.keys().isdisjoint(words)
    if not (tags or device or numbered):
        return NOTHING
    values: dict[str, list[Any]] = {}
    if "beside" in clause.by_kind:
        tags = [tag for tag in tags if tag.kind != "sites" or not _beside(clause, tag)]
    for tag in tags:
        values.setdefault(tag.kind, []).append(tag.value)
    told: dict[str, Any] = {}
    for kind, named_values in values.items():
        name, made = _MADE_OF[kind]
        told[name] = made(named_values)
    if "dominant" in values:
        told["sides"] = _BOTH
    if "zone" in values:
        told["places"] = _places(tags)
    levels = _levels(clause, start, end) if numbered else None
    if levels:
        told["sites"] = told.get("sites", frozenset()) | levels
    # "passes down the trachea into the right lower lobe"
    if device and told.get("sites", _ON_THE_WAY) <= _ON_THE_WAY and _in_lung(clause, named, end):
        told["sites"] = frozenset(("in_lung",))
    above_carina = _above_carina(clause, named, end) if device else None
    if above_carina is not None:
        told["above_carina_mm"] = above_carina
    if "carina" in told.get("sites", ()) and ((above_carina or -1) >= 0 or _well_above(clause, named, end)):
        told["sites"] -= {"carina"}
    if clause.has_numbers:
        sizes = sorted((size for size, _, _ in sizes_in(clause, start, end, named)), reverse=True)
        earlier = earlier_sizes(clause, start, end)
        if not device:
            told["sizes_mm"], told["earlier_mm"] = tuple(sizes), tuple(earlier)
        if "temporal" not in told:
            told["temporal"] = _by_sizes(sizes, earlier)
        if percent and "severity" not in told:
            told["severity"] = _by_percent(clause, start, end)
    return Attributes(**told) if told else NOTHING


def _in_lung(clause: Clause, start: int, end: int) -> bool:
    """Whether a device is said to lie in a lung or a part of one: "in the right lung", "into the left lower lobe"."""
    within = lexicon().words["within"]
    return any(
        tag.value in ("lung", "lobe") and within.intersection(clause.words[max(start, tag.start - 3) : tag.start])
        for tag in clause.of("anatomy", start, end)
    )


def _beside(clause: Clause, place: Tag) -> bool:
    """Whether a place is named only since something lies next to it."""
    start = place.start - (clause.words[place.start - 1] in lexicon().words["articles"])
    return any(tag.end == start for tag in clause.of("beside", clause.start, start))


def _gravest_position(told: Sequence[str]) -> str | None:
    return next((value for value in _GRAVEST_POSITION if value in told), None)


_ON_THE_WAY = frozenset(("trachea",))  # to the lung

# Kind of modifier -> the attribute that it tells, and what its values come to.
_MADE_OF: dict[str, tuple[str, Callable[[Sequence[Any]], Any]]] = {
    "side": (
        "sides",
        lambda told: (
            _SIDES[told[0]] if len(told) == 1 else frozenset(chain.from_iterable(_SIDES[side] for side in told))
        ),
    ),
    "dominant": ("dominant", lambda told: told[0]),
    "zone": ("zones", frozenset),
    "sites": ("sites", frozenset),
    "severity": ("severity", max),
    "temporal": ("temporal", partial(min, key=_GRAVEST_CHANGE.index)),
    "descriptor": ("descriptors", frozenset),
    "position": ("position", _gravest_position),
}


def _by_percent(clause: Clause, start: int, end: int) -> int | None:
    """The rank of "10%"."""
    for place in range(start + 1, end) if clause.has_numbers else ():
        if clause.words[place] in lexicon().words["percent"] and clause.words[place - 1][0].isdecimal():
            share = float(clause.words[place - 1])
            return next((rank for upto, rank in lexicon().percent.items() if share <= upto), None)
    return None


def _by_sizes(now: Sequence[float], earlier: Sequence[float]) -> str | None:
    """How a finding has changed by its size now and before."""
    if not now or not earlier:
        return None
    ratio = max(now) / max(max(earlier), 0.1)
    return "worse" if ratio > 1 + _SAME_SIZE else "better" if ratio < 1 - _SAME_SIZE else "stable"


def earlier_sizes(clause: Clause, start: int, end: int) -> list[float]:
    """Measurements in millimetres of an earlier date: "previously 3 cm", "from 3.0 to 4.5 cm"."""
    found, units = [], lexicon().units
    for tag in clause.of("earlier", start, end) if clause.has_numbers else ():
        for place in range(tag.end, min(end, tag.end + 4)):
            if clause.words[place][0].isdecimal():
                unit = next((w for w in clause.words[place + 1 : place + 6] if w in units), None)
                if unit is None and clause.words[place + 1 : end][:1] in ([], [","], [")"]):  # "6.5 cm, previously 5.8"
                    unit = next((w for w in reversed(clause.words[start : tag.start]) if w in units), None)
                if unit:
                    found.append(float(clause.words[place]) * units[unit])
                break
    return found


def _places(tags: Sequence[Tag]) -> frozenset[tuple[str, str]]:
    """Zones with the side that is told with each; empty where one has none."""
    found: set[tuple[str, str]] = set()
    side: Tag | None = None
    for tag in sorted((t for t in tags if t.kind in ("side", "zone")), key=lambda t: (t.start, t.kind)):
        if tag.kind == "side":
            side = tag
        elif side is None:
            return frozenset()
        else:
            found |= {(one, tag.value) for one in _SIDES[side.value]}
    return frozenset(found)


def sizes_in(clause: Clause, start: int, end: int, named: int) -> Iterator[tuple[float, int, int]]:
    """Measurements in millimetres with their word positions: "5 mm", "3.2 x 2.1 cm"; not those of an earlier date."""
    units, now, times = lexicon().units, lexicon().words["now"], lexicon().words["times"]
    for unit in range(start, end) if clause.has_numbers else ():
        if clause.words[unit] not in units:
            continue
        number = unit - 1
        before = clause.of("earlier", named, unit)
        first = number  # of "4.5 x 3 cm"
        while first > start and clause.words[first - 1] in times:
            first -= 2
        # "from 3.0 to 4.5 cm", "previously 2 cm, now 3 cm"
        again = before and (clause.words[first - 1] == "to" or not now.isdisjoint(clause.words[before[-1].end : first]))
        if before and not again:
            continue
        while number >= start and clause.words[number][0].isdecimal():
            yield float(clause.words[number]) * units[clause.words[unit]], number, unit + 1
            number -= 2 if number > start and clause.words[number - 1] in times else number + 1


def _above_carina(clause: Clause, start: int, end: int) -> float | None:
    """The distance in "tip 3 cm above the carina"; -1 where it is beyond the carina by an unknown distance."""
    carinas = [t for t in clause.of("sites", start, end) if t.value == "carina"]
    if not carinas:
        return None
    carina = carinas[0]
    beside = clause.words[max(start, carina.start - 4) : carina.start]
    # "carina distance 4 cm"
    beside += lexicon().words["distance"].intersection(clause.words[carina.end : carina.end + 1])
    beyond, above = (not lexicon().words[kind].isdisjoint(beside) for kind in ("beyond", "above"))
    sign = -1.0 if beyond else 1.0 if above else 0.0
    if not sign:
        return None
    told = sizes_in(clause, start, end, end)
    # "3 cm above the carina", "above the carina by 3 cm", but not "above the carina, withdraw by 3 cm"
    near = [size for size, number, _ in told if number < carina.start or number <= carina.end + _NEAR]
    return sign * near[0] if near else (-1.0 if sign < 0 else None)


def _well_above(clause: Clause, start: int, end: int) -> bool:
    """Whether a tip is said to be above the carina by more than a little, without a number."""
    words = clause.words[start:end]
    return "above" in words and lexicon().words["barely"].isdisjoint(words[: words.index("above")])


def _levels(clause: Clause, start: int, end: int) -> set[str]:
    """Ribs and vertebrae by number: "left 5th and 6th ribs", "ribs 4-6", "the seventh rib", "T8", "T9/10"."""
    return {f"rib {number}" for number in _ribs(clause, start, end)} | _vertebrae(clause, start, end)


def _ribs(clause: Clause, start: int, end: int) -> set[int]:
    found: set[int] = set()
    for rib in range(start, end):
        if clause.words[rib] != "rib":
            continue
        before: tuple[int, int] | None = None  # a number and where it stands
        for place in range(max(start, rib - 8), min(end, rib + 6)):
            number = _level_at(clause, place)
            if number is None or (place + 1 < len(clause.words) and clause.words[place + 1] in lexicon().units):
                continue
            if before and _FROM_TO.fullmatch(clause.sentence, clause.spans[before[1]][1], clause.spans[place][0]):
                found.update(range(before[0], number))
            found.add(number)
            before = number, place
    return found


def _vertebrae(clause: Clause, start: int, end: int) -> set[str]:
    found: set[str] = set()
    words = clause.words
    spine, named = lexicon().spine, lexicon().words["vertebra"]
    for place in range(start, end - 1):
        region = spine.get(words[place])
        if region is None:
            continue
        if words[place + 1] in named:  # "the twelfth thoracic vertebra"
            number = _level_at(clause, place - 1 - (words[place - 1] in ("st", "nd", "rd", "th")))
            found |= {f"{region}{number}"} if number else set()
        elif words[place + 1].isdecimal() and _adjacent(clause, place):
            number = _level_at(clause, place + 1)
            behind = place + 2 + (words[place + 2 : place + 3] == ["/"])  # "T9/10", "T9-10"
            beside = clause.sentence[clause.spans[place + 1][1] :][:1] in ("/", "-", "–")
            more = _level_at(clause, behind) if beside and behind < end else None
            found |= {f"{region}{level}" for level in (number, more) if level}
    return found


def _level_at(clause: Clause, place: int) -> int | None:
    """The number of a rib or vertebra that a word tells."""
    word = clause.words[place] if clause.start <= place < clause.end else ""
    number = word if word.isdecimal() else ordinals().get(word)
    return int(number) if number and int(number) in _LEVELS else None


def _adjacent(clause: Clause, position: int) -> bool:
    return clause.spans[position][1] == clause.spans[position + 1][0]


@cache
def ordinals() -> dict[str, str]:
    """Ordinal words -> their numbers."""
    return {word: str(number) for number, words in lexicon().ordinals.items() for word in words}
