"""A clause -> the findings it mentions: what each is called, what is said about it, and whether it is there."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from operator import attrgetter

from crimson_core.judges.rules.assertion import DECIDING_BEHIND, decide_presence
from crimson_core.judges.rules.attributes import Attributes, Mention, attributes_of, sizes_in
from crimson_core.judges.rules.clauses import Clause
from crimson_core.judges.rules.joining import joined
from crimson_core.judges.rules.lexicon import Concept, Lexicon, Tag, lexicon
from crimson_core.judges.rules.naming import named
from crimson_core.judges.rules.sharing import share

_PLACE = attrgetter("start", "end")
_HUGE = 5  # rank of severity
_OF_POSITION = frozenset(("sites", "position"))
_ONE_MORE = 2  # sides, "both" and another one


def mentions(clause: Clause, lexicon: Lexicon, before: tuple[str, ...] = ()) -> list[Mention]:
    """The findings that a clause names, in the order of the text; `before` are the concepts that were named last."""
    found = named(clause, lexicon, before)
    if not found:
        return []
    _assign_attributes(found, clause, lexicon)
    two_sided = len(clause.by_kind.get("side", ())) > 1
    if two_sided:
        found = [part for mention in found for part in _split_sides(mention, clause)]
    decide_presence(found, clause)
    if two_sided:
        ends = [*(mention.first for mention in found[1:]), clause.end]
        found = [
            part for mention, end in zip(found, ends, strict=True) for part in _gone_on_one_side(mention, end, clause)
        ]
    if len(found) == 1:
        return found
    share(found, clause)
    return joined(found, clause, lexicon)


def tells_something(clause: Clause) -> bool:
    """Whether a clause without a known finding may name one in other words: it denies nothing and says no normal thing."""
    silent = ("normal", "pronoun", "appearance")
    cues = ("negated_before", *DECIDING_BEHIND, "hypothetical", "history")
    return not any(clause.of(kind) for kind in silent) and not any(clause.cues(cue) for cue in cues)


def mention_of(clause: Clause, concept: str | None, lexicon: Lexicon) -> list[Mention]:
    """The whole clause as a mention of a concept; none of None."""
    if concept is None:
        return []
    mention = Mention((concept,), clause.start, clause.end)
    _assign_attributes([mention], clause, lexicon)
    decide_presence([mention], clause)
    return [mention]


def _assign_attributes(found: list[Mention], clause: Clause, lexicon: Lexicon) -> None:
    borders = [clause.start, *[_border(left, right, clause) for left, right in pairwise(found)], clause.end]
    for mention, (start, end) in zip(found, pairwise(borders), strict=True):
        concept = lexicon.concepts[mention.concepts[0]]
        tags = [t for t in clause.modifiers(start, end) if _belongs(t, mention, concept, clause, start, end)]
        if tags:
            tags = _meant(tags, mention, concept, clause, end)
        named = _named_at(mention) if concept.device else mention.end
        told = attributes_of(tags, clause, start, end, named, concept.device, concept.percent)
        if mention.state[0] and not told.temporal and _has_come(mention, clause):
            told = told._replace(temporal="new")
        if "prior" in clause.by_kind and not told.temporal and _is_of_the_past(mention, clause, lexicon):
            told = told._replace(temporal="old")
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


def _meant(tags: list[Tag], mention: Mention, concept: Concept, clause: Clause, end: int) -> list[Tag]:
    """The modifiers in a mention's words that tell what they do of others, as it is a device, a shift or something else."""
    if not concept.device:  # "free air, perforation suspected"
        tags = [t for t in tags if t.kind != "position"]
    if concept.directed:
        tags = _directions(tags, clause)
    elif concept.device:
        tags = _without_sides_of_veins(tags, mention, clause, end)
        tags = _without_its_way(tags, concept, mention, clause, end)
        tags = _without_where_it_was(tags, mention, clause, end)
    return _without_counts(tags, concept.device, clause)


def _without_where_it_was(tags: list[Tag], mention: Mention, clause: Clause, end: int) -> list[Tag]:
    """Without the place before a "now" that another place follows: "the tube, which was in the stomach, is now in the bronchus"."""
    words = lexicon().words
    now = next((place for place in range(mention.end, end) if clause.words[place] in words["now"]), None)
    if now is None or words["once"].isdisjoint(clause.words[mention.end : now]):
        return tags  # "the lead has slipped and now lies in the atrium"
    if not any(t.kind in _OF_POSITION and t.start > now for t in tags):
        return tags
    return [t for t in tags if t.kind not in _OF_POSITION or t.start > now or t.start < mention.end]


def _is_of_the_past(mention: Mention, clause: Clause, lexicon: Lexicon) -> bool:
    """Whether an injury is one of before: "previous right rib fractures"."""
    if (mention.concepts[0], "fracture") not in lexicon.distances:
        return False
    before = [t for t in clause.of("prior") if t.end <= mention.start and t.end == t.start + 1]
    return bool(before) and clause.only(before[-1].end, mention.start, "side", "zone", "severity", "descriptor", "glue")


def _named_at(device: Mention) -> int:
    """Where the name of a device ends; of the "tube in the right main bronchus" behind the tube."""
    return device.state[1] or device.end


def _has_come(mention: Mention, clause: Clause) -> bool:
    """Whether a state is one that was not there before: "now filled with mucus", "has collapsed since the last film"."""
    before, words = clause.words[mention.state[0] - 1], lexicon().words
    return before in words["now"] or (
        before in words["having"] and "since" in clause.words[mention.state[1] : clause.end]
    )


def _without_sides_of_veins(tags: list[Tag], mention: Mention, clause: Clause, end: int) -> list[Tag]:
    """The modifiers of a line, without the side of a vein that it ends in, which is the wrong vein if it is the other side's.

    "Left subclavian line in the right brachiocephalic vein".
    """
    own = {t.value for t in tags if t.kind == "side" and (t.start < mention.end or _is_way_in(t, clause))}
    veins = {t.start for t in clause.of("sites", mention.end, end) if t.value.endswith("_vein")} if own else set()
    of_veins = [t for t in clause.of("side", mention.end, end) if t.end in veins] if veins else []
    across = [t._replace(kind="position", value="bad") for t in of_veins if t.value not in own]
    return sorted([*(t for t in tags if t not in of_veins), *across], key=_PLACE)


def _without_its_way(tags: list[Tag], concept: Concept, mention: Mention, clause: Clause, end: int) -> list[Tag]:
    """The modifiers of a tube, without the right places before a tip in a wrong one: "loops in the stomach, tip in the gullet"."""
    tips = [at for at in range(mention.end, end) if clause.words[at] in lexicon().words["tip"]]
    sites = [t for t in tags if t.kind == "sites"] if tips else []
    behind = [t for t in sites if t.start > tips[-1]]
    if not behind or any(t.value not in concept.tip_misplaced for t in behind):
        return tags
    return [t for t in tags if t.kind != "sites" or t in behind]


def _leads_in(site: Tag, clause: Clause) -> bool:
    """Whether a vein is the one by which a line was put in: "via the right internal jugular vein", "from the neck"."""
    if not site.value.endswith("_vein"):
        return False
    before = clause.words[max(clause.start, site.start - 3) : site.start]
    if not lexicon().words["by_way_of"].isdisjoint(before):
        return True
    # "two central lines, right IJ and left PICC"
    side = clause.of("side", site.start - 1, site.start)
    return bool(side) and site.start - 2 > clause.start and clause.words[site.start - 2] == ","


def _is_way_in(side: Tag, clause: Clause) -> bool:
    """Whether a side is that of the arm or the way by which a line was put in."""
    return not lexicon().words["ways_in"].isdisjoint(clause.words[side.end : side.end + 2])


def _without_counts(tags: list[Tag], device: bool, clause: Clause) -> list[Tag]:
    """The modifiers without a "both" that counts: "both drains on the right", "both a mass and a node", "both on the left"."""
    told = {t.value for t in tags if t.kind == "side"}
    if "both" not in told:
        return tags

    def counts(side: Tag) -> bool:
        if clause.words[side.start : side.end] != ["both"]:
            return False
        following = clause.words[side.end : side.end + 1]
        placed = device or bool(clause.of("joint", side.end, side.end + 1))
        return (
            not lexicon().words["indefinite"].isdisjoint(following)
            or (len(told) == _ONE_MORE and placed)
            or _pairs(side, clause)
        )

    return [t for t in tags if not counts(t)]


def _pairs(both: Tag, clause: Clause) -> bool:
    """Whether "both" joins one finding and another one: "both atelectasis and edema", but not "both effusions and edema"."""
    named = next((t for t in clause.of("concept", both.end) if t.start == both.end), None)
    if named is None or clause.words[named.end : named.end + 1] != ["and"]:
        return False
    text = clause.sentence[: clause.spans[named.end - 1][1]]
    return not text.endswith("s") or text.endswith(("is", "us"))


def _directions(tags: list[Tag], clause: Clause) -> list[Tag]:
    """The modifiers of a shift, of the sides only those that tell where it goes, if any does: "left opacity with shift to the right"."""
    pointing = [t for t in tags if t.kind == "side" and _points(t, clause)]
    return [t for t in tags if t.kind != "side" or t in pointing] if pointing else tags


def _points(side: Tag, clause: Clause) -> bool:
    word = clause.words[side.start]
    if word.endswith("ward"):
        return True
    near, toward = range(max(clause.start, side.start - 2), side.start), lexicon().words["toward"]
    return any(clause.words[at] in toward and not clause.has(at, at + 1, "link") for at in near)  # but not "due to"


def _border(left: Mention, right: Mention, clause: Clause) -> int:
    """Where the words about one mention end and those about the next one begin: before the words that lead its name.

    A dash parts them, and a colon behind a first item: "consolidation, new, left lower lobe - likely aspiration",
    "shift to the left: collapse of the lung".
    """
    position = right.start
    if _acts(right, clause):
        return position
    while position > left.end and not _parts(position, left, clause):
        if clause.is_joint(position - 1) and not _measures(position - 1, clause):
            break
        position -= 1
    if position > left.end and clause.words[position - 1] == ",":
        position = _before_its_place(position, left, clause)
    return max(position, left.end)


def _acts(named: Mention, clause: Clause) -> bool:
    """Whether a name begins with what the finding before it does: "mass in the right upper lobe deviating the trachea"."""
    first, before = clause.words[named.start], clause.words[named.start - 1 : named.start]
    verb = first.endswith("ing") or not lexicon().words["relative"].isdisjoint(before)
    return (
        verb
        and named.end - named.start > 1
        and any(t.kind == "states" and t.start == named.start for t in named.named_by)
    )


def _measures(place: int, clause: Clause) -> bool:
    """Whether an "of" stands behind a measure, with which a name begins: "and a small amount of fluid"."""
    return clause.words[place] == "of" and clause.words[place - 1] in lexicon().words["measures"]


def _before_its_place(position: int, left: Mention, clause: Clause) -> int:
    """Where the place begins that stands before a name between commas: "calcified nodes and, in the right upper zone, a mass"."""
    first = position - 1
    while first > left.end and clause.has(first - 1, first, "side", "zone", "sites", "anatomy", "glue", "joint"):
        if clause.words[first - 1] == "and":
            break
        first -= 1
    opened = clause.words[first - 2 : first] == ["and", ","] or clause.words[first - 1] == "and"
    return first if opened and first < position - 1 and clause.of("joint", first, first + 1) else position


def _parts(position: int, left: Mention, clause: Clause) -> bool:
    """Whether a dash stands before a word, or a colon that no comma parts from the mention on its left."""
    if clause.dashed(position):
        return True
    return (
        clause.set_off(position) and clause.sign(position) == ":" and not clause.of("conjunction", left.end, position)
    )


def _belongs(tag: Tag, mention: Mention, concept: Concept, clause: Clause, start: int, end: int) -> bool:
    """Whether a modifier in a mention's words is about it."""
    device = concept.device
    if mention.state[0] <= tag.start and tag.end <= mention.state[1] and tag.kind == "severity":
        return bool(tag.value == _HUGE)  # "the heart is slightly large"
    if tag.value == "coiled" and mention.start <= tag.start and tag.end <= mention.end:
        return False  # "loop recorder", "embolization coil"
    if tag.kind == "temporal" and "no" in clause.words[max(0, tag.start - 1) : tag.start]:
        return False  # "no new findings: left effusion unchanged"
    if tag.kind == "severity" and clause.of("earlier", tag.start - 1, tag.start):
        return False  # "small effusion, previously large"
    if device and tag.kind in ("sites", "zone") and (tag.kind == "zone" or tag.start < _named_at(mention)):
        # before its name stands the way it was put in, but "left mainstem intubation" is out of place there
        return tag.kind == "sites" and (_is_placing(tag, clause) or bool(clause.of("position", tag.start, tag.end)))
    if device and tag.kind == "sites" and _leads_in(tag, clause):
        return False
    if device and tag.kind not in ("position", "temporal", "sites"):
        # What follows the tip, the end or the course of a device tells where it lies, not where it was put in.
        return not concept.sided or tag.start < mention.end or not clause.of("course", mention.end, tag.start)
    if tag.start >= mention.end:  # "in the right lung, not in the left"
        denied = (cue for cue in clause.cues("negated_before") if mention.end <= cue.start < tag.start)
        if not all(clause.of("clause_end", cue.end, tag.start) for cue in denied):
            return False
    if tag.kind == "side" and tag.start >= mention.end and _tells_on(tag, mention, clause, start, end):
        return False
    if "normal" not in clause.by_kind:
        return True
    # "left lung clear, right effusion": what is said to be normal has its own place
    piece = _piece(tag.start, clause, start, end)
    return mention.start in piece or not any(t.start in piece for t in clause.by_kind["normal"])


def _is_placing(site: Tag, clause: Clause) -> bool:
    """Whether a place before a device tells where it lies: "azygos malposition of the line"."""
    return not lexicon().words["placing"].isdisjoint(clause.words[site.end : site.end + 1])


def _tells_on(side: Tag, mention: Mention, clause: Clause, start: int, end: int) -> bool:
    """Whether a side behind a comma leads to something that is not read: "left effusion, the right side looks fine"."""
    piece = _piece(side.start, clause, start, end)
    behind_comma = clause.words[piece.start - 1] == "," and mention.start < piece.start
    if not behind_comma or not any(t.value != side.value for t in clause.of("side", start, piece.start)):
        return False
    stops = [t.start for t in clause.of("clause_end", side.end, piece.stop)]
    return not clause.is_read(side.end, min(stops, default=piece.stop))


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
                verbs = lexicon().words["having"] | lexicon().words["copulas"]
                of_both = all(clause.words[t.start] in verbs for t in change)
                return [replace(mention, attributes=_own(mention.attributes, part, of_both)) for part in parts]
    return [mention]


def _gone_on_one_side(mention: Mention, end: int, clause: Clause) -> Iterable[Mention]:
    """Two findings of "the effusion has cleared on the left but persists on the right", "none on the right, small on the left"."""
    cue = mention.decided_by[-1][1] if mention.presence == "absent" and mention.decided_by else None
    sides = [t for t in clause.of("side", mention.start, end) if t.value != "both"] if cue else []
    if cue is None or cue.kind != "assertion" or len(sides) != 2 or sides[0].value == sides[1].value:
        return [mention]
    between = sides[0].end, sides[1].start
    for joint in (*clause.of("conjunction", *between), *clause.of("clause_end", *between)):
        halves = (mention.start, joint.start), (joint.end, end)
        gone = int(cue.start >= joint.start)  # the half that denies it
        told = [t for t in clause.modifiers(*halves[1 - gone]) if t.kind in ("severity", "temporal")]
        if told:
            told.append(sides[1 - gone])
            here = attributes_of(told, clause, mention.start, mention.end, mention.end, False)
            there = replace(mention, attributes=mention.attributes._replace(sides=frozenset((sides[gone].value,))))
            still = replace(mention, attributes=here, presence="present", decided_by=(), told_by=tuple(told))
            return [still, there] if gone else [there, still]
    return [mention]


def _own(shared: Attributes, part: Attributes, change_of_both: bool) -> Attributes:
    """The attributes of one of two findings that are told together."""
    if part.severity or part.temporal:
        change = shared.temporal if change_of_both else part.temporal
        shared = shared._replace(severity=part.severity, temporal=change)
    return shared._replace(sides=part.sides)
