"""A report's text -> its abnormal findings, each with its attributes and its place in the text."""

from dataclasses import dataclass, replace

from crimson_core.judges.offline.clauses import clauses
from crimson_core.judges.offline.lexicon import Lexicon, lexicon
from crimson_core.judges.offline.mentions import Attributes, mentions
from crimson_core.judges.offline.sentences import sentences


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


def extract_findings(report: str) -> list[ReportFinding]:
    """The abnormal findings of a report, in the order in which they first stand in it.

    A finding that the report tells twice, as findings and impression do, comes once.
    """
    words = lexicon()
    found: list[ReportFinding] = []
    seen: set[str] = set()
    for start, end in sentences(report, words):
        sentence = report[start:end]
        if sentence in seen:  # what a looping generator repeats says nothing new
            continue
        seen.add(sentence)
        for clause in clauses(sentence, words):
            for mention in mentions(clause, words):
                first, last = clause.spans[mention.first][0], clause.spans[mention.last - 1][1]
                found.append(ReportFinding(mention.concepts, mention.attributes, start + first, start + last))
    return _without_repeats(found, words)


def _without_repeats(found: list[ReportFinding], words: Lexicon) -> list[ReportFinding]:
    kept: list[ReportFinding] = []
    places: dict[str, set[int]] = {}  # concept -> where in `kept` findings stand that may be the same
    for finding in found:
        candidates = sorted({place for concept in finding.concepts for place in places.get(concept, ())})
        same = next((place for place in candidates if _same_finding(kept[place], finding, words)), None)
        if same is None:
            same = len(kept)
            kept.append(finding)
        else:
            earlier = kept[same]
            kept[same] = replace(
                earlier,
                concepts=_narrower(earlier.concepts, finding.concepts, words),
                attributes=earlier.attributes.with_those_of(finding.attributes),
            )
        for near in {near for concept in kept[same].concepts for near in words.near[concept]}:
            places.setdefault(near, set()).add(same)
    return kept


def _same_finding(earlier: ReportFinding, later: ReportFinding, words: Lexicon) -> bool:
    one, other = earlier.attributes, later.attributes
    if set(earlier.concepts) & set(later.concepts):
        sides = not one.sides or not other.sides or one.sides <= other.sides or other.sides <= one.sides
        zones = not one.zones or not other.zones or bool(one.zones & other.zones)
        return sides and zones
    if not words.related(earlier.concepts, later.concepts):
        return False
    if words.concepts[earlier.concepts[0]].device:  # "a right PICC … the catheter ends in the SVC"
        return not one.sides or not other.sides
    # The impression names the disease ("pneumonia") that the findings describe ("airspace opacity"), at the same place.
    return bool(one.sides) and one.sides == other.sides and (one.zones == other.zones or bool(one.zones & other.zones))


def _narrower(some: tuple[str, ...], others: tuple[str, ...], words: Lexicon) -> tuple[str, ...]:
    """Of two names of one finding the one that says more."""
    if set(some) & set(others):
        return some if len(some) <= len(others) else others
    return others if any((b, a) in words.distances for a in some for b in others) else some
