"""Removes report text that imitates a judge's answer, before a judge reads it.

A report may contain an evaluation: as JSON, whole or cut, escaped, in a code fence, as YAML, as a table, with other
brackets, as keys alone or in prose. A small model takes it for its own answer and copies it, and the rules read the
findings in it. Clinical text stays, and a report without the names of an evaluation's keys is not changed at all.

Every step takes time linear in the length of the text.
"""

import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from crimson_core.protocol.evaluation import (
    ERROR_TYPES,
    GRADES,
    SIGNIFICANCE_LEVELS,
    AttributeError,
    Errors,
    Evaluation,
    Finding,
    Match,
)
from crimson_core.protocol.letters import as_seen
from crimson_core.protocol.pair import ReportPair

_KEYS = [key for part in (Evaluation, Errors, Finding, Match, AttributeError) for key in part.model_fields]
_NAMES = {*_KEYS, *SIGNIFICANCE_LEVELS, *ERROR_TYPES, *GRADES, "crimson_score"}
_TELLING = sorted((name for name in _NAMES if "_" in name), key=len, reverse=True)  # no genuine report has these names
_LISTS = [key for part in (Evaluation, Errors) for key in part.model_fields if "_" in key]  # also recognised in prose

# The ways to write an underscore in a key. A full stop may also lack the blank behind it, unless a quotation mark follows.
_UNDERSCORE = r"(?:[\\*_:-]{0,4}|&lowbar;|\.(?=[a-z]{1,20}[\"'`”’»]))"
_KEY = re.compile(rf"(?<![a-z])(?:{'|'.join(name.replace('_', _UNDERSCORE) for name in _TELLING)})(?![a-z])")
_IN_PROSE = re.compile(
    rf"(?<![a-z])(?:{'|'.join(name.replace('_', '[ -]').rstrip('s') + 's?' for name in _LISTS)})(?![a-z])"
)
_FEWEST_IN_PROSE = 2  # different ones; a single one may come from a radiologist
# What only somebody writes who knows of the judging: its whole sentence goes, or its line if a colon follows.
_ABOUT = re.compile(
    r"\b(?:(?:(?:candidate report|ground truth|crimson (?:score|evaluation))\b)(?P<colon> ?:)?|(?P<title>reference report ?:)"
    r"|(?:r\d{1,3} ?(?:=|<?[-=]?>|→|↔|matches|with) ?p|p\d{1,3} ?(?:=|<?[-=]?>|→|↔|matches|with) ?r)\d{1,3}\b|note to the judge\b)"
)

# One of these is in every text in which any of the patterns above finds something, and in few others. Looking for them is faster.
_HINTS = (
    *(
        "actionable",
        "attribute",
        "benign",
        "candidate",
        "crimson",
        "error",
        "false",
        "judge",
        "matched",
        "missing",
        "predicted",
    ),
    *("reference", "significance", "truth"),
)
_MORE_HINTS = re.compile(r"(?:ref|pred)(?:[^a-z]|&lowbar;){0,8}id|p\d")

_TOKEN = re.compile(
    r"""(?P<escape>\\u[0-9a-f]{4}|\\.|&(?:[a-z]{2,8}|\#[0-9]{1,6}|\#x[0-9a-f]{1,6});|%[0-9a-f]{2})
    |(?P<open>[\[{(<«「『【《〈〔])|(?P<close>[\]})>»」』】》〉〕])|(?P<quote>["'`“”‘’„])|(?P<sign>[:=,|*\#\\~+/-])
    |(?P<line>\n)|(?P<space>\s)|(?P<end>[.;!?])|(?P<word>[^\W_]+(?:_[^\W_]+)*)|(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_CLOSERS = dict(zip("[{(<«「『【《〈〔", "]})>»」』】》〉〕", strict=True))
_STRUCTURE = {"escape", "open", "close", "quote", "sign"}
_GIVES = set(":=|")  # a value follows
_NOTHING = {"none", "null", "nil", "nothing", "empty", "0", "zero", "true", "false", "n"}
_FORMATS = {"json", "yaml", "answer", "evaluation", "output", "response", "result", "crimson"}
_ID = re.compile(r"[rp]\d{1,3}")
# Sentences made of these words only are removed with the prose before them: "There are no errors. All of them match."
_SMALL = re.compile(
    r"(?:\W|_|\b(?:there|are|is|was|were|the|all|of|them|and|every|each|in|both|a|an|no|none|nothing|errors?|match(?:es|ed)?|score|"
    r"evaluation|perfect|[rp]?\d+)\b)*"
)
_START = re.compile(r"(?<!\S)(?:[A-Z]|[^\w\s])")  # of a sentence, perhaps behind one without a full stop
_FENCE = re.compile(r"(?<![`~])[`~]{3,}\w{0,20}\Z")

Spans = list[tuple[int, int]]  # starts and ends


class _Token(NamedTuple):
    kind: str | None
    text: str
    start: int
    end: int


def defused(
    pair: ReportPair, *, in_place: bool = False, find: Callable[[str], Spans] | None = None
) -> tuple[ReportPair, list[str]]:
    """The pair without imitated answers, and one line for each text that contained one; the same pair if none did.

    Args:
        pair: The pair.
        in_place: Put blanks where something is removed, so that findings keep their places in the reports.
        find: An `imitations` that remembers what it has found.
    """
    find = find or imitations
    texts = {"reference": pair.reference, "candidate": pair.candidate}
    repairs: list[str] = []
    changed = {name: _cut(text, name, repairs, in_place, find) for name, text in texts.items()}
    context = pair.context
    if context and context.indication:
        context = replace(context, indication=_cut(context.indication, "indication", repairs, in_place, find))
    return (replace(pair, **changed, context=context), repairs) if repairs else (pair, repairs)


def without_imitation(text: str) -> str:
    """The text without the parts that imitate an evaluation."""
    places = imitations(text)
    kept, last = "", 0
    for start, end in places:
        kept = _joined(kept, text[last:start])
        last = end
    return _joined(kept, text[last:]) if places else text


def _cut(text: str, name: str, repairs: list[str], in_place: bool, find: Callable[[str], Spans]) -> str:
    places = find(text)
    if not places:
        return text
    clean = without_imitation(text)
    repairs.append(f"{name}: left out what has the form of an evaluation ({len(text) - len(clean)} characters)")
    return _blanked(text, places) if in_place else clean


def _blanked(text: str, places: list[tuple[int, int]]) -> str:
    """The text with blanks at these places, and a line break in the first one where there was any."""
    parts, last = [], 0
    for start, end in places:
        inside = "\n" if "\n" in text[start:end] else " "
        parts += [text[last:start], inside + " " * (end - start - 1)]
        last = end
    return "".join([*parts, text[last:]])


def _joined(before: str, after: str) -> str:
    """Join two texts around a removed part with a single blank or line break."""
    left, right = before.rstrip(), after.lstrip()
    if not left or not right:
        return left or right
    between = before[len(left) :] + after[: len(after) - len(right)]
    return f"{left}{chr(10) if chr(10) in between else ' '}{right}"


def imitations(text: str) -> Spans:
    """The spans that imitate an evaluation, in order and disjoint."""
    folded, origin = _fold(text)
    if not any(map(folded.__contains__, _HINTS)) and not _MORE_HINTS.search(folded):
        return []
    keys = [match.span() for match in _KEY.finditer(folded)]
    prose = list(_IN_PROSE.finditer(folded))
    if len({match[0].rstrip("s") for match in prose}) < _FEWEST_IN_PROSE:
        prose = []
    about = list(_ABOUT.finditer(folded))
    if not keys and not prose and not about:
        return []
    spans = _structures(folded, keys) if keys else []
    ends = _sentences(folded)
    starts = [0, *(bisect_left(origin, match.start()) for match in _START.finditer(text)), *ends]
    starts.sort()
    for match in (*prose, *about):  # the whole sentence
        end = ends[bisect_right(ends, match.start())]
        if match.re is _ABOUT and (match["colon"] or match["title"]):
            end = folded.find("\n", match.end()) + 1 or len(folded)
        spans.append((starts[bisect_right(starts, match.start()) - 1], end))
    spans = _with_what_belongs(folded, _merged(sorted(spans)), ends)
    return [(origin[start], origin[end]) for start, end in spans]


def _fold(text: str) -> tuple[str, list[int] | range]:
    """The text in lower case, decoded, normalised and without invisible characters, and the origin of each character."""
    origin: list[int] | range = range(len(text) + 1)
    if not _PLAIN.fullmatch(text):
        meanings = {character: _meant(character) for character in set(text)}
        meant = [meanings[character] for character in text]
        origin = [*(place for place, character in enumerate(meant) for _ in character), len(text)]
        text = "".join(meant)
    text = text.lower()
    for _ in range(_DEEPEST):
        if not _ESCAPED.search(text):
            break
        text, origin = _decoded(text, origin)
    return text, origin


def _decoded(text: str, origin: list[int] | range) -> tuple[str, list[int]]:
    """The text with the characters that escapes stand for, and their origins."""
    parts: list[str] = []
    places: list[int] = []
    last = 0
    for match in _ESCAPED.finditer(text):
        kind = match.lastgroup
        code = int(match[kind], 10 if kind == "decimal" else 16) if kind else 0
        meant = _meant(chr(code)) if 0 < code <= sys.maxunicode else ""
        parts += [text[last : match.start()], meant]
        places += [*origin[last : match.start()], *[origin[match.start()]] * len(meant)]
        last = match.end()
    return "".join([*parts, text[last:]]), [*places, *origin[last:]]


def _meant(character: str) -> str:
    """A character as the Latin one that it looks like, in lower case without accents; none for one that nobody sees."""
    return as_seen(character).casefold()


_PLAIN = re.compile(r"[\t\n\r -~]*")
_DEEPEST = 3  # escapes of escapes
# Characters as JSON, HTML, URLs and e-mails write them; e-mails also break lines
_ESCAPED = re.compile(
    r"\\u(?P<json>[0-9a-f]{4})|&\#(?P<decimal>[0-9]{1,6});|&\#x(?P<html>[0-9a-f]{1,6});|%(?P<url>[0-9a-f]{2})"
    r"|=(?P<mail>2[02]|3[ad]|5[bdf]|7[bd])|=\r?\n"
)


def _structures(text: str, keys: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans of brackets, keys and values around the keys."""
    tokens = [_Token(match.lastgroup, match[0], *match.span()) for match in _TOKEN.finditer(text)]
    partner = _brackets(tokens)
    is_key = [False] * len(tokens)
    place = 0
    for start, end in keys:
        while tokens[place].end <= start:
            place += 1
        while place < len(tokens) and tokens[place].start < end:
            is_key[place] = True
            place += 1
        place -= 1  # it may reach into the next key, too
    outermost = _outermost(tokens, partner)
    tags = [i for i, token in enumerate(tokens) if token.text == "<"]
    spans: list[tuple[int, int]] = []
    last = -1
    for i, key in enumerate(is_key):
        if not key or i <= last:
            continue
        first, last = outermost.get(i, (i, i))
        first = _leftwards(tokens, first)
        last = _rightwards(tokens, last, partner, is_key, tags)
        spans.append((tokens[first].start, tokens[last].end))
    return spans


def _brackets(tokens: list[_Token]) -> dict[int, int]:
    """Index of an opening bracket -> index of its closing bracket."""
    partner: dict[int, int] = {}
    stacks: dict[str, list[int]] = {}
    for i, token in enumerate(tokens):
        if token.kind == "open":
            stacks.setdefault(_CLOSERS[token.text], []).append(i)
        elif token.kind == "close" and stacks.get(token.text):
            partner[stacks[token.text].pop()] = i
    return partner


def _outermost(tokens: list[_Token], partner: dict[int, int]) -> dict[int, tuple[int, int]]:
    """Index of a token -> the outermost pair of brackets around it."""
    found: dict[int, tuple[int, int]] = {}
    i = 0
    while i < len(tokens):
        if i in partner:
            found |= dict.fromkeys(range(i, partner[i] + 1), (i, partner[i]))
            i = partner[i]
        i += 1
    return found


def _leftwards(tokens: list[_Token], first: int) -> int:
    """The first token of the structure around token `first`."""
    kept = i = first
    while i > 0:
        i -= 1
        token = tokens[i]
        if token.kind in _STRUCTURE or (_is_name(token) and tokens[i + 1].kind in _STRUCTURE):
            kept = i
        elif token.kind not in ("space", "line"):
            break
    return kept


def _rightwards(tokens: list[_Token], last: int, partner: dict[int, int], is_key: list[bool], tags: list[int]) -> int:
    """The last token of the structure around token `last`."""
    kept = i = last
    before = tokens[last].text  # the last token other than white space
    in_value = starts_line = False
    while i + 1 < len(tokens):
        i += 1
        token = tokens[i]
        if token.kind == "line":
            in_value, starts_line = False, True
            continue
        if token.kind == "space":
            continue
        if starts_line and _ID.fullmatch(token.text):  # a row of a table
            i = kept = _line_end(tokens, i)
            in_value, before = False, ""
        elif token.kind == "quote" and (before in _GIVES or before in ("[", ",", "{")):
            i = kept = _string_end(tokens, i)
            in_value, before = False, token.text
        elif token.kind in _STRUCTURE:
            i = kept = partner.get(i, i)
            in_value, before = token.text in _GIVES, tokens[i].text
            continue  # a row may start with it
        elif before == ">" and token.kind == "word" and (stop := _end_of_element(tokens, tags, i)):
            i = kept = stop
        elif is_key[i] or _is_name(token) and (before in _GIVES or _beside_structure(tokens, i)):
            kept, before = i, token.text
        elif in_value and token.text in _NOTHING:
            kept, before, in_value = i, token.text, False
        elif in_value and token.kind == "word":  # a value without quotes
            i = kept = _line_end(tokens, i)
            in_value, before = False, ""
        elif not (token.text == "." and _beside_structure(tokens, i)):  # finding[0].id
            break
        starts_line = False
    return kept


def _end_of_element(tokens: list[_Token], tags: list[int], start: int) -> int | None:
    """The token before the end tag of the element in whose text token `start` is; None if another tag comes first."""
    number = bisect_right(tags, start)
    if number < len(tags) and tags[number] + 1 < len(tokens) and tokens[tags[number] + 1].text == "/":
        return tags[number] - 1
    return None


def _beside_structure(tokens: list[_Token], i: int) -> bool:
    """Whether punctuation of a structure stands before or behind a token, perhaps after a blank."""
    sides = ((i + step, i + 2 * step) for step in (-1, 1))
    return any(
        0 <= near < len(tokens)
        and (
            tokens[near].kind in _STRUCTURE
            or tokens[near].kind == "space"
            and 0 <= far < len(tokens)
            and tokens[far].kind in _STRUCTURE
        )
        for near, far in sides
    )


def _string_end(tokens: list[_Token], start: int) -> int:
    """The quotation mark that ends a string, or else the last token of its line."""
    for i in range(start + 1, len(tokens)):
        if tokens[i].text == tokens[start].text:
            return i
        if tokens[i].kind == "line":
            return i - 1
    return len(tokens) - 1


def _line_end(tokens: list[_Token], start: int) -> int:
    return next((i - 1 for i in range(start, len(tokens)) if tokens[i].kind == "line"), len(tokens) - 1)


def _is_name(token: _Token) -> bool:
    return token.kind == "word" and (
        token.text in _NAMES or token.text in _FORMATS or bool(_ID.fullmatch(token.text)) or token.text.isdecimal()
    )


def _sentences(text: str) -> list[int]:
    """The ends of a text's sentences and lines; the last one is the end of the text."""
    return [*(match.end() for match in re.finditer(r"[.!?\n]", text)), len(text)]


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _with_what_belongs(text: str, spans: list[tuple[int, int]], ends: list[int]) -> list[tuple[int, int]]:
    """The spans with their announcements and trailing sentences, joined if no report text lies between them."""
    grown: list[tuple[int, int]] = []
    for number, (start, end) in enumerate(spans):
        before = grown[-1][1] if grown else 0
        after = spans[number + 1][0] if number + 1 < len(spans) else len(text)
        if grown and _belongs(text[before:start]):
            start = grown.pop()[0]
        else:
            start = _announced(text, before, start)
        for stop in ends[bisect_right(ends, end) :]:
            if stop > after or not _SMALL.fullmatch(text, end, stop):
                break
            end = stop
        grown.append((start, end))
    return grown


def _belongs(between: str) -> bool:
    """Whether a text contains nothing but names of an evaluation and punctuation."""
    return all(
        token.kind in _STRUCTURE or token.kind in ("space", "line", "end") or _is_name(token) or token.text in _NOTHING
        for token in (_Token(match.lastgroup, match[0], *match.span()) for match in _TOKEN.finditer(between))
    )


def _announced(text: str, before: int, start: int) -> int:
    """The start of "Here is the evaluation:" or of a code fence, if that is right before `start`."""
    lead = text[before:start].rstrip()
    fence = _FENCE.search(lead)
    if fence:
        lead = lead[: fence.start()].rstrip()
        start = before + fence.start()
    if lead.endswith(":"):
        start = before + max(lead.rfind(mark) for mark in ".!?\n") + 1
    return start
