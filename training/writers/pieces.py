"""Cuts a report into pieces: its sentences with their findings, and the text between them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.resources import files
from typing import Any

import yaml

from crimson_core.judges.rules.attributes import ReportFinding
from crimson_core.judges.rules.extraction import read_report
from crimson_core.judges.rules.lexicon import lexicon
from crimson_core.judges.rules.sentences import sentences

_HEADING = re.compile(r"\s*([A-Za-z][A-Za-z /&]{1,40}?)\s*:\s*")
# "an" stands before a vowel, a spelt abbreviation ("an NG tube", but "a PICC"), and 8, 11, 18 and 80 to 89.
_AN = re.compile(r"(?i:[aeiou])|[FHLMNRSX][A-Z]{1,2}\b|(?:8|11|18|8\d)\b")
_ARTICLE = re.compile(r"\b(an?) $", re.IGNORECASE)
_NUMBER = re.compile(r"\s*(?:\d{1,2}[.)]\s+|[-*•]\s+)?")


@dataclass(frozen=True)
class Piece:
    """A sentence of a report."""

    lead: str  # the text before it: blanks, a heading, a list number, sections without findings
    text: str
    tells: frozenset[int] = frozenset()  # positions of its findings among those of the report
    spans: tuple[tuple[int, int, int], ...] = ()  # (finding, start, end) in `text` of each finding
    denies: frozenset[str] = frozenset()  # the concepts that it denies
    implies: frozenset[str] = frozenset()  # further concepts that it rules out: clear lungs contain no nodule
    leaning: bool = False  # whether it refers to the sentence before it
    changed: bool = False  # whether it contains an error of ours, and must not be changed again

    @property
    def heads(self) -> bool:
        """Whether it follows a heading or an empty line."""
        return ":" in self.lead or "\n\n" in self.lead


@cache
def phrases() -> dict[str, Any]:
    """The content of `phrases.yaml`."""
    return yaml.safe_load(files(__package__).joinpath("phrases.yaml").read_text(encoding="utf-8"))


@cache
def pattern(name: str, end: str = "") -> re.Pattern[str]:
    """A regular expression of `phrases.yaml`; YAML folds its lines after a bar."""
    return re.compile(phrases()[name].replace("| ", "|") + end, re.IGNORECASE)


leaning = partial(pattern, "leaning", r"\b")  # matches the start of a sentence that refers to the one before it


def pieces_of(report: str, findings: Sequence[ReportFinding]) -> list[Piece]:
    """The pieces of a report with these findings. Joined, they are the report without what follows the last sentence."""
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
        if start < done or re.fullmatch(r"(?:\d{1,2}[.)])?", text):  # a list number belongs to its entry
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
    """The report that consists of the pieces."""
    return "".join(piece.lead + piece.text for piece in pieces).strip()


def without(pieces: Sequence[Piece], gone: set[int]) -> list[Piece]:
    """The pieces without some of them; the next piece takes over a heading, if it has none."""
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
    """The text before a word, with the right one of "a" and "an"."""

    def article(found: re.Match[str]) -> str:
        return like("an " if _AN.match(word) else "a ", found[1])

    return _ARTICLE.sub(article, before)


def like(word: str, model: str) -> str:
    """A word in the letter case of another word."""
    return word.upper() if model.isupper() and len(model) > 1 else word.capitalize() if model[:1].isupper() else word


def _meant(mention: ReportFinding, findings: Sequence[ReportFinding]) -> list[int]:
    """The findings that a mention may belong to: the one that starts there, else those with its concept, else related ones."""
    words = lexicon()
    fitting = [i for i, f in enumerate(findings) if words.related(mention.concepts, f.concepts)]
    here = [i for i in fitting if findings[i].start == mention.start]
    same = [i for i in fitting if set(findings[i].concepts) & set(mention.concepts)]
    return here or same or fitting


def _ruled_out(text: str) -> frozenset[str]:
    """The concepts that a normal statement rules out, by `phrases.yaml`."""
    return frozenset(
        concept
        for normal in phrases()["normal"]
        if text == normal["text"] or ("when" in normal and re.search(normal["when"], text, re.IGNORECASE))
        for concept in normal["about"]
    )
