"""What a clause names: findings by name, structures with a state, and what "the other one" and the like stand for."""

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from operator import attrgetter

from crimson_core.judges.rules.attributes import Mention
from crimson_core.judges.rules.clauses import Clause
from crimson_core.judges.rules.lexicon import Lexicon, Tag
from crimson_core.judges.rules.states import FARTHEST_STATE, add_alike, add_states, between

_NAMING = ("concept", "normal_of", "states", "anaphor")
_PLACE = attrgetter("start", "end")
_BESIDE = frozenset(("anatomy", "states"))
_TELLING_WHERE = frozenset(("side", "severity", "nearby"))
_BEFORE_A_BARE_STATE = ("glue", "severity", "extent", "side", "beside", "pronoun")  # "alongside it a little fluid"
_NEAR = 3  # words between "with" and a state
# Words before "a second one", and behind it with its size among them, in which its own degree and place stand.
_FARTHEST_DEGREE, _FARTHEST_PLACE = 3, 8


def named(clause: Clause, lexicon: Lexicon, before: tuple[str, ...]) -> list[Mention]:
    """Concepts by name, structures with their state, and words that take up what was named before."""
    if clause.by_kind.keys().isdisjoint(_NAMING):
        return []
    found = {t.start: Mention((t.value,), t.start, t.end, named_by=(t,)) for t in clause.by_kind.get("concept", ())}
    told_beside = not _BESIDE.isdisjoint(clause.by_kind)
    spent = _narrow(found, clause, lexicon) if found and told_beside else set()
    for tag in clause.by_kind.get("normal_of", ()):
        for inside in range(tag.start + 1, tag.end) if found else ():
            found.pop(inside, None)  # of a "normal thoracic kyphosis" the kyphosis is none
        there = found.get(tag.start)
        if there is None or (there.end < tag.end and there.concepts == (tag.value,)):  # "hilar nodes are not enlarged"
            found[tag.start] = Mention(
                (tag.value,), tag.start, tag.end, presence="absent", named_by=(tag,), decided_by=(("absent", tag),)
            )
    if "states" in clause.by_kind and "anatomy" in clause.by_kind:
        before_states = set(found)
        add_states(found, spent, clause, lexicon)
        made = [mention for start, mention in found.items() if start not in before_states]
        if made:
            _narrow_by_states(made, found, spent, clause, lexicon)
        add_alike(found, clause, lexicon)
    if "states" in clause.by_kind:
        _add_bare_states(found, clause, lexicon)
    for anaphor in clause.of("anaphor"):
        if concepts := _stands_for(anaphor, found.values(), before, clause, lexicon):
            found[anaphor.start] = Mention(concepts, anaphor.start, anaphor.end, named_by=(anaphor,))
    named = sorted(found.values(), key=_PLACE)
    if len(named) > 1 and not lexicon.words["malignant"].isdisjoint(clause.words):
        named = [*(a for a, b in pairwise(named) if not _is_its_adjective(a, b, clause, lexicon)), named[-1]]
    if len(named) > 1 and "position" in clause.by_kind:
        named = [named[0], *(b for a, b in pairwise(named) if not _is_verb_of(a, b, clause))]
    if "definite" in clause.by_kind:
        definite = {t.end for t in clause.by_kind["definite"]}
        for mention in named:
            start = mention.start
            if not definite.isdisjoint((start - 2, start - 1, start)):
                mention.taken_up = lexicon.words["other"].isdisjoint(clause.words[max(0, start - 2) : start])
    return named


def _is_its_adjective(word: Mention, named: Mention, clause: Clause, lexicon: Lexicon) -> bool:
    """Whether a word says of which kind the finding behind it is: "malignant right pleural effusion"."""
    alone = lexicon.words["malignant"].issuperset(clause.words[word.start : word.end])
    fluid = not lexicon.broader[named.concepts[0]].isdisjoint(lexicon.malignant_fluids)
    return alone and fluid and clause.only(word.end, named.start, "side", "anatomy", "severity")


def _stands_for(
    anaphor: Tag, found: Collection[Mention], before: tuple[str, ...], clause: Clause, lexicon: Lexicon
) -> tuple[str, ...]:
    """The concepts that an anaphor stands for: those of a finding in its clause, or those named last `before`; () if none."""
    word = clause.words[anaphor.start]
    if word in lexicon.words["one"] and clause.of("side", anaphor.start - 1, anaphor.start):
        same = _last_named(found, anaphor.start - 2)
        if same is not None:
            return same.concepts  # "left effusion, the right one has gone"
    if not _stands_alone(anaphor, clause, lexicon) or not _is_described(anaphor, clause):
        return ()
    # "a nodule in the right apex and a second one in the left base"
    same = _last_named(found, anaphor.start) if word in lexicon.words["one_more"] else None
    return same.concepts if same is not None else before


def _last_named(found: Iterable[Mention], end: int) -> Mention | None:
    return max((mention for mention in found if mention.end <= end), key=_PLACE, default=None)


def _stands_alone(anaphor: Tag, clause: Clause, lexicon: Lexicon) -> bool:
    """Whether an anaphor is no part of a longer name: "a smaller one on the left", but not "one small nodule"."""
    word, end = clause.words[anaphor.start], anaphor.end
    if word in lexicon.words["pointing"]:
        return True
    alone = clause.ends(end) or (bool(clause.of("joint", end, end + 1)) and clause.words[end] != "of")
    if word not in lexicon.words["alike"]:
        return alone
    # "The same on the left", but not "the effusion is the same on the left"
    opens = anaphor.start == clause.start + 1 or any(t.end == anaphor.start - 1 for t in clause.of("conjunction"))
    return alone and opens


def _is_described(anaphor: Tag, clause: Clause) -> bool:
    """Whether a place, a degree or the like stands beside an anaphor, which alone says nothing."""
    start, end = max(clause.start, anaphor.start - _FARTHEST_DEGREE), min(clause.end, anaphor.end + _FARTHEST_PLACE)
    return bool(clause.modifiers(start, end))


def _is_verb_of(subject: Mention, named: Mention, clause: Clause) -> bool:
    """Whether a name is what the device before it does: "the tube coils", "the tube passes down and coils in the stomach"."""
    runs_on = clause.words[named.start - 1] == "and" and clause.of("course", subject.end, named.start)
    return bool(subject.end == named.start or runs_on) and any(
        t[:2] == (named.start, named.end) for t in clause.of("position")
    )


def _add_bare_states(found: dict[int, Mention], clause: Clause, lexicon: Lexicon) -> None:
    """Add what needs no structure: "a little fluid on the right", but not "a cavity with fluid", "fluid in the trachea"."""
    states = [t for t in clause.of("states") if t.value in lexicon.bare_states]
    if not states or clause.by_kind.keys().isdisjoint(_TELLING_WHERE):
        return
    joints = clause.of("conjunction")
    taken = {position for m in found.values() for position in range(m.start, m.end)}
    for state in states:
        first = max((t.end for t in joints if t.end <= state.start), default=clause.start)
        last = min((t.start for t in joints if t.start >= state.end), default=clause.end)
        if state.start in taken or clause.has(first, last, "anatomy"):
            continue
        start = state.start
        while start > first and clause.has(start - 1, start, *_BEFORE_A_BARE_STATE):
            start -= 1
        # nothing that holds it, or does something to it, stands before
        held = first > clause.start and clause.words[first - 1] in lexicon.words["holding"]
        if (start == first and not held) or clause.has(start - 1, start, "assertion", "clause_end"):
            found[state.start] = Mention((lexicon.bare_states[state.value],), state.start, state.end, named_by=(state,))


def _narrow(found: dict[int, Mention], clause: Clause, lexicon: Lexicon) -> set[Tag]:
    """Give findings the name that their place or state makes of them: "mass in the mediastinum", "the lesion has cavitated".

    Returns:
        The states that did.
    """
    spent: set[Tag] = set()
    around = [*clause.of("anatomy"), *clause.of("states")]
    if lexicon.composites.keys().isdisjoint({(t.value, m.concepts[0]) for m in found.values() for t in around}):
        return spent
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
        and (
            "with" in clause.words[max(0, t.start - _NEAR) : t.start]
            or clause.has(max(clause.start, t.start - _NEAR), t.start, "showing")  # "displays an air crescent"
            or lexicon.words["within"].intersection(clause.words[t.end : t.end + 1])  # "cavitation in a nodule"
        )
        and any(
            other is not m and lexicon.composites.get((t.value, other.concepts[0])) == m.concepts[0]
            for other in found.values()
        )
    }
    beside = [t for t in around if t.start not in taken or t.start in damage]
    for mention in list(found.values()) if beside else ():
        first = mention.concepts[0]
        while tag := _narrowing(mention, [t for t in beside if t not in mention.named_by], clause, lexicon):
            named = mention.concepts[0]
            made = lexicon.composites[tag.value, named]
            mention.concepts, mention.named_by = (made,), (*mention.named_by, tag)
            if (made, named) not in lexicon.distances:
                # of a cavitating consolidation the other report may list the consolidation apart
                mention.signs = (named,)
            spent.add(tag)
            again = [t for t in beside if t is tag or lexicon.composites.get((t.value, first)) == made]
            for told in again:  # of a "necrotic mass with cavitation" the cavitation is told by both
                words = between(mention, told)
                apart = told is not tag and not clause.joined(words.start, words.stop, "conjunction")
                if told.start in damage and told.start in found and not apart:
                    del found[told.start]
                    spent.add(told)
                    mention.start, mention.end = min(mention.start, told.start), max(mention.end, told.end)
    return spent


def _narrow_by_states(
    made: Sequence[Mention], found: dict[int, Mention], spent: set[Tag], clause: Clause, lexicon: Lexicon
) -> None:
    """The same of structures and their states, by states that name nothing else: "metastatic destruction of the rib"."""
    told = {tag for mention in found.values() for tag in mention.named_by} | spent
    taken = {position for mention in found.values() for position in range(mention.start, mention.end)}
    free = [tag for tag in clause.of("states") if tag not in told and tag.start not in taken]
    for mention in made if free else ():
        if tag := _narrowing(mention, free, clause, lexicon):
            mention.concepts = (lexicon.composites[tag.value, mention.concepts[0]],)
            mention.named_by += (tag,)


def _narrowing(mention: Mention, beside: Sequence[Tag], clause: Clause, lexicon: Lexicon) -> Tag | None:
    """The nearest structure or state that makes another name of a finding's."""
    near = [t for t in beside if (t.value, mention.concepts[0]) in lexicon.composites]
    near.sort(key=lambda t: abs(t.start - mention.start))
    return next((t for t in near if _joined_to(mention, t, clause, lexicon)), None)


def _joined_to(name: Mention, tag: Tag, clause: Clause, lexicon: Lexicon) -> bool:
    """Whether a structure or state is said of what is named: only words that part nothing stand between them."""
    words = between(name, tag)
    if len(words) > FARTHEST_STATE or not clause.joined(words.start, words.stop, "course"):
        return False
    if _is_lacking(name, tag, clause):
        return False
    if tag.kind == "anatomy" and name.end <= tag.start and _has_a_state(tag, name.end, clause, lexicon):
        return False  # "mass displacing the trachea"
    if tag.end <= name.start and clause.has(words.start, words.stop, "anatomy"):
        return _is_shared(name, tag, clause, lexicon)
    leads = _leads_to(tag, clause)
    if tag.kind == "anatomy" and "concept" in leads and tag.start >= name.end:
        return False  # "mass and hilar adenopathy"
    # "nodule with calcification", but not "nodules with calcified hilar nodes"
    held = lexicon.words["holding"] if tag.kind == "states" and not leads else frozenset[str]()
    parting = [t for t in clause.of("conjunction", words.start, words.stop) if clause.words[t.start] not in held]
    if parting and tag.kind == "states":  # "the lead ends in the atrium and shows a fracture"
        verbs = {t.start for t in clause.of("showing", words.start, words.stop)}
        parting = [t for t in parting if t.end not in verbs]
    if parting and all(clause.words[t.start] == "," for t in parting) and _is_set_off(parting[-1], tag, clause):
        parting = []
    return not parting and not clause.has(words.start, words.stop, "alternative", "concept")


def _has_a_state(structure: Tag, start: int, clause: Clause, lexicon: Lexicon) -> bool:
    """Whether what stands between a word and a structure is the structure's state."""
    between = clause.of("states", start, structure.start)
    return any((structure.value, state.value) in lexicon.composites for state in between)


def _is_lacking(name: Mention, tag: Tag, clause: Clause) -> bool:
    """Whether what stands behind a name is denied: "bulla without a fluid level"."""
    return any(name.end <= cue.start < tag.start for cue in clause.cues("negated_before"))


def _is_shared(name: Mention, tag: Tag, clause: Clause, lexicon: Lexicon) -> bool:
    """Whether a state reaches over structures to a name: "calcified mediastinal and hilar nodes".

    But not in "calcified aorta and left nodule", where the structure makes another finding of the state.
    """
    made = lexicon.composites[tag.value, name.concepts[0]]
    structures = clause.of("anatomy", tag.end, name.start)
    own = {lexicon.composites.get((t.value, tag.value), made) for t in structures}
    # "fluid level in a left bulla", "calcification of hilar and mediastinal nodes"
    first = tag.end + (clause.words[tag.end] in {"of", *lexicon.words["within"]})
    return own == {made} and not clause.has(first, name.start, "concept", "joint")


def _leads_to(tag: Tag, clause: Clause) -> set[str]:
    """Whether a structure or a name follows, as "anatomy" and "concept": "calcification of the hilar nodes"."""
    behind = tag.end
    while behind < clause.end and clause.words[behind] in ("of", "the"):
        behind += 1
    return {kind for kind in ("anatomy", "concept") if any(t.start == behind for t in clause.of(kind, behind))}


def _is_set_off(comma: Tag, tag: Tag, clause: Clause) -> bool:
    """Whether a state, or at the end a place, is all that stands behind a comma.

    "Masses in both lungs, likely metastatic", "foreign body, right main bronchus".
    """
    place = tag.kind == "anatomy"
    ends = tag.end >= clause.end or (not place and clause.words[tag.end] == ",")
    beside = clause.places("side", "zone", "glue") if place else clause.places("link", "severity", "glue")
    hedges = clause.bits(clause.cues("uncertain_before"))
    said = clause.words_between(comma.end, tag.start) if comma.end <= tag.start else 0
    return clause.words[comma.start] == "," and ends and not said & ~(hedges | beside)
