"""What a clause says of the findings named before it: more about them, what they are, or that they are gone."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from crimson_core.judges.rules.attributes import Attributes, attributes_of, sizes_in
from crimson_core.judges.rules.clauses import Clause
from crimson_core.judges.rules.lexicon import Tag, lexicon

_EXPLAINING = frozenset(("similar", "link", "appearance", "pronoun"))
_OPENING = frozenset(("pronoun", "position", "appearance"))
_OF_ONE = frozenset(("side", "zone", "sites", "severity", "descriptor"))
_TELLING = _OF_ONE | {"temporal"}  # attributes that may stand by themselves
_OF_FRAGMENTS = (*_TELLING, "dominant", "prior", "earlier", "extent", "glue", "joint", "definite", "conjunction")
_HEADING = 4  # words: "heart and great vessels:"
_LEADING = 6  # words of a link that opens a clause
# How firm each kind of link is.
_STRENGTH: Mapping[str, Literal["firmly", "tentatively"]] = {
    "firm": "firmly",
    "reversed": "firmly",
    "tentative": "tentatively",
    "differential": "tentatively",
}


class Continuation(NamedTuple):
    """What a clause that names no finding says of those that were named before.

    Attributes:
        attributes: Of the last one, if that is no device; None of a clause that only answers.
        of_device: Of the last one, if it is a device.
        states: Of the last one: "It has cavitated".
        gone: It is not there any more: "It has resolved".
        exception: It is there after all: "no effusion except for a trace on the left".
        answers_none: It is not there, if somebody asked: "? Pneumothorax. None seen."
    """

    attributes: Attributes | None
    of_device: Attributes | None
    states: tuple[str, ...]
    gone: bool
    exception: bool
    answers_none: bool


def continuation(clause: Clause) -> Continuation | None:
    """What a clause that names no finding says of those before it: "It measures 8 mm"; None if nothing."""
    answers = "negated_after" in clause.by_cue and _answers_none(clause)
    exception = clause.lead == "exception"
    if not exception and not _opens_as_more(clause) and not _is_fragment(clause):
        return Continuation(None, None, (), False, False, True) if answers else None
    start, end = clause.start, clause.end
    tags = clause.modifiers(start, end)
    # "Its tip runs up the right jugular vein": not the side where it was put in
    of_device = [t for t in tags if t.kind != "side"] if clause.of("course") else tags
    return Continuation(
        attributes_of(tags, clause, start, end, start, False),
        attributes_of(of_device, clause, start, end, start, True),
        _states_told(clause),
        _tells_gone(clause),
        exception,
        answers,
    )


def explanation(clause: Clause) -> Literal["firmly", "tentatively"] | None:
    """How a clause says what the finding before it is; None if it does not.

    "The appearance suggests pneumonia", "This is consistent with edema", "It is stable scarring".
    """
    if not (clause.by_cue or not _EXPLAINING.isdisjoint(clause.by_kind)):
        return None
    if clause.of("similar") or clause.cues("not_excluded_after"):
        return "tentatively"
    if any(t.value == "differential" and t.start <= clause.start + 2 for t in clause.of("link")):
        return "tentatively"
    leading = [t for t in clause.of("link", clause.start, clause.start + _LEADING) if t.value in ("firm", "tentative")]
    if leading and clause.only(clause.start, leading[0].start, "definite", "glue"):
        opened = clause.words[clause.start : leading[0].end]
        # "There is likely a hernia" is a finding
        if "there" not in opened and opened[-1] not in lexicon().words["articles"]:
            return _STRENGTH[leading[0].value]  # "Suggestive of edema", "Features of emphysema"
    opening = any(t.start == clause.start for t in clause.of("definite"))
    nouns = [t for t in clause.of("appearance") if t.start <= clause.start + 2]
    pronouns = [t for t in clause.of("pronoun") if t.start == clause.start]
    if not (nouns and (opening or nouns[0].start == clause.start)) and not pronouns:
        return None
    links = [t for t in clause.of("link") if t.start >= (nouns or pronouns)[0].end and t.value != "direct"]
    if links:
        return _STRENGTH[links[0].value]
    told = pronouns and clause.words[pronouns[0].end : pronouns[0].end + 1]
    return "firmly" if told and told[0] in lexicon().words["copulas"] else None


def is_under_a_structure(clause: Clause) -> bool:
    """Whether a structure stands before a clause as its heading: "Mediastinum: likely goiter"."""
    if ":" not in clause.sentence:
        return False
    return any(clause.set_off(tag.end) for tag in clause.of("anatomy", clause.start, clause.start + _HEADING))


def is_of_all(clause: Clause) -> bool:
    """Whether a clause that goes on speaks of all that was named before: "These are unchanged", "Worse."."""
    if _is_fragment(clause) and clause.by_kind.keys().isdisjoint(_OF_ONE):
        return True
    pronouns = [t for t in clause.of("pronoun") if t.start <= clause.start + 1]
    return bool(_overall(clause)) or any(
        not lexicon().words["all_of_them"].isdisjoint(clause.words[t.start : t.end]) for t in pronouns
    )


def _opens_as_more(clause: Clause) -> bool:
    """Whether a clause begins with what takes up something: "It", "Withdraw", "The findings"."""
    if _OPENING.isdisjoint(clause.by_kind):
        return False
    opening = (*clause.of("pronoun"), *clause.of("position"), *_overall(clause))
    return any(t.start <= clause.start + 1 for t in opening)


def _overall(clause: Clause) -> list[Tag]:
    """The opening of "The findings have worsened"."""
    return [t for t in clause.of("appearance") if t.start <= clause.start + 1] if "temporal" in clause.by_kind else []


def _is_fragment(clause: Clause) -> bool:
    """Whether a sentence holds nothing but attributes: "Large.", "2 cm, left apex.", "Unchanged since last year."."""
    if clause.start or clause.end < len(clause.words) or clause.sentence.endswith(":"):
        return False
    told = not _TELLING.isdisjoint(clause.by_kind) or next(sizes_in(clause, 0, clause.end, 0), None)
    return bool(told) and clause.holds_only(*_OF_FRAGMENTS)


def _tells_gone(clause: Clause) -> bool:
    """Whether a clause says that what was named before is not there: "It has resolved", "Neither is present today"."""
    opening = [t for t in clause.of("pronoun") if t.start <= clause.start + 1]
    if (
        not opening
        or clause.of("course")
        or not lexicon().words["tip"].isdisjoint(clause.words[clause.start : clause.end])
    ):
        return False
    denied = [*clause.cues("negated_after")]
    # "Neither is present", "Both have resolved"
    denied += [t for t in clause.cues("negated_before") if t.start == opening[0].start or t.end == clause.end]
    # "not seen on the lateral view" may be seen on another one
    return bool(denied) and lexicon().words["views"].isdisjoint(clause.words[denied[0].end : clause.end])


def _answers_none(clause: Clause) -> bool:
    """Whether a clause may answer a question with none: "? Pneumothorax. None seen."."""
    denied = any(clause.words[t.start] in lexicon().words["none"] for t in clause.cues("negated_after"))
    return denied and not (clause.of("side") or clause.of("zone"))


def _states_told(clause: Clause) -> tuple[str, ...]:
    """The states that a clause tells of what was named before: "It has cavitated"."""
    if clause.cues("negated_before") or clause.cues("negated_after"):
        return ()
    return tuple(t.value for t in clause.of("states"))
