"""Whether the findings of a clause are there: negation with its reach, uncertainty, history, what is only asked about."""

from collections.abc import Iterator
from itertools import pairwise

from crimson_core.judges.rules.attributes import NOTHING, Mention
from crimson_core.judges.rules.clauses import MODIFIERS, Clause
from crimson_core.judges.rules.lexicon import Tag, lexicon

_VERB = 3  # words up to a comma: "is identified,"
_DENYING = frozenset(("negated_before",))
# Cues behind what they are about, and what they make of it.
DECIDING_BEHIND = {
    "negated_after": "absent",
    "removed_after": "absent",
    "unassessed_after": "unsaid",
    "advised_after": "unsaid",
}
_ADJECTIVE = ("ive", "ic", "ous", "al", "ory")
_APART = frozenset((",", "with"))
_NOT_DENIED = ("not_actionable_not_urgent", "benign_expected")  # what reports tell where it is, and not that it is not
_OF_ITS_OWN = ("side", "zone", "severity", "descriptor", "temporal", "glue", "definite")
_SAID_OF_IT = ("glue", "definite", "pronoun", "anaphor", "appearance", "extent", "prior", *MODIFIERS)
_DECIDING = frozenset(("normal", "elsewhere", "harmless"))


def decide_presence(found: list[Mention], clause: Clause) -> None:
    """Set `presence`, and `uncertain` among the attributes, of the mentions of a clause."""
    denials = clause.by_cue.get("negated_before", ())
    missing = [tag for tag in clause.of("states") if tag.value == "absent"] if denials else ()
    named = {tag.start for mention in found for tag in mention.named_by if tag in missing} if missing else ()
    for cue in denials:
        if cue.start in named:  # "absent breast shadow" is a name
            continue
        for mention in _denied_by(cue, found, clause):
            _decide(mention, "absent", cue)
    if len(found) > 1:
        _decide_beside(found, clause)
    others = not _DENYING.issuperset(clause.by_cue)
    if others:
        _decide_by_cues(found, clause)
    if not _DECIDING.isdisjoint(clause.by_kind):
        _decide_by_statements(found, clause)
    if others:
        _hedge_by_cues(found, clause)
    for tag in clause.by_kind.get("likewise", ()):
        _decide_alike(found, tag)


def _decide_beside(found: list[Mention], clause: Clause) -> None:
    """What a mention next to it makes of one."""
    for heading, denied in pairwise(found):
        # "Pneumothorax: no pneumothorax"
        if heading.concepts == denied.concepts and denied.presence == "absent":
            cue = next((cue for cue in clause.cues("negated_before") if cue.start == heading.end), None)
            if cue:
                _decide(heading, "absent", cue)
    for operation, reason in pairwise(found) if "for" in clause.words else ():
        # "lobectomy for carcinoma" tells of a carcinoma that was
        if _is_operation(operation) and clause.words[operation.end : reason.start] == ["for"]:
            _decide(reason, "unsaid", Tag(operation.end, reason.start, "rule", "what an operation was for"))


def _decide_by_cues(found: list[Mention], clause: Clause) -> None:
    """Answers, what is asked about, history, and what is denied, or said not to be seen, behind its name."""
    _decide_answered(found, clause)
    _decide_outweighed(found, clause)
    _decide_asked_about(found, clause)
    _decide_past(found, clause)
    for value, presence in DECIDING_BEHIND.items():
        for cue in clause.cues(value):
            if not _leads_on(cue, found, clause) and not _names_another(cue, found, clause):
                for mention in _list_before(found, cue, clause):
                    if _is_about(cue, mention, found, clause):
                        _decide(mention, presence, cue)


def _decide_answered(found: list[Mention], clause: Clause) -> None:
    """What forms answer: "Effusion: no"."""
    for value, presence in (("answered_no", "absent"), ("answered_nothing", "unsaid"), ("answered_perhaps", None)):
        for cue in clause.cues(value):
            for mention in found:
                if mention.start >= cue.end:
                    continue
                if presence:
                    _decide(mention, presence, cue)
                else:
                    _hedge(mention, cue)


def _decide_outweighed(found: list[Mention], clause: Clause) -> None:
    """What is less likely: "favor edema over infection"."""
    preferring = lexicon().words["preferring"]
    for cue in clause.cues("outweighed"):
        hedges = (*clause.cues("uncertain_before"), *clause.cues("uncertain_after"))
        if any(c.end <= cue.start and not preferring.isdisjoint(clause.words[c.start : cue.start]) for c in hedges):
            for mention in _list_after(found, cue, clause):
                _decide(mention, "unsaid", cue)


def _decide_asked_about(found: list[Mention], clause: Clause) -> None:
    """What somebody asks about, and history: "SOB ?PE", "evaluate for pneumonia", "history of pneumonia"."""
    symptoms = clause.by_kind.get("symptom", [])
    for cue in clause.cues("uncertain_before") if symptoms else ():
        for mention in found:
            if symptoms[0].end <= cue.start and cue.end <= mention.start:
                _decide(mention, "unsaid", cue)
    for value in ("hypothetical", "history"):
        for cue in clause.cues(value):
            for mention in found:
                # "evaluation of the heart reveals mild enlargement", "CT for the 2 cm nodule"
                found_already = value == "hypothetical" and _is_followed_up(cue, mention, clause)
                if cue.end <= mention.start and not clause.of("showing", cue.end, mention.end) and not found_already:
                    _decide(mention, "unsaid", cue)


def _is_followed_up(cue: Tag, mention: Mention, clause: Clause) -> bool:
    """Whether an examination is advised for what this one has found and measured: "Recommend CT for a new 2 cm nodule"."""
    advised = not lexicon().words["follow_up"].isdisjoint(clause.words[cue.start : mention.start])
    return advised and bool(mention.attributes.sizes_mm) and not _is_device(mention)


def _decide_past(found: list[Mention], clause: Clause) -> None:
    """What was once: "Three months after covid pneumonia, residual opacities"."""
    for cue in clause.cues("past"):
        for mention in found:
            if mention.start < cue.end or _is_operation(mention) or _is_device(mention) or _is_compound(cue, clause):
                continue
            said = cue.end + clause.words[cue.end].endswith("ed")  # "witnessed"
            if clause.only(said, mention.start, *_OF_ITS_OWN) and not clause.has(said, mention.start, "concept"):
                _decide(mention, "unsaid", cue)


def _is_compound(cue: Tag, clause: Clause) -> bool:
    """Whether "post" only makes another adjective: "post obstructive atelectasis", "post infectious bronchiectasis"."""
    following = clause.words[cue.end : cue.end + 1]
    return clause.words[cue.start : cue.end] == ["post"] and following != [] and following[0].endswith(_ADJECTIVE)


def _is_about(cue: Tag, mention: Mention, found: list[Mention], clause: Clause) -> bool:
    """Whether a denial behind a finding is about this finding."""
    if any(tag.value == "absent" and cue.start <= tag.start < cue.end for tag in mention.named_by):
        return False  # "the breast shadow is absent" is a name
    if cue.value == "removed_after" and not _is_removed(mention, cue, found, clause):
        return False
    if cue.value == "advised_after" and not _is_advised(mention, cue, clause):
        return False
    if _is_the_other(mention, cue, clause):
        return False
    # "the tube ends below the diaphragm, its tip is not seen" tells of the tip
    return not _of_its_tip(clause, mention.end, cue.start) and not _is_moved(mention, cue, found, clause)


def _is_the_other(mention: Mention, cue: Tag, clause: Clause) -> bool:
    """Whether a denial is about the one on the other side: "left effusion, the right one has gone"."""
    for one in clause.of("anaphor", mention.end, cue.start) if "anaphor" in clause.by_kind else ():
        of_one = {t.value for t in clause.of("side", mention.end, one.end) if t.end == one.start}
        if of_one and mention.attributes.sides and of_one.isdisjoint(mention.attributes.sides):
            return True
    return False


def _is_device(mention: Mention) -> bool:
    return lexicon().concepts[mention.concepts[0]].device


def _is_operation(mention: Mention) -> bool:
    return (mention.concepts[0], "postsurgical_change") in lexicon().distances


def _is_removed(mention: Mention, cue: Tag, found: list[Mention], clause: Clause) -> bool:
    """Whether it is a device that is out; of "out" alone only where that ends what is said: "Chest tube and drain out."."""
    if clause.words[cue.start : cue.end] == ["out"]:
        ends = clause.ends(cue.end) and any(other.end == cue.start and _is_device(other) for other in found)
        if not ends:
            return False
    return _is_device(mention)


def _is_advised(mention: Mention, cue: Tag, clause: Clause) -> bool:
    """Whether a device itself is advised, so that it is not there yet; not "repositioning of the tube is advised"."""
    before = mention.start - bool(clause.of("definite", mention.start - 1, mention.start))
    moved = before > clause.start and clause.words[before - 1] == "of"
    return _is_device(mention) and mention.end == cue.start and not moved


def _decide_alike(found: list[Mention], tag: Tag) -> None:
    """What is there, and how it has changed, as with what stands before: "the effusion has resolved, as has the edema"."""
    before = [mention for mention in found if mention.end <= tag.start]
    for mention in found if before else ():
        if mention.start >= tag.end:
            told = before[-1].attributes.temporal
            mention.attributes = mention.attributes._replace(temporal=mention.attributes.temporal or told)
            if before[-1].presence != mention.presence:
                _decide(mention, before[-1].presence, tag)


def _leads_on(cue: Tag, found: list[Mention], clause: Clause) -> bool:
    """Whether a denial is about what follows it: "opacity, less likely mass"."""
    hedges = any(other.start == cue.start and other.end == cue.end for other in clause.cues("uncertain_before"))
    return hedges and any(
        _first_word(mention, cue.end, clause) == cue.end for mention in found if mention.start >= cue.end
    )


def _names_another(cue: Tag, found: list[Mention], clause: Clause) -> bool:
    """Whether a denial is about a structure or state behind a comma: "pleural thickening, fluid has not recurred"."""
    named = max((mention.last for mention in found if mention.end <= cue.start), default=cue.start)
    comma = _last_comma(named, cue.start, clause)
    return comma is not None and clause.has(comma, cue.start, "states", "anatomy")


def _hedges_another(mention: Mention, cue: Tag, clause: Clause) -> bool:
    """Whether a hedge is about what has no name here: "pneumothorax, dehiscence of the anastomosis is suspected"."""
    comma = _last_comma(mention.last, cue.start, clause)
    if comma is None:
        return False
    if clause.has(comma, cue.start, "position") and not _is_device(mention):
        return True  # "free air, perforation suspected"
    return not clause.only(comma + 1, cue.start, *_SAID_OF_IT)


def _last_comma(start: int, end: int, clause: Clause) -> int | None:
    return next((place for place in range(end - 1, start - 1, -1) if clause.words[place] == ","), None)


def _decide_by_statements(found: list[Mention], clause: Clause) -> None:
    """What is said to be normal, not of this radiograph, or explained by what is no finding."""
    for normal in clause.of("normal"):
        for mention in found:
            # "interstitial markings are normal", but not "the clips are intact"
            vague = lexicon().concepts[mention.concepts[0]].vague
            plainly = clause.words[normal.start] in lexicon().words["plainly_normal"] and not _is_device(mention)
            beside = mention.end == normal.start
            # "Vascular engorgement: normal", "interstitial markings normal"
            answers = beside and (clause.set_off(normal.start) or (plainly and clause.ends(normal.end)))
            if (vague or plainly) and (answers or clause.copula(mention.end, normal.start)):
                _decide(mention, "absent", normal)
            leads = vague and normal.end <= mention.start
            if leads and clause.only(normal.end, mention.start, "conjunction", "glue"):
                _decide(mention, "absent", normal)  # "of normal size and density"
            # "volumes are low normal"
            if mention.end == normal.start and clause.words[mention.end - 1] in lexicon().words["low_or_high"]:
                _decide(mention, "absent", normal)
    occasions = {tag.end for tag in clause.of("earlier")}  # "chest before hip replacement: nodule"
    for elsewhere in [tag for tag in clause.of("elsewhere") if tag.start not in occasions][:1]:
        for mention in found:
            leads = mention.end <= elsewhere.start and _is_device(mention)
            if not leads:  # "the tip of the PICC points toward the elbow"
                _decide(mention, "unsaid", elsewhere)
    for harmless in clause.of("harmless"):
        for mention in found:
            if mention.end <= harmless.start and _is_all_it_is(mention, harmless, clause):
                if lexicon().words["perhaps"].isdisjoint(clause.words[mention.end : harmless.start]):
                    _decide(mention, "absent", harmless)
                else:
                    _hedge(mention, harmless)


def _hedge_by_cues(found: list[Mention], clause: Clause) -> None:
    for cue in clause.cues("uncertain_after"):
        if any(cue.end <= m.start and clause.one_list(cue.end, m.start) for m in found):
            continue  # "the opacity is likely pneumonia"
        for mention in _list_before(found, cue, clause):
            if not _hedges_another(mention, cue, clause):
                _hedge(mention, cue)
    for cue in clause.cues("not_excluded_after"):
        for mention in _list_before(found, cue, clause):
            _hedge(mention, cue)
    for cue in clause.cues("uncertain_before"):
        # "aortic dissection suspected", "hemothorax suspected, small pneumothorax"
        ends = clause.ends(cue.end) or clause.words[cue.end] in lexicon().words["giving_reasons"]
        ends = ends or clause.sign(cue.end).startswith(")")  # "effusion (?) on the left"
        behind = ends and any(m.end == cue.start for m in found)
        hedged = [] if behind else _list_after(found, cue, clause)
        if not hedged and (behind or cue.end >= clause.end):
            hedged = [m for m in _list_before(found, cue, clause) if not _hedges_another(m, cue, clause)]
        if not hedged:  # "small effusion, presumably blood"
            hedged = [m for m in found if m.end <= cue.start and any(t.start == cue.end for t in m.named_by)]
        for mention in hedged:
            _hedge(mention, cue)
        if hedged and hedged[0].first == cue.end:
            hedged[0].first = cue.start  # "possible left effusion" is quoted whole


def _is_all_it_is(mention: Mention, harmless: Tag, clause: Clause) -> bool:
    """Whether an appearance is explained by what is no finding: "density that represents a vessel on end"."""
    concept = lexicon().concepts[mention.concepts[0]]
    if concept.device or clause.of("concept", mention.end, harmless.start):
        return False
    linked = any(t.value in ("firm", "tentative") for t in clause.of("link", mention.end, harmless.start))
    # "the density is a vessel", "the apparent pneumothorax on the right is a skin fold"
    said = harmless.start - (clause.words[harmless.start - 1] in lexicon().words["articles"])
    return linked or clause.copula(mention.last, said) or (concept.vague and clause.copula(mention.end, said))


def _of_its_tip(clause: Clause, start: int, end: int) -> bool:
    return bool(clause.of("course", start, end)) or not lexicon().words["tip"].isdisjoint(clause.words[start:end])


def _is_moved(device: Mention, cue: Tag, found: list[Mention], clause: Clause) -> bool:
    """Whether a device has been drawn back and not out: "has been withdrawn and now terminates above the carina"."""
    if not _is_device(device):
        return False
    behind = min((m.start for m in found if m.start >= cue.end), default=clause.end)
    return bool(clause.of("course", cue.end, behind))


def _decide(mention: Mention, presence: str, cue: Tag) -> None:
    mention.presence = presence
    mention.decided_by += ((presence, cue),)


def _hedge(mention: Mention, cue: Tag) -> None:
    mention.attributes = mention.attributes._replace(uncertain=True)
    mention.decided_by += (("uncertain", cue),)


def _denied_by(cue: Tag, found: list[Mention], clause: Clause) -> Iterator[Mention]:
    """The mentions that a "no" or "without" before them denies.

    A structure and its state may hold the cue between them: "the heart is not enlarged". A denied list goes on until it is
    ended by "with", or by an item that is plainly affirmed: one with a degree, a side or a change of its own
    ("no consolidation, small left effusion"), or with a verb's sense ("no effusion, heart mildly enlarged"), or that
    nobody troubles to deny and that follows without a word or a sign between ("no pneumothorax degenerative changes"). Where an "or"
    follows, that item is still within the list ("no consolidation, large effusion or pneumothorax"); where it stands before, the
    list ends with the next comma.
    """
    after = [m for m in found if cue.end <= max(m.end, m.state[1])]
    removed = not lexicon().words["removal"].isdisjoint(clause.words[cue.start : cue.end])
    for position, mention in enumerate(after):
        if removed and not _is_device(mention):
            return  # "after removal of the drain a small pneumothorax is seen"
        if clause.of("negation_end", cue.end, mention.start):
            return
        if not position and not removed and _is_device(mention) and _denies_a_structure(cue, mention, clause):
            return  # "re-expansion of the left lung, drain in place"
        if not position and _ends_generally(cue, mention, clause):
            return  # "no acute process, old rib fractures"
        firm = [t for t in clause.of("link", cue.end, mention.start) if t.value == "firm"] if not position else ()
        if firm and "," in clause.words[cue.end : firm[0].start]:
            return  # "lucency without lung markings, diagnostic of a pneumothorax"
        inside = mention.start < cue.start  # "the heart is not enlarged", also of a second subject
        if _stays(mention, after[position - 1].end if position else cue.end, clause):
            return
        if position and not inside and not removed and not _goes_on(after[position - 1].end, clause):
            named_at = mention.end if mention.state[0] else mention.start  # "no mass and bulky left hilum"
            own = clause.modifiers(mention.first, named_at)
            linked = clause.of("link", after[position - 1].end, mention.start)  # "no line to suggest a large effusion"
            if mention.predicate or not linked and any(t.kind in ("severity", "side", "temporal") for t in own):
                return
            if _plainly_there(mention, after[:position], cue, clause):
                return
        yield mention


def _stays(device: Mention, start: int, clause: Clause) -> bool:
    """Whether a device behind what is gone is where it was: "removal of the ETT, NGT in place"."""
    if not _is_device(device) or clause.words[start : device.start].count(",") != 1 or clause.of("alternative", start):
        return False
    said = clause.words[device.end : device.end + _VERB]
    told = device.attributes
    return bool(told.position) or told.temporal == "stable" or not lexicon().words["staying"].isdisjoint(said)


def _denies_a_structure(cue: Tag, device: Mention, clause: Clause) -> bool:
    """Whether something is said of a structure, and the device stands behind it and a comma."""
    comma = _last_comma(cue.end, device.start, clause)
    return comma is not None and clause.has(cue.end, comma, "anatomy")


def _goes_on(start: int, clause: Clause) -> bool:
    """Whether a list goes on to an "or"; "ectasia/tortuosity" is one item."""
    return any(clause.words[t.start] != "/" for t in clause.of("alternative", start))


def _ends_generally(cue: Tag, mention: Mention, clause: Clause) -> bool:
    """Whether what a cue denies is a process or an abnormality in general, and something of its own stands behind a comma."""
    general = clause.of("general", cue.end, mention.start)
    if not general:
        return False
    end = general[-1].end
    # "no process is identified, old fractures", "no new findings: left effusion unchanged"
    if "," not in clause.words[end : end + _VERB] and not clause.set_off(end):
        return False
    return _of_its_own(mention) and not clause.of("alternative", mention.end)


def _plainly_there(mention: Mention, before: list[Mention], cue: Tag, clause: Clause) -> bool:
    """Whether an item behind a denied list begins something else."""
    between = clause.words[before[-1].end : mention.start]
    if "," not in between:
        return mention.first == before[-1].end and _is_never_denied(mention)
    verb = between[: between.index(",")]
    copulas, seen = lexicon().words["copulas"], lexicon().words["seen"]
    if not copulas.isdisjoint(verb) or (verb and (verb[-1] in seen or verb[-1].endswith("ed"))):
        return True  # "no fracture is seen, degenerative changes of the spine"
    told = mention.attributes
    bare = told == NOTHING and len(before) > 1  # "no pneumonia, tuberculosis, granuloma"
    if clause.of("alternative", cue.end, before[-1].start) or (_is_never_denied(mention) and not bare):
        return True
    lacking = any(t.start >= mention.end and clause.words[t.start] == "without" for t in clause.cues("negated_before"))
    return bool(
        lacking  # "no effusion, cardiomegaly without edema"
        or _is_device(mention)
        or told.sizes_mm
        or (told.sides and told.zones)
        or told.temporal == "old"
    )


def _of_its_own(mention: Mention) -> bool:
    return _is_told_more_of(mention) or _is_never_denied(mention)


def _is_told_more_of(mention: Mention) -> bool:
    """Whether a finding has a place, a degree, a size or a change of its own."""
    told = mention.attributes
    return bool(told.sides or told.zones or told.severity or told.temporal or told.sizes_mm)


def _is_plainly_told(mention: Mention) -> bool:
    """Whether a finding stands by itself, and not in a list of what is denied: "enlarged heart, effusion not seen"."""
    device = lexicon().concepts[mention.concepts[0]].device
    return _is_told_more_of(mention) or mention.state != (0, 0) or device


def _is_never_denied(mention: Mention) -> bool:
    concept = lexicon().concepts[mention.concepts[0]]
    return concept.device or concept.significance in _NOT_DENIED


def _list_before(found: list[Mention], cue: Tag, clause: Clause) -> list[Mention]:
    """The mention before a cue and those enumerated with it."""
    before = [m for m in found if m.end <= cue.start]
    enumerated = before[-1:]
    if len(before) < 2:
        return enumerated
    # "effusion with atelectasis has resolved", but not "atelectasis with pneumonia excluded"
    words = lexicon().words
    of_all = not (words["copulas"] | words["having"]).isdisjoint(clause.words[cue.start - 1 : cue.start + 1])
    of_all = of_all and words["relative"].isdisjoint(clause.words[cue.start - 2 : cue.start])
    for left, right in pairwise(before[::-1]):
        start = _first_word(left, right.end, clause)
        apart = clause.words[right.last : start]
        # "basal atelectasis, pneumonia excluded", but not "consolidation, large effusion or pneumothorax excluded"
        alone = bool(apart) and _APART.issuperset(apart) and not clause.of("alternative", right.end, cue.start)
        parted = alone and ("with" in apart or _is_plainly_told(right)) and not (of_all and "with" in apart)
        if parted or not (clause.one_list(right.end, start) or _is_listed_with_its_place(right, start, cue, clause)):
            break
        enumerated.append(right)
    return enumerated


def _is_listed_with_its_place(first: Mention, start: int, cue: Tag, clause: Clause) -> bool:
    """Whether a place behind the first of two findings parts them not: "nodules in the apices and calcified nodes are absent".

    But not where one verb tells of each: "there is a nodule in the left apex and effusion is absent".
    """
    copulas = lexicon().words["copulas"]
    # "are no longer seen", "are both gone"
    plural = not lexicon().words["plural_verbs"].isdisjoint(clause.words[cue.start - 2 : cue.start + 1])
    leads = copulas.isdisjoint(clause.words[clause.start : first.start]) and first.first == clause.start
    return plural and leads and first.end < first.last <= start and clause.one_list(first.last, start)


def _first_word(mention: Mention, start: int, clause: Clause) -> int:
    """Where the words before a name begin, known or not: "tunnelled" in "a drain and tunnelled line"."""
    position = mention.start
    while position > start and not clause.is_joint(position - 1):
        position -= 1
    return position


def _list_after(found: list[Mention], cue: Tag, clause: Clause) -> list[Mention]:
    """The mention after a cue and those enumerated with it; or the one that holds the cue ("heart is borderline enlarged")."""
    after = [m for m in found if m.end > cue.end]
    enumerated = after[:1]
    for left, right in pairwise(after):
        # "likely atelectasis, and a small effusion": what has a degree of its own is plainly there
        own = clause.of("severity", left.end, right.start) and not clause.of("alternative", left.end, right.start)
        if own or _is_device(left) != _is_device(right) or not clause.one_list(left.end, right.start):
            break
        enumerated.append(right)
    return enumerated
