"""Names that share a noun: "pleural and pericardial effusions" tells of a pleural effusion and of a pericardial one."""

from collections.abc import Iterator, Mapping, Sequence, Set

from crimson_core.judges.rules.lexicon import Lexicon, Tag, tags_of

_LONGEST_FIRST = 3  # words of a name without its noun: "chest wall"
_LONGEST_SECOND = 4  # words between the conjunction and the noun: "left anterior chest wall"
JOINING = frozenset(("conjunction", "alternative"))
_NAMING = frozenset(("concept", "states", "anatomy"))
# What two names share without a noun: "calcified hilar and mediastinal nodes".
_TELLING = ("concept", "states", "descriptor", "temporal")
_BEFORE_THE_NOUN = frozenset(("anatomy", "sites", "side", "severity"))


def with_shared_nouns(tags: list[Tag], words: Sequence[str], lexicon: Lexicon) -> list[Tag]:
    """The tags of a sentence, with those of names whose noun stands behind the next name."""
    holding = lexicon.words["holding"]  # "heart with calcification" names no calcification of the heart
    joints = {tag.end: tag for tag in tags if tag.kind in JOINING and words[tag.start] not in holding}
    if not joints:
        return tags
    before = {tag.end: tag.start for tag in tags if tag.kind in _BEFORE_THE_NOUN}
    telling = {tag.start for tag in tags if tag.kind in _TELLING}
    added: dict[int, Tag] = {}
    # from the right, since a third name joins the second: "hepatic, splenic and renal masses"
    for tag in reversed(tags):
        if tag.kind in _NAMING and tag.start not in added:
            for name in _names_before(tag, words, joints, before, telling, lexicon):
                added[name.start] = name
    if not added:
        return tags
    covered = {place for name in added.values() for place in range(name.start, name.end)}
    kept = [tag for tag in tags if tag.start not in covered or tag.kind not in ("anatomy", "sites", "zone")]
    return sorted([*kept, *added.values()], key=lambda tag: tag.start)


def _names_before(
    named: Tag,
    words: Sequence[str],
    joints: Mapping[int, Tag],
    before: Mapping[int, int],
    telling: Set[int],
    lexicon: Lexicon,
) -> Iterator[Tag]:
    """The names before a finding, each joined to the next, that make another finding with its last words.

    Args:
        named: The finding.
        words: Of the sentence.
        joints: Its conjunctions, by where they end.
        before: Where phrases end that may stand before a noun -> where they begin.
        telling: Where phrases begin that the name of another finding holds.
        lexicon: Knows what names mean.
    """
    if "of" in words[named.start : named.end]:
        return  # "calcification and unfolding of the aorta"
    begin = named.start
    while begin not in joints and begin in before and named.start - begin < _LONGEST_SECOND:
        begin = before[begin]
    while (joint := joints.get(begin)) and joint.start - 1 not in telling:
        farthest = max(0, joint.start - _LONGEST_FIRST)
        first = next((at for at in range(joint.start, farthest, -1) if at in joints), farthest)
        name = _name(first, joint.start, begin, named, words, lexicon)
        if name is None or not telling.isdisjoint(range(name.start, name.end)):
            return
        yield name
        begin = name.start


def _name(first: int, end: int, begin: int, named: Tag, words: Sequence[str], lexicon: Lexicon) -> Tag | None:
    """What the words before a conjunction name with the noun of the name behind it."""
    kind = "anatomy" if named.kind == "anatomy" else "concept"
    for start in range(first, end) if begin + 1 < named.end else ():
        for noun in range(begin + 1, named.end):
            value = _meaning([*words[start:end], *words[noun : named.end]], kind, lexicon)
            if value and value != named.value:
                return Tag(start, end, kind, value)
    return None


def _meaning(name: list[str], kind: str, lexicon: Lexicon) -> str | None:
    """The structure or the finding that a name tells as a whole, also as a structure with its state: "mediastinal" + "air"."""
    if name[0] not in lexicon.phrases:
        return None
    tags = tags_of(lexicon.phrases, name)
    whole = next((tag.value for tag in tags if tag.kind == kind and tag.end - tag.start == len(name)), None)
    if whole or kind == "anatomy":
        return whole
    structures = [tag for tag in tags if tag.kind == "anatomy" and tag.start == 0]
    states = [tag for tag in tags if tag.kind == "states" and tag.end == len(name)]
    made = (lexicon.composites.get((a.value, b.value)) for a in structures for b in states if a.end == b.start)
    return next(filter(None, made), None)
