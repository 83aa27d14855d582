"""A report's text as it is meant, where it was copied out of a PDF file or a web page or written with decimal commas."""

import re

from crimson_core.judges.rules.lexicon import is_known

_LETTERS = {
    "\ufb00": "ff",
    "\ufb01": "fi",
    "\ufb02": "fl",
    "\ufb03": "ffi",
    "\ufb04": "ffl",
    "\u2010": "-",
    "\u2011": "-",
}
_DECIMAL_COMMA = r"(?<=[0-9]),(?=[0-9]{1,2}\s?(?:[cm]m\b|x\s?[0-9]))"
_COMMA = re.compile(_DECIMAL_COMMA)
# Decimal commas of sizes, marks that nobody sees, ligatures and hyphens of other kinds, letters of full width, and words that a
# line break parts.
_ODD = re.compile(
    rf"(?P<comma>{_DECIMAL_COMMA})"
    r"|(?P<unseen>[\u00ad\u200b-\u200d\u2060\ufeff])"
    r"|(?P<sign>[\ufb00-\ufb04\u2010\u2011])"
    r"|(?P<wide>[\uff01-\uff5e])"
    r"|(?P<broken>(?<=[a-z])-\r?\n[^\S\n]{0,40}(?=[a-z]))"
)
_FULL_WIDTH = 0xFEE0  # from a letter to its twin
_BEFORE, _BEHIND = re.compile(r"[A-Za-z]{1,40}\Z"), re.compile(r"[A-Za-z]{1,40}")


def legible(report: str) -> tuple[str, list[int] | None]:
    """The text without what only a computer sees in it.

    Returns:
        The text, and for each of its characters, and the end, its place in the report; None where nothing had to be changed.
    """
    if report.isascii() and "-\n" not in report and "-\r" not in report and not _COMMA.search(report):
        return report, None
    text, places, position = "", [], 0
    for match in _ODD.finditer(report):
        put = _in_place_of(match, report)
        text += report[position : match.start()] + put
        places += [*range(position, match.start()), *[match.start()] * len(put)]
        position = match.end()
    if not position:
        return report, None
    return text + report[position:], [*places, *range(position, len(report) + 1)]


def _in_place_of(match: re.Match[str], report: str) -> str:
    if match["comma"]:
        return "."
    if match["unseen"]:
        return ""
    if match["sign"]:
        return _LETTERS[match["sign"]]
    if match["wide"]:
        return chr(ord(match["wide"]) - _FULL_WIDTH)
    before = _BEFORE.search(report, max(0, match.start() - 40), match.start())
    behind = _BEHIND.match(report, match.end())
    whole = before and behind and is_known(before[0] + behind[0])  # "right-sided" keeps its hyphen
    return "" if whole else "-"
