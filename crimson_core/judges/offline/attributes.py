"""What is wrong with a match: the eight kinds of attribute error, graded by `rules.yaml`."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from crimson_core.evaluation import ErrorType
from crimson_core.judges.offline.extraction import ReportFinding
from crimson_core.judges.offline.lexicon import lexicon, rules
from crimson_core.judges.offline.matching import compares_sides, concept_steps, interchangeable, zone_gap

_SEVERITY_WORDS = {1: "trace", 2: "small or mild", 3: "moderate", 4: "large or severe", 5: "massive"}


class Discrepancy(NamedTuple):
    """One attribute error on a match: its type, its grade and an explanation in plain words."""

    type: ErrorType
    grade: str
    explanation: str


def compare(
    reference: ReportFinding, prediction: ReportFinding, joined_sides: frozenset[str], urgent: bool
) -> list[Discrepancy]:
    """The attribute errors of one match.

    Args:
        reference: The reference finding.
        prediction: The predicted finding.
        joined_sides: Sides of all predicted findings that match the reference finding, so that a left and a right effusion
            together are no location error against a bilateral one.
        urgent: Whether the reference finding is urgent.
    """
    graded = rules()["attribute_errors"]
    return [
        *_location(reference, prediction, joined_sides, graded["location"]),
        *_severity(reference, prediction, graded["severity"]),
        *_measurement(reference, prediction, graded["measurement"]),
        *_descriptor(reference, prediction, graded["descriptor"]),
        *_certainty(reference, prediction, graded["certainty"], urgent),
        *_specificity(reference, prediction, graded["specificity"]),
        *_temporal(reference, prediction, graded["temporal"]),
    ]


def _error(kind: ErrorType, rule: dict[str, str], what: str) -> Discrepancy:
    return Discrepancy(kind, rule["grade"], f"{what}: {rule['why']}.")


def _location(
    reference: ReportFinding, prediction: ReportFinding, joined_sides: frozenset[str], rule: dict[str, Any]
) -> Iterator[Discrepancy]:
    one, other = reference.attributes, prediction.attributes
    if one.misplaced != other.misplaced:
        what = f"The device is out of place in the {'reference' if one.misplaced else 'candidate'} only"
        yield _error("location", rule["device_position"], what)
    if not compares_sides(reference, prediction):
        return
    if one.sides and not joined_sides:
        yield _error(
            "location", rule["side_left_out"], f"The reference says {_listed(one.sides)}, the candidate names no side"
        )
    elif one.sides and not one.sides & other.sides:
        what = f"The reference says {_listed(one.sides)}, the candidate {_listed(other.sides)}"
        yield _error("location", rule["wrong_side"], what)
    elif one.sides and one.sides != joined_sides:
        what = f"The reference says {_listed(one.sides)}, the candidate {_listed(joined_sides)}"
        yield _error("location", rule["one_side_of_two"], what)
    gap = zone_gap(one.zones, other.zones)
    if gap:
        what = f"The reference says {_listed(one.zones)} zone, the candidate {_listed(other.zones)}"
        yield _error("location", rule["far_zone" if gap > 1 else "near_zone"], what)


def _severity(reference: ReportFinding, prediction: ReportFinding, rule: dict[str, Any]) -> Iterator[Discrepancy]:
    one, other = reference.attributes.severity, prediction.attributes.severity
    if one is None or other is None or one == other:
        return
    decisive = max(one, other) >= rule["decisive_rank"]
    grade = "significant" if decisive or abs(one - other) >= rule["steps_for_significant"] else "negligible"
    what = f"The reference says {_SEVERITY_WORDS[one]}, the candidate {_SEVERITY_WORDS[other]}"
    yield _error("severity", rule[grade], what)


def _measurement(reference: ReportFinding, prediction: ReportFinding, rule: dict[str, Any]) -> Iterator[Discrepancy]:
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
    if (size >= rule["mass_from_mm"]) != (other >= rule["mass_from_mm"]):
        yield _error("measurement", rule["reclassified"], what)
        return
    if size >= rule["mass_from_mm"]:
        margin = size * rule["mass_margin_share"]
    else:
        margin = rule["small_nodule_margin_mm" if size < rule["small_nodule_below_mm"] else "nodule_margin_mm"]
    yield _error("measurement", rule["significant" if abs(size - other) > margin else "negligible"], what)


def _descriptor(reference: ReportFinding, prediction: ReportFinding, rule: dict[str, Any]) -> Iterator[Discrepancy]:
    one, other = dict(reference.attributes.descriptors), dict(prediction.attributes.descriptors)
    for group in sorted(one.keys() & other.keys()):
        if one[group] != other[group]:
            what = f"The reference says {_words(one[group])}, the candidate {_words(other[group])}"
            yield _error("descriptor", rule.get(group, rule["different"]), what)


def _certainty(
    reference: ReportFinding, prediction: ReportFinding, rule: dict[str, Any], urgent: bool
) -> Iterator[Discrepancy]:
    one, other = reference.attributes.uncertain, prediction.attributes.uncertain
    if one != other:
        what = f"The reference is {'unsure' if one else 'definite'}, the candidate {'unsure' if other else 'definite'}"
        yield _error("certainty", rule["urgent" if urgent else "other"], what)


def _specificity(reference: ReportFinding, prediction: ReportFinding, rule: dict[str, Any]) -> Iterator[Discrepancy]:
    steps = concept_steps(reference, prediction)
    if not steps:
        return
    grade = "negligible" if interchangeable(reference, prediction) else "significant"
    what = f"The reference says {_names(reference)}, the candidate {_names(prediction)}"
    yield _error("overinterpretation" if steps > 0 else "unspecific", rule[grade], what)


def _temporal(reference: ReportFinding, prediction: ReportFinding, rule: dict[str, Any]) -> Iterator[Discrepancy]:
    one, other = reference.attributes.temporal, prediction.attributes.temporal
    if one != other:
        grade = "significant" if one in rule["acute"] or other in rule["acute"] else "negligible"
        what = f"The reference says {one or 'nothing on change'}, the candidate {other or 'nothing on change'}"
        yield _error("temporal", rule[grade], what)


def _listed(values: frozenset[str]) -> str:
    return "bilateral" if values == {"left", "right"} else " and ".join(sorted(values))


def _words(value: str) -> str:
    return value.replace("_", " ")


def _names(finding: ReportFinding) -> str:
    return " or ".join(lexicon().concepts[key].name for key in finding.concepts)
