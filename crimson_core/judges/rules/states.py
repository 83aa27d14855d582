"""Structures with their state, which name a finding together: "the heart is enlarged", "enlargement of the heart"."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from crimson_core.judges.rules.attributes import Mention
from crimson_core.judges.rules.clauses import Clause
from crimson_core.judges.rules.lexicon import Lexicon, Tag, lexicon

FARTHEST_STATE = 10  # words between a structure and its state
_ADJECTIVE = ("al", "ar", "ic", "ary")  # "pleural fluid", of which no word is said of the other


class _Scene(NamedTuple):
    """What the states of a clause are read in.

    Attributes:
        found: First word of each finding -> the finding; grows as states are read.
        taken: The words of findings that were named before the states are read.
        structures: Those that are not part of such a name.
        used: Structures that have been given a state; grows.
    """

    found: dict[int, Mention]
    taken: set[int]
    structures: Sequence[Tag]
    used: set[Tag]
    clause: Clause
    lexicon: Lexicon


def add_states(found: dict[int, Mention], spent: set[Tag], clause: Clause, lexicon: Lexicon) -> None:
    """Add what structures and their states name together, but for states that have been `spent`."""
    taken = {position for m in found.values() for position in range(m.start, m.end)}
    scene = _Scene(found, taken, [t for t in clause.of("anatomy") if t.start not in taken], set(), clause, lexicon)
    for state in clause.of("states"):
        near = _candidates(state, scene) if state not in spent else ()
        if not near:
            continue
        near = _nearest_first(state, near, scene)
        structure = next((t for t in near if _of_one(t, state, clause)), None)
        if structure is None or _is_of_what_acts(structure, state, scene) or _is_told_again(structure, state, scene):
            continue
        if _name(structure, state, scene):
            scene.used.add(structure)
            _add_enumerated(structure, state, near, scene)


def _candidates(state: Tag, scene: _Scene) -> list[Tag]:
    """The structures of which a state may be said, by where they and other findings stand."""
    composites = scene.lexicon.composites
    near = [t for t in scene.structures if (t.value, state.value) in composites]
    if near and _follows_a_copula(state, scene):
        near = [t for t in near if t.start < state.start]
    if not near:
        return near
    near = _heads(near, scene.clause)
    return [t for t in near if not any(is_other(t, state, scene) for is_other in _NOT_OF_IT)]


def _follows_a_copula(state: Tag, scene: _Scene) -> bool:
    """Whether a verb tells a state of what stands before it: "the heart is enlarged, the hilum normal".

    But not "the heart is enlarged with unfolding of the aorta", nor "again noted is enlargement of the heart".
    """
    clause, start = scene.clause, max(scene.clause.start, state.start - 3)
    if any(_is_predicate_of(mention, state, scene) for mention in scene.found.values()):
        return True
    told = not scene.lexicon.words["copulas"].isdisjoint(clause.words[start : state.start])
    return told and not clause.of("states", start, state.start) and any(t.end <= state.start for t in scene.structures)


def _is_predicate_of(named: Mention, state: Tag, scene: _Scene) -> bool:
    """Whether a verb tells a state of a finding: "the effusion is big and shifts the mediastinum"."""
    between = scene.clause.words[named.end : state.start]
    words = scene.lexicon.words
    return bool(between) and between[0] in words["copulas"] and words["leading_on"].issuperset(between[1:])


def _places_a_finding(structure: Tag, state: Tag, scene: _Scene) -> bool:
    """Whether a structure says where the finding behind it is: a "dense left lower lobe nodule" is a nodule."""
    return structure.start >= state.start and structure.end in scene.found and _is_adjective(structure, scene.clause)


def _is_heading(structure: Tag, state: Tag, scene: _Scene) -> bool:
    """Whether a structure stands over a finding that a state describes: "Mediastinum: bulky adenopathy"."""
    if structure.end > state.start or not scene.clause.set_off(structure.end):
        return False
    named = state.end
    while scene.clause.of("side", named, named + 1):
        named += 1
    return named in scene.found


def _precedes_a_degree(structure: Tag, state: Tag, scene: _Scene) -> bool:
    """Whether a state behind a structure is the degree of what follows: "Mediastinum: bulky right hilar nodes"."""
    return structure.start <= state.start and _is_degree(state, scene.found, scene.clause)


def _is_of_the_item_before(structure: Tag, state: Tag, scene: _Scene) -> bool:
    """Whether a state describes a finding in the next item of a list: "fluid in the fissures and prominent markings"."""
    return state.end in scene.found and bool(scene.clause.of("conjunction", structure.end, state.start))


def _is_of_what_is_shown(structure: Tag, state: Tag, scene: _Scene) -> bool:
    """Whether a state describes the finding that a structure holds: "both lungs contain calcified metastases"."""
    return state.end in scene.found and bool(scene.clause.of("showing", structure.end, state.start))


def _is_of_a_device(structure: Tag, state: Tag, scene: _Scene) -> bool:
    """Whether a state behind a structure describes a device: "dehiscence of the sternum with fractured and displaced wires"."""
    behind, clause = state.end, scene.clause
    if structure.start > state.start or not clause.of("conjunction", structure.end, state.start):
        return False
    while clause.has(behind, behind + 1, "states", "conjunction", "position"):
        behind += 1
    named = scene.found.get(behind)
    return bool(named and scene.lexicon.concepts[named.concepts[0]].device)


def _has_its_own(structure: Tag, state: Tag, scene: _Scene) -> bool:
    """Whether a structure in the next item leads to another state: "interstitial prominence and fissural fluid"."""
    if structure.start < state.end or not scene.clause.of("conjunction", state.end, structure.start):
        return False
    composites = scene.lexicon.composites
    behind = [t for t in scene.clause.of("states", structure.end) if t.start == structure.end]
    # but "enlarged liver and spleen pushing up the dome"
    return any((structure.value, t.value) in composites for t in behind)


def _shares_a_noun(structure: Tag, state: Tag, scene: _Scene) -> bool:
    """Whether a structure is one of two adjectives before a finding: "enlarged hilar and paratracheal nodes"."""
    joints = [t for t in scene.clause.of("conjunction", structure.end) if t.start == structure.end]
    if not joints or not _ends_as_adjective(structure, scene.clause):
        return False
    named = joints[0].end
    while scene.clause.of("side", named, named + 1):
        named += 1
    return named in scene.found and scene.clause.words[named].endswith(_ADJECTIVE)


def _is_what_a_finding_hides(structure: Tag, state: Tag, scene: _Scene) -> bool:
    """Whether a state only says what a finding before it hides: "consolidation obscuring the heart border"."""
    if structure.start < state.end or not scene.clause.words[state.end - 1].endswith("ing"):
        return False
    made = scene.lexicon.composites[structure.value, state.value]
    before = (mention for mention in scene.found.values() if mention.end <= state.start)
    return any(made in scene.lexicon.broader[mention.concepts[0]] for mention in before)


# Each asks whether a structure that could have a state has not this one.
_NOT_OF_IT = (
    _is_what_a_finding_hides,
    _places_a_finding,
    _is_heading,
    _precedes_a_degree,
    _is_of_the_item_before,
    _is_of_what_is_shown,
    _has_its_own,
    _is_of_a_device,
    _shares_a_noun,
)


def _nearest_first(state: Tag, structures: Sequence[Tag], scene: _Scene) -> list[Tag]:
    """Structures by their distance from a state; those behind it first where it leads to them.

    "A calcified hilum and calcification of the aorta", "mediastinal mass shifting the trachea".
    """
    leads = scene.clause.words[state.end : state.end + 1] == ["of"] or _acts_on(state, scene.structures, scene.clause)
    return sorted(structures, key=lambda t: (leads and t.start < state.start, abs(t.start - state.start)))


def _is_of_what_acts(structure: Tag, state: Tag, scene: _Scene) -> bool:
    """Whether a state is that of what acts on a structure behind it: "large, displacing the mediastinum"."""
    clause = scene.clause
    acting = [t for t in clause.of("states", state.end, structure.start) if clause.words[t.start].endswith("ing")]
    if acting and clause.words[state.end - 1].endswith("ing") and clause.of("conjunction", state.end, acting[0].start):
        return False  # "displacing and narrowing the trachea" tells two things of it
    return bool(acting)


def _is_told_again(structure: Tag, state: Tag, scene: _Scene) -> bool:
    """Whether a state says no more of a structure that has one.

    "Soft tissue prominence from a prominent osteophyte", "the enlarged heart is bigger".
    """
    if structure not in scene.used:
        return False
    clause = scene.clause
    of_another = state.end in scene.found or clause.of("temporal", state.start, state.end)
    return bool(of_another) or clause.words[state.end - 1].endswith("er")


def _name(structure: Tag, state: Tag, scene: _Scene) -> bool:
    """Add what a structure and its state name; whether they do name a finding together."""
    named = scene.found.get(state.start)
    if named and named.end == state.end:
        return _name_more_exactly(named, structure, state, scene)
    parting = _without_states(between(structure, state), structure, scene.clause)
    if not scene.taken.isdisjoint(range(state.start, state.end)) or not scene.taken.isdisjoint(parting):
        return False
    # of "the aorta is tortuous and calcified" the second finding is the second state alone
    alone = structure in scene.used
    start = state.start if alone else min(structure.start, state.start)
    scene.found[state.start] = Mention(
        (scene.lexicon.composites[structure.value, state.value],),
        start,
        state.end if alone else max(structure.end, state.end),
        predicate=start < state.start and not _ends_as_adjective(structure, scene.clause),
        state=(state.start, state.end),
        named_by=(structure, state),
    )
    return True


def _name_more_exactly(named: Mention, structure: Tag, state: Tag, scene: _Scene) -> bool:
    """Give a finding whose name is a state the name that its structure makes of it; False where it is of another one."""
    clause, lexicon = scene.clause, scene.lexicon
    concept = lexicon.composites[structure.value, state.value]
    words = between(structure, state)
    # "fluid in the fissure and effusions" and "effusions with fluid in the fissure" tell of two
    others = any((structure.value, t.value) in lexicon.composites for t in clause.of("states", words.start, words.stop))
    parted = any(not _joins_numbers(t, clause) for t in clause.of("conjunction", words.start, words.stop))
    apart = parted and (structure.end <= state.start or others)
    # "opacity of the left hemithorax from collapse of the upper lobe"
    apart = apart or (structure.end <= state.start and "from" in clause.words[words.start : words.stop])
    if named.concepts == (concept,) and structure.end == named.start:
        named.start = structure.start  # "pleural effusion" is quoted whole
    elif named.concepts[0] in lexicon.concepts[concept].broader and not apart:
        named.concepts = (concept,)  # "fracture of the left ribs" names more than a fracture
        named.named_by += (structure,)
        if structure.end < state.start and clause.copula(structure.end, state.start):
            named.start = structure.start  # "the sternum and the left ribs are fractured"
    elif structure.start > state.start and clause.words[state.end : state.end + 1] != ["of"]:
        return False  # "calcified plaques along the diaphragm and the chest wall"
    elif _is_another_kind(named, concept, lexicon) and clause.enumerated(structure, state):
        # "left rib and clavicle fractures"
        item = Mention((concept,), structure.start, structure.end, named_by=(structure, state))
        scene.found.setdefault(structure.start, item)
        return False
    return True


def _joins_numbers(conjunction: Tag, clause: Clause) -> bool:
    """Whether a conjunction stands between two numbers: "left ribs 4, 5 and 6 are fractured"."""
    around = clause.words[conjunction.start - 1 : conjunction.end + 1]
    return around[0].isdecimal() and around[-1].isdecimal()


def _add_enumerated(structure: Tag, state: Tag, near: Sequence[Tag], scene: _Scene) -> None:
    """Add the findings of structures that share a state with the one before.

    "Fractures of the left clavicle and the third rib", "left rib and clavicle fractures".
    """
    composites, found = scene.lexicon.composites, scene.found
    for other in near:
        concept = composites[other.value, state.value]
        if concept == composites[structure.value, state.value] or other.start in found:
            continue
        if _shares(other, structure, state, scene.clause):
            place = (state.start, state.end)
            found[other.start] = Mention((concept,), other.start, other.end, state=place, named_by=(other, state))


def _shares(other: Tag, structure: Tag, state: Tag, clause: Clause) -> bool:
    """Whether a structure is enumerated with the one that a state is said of, so that it is said of both."""
    # "enlarged heart, stable mediastinum", "enlargement of the spleen with displacement of the stomach"
    middle = sorted((structure.end, other.start))
    if clause.of("temporal", *middle) or clause.of("states", *middle):
        return False
    words = between(other, structure)  # not "enlarged nodes in both hila and beside the trachea"
    parted = state.start in words or clause.has(words.start, words.stop, "joint")
    return not parted and clause.enumerated(other, structure)


def _acts_on(state: Tag, structures: Sequence[Tag], clause: Clause) -> bool:
    """Whether a state is what is done to the structure that follows it."""
    if not clause.words[state.end - 1].endswith("ing") or clause.words[state.end : state.end + 1] == ["at"]:
        return False  # "disc space narrowing at T9"
    return any(0 <= t.start - state.end <= 1 for t in structures)


def _heads(structures: Sequence[Tag], clause: Clause) -> list[Tag]:
    """Structures in order, without those that only say which other one is meant.

    Of "T9-T10 disc space" that is the last, of "the nodes of the left hilum" the first.
    """
    leading: set[Tag] = set()
    by_start = {t.start: t for t in structures if t.end > t.start}
    for structure in reversed(structures):
        following = by_start.get(structure.end) if structure.end > structure.start else None
        if following and (following.value != structure.value or following in leading):
            leading.add(structure)
    of = {owned for whole, owned in pairwise(structures) if _belongs_to(whole, owned, clause)}
    return [t for t in structures if t not in leading and t not in of]


def _belongs_to(part: Tag, whole: Tag, clause: Clause) -> bool:
    """Whether only "of" and a side stand between two structures."""
    between = clause.words[part.end : whole.start]
    return between[:1] == ["of"] and clause.only(part.end, whole.start, "glue", "joint", "side", "definite")


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


def add_alike(found: dict[int, Mention], clause: Clause, lexicon: Lexicon) -> None:
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


def _without_states(words: range, structure: Tag, clause: Clause) -> set[int]:
    """Words between a structure and its state, but for another state of it: "calcification and ectasia of the aorta"."""
    found = set(words)
    if clause.of("conjunction", words.start, words.stop):
        for tag in clause.of("states", words.start, words.stop):
            if (structure.value, tag.value) in lexicon().composites:
                found -= set(range(tag.start, tag.end))
    return found


def _of_one(structure: Tag, state: Tag, clause: Clause) -> bool:
    """Whether nothing that matters parts a structure from a state."""
    if structure.start < state.end and state.start < structure.end:
        return False
    words = between(structure, state)
    if state.end <= structure.start and "," in clause.words[state.end : structure.start]:
        comma = structure.start - clause.words[state.end : structure.start][::-1].index(",")
        if not clause.of("states", comma, structure.start):
            return False  # "left pneumothorax, large, mediastinum midline", but "enlarged, tortuous aorta"
    return len(words) <= FARTHEST_STATE and clause.joined(words.start, words.stop)


def between(structure: Tag | Mention, state: Tag) -> range:
    """The words between a structure or finding and a state, whichever stands first."""
    return range(min(structure.end, state.end), max(structure.start, state.start))
