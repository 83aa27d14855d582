"""A report in pieces: its sentences, each with the findings that it tells, and what stands between them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from crimson_core.judges.rules.extraction import ReportFinding, read_report
from crimson_core.judges.rules.lexicon import lexicon
from crimson_core.judges.rules.sentences import sentences

_HEADING = re.compile(r"\s*([A-Za-z][A-Za-z /&]{1,40}?)\s*:\s*")
# What wants "an": a vowel, an abbreviation that is spelt ("an NG tube", but "a PICC"), eight, eleven, eighteen and eighty.
_AN = re.compile(r"(?i:[aeiou])|[FHLMNRSX][A-Z]{1,2}\b|(?:8|11|18|8\d)\b")
_ARTICLE = re.compile(r"\b(an?) $", re.IGNORECASE)
_NUMBER = re.compile(r"\s*(?:\d{1,2}[.)]\s+|[-*•]\s+)?")


@dataclass(frozen=True)
class Piece:
    """A sentence of a report.

    Attributes:
        lead: What stands before it: blanks, a heading, a number of a list, sections that tell no findings.
        text: The sentence.
        tells: The findings that it tells, as positions among those of the report.
        spans: (finding, first character, one past the last) in `text`, of the findings that it tells.
        denies: The concepts that it denies.
        implies: The concepts that it rules out besides: clear lungs hold no nodule.
        leaning: It cannot stand without the sentence before it.
        changed: It holds an error of ours, and is not to be touched again.
    """

    lead: str
    text: str
    tells: frozenset[int] = frozenset()
    spans: tuple[tuple[int, int, int], ...] = ()
    denies: frozenset[str] = frozenset()
    implies: frozenset[str] = frozenset()
    leaning: bool = False
    changed: bool = False

    @property
    def heads(self) -> bool:
        """Whether a heading or an empty line stands before it."""
        return ":" in self.lead or "\n\n" in self.lead


@cache
def phrases() -> dict[str, Any]:
    """The content of `phrases.yaml`."""
    return yaml.safe_load(files(__package__).joinpath("phrases.yaml").read_text(encoding="utf-8"))


@cache
def leaning() -> re.Pattern[str]:
    """Matches the start of a sentence that leans on the one before it."""
    return re.compile(phrases()["leaning"].replace("| ", "|") + r"\b", re.IGNORECASE)


def pieces_of(report: str, findings: Sequence[ReportFinding]) -> list[Piece]:
    """The sentences of a report that tell its findings; joined they are the report but for what follows the last one.

    Args:
        report: Its text.
        findings: What `extract_findings` gives for it.
    """
    words = lexicon()
    told = read_report(report)
    pieces: list[Piece] = []
    done = 0
    for start, end in sentences(report, words):
        heading = _HEADING.match(report, start, end)
        while heading and heading[1].lower() in words.sections:
            start = heading.end()
            heading = _HEADING.match(report, start, end)
        start = min(_NUMBER.match(report, start, end).end(), end)
        text = report[start:end].rstrip()
        if start < done or re.fullmatch(r"(?:\d{1,2}[.)])?", text):  # the number of a list goes with what it numbers
            continue
        inside = [mention for mention in told if start <= mention.start < start + len(text)]
        present = [mention for mention in inside if mention.present]
        spans = tuple(
            (index, mention.start - start, mention.end - start)
            for mention in present
            for index in _meant(mention, findings)
        )
        denied = frozenset(concept for mention in inside if not mention.present for concept in mention.concepts)
        tells = frozenset(index for index, _, _ in spans)
        leans = bool(leaning().match(text)) or any(mention.taken_up for mention in present)
        pieces.append(Piece(report[done:start], text, tells, spans, denied, _ruled_out(text), leans))
        done = start + len(text)
    return pieces


def joined(pieces: Sequence[Piece]) -> str:
    """The report that pieces make."""
    return "".join(piece.lead + piece.text for piece in pieces).strip()


def without(pieces: Sequence[Piece], gone: set[int]) -> list[Piece]:
    """The pieces without some of them; a heading goes on to the piece behind it, if that has none."""
    kept: list[Piece] = []
    lead = None
    for position, piece in enumerate(pieces):
        if position in gone:
            lead = piece.lead if lead is None else lead
            continue
        if lead is not None and not piece.heads:
            piece = replace(piece, lead=lead)
        kept.append(piece)
        lead = None
    return kept


def with_article(before: str, word: str) -> str:
    """What stands before a word, with "a" or "an" as the word wants it."""

    def article(found: re.Match[str]) -> str:
        return like("an " if _AN.match(word) else "a ", found[1])

    return _ARTICLE.sub(article, before)


def like(word: str, model: str) -> str:
    """A word in the letter case of another one."""
    return word.upper() if model.isupper() and len(model) > 1 else word.capitalize() if model[:1].isupper() else word


def _meant(mention: ReportFinding, findings: Sequence[ReportFinding]) -> list[int]:
    """The findings that a mention may tell: the one that begins there, else those of its concept, else those near to it."""
    words = lexicon()
    fitting = [i for i, f in enumerate(findings) if words.related(mention.concepts, f.concepts)]
    here = [i for i in fitting if findings[i].start == mention.start]
    same = [i for i in fitting if set(findings[i].concepts) & set(mention.concepts)]
    return here or same or fitting


def _ruled_out(text: str) -> frozenset[str]:
    """The concepts that a normal statement rules out, in the words of `phrases.yaml` or in others like these."""
    return frozenset(
        concept
        for normal in phrases()["normal"]
        if text == normal["text"] or ("when" in normal and re.search(normal["when"], text, re.IGNORECASE))
        for concept in normal["about"]
    )
