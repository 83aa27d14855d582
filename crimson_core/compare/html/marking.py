"""Where the findings of an evaluation stand in the reports, and what is said of each."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Span = tuple[int, int]


@dataclass(frozen=True)
class Mark:
    """What a report's text shows about one finding.

    Attributes:
        id: Of the finding.
        anchor: Its name in the page, of safe letters.
        finding: Its text.
        level: Its clinical significance, as the judge wrote it.
        kind: `matched`, `missing` or `false`.
        group: Number of its group of matched findings, from 1 and the same in both reports; None without a match.
        partners: Ids of the findings that it is matched with.
        errors: The attribute errors of its matches.
        span: Its characters in the report; None where it cannot be located without guessing.
    """

    id: str
    anchor: str
    finding: str
    level: str
    kind: str
    group: int | None = None
    partners: list[str] = field(default_factory=list)
    errors: list[Mapping[str, Any]] = field(default_factory=list)
    span: Span | None = None


class Piece(NamedTuple):
    """A stretch of a report that is covered by the same findings throughout.

    Attributes:
        text: Its characters.
        marks: The marks that cover it, the longest first, so that nested findings lie upon those around them.
        starts: Those of them that start here.
        ends: Those of them that end here.
    """

    text: str
    marks: list[Mark]
    starts: list[Mark]
    ends: list[Mark]


def mark_reports(
    evaluation: Mapping[str, Any], reference: str, candidate: str, anchor: str = ""
) -> tuple[list[Mark], list[Mark]]:
    """The marks of the reference report and of the candidate report.

    Args:
        evaluation: A consistent evaluation in the wire format.
        reference: The reference report.
        candidate: The candidate report.
        anchor: Start of the names in the page, of safe letters.
    """
    matches = [(match["ref_id"], match["pred_id"]) for match in evaluation["matched_findings"]]
    errors = evaluation["errors"]["attribute_errors"]
    groups = _groups(matches)

    def marks(findings: Sequence[Mapping[str, Any]], report: str, side: int, unmatched: str) -> list[Mark]:
        own, other = ("ref_id", "pred_id") if side == 0 else ("pred_id", "ref_id")
        made = []
        for number, finding in enumerate(findings, 1):
            i = finding["id"]
            partners = [match[1 - side] for match in matches if match[side] == i]
            made.append(
                Mark(
                    i,
                    f"{anchor}{'reference' if side == 0 else 'candidate'}-{number}",
                    finding["finding"],
                    finding.get("clinical_significance", ""),
                    "matched" if partners else unmatched,
                    groups.get((side, i)),
                    partners,
                    [error for error in errors if error[own] == i and error[other] in partners],
                    locate(finding, report),
                )
            )
        return made

    return (
        marks(evaluation["reference_findings"], reference, 0, "missing"),
        marks(evaluation["predicted_findings"], candidate, 1, "false"),
    )


def locate(finding: Mapping[str, Any], report: str) -> Span | None:
    """Where a finding stands in its report.

    The span that the judge gave counts if it holds the finding's text. Otherwise the text counts as located where it
    stands as whole words exactly once.
    """
    text, span = finding["finding"], finding.get("span")
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
    located = [mark for mark in marks if mark.span]
    cuts = sorted({0, len(report), *(end for mark in located for end in mark.span)})
    for start, end in zip(cuts, cuts[1:], strict=False):
        here = [mark for mark in located if mark.span[0] <= start and end <= mark.span[1]]
        here.sort(key=lambda mark: mark.span[0] - mark.span[1])
        yield Piece(
            report[start:end],
            here,
            [mark for mark in here if mark.span[0] == start],
            [mark for mark in here if mark.span[1] == end],
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
