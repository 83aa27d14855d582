"""Locates the findings of an evaluation in its two reports."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from crimson_core.protocol.scoring import JudgedFinding, Outcome

Span = tuple[int, int]


@dataclass(frozen=True)
class Mark:
    """The highlight of one finding in a report's text."""

    finding: JudgedFinding
    anchor: str  # its name in the page, of safe letters
    kind: str  # `matched`, `missing` or `false`
    # number of its group of matched findings, from 1 and equal in both reports; None without a match
    group: int | None = None
    span: Span | None = None  # its characters in the report; None if it cannot be located without guessing


class Piece(NamedTuple):
    """A stretch of a report that is covered by the same findings throughout."""

    text: str
    marks: list[Mark]  # the marks that cover it, the longest first, so that nested findings lie upon those around them
    starts: list[Mark]  # those of them that start here
    ends: list[Mark]  # those of them that end here


def mark_reports(outcome: Outcome, reference: str, candidate: str, anchor: str = "") -> tuple[list[Mark], list[Mark]]:
    """The marks of both reports; `anchor`, in safe letters, begins their names in the page."""
    groups = _groups(outcome.matches)

    def marks(findings: Mapping[str, JudgedFinding], report: str, side: int) -> list[Mark]:
        name, unmatched = (("reference", "missing"), ("candidate", "false"))[side]
        return [
            Mark(
                finding,
                f"{anchor}{name}-{number}",
                "matched" if finding.partners else unmatched,
                groups.get((side, finding.id)),
                locate(finding.text, finding.span, report),
            )
            for number, finding in enumerate(findings.values(), 1)
        ]

    return marks(outcome.references, reference, 0), marks(outcome.predictions, candidate, 1)


def locate(text: str, span: Any, report: str) -> Span | None:
    """Locate a finding in its report.

    The judge's span counts if it contains the finding's text. Otherwise the text counts as located where it
    stands as whole words exactly once.
    """
    if isinstance(span, (list, tuple)) and len(span) == 2 and all(type(end) is int for end in span):
        start, end = span
        if 0 <= start < end <= len(report) and report[start:end] == text:
            return start, end
    text = text.strip()
    if not text:
        return None
    found = [match.start() for match in re.finditer(rf"(?<!\w)(?={re.escape(text)}(?!\w))", report)]
    return (found[0], found[0] + len(text)) if len(found) == 1 else None


def pieces(report: str, marks: Sequence[Mark]) -> Iterator[Piece]:
    """Cut a report where its marks start and end; marks may overlap, nest and share a span."""
    located = sorted(((mark.span, mark) for mark in marks if mark.span), key=lambda found: found[0][0] - found[0][1])
    cuts = sorted({0, len(report), *(end for span, _ in located for end in span)})
    for start, end in pairwise(cuts):
        here = [(span, mark) for span, mark in located if span[0] <= start and end <= span[1]]
        yield Piece(
            report[start:end],
            [mark for _, mark in here],
            [mark for span, mark in here if span[0] == start],
            [mark for span, mark in here if span[1] == end],
        )


def _groups(matches: Sequence[tuple[str, str]]) -> dict[tuple[int, str], int]:
    """(0, reference id) or (1, prediction id) -> number of the group that matches make, directly or through others."""
    members: list[set[tuple[int, str]]] = []
    for ref_id, pred_id in matches:
        new = {(0, ref_id), (1, pred_id)}
        touched = [group for group in members if group & new]
        first = members.index(touched[0]) if touched else len(members)
        members[first : first + 1] = [new.union(*touched)]
        members = [group for group in members if group is members[first] or group not in touched]
    return {member: number for number, group in enumerate(members, 1) for member in group}
