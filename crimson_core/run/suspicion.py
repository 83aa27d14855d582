"""Evidence against a model's evaluation, from the offline judge's reading of the reports.

A model may omit findings of a report, list findings that it does not contain, or read one reference differently beside
another candidate: because a report misled it, or because it is weak. The offline reading errs too, so only findings
that it is sure of count, and a suspicion is a reason to look at a pair, not a verdict.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from crimson_core.judges.rules.attributes import ReportFinding
from crimson_core.judges.rules.extraction import read_report
from crimson_core.judges.rules.lexicon import lexicon
from crimson_core.judges.rules.significance import patient_of, significance
from crimson_core.protocol.evaluation import SIGNIFICANCE_LEVELS
from crimson_core.protocol.pair import PatientContext, ReportPair
from crimson_core.protocol.scoring import significance_weight

_GRAVE = SIGNIFICANCE_LEVELS[:2]
_URGENT = SIGNIFICANCE_LEVELS[0]
_REMEMBERED = 64  # cached readings, for one run only, since they contain report text
_WORD = re.compile(r"[^\W\d_]{4,}")
_STEM = 5  # letters that identify a word in all its forms
_COMMON = """right left bilateral small large mild moderate severe acute chronic lung lobe upper lower middle base basal zone
chest finding evidence likely possible possibly probable with without seen noted stable unchanged increased decreased area
patient study change this that there which from into more than prior previous again also"""
_SAYS_LITTLE = frozenset(word[:_STEM] for word in _COMMON.split())
_LEAST_OF_REFERENCE = 0.5  # share of the same reference's weight beside other candidates


class Reading:
    """The offline judge's reading of a report; the context influences what is urgent."""

    def __init__(self, report: str, context: PatientContext | None = None) -> None:
        self._context = context
        self.mentions = read_report(report)
        self.words = _words(report)

    @cached_property
    def present(self) -> list[tuple[ReportFinding, str]]:
        """The findings that the report states as present, with their clinical significance."""
        present = [finding for finding in self.mentions if finding.present]
        beside = frozenset(concept for finding in present for concept in finding.concepts)
        patient = patient_of(self._context)
        return [(finding, significance(finding, patient, beside)) for finding in present]

    @cached_property
    def sure(self) -> list[tuple[ReportFinding, str]]:
        """The present findings that the report states without doubt and does not deny elsewhere."""
        denied = {concept for finding in self.mentions if not finding.present for concept in finding.concepts}
        return [
            (finding, level)
            for finding, level in self.present
            if len(finding.concepts) == 1
            and not finding.attributes.uncertain
            and not denied.intersection(finding.concepts)
        ]


Read = Callable[[str, PatientContext | None], Reading]


def reader() -> Read:
    """`Reading` with a cache of the latest ones, since candidates of several systems share a reference."""
    return lru_cache(_REMEMBERED)(Reading)


def suspicions(pair: ReportPair, evaluation: Mapping[str, Any], read: Read = Reading) -> list[str]:
    """Evidence against the evaluation of a pair as the judge saw it: one line each, without report text."""
    found: list[str] = []
    for name, report, key in (
        ("reference", pair.reference, "reference_findings"),
        ("candidate", pair.candidate, "predicted_findings"),
    ):
        reading = read(report, pair.context)
        listed = [str(finding.get("finding", "")) for finding in evaluation.get(key) or []]
        listed_concepts = [
            concept for text in listed for mention in read(text, None).mentions for concept in mention.concepts
        ]
        listed_words = _words(" ".join(listed))
        urgent = [finding for finding, level in reading.sure if level == _URGENT]
        lost = sum(not _is_listed(finding, report, listed_concepts, listed_words) for finding in urgent)
        if not listed and any(level in _GRAVE for _, level in reading.present):
            found.append(f"{name}: none of its findings is listed")
        elif lost:
            found.append(f"{name}: urgent findings are not listed ({lost})")
        strange = sum(not _is_mentioned(text, reading, read) for text in listed)
        if strange:
            found.append(f"{name}: findings are listed that it does not mention ({strange})")
    return found


def changed_references(evaluations: Sequence[tuple[ReportPair, Mapping[str, Any]]]) -> dict[int, str]:
    """Position -> suspicion, for evaluations that list much less of a reference than others of the same reference."""
    weights: dict[tuple[str, PatientContext | None], list[tuple[int, float]]] = {}
    for place, (pair, evaluation) in enumerate(evaluations):
        weight = sum(significance_weight(finding) for finding in evaluation.get("reference_findings") or [])
        weights.setdefault((pair.reference, pair.context), []).append((place, weight))
    found: dict[int, str] = {}
    for same in weights.values():
        usual = sorted(weight for _, weight in same)[len(same) // 2]  # of two the larger one
        for place, weight in same:
            if weight < _LEAST_OF_REFERENCE * usual:
                found[place] = "reference: less of it is listed than beside other candidates"
    return found


def _is_listed(finding: ReportFinding, report: str, concepts: Sequence[str], words: frozenset[str]) -> bool:
    return lexicon().related(finding.concepts, concepts) or not words.isdisjoint(
        _words(report[finding.start : finding.end])
    )


def _is_mentioned(text: str, reading: Reading, read: Read) -> bool:
    """Whether a report mentions a listed finding, by one of its words or by a concept."""
    words = _words(text)
    if not words or not words.isdisjoint(reading.words):
        return True
    concepts = [concept for mention in read(text, None).mentions for concept in mention.concepts]
    return lexicon().related(concepts, [concept for mention in reading.mentions for concept in mention.concepts])


def _words(text: str) -> frozenset[str]:
    """The stems of a text's meaningful words."""
    return frozenset(word[:_STEM] for word in _WORD.findall(text.lower())) - _SAYS_LITTLE
