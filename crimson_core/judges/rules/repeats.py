"""The findings of a report, each once: an impression or a summary ("support devices") tells some of them again."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from crimson_core.judges.rules.attributes import ReportFinding, meet
from crimson_core.judges.rules.lexicon import Lexicon, interchangeable_pairs, lexicon

_ANY_DEVICE = "device"
_ANY_OPERATION = "postsurgical_change"
_IN_A_LOBE = ("part", "lobe")
_PLACE = attrgetter("start", "end")


def each_once(told: Sequence[ReportFinding], report: str) -> list[ReportFinding]:
    """The findings that a report tells, in the order in which they first stand in it, each once."""
    return _with_worse_side(_without_summaries(_without_repeats(told, lexicon()), report))


def _without_summaries(found: list[ReportFinding], report: str) -> list[ReportFinding]:
    """Without "support devices" and "lines and tubes" where the report names them one by one, and "postoperative change" so."""
    if any(f.concepts == (_ANY_OPERATION,) for f in found):
        distances = lexicon().distances
        told = any((f.concepts[0], _ANY_OPERATION) in distances and f.concepts != (_ANY_OPERATION,) for f in found)
        found = [f for f in found if not (told and f.concepts == (_ANY_OPERATION,) and not f.attributes.sides)]
    if all(f.concepts != (_ANY_DEVICE,) for f in found):
        return found
    concepts = lexicon().concepts
    named = any(concepts[f.concepts[0]].device and f.concepts != (_ANY_DEVICE,) for f in found)
    return [
        f
        for f in found
        if not (named and f.concepts == (_ANY_DEVICE,) and report[f.start : f.end].lower().endswith("s"))
    ]


def _with_worse_side(found: list[ReportFinding]) -> list[ReportFinding]:
    """With the side that is worse, where the degrees of a left and a right finding are neighbours and no error by themselves."""
    sides: dict[tuple[str, ...], dict[str, int]] = {}
    for place, finding in enumerate(found):
        if len(finding.attributes.sides) == 1 and finding.attributes.severity:
            sides.setdefault(finding.concepts, {})[next(iter(finding.attributes.sides))] = place
    for places in sides.values():
        degrees = {side: found[place].attributes.severity or 0 for side, place in places.items()}
        if len(degrees) == 2 and abs(degrees["left"] - degrees["right"]) == 1:
            worse = max(degrees, key=degrees.__getitem__)
            for place in places.values():
                found[place] = found[place]._replace(attributes=found[place].attributes._replace(dominant=worse))
    return found


def _without_repeats(found: Sequence[ReportFinding], words: Lexicon) -> list[ReportFinding]:
    """Each finding once. What is one does not depend on the order of the sentences, but for "the opacity" and the like."""
    if _all_apart(found, words):
        return sorted(found, key=_PLACE)
    kept: list[ReportFinding] = []
    places: dict[str, set[int]] = {}  # concept -> where in `kept` findings of it stand
    named = sorted((f for f in found if not f.taken_up), key=lambda f: _narrowest_first(f, words))
    for finding in [*named, *(f for f in found if f.taken_up)]:
        near = [places.keys() & words.near[concept] for concept in finding.concepts]
        candidates = sorted({place for concepts in near for concept in concepts for place in places[concept]})
        same = next((place for place in candidates if _same_finding(kept[place], finding, words)), None)
        if same is None and finding.taken_up:  # the last one before it that it can mean
            before = [p for p in candidates if kept[p].start < finding.start and _can_mean(finding, kept[p], words)]
            same = max(before, key=lambda p: kept[p].start, default=None)
        if same is None:
            same = len(kept)
            kept.append(finding)
        else:
            first, other = sorted((kept[same], finding), key=lambda f: f.start)
            told = first.attributes.with_those_of(other.attributes)
            unsure = next((f for f in (first, other) if f.appearance), None)
            if unsure and any(set(f.concepts) <= set(unsure.appearance) for f in (first, other)):
                # "cardiomegaly, perhaps a pericardial effusion", and in the impression "cardiomegaly"
                names, told = unsure.concepts, told._replace(uncertain=unsure.attributes.uncertain)
            else:
                names = _narrower(kept[same].concepts, finding.concepts, words)
                if first.concepts != other.concepts:
                    # of "Suspected abscess. Thick-walled cavity." the abscess is suspected
                    meant = first if first.concepts == names else other
                    told = told._replace(uncertain=meant.attributes.uncertain)
            kept[same] = first._replace(
                concepts=names,
                signs=(*first.signs, *other.signs, *(c for f in (first, other) for c in f.concepts if c not in names)),
                attributes=told,
                appearance=first.appearance + other.appearance,
                told_at=first.told_at + other.told_at,
            )
        for concept in kept[same].concepts:
            places.setdefault(concept, set()).add(same)
    return sorted(kept, key=_PLACE)


def _all_apart(found: Sequence[ReportFinding], words: Lexicon) -> bool:
    """Whether no two findings have concepts of which one could be the other."""
    seen: set[str] = set()
    for finding in found:
        for concept in finding.concepts:
            if not words.near[concept].isdisjoint(seen):
                return False
        seen.update(finding.concepts)
    return True


def _narrowest_first(finding: ReportFinding, words: Lexicon) -> tuple[Any, ...]:
    told = finding.attributes
    return (
        min(words.depths[concept] for concept in finding.concepts),
        sorted(finding.concepts),
        sorted(told.sides),
        sorted(told.zones),
        sorted(told.sites),
        told.severity or 0,
        str(told.temporal),
        told.sizes_mm,
    )


def _same_finding(earlier: ReportFinding, later: ReportFinding, words: Lexicon) -> bool:
    one, other = earlier.attributes, later.attributes
    if set(earlier.concepts) & set(later.concepts):
        if words.concepts[earlier.concepts[0]].device:
            return meet(one.sides, other.sides)
        return (
            meet(one.sides, other.sides, within=True) and meet(one.zones, other.zones) and meet(one.sites, other.sites)
        )
    if not words.related(earlier.diagnoses, later.diagnoses):
        return False
    if any(words.concepts[concept].apart for concept in (*earlier.diagnoses, *later.diagnoses)):
        return any(words.concepts[f.concepts[0]].vague for f in (earlier, later) if not f.appearance)
    # The impression names the disease ("pneumonia") that the findings describe ("airspace opacity"), at the same place or at none.
    if _names_the_disease(later, earlier, words) or _names_the_disease(earlier, later, words):
        return True
    if not one.sides or one.sides != other.sides:
        return False
    # "Opacity at the right base. Right pneumonia."
    pairs = ((a, b) for a in earlier.concepts for b in later.concepts)
    loose = not (one.zones and other.zones) and not interchangeable_pairs().isdisjoint(pairs)
    return loose or one.zones == other.zones or bool(one.zones & other.zones)


def lies_elsewhere(disease: ReportFinding, appearance: ReportFinding, words: Lexicon) -> bool:
    """Whether a disease never lies in the lobe of what it is said to be: "A mass in the left lower lobe. Likely goiter."."""
    in_a_lobe = _IN_A_LOBE in appearance.attributes.descriptors
    return in_a_lobe and any(not words.broader[concept].isdisjoint(words.not_in_lobes) for concept in disease.concepts)


def _names_the_disease(disease: ReportFinding, appearance: ReportFinding, words: Lexicon) -> bool:
    """Whether one finding says without a place of its own what another one is: "Right basal opacity. Pneumonia."."""
    told = disease.attributes
    if told.sides or told.zones or told.sites or not appearance.attributes.sides:
        return False
    if lies_elsewhere(disease, appearance, words):
        return False
    kind, vague = (words.concepts[finding.concepts[0]].vague for finding in (disease, appearance))
    narrower = any((a, b) in words.distances for a in disease.concepts for b in appearance.concepts)
    return narrower and not kind and (vague or told.uncertain)


def _can_mean(later: ReportFinding, earlier: ReportFinding, words: Lexicon) -> bool:
    """Whether a finding that takes up an earlier one names it again, by a looser name ("the opacity", "the nodules", "the tube")."""
    broader = any((a, b) in words.distances for a in earlier.concepts for b in later.concepts)
    told, place = later.attributes, earlier.attributes
    here = told.sides and told.sides == place.sides and told.zones <= place.zones
    return broader and bool(here or not (told.sides or told.zones) or not (place.sides or place.zones))


def _narrower(some: tuple[str, ...], others: tuple[str, ...], words: Lexicon) -> tuple[str, ...]:
    """Of two names of one finding the one that says more."""
    if set(some) & set(others):
        return some if len(some) <= len(others) else others
    return others if any((b, a) in words.distances for a in some for b in others) else some
