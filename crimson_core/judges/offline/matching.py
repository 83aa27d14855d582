"""Which findings of two reports are the same observation."""

from functools import cache

from crimson_core.judges.offline.extraction import ReportFinding
from crimson_core.judges.offline.lexicon import lexicon, rules

_ZONE_ORDER = {"upper": 0, "mid": 1, "lower": 2}


def match_findings(references: list[ReportFinding], predictions: list[ReportFinding]) -> list[tuple[int, int]]:
    """Positions (reference, prediction) of the findings that match, in the order of the references.

    Best pairs first, each finding once. Then what is left may join a finding that has a match, where one report splits
    what the other one joins ("bilateral effusions" against a left and a right one).
    """
    scored = [
        (similarity(reference, prediction), -r, -p)
        for r, reference in enumerate(references)
        for p, prediction in enumerate(predictions)
        if lexicon().related(reference.concepts, prediction.concepts) or interchangeable(reference, prediction)
    ]
    candidates = [(-r, -p) for score, r, p in sorted(scored, reverse=True) if score >= rules()["matching"]["threshold"]]
    matches: list[tuple[int, int]] = []
    free_refs, free_preds = set(range(len(references))), set(range(len(predictions)))
    for r, p in candidates:
        if r in free_refs and p in free_preds:
            matches.append((r, p))
            free_refs.discard(r)
            free_preds.discard(p)
    for r, p in candidates:
        if (r in free_refs or p in free_preds) and _is_part(references[r], predictions[p]):
            matches.append((r, p))
            free_refs.discard(r)
            free_preds.discard(p)
    return sorted(matches)


def similarity(reference: ReportFinding, prediction: ReportFinding) -> float:
    """How much two findings look like one observation: 1 for the same concept at the same place, 0 for unrelated ones."""
    weights = rules()["matching"]
    steps = concept_steps(reference, prediction)
    if steps is None:
        return 0.0
    score = {0: weights["same_concept"], 1: weights["one_step_apart"]}.get(abs(steps), weights["two_steps_apart"])
    one, other = reference.attributes, prediction.attributes
    if compares_sides(reference, prediction):
        if one.sides and other.sides and not one.sides & other.sides:
            score -= weights["wrong_side"]
        if zone_gap(one.zones, other.zones) > 1:
            score -= weights["far_zone"]
    return score - weights["severity_step"] * abs((one.severity or 2) - (other.severity or 2))


def concept_steps(reference: ReportFinding, prediction: ReportFinding) -> int | None:
    """How many steps narrower (positive) or broader (negative) the prediction's concept is; None if unrelated.

    Of several possible concepts those that are closest count.
    """
    distances = lexicon().distances
    steps = []
    for r in reference.concepts:
        for p in prediction.concepts:
            if (p, r) in distances:
                steps.append(distances[p, r])
            elif (r, p) in distances:
                steps.append(-distances[r, p])
            elif (r, p) in _interchangeable_pairs():
                steps.append(1)
    return min(steps, key=abs, default=None)


def interchangeable(reference: ReportFinding, prediction: ReportFinding) -> bool:
    """Whether radiologists use a concept of one finding for one of the other."""
    pairs = _interchangeable_pairs()
    return any((r, p) in pairs for r in reference.concepts for p in prediction.concepts)


@cache
def _interchangeable_pairs() -> frozenset[tuple[str, str]]:
    pairs = rules()["attribute_errors"]["specificity"]["interchangeable"]
    return frozenset(order for one, other in pairs for order in ((one, other), (other, one)))


def compares_sides(reference: ReportFinding, prediction: ReportFinding) -> bool:
    """Whether left, right and zones mean something for both findings."""
    concepts = lexicon().concepts
    return all(concepts[key].sided for key in (reference.concepts[0], prediction.concepts[0]))


def zone_gap(one: frozenset[str], other: frozenset[str]) -> int:
    """Zones between two sets of zones: 0 if they meet or one is unknown or diffuse, 1 if they touch, 2 if not."""
    if not one or not other or one & other or "diffuse" in one | other:
        return 0
    return min(abs(_ZONE_ORDER[a] - _ZONE_ORDER[b]) for a in one for b in other)


def _is_part(reference: ReportFinding, prediction: ReportFinding) -> bool:
    """Whether one of two findings of one concept is a part of the other: a side of a bilateral one, or the same place."""
    if concept_steps(reference, prediction) != 0:
        return False
    if not compares_sides(reference, prediction):
        return True
    one, other = reference.attributes.sides, prediction.attributes.sides
    return one <= other or other <= one
