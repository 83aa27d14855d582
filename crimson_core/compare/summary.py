"""Scores -> figures of a corpus: means, errors by kind, and what they mean in the clinic. An unscored pair is in none of them, and is counted."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from crimson_core.compare.statistics import Estimate, ratio_intervals
from crimson_core.protocol.evaluation import ERROR_TYPES, SIGNIFICANCE_LEVELS
from crimson_core.protocol.outcome import JudgedError, Outcome
from crimson_core.protocol.pair import PatientContext, ReportPair
from crimson_core.protocol.scoring import ERROR_COUNT_KEYS
from crimson_core.run.scorer import PairResult

OTHER = "other"  # levels that a judge made up
UNKNOWN = "unknown"  # subgroup of the pairs whose context does not say
_URGENT = frozenset(SIGNIFICANCE_LEVELS[:1])
_ACTIONABLE = frozenset(SIGNIFICANCE_LEVELS[:2])
_AGE_BANDS = (  # years, up to but not including
    (18, "under 18"),
    (40, "18 to 39"),
    (65, "40 to 64"),
    (80, "65 to 79"),
    (float("inf"), "80 and over"),
)
_SEXES = {"f": "female", "female": "female", "woman": "female", "m": "male", "male": "male", "man": "male"}

Count = tuple[float, float]  # what one pair adds to a numerator and to its denominator


class Summary(NamedTuple):
    """Figures of scored pairs.

    Attributes:
        crimson_score: Mean over the scored pairs; NaN if there are none.
        scores: One per pair, NaN where unscored.
        n_pairs: Scored or not.
        n_unscored: Of them.
        n_repaired: Pairs whose evaluation had to be mended.
        n_suspect: Pairs with something that speaks against a model's evaluation.
        n_unrecognised: Pairs with a report that an offline judge cannot read.
        failures: Index of an unscored pair -> why.
        mean_errors: Kind of `ERROR_COUNT_KEYS` -> errors per scored pair.
        n_urgent: Urgent reference findings.
        n_urgent_missed: Those of them that are missing.
        signature: Of the scores.
    """

    crimson_score: float
    scores: list[float]
    n_pairs: int
    n_unscored: int
    n_repaired: int
    n_suspect: int
    n_unrecognised: int
    failures: dict[int, str | None]
    mean_errors: dict[str, float]
    n_urgent: int
    n_urgent_missed: int
    signature: str


def summary_of(results: Sequence[PairResult], signature: str) -> Summary:
    """The figures of results. Arguments as of `summarize`."""
    scored = [result.score for result in results if result.score is not None]
    outcomes = [result.outcome for result in results if result.outcome]
    return Summary(
        crimson_score=_mean([score["crimson_score"] for score in scored]),
        scores=[result.crimson_score for result in results],
        n_pairs=len(results),
        n_unscored=len(results) - len(scored),
        n_repaired=sum(bool(result.repairs) for result in results),
        n_suspect=sum(bool(result.suspicions) for result in results),
        n_unrecognised=sum(bool(result.unrecognised) for result in results),
        failures={result.index: result.failure for result in results if result.score is None},
        mean_errors={kind: _mean([score["error_counts"][kind] for score in scored]) for kind in ERROR_COUNT_KEYS},
        n_urgent=sum(f.level in _URGENT for outcome in outcomes for f in outcome.references.values()),
        n_urgent_missed=sum(map(urgent_missed, outcomes)),
        signature=signature,
    )


def urgent_missed(outcome: Outcome) -> int:
    """Urgent findings of a reference report that the candidate lacks."""
    return sum(finding.level in _URGENT for finding in outcome.missing)


def summarize(results: Sequence[PairResult], signature: str) -> dict[str, Any]:
    """Corpus figures of scored pairs, flat and JSON-ready but for NaN.

    Args:
        results: In the order in which `scores` shall stand.
        signature: Of the scorer that made them.

    Returns:
        `crimson_score` (mean over scored pairs; NaN if there are none), `scores` (one per pair, NaN where unscored), `n_pairs`,
        `n_unscored`, `n_repaired`, `n_suspect` (with something that speaks against a model's evaluation),
        `n_unrecognised` (with a report that an offline judge cannot read; 0 of other judges), `failures` (position -> reason), `mean_<kind>` (errors per scored pair, for each kind of
        `ERROR_COUNT_KEYS`) and `signature`.
    """
    found = summary_of(results, signature)
    same = ("crimson_score", "scores", "n_pairs", "n_unscored", "n_repaired", "n_suspect", "n_unrecognised", "failures")
    means = {f"mean_{kind}": mean for kind, mean in found.mean_errors.items()}
    return {key: getattr(found, key) for key in same} | means | {"signature": signature}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


@dataclass(frozen=True)
class ClinicalFigure:
    """A figure of a corpus that is the sum of one count over the sum of another, over the scored pairs.

    Attributes:
        title: What it is called in a table.
        higher_is_better: Else lower is.
        count: What one pair adds to the two sums.
        definition: What exactly is counted.
    """

    title: str
    higher_is_better: bool
    count: Callable[[Outcome], Count]
    definition: str


def _matched(side: str, levels: frozenset[str]) -> Callable[[Outcome], Count]:
    """The share of one report's findings of these levels that is matched."""

    def count(outcome: Outcome) -> Count:
        findings = [f for f in getattr(outcome, side).values() if f.level in levels]
        return sum(bool(f.partners) for f in findings), len(findings)

    return count


def _without_grave_errors(outcome: Outcome) -> Count:
    levels = {finding.level for finding in (*outcome.false, *outcome.missing)}
    levels |= {_reference_level(outcome, error) for error in outcome.errors if error.grade != "negligible"}
    return float(not _ACTIONABLE & levels), 1


def _reference_level(outcome: Outcome, error: JudgedError) -> str:
    reference = outcome.references.get(error.ref_id)
    return reference.level if reference else ""


_RECALL = (
    "Of the reference findings that the judge calls {}, the share that is matched. A finding counts under its significance in the "
    "reference, whatever that of its match; an attribute error does not undo a match."
)
_PRECISION = (
    "Of the predicted findings that the judge calls {}, the share that is matched. A finding counts under its significance in the "
    "candidate, whatever that of its match."
)
CLINICAL_FIGURES: dict[str, ClinicalFigure] = {
    "urgent_recall": ClinicalFigure("Urgent recall", True, _matched("references", _URGENT), _RECALL.format("urgent")),
    "urgent_precision": ClinicalFigure(
        "Urgent precision", True, _matched("predictions", _URGENT), _PRECISION.format("urgent")
    ),
    "actionable_recall": ClinicalFigure(
        "Urgent or actionable recall", True, _matched("references", _ACTIONABLE), _RECALL.format("urgent or actionable")
    ),
    "actionable_precision": ClinicalFigure(
        "Urgent or actionable precision",
        True,
        _matched("predictions", _ACTIONABLE),
        _PRECISION.format("urgent or actionable"),
    ),
    "false_findings_per_report": ClinicalFigure(
        "False findings per report",
        False,
        lambda outcome: (len(outcome.false), 1),
        "False findings of any significance.",
    ),
    "attribute_errors_per_match": ClinicalFigure(
        "Attribute errors per match",
        False,
        lambda outcome: (len(outcome.errors), len(outcome.matches)),
        "Attribute errors of either grade, over the distinct matches. An error of several types is one error.",
    ),
    "reports_without_grave_errors": ClinicalFigure(
        "Reports without grave errors",
        True,
        _without_grave_errors,
        "Share of reports with no error above not actionable: no false finding, missing finding or attribute error concerns an urgent or actionable "
        "finding. False findings count under their significance in the candidate, missing ones and attribute errors under "
        "that in the reference; negligible attribute errors do not count, nor do levels that a judge made up.",
    ),
}


def clinical_figures(
    systems: Mapping[str, Sequence[PairResult]], patients: Sequence[Any] | None = None, *, seed: int = 0
) -> dict[str, dict[str, Estimate]]:
    """The mean score (`crimson_score`) and each of `CLINICAL_FIGURES` of each system, with 95 % bootstrap intervals.

    Args:
        systems: Name -> results, over the same pairs in the same order.
        patients: Whose report each is; studies of a patient are resampled together. None resamples studies.
        seed: Of the resamples.

    Returns:
        Per system and figure an estimate whose `n` is its denominator (pairs, findings or matches) and `n_left_out` the unscored pairs.
        A figure without anything to count is NaN.
    """
    import numpy as np

    keys = ("crimson_score", *CLINICAL_FIGURES)
    counts = np.full((len(next(iter(systems.values()))), len(systems), len(keys), 2), np.nan)
    for column, results in enumerate(systems.values()):
        for row, result in enumerate(results):
            if result.outcome:
                own = (figure.count(result.outcome) for figure in CLINICAL_FIGURES.values())
                counts[row, column] = [(result.crimson_score, 1), *own]
    flat = counts.reshape(len(counts), -1, 2)
    estimates = iter(ratio_intervals(flat[:, :, 0], flat[:, :, 1], patients, seed=seed))
    return {name: {key: next(estimates) for key in keys} for name in systems}


def errors_by_type(results: Sequence[PairResult]) -> dict[str, int]:
    """False and missing findings and each type of attribute error, counted over the scored pairs."""
    names = {"false_findings": "false finding", "missing_findings": "missing finding"}
    names |= {f"{kind}_errors": kind for kind in ERROR_TYPES}
    return {
        name: sum(result.score["error_counts"][key] for result in results if result.score)
        for key, name in names.items()
    }


def errors_by_significance(results: Sequence[PairResult]) -> dict[str, Counter[str]]:
    """False, missing and attribute errors -> how many of each clinical significance, over the scored pairs.

    False findings count under their significance in the candidate, missing ones and attribute errors under that in the
    reference; levels that a judge made up count as `OTHER`.
    """
    counted: dict[str, Counter[str]] = {kind: Counter() for kind in ("false", "missing", "attribute")}
    for result in results:
        if outcome := result.outcome:
            counted["false"].update(_level(finding.level) for finding in outcome.false)
            counted["missing"].update(_level(finding.level) for finding in outcome.missing)
            counted["attribute"].update(_level(_reference_level(outcome, error)) for error in outcome.errors)
    return counted


def age_band(pair: ReportPair) -> str:
    """The band of the patient's age: under 18, 18 to 39, 40 to 64, 65 to 79, 80 and over, or unknown."""
    years = (pair.context or PatientContext()).age_years
    return UNKNOWN if years is None else next(name for below, name in _AGE_BANDS if years < below)


def sex(pair: ReportPair) -> str:
    """The patient's sex: female, male, what else is written, or unknown."""
    written = (pair.context and pair.context.sex or UNKNOWN).strip()
    return _SEXES.get(written.lower(), written)


def spread_first(results: Mapping[str, Sequence[PairResult]]) -> list[tuple[int, float]]:
    """(position, distance between the best and the worst score) of each pair, the widest first.

    Unscored results do not count; where fewer than two are scored the distance is NaN, and the pair stands at the end.
    """
    rows = []
    for position, row in enumerate(zip(*results.values(), strict=True)):
        scores = [result.crimson_score for result in row if result.score is not None]
        rows.append((position, max(scores) - min(scores) if len(scores) > 1 else float("nan")))
    return sorted(rows, key=lambda row: (row[1] != row[1], -row[1] if row[1] == row[1] else 0, row[0]))


def _level(level: str) -> str:
    return level if level in SIGNIFICANCE_LEVELS else OTHER
