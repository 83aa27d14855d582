"""What is wrong with a match: the eight kinds of attribute error, graded by `rules.yaml`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from crimson_core.judges.rules.attributes import Attributes, ReportFinding, meet
from crimson_core.judges.rules.devices import position
from crimson_core.judges.rules.lexicon import lexicon, rules
from crimson_core.judges.rules.matching import (
    compares_sides,
    concept_steps,
    interchangeable,
    is_injury,
    other_diagnosis,
    zone_gap,
)
from crimson_core.protocol.evaluation import ErrorType

_SEVERITY_WORDS = {1: "trace", 2: "small or mild", 3: "moderate", 4: "large or severe", 5: "massive"}


class Discrepancy(NamedTuple):
    """One attribute error on a match: its type, its grade, an explanation in plain words, and the rule of `rules.yaml`."""

    type: ErrorType
    grade: str
    explanation: str
    rule: Mapping[str, Any]


def compare(
    reference: ReportFinding, prediction: ReportFinding, urgent: bool, in_parts: bool = False
) -> list[Discrepancy]:
    """The attribute errors of one match, but for those of location.

    Args:
        reference: One finding.
        prediction: The other one.
        urgent: Whether the reference finding is.
        in_parts: Whether one report names all that the finding of the other one is made of.
    """
    graded = rules()["attribute_errors"]
    return [
        *_severity(reference, prediction, graded["severity"]),
        *_measurement(reference, prediction, graded["measurement"]),
        *_descriptor(reference, prediction, graded["descriptor"]),
        *_certainty(reference, prediction, graded["certainty"], urgent),
        *(() if in_parts else _specificity(reference, prediction, graded["specificity"])),
        *_temporal(reference, prediction, graded["temporal"]),
    ]


def contradictions(reference: ReportFinding, prediction: ReportFinding) -> list[Discrepancy]:
    """Where a finding and a sign of it are said to change in different directions."""
    rule = rules()["attribute_errors"]["temporal"]
    return [found for found in _temporal(reference, prediction, rule) if found.rule is rule["contradicted"]]


def denied_signs(
    reference: ReportFinding, prediction: ReportFinding, denied: tuple[Sequence[ReportFinding], Sequence[ReportFinding]]
) -> Iterator[Discrepancy]:
    """Signs that one report tells with a finding and the other one denies: "emphysema with bullae", "Emphysema. No bullae."."""
    words = lexicon()
    rule = rules()["attribute_errors"]["descriptor"]["denied_sign"]
    ours, theirs = denied
    for finding, own, others, who in ((reference, ours, theirs, "candidate"), (prediction, theirs, ours, "reference")):
        for sign in dict.fromkeys(finding.signs):
            # to "pneumonia" and "no consolidation" the name of the disease says enough
            named = words.concepts[sign].vague and any((c, sign) in words.distances for c in finding.concepts)
            # what a report tells here and denies there, the other one may deny as well
            if (
                not named
                and _has(sign, [f for f in others if meet(f.attributes.sides, finding.attributes.sides)])
                and not _has(sign, own)
            ):
                yield _error("descriptor", rule, f"The {who} denies {words.concepts[sign].name}")


def _has(concept: str, findings: Sequence[ReportFinding]) -> bool:
    return any(concept in finding.concepts for finding in findings)


def compare_location(references: Sequence[ReportFinding], predictions: Sequence[ReportFinding]) -> list[Discrepancy]:
    """The location errors of a group of findings that match each other: mostly one of each.

    Their places count together, so that a left and a right effusion are no error against a bilateral one.
    """
    rule = rules()["attribute_errors"]["location"]
    return [*_device_tip(references[0], predictions[0], rule), *_place(references, predictions, rule)]


def _error(kind: ErrorType, rule: dict[str, str], what: str) -> Discrepancy:
    return Discrepancy(kind, rule["grade"], f"{what}: {rule['why']}.", rule)


def _device_tip(reference: ReportFinding, prediction: ReportFinding, rule: dict[str, Any]) -> Iterator[Discrepancy]:
    one, other = position(reference), position(prediction)
    if "bad" in (one, other) and one != other:
        what = f"The device is out of place in the {'reference' if one == 'bad' else 'candidate'} only"
        yield _error("location", rule["device_position"], what)
    elif lexicon().concepts[reference.concepts[0]].device:
        ours, theirs = (_sites(finding.attributes) for finding in (reference, prediction))
        near = lexicon().near_sites
        alike = all(map(_is_level, ours)) == all(map(_is_level, theirs))  # a vertebra tells nothing of a vessel
        if ours and theirs and alike and all(theirs.isdisjoint(near.get(site, {site})) for site in ours):
            what = f"The reference says {_listed(ours)}, the candidate {_listed(theirs)}"
            yield _error("location", rule["other_misplacement" if one == "bad" else "device_tip"], what)


def _sites(told: Attributes) -> frozenset[str]:
    """Where the tip of a device is; what ends above the carina ends in the trachea."""
    return told.sites or (frozenset({"trachea"}) if (told.above_carina_mm or 0) > 0 else frozenset())


def _place(
    references: Sequence[ReportFinding], predictions: Sequence[ReportFinding], rule: dict[str, Any]
) -> Iterator[Discrepancy]:
    one, other = _pooled(references), _pooled(predictions)
    if compares_sides(references[0], predictions[0]):
        if wrong := _wrong_side(one, other):
            yield _error("location", rule[wrong], _SIDE_WORDS[wrong](one, other))
        if gap := zone_gap(one, other):
            what = f"The reference says {_listed(one.zones)} zone, the candidate {_listed(other.zones)}"
            yield _error("location", rule["far_zone" if gap > 1 else "near_zone"], what)
    if one.sites and other.sites and not lexicon().concepts[references[0].concepts[0]].device:
        for named in ("other_compartment", "other_station", "other_organ", "other_nodes"):
            ours, theirs = (place.sites.intersection(rule[named]["sites"]) for place in (one, other))
            if ours and theirs and ours.isdisjoint(theirs):
                what = f"The reference says {_listed(ours)}, the candidate {_listed(theirs)}"
                yield _error("location", rule[named], what)
        yield from _level(one.sites, other.sites, rule)


def _wrong_side(one: Attributes, other: Attributes) -> str | None:
    """What is wrong with the sides, as a key of `location` in `rules.yaml`."""
    if one.sides and not one.sides & other.sides:
        return "wrong_side" if other.sides else "side_left_out"
    if one.sides and one.sides != other.sides:
        return "one_side_of_two"
    if one.places and other.places and one.places.isdisjoint(other.places) and one.zones & other.zones:
        return "crossed"
    if one.dominant and other.dominant and one.dominant != other.dominant:
        return "other_side_worse"
    return None


def _sides(one: Attributes, other: Attributes) -> str:
    return f"The reference says {_listed(one.sides)}, the candidate {_listed(other.sides) or 'names no side'}"


_SIDE_WORDS: Mapping[str, Callable[[Attributes, Attributes], str]] = {
    "wrong_side": _sides,
    "side_left_out": _sides,
    "one_side_of_two": _sides,
    "crossed": lambda *_: "The zones are told of the other side each",
    "other_side_worse": lambda one, other: (
        f"The reference says that the {one.dominant} side is worse, the candidate the {other.dominant}"
    ),
}


def _pooled(findings: Sequence[ReportFinding]) -> Attributes:
    """The places of some findings together; one without a zone or a site may be at any, and a shift only tells a direction."""
    placed = [finding for finding in findings if not lexicon().concepts[finding.concepts[0]].directed]
    told = [finding.attributes for finding in placed or findings]
    if len(told) == 1:
        return told[0]

    def together(place: str) -> frozenset[Any]:
        return frozenset().union(*(getattr(t, place) for t in told))

    return Attributes(
        sides=together("sides"),
        places=together("places") if all(t.places for t in told) else frozenset(),
        dominant=next((t.dominant for t in told if t.dominant), None),
        zones=together("zones") if all(t.zones for t in told) else frozenset(),
        sites=together("sites") if all(t.sites for t in told) else frozenset(),
    )


def _level(one: frozenset[str], other: frozenset[str], rule: dict[str, Any]) -> Iterator[Discrepancy]:
    """Ribs and vertebrae of another number."""
    ours, theirs = sorted(filter(_is_level, one)), sorted(filter(_is_level, other))
    if not ours or not theirs or set(ours) & set(theirs):
        return
    near = any(_kind(a) == _kind(b) and abs(_number(a) - _number(b)) <= 1 for a in ours for b in theirs)
    what = f"The reference says {' and '.join(ours)}, the candidate {' and '.join(theirs)}"
    yield _error("location", rule["near_level" if near else "far_level"], what)


def _is_level(site: str) -> bool:
    return site[-1].isdecimal()


def _kind(level: str) -> str:
    return level.rstrip("0123456789")


def _number(level: str) -> int:
    return int(level[len(_kind(level)) :])


def _severity(reference: ReportFinding, prediction: ReportFinding, rule: dict[str, Any]) -> Iterator[Discrepancy]:
    one, other = reference.attributes.severity, prediction.attributes.severity
    if one is None or other is None or one == other:
        return
    grade = "significant" if abs(one - other) >= rule["steps_for_significant"] else "negligible"
    what = f"The reference says {_SEVERITY_WORDS[one]}, the candidate {_SEVERITY_WORDS[other]}"
    yield _error("severity", rule[grade], what)


def _measurement(reference: ReportFinding, prediction: ReportFinding, rule: dict[str, Any]) -> Iterator[Discrepancy]:
    yield from _distance(reference, prediction, rule)
    if not reference.attributes.sizes_mm:
        return
    size = reference.attributes.sizes_mm[0]
    if not prediction.attributes.sizes_mm:
        yield _error("measurement", rule["left_out"], f"The reference measures {size:g} mm, the candidate nothing")
        return
    other = prediction.attributes.sizes_mm[0]
    if size == other:
        return
    what = f"The reference measures {size:g} mm, the candidate {other:g} mm"
    focal = any((concept, "nodule") in lexicon().distances for concept in reference.concepts)
    if focal and (size >= rule["mass_from_mm"]) != (other >= rule["mass_from_mm"]):
        yield _error("measurement", rule["reclassified"], what)
        return
    if not focal:
        margin = max(rule["other_margin_mm"], size * rule["other_margin_share"])
    elif size >= rule["mass_from_mm"]:
        margin = size * rule["mass_margin_share"]
    else:
        margin = rule["small_nodule_margin_mm" if size < rule["small_nodule_below_mm"] else "nodule_margin_mm"]
    yield _error("measurement", rule["significant" if abs(size - other) > margin else "negligible"], what)


def _distance(reference: ReportFinding, prediction: ReportFinding, rule: dict[str, Any]) -> Iterator[Discrepancy]:
    one, other = reference.attributes.above_carina_mm, prediction.attributes.above_carina_mm
    if one is not None and other is not None and abs(one - other) > rule["device"]["margin_mm"]:
        what = f"The reference puts the tip {one:g} mm above the carina, the candidate {other:g} mm"
        low, high = lexicon().concepts[reference.concepts[0]].tip_above_carina_mm or (min(one, other), max(one, other))
        opposite = min(one, other) < low and max(one, other) > high
        yield _error("measurement", rule["device_opposite" if opposite else "device"], what)


def _descriptor(reference: ReportFinding, prediction: ReportFinding, rule: dict[str, Any]) -> Iterator[Discrepancy]:
    one, other = _by_group(reference), _by_group(prediction)
    for group in sorted(one.keys() & other.keys()):
        if not one[group] & other[group]:
            what = f"The reference says {_listed(one[group])}, the candidate {_listed(other[group])}"
            yield _error("descriptor", rule.get(group, rule["different"]), what)


def _by_group(finding: ReportFinding) -> dict[str, frozenset[str]]:
    groups: dict[str, frozenset[str]] = {}
    for group, value in finding.attributes.descriptors:
        groups[group] = groups.get(group, frozenset()) | {value}
    return groups


def _certainty(
    reference: ReportFinding, prediction: ReportFinding, rule: dict[str, Any], urgent: bool
) -> Iterator[Discrepancy]:
    one, other = reference.attributes.uncertain, prediction.attributes.uncertain
    if one != other:
        what = f"The reference is {'unsure' if one else 'definite'}, the candidate {'unsure' if other else 'definite'}"
        inferred = (prediction if one else reference).signs
        device = lexicon().concepts[reference.concepts[0]].device
        grade = "other" if not urgent else "device" if device else "inferred" if inferred else "urgent"
        yield _error("certainty", rule[grade], what)


def _specificity(reference: ReportFinding, prediction: ReportFinding, rule: dict[str, Any]) -> Iterator[Discrepancy]:
    open_in_reference, left_open = len(reference.diagnoses), len(prediction.diagnoses)
    if left_open - open_in_reference >= rule["too_many_alternatives"]:
        what = f"The candidate leaves open which of {left_open} it is, the reference {open_in_reference}"
        yield _error("unspecific", rule["alternatives"], what)
        return
    if _sign_of_each_other(reference, prediction):
        return
    if other_diagnosis(reference, prediction):
        what = f"The reference says {_names(reference)}, the candidate {_names(prediction)}"
        yield _error("overinterpretation", rule["other_diagnosis"], what)
        return
    steps = concept_steps(reference, prediction)
    if not steps or _told_by_size(reference, prediction, rule["by_size"]):
        return
    grade = "negligible" if interchangeable(reference, prediction) else "significant"
    what = f"The reference says {_names(reference)}, the candidate {_names(prediction)}"
    yield _error("overinterpretation" if steps > 0 else "unspecific", rule[grade], what)


def _told_by_size(reference: ReportFinding, prediction: ReportFinding, pairs: Sequence[Sequence[str]]) -> bool:
    """Whether both are measured and only their size tells one name from the other: a "lesion of 4 cm" is a mass."""
    named = {*reference.concepts, *prediction.concepts}
    return bool(reference.attributes.sizes_mm and prediction.attributes.sizes_mm) and any(named == {*p} for p in pairs)


def _sign_of_each_other(one: ReportFinding, other: ReportFinding) -> bool:
    """Whether both tell a disease with its sign: "fibrosis with honeycombing", "honeycombing from fibrosis"."""
    return (
        one.concepts != other.concepts
        and set(one.concepts) <= set(other.signs)
        and set(other.concepts) <= set(one.signs)
    )


def _temporal(reference: ReportFinding, prediction: ReportFinding, rule: dict[str, Any]) -> Iterator[Discrepancy]:
    one, other = reference.attributes.temporal, prediction.attributes.temporal
    if one == other:
        return
    what = f"The reference says {one or 'nothing on change'}, the candidate {other or 'nothing on change'}"
    if one and other:
        kind = "same_direction" if {one, other} in map(set, rule["alike"]) else "contradicted"
    elif one:
        kind = "acute_left_out" if one in rule["acute"] else "left_out"
    else:
        kind = "acute_made_up" if other in rule["acute"] else "made_up"
        if other in rules()["matching"]["other_age"]["past"] and is_injury(reference):
            kind = "old_made_up"
    if lexicon().concepts[reference.concepts[0]].device:
        kind = "device"
    yield _error("temporal", rule[kind], what)


def _listed(values: frozenset[str]) -> str:
    return "bilateral" if values == {"left", "right"} else " and ".join(sorted(values)).replace("_", " ")


def _names(finding: ReportFinding) -> str:
    return " or ".join(lexicon().concepts[key].name for key in finding.concepts)
