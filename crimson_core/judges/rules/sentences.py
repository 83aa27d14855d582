"""A report's text -> the sentences that tell findings, with their place in the report."""

import re
from collections import deque
from collections.abc import Iterator
from itertools import pairwise

from crimson_core.judges.rules.lexicon import Lexicon, abbreviations

# A full stop ends a sentence before a space, a capital ("cm.There") or between two words ("clear.no effusion"), but not in
# "1.5 cm" or "vs. edema". Each way of the pattern begins with its sign and then looks back, since it is much faster to search for a
# few signs than to look back at every character.
_ABBREVIATED = r"\bvs|\bapprox|\bApprox|\bVS|\bDr|\bDR|\bdr|\b[RrLl]t|\b[Nn]eg|\d |\be\.g|\bi\.e|\."
_NO_ABBREVIATION = "".join(rf"(?<!{before}.)" for before in _ABBREVIATED.split("|"))
_NO_ANSWER = r"(?!\s*(?i:yes|no|none|negative|positive|absent|present|not)\b)"
_STOP = re.compile(
    rf"\.{_NO_ABBREVIATION}\.{{0,2}}(?!\.)(?=\s|[A-Z]|$)|\.(?<=[A-Za-z]{{3}}\.)(?=[A-Za-z]{{3}})"
    rf"|!(?<![!?].)[!?]*(?=\s|$){_NO_ANSWER}|\?(?<!^.)(?<![\n(].)(?<![.;:,\n]\s.)(?<![!?].)[!?]*(?=\s|$){_NO_ANSWER}|\n"
)
# Where nobody has written stops, a capital letter begins a sentence.
_PUNCTUATION = re.compile(r"[.;!?](?:\s|$)")
_STOP_OR_CAPITAL = re.compile(rf"{_STOP.pattern}|(?<=[a-z0-9%])[^\S\n]+(?=[A-Z][a-z]|A )")
_MANY_WORDS = 12
_LONGEST_HEADING = 60  # characters
_SHORT_ANSWER = 5  # words: "I agree with the above."
_SHORT_HEADING = 3  # words of a line that names a part of the body and nothing else
_HEADING = re.compile(r"\s*(?P<name>[A-Za-z][A-Za-z /&]{1,40}?)\s*:")
_WORD_START = re.compile(r"(?:^|\s)(?=\S)")
EMPTY_LINE = re.compile(r"\s*?\n[^\S\n]*\n")
_SECTION_END = {"paragraph": EMPTY_LINE, "line": re.compile(r"[^\S\n]*\n"), "sentence": re.compile(r"(?!\s*\?)")}
_LINE_START = re.compile(
    r"[^\S\n]*(?P<item>\(?(?:\d{1,2}|[a-h]|[ivx]{1,4})[.)]\s|[-*•+‣◦▪–—]\s|[|\[☐☑☒✓✔✗✘✅❌#>]|[\"']?[A-Za-z][\w /-]{0,40}[\"']?\s*[:=|]\s)?(?P<word>\S*)"
)
# "a) effusion b) nodule", "1. effusion 2. nodule": items of a list within a line, where their labels follow each other.
_LABEL = re.compile(r"(?:(?<=\s)|^)\(?(?P<label>\d{1,2}|[a-h]|[ivx]{1,4})[.)]\s+(?=\S)", re.IGNORECASE)
_MAY_LIST = re.compile(r"[.)](?<=[1aAiI].)\s")
_SERIES = (
    {str(number): str(number + 1) for number in range(1, 20)},
    dict(pairwise("abcdefgh")),
    dict(pairwise(("i", "ii", "iii", "iv", "v", "vi", "vii", "viii"))),
)
_TITLE = re.compile(r"(?:^|\n)[^\S\n]*[A-Z][\w/-]*(?:[^\S\n]+[A-Z][\w/-]*){0,2}\Z")
_HEADING_GOES_ON = re.compile(r"\s+[A-Z][\w/-]*(?:[^\S\n]+[A-Z][\w/-]*){0,2}\s?:")
_DANGLING = re.compile(r"(?:,|\b(?:and|or|of|with|the|an?|in|to|is|are|for|by|at))\s*$", re.IGNORECASE)
_APART = re.compile(r"[^\S\n]\?[^\S\n](?P<letter>[A-Za-z])")
_OPEN = re.compile(r"\([^()\n]*\Z")
_INNER_STOP = re.compile(r"[A-Za-z]{2}[.;]\s+[A-Za-z]")
_FIELD = re.compile(r"\s{1,40}[\"']?\w[\w ]{0,40}[\"']?\s?:\s?\S|\s{0,40}\}")
_CUT_SHORT = re.compile(r"\s?[a-z]")
_LONGEST_WORD = 16
_LONG_LINE = 60  # characters
_LEAST_WIDTH = 40  # characters; text in shorter lines is not wrapped but written in lines

Section = tuple[int, int, str | None, bool]  # start and end of a sentence, the section that it stands in, left out


def sentences(report: str, lexicon: Lexicon, section_end: str = "paragraph") -> Iterator[tuple[int, int]]:
    """Character spans of the sentences about this radiograph; history, technique and the like are left out.

    Such a section goes on until the next heading, or until its own text ends.

    Args:
        report: Its text.
        lexicon: Knows the headings.
        section_end: What ends the text of a section: an empty line (paragraph), the end of its line (line) or of its first
            sentence (sentence).
    """
    for start, end, _, skipped in sections(report, lexicon, section_end):
        if not skipped and report[start:end].strip():
            yield start, end


def sections(report: str, lexicon: Lexicon, section_end: str = "paragraph") -> Iterator[Section]:
    """Spans of all sentences, each with the known section that it stands in and whether that is left out by `sentences`.

    The heading stays in its sentence ("Pneumothorax: small, right" names the finding), but for a section that is left out.

    Args:
        report: Its text.
        lexicon: Knows the headings.
        section_end: As for `sentences`.

    Yields:
        Start and end in characters, the section's heading in lower case (None before the first known one), left out.
    """
    section: str | None = None
    skipping = told = False  # in a section to be left out; the section holds text
    start = 0
    replaced: bool | None = None  # whether a final text replaces a preliminary one; None before anybody asks
    headed = ":" in report
    for end in _ends(report, lexicon):
        text = report[start:end].strip()
        heading = _HEADING.match(report, start, end) if headed else None
        name, elsewhere = "", False
        if heading or len(text) <= _LONGEST_HEADING:
            name = (heading["name"] if heading else text).lower()
            named = name.strip(" .").split()
            elsewhere = len(named) <= _SHORT_HEADING and not lexicon.elsewhere.isdisjoint(named)
        if heading or elsewhere or name in lexicon.sections:
            if name in lexicon.sections:
                section = name
            elif skipping:
                section = None  # an unknown heading ends a history, and stands within the findings
            if name in lexicon.preliminary_sections and replaced is None:
                replaced = _has_final_text(report, lexicon)
            left_out = name in lexicon.skipped_sections or (replaced and name in lexicon.preliminary_sections)
            skipping, told = bool(left_out) or elsewhere, False
            start = (heading.end() if heading else end) if skipping else start
        elif (
            skipping
            and told
            and (section in lexicon.one_sentence_sections or _SECTION_END[section_end].match(report, start))
        ):
            section, skipping = None, False
        told = told or bool(report[start:end].strip())
        yield start, end, section, skipping
        start = end


def has_findings_section(report: str, lexicon: Lexicon) -> bool:
    """Whether a heading such as "Findings:" stands in a report."""
    if ":" not in report:
        return False
    return any(heading["name"].lower() in lexicon.findings_sections for heading in _headings(report))


def _has_final_text(report: str, lexicon: Lexicon) -> bool:
    """Whether a final reading stands in a report that does more than agree with the first one."""
    for heading in _headings(report):
        if heading["name"].lower() in lexicon.final_sections:
            opening = re.findall(r"\w+", report[heading.end() : heading.end() + _LONGEST_HEADING].lower())
            return lexicon.words["agreeing"].isdisjoint(opening[:_SHORT_ANSWER])
    return False


def _headings(report: str) -> Iterator[re.Match[str]]:
    """What may be a heading, with its colon."""
    found = (_HEADING.match(report, match.end()) for match in _WORD_START.finditer(report))
    return (heading for heading in found if heading)


def _ends(report: str, lexicon: Lexicon) -> Iterator[int]:
    """Where sentences end."""
    lines = report.split("\n")
    flowing = _flowing(lines, lexicon) if len(lines) > 1 else []
    width = max(map(len, lines))
    mixed_case = not (report.islower() or report.isupper())
    cut_short = abbreviations()
    items = deque(_items(report))
    number = 0  # of the line that ends at a break
    block = None  # indentation of a key in whose indented lines we are
    stop = _STOP if _PUNCTUATION.search(report) or len(report.split()) < _MANY_WORDS else _STOP_OR_CAPITAL
    for match in stop.finditer(report):
        while items and items[0] <= match.start():
            yield items.popleft()
        sign = match[0]
        if sign == "." and _CUT_SHORT.match(report, match.end()):
            last = report[max(0, match.start() - _LONGEST_WORD) : match.start()].split()[-1:]
            if last and last[0].lower() in cut_short:
                continue  # "degen. changes"
        if sign != "\n":
            if sign[0] in "?!" and _OPEN.search(report[max(0, match.start() - _LONGEST_HEADING) : match.start()]):
                continue  # "opacity (infection? edema?)"
            apart = _APART.match(report, match.start() - 1) if sign == "?" and match.start() else None
            if apart and (apart["letter"].islower() or not mixed_case):
                continue  # "opacity ? pneumonia"
            if not sign.isspace():
                yield match.end()
            elif _HEADING_GOES_ON.match(report, match.start()) and _TITLE.search(
                report[: match.start()][-_LONGEST_HEADING:]
            ):
                continue  # "Cardiac Silhouette: enlarged"
            elif not _DANGLING.search(report[max(0, match.start() - 12) : match.start()]):
                yield match.start()
            continue
        line, number = lines[number], number + 1
        if block is None and line.rstrip(" {").endswith(":"):
            block = _indentation(line)
        if block is not None:
            if _FIELD.match(lines[number]) and _indentation(lines[number]) > block:
                continue
            block = None
        following = _LINE_START.match(report, match.end())
        assert following  # the pattern matches everywhere
        first = following["word"][:1]
        wrapped = width >= _LEAST_WIDTH and len(line.rstrip()) + 1 + len(following["word"]) > width
        # Without letter case to tell, a long line without a stop goes on.
        unfinished = not first.isupper() if mixed_case else len(line.rstrip()) >= _LONG_LINE
        goes_on = wrapped or flowing[number] or unfinished or _DANGLING.search(line)
        if not line.strip() or not first or following["item"] or _is_heading(lines[number], lexicon) or not goes_on:
            yield match.start()  # an empty line stands at the start of the next sentence
    yield from items
    yield len(report)


def _items(report: str) -> list[int]:
    """Where the items of lists within a line begin."""
    labels = (
        [(match["label"].lower(), match.start()) for match in _LABEL.finditer(report)]
        if _MAY_LIST.search(report)
        else []
    )
    found = {
        start
        for (label, first), (following, second) in pairwise(labels)
        if any(series.get(label) == following for series in _SERIES)
        for start in (first, second)
    }
    return sorted(found)


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def _flowing(lines: list[str], lexicon: Lexicon) -> list[bool]:
    """For each line, whether it stands in text with full stops inside the lines, which only run on, and not in a list."""
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if not line.strip() or _is_heading(line, lexicon):
            paragraphs.append([])
        paragraphs[-1].append(line)
    return [flows for lines in paragraphs for flows in [any(map(_INNER_STOP.search, lines))] * len(lines)]


def _is_heading(line: str, lexicon: Lexicon) -> bool:
    heading = _HEADING.match(line)
    return (heading["name"] if heading else line).strip().lower() in lexicon.sections
