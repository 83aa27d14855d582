"""What a clause names: findings by name, structures with their state, and words that take up what was named before."""

from collections.abc import Mapping, Sequence
from operator import attrgetter

from crimson_core.judges.rules.attributes import Mention
from crimson_core.judges.rules.clauses import Clause
from crimson_core.judges.rules.lexicon import Lexicon, Tag, lexicon

_NAMING = ("concept", "normal_of", "states", "anaphor")
_PLACE = attrgetter("start", "end")
_BESIDE = frozenset(("anatomy", "states"))
_NEAR = 3  # words between "with" and a state
_ADJECTIVE = ("al", "ar", "ic", "ary")  # "pleural fluid", of which no word is said of the other
_FARTHEST_STATE = 10  # words between a structure and its state


def named(clause: Clause, lexicon: Lexicon, before: tuple[str, ...]) -> list[Mention]:
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
        told_before = not lexicon.words["copulas"].isdisjoint(clause.words[before : state.start]) and not clause.of(
            "states", before, state.start
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
                predicate=start < state.start and not _ends_as_adjective(structure, clause),
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
    return bool(clause.of("zone", structure.start, structure.end)) or _ends_as_adjective(structure, clause)


def _ends_as_adjective(structure: Tag, clause: Clause) -> bool:
    return clause.words[structure.end - 1].endswith(_ADJECTIVE)


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
    return next((t for t in near if _joined_to(mention, t, clause, lexicon)), None)


def _joined_to(name: Mention, tag: Tag, clause: Clause, lexicon: Lexicon) -> bool:
    """Whether a structure or state is said of what is named: only words that part nothing stand between them."""
    between = _between(name, tag)
    start, end = between.start, between.stop
    if end - start > _FARTHEST_STATE or not clause.joined(start, end, "course"):
        return False
    if tag.start >= name.end and any(start <= cue.start < end for cue in clause.cues("negated_before")):
        return False  # "bulla without a fluid level"
    if tag.end <= name.start and clause.has(start, end, "anatomy"):
        # "calcified mediastinal and hilar nodes", but not "calcified aorta and left nodule"
        made = lexicon.composites[tag.value, name.concepts[0]]
        own = {lexicon.composites.get((t.value, tag.value), made) for t in clause.of("anatomy", start, end)}
        return own == {made} and not clause.has(start, end, "concept", "joint")
    behind = tag.end
    # "nodules with calcification of the hilar nodes"
    while behind < clause.end and clause.words[behind] in ("of", "the"):
        behind += 1
    leads = {kind for kind in ("anatomy", "concept") if any(t.start == behind for t in clause.of(kind, behind))}
    if tag.kind == "anatomy" and "concept" in leads and tag.start >= name.end:
        return False  # "mass and hilar adenopathy"
    # "nodule with calcification", but not "nodules with calcified hilar nodes"
    held = lexicon.words["holding"] if tag.kind == "states" and not leads else frozenset[str]()
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
