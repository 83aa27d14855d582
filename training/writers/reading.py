"""Readings of reports with the offline judge's lexicon, and their differences."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crimson_core.judges.rules.attributes import ReportFinding
from crimson_core.judges.rules.devices import position
from crimson_core.judges.rules.extraction import extract_findings, read_report
from crimson_core.judges.rules.lexicon import interchangeable_pairs, lexicon, rules, words_of
from crimson_core.judges.rules.matching import compares_sides, zone_gap
from training.writers import Attribute

_SAME_SIZE_MM = 0.5
_DEGREES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 3}  # "trace" and "small", "large" and "massive" are interchangeable
# "more pronounced on the right" names no side, since there is some on the left.
_UNEVEN = re.compile(
    r"\b(?:more|greater|larger|worse|especially|particularly|mostly|predominantly)\s+"
    r"(?:(?:pronounced|marked|prominent|extensive|severe|so)\s+)?(?:on|in|at)\s+the\s+(?:left|right)\b"
    r"|\b(?:left|right)\s+(?:side\s+)?(?:greater|more|larger|worse)\s+than\b",
    re.IGNORECASE,
)
FRINGE = " \t\r\n.,;:"


@dataclass(frozen=True)
class Reading:
    """A report with all its mentions, its findings, and the clauses that the lexicon cannot read."""

    text: str
    mentions: list[ReportFinding]
    findings: list[ReportFinding]
    unread: set[str]

    def places(self, words: str) -> list[tuple[int, int]]:
        """The spans of some words, whatever their letter case and blanks."""
        words = words.strip(FRINGE)
        pattern = r"\s+".join(map(re.escape, words.split()))
        found = re.finditer(rf"(?<!\w){pattern}(?!\w)" if words[-1:].isalnum() else pattern, self.text, re.IGNORECASE)
        return [match.span() for match in found] if words else []

    def at(self, words: str) -> list[ReportFinding]:
        """The mentions, also denied ones, that overlap with some words."""
        spans = self.places(words)
        return [m for m in self.mentions if any(m.start < end and start < m.end for start, end in spans)]


def read(text: str) -> Reading:
    """Read a report."""
    unread: list[str] = []
    mentions = read_report(text, unread.append)  # appending gives None: no concept
    mentions, findings = ([_evened(f, text) for f in found] for found in (mentions, extract_findings(text)))
    return Reading(text, mentions, findings, {plain(clause) for clause in unread})


def _evened(finding: ReportFinding, text: str) -> ReportFinding:
    if not _UNEVEN.search(text, finding.start, finding.end):
        return finding
    return finding._replace(attributes=finding.attributes._replace(sides=frozenset()))


def plain(text: str) -> str:
    """The normalised words of a text."""
    return " ".join(word for word, _, _ in words_of(text))


def covered(finding: ReportFinding, others: Iterable[ReportFinding]) -> bool:
    """Whether akin findings of the other report cover a finding, with all its sides."""
    near = [other for other in others if may_be(finding, other)]
    sides = [other.attributes.sides for other in near if compares_sides(finding, other)]
    if not sides or not all(sides):
        return bool(near)
    return finding.attributes.sides <= frozenset().union(*sides)


def standing_for(mentions: Sequence[ReportFinding], findings: Sequence[ReportFinding]) -> list[int]:
    """Positions of the findings that some mentions belong to."""
    related = lexicon().related
    return [
        place
        for place, finding in enumerate(findings)
        if any(related(finding.concepts, m.concepts) and meets(finding, m) for m in mentions)
    ]


def akin(one: ReportFinding, other: ReportFinding) -> bool:
    """Whether two findings may be the same one in other words."""
    if lexicon().related(one.concepts, other.concepts):
        return True
    return not interchangeable_pairs().isdisjoint((a, b) for a in one.concepts for b in other.concepts)


def meets(one: ReportFinding, other: ReportFinding) -> bool:
    """Whether two findings can be on the same side: they share one, or one of them names none."""
    sides, others = one.attributes.sides, other.attributes.sides
    return not sides or not others or bool(sides & others) or not compares_sides(one, other)


def may_be(one: ReportFinding, other: ReportFinding) -> bool:
    """Whether two findings are akin and can be on the same side."""
    return akin(one, other) and meets(one, other)


# --- attributes


def stated_values(finding: ReportFinding, attribute: Attribute) -> tuple:
    """The parts of an attribute; empty ones are not stated."""
    told = finding.attributes
    return {
        "location": (told.sides, told.zones, told.sites, position(finding)),
        "severity": (told.severity,),
        "descriptor": (told.descriptors, finding.concepts),
        "measurement": (told.sizes_mm, told.above_carina_mm),
        "certainty": (told.uncertain,),
        "temporal": (told.temporal,),
    }[attribute]


def differs(one: ReportFinding, other: ReportFinding, attribute: Attribute) -> bool | None:
    """Whether two findings differ in an attribute; None if neither states it."""
    ours, theirs = stated_values(one, attribute), stated_values(other, attribute)
    if ours != theirs:
        return True
    return False if any(ours[:1] if attribute == "descriptor" else ours) else None


def contradictions(one: ReportFinding, other: ReportFinding) -> set[Attribute]:
    """The attributes, except certainty, that both findings state differently."""
    found: set[Attribute] = set() if meets(one, other) else {"location"}
    ours, theirs = one.attributes, other.attributes
    if ours.severity and theirs.severity and _DEGREES[ours.severity] != _DEGREES[theirs.severity]:
        found.add("severity")
    times = {ours.temporal, theirs.temporal}
    if len(times - {None}) == 2 and times not in map(set, rules()["attribute_errors"]["temporal"]["alike"]):
        found.add("temporal")
    sizes = ours.sizes_mm[:1] + theirs.sizes_mm[:1]
    heights = [h for h in (ours.above_carina_mm, theirs.above_carina_mm) if h is not None]
    if any(len(pair) == 2 and abs(pair[0] - pair[1]) > _SAME_SIZE_MM for pair in (sizes, heights)):
        found.add("measurement")
    forms = {group for group, _ in ours.descriptors} & {group for group, _ in theirs.descriptors}
    if {group for group, _ in ours.descriptors & theirs.descriptors} < forms:
        found.add("descriptor")
    if _elsewhere(one, other):
        found.add("location")
    return found


def _elsewhere(one: ReportFinding, other: ReportFinding) -> bool:
    if {position(one), position(other)} == {"good", "bad"}:
        return True
    ours, theirs = one.attributes, other.attributes
    levels = [{site for site in told.sites if site[-1].isdecimal()} for told in (ours, theirs)]
    if all(levels) and levels[0].isdisjoint(levels[1]):
        return True
    return compares_sides(one, other) and zone_gap(ours, theirs) > 1  # zones that touch are vague
