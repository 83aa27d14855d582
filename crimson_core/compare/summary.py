"""Corpus figures of scores: means, errors by kind, and clinical figures. Unscored pairs are counted, but enter no figure."""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crimson_core.compare.statistics import Comparison, Estimate, intervals_and_comparisons, ratio_intervals
from crimson_core.protocol.evaluation import ERROR_TYPES, SIGNIFICANCE_LEVELS
from crimson_core.protocol.pair import PatientContext, ReportPair
from crimson_core.protocol.scoring import ERROR_COUNT_KEYS, JudgedError, JudgedFinding, Outcome
from crimson_core.run.scorer import PairResult

if TYPE_CHECKING:
    import numpy as np

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


_NUMBERS = (
    *("n_repaired", "n_suspect", "n_unrecognised", "n_urgent", "n_urgent_missed"),
    *("n_read", "n_failures_read"),
)


class Summary:
    """Figures of results that are counted one by one, so that they need not all be in memory.

    Attributes:
        scores: One score per pair; NaN if unscored.
        failures: Reasons by index of the unscored pair.
        n_repaired: Pairs with a repaired evaluation.
        n_suspect: Pairs with evidence against a model's evaluation.
        n_unrecognised: Pairs with a report that an offline judge cannot read.
        n_urgent: Urgent reference findings.
        n_urgent_missed: Urgent reference findings that are missing.
        n_errors: Errors of each kind of `ERROR_COUNT_KEYS`.
        errors_by_significance: `false`, `missing` and `attribute` -> errors of each clinical significance. False findings
            count under their significance in the candidate, missing ones and attribute errors under that in the
            reference; levels that a judge made up count as `OTHER`.
        n_read: Pairs whose judgement was read from a store.
        n_failures_read: The unscored ones of these.
    """

    # `clinical` keeps what each result adds to `CLINICAL_FIGURES`, too, for `counts`
    def __init__(self, results: Iterable[PairResult] = (), *, clinical: bool = False) -> None:
        self.scores = array("d")
        self.failures: dict[int, str | None] = {}
        self.n_repaired = self.n_suspect = self.n_unrecognised = self.n_urgent = self.n_urgent_missed = 0
        self.n_errors = dict.fromkeys(ERROR_COUNT_KEYS, 0)
        self.errors_by_significance: dict[str, Counter[str]] = {
            kind: Counter() for kind in ("false", "missing", "attribute")
        }
        self.n_read = self.n_failures_read = 0
        self._counts = array("d") if clinical else None
        for result in results:
            self.add(result)

    def add(self, result: PairResult) -> None:
        """Count one result."""
        self.add_outcome(result, result.outcome)

    def add_outcome(self, result: PairResult, outcome: Outcome | None) -> None:
        """Count one result whose outcome has been read."""
        score = float("nan") if outcome is None else outcome.terms.score
        self.scores.append(score)
        self.n_repaired += bool(result.repairs)
        self.n_suspect += bool(result.suspicions)
        self.n_unrecognised += bool(result.unrecognised)
        self.n_read += result.from_store
        if outcome is None:
            self.n_failures_read += result.from_store
            self.failures[result.index] = result.failure
            if self._counts is not None:
                self._counts.extend(_NO_COUNTS)
            return
        for kind, n in outcome.error_counts.items():
            self.n_errors[kind] += n
        levels = self.errors_by_significance
        levels["false"].update(_level(finding.level) for finding in outcome.false)
        levels["missing"].update(_level(finding.level) for finding in outcome.missing)
        levels["attribute"].update(_level(_reference_level(outcome, error)) for error in outcome.errors)
        self.n_urgent += sum(finding.level in _URGENT for finding in outcome.references.values())
        self.n_urgent_missed += urgent_missed(outcome)
        if self._counts is not None:
            self._counts.extend((score, 1.0))
            for figure in CLINICAL_FIGURES.values():
                self._counts.extend(figure.count(outcome))

    def merge(self, other: "Summary") -> None:
        """Add what another one has counted of further results, but for `counts`."""
        self.scores.extend(other.scores)
        self.failures.update(other.failures)
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for kind, n in other.n_errors.items():
            self.n_errors[kind] += n
        for kind, levels in other.errors_by_significance.items():
            self.errors_by_significance[kind].update(levels)

    @property
    def n_pairs(self) -> int:
        """All pairs, scored or not."""
        return len(self.scores)

    @property
    def n_unscored(self) -> int:
        """Pairs without a score."""
        return len(self.failures)

    @property
    def n_scored(self) -> int:
        """Pairs with a score."""
        return self.n_pairs - self.n_unscored

    @property
    def crimson_score(self) -> float:
        """Mean over the scored pairs; NaN if there are none."""
        return _ratio(sum(score for score in self.scores if score == score), self.n_scored)

    @property
    def mean_errors(self) -> dict[str, float]:
        """Kind of `ERROR_COUNT_KEYS` -> errors per scored pair; NaN if there are none."""
        return {kind: _ratio(n, self.n_scored) for kind, n in self.n_errors.items()}

    @property
    def errors_by_type(self) -> dict[str, int]:
        """False and missing findings and each type of attribute error, by its name."""
        names = {"false_findings": "false finding", "missing_findings": "missing finding"}
        names |= {f"{kind}_errors": kind for kind in ERROR_TYPES}
        return {name: self.n_errors[kind] for kind, name in names.items()}

    def as_dict(self) -> dict[str, Any]:
        """The mean score, the numbers of pairs and the mean errors, flat."""
        names = ("crimson_score", "n_pairs", "n_unscored", "n_repaired", "n_suspect", "n_unrecognised")
        means = {f"mean_{kind}": mean for kind, mean in self.mean_errors.items()}
        return {name: getattr(self, name) for name in names} | means

    def counts(self) -> "np.ndarray":
        """What each result adds to the sums of `FIGURES`; shape (results, figures, 2), NaN where unscored."""
        import numpy as np

        return np.array(self._counts).reshape(-1, len(FIGURES), 2)


def urgent_missed(outcome: Outcome) -> int:
    """Number of urgent reference findings that are missing."""
    return sum(finding.level in _URGENT for finding in outcome.missing)


def summarize(results: Sequence[PairResult], signature: str) -> dict[str, Any]:
    """Corpus figures of scored pairs, flat and ready for JSON except for NaN.

    Args:
        results: Results in the order of `scores`.
        signature: Signature of their scorer.

    Returns:
        `crimson_score` (mean over scored pairs; NaN if there are none), `scores` (one per pair, NaN where unscored), `n_pairs`,
        `n_unscored`, `n_repaired`, `n_suspect` (with evidence against a model's evaluation),
        `n_unrecognised` (with a report that an offline judge cannot read; 0 of other judges), `failures` (position -> reason), `mean_<kind>` (errors per scored pair, for each kind of
        `ERROR_COUNT_KEYS`) and `signature`.
    """
    found = Summary(results)
    return found.as_dict() | {"scores": list(found.scores), "failures": found.failures, "signature": signature}


@dataclass(frozen=True)
class ClinicalFigure:
    """A figure of a corpus that is the sum of one count over the sum of another, over the scored pairs."""

    title: str  # in a table
    count: Callable[[Outcome], Count]  # the amounts one pair adds to the two sums
    definition: str  # what exactly is counted
    higher_is_better: bool = True


def _recall(levels: frozenset[str], called: str) -> ClinicalFigure:
    return ClinicalFigure(
        f"{called.capitalize()} recall",
        lambda outcome: _matched(outcome.references, levels),
        f"Of the reference findings that the judge calls {called}, the share that is matched. A finding counts under its "
        "significance in the reference, whatever that of its match; an attribute error does not undo a match.",
    )


def _precision(levels: frozenset[str], called: str) -> ClinicalFigure:
    return ClinicalFigure(
        f"{called.capitalize()} precision",
        lambda outcome: _matched(outcome.predictions, levels),
        f"Of the predicted findings that the judge calls {called}, the share that is matched. A finding counts under its "
        "significance in the candidate, whatever that of its match.",
    )


def _matched(findings: Mapping[str, JudgedFinding], levels: frozenset[str]) -> Count:
    """How many findings of these levels are matched, and how many there are."""
    partners = [finding.partners for finding in findings.values() if finding.level in levels]
    return sum(map(bool, partners)), len(partners)


def _without_grave_errors(outcome: Outcome) -> Count:
    levels = {finding.level for finding in (*outcome.false, *outcome.missing)}
    levels |= {_reference_level(outcome, error) for error in outcome.errors if error.grade != "negligible"}
    return float(not _ACTIONABLE & levels), 1


def _reference_level(outcome: Outcome, error: JudgedError) -> str:
    reference = outcome.references.get(error.ref_id)
    return reference.level if reference else ""


CLINICAL_FIGURES: dict[str, ClinicalFigure] = {
    "urgent_recall": _recall(_URGENT, "urgent"),
    "urgent_precision": _precision(_URGENT, "urgent"),
    "actionable_recall": _recall(_ACTIONABLE, "urgent or actionable"),
    "actionable_precision": _precision(_ACTIONABLE, "urgent or actionable"),
    "false_findings_per_report": ClinicalFigure(
        "False findings per report",
        lambda outcome: (len(outcome.false), 1),
        "False findings of any significance.",
        higher_is_better=False,
    ),
    "attribute_errors_per_match": ClinicalFigure(
        "Attribute errors per match",
        lambda outcome: (len(outcome.errors), len(outcome.matches)),
        "Attribute errors of either grade, over the distinct matches. An error of several types is one error.",
        higher_is_better=False,
    ),
    "reports_without_grave_errors": ClinicalFigure(
        "Reports without grave errors",
        _without_grave_errors,
        "Share of reports with no error above not actionable: no false finding, missing finding or attribute error concerns an urgent or actionable "
        "finding. False findings count under their significance in the candidate, missing ones and attribute errors under "
        "that in the reference; negligible attribute errors do not count, nor do levels that a judge made up.",
    ),
}
# The figures of `clinical_figures`, in their order.
FIGURES = ("crimson_score", *CLINICAL_FIGURES)
_NO_COUNTS = (float("nan"),) * (2 * len(FIGURES))


def clinical_figures(
    counts: Mapping[str, "np.ndarray"], patients: Sequence[Any] | None = None, *, seed: int = 0
) -> dict[str, dict[str, Estimate]]:
    """The mean score (`crimson_score`) and each of `CLINICAL_FIGURES` of each system, with 95 % bootstrap intervals.

    Args:
        counts: System -> `Summary.counts`, over the same pairs in the same order.
        patients: The patient of each report; a patient's studies are resampled together. None resamples studies.
        seed: Seed of the resamples.

    Returns:
        Per system and figure an estimate whose `n` is its denominator (pairs, findings or matches) and `n_left_out` the unscored pairs.
        A figure without anything to count is NaN.
    """
    return _named(counts, ratio_intervals(*_sums(counts), patients, seed=seed))


def compared_figures(
    counts: Mapping[str, "np.ndarray"], patients: Sequence[Any] | None = None, *, seed: int = 0
) -> tuple[dict[str, dict[str, Estimate]], list[Comparison]]:
    """As `clinical_figures`, and the systems' mean scores compared, from the same resamples."""
    scores = {name: own[:, 0, 0] for name, own in counts.items()}
    estimates, comparisons = intervals_and_comparisons(*_sums(counts), scores, patients, seed=seed)
    return _named(counts, estimates), comparisons


def _sums(counts: Mapping[str, "np.ndarray"]) -> tuple["np.ndarray", "np.ndarray"]:
    """Numerators and denominators of all systems side by side."""
    import numpy as np

    together = np.hstack(list(counts.values()))
    return together[:, :, 0], together[:, :, 1]


def _named(counts: Mapping[str, "np.ndarray"], estimates: Iterable[Estimate]) -> dict[str, dict[str, Estimate]]:
    following = iter(estimates)
    return {name: {figure: next(following) for figure in FIGURES} for name in counts}


def age_band(pair: ReportPair) -> str:
    """The band of the patient's age: under 18, 18 to 39, 40 to 64, 65 to 79, 80 and over, or unknown."""
    years = (pair.context or PatientContext()).age_years
    return UNKNOWN if years is None else next(name for below, name in _AGE_BANDS if years < below)


def sex(pair: ReportPair) -> str:
    """The patient's sex: female, male, any other text as written, or unknown."""
    written = (pair.context and pair.context.sex or UNKNOWN).strip()
    return _SEXES.get(written.lower(), written)


def spread_first(results: Mapping[str, Sequence[PairResult]]) -> list[tuple[int, float]]:
    """(position, distance between the best and the worst score) of each pair, the widest first.

    Unscored results do not count; where fewer than two are scored the distance is NaN, and the pair stands at the end.
    """
    rows = []
    for position, row in enumerate(zip(*results.values(), strict=True)):
        scores = [score for result in row if (score := result.crimson_score) == score]
        rows.append((position, max(scores) - min(scores) if len(scores) > 1 else float("nan")))
    return sorted(rows, key=lambda row: (row[1] != row[1], -row[1] if row[1] == row[1] else 0, row[0]))


def _ratio(total: float, n: int) -> float:
    return total / n if n else float("nan")


def _level(level: str) -> str:
    return level if level in SIGNIFICANCE_LEVELS else OTHER
