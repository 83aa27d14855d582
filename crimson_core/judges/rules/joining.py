"""Which mentions of a clause are one finding: an appearance with its explanation, a disease with its signs, alternatives."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from crimson_core.judges.rules.attributes import NOTHING, SUSPECTED, Mention, meet
from crimson_core.judges.rules.clauses import Clause
from crimson_core.judges.rules.lexicon import Lexicon, lexicon
from crimson_core.judges.rules.sharing import BETWEEN_SIGNS

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
    "joint",
    "definite",
)


def _within(outer: Mention, inner: Mention) -> bool:
    """Whether a place lies at the side of another one that names no zone."""
    return outer.attributes.sides == inner.attributes.sides and not outer.attributes.zones


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


def joined(found: Sequence[Mention], clause: Clause, lexicon: Lexicon) -> list[Mention]:
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
    if explains(last.concepts, mention.concepts, pair.lexicon) or _is_seen_as(pair):
        merged = _merged(last, mention, last.concepts, False)
        pair.joined[-1] = replace(merged, appearance=last.appearance, signs=(*merged.signs, *mention.concepts))
    else:
        pair.joined.append(mention)


def _is_seen_as(pair: _Pair) -> bool:
    """As in "Fluid in the fissure seen as a rounded density", which is no nodule."""
    links = pair.clause.of("link", pair.last.end, pair.mention.start)
    told = any(t.value == "reversed" and pair.clause.words[t.end - 1] == "as" for t in links)
    return told and _is_said_to_be("reversed", pair.mention, pair.lexicon)


def _is_explanation(pair: _Pair) -> bool:
    """As in "Opacity consistent with pneumonia"."""
    if not pair.link:
        return False
    if explains(pair.mention.concepts, pair.last.concepts, pair.lexicon):
        # "apical mass with destruction of a rib, consistent with lung cancer" tells what the mass is
        plain = not pair.lexicon.concepts[pair.last.concepts[0]].vague
        unrelated = plain and not pair.lexicon.related(pair.mention.concepts, pair.last.concepts)
        return not (unrelated and _renames_earlier(pair))
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
    caused = not pair.lexicon.words["related"].isdisjoint(words[last.end : last.end + 1])
    told = apart or caused or pair.link == "direct" or not pair.lexicon.words["holding"].isdisjoint(joints[-1:])
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
    alike = (not last.attributes.placed or not other or one == other) and _may_be_at_one_place(last, mention)
    return alike and _shows_by(last.concepts, mention.concepts, pair.lexicon)


def _add_sign(pair: _Pair) -> None:
    last, mention = pair.last, pair.mention
    merged = _merged(last, mention, made_of(mention.concepts, last.concepts), False)  # "TB with miliary nodules"
    if mention.concepts == last.concepts:  # "air and fluid in the pleural space (small hydropneumothorax)"
        pair.joined[-1] = replace(merged, appearance=last.appearance)
        return
    told = last.attributes
    told = told._replace(temporal=told.temporal or mention.attributes.temporal)
    if not last.attributes.placed and pair.lexicon.concepts[last.concepts[0]].sided:
        where = mention.attributes
        told = told._replace(sides=where.sides, zones=where.zones, places=where.places)
    signs = (*merged.signs, *mention.concepts)
    pair.joined[-1] = replace(merged, attributes=told, appearance=last.appearance, signs=signs)


def _shows_more(pair: _Pair) -> bool:
    """As in "Opacity in the right lower zone with air bronchograms", which are told of no other place."""
    last, mention = pair.last, pair.mention
    if (
        "with" not in pair.clause.words[last.end : mention.start]
        or mention.attributes.placed
        or mention.attributes.severity
    ):
        return False
    if last.appearance or not pair.lexicon.concepts[last.concepts[0]].vague:
        return False
    return any((a, b) in pair.lexicon.distances for a in mention.concepts for b in last.concepts if a != b)


def _specify(pair: _Pair) -> None:
    pair.joined[-1] = _explained(pair.last, pair.mention, False)


def _is_left_open(pair: _Pair) -> bool:
    """As in "Opacity, possibly atelectasis, with superimposed infection not excluded"."""
    last, mention = pair.last, pair.mention
    open_ = any(cue.value == "not_excluded_after" for _, cue in mention.decided_by)
    if not open_ or mention.attributes != SUSPECTED:
        return False
    return explains(mention.concepts, last.appearance or last.concepts, pair.lexicon)


def _goes_on(pair: _Pair) -> bool:
    """As in "May represent atelectasis, aspiration or pneumonia"."""
    last, mention = pair.last, pair.mention
    if not pair.listed or not last.appearance:
        return False
    return _bare(last, mention, pair.clause) or _is_alternative(pair)


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
    vague = pair.lexicon.concepts[last.concepts[0]].vague
    # "right heart border lost, RML collapse"
    here = not mention.attributes.placed or (vague and _within(last, mention))
    if last.appearance or not here or not (ends or vague):
        return False
    if mention.attributes.temporal or clause.words[mention.first - 1] != "," or mention.first < last.end:
        return False
    kinds = (pair.lexicon.distances, pair.lexicon.composites)  # "lytic lesion of a rib, metastasis"
    pairs = [(a, b) for a in mention.concepts for b in last.concepts if a != b]
    # "cavity at the apex, tuberculosis"
    shown = vague and not pair.lexicon.signs_of(mention.concepts).isdisjoint(last.concepts)
    return shown or any((a, b) in kinds[0] or (b, a) in kinds[1] for a, b in pairs)


def _is_said_to_sum_up(pair: _Pair) -> bool:
    """As in "Granular lungs with air bronchograms: respiratory distress syndrome"."""
    last, mention, clause = pair.last, pair.mention, pair.clause
    if (
        last.appearance
        or mention.attributes.placed
        or mention is not pair.found[-1]
        or not _set_off(last, mention, clause)
    ):
        return False
    return mention.concepts != last.concepts and _shows_by(mention.concepts, last.concepts, pair.lexicon)


def _sum_up(pair: _Pair) -> None:
    (_list_what_it_may_be if pair.mention.attributes.uncertain else _explain)(pair)


def _is_suspected(pair: _Pair) -> bool:
    """As in "The aortic knob is enlarged, aneurysm suspected"."""
    last, mention = pair.last, pair.mention
    narrower = mention.concepts != last.concepts and _shows_by(mention.concepts, last.concepts, pair.lexicon)
    return narrower and mention.attributes == SUSPECTED and not last.attributes.uncertain and not last.appearance


def _leave_open(pair: _Pair) -> None:
    (_add_alternative if pair.last.appearance else _list_what_it_may_be)(pair)


def _list_what_it_may_be(pair: _Pair) -> None:
    pair.joined[-1] = _explained(pair.last, pair.mention, True)


def _is_alternative(pair: _Pair) -> bool:
    """As in "Atelectasis or pneumonia"."""
    start, end, clause = pair.last.end, pair.mention.start, pair.clause
    if not clause.of("alternative", start, end):
        return False
    hedges = [cue for cue in clause.cues("uncertain_before") if start <= cue.start and cue.end <= end]
    return clause.one_list(start, hedges[0].start if hedges else end, articles=True) and (
        not hedges or clause.one_list(hedges[-1].end, end, articles=True)
    )


def _add_alternative(pair: _Pair) -> None:
    concepts = (*pair.last.concepts, *pair.mention.concepts)
    # of "pyopneumothorax/empyema" and "atelectasis/collapse" each names the other
    tags = pair.clause.of("alternative", pair.last.end, pair.mention.start)
    slashed = bool(tags) and all(pair.clause.words[t.start] == "/" for t in tags)
    alike = slashed and pair.lexicon.akin(pair.last.concepts, pair.mention.concepts)
    pair.joined[-1] = _merged(pair.last, pair.mention, concepts, not alike)


def _is_apposition(pair: _Pair) -> bool:
    """As in "The bronchus contains a foreign body, a tooth", the looser name at the end."""
    last, mention = pair.last, pair.mention
    if pair.clause.words[last.end : mention.start] not in ([",", "a"], [",", "an"]) or mention.attributes != NOTHING:
        return False
    looser = any((a, b) in pair.lexicon.distances for a in last.concepts for b in mention.concepts)
    return looser and mention is pair.found[-1]


def _names_again(pair: _Pair) -> bool:
    """As in "Pneumothorax with mediastinal shift, concerning for tension pneumothorax"."""
    mention = pair.mention
    last = mention is pair.found[-1] and mention.attributes == NOTHING and pair.clause.words[mention.first - 1] == ","
    # "Apical mass with destruction of a rib, Pancoast tumor."
    told = pair.link in ("tentative", "firm") or mention.attributes == SUSPECTED or last
    return told and _earlier(mention, pair.joined, pair.lexicon) is not None


def _renames_earlier(pair: _Pair) -> bool:
    """Whether the link leads to another name of a finding before the last one, which is no sign of it."""
    return pair.link != "direct" and _earlier(pair.mention, pair.joined, pair.lexicon) is not None


def _rename(pair: _Pair) -> None:
    place = _earlier(pair.mention, pair.joined, pair.lexicon)
    if place is not None:
        named = _explained(pair.joined[place], pair.mention, False)
        other = (pair.tentative or pair.mention.attributes == SUSPECTED) and pair.mention.concepts != pair.joined[
            place
        ].concepts
        pair.joined[place] = replace(named, attributes=named.attributes._replace(uncertain=other))


def _is_one_name(pair: _Pair) -> bool:
    """As in "TEVAR stent", "lymphoma mass": the kind of a thing behind its name."""
    last, mention = pair.last, pair.mention
    apart = last.end != mention.start or pair.clause.set_off(mention.start)
    if apart and not _is_its_own(pair):
        return False
    return any((a, b) in pair.lexicon.distances for a in last.concepts for b in mention.concepts if a != b)


def _is_its_own(pair: _Pair) -> bool:
    """Whether a bare "catheter" or "line" is a part of the device before it: "right chest port, catheter tip in the SVC"."""
    mention, words = pair.mention, pair.clause.words
    if not pair.lexicon.concepts[pair.last.concepts[0]].device:
        return False
    bare = mention.end == mention.start + 1 and mention.concepts != pair.last.concepts
    parted = words[pair.last.end : mention.start][-2:]
    return (
        bare
        and not mention.attributes.sides
        and bool(parted)
        and parted[-1] in {",", *pair.lexicon.words["of_a_device"]}
    )


def _add_kind(pair: _Pair) -> None:
    pair.joined[-1] = _merged(pair.last, pair.mention, pair.last.concepts, False)


# How a mention may belong to the one before it, and what then becomes of both; the first that holds.
_WAYS: tuple[tuple[Callable[[_Pair], bool], Callable[[_Pair], None]], ...] = (
    (_is_one_name, _add_kind),
    (_is_reason, _add_reason),
    (_shows, _add_sign),
    (_is_differential, _list_what_it_may_be),
    (_is_explanation, _explain),
    (_is_said_to_sum_up, _sum_up),
    (_is_suspected, _list_what_it_may_be),
    (_is_named, _specify),
    (_shows_more, _specify),
    (_is_left_open, _leave_open),
    (_goes_on, _add_alternative),
    (_is_apposition, _add_kind),
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
    if mention.attributes.placed or not (beside or link in ("firm", "tentative", "differential")):
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
    return meet(left.attributes.sides, right.attributes.sides)


def _is_said_to_be(link: str, appearance: Mention, lexicon: Lexicon) -> bool:
    """Whether words say what a focal finding is, whatever it is: "nodular density that represents a healing fracture"."""
    return link != "direct" and any((concept, "nodule") in lexicon.distances for concept in appearance.concepts)


def _bare(left: Mention, right: Mention, clause: Clause) -> bool:
    """Whether the right one follows in a list, with no place, degree or change of its own; "multifocal" is no place."""
    told = [
        t
        for t in clause.modifiers(left.end, right.start)
        if t.kind in ("side", "zone", "severity", "temporal") and t.value != "diffuse"
    ]
    return not told and clause.one_list(left.end, right.start)


def _ends_in_or(first: Mention, found: Sequence[Mention], clause: Clause) -> bool:
    """Whether an "or" stands in the list that a mention begins."""
    end = first.end
    for mention in found:
        if mention.start >= end and clause.one_list(end, mention.start, articles=True):
            if clause.of("alternative", end, mention.start):
                return True
            end = mention.end
    return False


def _earlier(mention: Mention, joined: Sequence[Mention], lexicon: Lexicon) -> int | None:
    """Which finding before the last one a diagnosis names again, more exactly."""
    for place in range(len(joined) - 2, -1, -1):
        earlier = joined[place]
        narrower = any((a, b) in lexicon.distances for a in mention.concepts for b in earlier.concepts)
        narrower = narrower or not lexicon.signs_of(mention.concepts).isdisjoint(earlier.concepts)
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
        if links[-1].value in ("tentative", "firm"):  # "forms a convexity, consistent with"
            told.discard("reversed")
        return next(value for value in ("differential", "reversed", "tentative", "firm") if value in told)
    if clause.of("conjunction", left.end, right.start):
        return None
    named = clause.words[left.end : right.start]
    is_a = len(named) > 1 and named[-2] in lexicon.words["copulas"] and named[-1] in lexicon.words["indefinite"]
    if is_a and lexicon.concepts[left.concepts[0]].vague:
        return "firm"  # "the opacity behind the heart is a hiatal hernia"
    said = clause.words_between(left.end, right.start) if left.end < right.start else 0
    between = said & ~clause.places(*_AROUND)
    if links and between == clause.bits(links) & ~clause.places("glue", "prior", "earlier", "joint"):
        return "direct"
    # "ground-glass right upper lobe nodule": an appearance that stands as an adjective
    # but not "ground glass superimposed on fibrosis"
    leads = (
        left.end < right.start
        and lexicon.words["on_another"].isdisjoint(named)
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
    return signs and here and pair.clause.only(earlier.end, last.start, *BETWEEN_SIGNS)


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
    diagnosis = tuple(diagnosis)
    named = any((a, b) in lexicon.composites for a in appearance for b in diagnosis)
    return lexicon.concepts[appearance[0]].vague or named or _shows_by(diagnosis, appearance, lexicon)


def _shows_by(diagnosis: Sequence[str], appearance: Sequence[str], lexicon: Lexicon) -> bool:
    """Whether an appearance is a sign of a diagnosis; a shift, with a direction of its own, stays a finding beside it."""
    directed = lexicon.concepts[appearance[0]].directed
    return (lexicon.related if directed else lexicon.shows_by)(diagnosis, appearance)


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
