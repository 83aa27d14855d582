"""How much a finding matters in this patient: the lexicon's typical significance, moved by the rules of `rules.yaml`."""

import re
from functools import cache
from typing import Any, NamedTuple

from crimson_core.judges.rules.devices import position
from crimson_core.judges.rules.extraction import ReportFinding
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
        typical: What in the concept's entry, or in the code, the rules started from.
        whys: The `why` of each rule that moved it, in their order.
    """

    rank: int
    concept: str
    typical: str
    whys: tuple[str, ...]


def significance(finding: ReportFinding, patient: Patient, beside: frozenset[str]) -> str:
    """Clinical significance of a finding, in a patient, beside the other concepts of its report."""
    return SIGNIFICANCE_LEVELS[graded(finding, patient, beside).rank]


def graded(finding: ReportFinding, patient: Patient, beside: frozenset[str]) -> Graded:
    """The same, with where it comes from.

    Of several possible concepts the gravest counts, but an appearance matters as much as what the report takes it to be.
    """
    concepts = [lexicon().concepts[key] for key in finding.diagnoses]
    return min((_graded(concept, finding, patient, beside) for concept in concepts), key=lambda one: one.rank)


def _graded(concept: Concept, finding: ReportFinding, patient: Patient, beside: frozenset[str]) -> Graded:
    level, typical = _typical(concept, finding)
    rank = SIGNIFICANCE_LEVELS.index(level)
    whys: tuple[str, ...] = ()
    for rule in rules()["significance"]:
        if concept.id in rule["concepts"] and _applies(rule, finding, patient, beside):
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
        return "urgent", "a device out of place is urgent"
    severity = finding.attributes.severity
    reached = [rank for rank in concept.by_severity if severity is not None and rank <= severity]
    if reached:
        return concept.by_severity[max(reached)], f"by_severity.{max(reached)}"
    return concept.significance, "significance"


def _applies(rule: dict[str, Any], finding: ReportFinding, patient: Patient, beside: frozenset[str]) -> bool:
    attributes = finding.attributes
    age = patient.age

    def mentioned(key: str) -> bool:
        return any(_words(term) in patient.indication for term in rule[key])

    conditions = {
        "age_from": lambda: age is not None and age >= rule["age_from"],
        "age_below": lambda: age is not None and age < rule["age_below"],
        "indication": lambda: mentioned("indication"),
        "beside": lambda: not beside.isdisjoint(rule["beside"]),
        "unless_beside": lambda: beside.isdisjoint(rule["unless_beside"]),
        "unless_indication": lambda: not mentioned("unless_indication"),
        "sites": lambda: not attributes.sites.isdisjoint(rule["sites"]),
        "temporal": lambda: attributes.temporal in rule["temporal"],
        "not_temporal": lambda: attributes.temporal not in rule["not_temporal"],
        "severity_to": lambda: attributes.severity is not None and attributes.severity <= rule["severity_to"],
    }
    return all(holds() for key, holds in conditions.items() if key in rule)


def _asserted(indication: str) -> str:
    """The words of an indication without what it denies ("Cough. No trauma.")."""
    pieces = re.split(r"[.,;\n]", indication)
    return " ".join(_padded(re.split(r"\b(?:no|denies|without|not)\b", piece, flags=re.I)[0]) for piece in pieces)


def _padded(text: str) -> str:
    """The normalised words of a text, with a blank on each side, so that one is in another as whole words only."""
    return f" {' '.join(word for word, _, _ in words_of(text))} "


_words = cache(_padded)  # of the terms in the rules; the words of patients are not kept
