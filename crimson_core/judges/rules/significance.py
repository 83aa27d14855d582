"""How much a finding matters in this patient: the lexicon's typical significance, moved by the rules of `rules.yaml`."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

from crimson_core.judges.rules.attributes import Attributes, ReportFinding
from crimson_core.judges.rules.devices import position
from crimson_core.judges.rules.lexicon import Concept, lexicon, rules, words_of
from crimson_core.protocol.evaluation import SIGNIFICANCE_LEVELS
from crimson_core.protocol.pair import PatientContext


class Patient(NamedTuple):
    """What the rules ask of a patient: the age in years, and the normalised words of the indication that it does not deny."""

    age: float | None
    indication: str


def patient_of(context: PatientContext | None) -> Patient:
    """The patient of a context; age and indication may be missing."""
    if context is None:
        return Patient(None, "")
    return Patient(context.age_years, _asserted(context.indication or ""))


class Graded(NamedTuple):
    """A clinical significance and where it comes from.

    Attributes:
        rank: Position in SIGNIFICANCE_LEVELS, where the gravest level stands first.
        concept: Id of the concept that it is the significance of.
        typical: What the rules started from: a key of the concept's entry, or of `rules.yaml`.
        whys: The `why` of each rule that moved it, in their order.
    """

    rank: int
    concept: str
    typical: str
    whys: tuple[str, ...]


_RANK = attrgetter("rank")
_ENDS = re.compile(r"[.,;\n]")  # of what a denial in an indication is about
_DENIAL = re.compile(r"\b(?:no|denies|without|not)\b", re.IGNORECASE)


def significance(finding: ReportFinding, patient: Patient, beside: frozenset[str]) -> str:
    """Clinical significance of a finding, in a patient, beside the other concepts of its report."""
    return SIGNIFICANCE_LEVELS[graded(finding, patient, beside).rank]


def graded(finding: ReportFinding, patient: Patient, beside: frozenset[str]) -> Graded:
    """The same, with where it comes from.

    Of several possible concepts the gravest counts, but an appearance matters as much as what the report takes it to be.
    """
    concepts = lexicon().concepts
    if len(finding.concepts) == 1:
        return _graded(concepts[finding.concepts[0]], finding, patient, beside)
    return min([_graded(concepts[key], finding, patient, beside) for key in finding.diagnoses], key=_RANK)


def _graded(concept: Concept, finding: ReportFinding, patient: Patient, beside: frozenset[str]) -> Graded:
    level, typical = _typical(concept, finding)
    rank = SIGNIFICANCE_LEVELS.index(level)
    whys: tuple[str, ...] = ()
    for rule, conditions in _rules_of().get(concept.id, ()):
        if all(holds(asked, finding.attributes, patient, beside) for holds, asked in conditions):
            before = rank
            if "set" in rule:
                rank = SIGNIFICANCE_LEVELS.index(rule["set"])
            elif "at_least" in rule:
                rank = min(rank, SIGNIFICANCE_LEVELS.index(rule["at_least"]))
            elif "at_most" in rule:
                rank = max(rank, SIGNIFICANCE_LEVELS.index(rule["at_most"]))
            if rank != before:
                whys += (rule["why"],)
    return Graded(rank, concept.id, typical, whys)


def _typical(concept: Concept, finding: ReportFinding) -> tuple[str, str]:
    """The level of a finding whatever the patient, and what says so."""
    if position(finding) == "bad":
        return rules()["device_out_of_place"]["significance"], "rules.yaml: device_out_of_place"
    severity = finding.attributes.severity
    if severity is not None and concept.by_severity:
        reached = [rank for rank in concept.by_severity if rank <= severity]
        if reached:
            return concept.by_severity[max(reached)], f"by_severity.{max(reached)}"
    return concept.significance, "significance"


_Condition = Callable[[Any, Attributes, Patient, frozenset[str]], bool]
# What a rule may ask: its key -> whether that holds, given what stands behind the key, the finding, the patient, and the other
# concepts of the report.
_CONDITIONS: dict[str, _Condition] = {
    "age_from": lambda years, _, patient, __: patient.age is not None and patient.age >= years,
    "age_below": lambda years, _, patient, __: patient.age is not None and patient.age < years,
    "indication": lambda terms, _, patient, __: _mentioned(terms, patient),
    "unless_indication": lambda terms, _, patient, __: not _mentioned(terms, patient),
    "beside": lambda concepts, _, __, beside: not beside.isdisjoint(concepts),
    "unless_beside": lambda concepts, _, __, beside: beside.isdisjoint(concepts),
    "sites": lambda sites, told, *_: not told.sites.isdisjoint(sites),
    "temporal": lambda changes, told, *_: told.temporal in changes,
    "not_temporal": lambda changes, told, *_: told.temporal not in changes,
    "severity_to": lambda rank, told, *_: told.severity is not None and told.severity <= rank,
}


@cache
def _rules_of() -> dict[str, list[tuple[dict[str, Any], list[tuple[_Condition, Any]]]]]:
    """Concept -> the rules that may move its significance, in their order, each with its conditions and what they ask."""
    found: dict[str, list[tuple[dict[str, Any], list[tuple[_Condition, Any]]]]] = {}
    for rule in rules()["significance"]:
        conditions = [(holds, rule[key]) for key, holds in _CONDITIONS.items() if key in rule]
        for concept in rule["concepts"]:
            found.setdefault(concept, []).append((rule, conditions))
    return found


def _mentioned(terms: Sequence[str], patient: Patient) -> bool:
    return any(_words(term) in patient.indication for term in terms)


def _asserted(indication: str) -> str:
    """The words of an indication without what it denies ("Cough. No trauma.")."""
    return " ".join(_padded(_DENIAL.split(piece, 1)[0]) for piece in _ENDS.split(indication))


def _padded(text: str) -> str:
    """The normalised words of a text, with a blank on each side, so that one is in another as whole words only."""
    return f" {' '.join(word for word, _, _ in words_of(text))} "


_words = cache(_padded)  # of the terms in the rules; the words of patients are not kept
