"""A clause -> the findings it mentions: what each is called, what is said about it, and whether it is there."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

from crimson_core.judges.rules.assertion import decide_presence
from crimson_core.judges.rules.attributes import NOTHING, SUSPECTED, Attributes, Mention, attributes_of, sizes_in
from crimson_core.judges.rules.clauses import COPULAS, MODIFIERS, Clause
from crimson_core.judges.rules.lexicon import Lexicon, Tag, lexicon

_NAMING = ("concept", "normal_of", "states", "anaphor")
_PLACE = attrgetter("start", "end")
_BESIDE = frozenset(("anatomy", "states"))
_EXPLAINING = frozenset(("similar", "link", "appearance", "pronoun"))
_IS_A = {(verb, article) for verb in ("is", "was") for article in ("a", "an")}
_WITHIN = (["within"], ["in"], ["inside"])
_BETWEEN_SIGNS = ("conjunction", "alternative", "anatomy", "definite", "glue", "joint", *MODIFIERS)
_HOLDING = frozenset(("with", "containing", "harboring"))  # conjunctions before what is in something, or its state
_ALL_OF_THEM = frozenset(("these", "they"))
_AROUND = (
    "anatomy",
    "side",
    "zone",
    "severity",
    "descriptor",
    "glue",
    "temporal",
    "prior",
    "earlier",
    "anatomy",
    "joint",
    "definite",
)
_OF_BOTH = frozenset(("has", "have", "is", "are"))
_RELATED = frozenset(("related", "induced"))
_WAYS_IN = frozenset(("arm", "approach", "access"))
_NOUN_ENDS = frozenset(("of", "in"))
_TOWARD = frozenset(("to", "toward", "away"))
_HUGE = 5  # rank of severity
_NEAR = 3  # words between "with" and a state
_ADJECTIVE = ("al", "ar", "ic", "ary")  # "pleural fluid", of which no word is said of the other
_FARTHEST_STATE = 10  # words between a structure and its state


def mentions(clause: Clause, lexicon: Lexicon, before: tuple[str, ...] = ()) -> list[Mention]:
    """The findings that a clause names, in the order of the text; `before` are the concepts that were named last."""
    found = _named(clause, lexicon, before)
    if not found:
        return []
    _assign_attributes(found, clause, lexicon)
    if len(clause.by_kind.get("side", ())) > 1:
        found = [part for mention in found for part in _split_sides(mention, clause)]
    decide_presence(found, clause)
    if len(found) == 1:
        return found
    _share(found, clause, lexicon)
    return _joined(found, clause, lexicon)


def tells_something(clause: Clause) -> bool:
    """Whether a clause without a known finding may name one in other words: it denies nothing and says no normal thing."""
    silent = ("normal", "pronoun", "appearance")
    cues = ("negated_before", "negated_after", "unassessed_after", "hypothetical", "history")
    return not any(clause.of(kind) for kind in silent) and not any(clause.cues(cue) for cue in cues)


def mention_of(clause: Clause, concept: str | None, lexicon: Lexicon) -> list[Mention]:
    """The whole clause as a mention of a concept; none of None."""
    if concept is None:
        return []
    mention = Mention((concept,), clause.start, clause.end)
    _assign_attributes([mention], clause, lexicon)
    decide_presence([mention], clause)
    return [mention]


def continuation(clause: Clause) -> tuple[Attributes | None, Attributes | None] | None:
    """What a clause that names no finding says about the one named before: "It measures 8 mm", "Withdraw by 2 cm".

    Returns:
        What it says if that is no device, and if it is one; None if the clause says nothing about it.
    """
    opening = (*clause.of("pronoun"), *clause.of("position"), *_overall(clause))
    if clause.lead != "exception" and not any(t.start <= clause.start + 1 for t in opening):
        return None
    start, end = clause.start, clause.end
    tags = clause.modifiers(start, end)
    # "Its tip runs up the right jugular vein": not the side where it was put in
    of_device = [t for t in tags if t.kind != "side"] if clause.of("course") else tags
    return (
        attributes_of(tags, clause, start, end, start, False),
        attributes_of(of_device, clause, start, end, start, True),
    )


def of_several(clause: Clause) -> bool:
    """Whether a clause that goes on speaks of all that was named before: "These are unchanged"."""
    pronouns = clause.of("pronoun", clause.start, clause.start + 2)
    return bool(_overall(clause)) or any(clause.words[t.start] in _ALL_OF_THEM for t in pronouns)


def _overall(clause: Clause) -> list[Tag]:
    """The opening of "The findings have worsened"."""
    changed = clause.by_kind.keys() & {"temporal"}
    return [t for t in clause.of("appearance") if t.start <= clause.start + 1] if changed else []


def explanation(clause: Clause) -> bool | None:
    """Whether a clause tells what the finding before it is, and tentatively; None if it does not.

    "The appearance suggests pneumonia", "This is consistent with edema", "It is stable scarring".
    """
    if not (clause.by_cue or not _EXPLAINING.isdisjoint(clause.by_kind)):
        return None
    if clause.of("similar") or clause.cues("not_excluded_after"):
        return True
    if any(t.value == "differential" and t.start <= clause.start + 2 for t in clause.of("link")):
        return True
    opening = any(t.start == clause.start for t in clause.of("definite"))
    nouns = [t for t in clause.of("appearance") if t.start <= clause.start + 2]
    pronouns = [t for t in clause.of("pronoun") if t.start == clause.start]
    if not (nouns and (opening or nouns[0].start == clause.start)) and not pronouns:
        return None
    links = [t for t in clause.of("link") if t.start >= (nouns or pronouns)[0].end and t.value != "direct"]
    if links:
        return links[0].value in ("tentative", "differential")
    told = pronouns and clause.words[pronouns[0].end : pronouns[0].end + 1]
    return False if told and told[0] in ("is", "are") else None


# --- what is mentioned


def _named(clause: Clause, lexicon: Lexicon, before: tuple[str, ...]) -> list[Mention]:
    """Concepts by name, structures with their state, and words that take up what was named before."""
    if clause.by_kind.keys().isdisjoint(_NAMING):
        return []
    found = {t.start: Mention((t.value,), t.start, t.end, named_by=(t,)) for t in clause.of("concept")}
    told_beside = not _BESIDE.isdisjoint(clause.by_kind)
    spent = _narrow(found, clause, lexicon) if found and told_beside else set()
    for tag in clause.of("normal_of"):
        normal = Mention(
            (tag.value,), tag.start, tag.end, presence="absent", named_by=(tag,), decided_by=(("absent", tag),)
        )
        for inside in range(tag.start + 1, tag.end):  # of a "normal thoracic kyphosis" the kyphosis is none
            found.pop(inside, None)
        found.setdefault(tag.start, normal)
    if "states" in clause.by_kind and "anatomy" in clause.by_kind:
        _add_states(found, spent, clause, lexicon)
        _add_alike(found, clause, lexicon)
    for tag in clause.of("anaphor") if before else ():
        # "a smaller one on the left", but not "one small nodule", "one of the ribs"
        stands_alone = tag.end >= clause.end or (
            clause.of("joint", tag.end, tag.end + 1) and clause.words[tag.end] != "of"
        )
        if stands_alone and clause.modifiers(max(clause.start, tag.start - 3), min(clause.end, tag.end + 5)):
            found[tag.start] = Mention(before, tag.start, tag.end, named_by=(tag,))
    named = sorted(found.values(), key=_PLACE)
    if "definite" in clause.by_kind:
        definite = {t.end for t in clause.of("definite")}
        for mention in named:
            start = mention.start
            if not definite.isdisjoint((start - 2, start - 1, start)):
                mention.taken_up = "other" not in clause.words[max(0, start - 2) : start]
    return named


def _add_states(found: dict[int, Mention], spent: set[Tag], clause: Clause, lexicon: Lexicon) -> None:
    """Add what structures and their states name together, but for states that have been `spent`."""
    taken = {position for m in found.values() for position in range(m.start, m.end)}
    structures = [t for t in clause.of("anatomy") if t.start not in taken]
    used: set[Tag] = set()
    for state in clause.of("states"):
        if state in spent:
            continue
        # "the heart is enlarged, the hilum normal"
        before = max(clause.start, state.start - 3)  # but not "the heart is enlarged with unfolding of the aorta"
        told_before = (
            not COPULAS.isdisjoint(clause.words[before : state.start])
            and not clause.of("states", before, state.start)
            and any(t.start < state.start for t in structures)  # but not "also seen is prominence of the hilum"
        )
        # "again noted is enlargement of the heart" tells it behind
        upto = state.start if told_before and any(t.end <= state.start for t in structures) else clause.end
        near = _heads([t for t in structures if t.start < upto and (t.value, state.value) in lexicon.composites])
        if not near:
            continue
        # a "dense left lower lobe nodule" is a nodule, "bulky mediastinal adenopathy" one of nodes
        near = [t for t in near if state.start > t.start or t.end not in found or not _is_adjective(t, clause)]
        if state.end in found:  # "Mediastinum: bulky adenopathy"
            near = [t for t in near if t.end > state.start or not clause.set_off(t.end)]
        if _is_degree(state, found, clause):  # "Mediastinum: bulky right hilar nodes"
            near = [t for t in near if t.start > state.start]
        if state.end in found:  # "fluid in the fissures and prominent markings"
            near = [t for t in near if not clause.of("conjunction", t.end, state.start)]
        # of "interstitial prominence and fissural fluid" the fissure has a state of its own
        near = [t for t in near if t.start < state.end or not _has_its_own(state, t, clause)]
        # "a calcified hilum and calcification of the aorta", "mediastinal mass shifting the trachea"
        of = "of" in clause.words[state.end : state.end + 1] or _acts_on(state, structures, clause)
        near.sort(key=lambda t: (of and t.start < state.start, abs(t.start - state.start)))
        structure = next((t for t in near if _of_one(t, state, clause)), None)
        if structure is None:
            continue
        if any(clause.words[t.start].endswith("ing") for t in clause.of("states", state.end, structure.start)):
            continue  # "large, displacing the mediastinum": of what displaces it
        concept = lexicon.composites[structure.value, state.value]
        again = state.end in found or clause.of("temporal", state.start, state.end)
        if structure in used and (again or clause.words[state.end - 1].endswith("er")):
            continue  # "soft tissue prominence from a prominent osteophyte", "the enlarged heart is bigger"
        between = _between(structure, state)
        if state.start in found and found[state.start].end == state.end:
            # "fluid in the fissure and effusions" tells of two
            apart = structure.end <= state.start and clause.has(between.start, between.stop, "conjunction")
            if found[state.start].concepts[0] in lexicon.concepts[concept].broader and not apart:
                found[state.start].concepts = (concept,)  # "fracture of the left ribs" names more than a fracture
                found[state.start].named_by += (structure,)
                if structure.end < state.start and clause.copula(structure.end, state.start):
                    found[state.start].start = structure.start  # "the sternum and the left ribs are fractured"
            elif _is_another_kind(found[state.start], concept, lexicon) and clause.enumerated(structure, state):
                # "left rib and clavicle fractures"
                item = Mention((concept,), structure.start, structure.end, named_by=(structure, state))
                found.setdefault(structure.start, item)
                continue
        elif not taken & set(range(state.start, state.end)) and not taken & _without_states(between, structure, clause):
            # of "the aorta is tortuous and calcified" the second finding is the second state alone
            start = state.start if structure in used else min(structure.start, state.start)
            end = state.end if structure in used else max(structure.end, state.end)
            found[state.start] = Mention(
                (concept,),
                start,
                end,
                predicate=start < state.start and not clause.words[structure.end - 1].endswith(_ADJECTIVE),
                state=(state.start, state.end),
                named_by=(structure, state),
            )
        else:
            continue
        used.add(structure)
        for other in near:  # "fractures of the left clavicle and the third rib", "left rib and clavicle fractures"
            more = lexicon.composites[other.value, state.value]
            # "enlarged heart, stable mediastinum", "enlargement of the spleen with displacement of the stomach"
            middle = sorted((structure.end, other.start))
            parted = clause.of("temporal", *middle) or clause.of("states", *middle)
            between = _between(other, structure)  # not "enlarged nodes in both hila and beside the trachea"
            shared = state.start not in between and not clause.has(between.start, between.stop, "joint")
            if (
                more != concept
                and shared
                and not parted
                and clause.enumerated(other, structure)
                and other.start not in found
            ):
                found[other.start] = Mention(
                    (more,), other.start, other.end, state=(state.start, state.end), named_by=(other, state)
                )


def _acts_on(state: Tag, structures: Sequence[Tag], clause: Clause) -> bool:
    """Whether a state is what is done to the structure that follows it."""
    if not clause.words[state.end - 1].endswith("ing") or clause.words[state.end : state.end + 1] == ["at"]:
        return False  # "disc space narrowing at T9"
    return any(0 <= t.start - state.end <= 1 for t in structures)


def _heads(structures: Sequence[Tag]) -> list[Tag]:
    """Structures in order, without those that say which of the next one is meant: of "T9-T10 disc space" the last."""
    leading: set[Tag] = set()
    by_start = {t.start: t for t in structures if t.end > t.start}
    for structure in reversed(structures):
        following = by_start.get(structure.end) if structure.end > structure.start else None
        if following and (following.value != structure.value or following in leading):
            leading.add(structure)
    return [t for t in structures if t not in leading]


def _is_degree(state: Tag, found: Mapping[int, Mention], clause: Clause) -> bool:
    """Whether a state is the degree of what is named next, with only its place between."""
    if not clause.of("severity", state.start, state.end):
        return False
    named = min((start for start in found if start >= state.end), default=None)
    return named is not None and clause.only(state.end, named, "side", "zone", "anatomy", "severity")


def _is_adjective(structure: Tag, clause: Clause) -> bool:
    """Whether a structure only says where what follows is: a lobe, or "mediastinal"."""
    return bool(clause.of("zone", structure.start, structure.end)) or clause.words[structure.end - 1].endswith(
        ("al", "ar")
    )


def _add_alike(found: dict[int, Mention], clause: Clause, lexicon: Lexicon) -> None:
    """Add what is in the state of the structure before: "the scapula is fractured, as are the ribs"."""
    for tag in clause.by_kind.get("likewise", ()):
        states = clause.of("states", clause.start, tag.start)
        for structure in clause.of("anatomy", tag.end) if states else ():
            concept = lexicon.composites.get((structure.value, states[-1].value))
            if concept and not clause.has(tag.end, structure.start, "states", "concept"):
                named = Mention((concept,), structure.start, structure.end, named_by=(structure, states[-1]))
                found.setdefault(structure.start, named)


def _is_another_kind(mention: Mention, concept: str, lexicon: Lexicon) -> bool:
    return mention.concepts != (concept,) and lexicon.akin(mention.concepts, (concept,))


def _narrow(found: dict[int, Mention], clause: Clause, lexicon: Lexicon) -> set[Tag]:
    """Give findings the name that their place or state makes of them: "mass in the mediastinum", "the lesion has cavitated".

    Returns:
        The states that did.
    """
    spent: set[Tag] = set()
    taken = {position for m in found.values() for position in range(m.start, m.end)}
    # the fracture of a lead is one of the lead
    damage = {
        t.start: m for t in clause.of("states") if (m := found.get(t.start)) and m.concepts[0] in lexicon.device_damage
    }
    # of "nodule with cavitation" the cavitation is no finding beside the nodule
    damage |= {
        t.start: m
        for t in clause.of("states")
        if (m := found.get(t.start))
        and "with" in clause.words[max(0, t.start - _NEAR) : t.start]
        and any(lexicon.composites.get((t.value, other.concepts[0])) == m.concepts[0] for other in found.values())
    }
    beside = [t for kind in ("anatomy", "states") for t in clause.of(kind) if t.start not in taken or t.start in damage]
    for mention in list(found.values()) if beside else ():
        while tag := _narrowing(mention, [t for t in beside if t not in mention.named_by], clause, lexicon):
            named = mention.concepts[0]
            made = lexicon.composites[tag.value, named]
            mention.concepts, mention.named_by = (made,), (*mention.named_by, tag)
            if (made, named) not in lexicon.distances:
                # of a cavitating consolidation the other report may list the consolidation apart
                mention.signs = (named,)
            spent.add(tag)
            if tag.start in damage and tag.start in found:
                del found[tag.start]
                mention.start, mention.end = min(mention.start, tag.start), max(mention.end, tag.end)
    return spent


def _without_states(between: range, structure: Tag, clause: Clause) -> set[int]:
    """Words between a structure and its state, but for another state of it: "calcification and ectasia of the aorta"."""
    found = set(between)
    if clause.of("conjunction", between.start, between.stop):
        for tag in clause.of("states", between.start, between.stop):
            if (structure.value, tag.value) in lexicon().composites:
                found -= set(range(tag.start, tag.end))
    return found


def _has_its_own(state: Tag, structure: Tag, clause: Clause) -> bool:
    """Whether a structure behind a state and a conjunction leads to another state."""
    beside = any(t.start == structure.end for t in clause.of("states", structure.end))
    return beside and bool(clause.of("conjunction", state.end, structure.start))


def _narrowing(mention: Mention, beside: Sequence[Tag], clause: Clause, lexicon: Lexicon) -> Tag | None:
    """The nearest structure or state that makes another name of a finding's."""
    near = [t for t in beside if (t.value, mention.concepts[0]) in lexicon.composites]
    near.sort(key=lambda t: abs(t.start - mention.start))
    return next((t for t in near if _joined_to(mention, t, clause, lexicon.composites)), None)


def _joined_to(name: Mention, tag: Tag, clause: Clause, composites: Mapping[tuple[str, str], str]) -> bool:
    """Whether a structure or state is said of what is named: only words that part nothing stand between them."""
    between = _between(name, tag)
    start, end = between.start, between.stop
    if end - start > _FARTHEST_STATE or not clause.joined(start, end, "course"):
        return False
    if tag.start >= name.end and any(start <= cue.start < end for cue in clause.cues("negated_before")):
        return False  # "bulla without a fluid level"
    if tag.end <= name.start and clause.has(start, end, "anatomy"):
        # "calcified mediastinal and hilar nodes", but not "calcified aorta and left nodule"
        made = composites[tag.value, name.concepts[0]]
        own = {composites.get((t.value, tag.value), made) for t in clause.of("anatomy", start, end)}
        return own == {made} and not clause.has(start, end, "concept", "joint")
    behind = tag.end
    while behind < clause.end and clause.words[behind] in (
        "of",
        "the",
    ):  # "nodules with calcification of the hilar nodes"
        behind += 1
    leads = {kind for kind in ("anatomy", "concept") if any(t.start == behind for t in clause.of(kind, behind))}
    if tag.kind == "anatomy" and "concept" in leads and tag.start >= name.end:
        return False  # "mass and hilar adenopathy"
    # "nodule with calcification", but not "nodules with calcified hilar nodes"
    held = _HOLDING if tag.kind == "states" and not leads else frozenset[str]()
    parting = [t for t in clause.of("conjunction", start, end) if clause.words[t.start] not in held]
    if len(parting) == 1 and _stands_alone(parting[0], tag, clause):
        parting = []
    return not parting and not clause.has(start, end, "alternative", "concept")


def _stands_alone(comma: Tag, state: Tag, clause: Clause) -> bool:
    """Whether a state is all that stands behind a comma: "masses in both lungs, likely metastatic"."""
    ends = clause.words[state.end : state.end + 1] in ([], [","]) or state.end >= clause.end
    hedges = clause.bits(clause.cues("uncertain_before")) | clause.places("link", "severity", "glue")
    said = clause.words_between(comma.end, state.start) if comma.end <= state.start else 0
    return clause.words[comma.start] == "," and state.kind == "states" and ends and not said & ~hedges


def _between(structure: Tag | Mention, state: Tag) -> range:
    return range(min(structure.end, state.end), max(structure.start, state.start))


def _of_one(structure: Tag, state: Tag, clause: Clause) -> bool:
    """Whether nothing that matters parts a structure from a state."""
    if structure.start < state.end and state.start < structure.end:
        return False
    between = _between(structure, state)
    if state.end <= structure.start and "," in clause.words[state.end : structure.start]:
        comma = structure.start - clause.words[state.end : structure.start][::-1].index(",")
        if not clause.of("states", comma, structure.start):
            return False  # "left pneumothorax, large, mediastinum midline", but "enlarged, tortuous aorta"
    return len(between) <= _FARTHEST_STATE and clause.joined(between.start, between.stop)


# --- what is said about it


def _assign_attributes(found: list[Mention], clause: Clause, lexicon: Lexicon) -> None:
    borders = [clause.start, *[_border(left, right, clause) for left, right in pairwise(found)], clause.end]
    for mention, (start, end) in zip(found, pairwise(borders), strict=True):
        concept = lexicon.concepts[mention.concepts[0]]
        tags = [t for t in clause.modifiers(start, end) if _belongs(t, mention, concept.device, clause, start, end)]
        if concept.directed:
            tags = _directions(tags, clause)
        elif concept.device:
            tags = _without_numbers(_without_sides_of_veins(tags, mention, clause, end), clause)
        told = attributes_of(tags, clause, start, end, mention.end, concept.device, concept.percent)
        if mention.state[0] and not told.temporal and _has_come(mention, clause):
            told = told._replace(temporal="new")
        mention.attributes, mention.told_by = told, tuple(tags)
        if told.temporal == "old" and concept.once_old:
            mention.concepts = (concept.once_old,)
        elif concept.one_sided and len(told.sides) == 1:
            mention.concepts = (concept.one_sided,)
        first, last = mention.start, mention.end
        for tag in tags:
            first, last = min(first, tag.start), max(last, tag.end)
        for _, number, behind in sizes_in(clause, start, end, mention.end) if told.sizes_mm else ():
            first, last = min(first, number), max(last, behind)
        mention.first, mention.last = first, last


def _has_come(mention: Mention, clause: Clause) -> bool:
    """Whether a state is one that was not there before: "now filled with mucus", "has collapsed since the last film"."""
    before = clause.words[mention.state[0] - 1]
    return before == "now" or (before in ("has", "have") and "since" in clause.words[mention.state[1] : clause.end])


def _without_sides_of_veins(tags: list[Tag], mention: Mention, clause: Clause, end: int) -> list[Tag]:
    """The modifiers of a line, without the side of a vein that it ends in, which is the wrong vein if it is the other side's.

    "Left subclavian line in the right brachiocephalic vein".
    """
    own = {t.value for t in tags if t.kind == "side" and (t.start < mention.end or _is_way_in(t, clause))}
    veins = {t.start for t in clause.of("sites", mention.end, end) if t.value.endswith("_vein")} if own else set()
    of_veins = [t for t in clause.of("side", mention.end, end) if t.end in veins] if veins else []
    across = [t._replace(kind="position", value="bad") for t in of_veins if t.value not in own]
    return sorted([*(t for t in tags if t not in of_veins), *across], key=_PLACE)


def _is_way_in(side: Tag, clause: Clause) -> bool:
    """Whether a side is that of the arm or the way by which a line was put in."""
    return not _WAYS_IN.isdisjoint(clause.words[side.end : side.end + 2])


def _without_numbers(tags: list[Tag], clause: Clause) -> list[Tag]:
    """The modifiers of a device, without "both" where that counts them: "both drains on the right"."""
    told = {t.value for t in tags if t.kind == "side"}
    counted = len(told) == 2 and "both" in told
    return [t for t in tags if not (counted and t.value == "both" and clause.words[t.start] == "both")]


def _directions(tags: list[Tag], clause: Clause) -> list[Tag]:
    """The modifiers of a shift, of the sides only those that tell where it goes, if any does: "left opacity with shift to the right"."""
    pointing = [t for t in tags if t.kind == "side" and _points(t, clause)]
    return [t for t in tags if t.kind != "side" or t in pointing] if pointing else tags


def _points(side: Tag, clause: Clause) -> bool:
    word = clause.words[side.start]
    if word.endswith("ward"):
        return True
    near = range(max(clause.start, side.start - 2), side.start)
    return any(clause.words[at] in _TOWARD and not clause.has(at, at + 1, "link") for at in near)  # but not "due to"


def _border(left: Mention, right: Mention, clause: Clause) -> int:
    """Where the words about one mention end and those about the next one begin: before the words that lead its name."""
    position = right.start
    while position > left.end and not clause.is_joint(position - 1):
        position -= 1
    return max(position, left.end)


def _belongs(tag: Tag, mention: Mention, device: bool, clause: Clause, start: int, end: int) -> bool:
    """Whether a modifier in a mention's words is about it."""
    if mention.state[0] <= tag.start and tag.end <= mention.state[1] and tag.kind == "severity":
        return bool(tag.value == _HUGE)  # "the heart is slightly large"
    if tag.value == "coiled" and mention.start <= tag.start and tag.end <= mention.end:
        return False  # "loop recorder", "embolization coil"
    if tag.kind == "temporal" and "no" in clause.words[max(0, tag.start - 1) : tag.start]:
        return False  # "no new findings: left effusion unchanged"
    if tag.kind == "severity" and clause.of("earlier", tag.start - 1, tag.start):
        return False  # "small effusion, previously large"
    if device and tag.kind in ("sites", "zone") and (tag.kind == "zone" or tag.start < mention.end):
        # before its name stands the way it was put in, but "left mainstem intubation" is out of place there
        return tag.kind == "sites" and bool(clause.of("position", tag.start, tag.end))
    if device and tag.kind not in ("position", "temporal", "sites"):
        # What follows the tip, the end or the course of a device tells where it lies, not where it was put in.
        return tag.start < mention.end or not clause.of("course", mention.end, tag.start)
    if tag.start >= mention.end:  # "in the right lung, not in the left"
        denied = (cue for cue in clause.cues("negated_before") if mention.end <= cue.start < tag.start)
        if not all(clause.of("clause_end", cue.end, tag.start) for cue in denied):
            return False
    if "normal" not in clause.by_kind:
        return True
    # "left lung clear, right effusion": what is said to be normal has its own place
    piece = _piece(tag.start, clause, start, end)
    return mention.start in piece or not any(t.start in piece for t in clause.by_kind["normal"])


def _piece(position: int, clause: Clause, start: int, end: int) -> range:
    """The words between the two conjunctions or commas around a position."""
    parts = clause.of("conjunction", start, end)
    first = max((t.end for t in parts if t.end <= position), default=start)
    last = min((t.start for t in parts if t.start > position), default=end)
    return range(first, last)


def _split_sides(mention: Mention, clause: Clause) -> Iterable[Mention]:
    """Two findings of "large left and small right effusions", "the right effusion is smaller and the left larger" and the like."""
    for start, end in ((mention.first, mention.start), (mention.end, mention.last), (mention.first, mention.last)):
        told = [
            t for t in clause.modifiers(start, end) if t.kind in ("side", "severity", "temporal") and t.value != "both"
        ]
        sides = [t for t in told if t.kind == "side"]
        if len(sides) != 2 or sides[0].value == sides[1].value:
            continue
        within = min(t.end for t in told), max(t.start for t in told)
        for joint in (*clause.of("conjunction", *within), *clause.of("clause_end", *within)):
            halves = [[t for t in told if t.end <= joint.start], [t for t in told if t.start >= joint.end]]
            kinds = [sorted(t.kind for t in half) for half in halves]
            if all(k.count("side") == 1 and len(k) > 1 for k in kinds) and set(kinds[0]) & set(kinds[1]) - {"side"}:
                parts = [attributes_of(half, clause, mention.start, mention.end, mention.end, False) for half in halves]
                # "both effusions have grown, moderate on the right and small on the left"
                change = [t for half in halves for t in half if t.kind == "temporal"]
                of_both = all(clause.words[t.start] in _OF_BOTH for t in change)
                return [replace(mention, attributes=_own(mention.attributes, part, of_both)) for part in parts]
    return [mention]


def _own(shared: Attributes, part: Attributes, change_of_both: bool) -> Attributes:
    """The attributes of one of two findings that are told together."""
    if part.severity or part.temporal:
        change = shared.temporal if change_of_both else part.temporal
        shared = shared._replace(severity=part.severity, temporal=change)
    return shared._replace(sides=part.sides)


# --- what belongs together


def _share(found: list[Mention], clause: Clause, lexicon: Lexicon) -> None:
    """Carry what an enumeration shares to each of its findings.

    A location: "left effusion and atelectasis", "effusion and atelectasis at the left base". A change: "new opacity and
    effusion", "cardiomegaly and effusion are unchanged". A position: "the tube and the line are in standard position".
    """
    if all(mention.attributes is NOTHING for mention in found):
        return
    leading = None  # a change that stands before a list as a noun: "worsening of the effusions and the edema"
    for left, right in pairwise(found):
        if right.state != (0, 0) and right.state in (left.state, (left.start, left.end)):
            told = right.attributes  # "healed fractures of the clavicle and the scapula"
            right.attributes = told._replace(temporal=told.temporal or left.attributes.temporal)
        listed = left.start != right.start and clause.one_list(left.end, right.start)
        nouns = [
            t
            for t in clause.of("temporal", left.first, left.start)
            if clause.words[t.end - 1] in _NOUN_ENDS or clause.set_off(t.end)  # "New: nodule and fracture"
        ]
        leading = (nouns[-1].value if nouns else leading) if listed else None
        if leading and not right.attributes.temporal:
            right.attributes = right.attributes._replace(temporal=leading)
        if clause.words[left.end : left.end + 1] in _WITHIN and _placed(right) and not _placed(left):
            left.attributes = left.attributes._replace(sides=right.attributes.sides, zones=right.attributes.zones)
        if left.start == right.start:
            continue
        if (
            _lies_there(left, right, clause)
            and left.attributes.sides
            and not _placed(right)
            and _placed_alike(left, right)
        ):
            right.attributes = right.attributes._replace(sides=left.attributes.sides)
        if not clause.one_list(left.end, right.start):
            continue
        bare = not clause.modifiers(left.end, right.start)
        change = left.attributes.temporal
        if bare and change and not right.attributes.temporal and clause.of("temporal", left.first, left.start):
            right.attributes = right.attributes._replace(temporal=change)
        if not _placed_alike(left, right):
            continue
        one, other = left.attributes, right.attributes
        if one.sides and left.first < left.start and not other.sides and (bare or other.zones):
            right.attributes = other._replace(sides=one.sides, zones=other.zones or one.zones)
        elif one.sides and not other.sides and not other.zones and "with" in clause.words[left.end : right.start]:
            right.attributes = other._replace(sides=one.sides)
        elif _placed(right) and right.last > right.end and not _placed(left):
            left.attributes = one._replace(sides=other.sides, zones=other.zones)
    change = place = None  # told after the list, so of all that stands in it
    for later, earlier in pairwise(found[::-1]):
        if later.start == earlier.start or not clause.one_list(earlier.end, later.start):
            change = place = None
            continue
        told = later.attributes
        change = told.temporal if clause.of("temporal", later.end, later.last) else change
        place = told.position if clause.of("position", later.end, later.last) else place
        own = earlier.attributes
        where = place if lexicon.concepts[earlier.concepts[0]].device else None
        if (change and not own.temporal) or (where and not own.position):
            earlier.attributes = own._replace(temporal=own.temporal or change, position=own.position or where)


def _lies_there(left: Mention, right: Mention, clause: Clause) -> bool:
    """Whether a finding is said to be where the one before it is: "RUL consolidation containing a cavity"."""
    joints = [clause.words[t.start] for t in clause.of("conjunction", left.end, right.start)]
    inside = not _HOLDING.isdisjoint({*joints} - {"with"})
    if joints == ["with"] and clause.only(left.end, right.start, *_BETWEEN_SIGNS):
        return True  # "effusion on the right with atelectasis"
    return inside or clause.has(left.end, right.start, "nearby")


def _placed_alike(left: Mention, right: Mention) -> bool:
    """Whether sides mean the same for two findings."""
    concepts = [lexicon().concepts[m.concepts[0]] for m in (left, right)]
    return all(concept.sided and not concept.directed for concept in concepts)


def _placed(mention: Mention) -> bool:
    return bool(mention.attributes.sides or mention.attributes.zones)


class _Pair(NamedTuple):
    """Two mentions that follow each other, both present.

    Attributes:
        last: What stands before, perhaps joined already from several mentions.
        mention: The next one.
        link: What links them; see `_link`.
        listed: Whether `last` ends in a list of what it may be, which may go on.
        joined: All before `mention`, `last` at their end.
        found: All mentions of the clause.
    """

    last: Mention
    mention: Mention
    link: str | None
    listed: bool
    joined: list[Mention]
    found: Sequence[Mention]
    clause: Clause
    lexicon: Lexicon

    @property
    def tentative(self) -> bool:
        return self.link in ("tentative", "differential")


def _joined(found: Sequence[Mention], clause: Clause, lexicon: Lexicon) -> list[Mention]:
    """Those that tell of one finding as one: an appearance with its explanation, and alternatives."""
    joined: list[Mention] = []
    listed = False
    for mention in found:
        last = joined[-1] if joined else None
        if last and _damages(mention, last, clause, lexicon):
            joined[-1] = replace(last, attributes=last.attributes._replace(position="bad"), last=mention.last)
        elif last and last.presence == mention.presence == "present":
            link = _link(last, mention, clause, lexicon) if _may_be_at_one_place(last, mention) else None
            pair = _Pair(last, mention, link, listed, joined, found, clause, lexicon)
            join = next((join for holds, join in _WAYS if holds(pair)), None)
            if join is None:
                joined.append(_at_the_place_of(last, mention, link, clause))
            else:
                join(pair)
                listed = join is _list_what_it_may_be or (_begins_a_list(pair) if join is _explain else listed)
        else:
            joined.append(mention)
    return joined


def _is_reason(pair: _Pair) -> bool:
    """As in "Kerley lines from pulmonary edema", of which the second is what matters."""
    return pair.link == "reversed"


def _add_reason(pair: _Pair) -> None:
    last, mention = pair.last, pair.mention
    if explains(last.concepts, mention.concepts, pair.lexicon):
        merged = _merged(last, mention, last.concepts, False)
        pair.joined[-1] = replace(merged, appearance=last.appearance, signs=(*merged.signs, *mention.concepts))
    else:
        pair.joined.append(mention)


def _is_explanation(pair: _Pair) -> bool:
    """As in "Opacity consistent with pneumonia"."""
    if not pair.link:
        return False
    if explains(pair.mention.concepts, pair.last.concepts, pair.lexicon):
        return True
    # "nodules and calcified nodes, consistent with silicosis" tells what the nodules are
    return (
        _is_said_to_be(pair.link, pair.last, pair.lexicon) and _earlier(pair.mention, pair.joined, pair.lexicon) is None
    )


def _explain(pair: _Pair) -> None:
    joined, last, related = pair.joined, pair.last, pair.lexicon.related
    joined[-1] = _explained(last, pair.mention, pair.tentative)
    sign = related(last.concepts, pair.mention.concepts)
    while len(joined) > 1 and pair.link != "direct" and _same_appearance(joined[-2], last, pair):
        if sign and not related(joined[-2].concepts, pair.mention.concepts):
            return  # "consolidation, and a blunted angle suggestive of an effusion"
        last = joined.pop(-2)
        joined[-1] = _explained(last, joined[-1], pair.tentative)


def _begins_a_list(pair: _Pair) -> bool:
    return pair.tentative and (pair.link == "differential" or _ends_in_or(pair.mention, pair.found, pair.clause))


def _shows(pair: _Pair) -> bool:
    """As in "Aspiration with patchy opacities", of which the first is what matters."""
    last, mention = pair.last, pair.mention
    vague = [pair.lexicon.concepts[one.concepts[0]].vague for one in (last, mention)]
    words = pair.clause.words
    apart = _set_off(last, mention, pair.clause)
    joints = [words[t.start] for t in pair.clause.of("conjunction", last.end, mention.start)]
    caused = not _RELATED.isdisjoint(words[last.end : last.end + 1])
    told = apart or caused or pair.link == "direct" or joints[-1:] == ["with"]
    hidden = words[mention.start].endswith("ing") and not pair.clause.of("conjunction", last.end, mention.start)
    if vague[1] and hidden and mention.state[0] == mention.start:
        return True  # "effusion obscuring the hemidiaphragm"
    if last.signs and pair.clause.one_list(last.end, mention.start):
        told = True  # "and the costophrenic angle"
    sign = vague[1] or not pair.lexicon.signs_of(last.concepts).isdisjoint(mention.concepts)
    broader = any((a, b) in pair.lexicon.distances for a in last.concepts for b in mention.concepts)
    if vague[0] and not (vague[1] and broader) or not (sign or apart and broader):
        return False
    if not told or not caused and mention.attributes.temporal not in (None, last.attributes.temporal):
        return False
    one, other = last.attributes.zones, mention.attributes.zones
    alike = (not _placed(last) or not other or one == other) and _may_be_at_one_place(last, mention)
    return alike and pair.lexicon.shows_by(last.concepts, mention.concepts)


def _add_sign(pair: _Pair) -> None:
    last, mention = pair.last, pair.mention
    merged = _merged(last, mention, last.concepts, False)
    told = last.attributes
    told = told._replace(temporal=told.temporal or mention.attributes.temporal)
    if not _placed(last) and pair.lexicon.concepts[last.concepts[0]].sided:
        where = mention.attributes
        told = told._replace(sides=where.sides, zones=where.zones, places=where.places)
    signs = (*merged.signs, *mention.concepts)
    pair.joined[-1] = replace(merged, attributes=told, appearance=last.appearance, signs=signs)


def _shows_more(pair: _Pair) -> bool:
    """As in "Opacity in the right lower zone with air bronchograms", which are told of no other place."""
    last, mention = pair.last, pair.mention
    if "with" not in pair.clause.words[last.end : mention.start] or _placed(mention) or mention.attributes.severity:
        return False
    if last.appearance or not pair.lexicon.concepts[last.concepts[0]].vague:
        return False
    return any((a, b) in pair.lexicon.distances for a in mention.concepts for b in last.concepts if a != b)


def _specify(pair: _Pair) -> None:
    pair.joined[-1] = _explained(pair.last, pair.mention, False)


def _goes_on(pair: _Pair) -> bool:
    """As in "May represent atelectasis, aspiration or pneumonia"."""
    return pair.listed and bool(pair.last.appearance) and _bare(pair.last, pair.mention, pair.clause)


def _is_differential(pair: _Pair) -> bool:
    """As in "Opacity at the left base, atelectasis or pneumonia"."""
    last, mention, clause = pair.last, pair.mention, pair.clause
    listed = "," in clause.words[last.end : mention.start] and _bare(last, mention, clause)
    if last.appearance or not (listed or _set_off(last, mention, clause)):
        return False
    return explains(mention.concepts, last.concepts, pair.lexicon) and _ends_in_or(mention, pair.found, clause)


def _is_named(pair: _Pair) -> bool:
    """As in "Opacity at the right base, pneumonia", and at the end "Bilateral hilar adenopathy, sarcoidosis"."""
    last, mention, clause = pair.last, pair.mention, pair.clause
    ends = mention is pair.found[-1] and not mention.attributes.severity
    if last.appearance or _placed(mention) or not (ends or pair.lexicon.concepts[last.concepts[0]].vague):
        return False
    if mention.attributes.temporal or clause.words[mention.first - 1] != "," or mention.first < last.end:
        return False
    return any((a, b) in pair.lexicon.distances for a in mention.concepts for b in last.concepts if a != b)


def _is_suspected(pair: _Pair) -> bool:
    """As in "The aortic knob is enlarged, aneurysm suspected"."""
    last, mention = pair.last, pair.mention
    narrower = mention.concepts != last.concepts and pair.lexicon.shows_by(mention.concepts, last.concepts)
    return narrower and mention.attributes == SUSPECTED and not last.attributes.uncertain and not last.appearance


def _list_what_it_may_be(pair: _Pair) -> None:
    pair.joined[-1] = _explained(pair.last, pair.mention, True)


def _is_alternative(pair: _Pair) -> bool:
    """As in "Atelectasis or pneumonia"."""
    start, end = pair.last.end, pair.mention.start
    return bool(pair.clause.of("alternative", start, end)) and pair.clause.one_list(start, end, articles=True)


def _add_alternative(pair: _Pair) -> None:
    concepts = (*pair.last.concepts, *pair.mention.concepts)
    pair.joined[-1] = _merged(pair.last, pair.mention, concepts, True)


def _names_again(pair: _Pair) -> bool:
    """As in "Pneumothorax with mediastinal shift, concerning for tension pneumothorax"."""
    told = pair.link in ("tentative", "firm") or pair.mention.attributes == SUSPECTED
    return told and _earlier(pair.mention, pair.joined, pair.lexicon) is not None


def _rename(pair: _Pair) -> None:
    place = _earlier(pair.mention, pair.joined, pair.lexicon)
    if place is not None:
        named = _explained(pair.joined[place], pair.mention, False)
        other = (pair.tentative or pair.mention.attributes == SUSPECTED) and pair.mention.concepts != pair.joined[
            place
        ].concepts
        pair.joined[place] = replace(named, attributes=named.attributes._replace(uncertain=other))


def _is_one_device(pair: _Pair) -> bool:
    """As in "TEVAR stent", "mediport catheter": the kind of a device behind its name."""
    last, mention = pair.last, pair.mention
    concepts = pair.lexicon.concepts
    if last.end != mention.start or not concepts[last.concepts[0]].device:
        return False
    return any((a, b) in pair.lexicon.distances for a in last.concepts for b in mention.concepts)


def _add_kind(pair: _Pair) -> None:
    pair.joined[-1] = _merged(pair.last, pair.mention, pair.last.concepts, False)


# How a mention may belong to the one before it, and what then becomes of both; the first that holds.
_WAYS: tuple[tuple[Callable[[_Pair], bool], Callable[[_Pair], None]], ...] = (
    (_is_one_device, _add_kind),
    (_is_reason, _add_reason),
    (_shows, _add_sign),
    (_is_differential, _list_what_it_may_be),
    (_is_explanation, _explain),
    (_is_suspected, _list_what_it_may_be),
    (_is_named, _specify),
    (_shows_more, _specify),
    (_goes_on, _add_alternative),
    (_names_again, _rename),
    (_is_alternative, _add_alternative),
)


def _set_off(left: Mention, right: Mention, clause: Clause) -> bool:
    """Whether a colon, dash or bracket and no word but modifiers stands between: "Pancoast tumor: mass at the apex"."""
    if right.first == left.last + 1:  # "Silicosis: fine nodules"
        unknown = not any(tag.start <= left.last < tag.end for tag in clause.tags)
        return unknown and clause.set_off(left.last)
    return right.first == left.last and clause.set_off(right.first)


def _at_the_place_of(last: Mention, mention: Mention, link: str | None, clause: Clause) -> Mention:
    """A diagnosis beside another one, at the place of the appearance that both explain: "density at the left base, likely A and B"."""
    beside = (last.appearance or last.signs) and _bare(last, mention, clause)
    if _placed(mention) or not (beside or link in ("firm", "tentative", "differential")):
        return mention
    if lexicon().concepts[last.concepts[0]].directed:
        return mention
    told = last.attributes
    placed = mention.attributes._replace(
        sides=told.sides,
        zones=told.zones,
        places=told.places,
        uncertain=mention.attributes.uncertain or bool(last.appearance),
    )
    return replace(mention, attributes=placed)


def _may_be_at_one_place(left: Mention, right: Mention) -> bool:
    one, other = left.attributes.sides, right.attributes.sides
    return not one or not other or bool(one & other)


def _is_said_to_be(link: str, appearance: Mention, lexicon: Lexicon) -> bool:
    """Whether words say what a focal finding is, whatever it is: "nodular density that represents a healing fracture"."""
    return link != "direct" and any((concept, "nodule") in lexicon.distances for concept in appearance.concepts)


def _bare(left: Mention, right: Mention, clause: Clause) -> bool:
    """Whether the right one follows in a list, with no place, degree or change of its own."""
    told = [t for t in clause.modifiers(left.end, right.start) if t.kind in ("side", "zone", "severity", "temporal")]
    return not told and clause.one_list(left.end, right.start)


def _ends_in_or(first: Mention, found: Sequence[Mention], clause: Clause) -> bool:
    """Whether an "or" stands in the list that a mention begins."""
    end = first.end
    for mention in found:
        if mention.start >= end and clause.one_list(end, mention.start):
            if clause.of("alternative", end, mention.start):
                return True
            end = mention.end
    return False


def _earlier(mention: Mention, joined: Sequence[Mention], lexicon: Lexicon) -> int | None:
    """Which finding before the last one a diagnosis names again, more exactly."""
    for place in range(len(joined) - 2, -1, -1):
        earlier = joined[place]
        narrower = any((a, b) in lexicon.distances for a in mention.concepts for b in earlier.concepts)
        if earlier.presence == "present" and narrower and not mention.attributes.sides - earlier.attributes.sides:
            return place
    return None


def _damages(mention: Mention, device: Mention, clause: Clause, lexicon: Lexicon) -> bool:
    if not lexicon.device_damage.issuperset(mention.concepts):
        return False
    return lexicon.concepts[device.concepts[0]].device and clause.copula(device.end, mention.start)


def _link(left: Mention, right: Mention, clause: Clause, lexicon: Lexicon) -> str | None:
    """What makes the right mention an explanation of the left one: a value of `link`; None if nothing does."""
    links = clause.of("link", left.end, right.start)
    told = {t.value for t in links} - {"direct"}
    if told:
        return next(value for value in ("differential", "reversed", "tentative", "firm") if value in told)
    if clause.of("conjunction", left.end, right.start):
        return None
    named = clause.words[left.end : right.start]
    if lexicon.concepts[left.concepts[0]].vague and tuple(named[-2:]) in _IS_A:
        return "firm"  # "the opacity behind the heart is a hiatal hernia"
    said = clause.words_between(left.end, right.start) if left.end < right.start else 0
    between = said & ~clause.places(*_AROUND)
    if links and between == clause.bits(links) & ~clause.places("glue", "prior", "earlier", "joint"):
        return "direct"
    # "ground-glass right upper lobe nodule": an appearance that stands as an adjective
    # but not "ground glass superimposed on fibrosis"
    leads = (
        left.end < right.start
        and "superimposed" not in named
        and not between
        and not clause.has(left.end, right.start, "joint")
    )
    return "direct" if leads else None


def _same_appearance(earlier: Mention, last: Mention, pair: _Pair) -> bool:
    """Whether two appearances before one explanation are one: "opacities with air bronchograms consistent with pneumonia"."""
    lexicon, diagnosis = pair.lexicon, pair.mention.concepts
    signs = all(
        lexicon.concepts[m.concepts[0]].vague or lexicon.shows_by(diagnosis, m.concepts) for m in (earlier, last)
    )
    here = earlier.presence == "present" and _may_be_at_one_place(earlier, last)
    return signs and here and pair.clause.only(earlier.end, last.start, *_BETWEEN_SIGNS)


def _explained(appearance: Mention, diagnosis: Mention, tentative: bool) -> Mention:
    diagnosis = replace(diagnosis, concepts=made_of(appearance.concepts, diagnosis.concepts))
    concepts = (*appearance.concepts, *diagnosis.concepts) if tentative else diagnosis.concepts
    if not tentative and any((a, b) in lexicon().distances for a in appearance.concepts for b in diagnosis.concepts):
        concepts = appearance.concepts  # "wedge deformity of T8, in keeping with fracture"
    signs_left = appearance.appearance or appearance.concepts  # "opacity, likely edema, less likely infection"
    left = tuple(c for c in signs_left if c not in diagnosis.concepts) if tentative else ()
    signs = () if tentative else diagnosis.concepts if concepts == appearance.concepts else appearance.concepts
    merged = _merged(appearance, diagnosis, concepts, tentative)
    return replace(merged, appearance=left + diagnosis.appearance, signs=(*merged.signs, *signs))


def made_of(appearance: Sequence[str], diagnosis: Sequence[str]) -> tuple[str, ...]:
    """What a diagnosis is of an appearance: of a "lytic lesion of a rib, likely metastasis" a metastasis of bone."""
    composites = lexicon().composites
    made = {b: composites[a, b] for a in appearance for b in diagnosis if (a, b) in composites}
    return tuple(made.get(concept, concept) for concept in diagnosis)


def explains(diagnosis: Iterable[str], appearance: Sequence[str], lexicon: Lexicon) -> bool:
    """Whether a diagnosis after "consistent with" and the like is about the appearance before it."""
    return lexicon.concepts[appearance[0]].vague or lexicon.shows_by(tuple(diagnosis), appearance)


def _merged(left: Mention, right: Mention, concepts: tuple[str, ...], uncertain: bool) -> Mention:
    attributes = left.attributes.with_those_of(right.attributes)
    return Mention(
        tuple(dict.fromkeys(concepts)),
        left.start,
        right.end,
        appearance=left.appearance + right.appearance,
        signs=left.signs + right.signs,
        taken_up=left.taken_up,
        attributes=attributes._replace(uncertain=attributes.uncertain or uncertain),
        first=min(left.first, right.first),
        last=max(left.last, right.last),
        named_by=left.named_by + right.named_by,
        decided_by=left.decided_by + right.decided_by,
        told_by=left.told_by + right.told_by,
    )
