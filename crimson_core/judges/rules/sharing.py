"""What the findings of an enumeration share: a place, a change or a position that is told once for several."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from crimson_core.judges.rules.attributes import NOTHING, Mention
from crimson_core.judges.rules.clauses import MODIFIERS, Clause
from crimson_core.judges.rules.lexicon import lexicon

# What may stand between two findings at one place: "opacity in the left base with atelectasis".
BETWEEN_SIGNS = ("conjunction", "alternative", "anatomy", "definite", "glue", "joint", *MODIFIERS)
_PLACE_WORDS = 4  # "on the far left"
_HEADING = 6  # words: "Fractures (all left):"
_NOUN_ENDS = frozenset(("of", "in"))


def share(found: Sequence[Mention], clause: Clause) -> None:
    """Carry what an enumeration shares to each of its findings.

    A location: "left effusion and atelectasis", "effusion and atelectasis at the left base". A change: "new opacity and
    effusion", "cardiomegaly and effusion are unchanged". A position: "the tube and the line are in standard position".
    """
    if all(mention.attributes is NOTHING for mention in found):
        return
    fronted = _is_fronted(found[0], clause)
    heading, colon = side_of_heading(clause)
    leading = None  # a change that stands before a list as a noun: "worsening of the effusions and the edema"
    for left, right in pairwise(found):
        same_state = right.state != (0, 0) and right.state in (left.state, (left.start, left.end))
        if same_state:
            _share_with_state(left, right)
        if heading and right.start >= colon and (same_state or found[0].start >= colon) and _placed_alike(left, right):
            _tell(right, sides=right.attributes.sides or heading)
        leading = _change_before_list(left, right, leading, clause)
        if leading:
            _tell(right, temporal=right.attributes.temporal or leading)
        _share_with_container(left, right, clause)
        if left.start != right.start:
            _share_from_first(left, right, fronted, clause)
            if clause.one_list(left.end, right.start):
                _share_in_list(left, right, found, clause)
    _share_from_last(found, clause)


def _tell(mention: Mention, **told: Any) -> None:
    mention.attributes = mention.attributes._replace(**told)


def _share_with_state(left: Mention, right: Mention) -> None:
    """Share what is told of a state that two structures have: "healed fractures of the clavicle and the scapula"."""
    _tell(right, temporal=right.attributes.temporal or left.attributes.temporal)
    if _directed(left) and _directed(right) and not left.attributes.placed:
        _tell(left, sides=right.attributes.sides)  # "the trachea and the heart are displaced to the left"


def _change_before_list(left: Mention, right: Mention, before: str | None, clause: Clause) -> str | None:
    """The change that is told as a noun, or before a colon, in front of a list that goes on; `before` so far."""
    if left.start == right.start or not clause.one_list(left.end, right.start):
        return None
    nouns = [
        t
        for t in clause.of("temporal", left.first, left.start)
        if clause.words[t.end - 1] in _NOUN_ENDS or clause.set_off(t.end)  # "New: nodule and fracture"
    ]
    return nouns[-1].value if nouns else before


def _share_with_container(left: Mention, right: Mention, clause: Clause) -> None:
    """Place a finding where that lies which it is in: "plugging in a wide bronchus of the left lower lobe"."""
    if lexicon().words["within"].isdisjoint(clause.words[left.end : left.end + 1]):
        return
    told = right.attributes
    if told.placed and not left.attributes.placed:
        _tell(left, sides=told.sides, zones=told.zones)
    if not left.attributes.temporal and clause.of("temporal", right.end, right.last):
        # "plugging in a wide bronchus, worse than before" tells of the plugging
        _tell(left, temporal=told.temporal)
        _tell(right, temporal=None)


def _share_from_first(left: Mention, right: Mention, fronted: bool, clause: Clause) -> None:
    """Give a finding the side of the one in which or beside which it lies, and a shift the change of what pushes."""
    there = _lies_there(left, right, clause) or (fronted and clause.one_list(left.end, right.start, articles=True))
    if there and left.attributes.sides and not right.attributes.placed and _placed_alike(left, right):
        _tell(right, sides=left.attributes.sides)
    pushed = _directed(right) and not _directed(left) and clause.one_list(left.last, right.start)
    if pushed:  # "white-out, new, with shift": the shift came with it
        _tell(right, temporal=right.attributes.temporal or left.attributes.temporal)


def _share_in_list(left: Mention, right: Mention, found: Sequence[Mention], clause: Clause) -> None:
    """Share between neighbours in a list what stands before the first or behind the second of them."""
    bare = not clause.modifiers(left.end, right.start)
    change = left.attributes.temporal
    if bare and change and not right.attributes.temporal and clause.of("temporal", left.first, left.start):
        _tell(right, temporal=change)
    if not _placed_alike(left, right):
        return
    one, other = left.attributes, right.attributes
    if one.sides and left.first < left.start and not other.sides and (bare or other.zones):
        _tell(right, sides=one.sides, zones=other.zones or one.zones)
    elif one.sides and not other.placed and "with" in clause.words[left.end : right.start]:
        _tell(right, sides=one.sides)
    elif other.placed and right.last > right.end and not one.placed and not _explains_another(left, found, clause):
        _tell(left, sides=other.sides, zones=other.zones)


def _share_from_last(found: Sequence[Mention], clause: Clause) -> None:
    """Give all findings of a list the change and the position that are told behind it."""
    change = place = None
    for later, earlier in pairwise(found[::-1]):
        if later.start == earlier.start or not clause.one_list(earlier.end, later.start):
            change = place = None
            continue
        told = later.attributes
        change = told.temporal if clause.of("temporal", later.end, later.last) else change
        place = told.position if clause.of("position", later.end, later.last) else place
        own = earlier.attributes
        where = place if lexicon().concepts[earlier.concepts[0]].device else None
        if (change and not own.temporal) or (where and not own.position):
            _tell(earlier, temporal=own.temporal or change, position=own.position or where)


def _directed(mention: Mention) -> bool:
    return lexicon().concepts[mention.concepts[0]].directed


def _explains_another(mention: Mention, found: Sequence[Mention], clause: Clause) -> bool:
    """Whether a finding is what one before it is, which has its own place: "left opacity, suspicious for pneumonia, and a right nodule"."""
    before = max((m for m in found if m.end <= mention.start), key=lambda m: m.end, default=None)
    if before is None or not before.attributes.placed:
        return False
    linked = clause.of("link", before.end, mention.start)
    return bool(linked) or any(before.end <= cue.start < mention.start for cue in clause.cues("uncertain_before"))


def _is_fronted(first: Mention, clause: Clause) -> bool:
    """Whether a place stands before all that is there: "On the left there is a nodule and an effusion"."""
    begins = clause.of("joint", clause.start, clause.start + 1)
    return bool(begins and clause.of("side", clause.start, clause.start + _PLACE_WORDS)) and first.start > clause.start


def side_of_heading(clause: Clause) -> tuple[frozenset[str], int]:
    """The side that stands before a colon, and the word behind the colon: "Right base: opacity and a small amount of fluid"."""
    sides = clause.of("side", clause.start, clause.start + _HEADING) if ":" in clause.sentence else []
    if not sides:
        return frozenset(), 0
    ends = range(sides[0].end, min(clause.end, clause.start + _HEADING) + 1)
    colon = next((at for at in ends if ":" in clause.sign(at)), 0)
    told = {t.value for t in sides if t.end <= colon}
    return (frozenset(told) if len(told) == 1 and "both" not in told else frozenset()), colon


def _lies_there(left: Mention, right: Mention, clause: Clause) -> bool:
    """Whether a finding is said to be where the one before it is: "RUL consolidation containing a cavity"."""
    joints = [clause.words[t.start] for t in clause.of("conjunction", left.end, right.start)]
    inside = not lexicon().words["holding"].isdisjoint({*joints} - {"with"})
    if joints == ["with"] and clause.only(left.end, right.start, *BETWEEN_SIGNS):
        return True  # "effusion on the right with atelectasis"
    return inside or clause.has(left.end, right.start, "nearby")


def _placed_alike(left: Mention, right: Mention) -> bool:
    """Whether sides mean the same for two findings."""
    concepts = [lexicon().concepts[m.concepts[0]] for m in (left, right)]
    return all(concept.sided and not concept.directed for concept in concepts)
