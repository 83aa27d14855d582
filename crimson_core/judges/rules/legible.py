"""A report's text as a reader sees it: without what a PDF file, a web page or a form puts into words and numbers."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from crimson_core.judges.rules.lexicon import is_known, known_words
from crimson_core.protocol.letters import as_seen

_CONTROL = r"\x00-\x08\x0e-\x1b\x7f"  # without white space
_SIGN = r"*_~`^|\\\n\x0b\x0c\x1c-\x1f"  # of Markdown, and ends of lines
_BREAK = r"-?\r?\n[ \t]{0,40}"
# What may stand inside a word; "\0" is for whatever nobody sees.
_INSIDE = rf"(?:{_BREAK}|[\x00\x85\u2028\u2029{_SIGN}]|</?[A-Za-z]{{1,10}}>|&(?:shy|zwn?j);)"
_DECIMAL_COMMA = r",(?<=[0-9],)(?=[0-9]{1,2}\s?(?:[cm]m\b|x\s?[0-9]))"
# Only with one of these a text in ASCII may need a change. Each begins with a sign, since it is fast to search for a few of them.
_SUSPECT = re.compile(
    rf"[{_CONTROL}{_SIGN}\r<&,-](?:(?<=[{_CONTROL}])|(?<=[A-Za-z][{_SIGN}])(?:[ \t]|{_INSIDE})*+[A-Za-z]|(?<=-)\r?\n|(?<=[A-Za-z][\r<&])"
    rf"|(?<=[0-9],)(?=[0-9]{{1,2}}\s?(?:[cm]m\b|x\s?[0-9])))"
)
_OTHER = re.compile(rf"(?!(?<!\w)[øØ](?!\w))[^\x00-\x7f]|[{_CONTROL}]")  # "ø effusion" denies the effusion
_ODD = re.compile(
    rf"(?P<word>(?<![A-Za-z])[A-Za-z]++(?:{_INSIDE}++[A-Za-z]++)+)|(?P<unseen>\x00+)|(?P<comma>{_DECIMAL_COMMA})"
)
_JOINT = re.compile(rf"{_INSIDE}+")
_LONGEST, _MOST_PARTS, _HEAD = 30, 16, 3  # letters and parts of a word, and letters by which to know its beginning
_LONG_PART = 4  # letters of a part that is a word, but not a small one
_HYPHENS = frozenset("\u2010\u2011")
_MARKS = frozenset(("Cf", "Cc", "Mn", "Me"))  # Unicode categories
_FULL_WIDTH = range(0xFF01, 0xFF5F)
# Signs of Unicode that turn the direction of text. Only an override turns Latin letters; inside it, isolates and embeddings keep them.
_OVERRIDE = "\u202e"  # from right to left
_EMBEDDINGS = frozenset("\u202a\u202b\u202d" + _OVERRIDE)
_ISOLATES = frozenset("\u2066\u2067\u2068")
_TURNING = _EMBEDDINGS | _ISOLATES
_EMBEDDING_ENDS, _ISOLATE_ENDS = "\u202c", "\u2069"
_PARAGRAPH_ENDS = frozenset("\n\r\x1c\x1d\x1e\x85\u2029")
_MOST_TURNS = 125  # that stand within each other and count
_MIRRORED = str.maketrans("()[]{}<>", ")(][}{><")

Edit = tuple[int, int, str]  # start, end, what to put there


def legible(report: str) -> tuple[str, Sequence[int] | None]:
    """The text without what only a computer sees in it.

    Returns:
        The text, and for each of its characters, and the end, its place in the report; None where nothing had to be changed.
    """
    if report.isascii() and not _SUSPECT.search(report):
        return report, None
    text, places = _in_order(report)
    others = ((match.start(), match.end(), _meant(match[0])) for match in _OTHER.finditer(text))
    text, places = _edited(text, others, places)
    text, places = _edited(text, _odd(text), places)
    return (report, None) if text == report else (text, places)


def _in_order(report: str) -> tuple[str, Sequence[int]]:
    """The text as it runs from left to right on a page as wide as its lines, and the places of its characters.

    What is written backwards behind a right-to-left override is forwards to its readers.
    """
    if _OVERRIDE not in report:
        return report, range(len(report) + 1)
    open_: list[tuple[str, list[Any]]] = [("", [])]  # what has opened each run, and its characters and inner runs

    def close() -> None:
        sign, run = open_.pop()
        if sign == _OVERRIDE:
            run = [(item[0], item[1].translate(_MIRRORED)) if type(item) is tuple else item for item in reversed(run)]
        open_[-1][1].append(run)

    for place, sign in enumerate(report):
        if sign in _PARAGRAPH_ENDS:
            while len(open_) > 1:
                close()
        elif sign == _EMBEDDING_ENDS and open_[-1][0] in _EMBEDDINGS:
            close()
        elif sign == _ISOLATE_ENDS and any(opened in _ISOLATES for opened, _ in open_):
            while open_[-1][0] not in _ISOLATES:
                close()
            close()
        open_[-1][1].append((place, sign))
        if sign in _TURNING and len(open_) <= _MOST_TURNS:
            open_.append((sign, []))
    while len(open_) > 1:
        close()
    signs = list(_flat(open_[0][1]))
    return "".join(sign for _, sign in signs), [*(place for place, _ in signs), len(report)]


def _flat(run: list[Any]) -> Iterator[tuple[int, str]]:
    for item in run:
        if type(item) is tuple:
            yield item
        else:
            yield from _flat(item)


def _edited(text: str, edits: Iterable[Edit], places: Sequence[int]) -> tuple[str, Sequence[int]]:
    """The text with these changes, and the places of its characters."""
    parts: list[str] = []
    moved: list[int] = []
    position = 0
    for start, end, put in edits:
        parts += text[position:start], put
        moved += [*places[position:start], *[places[start]] * len(put)]
        position = end
    return ("".join([*parts, text[position:]]), [*moved, *places[position:]]) if parts else (text, places)


def _meant(character: str) -> str:
    """What a letter, a figure or a mark stands for, NUL if nobody sees it; other signs ("½", "…") stay."""
    category = unicodedata.category(character)
    if category in _MARKS:
        return as_seen(character) or "\0"
    if character in _HYPHENS:
        return "-"
    seen = as_seen(character)
    letter = category[0] == "L" or category == "Nd" or category == "So" and len(seen) == 1
    return seen if letter or ord(character) in _FULL_WIDTH else character


def _odd(text: str) -> Iterator[Edit]:
    """Decimal commas, what nobody sees, and what parts words."""
    for match in _ODD.finditer(text):
        if match["word"]:
            yield from _joined(text, *match.span())
        else:
            yield match.start(), match.end(), "." if match["comma"] else ""


def _joined(text: str, start: int, end: int) -> Iterator[Edit]:
    """What to put between parts of words: nothing where they make up a word of the lexicon and are not small words themselves."""
    joints = list(_JOINT.finditer(text, start, end))
    starts, ends = [start, *(joint.end() for joint in joints)], [*(joint.start() for joint in joints), end]
    parts = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    last = 0  # part of the word that was found last
    for place, joint in enumerate(joints):
        sign = joint[0]
        if place >= last:
            last = _end_of_word(parts, place, "-" in sign)
        if place < last:
            yield *joint.span(), ""
        elif "-" in sign:
            yield *joint.span(), "-"  # "right-sided" keeps its hyphen
        elif "\0" in sign:
            apart = not sign.strip("\0") and is_known(parts[place]) and is_known(parts[place + 1])
            yield *joint.span(), " " if apart else sign.replace("\0", "")


def _end_of_word(parts: Sequence[str], first: int, hyphen: bool) -> int:
    """The last part of the longest word that begins with this one."""
    head = "".join(parts[first : first + _HEAD])[:_HEAD].lower()
    most = _MOST_PARTS if head in _heads() else 2  # since trying takes time
    for last in range(min(len(parts), first + most) - 1, first, -1):
        some = parts[first : last + 1]
        word = "".join(some)
        if len(word) > _LONGEST or not is_known(word):
            continue
        # "a symmetric", "in active" and the like are two words
        if hyphen or min(map(len, some)) >= _LONG_PART or not all(map(is_known, some)):
            return last
    return first


@cache
def _heads() -> frozenset[str]:
    return frozenset(word[:_HEAD] for word in known_words())
