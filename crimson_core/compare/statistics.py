"""Statistics of columns of numbers over the same units: intervals, paired differences, agreement.

This module knows no metric. A column has one number per unit (a study, say), or NaN; units without a number are counted. Units may
belong to groups (the studies of a patient), which are not independent: then whole groups are resampled or change their signs.

A resample is a row of a matrix (how often each unit is drawn, or its sign), which is multiplied with all columns at once.
`scipy.stats.bootstrap` and `permutation_test` draw anew for each column, which is too slow for a leaderboard; the tests compare both.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from crimson_core.errors import InputError

if TYPE_CHECKING:
    import numpy as np  # imported in the functions: that takes longer than scoring a report pair

CONFIDENCE = 0.95
RESAMPLES = 9999
_BATCH_CELLS = 2_000_000  # signs per batch: bounds the memory, and determines which signs are drawn
_DRAWN_CELLS = 500_000  # drawn units per batch; the draws do not depend on it
_DIGITS = 9  # differences that are equal on paper are ties


class Estimate(NamedTuple):
    """A mean, or a ratio of sums, with its bootstrap interval.

    Attributes:
        value: NaN if there is nothing to average.
        low: Lower end of the 95 % interval; NaN if fewer than two units (or groups) have something to average.
        high: Its upper end.
        n: Size of the average: units with a value, or the sum of the denominators.
        n_left_out: Units without a value.
        method: How the interval was made: `BCa` (bias-corrected and accelerated bootstrap), `percentile` where BCa is not
            defined (all values equal, all resamples on one side), or `none`.
        n_resampled: Resampled units (or groups): those with something to average.
    """

    value: float
    low: float
    high: float
    n: int
    n_left_out: int
    method: str = "none"
    n_resampled: int = 0


class Comparison(NamedTuple):
    """A system compared with another over the same units.

    Attributes:
        systems: The names of the two.
        difference: Mean of the first system's values minus the second's, over the units with values of both.
        p_value: Two-sided, by paired approximate randomisation (random signs of the differences; all signs where there are
            at most 13 units or groups); NaN without units.
        adjusted_p_value: The same after Holm's correction for all comparisons that were made together.
        bootstrap_p_value: Two-sided, by the paired bootstrap: how often a resample's difference is as far from the observed
            one as that is from 0; NaN with fewer than two units or groups.
        effect_size: Paired Cohen's d_z: the mean of the differences in units of their standard deviation; 0 where all are
            0, NaN where it is not defined.
        wins: Units on which the first system's value is higher.
        losses: Units on which the second system's value is higher.
        ties: Units on which they are equal.
    """

    systems: tuple[str, str]
    difference: Estimate
    p_value: float
    adjusted_p_value: float
    bootstrap_p_value: float
    effect_size: float
    wins: int
    losses: int
    ties: int


class Agreement(NamedTuple):
    """Two columns that measure the same thing, unit by unit.

    Attributes:
        pearson: Correlation of the values.
        spearman: Correlation of their ranks.
        kendall: Tau-b. All three are NaN if a column is constant or has fewer than two values.
        difference: Mean of the first column minus the second, with its interval.
        n_within: Units whose two values differ by at most `within`.
        within: That largest difference.
    """

    pearson: float
    spearman: float
    kendall: float
    difference: Estimate
    n_within: int
    within: float


def mean_interval(values: Sequence[float], groups: Sequence[Any] | None = None, *, seed: int = 0) -> Estimate:
    """The mean of a column with its 95 % bootstrap interval."""
    import numpy as np

    column = np.array(values, dtype=float)[:, None]
    (found,) = ratio_intervals(column, np.ones_like(column), groups, seed=seed)
    return found


def ratio_intervals(
    numerators: "np.ndarray",
    denominators: "np.ndarray",
    groups: Sequence[Any] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[Estimate]:
    """The sum of each column of numerators over the sum of its denominators, with 95 % bootstrap intervals.

    Resamples in which the denominators of a column sum to 0 say nothing about it and are left out.

    Args:
        numerators: Shape (units, columns); NaN where a unit has no value.
        denominators: The same; 0 where a unit adds nothing to either sum.
        groups: The group of each unit; None if each unit is its own group.
        seed: Seed of the resamples.
        resamples: Number of resamples.
    """
    return _resample(numerators, denominators, groups, seed, resamples).estimates()


def compare_systems(
    scores: Mapping[str, Sequence[float]], groups: Sequence[Any] | None = None, *, seed: int = 0
) -> list[Comparison]:
    """Compare each pair of systems over the same units.

    Raises:
        InputError: The systems have unequal numbers of values.
    """
    import numpy as np

    nothing = np.empty((len(next(iter(scores.values()), ())), 0))
    return intervals_and_comparisons(nothing, nothing, scores, groups, seed=seed)[1]


def intervals_and_comparisons(
    numerators: "np.ndarray",
    denominators: "np.ndarray",
    scores: Mapping[str, "Sequence[float] | np.ndarray"],
    groups: Sequence[Any] | None = None,
    *,
    seed: int = 0,
) -> tuple[list[Estimate], list[Comparison]]:
    """`ratio_intervals` and `compare_systems` on the same units and resamples, because drawing takes the time."""
    import numpy as np

    if len({len(values) for values in scores.values()}) > 1:
        counts = ", ".join(f"{name} {len(values)}" for name, values in scores.items())
        raise InputError(f"scores: the systems have unequal numbers of scores ({counts}). Give one per report pair.")
    columns = {name: np.asarray(values, dtype=float) for name, values in scores.items()}
    pairs = list(combinations(columns, 2))
    differences = np.empty((len(numerators), len(pairs)))
    for column, (a, b) in enumerate(pairs):
        differences[:, column] = np.round(columns[a] - columns[b], _DIGITS)
    above, below = np.hstack([numerators, differences]), np.hstack([denominators, np.ones_like(differences)])
    if not above.shape[1]:
        return [], []
    resampled = _resample(above, below, groups, seed, RESAMPLES)
    estimates, bootstrap_p_values = resampled.estimates(), resampled.p_values()[numerators.shape[1] :]
    alone, of_pairs = estimates[: numerators.shape[1]], estimates[numerators.shape[1] :]
    p_values = sign_flip_p_values(differences, groups, seed=seed)
    return alone, corrected(
        [
            Comparison(
                systems,
                estimate,
                float(p_value),
                float(p_value),
                float(bootstrap_p_value),
                _cohens_dz(difference[~np.isnan(difference)]),
                int((difference > 0).sum()),
                int((difference < 0).sum()),
                int((difference == 0).sum()),
            )
            for systems, difference, estimate, p_value, bootstrap_p_value in zip(
                pairs, differences.T, of_pairs, p_values, bootstrap_p_values, strict=True
            )
        ]
    )


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons with the p values adjusted for all of them, by Holm."""
    adjusted = holm([comparison.p_value for comparison in comparisons])
    return [c._replace(adjusted_p_value=p) for c, p in zip(comparisons, adjusted, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """P values after Holm's step-down correction for their number; NaN stays NaN and does not count."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p == p)
    adjusted = [float("nan")] * len(p_values)
    least = 0.0
    for rank, (p, i) in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p))
        adjusted[i] = least
    return adjusted


def sign_flip_p_values(
    differences: "np.ndarray", groups: Sequence[Any] | None = None, *, seed: int = 0, resamples: int = RESAMPLES
) -> "np.ndarray":
    """Two-sided p values of the hypothesis that the signs of differences are chance: paired approximate randomisation.

    Args:
        differences: Shape (units, columns); NaN where a unit has none.
        groups: The group of each unit; the differences of a group change signs together.
        seed: Seed of the signs.
        resamples: Number of random signs of each unit; all signs are taken where there are no more of them.
    """
    import numpy as np

    absent = np.isnan(differences)
    sums = _by_group(np.where(absent, 0.0, differences), groups)
    observed = np.abs(sums.sum(0)) - 1e-12 * np.abs(sums).sum(0)  # sums that are equal on paper are as extreme
    beyond = np.zeros(sums.shape[1])
    units = len(sums)
    exact = 2**units <= resamples
    for signs in _all_signs(units) if exact else _random_signs(units, resamples, seed):
        beyond += (np.abs(signs @ sums) >= observed).sum(0)
    p_values = beyond / 2**units if exact else (beyond + 1) / (resamples + 1)
    return np.where(absent.all(0), np.nan, p_values)


def agreement(
    first: Sequence[float],
    second: Sequence[float],
    groups: Sequence[Any] | None = None,
    *,
    within: float = 0.1,
    seed: int = 0,
) -> Agreement:
    """Agreement of two columns on the units with values of both; differences of at most `within` count as close."""
    import numpy as np
    from scipy import stats

    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    difference = np.round(a - b, _DIGITS)
    kept = ~np.isnan(difference)
    pearson = spearman = kendall = float("nan")
    if kept.sum() > 1 and np.ptp(a[kept]) > 0 and np.ptp(b[kept]) > 0:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.NearConstantInputWarning)
            pearson, spearman, kendall = (
                float(measure(a[kept], b[kept]).statistic)
                for measure in (stats.pearsonr, stats.spearmanr, stats.kendalltau)
            )
    return Agreement(
        pearson,
        spearman,
        kendall,
        mean_interval(difference, groups, seed=seed),
        int((np.abs(difference[kept]) <= within + 10**-_DIGITS).sum()),
        within,
    )


def bca_interval(value: float, resampled: "np.ndarray", jackknifed: "np.ndarray") -> tuple[float, float] | None:
    """The bias-corrected and accelerated interval of an estimate; None if it is undefined.

    Returns:
        Its ends, as `scipy.stats.bootstrap(method="BCa")` computes them (Efron and Tibshirani 1993, equations 14.9 to 14.15).
    """
    import numpy as np
    from scipy.special import ndtr, ndtri

    below = ((resampled < value).mean() + (resampled <= value).mean()) / 2
    deviations = jackknifed.mean() - jackknifed
    spread = (deviations**2).sum()
    if not 0 < below < 1 or not spread > 1e-24 * (jackknifed**2).sum():  # rounding of equal values is no spread
        return None
    bias, acceleration = ndtri(below), (deviations**3).sum() / (6 * spread**1.5)
    tails = bias + ndtri(np.array([1 - CONFIDENCE, 1 + CONFIDENCE]) / 2)
    low, high = np.quantile(resampled, ndtr(bias + tails / (1 - acceleration * tails)))
    return float(low), float(high)


class _Resampled(NamedTuple):
    """Ratios of sums, one per column, with everything that the bootstrap needs."""

    values: "np.ndarray"  # ratios over all units; shape (columns,)
    resampled: "np.ndarray"  # ratios of each resample; shape (resamples, columns)
    jackknifed: "np.ndarray"  # ratios with each unit or group left out in turn; shape (units, columns)
    n: "np.ndarray"  # sum of the denominators
    n_left_out: "np.ndarray"  # units without a value
    units: "np.ndarray"  # units or groups with something to average

    def estimates(self) -> list[Estimate]:
        return [
            Estimate(
                float(value),
                low,
                high,
                round(float(self.n[c])),
                int(self.n_left_out[c]),
                method,
                int(self.units[c]),
            )
            for c, value in enumerate(self.values)
            for low, high, method in [self._interval(c)]
        ]

    def p_values(self) -> "np.ndarray":
        """How often a resample is as far from the value as that is from 0; NaN with fewer than two units."""
        import numpy as np

        far = np.abs(self.resampled - self.values) >= np.abs(self.values) - 1e-12
        defined = ~np.isnan(self.resampled)
        return np.where(self.units < 2, np.nan, ((far & defined).sum(0) + 1) / (defined.sum(0) + 1))

    def _interval(self, c: int) -> tuple[float, float, str]:
        import numpy as np

        if self.units[c] < 2:
            return float("nan"), float("nan"), "none"
        resampled = self.resampled[:, c]
        resampled = np.round(resampled[~np.isnan(resampled)], 12)  # sums differ in their last digits by their order
        if ends := bca_interval(np.round(self.values[c], 12), resampled, self.jackknifed[:, c]):
            return *ends, "BCa"
        low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return float(low), float(high), "percentile"


def _resample(
    numerators: "np.ndarray", denominators: "np.ndarray", groups: Sequence[Any] | None, seed: int, resamples: int
) -> _Resampled:
    import numpy as np

    left_out = np.isnan(numerators) | np.isnan(denominators)
    above = _by_group(np.where(left_out, 0.0, numerators), groups)
    below = _by_group(np.where(left_out, 0.0, denominators), groups)
    # Many denominators are the same column: 1 for each unit.
    both, places = np.unique(np.hstack([above, below]), axis=1, return_inverse=True)
    drawn = np.empty((resamples, both.shape[1]))
    for rows, counts in _draws(len(both), resamples, seed):
        drawn[rows] = counts @ both
    drawn = drawn[:, places.ravel()]
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = above.shape[1]
        return _Resampled(
            above.sum(0) / below.sum(0),
            drawn[:, :columns] / drawn[:, columns:],
            (above.sum(0) - above) / (below.sum(0) - below),
            below.sum(0),
            left_out.sum(0),
            (below != 0).sum(0),
        )


def _by_group(values: "np.ndarray", groups: Sequence[Any] | None) -> "np.ndarray":
    """The sums of each group's rows; shape (groups, columns)."""
    import numpy as np

    if groups is None:
        return values
    if len(groups) != len(values):
        raise InputError(f"groups has {len(groups)} entries and there are {len(values)} values. Give one for each.")
    codes: dict[Any, int] = {}
    of_row = [codes.setdefault(group, len(codes)) for group in groups]
    sums = np.zeros((len(codes), values.shape[1]))
    np.add.at(sums, of_row, values)
    return sums


def _draws(units: int, resamples: int, seed: int) -> Iterator[tuple[slice, "np.ndarray"]]:
    """How often each unit is drawn in each resample, in batches; shape (resamples, units)."""
    import numpy as np

    rng = np.random.default_rng(seed)
    for rows in _batches(units, resamples, _DRAWN_CELLS):
        drawn = rng.integers(0, max(units, 1), (rows.stop - rows.start, units), dtype=np.uint32)
        counts = np.empty(drawn.shape)
        for own, row in zip(counts, drawn, strict=True):  # each by itself: a row stays in the processor's cache
            own[:] = np.bincount(row, minlength=units)
        yield rows, counts


def _random_signs(units: int, resamples: int, seed: int) -> Iterator["np.ndarray"]:
    import numpy as np

    rng = np.random.default_rng(seed)
    for rows in _batches(units, resamples):
        bits = np.unpackbits(rng.integers(0, 256, (rows.stop - rows.start, -(-units // 8)), dtype=np.uint8), axis=1)
        signs = bits[:, :units].astype(float)
        signs *= 2
        signs -= 1
        yield signs


def _all_signs(units: int) -> Iterator["np.ndarray"]:
    import numpy as np

    yield ((np.arange(2**units)[:, None] >> np.arange(units)) & 1) * 2.0 - 1.0


def _batches(units: int, resamples: int, cells: int = _BATCH_CELLS) -> Iterator[slice]:
    size = max(1, cells // max(units, 1))
    for start in range(0, resamples, size):
        yield slice(start, min(start + size, resamples))


def _cohens_dz(differences: "np.ndarray") -> float:
    if not len(differences):
        return float("nan")
    if not differences.any():
        return 0.0
    if len(differences) < 2 or differences.std(ddof=1) < 10**-_DIGITS:
        return float("nan")
    return float(differences.mean() / differences.std(ddof=1))
