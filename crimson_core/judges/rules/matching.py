"""Which findings of two reports are the same observation."""

from collections.abc import Sequence
from typing import Any

from crimson_core.judges.rules.assignment import best_assignment
from crimson_core.judges.rules.attributes import Attributes, ReportFinding, meet
from crimson_core.judges.rules.devices import position
from crimson_core.judges.rules.lexicon import extents, interchangeable_pairs, lexicon, places, rules

_DETAILS = ("sides", "zones", "sites", "sizes_mm", "temporal", "uncertain")
_ZONE_ORDER = {"upper": 0, "mid": 1, "lower": 2}


def match_findings(
    references: Sequence[ReportFinding],
    predictions: Sequence[ReportFinding],
    denied: tuple[Sequence[ReportFinding], Sequence[ReportFinding]] = ((), ()),
) -> list[tuple[int, int]]:
    """Positions (reference, prediction) of the findings that match, in the order of the references.

    First each finding at most once, so that the sum of similarities is the greatest. Then what is left may join a finding
    that has a match, where one report splits what the other one joins ("bilateral effusions" against a left and a right
    one), or names its sign beside it. A sign that the other report denies is none: `denied` is what the reference and the
    candidate say to be absent.
    """
    if not references or not predictions:
        return []
    threshold = rules()["matching"]["threshold"]
    scores = {}
    for r, reference in enumerate(references):
        for p, prediction in enumerate(predictions):
            score = similarity(reference, prediction)
            if score >= threshold:
                scores[r, p] = score
    parts = in_parts(references, predictions)
    scores |= dict.fromkeys(parts, rules()["matching"]["interchangeable"])
    matches = _assign(scores)
    matches += _explained_by_one(references, predictions, matches)
    matched_refs, matched_preds = {r for r, _ in matches}, {p for _, p in matches}
    signs = {
        (r, p)
        for r, reference in enumerate(references)
        for p, prediction in enumerate(predictions)
        if (r in matched_refs and p not in matched_preds and _goes_with(prediction, reference, denied[0]))
        or (p in matched_preds and r not in matched_refs and _goes_with(reference, prediction, denied[1]))
    }
    scores |= {pair: threshold for pair in signs if pair not in scores}
    parts |= signs
    joined = [
        (r, p)
        for r, p in scores
        if (r in matched_refs) != (p in matched_preds) and ((r, p) in parts or _is_part(references[r], predictions[p]))
    ]
    for r, p in sorted(joined, key=lambda pair: -scores[pair]):
        if r not in matched_refs or p not in matched_preds:  # what is left joins one finding only
            matches.append((r, p))
            matched_refs.add(r)
            matched_preds.add(p)
    return sorted(matches)


def in_parts(references: Sequence[ReportFinding], predictions: Sequence[ReportFinding]) -> set[tuple[int, int]]:
    """Positions (reference, prediction) of a finding in one report and of what it is made of in the other, where all is there.

    A hydropneumothorax is a pneumothorax and an effusion on one side.
    """
    found: set[tuple[int, int]] = set()
    concepts = lexicon().concepts
    for wholes, others, turned in ((references, predictions, False), (predictions, references, True)):
        for w, whole in enumerate(wholes):
            names = concepts[whole.concepts[0]].parts
            if not names:
                continue
            places = [next((o for o, other in enumerate(others) if _at(other, name, whole)), None) for name in names]
            if None not in places:
                found |= {(o, w) if turned else (w, o) for o in places if o is not None}
    return found


def _at(finding: ReportFinding, concept: str, whole: ReportFinding) -> bool:
    named = all(told == concept or (told, concept) in interchangeable_pairs() for told in finding.concepts)
    return named and _at_one_side(finding, whole)


def _at_one_side(finding: ReportFinding, other: ReportFinding) -> bool:
    """Whether two findings can be at one side."""
    concepts = lexicon().concepts
    if concepts[finding.concepts[0]].directed != concepts[other.concepts[0]].directed:
        return True  # of a "left tension pneumothorax with shift to the right" each side means something else
    return meet(finding.attributes.sides, other.attributes.sides)


def is_sign(finding: ReportFinding, explained: ReportFinding) -> bool:
    """Whether one report lists apart what the other one names as the sign of a finding: "edema with Kerley lines"."""
    known = lexicon().signs_of(explained.concepts)
    told = set(explained.signs).difference(explained.concepts)  # "interlobar fluid (pseudotumor)" names itself
    if not told and not known:
        return False
    pairs = interchangeable_pairs()
    signs = known | told
    named = all(c in signs or any((c, sign) in pairs for sign in told) for c in finding.concepts)
    return named and _at_one_side(finding, explained) and not zone_gap(finding.attributes, explained.attributes)


def _is_denied(finding: ReportFinding, denied: ReportFinding) -> bool:
    """Whether a denial holds for a finding, by its own name or a broader one: "heart not enlarged" denies each chamber."""
    distances = lexicon().distances
    return all(any((one, other) in distances for other in denied.concepts) for one in finding.concepts)


def _goes_with(finding: ReportFinding, whole: ReportFinding, denied: Sequence[ReportFinding]) -> bool:
    """Whether a finding is a sign of another one, or a component of it that is in place; not if it is among what is `denied`."""
    goes = is_sign(finding, whole) or (
        _belongs_to(finding, whole) and "bad" not in (position(finding), position(whole))
    )
    if not goes or lexicon().concepts[finding.concepts[0]].vague:  # beside "the lungs are clear" a disease may show
        return goes
    return not any(_is_denied(finding, other) and _at_one_side(finding, other) for other in denied)


def _assign(scores: dict[tuple[int, int], float]) -> list[tuple[int, int]]:
    """The one-to-one assignment with the greatest sum."""
    rows, columns = sorted({r for r, _ in scores}), sorted({p for _, p in scores})
    if len(rows) == len(columns) == len(scores):  # nothing competes
        return list(scores)
    pairs = best_assignment([[scores.get((r, p), 0.0) for p in columns] for r in rows])
    return [(rows[i], columns[j]) for i, j in pairs if (rows[i], columns[j]) in scores]


def similarity(reference: ReportFinding, prediction: ReportFinding) -> float:
    """How much two findings look like one observation: 1 for the same concept at the same place, 0 for unrelated ones."""
    weights = rules()["matching"]
    steps = concept_steps(reference, prediction)
    if steps is None:
        return 0.0
    score = weights["concept_steps"].get(abs(steps), weights["far_concept"])
    if steps and interchangeable(reference, prediction):
        score = max(score, weights["interchangeable"])
    if (
        steps
        and _is_named_harmless(reference) != _is_named_harmless(prediction)
        and not interchangeable(reference, prediction)
    ):
        return 0.0  # "nipple shadow" against "nodule"
    if {position(reference), position(prediction)} == {"good", "bad"}:
        score -= weights["other_position"]
    if other_diagnosis(reference, prediction):
        if _harmless(reference) != _harmless(prediction):
            return 0.0  # a nipple is no cancer, and a match would hide the false alarm
        score -= weights["other_diagnosis"]
    if _of_other_age(reference, prediction, weights["other_age"]):
        score -= weights["other_age"]["loses"]
    one, other = reference.attributes, prediction.attributes
    if compares_sides(reference, prediction):
        if one.sides and other.sides and not one.sides & other.sides:
            score -= weights["wrong_side"]
        elif one.sides != other.sides and one.sides and other.sides:
            score -= weights["one_side_of_two"]
        score -= weights["zone_gap"][zone_gap(one, other)]
    if one.sites and other.sites and not one.sites & other.sites:
        score -= weights["other_site"]
    differing = int(reference.concepts != prediction.concepts)
    if one != other:
        differing += sum(getattr(one, name) != getattr(other, name) for name in _DETAILS)
    score -= weights["detail"] * differing
    return score - weights["severity_step"] * abs((one.severity or 2) - (other.severity or 2))


def _is_named_harmless(finding: ReportFinding) -> bool:
    return any(lexicon().concepts[concept].significance == "benign_expected" for concept in finding.concepts)


def _harmless(finding: ReportFinding) -> bool:
    past = finding.attributes.temporal == "old"
    harmless = ("benign_expected", "not_actionable_not_urgent") if past else ("benign_expected",)
    return any(lexicon().concepts[concept].significance in harmless for concept in finding.concepts)


def _of_other_age(reference: ReportFinding, prediction: ReportFinding, rule: dict[str, Any]) -> bool:
    """Whether one of two injuries is fresh and the other one is not."""
    ages = {reference.attributes.temporal, prediction.attributes.temporal}
    if ages.isdisjoint(rule["past"]) or ages.isdisjoint(rule["fresh"]):
        return False
    return is_injury(reference)


def is_injury(finding: ReportFinding) -> bool:
    """Whether a finding is another one once it is old."""
    injuries = rules()["matching"]["other_age"]["concepts"]
    return any((one, of) in lexicon().distances for one in finding.concepts for of in injuries)


def concept_steps(reference: ReportFinding, prediction: ReportFinding) -> int | None:
    """How many steps narrower (positive) or broader (negative) the prediction's concept is; None if unrelated.

    Of several possible concepts those that are closest count.
    """
    distances, pairs = lexicon().distances, interchangeable_pairs()
    best: int | None = None
    for r in reference.concepts:
        for p in prediction.concepts:
            if (p, r) in distances:
                steps = distances[p, r]
            elif (r, p) in distances:
                steps = -distances[r, p]
            elif (r, p) in pairs or _told_by_extent(r, p, reference, prediction):
                steps = 1
            else:
                continue
            if best is None or abs(steps) < abs(best):
                best = steps
    return best


def _explained_by_one(
    references: Sequence[ReportFinding], predictions: Sequence[ReportFinding], matches: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """More matches, of findings that have none: an appearance and what the other report explains it by."""
    refs = set(range(len(references))).difference(r for r, _ in matches)
    left = [p for p in range(len(predictions)) if all(p != matched for _, matched in matches)] if refs else []
    found = []
    for r in sorted(refs) if left else ():
        same = next((p for p in left if _explains_the_same(references[r], predictions[p])), None)
        if same is not None:
            found.append((r, same))
            left.remove(same)
    return found


def _explains_the_same(reference: ReportFinding, prediction: ReportFinding) -> bool:
    """Whether one report explains what the other one leaves at that: "hyperinflation compatible with asthma"."""
    if not (_is_its_sign(reference, prediction) or _is_its_sign(prediction, reference)):
        return False
    return not _of_other_age(reference, prediction, rules()["matching"]["other_age"]) and _at_one_side(
        reference, prediction
    )


def _is_its_sign(plain: ReportFinding, explained: ReportFinding) -> bool:
    """Whether a finding is a sign of another one that its report tells with this sign."""
    told = explained.signs
    return bool(told) and lexicon().signs_of(explained.concepts).intersection(told).issuperset(plain.concepts)


def interchangeable(reference: ReportFinding, prediction: ReportFinding) -> bool:
    """Whether radiologists use a concept of one finding for one of the other."""
    pairs = interchangeable_pairs()
    return any(
        (r, p) in pairs or _told_by_extent(r, p, reference, prediction) or _told_by_place(r, p, reference, prediction)
        for r in reference.concepts
        for p in prediction.concepts
    )


def _told_by_extent(one: str, other: str, reference: ReportFinding, prediction: ReportFinding) -> bool:
    """Whether one of two concepts is the other one seen from far: a side that is white, of a massive effusion."""
    pairs, from_rank = extents()
    seen = prediction if (one, other) in pairs else reference if (other, one) in pairs else None
    return seen is not None and (seen.attributes.severity or 0) >= from_rank


def _told_by_place(one: str, other: str, reference: ReportFinding, prediction: ReportFinding) -> bool:
    """Whether one of two concepts is the other one where it has a whole lobe: "atelectasis of the left lower lobe"."""
    pairs, rule = places()
    finding = reference if (one, other) in pairs else prediction if (other, one) in pairs else None
    if finding is None:
        return False
    told = finding.attributes
    whole = rule["told"] in told.descriptors and rule["not_told"] not in told.descriptors
    return whole and (told.severity or rule["from_rank"]) >= rule["from_rank"]


def other_diagnosis(reference: ReportFinding, prediction: ReportFinding) -> bool:
    """Whether the reports explain the appearance by two diagnoses that have nothing to do with each other."""
    if not (reference.appearance or prediction.appearance):
        return False
    if not (reference.appearance and prediction.appearance) and set(reference.concepts) & set(prediction.concepts):
        return False  # one names the appearance and leaves it at that
    if any(lexicon().concepts[concept].vague for finding in (reference, prediction) for concept in finding.diagnoses):
        return False
    pairs = [(one, other) for one in reference.diagnoses for other in prediction.diagnoses]
    return not any(other in lexicon().near[one] or (one, other) in interchangeable_pairs() for one, other in pairs)


def compares_sides(reference: ReportFinding, prediction: ReportFinding) -> bool:
    """Whether left, right and zones mean something for both findings."""
    return _has_a_side(reference) and _has_a_side(prediction)


def _has_a_side(finding: ReportFinding) -> bool:
    """Whether left and right mean something; of a tube of the midline they do where it lies in a lung or its pleura."""
    if lexicon().concepts[finding.concepts[0]].sided:
        return True
    return position(finding) == "bad" and not finding.attributes.sites.isdisjoint(rules()["matching"]["paired_sites"])


def zone_gap(one: Attributes, other: Attributes) -> int:
    """Zones between what each of two places has and the other one lacks: 0 if that is nothing or diffuse, 1 if they touch, 2 if not."""
    ours, theirs = one.zones - other.zones, other.zones - one.zones
    if not ours or not theirs or "diffuse" in ours | theirs:
        return 0
    return min(abs(_ZONE_ORDER[a] - _ZONE_ORDER[b]) for a in ours for b in theirs)


def _is_part(reference: ReportFinding, prediction: ReportFinding) -> bool:
    """Whether one of two findings of one concept is a part of the other: a side of a bilateral one, a lobe of a diffuse one."""
    if _belongs_to(reference, prediction) or _belongs_to(prediction, reference):
        return True
    same = concept_steps(reference, prediction) == 0
    if not same and not interchangeable(reference, prediction):
        return False
    if not compares_sides(reference, prediction):
        return True
    if not same and bool(reference.attributes.sides) != bool(prediction.attributes.sides):
        return False  # fluid in the fissure is no part of effusions on both sides
    return _within(reference, prediction) or _within(prediction, reference)


def _belongs_to(component: ReportFinding, device: ReportFinding) -> bool:
    return not lexicon().concepts[component.concepts[0]].belongs_to.isdisjoint(device.concepts)


def _within(part: ReportFinding, whole: ReportFinding) -> bool:
    one, other = part.attributes, whole.attributes
    if lexicon().concepts[whole.concepts[0]].device and not other.sides:
        return False  # a line without a side is one line
    sides = not one.sides or not other.sides or one.sides <= other.sides
    zones = not one.zones or not other.zones or "diffuse" in other.zones or one.zones <= other.zones
    return sides and zones
