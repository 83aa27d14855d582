"""Sections of a report: the text with findings, and the indication."""

import re

from crimson_core.judges.rules.lexicon import lexicon
from crimson_core.judges.rules.sentences import has_findings_section, sections
from training.writers.pieces import leaning

# The sections that say why the radiograph was taken.
INDICATION_SECTIONS = frozenset(
    {
        *("indication", "indications", "clinical indication", "clinical indications", "clinical information"),
        *("history", "clinical history", "patient history", "relevant clinical history", "hx", "presenting complaint"),
        *("reason for exam", "reason for examination", "reason for study", "reason for the study"),
        *("reason for request", "reason for referral", "clinical question", "clinical details", "clinical data"),
        *("medical condition", "clinical summary"),
    }
)
LONGEST_INDICATION = 300  # characters; a longer text is more than an indication

# Headings of the whole report, which are dropped; others ("Lungs:") belong to the text below them.
_TITLES = re.compile(
    r"\s*(?:findings and impression|findings?|impression|conclusions?|opinion|(?:final )?report|wet read(?: version #\d)?"
    r"|interpretation|results?|summary)\s*(?::|$)",
    re.IGNORECASE | re.MULTILINE,
)
_RULE = re.compile(r"^[^\S\n]*(?:[_=-]{5,}|final report)[^\S\n]*(?:\n|\Z)", re.IGNORECASE | re.MULTILINE)
_NO_WORD_LINE = re.compile(r"\A[\s\d_:./-]*(?:[AP]M\b)?[^\S\n]*(?:\n|\Z)")  # the time of a wet read
_INNER_HEADING = re.compile(r"\A(?:history|indication)\s*:\s*", re.IGNORECASE)  # "INDICATION: History: fever"
_WHOLE_SENTENCE = re.compile(r"[A-Za-z].*[.!?][\"')\]]*\Z", re.DOTALL)
_CUT_NUMBER = re.compile(r"\b\d+\.\Z")  # "terminates 2." of "2.5 cm"


def findings_text(report: str) -> str:
    """The text of a report's findings and impression; "" if it has none.

    A report without these headings keeps everything but the sections without findings (history, technique and the like);
    one without any heading is kept whole.
    """
    words = lexicon()
    titled = has_findings_section(report, words)
    blocks: list[list[int]] = []
    previous: str | None = None
    begun = not titled
    for start, end, section, skipped in sections(report, words):
        begun = begun or section in words.findings_sections
        if begun and not skipped:
            if blocks and blocks[-1][1] == start and (section == previous or section not in words.findings_sections):
                blocks[-1][1] = end
            else:
                blocks.append([start, end])
        previous = section
    texts = (_untitled(report[start:end]) for start, end in blocks)
    return "\n".join(text for text in texts if text)


def findings_only_text(report: str) -> str:
    """The text under a report's "findings" headings, without its impression; "" if it has no such heading."""
    texts = (report[start:end] for start, end, section, _ in sections(report, lexicon()) if section == "findings")
    return _untitled("".join(texts))


def indication_text(report: str) -> str | None:
    """The report's indication (or history) in one line; None if it has none, or one of more than `LONGEST_INDICATION`."""
    by_section: dict[str, list[str]] = {}
    for start, end, section, skipped in sections(report, lexicon()):
        if skipped and section in INDICATION_SECTIONS:
            by_section.setdefault(section, []).append(report[start:end])
    texts = (_INNER_HEADING.sub("", " ".join(" ".join(parts).split())) for parts in by_section.values())
    return next((text for text in texts if text and len(text) <= LONGEST_INDICATION), None)


def whole_sentences(report: str) -> str:
    """A report that may be cut anywhere, up to its last complete sentence; "" if it has none."""
    for start, end, _, _ in reversed(list(sections(report, lexicon()))):
        last = report[start:end].strip()
        cut = not report[end:].strip() and _CUT_NUMBER.search(last)
        if _WHOLE_SENTENCE.search(last) and not cut:
            return report[:end].rstrip()
    return ""


def parts(report: str, most_words: int) -> list[str]:
    """A report, cut between sentences into parts of at most `most_words` words, unless a sentence alone is longer.

    No part begins with a sentence that refers to the one before it ("It is unchanged").
    """
    blocks: list[list[int]] = []  # spans of sentences that belong together
    for start, end, _, _ in sections(report, lexicon()):
        text = report[start:end].strip()
        if blocks and (not text or leaning().match(text)):
            blocks[-1][1] = end
        else:
            blocks.append([blocks[-1][1] if blocks else 0, end])  # a heading stays with what it stands over
    cut: list[list[int]] = []
    for start, end in blocks:
        if cut and len(report[cut[-1][0] : end].split()) <= most_words:
            cut[-1][1] = end
        else:
            cut.append([start, end])
    return [text for start, end in cut if (text := report[start:end].strip())]


def _untitled(text: str) -> str:
    text = _RULE.sub("", text)
    while title := _TITLES.match(text):
        text = _NO_WORD_LINE.sub("", text[title.end() :], count=1)
    return text.strip()
