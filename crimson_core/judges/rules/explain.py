"""How the offline judge has read a report or a pair, and which entry or rule decided each thing.

The reading itself says so; nothing is read a second time in another way.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from crimson_core.judges.rules.attributes import Attributes, Mention
from crimson_core.judges.rules.clauses import Clause
from crimson_core.judges.rules.denials import BESIDE, DIRECTED
from crimson_core.judges.rules.extraction import ClauseRead, reading_of
from crimson_core.judges.rules.judge import Read, discrepancies
from crimson_core.judges.rules.legible import legible
from crimson_core.judges.rules.lexicon import Tag, concept_files, lexicon, rules
from crimson_core.judges.rules.matching import match_findings, similarity
from crimson_core.judges.rules.significance import Patient, graded, patient_of
from crimson_core.protocol.evaluation import SIGNIFICANCE_LEVELS
from crimson_core.protocol.pair import PatientContext, ReportPair, parse_context

_COMPOSED = {"temporal": "language.yaml: change (composed by change.py)", "rule": "assertion.py"}


@dataclass(frozen=True)
class Phrase:
    """Words of a report and the entry that they are read by.

    Attributes:
        text: The words.
        entry: File and key of the entry, or the file of code, that reads them.
        effect: What they made of the presence of a finding (absent, unsaid, uncertain), where they are a cue.
    """

    text: str
    entry: str
    effect: str | None = None


@dataclass(frozen=True)
class ExplainedMention:
    """A finding in a clause.

    Attributes:
        text: All the words that belong to it.
        concepts: Ids of lexicon concepts.
        presence: present, absent, or unsaid (asked about, history, not to be assessed).
        attributes: What is said about it; only what is said.
        named_by: The phrases that name it.
        decided_by: The cues that act on it, in the order in which they do.
        told_by: The modifiers that are about it.
        findings: Ids of the findings of the report that it is told in.
    """

    text: str
    concepts: list[str]
    presence: str
    attributes: dict[str, Any]
    named_by: list[Phrase]
    decided_by: list[Phrase]
    told_by: list[Phrase]
    findings: list[str]


@dataclass(frozen=True)
class ExplainedClause:
    """A clause.

    Attributes:
        text: Its words.
        role: explains (it says what the finding before it is), continues (it says more of it), or None.
        phrases: All phrases that are known in it.
        mentions: The findings that it names.
    """

    text: str
    role: str | None
    phrases: list[Phrase]
    mentions: list[ExplainedMention]


@dataclass(frozen=True)
class ExplainedSentence:
    """A sentence.

    Attributes:
        text: Its words.
        left_out: Why it was not read, or None.
        clauses: Those that hold any known phrase.
    """

    text: str
    left_out: str | None
    clauses: list[ExplainedClause]


@dataclass(frozen=True)
class ExplainedFinding:
    """A finding as the evaluation lists it.

    Attributes:
        id: R1, R2, … or P1, P2, ….
        text: Where it first stands in the report.
        concepts: Ids of lexicon concepts; several where the report leaves it open.
        attributes: What the report says about it, wherever it does.
        significance: Its clinical significance.
        typical: What the rules started from: a key of the concept's entry, or of `rules.yaml`.
        rules: The `why` of each rule of `rules.yaml` that moved it.
    """

    id: str
    text: str
    concepts: list[str]
    attributes: dict[str, Any]
    significance: str
    typical: str
    rules: list[str]


@dataclass(frozen=True)
class Explanation:
    """How a report was read.

    Attributes:
        recognised: False for text in which nothing is known.
        sentences: In the order of the text.
        findings: Those that are present, each once.
    """

    recognised: bool
    sentences: list[ExplainedSentence]
    findings: list[ExplainedFinding]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class ExplainedError:
    """An attribute error, with the place of its rule in `rules.yaml`."""

    type: str
    grade: str
    explanation: str
    rule: str


@dataclass(frozen=True)
class ExplainedMatch:
    """A match, with how alike the findings are (1 for the same concept at the same place) and its attribute errors."""

    ref_id: str
    pred_id: str
    similarity: float
    errors: list[ExplainedError]


@dataclass(frozen=True)
class PairExplanation:
    """How both reports of a pair were read, and what was matched."""

    reference: Explanation
    candidate: Explanation
    matches: list[ExplainedMatch]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def explain(report: str, context: PatientContext | Mapping[str, Any] | None = None) -> Explanation:
    """How the offline judge reads a report, and which entry or rule decides each thing.

    Args:
        report: Its text.
        context: Of the patient; it moves the significance of findings. A mapping as in `patient_contexts`.

    Raises:
        InputError: The context is no such mapping, or one of its values cannot be read.
    """
    return _explained("P", report, patient_of(parse_context(context, "context")))[0]


def explain_pair(pair: ReportPair) -> PairExplanation:
    """How the offline judge reads the two reports of a pair, what it matches, and by which rule it grades what differs."""
    patient = patient_of(pair.context)
    reference, one = _explained("R", pair.reference, patient)
    candidate, other = _explained("P", pair.candidate, patient)
    references, predictions = one.findings, other.findings
    matches = match_findings(references, predictions, (one.denied, other.denied))
    urgent = [finding.significance == "urgent" for finding in reference.findings]
    found = discrepancies(references, predictions, matches, urgent, (one.denied, other.denied))
    explained = [
        ExplainedMatch(
            reference.findings[r].id,
            candidate.findings[p].id,
            round(similarity(references[r], predictions[p]), 3),
            [
                ExplainedError(what.type, what.grade, what.explanation, _place(what.rule))
                for place in found
                for what in place[2:]
                if place[:2] == (r, p)
            ],
        )
        for r, p in matches
    ]
    return PairExplanation(reference, candidate, explained)


def _explained(letter: str, report: str, patient: Patient) -> tuple[Explanation, Read]:
    report, _ = legible(report)
    steps: list[ClauseRead] = []
    reading = reading_of(report, steps=steps)
    found = reading.findings()
    beside = frozenset(concept for finding in found for concept in finding.concepts)
    findings = []
    for number, finding in enumerate(found, 1):
        level = graded(finding, patient, beside)
        typical = level.typical
        if ":" not in typical:  # a key of the entry
            typical = f"{concept_files()[level.concept]}: {level.concept}.{typical}"
        findings.append(
            ExplainedFinding(
                f"{letter}{number}",
                report[finding.start : finding.end],
                list(finding.concepts),
                _said(finding.attributes),
                SIGNIFICANCE_LEVELS[level.rank],
                typical,
                list(level.whys),
            )
        )
    ids = {
        place: [f"{letter}{number}" for number, other in enumerate(found, 1) if place in other.told_at]
        for finding in found
        for place in finding.told_at
    }
    by_sentence: dict[int, list[ClauseRead]] = {}
    for step in steps:
        by_sentence.setdefault(step.start, []).append(step)
    sentences = []
    seen: set[str] = set()
    for start, end, section, skipped in reading.sections:
        text = report[start:end]
        if not text.strip():
            continue
        left_out = f"in a section that is left out ({section})" if skipped else "said before" if text in seen else None
        if not skipped:
            seen.add(text)
        bare = text.strip()
        read = [] if left_out else by_sentence.get(start + text.index(bare), [])
        sentences.append(ExplainedSentence(bare, left_out, [_clause(step, bare, ids) for step in read]))
    return Explanation(reading.recognised, sentences, findings), Read(found, reading.denied(), reading.recognised)


def _clause(step: ClauseRead, sentence: str, ids: Mapping[tuple[int, int], list[str]]) -> ExplainedClause:
    clause = step.clause
    mentions = []
    for mention in step.named:
        start, end = clause.spans[mention.first][0], clause.spans[mention.last - 1][1]
        told = ids.get((step.start + start, step.start + end), []) if mention.presence == "present" else []
        mentions.append(_mention(mention, clause, sentence, told))
    phrases = [_phrase(tag, clause, sentence) for tag in clause.tags]
    return ExplainedClause(_text(clause, sentence, clause.start, clause.end), step.role, phrases, mentions)


def _mention(mention: Mention, clause: Clause, sentence: str, told: list[str]) -> ExplainedMention:
    return ExplainedMention(
        _text(clause, sentence, mention.first, mention.last),
        list(mention.concepts),
        mention.presence,
        _said(mention.attributes),
        [_phrase(tag, clause, sentence) for tag in mention.named_by],
        [_phrase(tag, clause, sentence, effect) for effect, tag in mention.decided_by],
        [_phrase(tag, clause, sentence) for tag in mention.told_by],
        told,
    )


def _text(clause: Clause, sentence: str, first: int, last: int) -> str:
    return sentence[clause.spans[first][0] : clause.spans[last - 1][1]] if first < last else ""


def _phrase(tag: Tag, clause: Clause, sentence: str, effect: str | None = None) -> Phrase:
    return Phrase(_text(clause, sentence, tag.start, tag.end), _entry(tag, clause), effect)


def _entry(tag: Tag, clause: Clause) -> str:
    """File and key of what reads a phrase."""
    kind, value = tag.kind, tag.value
    if kind in ("concept", "normal_of"):
        return f"{concept_files()[value]}: {value}.{'terms' if kind == 'concept' else 'normal'}"
    known = {(other.kind, other.value) for other in lexicon().tags(clause.words[tag.start : tag.end])}
    if value in DIRECTED and ("assertion", BESIDE) in known:
        value = BESIDE  # of which only the place told which way it looks
    elif (kind, value) not in known:  # made by code
        return _COMPOSED.get(kind, "forms.py")
    if kind == "dominant":
        return "language.yaml: asymmetry"
    if kind in ("side", "zone", "severity", "temporal", "descriptor", "position"):
        kind = f"modifiers.{kind}"
    key = ".".join(value) if isinstance(value, tuple) else value
    return f"language.yaml: {kind}" + ("" if key is None else f".{key}")


def _said(attributes: Attributes) -> dict[str, Any]:
    """The attributes that are told, JSON-ready."""
    return {
        name: sorted(value) if isinstance(value, frozenset) else value
        for name, value in attributes._asdict().items()
        if value not in (None, False, frozenset(), ())
    }


def _place(rule: Mapping[str, Any]) -> str:
    """Where a rule stands in `rules.yaml`."""

    def paths(inner: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if inner is rule:
            yield path
        elif isinstance(inner, dict):
            for key, value in inner.items():
                yield from paths(value, (*path, str(key)))

    return "rules.yaml: " + ".".join(next(paths(rules(), ())))
