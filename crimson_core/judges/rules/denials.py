"""Which way a denial looks: "not seen", "nil" and "absent" may deny what stands before them or what follows, "no" may be an answer."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from crimson_core.judges.rules.lexicon import Tag, lexicon

BESIDE = "negated_beside"
DIRECTED = frozenset(("negated_before", "negated_after"))  # what becomes of it
_NAMING = frozenset(("concept", "states", "anaphor"))


def with_directions(tags: list[Tag], words: Sequence[str]) -> list[Tag]:
    """The tags of a sentence in which each denial is `negated_before` or `negated_after`.

    One that may look either way looks back to what stands before it in its piece of the sentence, up to a comma or a conjunction,
    and else to what follows in it: "effusion not seen, small pneumothorax", "enlarged heart, not seen effusion". A "no" or "not" at
    the end of a piece is a denial of what stands before: "pneumothorax no, effusion yes".
    """
    looking = [tag for tag in tags if tag.kind == "assertion" and _may_look_back(tag, words)]
    if not looking:
        return tags
    borders = _borders(tags, words)
    if not any(tag.value == BESIDE or tag.end in borders for tag in looking):
        return tags
    named = [tag.start for tag in tags if tag.kind in _NAMING]
    structures = {tag.end for tag in tags if tag.kind == "anatomy"}  # "the breast shadow is absent" is a name
    directed = []
    spent = set()  # of "effusion absent, rib fracture" no rib is absent
    for tag in tags:
        if tag in looking:
            place = bisect_right(borders, tag.start)
            first = borders[place - 1] if place else 0
            last = borders[bisect_left(borders, tag.end)]
            stops = tag.end == len(words) or words[tag.end] == ","
            alone = first == tag.start and stops and words[tag.start] == "no"  # "effusion, no"
            before, behind = any_between(named, 0 if alone else first, tag.start), any_between(named, tag.end, last)
            if before and tag.start not in structures:
                spent.add(Tag(tag.start, tag.end, "states", "absent"))
            if tag.value == BESIDE:
                # "the clavicle is not found to be fractured", "is not visibly fractured"
                leads = behind and (words[tag.end : tag.end + 2] == ["to", "be"] or tag.end in named)
                back = before or not behind or (_is_predicate(tag, words) and not leads)
                tag = tag._replace(value="negated_after" if back else "negated_before")
            elif before and tag.end == last and (words[tag.start] == "no" or words[tag.end : tag.end + 1] != [","]):
                tag = tag._replace(value="negated_after")
        directed.append(tag)
    return [tag for tag in directed if tag not in spent]


def _borders(tags: Sequence[Tag], words: Sequence[str]) -> list[int]:
    """Where the pieces of a sentence begin and end, in order."""
    found = {place for place, word in enumerate(words) if word == ","}
    for tag in tags:
        if tag.kind in ("clause_end", "conjunction"):
            found |= {tag.start, tag.end}
    return sorted(found | {len(words)})


def any_between(places: Sequence[int], start: int, end: int) -> bool:
    """Whether any of some places, in order, lies from one to another one."""
    return bisect_left(places, start) != bisect_left(places, end)


def _may_look_back(tag: Tag, words: Sequence[str]) -> bool:
    """Whether an assertion is a denial that may be about what stands before it; also a "no" that may be an answer."""
    answers = tag.value == "negated_before" and words[tag.end - 1] in lexicon().words["answers"]
    return answers or tag.value == BESIDE


def _is_predicate(denial: Tag, words: Sequence[str]) -> bool:
    """Whether a denial is said of what stands before it: "the effusion, as expected, is not seen", but not "it is not seen effusion"."""
    copulas, empty = lexicon().words["copulas"], lexicon().words["empty_subjects"]
    verb = denial.start if words[denial.start] in copulas else denial.start - 1
    return verb > 0 and words[verb] in copulas and words[verb - 1] not in empty
