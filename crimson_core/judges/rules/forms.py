"""Answers of forms, tables, JSON and check boxes: "Effusion: no", `"edema": false`, "Nodule (-)", "Fracture? No.", "[ ] Mass"."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from crimson_core.judges.rules.lexicon import Tag

_SIGN = r"[\"'”“*_`\s]{0,8}"  # bounded, since a text may be all blanks
_NO_WORD = (
    r"no\s+evidence|no\s+sign|not\s+(?:present|seen|identified|detected|visuali[sz]ed|visible|evident|noted|found|appreciated|"
    r"observed|demonstrated)|none(?:\s+(?:seen|identified|detected|present|visible|noted))?|"
    r"[-−–]\s?ve|nad|(?:within\s+)?normal\s+limits|within\s+(?:the\s+)?limits\s+of\s+normal|normal|unremarkable|wnl|"
    r"no|negative|neg|absent|false|nil|nothing(?:\s+seen)?|n|✗|✘|❌|☐"
)
_YES_WORD = r"\+\s?ve|yes|present|true|positive|pos|y|✓|✔|✅|☑|seen|found|detected"
_UNSAID_WORD = (
    r"n/?a|null|unknown|unspecified|not\s+(?:assessed|evaluated|applicable|mentioned|reported|stated|available)"
)
_HEDGED_WORD = (
    r"possible|possibly|probable|probably|likely|uncertain|equivocal|questionable|suspected|maybe|indeterminate"
)
_FIELD = r"(?:present|presence|status|detected|found|finding|seen|value|answer|result)"
# Behind a name: a sign that asks, then perhaps a field of its own, the answer, and the end of the item.
_ANSWER = re.compile(
    rf"(?:{_SIGN}(?P<asks>[:=?|]|\t)[\"'”“*_`\s{{]{{0,40}}(?:{_FIELD}{_SIGN}[:=|]{_SIGN})?|\s?(?<![.·_])[.·_]{{3,80}}+\s?|\s[-–—]\s{{1,4}}|,(?=\s?(?:[01]|no|yes|true|false)\s*$)\s?|[(\[]\s?)"
    rf"(?:(?P<absent>{_NO_WORD})|(?P<present>{_YES_WORD})|(?P<unsaid>{_UNSAID_WORD})|(?P<hedged>{_HEDGED_WORD})"
    r"|(?P<sign>(?<=[:=|(\[ ,])[-−–+01]))"
    rf"(?={_SIGN}(?:$|[,;|.!\n)\]}}]|[-–—]\s))",
    re.IGNORECASE,
)
# What a sentence with an answer holds; most sentences hold none of it, and are not searched any further.
_MAY_ANSWER = re.compile(
    r"[-–—:=?|(\[☐✗✘❌.·_,\t](?:(?<=[:=?|(\[☐✗✘❌\t])|(?<=[.·_])[.·_]{2}|(?<=\s[-–—])\s|(?<=,)\s?(?:[01]|no|yes|true|false)\s*$)",
    re.IGNORECASE,
)
_TICK, _BLANK = r"(?:\[\s?[xX✓✔]\s?\]|\(\s?[xX]\s?\)|☑|☒|✅)", r"(?:\[\s{0,3}\]|\(\s{0,3}\)|☐)"
# Both answers with a box each: "Effusion: [x] yes [ ] no".
_TICKED = re.compile(
    rf"\s?[:=]?\s?(?:(?P<present>{_TICK}\s?yes\s{{0,3}}{_BLANK}\s?no|{_BLANK}\s?no\s{{0,3}}{_TICK}\s?yes)"
    rf"|(?P<absent>{_BLANK}\s?yes\s{{0,3}}{_TICK}\s?no|{_TICK}\s?no\s{{0,3}}{_BLANK}\s?yes))\b",
    re.IGNORECASE,
)
_BOX = re.compile(r"[\[(☐]\s{0,3}[\])]?\s?(?:yes|no)\b", re.IGNORECASE)
_SIGNS = {"+": "present", "1": "present"}
_LEADING_SIGN = re.compile(r"\s?[(\[]\s?(?P<sign>[-–−+])\s?[)\]]")
_EMPTY_BOX = re.compile(r"^\s{0,40}(?:[-*•]\s?)?(?:\[\s?\]|\(\s?\)|[☐✗✘❌])")
_ITEM = re.compile(r"[,;|\n{\]]")
_ASKS = re.compile(r"[:=|\t]")
# One side of two that is answered by itself: "Effusion: left small, right none".
_SIDE_ANSWERED = re.compile(
    rf"(?:\b(?:on|in|at)\s+the\s+)?\b(?:right|left|rt?|lt?)\b(?:\s+side)?{_SIGN}[:=–—-]?{_SIGN}(?:none|no|nil|absent|negative)\b"
    rf"(?={_SIGN}(?:$|[,;|.!\n)\]}}]))"
    rf"|\b(?:absent|none|not\s+seen|not\s+present)\s+(?:on|in|at)\s+the\s+(?:right|left)\b(?:\s+side)?"
    rf"(?={_SIGN}(?:$|[,;|.!\n)\]}}]))",
    re.IGNORECASE,
)
_DENYING = frozenset(("none", "no", "nil", "absent", "negative", "not"))  # each in such an answer
_BEGINS = re.compile(r"(?:[:;,|(\[–—-]|\b(?:and|but))\s*\Z", re.IGNORECASE)
_OTHER_SIDE = {"right": re.compile(r"\b(?:left|lt?)\b", re.I), "left": re.compile(r"\b(?:right|rt?)\b", re.I)}
_RIGHT = re.compile(r"\br(?:t|ight)?\b", re.I)
_LETTER = re.compile(r"[A-Za-z]")
_CUES = {"absent": "answered_no", "unsaid": "answered_nothing", "hedged": "answered_perhaps"}


def may_answer(sentence: str, sided: bool, words: Sequence[str]) -> bool:
    """Whether a sentence may hold an answer; `sided` tells whether it names a side, `words` are its words."""
    if _MAY_ANSWER.search(sentence):
        return True
    return sided and not _DENYING.isdisjoint(words) and _SIDE_ANSWERED.search(sentence) is not None


def with_answers(tags: Sequence[Tag], sentence: str, spans: Sequence[tuple[int, int]]) -> list[Tag]:
    """The tags of a sentence with its answers: each a cue behind what it answers, and the end of a clause.

    Args:
        tags: Of the sentence.
        sentence: Its text.
        spans: Characters of its words.
    """
    free = _free_side(sentence)
    if free:
        starts = [start for start, _ in spans]
        first, last = bisect_left(starts, free.start()), bisect_left(starts, free.end())
        tags = [tag for tag in tags if tag.end <= first or tag.start >= last]
        sentence = f"{sentence[: free.start()]}{'x' * len(free[0])}{sentence[free.end() :]}"
    if not _MAY_ANSWER.search(sentence):
        return list(tags)
    if _LEADING_SIGN.match(sentence):
        return _with_leading_signs(tags, sentence, spans)
    found = list(_answers(sentence))
    box = _EMPTY_BOX.match(sentence)
    if not found and not box:
        return list(tags)
    starts = [start for start, _ in spans]
    gaps, made = [], []
    if box:
        place = bisect_left(starts, box.end())
        made.append(Tag(place, place, "assertion", "negated_before"))
    for label, start, end, answer in found:
        first, last = bisect_left(starts, start), bisect_left(starts, end)
        gaps.append((first, last))
        item = bisect_left(starts, label)
        if item:
            made.append(Tag(item, item, "clause_end", "stop"))
        if answer in _CUES:
            cue = Tag(min(first, last - 1), last, "assertion", _CUES[answer])  # a sign is no word: the one before it
            made += [cue, Tag(last, last, "clause_end", "stop")]
    ends = [last for _, last in gaps]  # in the order of the text, as the gaps are

    def is_answer(tag: Tag) -> bool:
        number = bisect_right(ends, tag.start)
        return number < len(gaps) and gaps[number][0] < tag.end

    kept = [tag for tag in tags if not is_answer(tag)]
    return sorted([*kept, *made], key=lambda tag: (tag.start, tag.end))


def _free_side(sentence: str) -> re.Match[str] | None:
    """Where one side is said to be free of what the other side has."""
    answered = list(_SIDE_ANSWERED.finditer(sentence))
    if len(answered) != 1:
        return None
    (free,) = answered
    if not _BEGINS.search(sentence, 0, free.start()):
        return None  # "effusion on the right: none"
    other = _OTHER_SIDE["right" if _RIGHT.search(free[0]) else "left"]
    return free if other.search(sentence[: free.start()]) or other.search(sentence[free.end() :]) else None


def _with_leading_signs(tags: Sequence[Tag], sentence: str, spans: Sequence[tuple[int, int]]) -> list[Tag]:
    """The tags of "(-) pneumothorax (+) effusion", where each sign stands before what it is about."""
    starts, made = [start for start, _ in spans], []
    for match in _LEADING_SIGN.finditer(sentence):
        place = bisect_left(starts, match.end())
        made.append(Tag(place, place, "clause_end", "stop"))
        if match["sign"] != "+":
            made.append(Tag(place, place, "assertion", "negated_before"))
    return sorted([*tags, *made], key=lambda tag: (tag.start, tag.end))


def _answers(sentence: str) -> Iterator[tuple[int, int, int, str]]:
    """Where the name begins that is asked about, where its answer begins and ends, and the answer."""
    label = 0
    for match in _TICKED.finditer(sentence) if _BOX.search(sentence) else ():
        yield label, match.start(), match.end(), str(match.lastgroup)
        label = match.end()
    for match in _ANSWER.finditer(sentence, label):
        answer = str(match.lastgroup)
        if answer == "sign":
            if match["sign"] in "01" and not match["asks"] and match[0][0] != ",":
                continue
            answer = _SIGNS.get(match["sign"], "absent")
        # "Edema, mass: none" answers for both, but not where each item of a list is answered
        letter = _LETTER.search(sentence, label, match.start())
        if label or (letter and _ASKS.search(sentence, letter.start(), match.start())):
            items = [item.end() for item in _ITEM.finditer(sentence, label, match.start())]
            label = items[-1] if items else label
        yield label, match.start(), match.end(), answer
        label = match.end()
