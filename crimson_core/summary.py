"""Scores -> corpus figures, intervals, and comparisons of systems. An unscored pair is NaN, and is counted wherever it is left out."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from crimson_core.errors import InputError
from crimson_core.scorer import PairResult
from crimson_core.scoring import ERROR_COUNT_KEYS

if TYPE_CHECKING:
    import numpy as np  # SciPy and numpy take longer to import than a report pair to score, so the functions do it

CONFIDENCE = 0.95
RESAMPLES = 9999
_BATCH_CELLS = 500_000  # numbers of a batch of resamples, which bounds the memory
_DIGITS = 9  # differences that are equal on paper are ties


class Estimate(NamedTuple):
    """A mean with its bootstrap interval.

    Attributes:
        value: The mean; NaN if there is nothing to average.
        low: Lower end of the 95 % interval (percentile bootstrap over pairs); NaN for fewer than two pairs.
        high: Its upper end.
        n: Pairs in the mean.
        n_left_out: Pairs that are not, since they are unscored.
    """

    value: float
    low: float
    high: float
    n: int
    n_left_out: int


class Comparison(NamedTuple):
    """A system against another one over the same report pairs.

    Attributes:
        systems: The names of the two.
        difference: Mean of the first system's score less the second's, over the pairs that both have a score for.
        p_value: Two-sided, by a paired permutation test (random signs of the differences); NaN without pairs.
        adjusted_p_value: The same after Holm's correction for all comparisons that were made together.
        wins: Pairs on which the first system scores higher.
        losses: Pairs on which the second one does.
        ties: Pairs on which they score the same.
    """

    systems: tuple[str, str]
    difference: Estimate
    p_value: float
    adjusted_p_value: float
    wins: int
    losses: int
    ties: int


def summarize(results: Sequence[PairResult], signature: str) -> dict[str, Any]:
    """Corpus figures of scored pairs, flat and JSON-ready but for NaN.

    Args:
        results: In the order in which `scores` shall stand.
        signature: Of the scorer that made them.

    Returns:
        `crimson_score` (mean over scored pairs; NaN if there are none), `scores` (one per pair, NaN where unscored), `n_pairs`,
        `n_unscored`, `n_repaired`, `failures` (position -> reason), `mean_<kind>` (errors per scored pair, for each kind of
        `ERROR_COUNT_KEYS`) and `signature`.
    """
    scored = [result.score for result in results if result.score is not None]
    return {
        "crimson_score": _mean([score["crimson_score"] for score in scored]),
        "scores": [result.crimson_score for result in results],
        "n_pairs": len(results),
        "n_unscored": len(results) - len(scored),
        "n_repaired": sum(bool(result.repairs) for result in results),
        "failures": {result.index: result.failure for result in results if result.score is None},
        **{f"mean_{kind}": _mean([score["error_counts"][kind] for score in scored]) for kind in ERROR_COUNT_KEYS},
        "signature": signature,
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def mean_interval(scores: Sequence[float], *, seed: int = 0) -> Estimate:
    """The mean of scores with a 95 % bootstrap interval.

    Args:
        scores: One per pair; NaN where unscored.
        seed: Of the resamples.
    """
    import numpy as np
    from scipy.stats import bootstrap

    values = np.asarray(scores, dtype=float)
    kept = values[~np.isnan(values)]
    value = float(kept.mean()) if len(kept) else float("nan")
    low, high = float("nan"), float("nan")
    if len(kept) > 1:
        found = bootstrap(
            (kept,),
            np.mean,
            n_resamples=RESAMPLES,
            batch=_batch(len(kept)),
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
        low, high = map(float, found.confidence_interval)
    return Estimate(value, low, high, len(kept), len(values) - len(kept))


def compare_systems(scores: Mapping[str, Sequence[float]], *, seed: int = 0) -> list[Comparison]:
    """Compare every two systems over the same report pairs.

    Args:
        scores: System name -> one score per report pair, in the same order for all; NaN where unscored.
        seed: Of the resamples and permutations.

    Raises:
        InputError: The systems have unequal numbers of scores.
    """
    import numpy as np

    if len({len(values) for values in scores.values()}) > 1:
        counts = ", ".join(f"{name} {len(values)}" for name, values in scores.items())
        raise InputError(f"scores: the systems have unequal numbers of scores ({counts}). Give one per report pair.")
    columns = {name: np.asarray(values, dtype=float) for name, values in scores.items()}
    pairs = list(combinations(columns, 2))
    differences = [np.round(columns[a] - columns[b], _DIGITS) for a, b in pairs]
    p_values = [_sign_flip_p_value(difference, seed) for difference in differences]
    return [
        Comparison(
            systems,
            mean_interval(difference, seed=seed),
            p_value,
            adjusted,
            int((difference > 0).sum()),
            int((difference < 0).sum()),
            int((difference == 0).sum()),
        )
        for systems, difference, p_value, adjusted in zip(pairs, differences, p_values, holm(p_values), strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """P values after Holm's step-down correction for their number; NaN stays NaN and does not count."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p == p)
    adjusted = [float("nan")] * len(p_values)
    least = 0.0
    for rank, (p, i) in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p))
        adjusted[i] = least
    return adjusted


def _sign_flip_p_value(differences: "np.ndarray", seed: int) -> float:
    import numpy as np
    from scipy.stats import permutation_test

    kept = differences[~np.isnan(differences)]
    if not len(kept):
        return float("nan")
    if len(kept) == 1 or not kept.any():
        return 1.0  # both signs are as likely; SciPy wants two observations
    found = permutation_test(
        (kept,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=_batch(len(kept)),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def _batch(n: int) -> int:
    return max(1, _BATCH_CELLS // n)
