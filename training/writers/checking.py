"""Checks that a draft contains the changes that its writer states, and no others, with the lexicon of the offline judge.

It sees quotations that are wrong, omitted findings that are still there, "false" findings that the report has too, findings
that are lost or added by the way, and changes of side, zone, degree, size, form or change over time. It does not see findings
in words that the lexicon does not know, the strength of hedges, or the truth. The writer gets the benefit of the doubt: an
honest rewrite in unknown words passes, and so may an error in such words.
"""

import re
from collections.abc import Sequence

from crimson_core.judges.rules.attributes import ReportFinding
from crimson_core.judges.rules.lexicon import lexicon, normalise, words_of
from crimson_core.judges.rules.matching import match_findings
from crimson_core.judges.rules.significance import patient_of, significance
from training.writers import Attribute, Change, ErrorKind
from training.writers.reading import (
    FRINGE,
    Reading,
    akin,
    contradictions,
    covered,
    differs,
    may_be,
    plain,
    read,
    standing_for,
    stated_values,
)

_SIGNIFICANT = ("urgent", "actionable_not_urgent")


def problem(report: str, kinds: Sequence[ErrorKind], candidate: str, changes: Sequence[Change]) -> str | None:
    """The problem of a draft in one sentence for its writer, without report text; None if there is none."""
    if not candidate.strip():
        return "The candidate is empty."
    if plain(candidate) == plain(report):
        return "The candidate is the report itself."
    if sorted(change.kind for change in changes) != sorted(kinds):
        wanted = ", ".join(kinds) or "none"
        return f"The kinds of the stated changes are not those that were asked for ({wanted}), each once."
    before, after = read(report), read(candidate)
    wrong = next(filter(None, (_misquoted(change, before, after) for change in changes)), None)
    if wrong:
        return wrong
    # positions in `findings` of what the stated changes explain
    refs: set[int] = set()
    preds: set[int] = set()
    # omissions last, among what the other changes leave
    for change in sorted(changes, key=lambda change: change.kind == "omission"):
        check = {"false_finding": _false_finding, "attribute_error": _attribute_error, "omission": _omission}
        wrong = check[change.kind](change, before, after, refs, preds)
        if wrong:
            return wrong
    return _rest(before, after, refs, preds)


def significant(findings: Sequence[ReportFinding]) -> list[int]:
    """Positions of the findings of a report that may be omitted, for an unknown patient."""
    return [place for place, level in enumerate(_levels(findings)) if level in _SIGNIFICANT]


def _levels(findings: Sequence[ReportFinding]) -> list[str]:
    beside = frozenset(concept for finding in findings for concept in finding.concepts)
    return [significance(finding, patient_of(None), beside) for finding in findings]


def _misquoted(change: Change, before: Reading, after: Reading) -> str | None:
    """The problem with the quotations of a change, if they are missing or wrong."""
    if change.kind != "false_finding" and not change.before.strip(FRINGE):
        return f"The {change.kind} has no `before`."
    if change.kind != "omission" and not change.after.strip(FRINGE):
        return f"The {change.kind} has no `after`."
    if change.before and not before.places(change.before):
        return f"The words in `before` of the {change.kind} do not stand in the report."
    if change.after and not after.places(change.after):
        return f"The words in `after` of the {change.kind} do not stand in the candidate."
    return None


# --- each kind of error: returns its problem, or adds the findings that it explains to `refs` and `preds`


def _false_finding(change: Change, before: Reading, after: Reading, refs: set[int], preds: set[int]) -> str | None:
    told = after.at(change.after)
    if not told:  # in words that the lexicon does not know
        if before.places(change.after):
            return "The false_finding is in the report already."
        return None
    present = [mention for mention in told if mention.present]
    if not present:
        return "The false_finding is denied by the candidate, not told."
    matched = {p for _, p in match_findings(before.findings, after.findings)}
    new = [p for p in standing_for(present, after.findings) if p not in matched]
    if not new:
        return "The false_finding is in the report already."
    concepts = lexicon().concepts
    apart: list[ReportFinding] = []
    for finding in (after.findings[p] for p in new):
        if not concepts[finding.concepts[0]].vague and not any(akin(finding, other) for other in apart):
            apart.append(finding)
    if len(apart) > 1:
        return "The false_finding is more than one finding."
    preds.update(new)
    return None


def _attribute_error(change: Change, before: Reading, after: Reading, refs: set[int], preds: set[int]) -> str | None:
    if change.attribute is None:
        return "The attribute_error names no attribute."
    if plain(change.before) == plain(change.after):
        return "`before` and `after` of the attribute_error are the same."
    if change.attribute == "measurement" and _numbers(change.before) == _numbers(change.after):
        return "`before` and `after` of the attribute_error hold the same numbers."
    told, retold = before.at(change.before), after.at(change.after)
    ours, theirs = ([m for m in mentions if m.present] for mentions in (told, retold))
    if told and not ours:
        return "`before` of the attribute_error is no abnormal finding of the report."
    if retold and not theirs:
        return "The candidate denies the finding of the attribute_error, which it should tell with a wrong attribute."
    pairs = [(one, other) for one in ours for other in theirs if akin(one, other)]
    if ours and theirs and not pairs:
        return "`before` and `after` of the attribute_error are different findings."
    changed = [pair for pair in pairs if differs(*pair, change.attribute)]
    if pairs and not changed:
        unseen = any(differs(*pair, change.attribute) is None for pair in pairs)
        if not unseen or not _unknown_words(change.before, change.after):
            return f"`before` and `after` of the attribute_error do not differ in {change.attribute}."
        changed = pairs
    # Words about two findings ("a small right and a large left effusion") pair across too.
    clean = [pair for pair in changed if contradictions(*pair) <= {change.attribute}]
    if changed and not clean:
        return f"The attribute_error changes more than {change.attribute}."
    if any(_still_as_before(one, other, change.attribute, before, after) for one, other in clean):
        return "The candidate tells the finding of the attribute_error as the report does in another place."
    refs.update(standing_for([one for one, _ in clean] or ours, before.findings))
    preds.update(standing_for([other for _, other in clean] or theirs, after.findings))
    return None


def _still_as_before(
    one: ReportFinding, other: ReportFinding, attribute: Attribute, before: Reading, after: Reading
) -> bool:
    """Whether a candidate still has the old version of a finding elsewhere, which no other finding of the report explains."""

    def as_before(finding: ReportFinding) -> bool:
        told = zip(
            stated_values(one, attribute),
            stated_values(finding, attribute),
            stated_values(other, attribute),
            strict=True,
        )
        return akin(one, finding) and any(was and was == now != new for was, now, new in told)

    if attribute == "descriptor" or sum(map(as_before, before.findings)) > 1:
        return False
    return any(as_before(mention) for mention in after.mentions if mention.present)


def _omission(change: Change, before: Reading, after: Reading, refs: set[int], preds: set[int]) -> str | None:
    told = before.at(change.before)
    if not told:  # in words that the lexicon does not know
        return "The omission is still told by the candidate." if after.places(change.before) else None
    left_out = standing_for([mention for mention in told if mention.present], before.findings)
    if not left_out:
        return "`before` of the omission is no abnormal finding of the report."
    if not set(left_out) & set(significant(before.findings)):
        return "The omission is of a finding without clinical significance."
    remaining = [p for p in range(len(after.findings)) if p not in preds]
    kept = [r for r in range(len(before.findings)) if r not in refs]
    matches = match_findings([before.findings[r] for r in kept], [after.findings[p] for p in remaining])
    if any(kept[r] in left_out for r, _ in matches):
        return "The omission is still told by the candidate."
    refs.update(left_out)
    return None


# --- everything besides


def _rest(before: Reading, after: Reading, refs: set[int], preds: set[int]) -> str | None:
    """The problem with the findings that no stated change explains: one is lost, added or changed."""
    missing, made = [before.findings[r] for r in refs], [after.findings[p] for p in preds]
    kept = {r: finding for r, finding in enumerate(before.findings) if r not in refs}
    retold = [finding for p, finding in enumerate(after.findings) if p not in preds]
    # A diagnosis or an appearance that goes with a false finding or an omission belongs to it.
    if not all(covered(f, before.findings) or any(may_be(f, other) for other in made) for f in retold):
        return "The candidate tells a finding, or a side of one, that is not in the report and not a stated change."
    levels = _levels(before.findings)
    lost = [f for r, f in kept.items() if levels[r] != "benign_expected" and not covered(f, after.findings)]
    lost = [f for f in lost if not any(may_be(f, other) for other in missing)]
    denied = [mention for mention in after.mentions if not mention.present]
    if any(may_be(f, m) and not any(akin(f, other) for other in after.findings) for f in lost for m in denied):
        return "The candidate denies a finding of the report, which is not a stated change."
    # Each may be in a clause that the lexicon cannot read, unless the clause has words of the report only.
    known = {word for word, _, _ in words_of(before.text)}
    if len(lost) > sum(not known.issuperset(clause.split()) for clause in after.unread):
        return "The candidate leaves out a finding of the report, or a side of one, which is not a stated change."
    others = list(kept.values())
    for r, p in match_findings(others, retold):
        wrong = contradictions(others[r], retold[p])
        if wrong:
            listed = " and ".join(sorted(wrong))
            return f"The candidate changes the {listed} of a finding, which is not a stated change."
    return None


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?", text)


def _unknown_words(one: str, other: str) -> bool:
    """Whether a word that is in one text only is unknown to the lexicon, so that it may hide a difference."""
    some, others = ({word for word, _, _ in words_of(text)} for text in (one, other))
    return any(word[0].isalpha() and not lexicon().tags([normalise(word)]) for word in some ^ others)
