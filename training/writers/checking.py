"""Whether a draft holds the changes that its writer states, and no others; read with the lexicon of the offline judge.

What it can see: words that are not where they are said to be; a finding of the lexicon that is still told although it was left
out, that was told before although it is said to be false, that is lost or added on the side, or whose side, zone, degree,
size, form or change over time is another one. What it cannot see: findings in words that the lexicon does not know, whether
a hedge is as strong as before, and what is true. What it cannot read counts for the writer: an honest rewrite in unknown
words passes, and so may a slip in such words.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from crimson_core.judges.offline.devices import position
from crimson_core.judges.offline.extraction import ReportFinding, extract_findings, read_report
from crimson_core.judges.offline.lexicon import interchangeable_pairs, lexicon, normalise, rules, words_of
from crimson_core.judges.offline.matching import compares_sides, match_findings, zone_gap
from crimson_core.judges.offline.significance import patient_of, significance
from training.writers import Attribute, Change, ErrorKind

_SIGNIFICANT = ("urgent", "actionable_not_urgent")
_SAME_SIZE_MM = 0.5
_DEGREES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 3}  # "trace" and "small", "large" and "massive" are said for each other
# "more pronounced on the right" tells no side: there is some on the left.
_UNEVEN = re.compile(
    r"\b(?:more|greater|larger|worse|especially|particularly|mostly|predominantly)\s+"
    r"(?:(?:pronounced|marked|prominent|extensive|severe|so)\s+)?(?:on|in|at)\s+the\s+(?:left|right)\b"
    r"|\b(?:left|right)\s+(?:side\s+)?(?:greater|more|larger|worse)\s+than\b",
    re.IGNORECASE,
)
_FRINGE = " \t\r\n.,;:"


@dataclass(frozen=True)
class _Reading:
    """A report as the lexicon reads it: every mention, each finding once, and the clauses that it cannot read."""

    text: str
    mentions: list[ReportFinding]
    findings: list[ReportFinding]
    unread: set[str]

    def places(self, words: str) -> list[tuple[int, int]]:
        """Where some words stand, whatever their letter case and the blanks between them."""
        words = words.strip(_FRINGE)
        pattern = r"\s+".join(map(re.escape, words.split()))
        found = re.finditer(rf"(?<!\w){pattern}(?!\w)" if words[-1:].isalnum() else pattern, self.text, re.IGNORECASE)
        return [match.span() for match in found] if words else []

    def at(self, words: str) -> list[ReportFinding]:
        """The mentions, denied ones too, that share characters with some words."""
        spans = self.places(words)
        return [m for m in self.mentions if any(m.start < end and start < m.end for start, end in spans)]


def problem(report: str, kinds: Sequence[ErrorKind], candidate: str, changes: Sequence[Change]) -> str | None:
    """What is wrong with a draft, as one sentence that its writer can be told, without report text; None if nothing is.

    Args:
        report: The ground truth.
        kinds: The errors that were to be made, one each.
        candidate: What was written.
        changes: The errors that the writer states.
    """
    if not candidate.strip():
        return "The candidate is empty."
    if [word for word, _, _ in words_of(candidate)] == [word for word, _, _ in words_of(report)]:
        return "The candidate is the report itself."
    if sorted(change.kind for change in changes) != sorted(kinds):
        wanted = ", ".join(kinds) or "none"
        return f"The kinds of the stated changes are not those that were asked for ({wanted}), each once."
    before, after = _read(report), _read(candidate)
    wrong = next(filter(None, (_misquoted(change, before, after) for change in changes)), None)
    if wrong:
        return wrong
    # Positions in `findings`: what the stated changes account for.
    refs: set[int] = set()
    preds: set[int] = set()
    # What is left out is looked for last, in what the other changes leave.
    for change in sorted(changes, key=lambda change: change.kind == "omission"):
        check = {"false_finding": _false_finding, "attribute_error": _attribute_error, "omission": _omission}
        wrong = check[change.kind](change, before, after, refs, preds)
        if wrong:
            return wrong
    return _rest(before, after, refs, preds)


def significant_findings(findings: Sequence[ReportFinding]) -> list[ReportFinding]:
    """Those of a report's findings that an omission may be about, in a patient of whom nothing is known."""
    return [finding for finding, level in zip(findings, _levels(findings), strict=True) if level in _SIGNIFICANT]


def _levels(findings: Sequence[ReportFinding]) -> list[str]:
    beside = frozenset(concept for finding in findings for concept in finding.concepts)
    return [significance(finding, patient_of(None), beside) for finding in findings]


def _read(text: str) -> _Reading:
    unread: list[str] = []
    mentions = read_report(text, unread.append)  # appending gives None: no concept
    mentions, findings = ([_evened(f, text) for f in found] for found in (mentions, extract_findings(text)))
    return _Reading(text, mentions, findings, {_plain(clause) for clause in unread})


def _evened(finding: ReportFinding, text: str) -> ReportFinding:
    if not _UNEVEN.search(text, finding.start, finding.end):
        return finding
    return replace(finding, attributes=replace(finding.attributes, sides=frozenset()))


def _plain(text: str) -> str:
    return " ".join(word for word, _, _ in words_of(text))


def _misquoted(change: Change, before: _Reading, after: _Reading) -> str | None:
    """Whether the words of a change are missing, or stand in neither report as stated."""
    if change.kind != "false_finding" and not change.before.strip(_FRINGE):
        return f"The {change.kind} has no `before`."
    if change.kind != "omission" and not change.after.strip(_FRINGE):
        return f"The {change.kind} has no `after`."
    if change.before and not before.places(change.before):
        return f"The words in `before` of the {change.kind} do not stand in the report."
    if change.after and not after.places(change.after):
        return f"The words in `after` of the {change.kind} do not stand in the candidate."
    return None


# --- each kind of error: what is wrong with it; else `refs` and `preds` gain the findings that it accounts for


def _false_finding(change: Change, before: _Reading, after: _Reading, refs: set[int], preds: set[int]) -> str | None:
    told = after.at(change.after)
    if not told:  # in words that the lexicon does not know
        if before.places(change.after):
            return "The false_finding is in the report already."
        return None
    present = [mention for mention in told if mention.present]
    if not present:
        return "The false_finding is denied by the candidate, not told."
    matched = {p for _, p in match_findings(before.findings, after.findings)}
    new = [p for p in _standing_for(present, after.findings) if p not in matched]
    if not new:
        return "The false_finding is in the report already."
    vague = lexicon().concepts
    apart: list[ReportFinding] = []
    for finding in (after.findings[p] for p in new):
        if not vague[finding.concepts[0]].vague and not any(_akin(finding, other) for other in apart):
            apart.append(finding)
    if len(apart) > 1:
        return "The false_finding is more than one finding."
    preds.update(new)
    return None


def _attribute_error(change: Change, before: _Reading, after: _Reading, refs: set[int], preds: set[int]) -> str | None:
    if change.attribute is None:
        return "The attribute_error names no attribute."
    if _plain(change.before) == _plain(change.after):
        return "`before` and `after` of the attribute_error are the same."
    if change.attribute == "measurement" and _numbers(change.before) == _numbers(change.after):
        return "`before` and `after` of the attribute_error hold the same numbers."
    told, retold = before.at(change.before), after.at(change.after)
    ours, theirs = ([m for m in mentions if m.present] for mentions in (told, retold))
    if told and not ours:
        return "`before` of the attribute_error is no abnormal finding of the report."
    if retold and not theirs:
        return "The candidate denies the finding of the attribute_error, which it should tell with a wrong attribute."
    pairs = [(one, other) for one in ours for other in theirs if _akin(one, other)]
    if ours and theirs and not pairs:
        return "`before` and `after` of the attribute_error are different findings."
    changed = [pair for pair in pairs if _differs(*pair, change.attribute)]
    if pairs and not changed:
        unseen = any(_differs(*pair, change.attribute) is None for pair in pairs)
        if not unseen or not _unknown_words(change.before, change.after):
            return f"`before` and `after` of the attribute_error do not differ in {change.attribute}."
        changed = pairs
    # Words about two findings ("a small right and a large left effusion") pair across too.
    clean = [pair for pair in changed if _changed(*pair) <= {change.attribute}]
    if changed and not clean:
        return f"The attribute_error changes more than {change.attribute}."
    if any(_still_as_before(one, other, change.attribute, before, after) for one, other in clean):
        return "The candidate tells the finding of the attribute_error as the report does in another place."
    refs.update(_standing_for([one for one, _ in clean] or ours, before.findings))
    preds.update(_standing_for([other for _, other in clean] or theirs, after.findings))
    return None


def _omission(change: Change, before: _Reading, after: _Reading, refs: set[int], preds: set[int]) -> str | None:
    told = before.at(change.before)
    if not told:  # in words that the lexicon does not know
        return "The omission is still told by the candidate." if after.places(change.before) else None
    left_out = _standing_for([mention for mention in told if mention.present], before.findings)
    if not left_out:
        return "`before` of the omission is no abnormal finding of the report."
    weighty = significant_findings(before.findings)
    if not any(before.findings[r] in weighty for r in left_out):
        return "The omission is of a finding without clinical significance."
    remaining = [p for p in range(len(after.findings)) if p not in preds]
    kept = [r for r in range(len(before.findings)) if r not in refs]
    matches = match_findings([before.findings[r] for r in kept], [after.findings[p] for p in remaining])
    if any(kept[r] in left_out for r, _ in matches):
        return "The omission is still told by the candidate."
    refs.update(left_out)
    return None


# --- everything besides


def _rest(before: _Reading, after: _Reading, refs: set[int], preds: set[int]) -> str | None:
    """What is lost, added or changed of the findings that no stated change accounts for."""
    stated = [before.findings[r] for r in refs], [after.findings[p] for p in preds]
    others = [f for r, f in enumerate(before.findings) if r not in refs]
    levels = _levels(before.findings)
    weighing = [f for r, f in enumerate(before.findings) if r not in refs and levels[r] != "benign_expected"]
    retold = [f for p, f in enumerate(after.findings) if p not in preds]
    for finding in retold:
        # A diagnosis or an appearance that goes with a false finding belongs to it.
        if not _covered(finding, before.findings) and not any(
            _akin(finding, f) and _meets(finding, f) for f in stated[1]
        ):
            return "The candidate tells a finding, or a side of one, that is not in the report and not a stated change."
    lost = [f for f in weighing if not _covered(f, after.findings)]
    lost = [f for f in lost if not any(_akin(f, other) and _meets(f, other) for other in stated[0])]
    denied = [m for m in after.mentions if not m.present]
    if any(_akin(f, m) and _meets(f, m) and not any(_akin(f, p) for p in after.findings) for f in lost for m in denied):
        return "The candidate denies a finding of the report, which is not a stated change."
    known = {word for word, _, _ in words_of(before.text)}
    if len(lost) > sum(
        not known.issuperset(clause.split()) for clause in after.unread
    ):  # it may be told in one of these
        return "The candidate leaves out a finding of the report, or a side of one, which is not a stated change."
    for r, p in match_findings(others, retold):
        wrong = _changed(others[r], retold[p])
        if wrong:
            listed = " and ".join(sorted(wrong))
            return f"The candidate changes the {listed} of a finding, which is not a stated change."
    return None


def _covered(finding: ReportFinding, others: Iterable[ReportFinding]) -> bool:
    """Whether findings of the other report tell a finding: related ones, at its side or its sides together."""
    akin = [other for other in others if _akin(finding, other) and _meets(finding, other)]
    sides = [other.attributes.sides for other in akin if compares_sides(finding, other)]
    if not akin or not sides or not all(sides):
        return bool(akin)
    return finding.attributes.sides <= frozenset().union(*sides)


def _standing_for(mentions: Sequence[ReportFinding], findings: Sequence[ReportFinding]) -> list[int]:
    """Positions of the findings that some mentions of them have become."""
    related = lexicon().related
    return [
        position
        for position, finding in enumerate(findings)
        if any(related(finding.concepts, m.concepts) and _meets(finding, m) for m in mentions)
    ]


def _akin(one: ReportFinding, other: ReportFinding) -> bool:
    """Whether two findings may be one in other words."""
    if lexicon().related(one.concepts, other.concepts):
        return True
    return not interchangeable_pairs().isdisjoint((a, b) for a in one.concepts for b in other.concepts)


def _meets(one: ReportFinding, other: ReportFinding) -> bool:
    sides, others = one.attributes.sides, other.attributes.sides
    return not sides or not others or bool(sides & others) or not compares_sides(one, other)


# --- attributes


def _told(finding: ReportFinding, attribute: Attribute) -> tuple:
    """What is read of an attribute; parts that are empty are not told."""
    told = finding.attributes
    return {
        "location": (told.sides, told.zones, told.sites, position(finding)),
        "severity": (told.severity,),
        "descriptor": (told.descriptors, finding.concepts),
        "measurement": (told.sizes_mm, told.above_carina_mm),
        "certainty": (told.uncertain,),
        "temporal": (told.temporal,),
    }[attribute]


def _differs(one: ReportFinding, other: ReportFinding, attribute: Attribute) -> bool | None:
    """Whether two findings differ in an attribute; None where the lexicon reads nothing of it in either."""
    ours, theirs = _told(one, attribute), _told(other, attribute)
    if ours != theirs:
        return True
    return False if any(ours[:1] if attribute == "descriptor" else ours) else None


def _still_as_before(
    one: ReportFinding, other: ReportFinding, attribute: Attribute, before: _Reading, after: _Reading
) -> bool:
    """Whether a candidate tells a finding in another place as it was, and no other finding of the report accounts for it."""

    def as_before(finding: ReportFinding) -> bool:
        told = zip(_told(one, attribute), _told(finding, attribute), _told(other, attribute), strict=True)
        return _akin(one, finding) and any(was and was == now != new for was, now, new in told)

    if attribute == "descriptor" or sum(map(as_before, before.findings)) > 1:
        return False
    return any(as_before(mention) for mention in after.mentions if mention.present)


def _changed(one: ReportFinding, other: ReportFinding) -> set[Attribute]:
    """The attributes of which both findings tell something, and not the same; hedges apart."""
    found: set[Attribute] = set() if _meets(one, other) else {"location"}
    ours, theirs = one.attributes, other.attributes
    if ours.severity and theirs.severity and _DEGREES[ours.severity] != _DEGREES[theirs.severity]:
        found.add("severity")
    times = {ours.temporal, theirs.temporal}
    if len(times - {None}) == 2 and times not in map(set, rules()["attribute_errors"]["temporal"]["alike"]):
        found.add("temporal")
    sizes = ours.sizes_mm[:1] + theirs.sizes_mm[:1]
    heights = [h for h in (ours.above_carina_mm, theirs.above_carina_mm) if h is not None]
    if any(len(pair) == 2 and abs(pair[0] - pair[1]) > _SAME_SIZE_MM for pair in (sizes, heights)):
        found.add("measurement")
    forms = {group for group, _ in ours.descriptors} & {group for group, _ in theirs.descriptors}
    if {group for group, _ in ours.descriptors & theirs.descriptors} < forms:
        found.add("descriptor")
    if _elsewhere(one, other):
        found.add("location")
    return found


def _elsewhere(one: ReportFinding, other: ReportFinding) -> bool:
    if {position(one), position(other)} == {"good", "bad"}:
        return True
    ours, theirs = one.attributes, other.attributes
    levels = [{site for site in told.sites if site[-1].isdecimal()} for told in (ours, theirs)]
    if all(levels) and levels[0].isdisjoint(levels[1]):
        return True
    gap = zone_gap(ours, theirs) if compares_sides(one, other) else 0
    if gap and ours.by_lobe and theirs.by_lobe:
        # The middle of the left lung belongs to the upper lobe.
        return ours.sides != {"left"} or ("lower" in ours.zones) != ("lower" in theirs.zones)
    return gap > 1  # lobes have borders; what else is upper, middle and lower is a matter of words


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?", text)


def _unknown_words(one: str, other: str) -> bool:
    """Whether a word of one text only means nothing to the lexicon, so that a difference may be hidden in it."""
    some, others = ({word for word, _, _ in words_of(text)} for text in (one, other))
    return any(word[0].isalpha() and not lexicon().tags([normalise(word)]) for word in some ^ others)
