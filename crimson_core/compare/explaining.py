"""An explanation of the offline judge as plain text, for the command line and the Space."""

from collections.abc import Iterator
from typing import Any

from crimson_core.compare.formats import printable
from crimson_core.judges.rules.explain import (
    ExplainedClause,
    ExplainedFinding,
    Explanation,
    PairExplanation,
    Phrase,
)


def explanation_text(explained: Explanation | PairExplanation) -> str:
    """List what was read sentence by sentence, then the findings and, for a pair, the matches; without control characters."""
    if isinstance(explained, Explanation):
        lines = list(_report(explained))
    else:
        parts = (("REFERENCE", explained.reference), ("CANDIDATE", explained.candidate))
        lines = [line for name, report in parts for line in (name, "", *_report(report), "")]
        lines += _matches(explained)
    return "\n".join(map(printable, lines))


def _report(report: Explanation) -> Iterator[str]:
    if not report.recognised:
        more = "further findings" if report.findings else "its findings"
        yield f"Unrecognised: hardly a word of this report is known, so that {more} may be missing."
    for sentence in report.sentences:
        yield f"“{' '.join(sentence.text.split())}”" + (f"  {sentence.left_out}" if sentence.left_out else "")
        for clause in sentence.clauses:
            yield from _clause(clause)
    yield ""
    yield "Findings" if report.findings else "Findings: none"
    for finding in report.findings:
        yield from _finding(finding)


def _clause(clause: ExplainedClause) -> Iterator[str]:
    if clause.role:
        yield f"    {clause.role} the finding before it"
    if not clause.mentions:
        yield f"    no finding; known: {_phrases(clause.phrases)}"
    for mention in clause.mentions:
        findings = f" ({', '.join(mention.findings)})" if mention.findings else ""
        yield f"    {' or '.join(mention.concepts)}: {mention.presence}{findings}"
        for name, phrases in (("named", mention.named_by), ("decided", mention.decided_by), ("told", mention.told_by)):
            if phrases:
                yield f"        {name} by {_phrases(phrases)}"


def _phrases(phrases: list[Phrase]) -> str:
    shown = (f"“{phrase.text}” {phrase.effect or ''} [{phrase.entry}]".replace("  ", " ") for phrase in phrases)
    return ", ".join(shown)


def _finding(finding: ExplainedFinding) -> Iterator[str]:
    yield f"{finding.id}  “{' '.join(finding.text.split())}”  {' or '.join(finding.concepts)}"
    if finding.attributes:
        yield f"    {', '.join(f'{name} {_value(value)}' for name, value in finding.attributes.items())}"
    yield f"    {finding.significance} [{'; '.join([finding.typical, *(f'rules.yaml: {why}' for why in finding.rules)])}]"


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " and ".join(_value(one) for one in value)
    return "yes" if value is True else str(value)


def _matches(pair: PairExplanation) -> Iterator[str]:
    yield "MATCHES" if pair.matches else "MATCHES: none"
    for match in pair.matches:
        yield f"{match.ref_id} = {match.pred_id}  similarity {match.similarity:g}"
        for error in match.errors:
            yield f"    {error.grade} {error.type}: {error.explanation} [{error.rule}]"
    matched = {i for match in pair.matches for i in (match.ref_id, match.pred_id)}
    for name, report in (("missing", pair.reference), ("false", pair.candidate)):
        left = [finding.id for finding in report.findings if finding.id not in matched]
        if left:
            yield f"{name}: {', '.join(left)}"
