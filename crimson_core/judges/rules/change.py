"""Change over time: words of change, and what stands beside them, become one tag that says how a finding has changed.

"slightly larger" is a change and its degree, "has not increased" none, "partly resolved" an improvement, "resolved" an absence.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from crimson_core.judges.rules.lexicon import START, Tag, lexicon

CHANGING = frozenset(("change", "prior"))  # the kinds of tags that tell of a change
_TELLING = ("states", "change", "temporal", "assertion", "clause_end", "concept", "normal")
_YEAR = re.compile(r"(?:19|20)\d\d")
_TEMPORAL = {"up": "worse", "again": "new", "down": "better", "raised": "increased"}
_NAMING = ("concept", "states", "change", "temporal", "conjunction", "clause_end")
_COMPLETE = 5  # rank of severity
_DENIALS = ("negated_beside", "negated_before", "negated_after", "removed_after")
_TAGS = 30  # that may stand within this reach
_LONGEST = 12  # words between "more" and "than"
_LIST = 40  # words of a list behind a change
_BESIDE_IT = ("glue", "definite", "extent", "side", "severity")  # words between a structure and its growth
_TOO_LARGE = ("enlarged", "increased")
_TO_ACT_ON = ("urgent", "actionable_not_urgent")
_REACH = 5  # words between a denial and the change that it denies


def with_years(tags: list[Tag], words: Sequence[str]) -> list[Tag]:
    """The tags of a sentence with its years, which name an earlier radiograph: "not present in 2019"."""
    years = [Tag(place, place + 1, "prior", None) for place, word in enumerate(words) if _YEAR.fullmatch(word)]
    return sorted([*tags, *years], key=lambda tag: tag.start) if years else tags


def with_changes(tags: list[Tag], words: Sequence[str], composites: Mapping[tuple[str, str], str]) -> list[Tag]:
    """The tags of a sentence, those of change replaced by what they come to.

    Args:
        tags: Of the sentence, some of a kind in `CHANGING`.
        words: Of the sentence.
        composites: Of the lexicon: which words of change may be the state of which structure.
    """
    tags = _with_comparison(tags, words)
    kinds = [tag.kind for tag in tags]
    if "prior" in kinds:
        tags = _with_growth(tags, words)
        tags = [_new(tag, tags[place + 1 : place + 1 + _TAGS], words) for place, tag in enumerate(tags)]
    if "change" not in kinds:
        return tags
    changes = [tag for tag in tags if tag.kind == "change"]
    told = _Told(tags, words, composites)
    made = [tag for change in changes for tag in told.resolved(change)]
    kept = [tag for tag in tags if tag.kind != "change" and tag not in told.used]
    return sorted([*kept, *made, *told.listed], key=lambda tag: tag.start)


def _with_comparison(tags: list[Tag], words: Sequence[str]) -> list[Tag]:
    """With the change that "more fluid on the right than before" tells."""
    if "than" not in words:
        return tags
    than = words.index("than")
    if not any(tag.kind == "prior" and than < tag.start <= than + _REACH for tag in tags):
        return tags
    free = set(range(max(0, than - _LONGEST), than)).difference(*(range(tag.start, tag.end) for tag in tags))
    told = dict.fromkeys(lexicon().words["more"], "up") | dict.fromkeys(lexicon().words["less"], "down")
    made = [Tag(place, place + 1, "change", (told[words[place]], True)) for place in free if words[place] in told]
    return sorted([*tags, *made], key=lambda tag: tag.start)


def _with_growth(tags: list[Tag], words: Sequence[str]) -> list[Tag]:
    """With the change that "widening of the mediastinum compared with the previous film" tells."""
    made = [grown for tag in tags if tag.kind == "prior" and (grown := _growth(tag, tags, words))]
    return sorted([*tags, *made], key=lambda tag: tag.start) if made else tags


def _growth(prior: Tag, tags: Sequence[Tag], words: Sequence[str]) -> Tag | None:
    """The "compared with" between a state that grows and the name of an earlier radiograph."""
    near = range(max(0, prior.start - _REACH), prior.start)
    place = next((at for at in reversed(near) if words[at] in lexicon().words["comparing"]), None)
    if place is None:
        return None
    first, last = (bisect_left(tags, at, key=START) for at in (place - _LONGEST, place))
    before = [tag for tag in tags[first:last] if tag.kind in _TELLING]
    told = max(before, key=lambda tag: tag.start, default=None)
    if (
        told is None
        or told.kind != "states"
        or told.value not in lexicon().growing_states
        or "," in words[told.start : place]
    ):
        return None
    return Tag(place, place + 1, "temporal", "worse")


def _new(denial: Tag, behind: Iterable[Tag], words: Sequence[str]) -> Tag:
    """What was "not seen on the previous study" is new: a denial that an earlier radiograph follows, and nothing named between.

    What "has been removed since the previous study" is gone.
    """
    if denial.kind != "assertion" or denial.value not in _DENIALS:
        return denial
    for tag in behind:
        if tag.start > denial.end + _REACH or (tag.start >= denial.end and tag.kind in _NAMING):
            return denial
        if tag.kind == "prior":
            between = words[denial.end : tag.start]
            gone = "since" in between
            if denial.value == "negated_before" and not lexicon().words["comparing"].isdisjoint(between):
                # "not significantly ___ compared to the prior": whatever the word is, it has not changed
                return denial if gone else Tag(denial.start, tag.end, "temporal", "stable")
            return denial if gone else Tag(denial.start, tag.end, "temporal", "new")
    return denial


class _Told:
    """What stands beside the changes of a sentence.

    `used` are the tags that only say how a change is meant, `listed` those that join what a change is about.
    """

    def __init__(self, tags: Sequence[Tag], words: Sequence[str], composites: Mapping[tuple[str, str], str]) -> None:
        self._composites = composites
        self.words = words
        self.used: set[Tag] = set()
        self.listed: list[Tag] = []
        self._by_place: dict[int, list[Tag]] = {}
        for tag in tags:
            for place in range(tag.start, tag.end):
                self._by_place.setdefault(place, []).append(tag)
        self._first_named = min((tag.start for tag in tags if tag.kind in ("concept", "states")), default=len(words))

    def resolved(self, change: Tag) -> list[Tag]:
        """One tag that says what a change comes to; none where it says nothing."""
        value, noun = change.value
        if self._is_state(change):
            return []  # "heart size is severely increased"
        if value == "down" and noun and self._leads_to(change):
            return [Tag(change.start, change.end, "states", "decreased")]
        used = set(self.used)
        start, end, partial = self._with_its_degree(change, noun)
        degree = self.used - used
        denial = self._denial(change, start)
        if denial is not None:
            self.used.add(denial)
            if noun:  # "no change in the effusion or the edema" tells of both
                self._list_behind(change)
            if value == "again":  # what has not come back is not there
                return [Tag(denial.start, end, "assertion", "negated_before" if noun else "negated_after")]
            return [Tag(denial.start, end, "temporal", "stable")]
        if value == "down" and partial == "complete":
            value = "gone"  # "complete regression"
        if value == "any":  # "minimal change" is none to speak of
            if partial == "little":
                return [Tag(start, end, "temporal", "stable")]
            self.used -= degree  # of "mild changes of pneumonia" the degree is the finding's
            return []
        if value == "gone":
            partial = partial or self._of_a_part(start)
            if partial and partial != "complete":
                return [Tag(start, end, "temporal", "better")]
            bare = change.end == change.start + 1
            leads = noun or (bare and (not self._names_before(start) or self._begins_an_item(start, end)))
            return [Tag(start, end, "assertion", "negated_before" if leads else "negated_after")]
        told = Tag(start, end, "temporal", _TEMPORAL[value])
        state = self._grown(change) if value == "up" else None
        return [told, Tag(change.start, change.end, "states", state)] if state else [told]

    def _grown(self, change: Tag) -> str | None:
        """The state of a structure that is too large where it has grown: "the heart has grown", "increase in heart size".

        But not of one of which more is harmless, such as the volume of the lungs.
        """
        if self._at(change.end - 1, "states") is not None:
            return None
        _, noun = change.value
        step = 1 if noun else -1
        place = change.end if noun else change.start - 1
        for _ in range(_REACH):
            structure = self._at(place, "anatomy")
            if structure is not None and structure.end > structure.start:
                state = next((one for one in _TOO_LARGE if (structure.value, one) in self._composites), None)
                made = self._composites[structure.value, state] if state else None
                return state if made and lexicon().concepts[made].significance in _TO_ACT_ON else None
            if self._at(place, "concept", "states", "conjunction") is not None or self._at(place, *_BESIDE_IT) is None:
                return None
            place += step
        return None

    def _of_a_part(self, end: int) -> str | None:
        """Whether a part of something has gone: "most of the infiltrate has resolved"."""
        for place in range(end - 1, max(-1, end - 1 - _LONGEST), -1):
            if self._at(place, "conjunction", "clause_end"):
                return None
            part = self._at(place, "extent")
            if part is not None and self.words[part.end - 1] == "of":
                return self._degree(part)
        return None

    def _names_before(self, end: int) -> bool:
        """Whether anything is named before a place: a "resolved left effusion" is not."""
        return self._first_named < end

    def _begins_an_item(self, start: int, end: int) -> bool:
        """Whether a word stands before a finding and behind a comma: "new right effusion, resolved left effusion"."""
        if self._at(start - 1, "conjunction") is None:
            return False
        while self._at(end, "side", "zone", "severity", "glue") is not None and self._at(end, "concept") is None:
            end += 1
        return self._at(end, "concept") is not None

    def _with_its_degree(self, change: Tag, noun: bool) -> tuple[int, int, str | None]:
        """Where a change begins and ends with the words that say how much of it there is, and whether they do.

        An adjective is the degree of a noun only: "mild improvement", but "mild improving edema".
        """
        start, end, partial = change.start, change.end, None
        while start > 0:
            beside = self._at(start - 1, "severity", "extent")
            if beside is None or (beside.kind == "severity" and not (noun or self._is_adverb(beside.end - 1))):
                break
            partial = self._degree(beside) or partial
            start = beside.start
        while end < len(self.words):
            beside = self._at(end, "severity", "extent")
            if beside is None or not self._is_adverb(beside.end - 1):
                break
            partial = self._degree(beside) or partial
            end = beside.end
        return start, end, partial

    def _degree(self, tag: Tag) -> str | None:
        self.used.add(tag)
        if tag.kind == "extent":
            return None if tag.value == "plain" else tag.value
        if tag.value == _COMPLETE:
            return "complete"
        return "little" if tag.value <= 1 else "partial"

    def _is_adverb(self, place: int) -> bool:
        return self.words[place].endswith("ly")

    def _is_state(self, change: Tag) -> bool:
        """Whether a word of change tells the state of a structure before it."""
        states = [tag.value for tag in self._by_place.get(change.end - 1, ()) if tag.kind == "states"]
        if not states or self.words[change.end - 1].endswith("er"):  # "larger" is large, and has changed
            return False
        if self.words[change.start] in lexicon().words["having"]:
            # "the patient has enlarged nodes", but not "the heart has enlarged"
            return self._at(change.end, "anatomy") is not None and not self._has_a_subject(change)
        if self.words[change.end : change.end + 1] == ["of"]:
            for place in range(change.end, min(len(self.words), change.end + _REACH)):
                here = self._by_place.get(place, ())
                if any(tag.kind == "concept" for tag in here):
                    return False
                if any(
                    (tag.value, state) in self._composites for tag in here if tag.kind == "anatomy" for state in states
                ):
                    return True  # "shrinkage of the left upper lobe"
        for place in range(change.start - 1, -1, -1):
            here = self._by_place.get(place, ())
            if any(tag.kind == "concept" or (tag.kind == "states" and tag.value in states) for tag in here):
                return False  # named already: "the heart is enlarged, increased in size from the last study"
            for tag in here:
                if tag.kind == "anatomy" and any((tag.value, state) in self._composites for state in states):
                    return not self._has_a_state(tag)
        return False

    def _has_a_subject(self, change: Tag) -> bool:
        return any(
            self._at(place, "anatomy", "concept") for place in range(max(0, change.start - _REACH), change.start)
        )

    def _has_a_state(self, structure: Tag) -> bool:
        """Whether a structure stands behind a state of its own: "enlargement of the heart, increased since last week"."""
        return any(
            tag.kind == "states" and (structure.value, tag.value) in self._composites
            for place in range(max(0, structure.start - _REACH), structure.start)
            for tag in self._by_place.get(place, ())
        )

    def _list_behind(self, change: Tag) -> None:
        """Take the "or" of a list behind a change that is denied for an "and"."""
        for place in range(change.end, min(len(self.words), change.end + _LIST)):
            if self._at(place, "clause_end"):
                return
            alternative = self._at(place, "alternative")
            if alternative is not None and alternative.start == place:
                self.used.add(alternative)
                self.listed.append(alternative._replace(kind="conjunction"))

    def _leads_to(self, change: Tag) -> bool:
        """Whether a structure follows of which to be decreased is a finding: "decrease in bone density"."""
        for place in range(change.end, len(self.words)):
            here = self._by_place.get(place, ())
            if any(tag.kind == "anatomy" and (tag.value, "decreased") in self._composites for tag in here):
                return True
            if self._at(place, "glue") is None:
                return False
        return False

    def _denial(self, change: Tag, start: int) -> Tag | None:
        """The "no" or "not" that a change follows; "no increased density" denies the density, not a change."""
        _, noun = change.value
        for place in range(start - 1, max(-1, start - 1 - _REACH), -1):
            denial = self._at(place, "assertion")
            if denial is not None and denial.value == "negated_before":
                plain = self.words[denial.start] in lexicon().words["plainly_denied"]
                return None if plain and not noun and start == denial.end else denial
            if self._at(place, "glue", "extent") is None and self._at(place, "change") is None:
                return None
        return None

    def _at(self, place: int, *kinds: str) -> Tag | None:
        return next((tag for tag in self._by_place.get(place, ()) if tag.kind in kinds), None)
