"""Statistics: against SciPy, cases by hand, and simulation."""

import math
import warnings
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from crimson_core import InputError
from crimson_core.compare.statistics import (
    _resample,
    agreement,
    bca_interval,
    compare_systems,
    corrected,
    holm,
    mean_interval,
    ratio_intervals,
    sign_flip_p_values,
)

NAN = float("nan")


def test_the_interval_is_about_that_of_the_normal_distribution_where_that_holds():
    scores = np.random.default_rng(0).normal(0.4, 0.2, 400)
    estimate = mean_interval(scores)
    half = 1.96 * scores.std() / 20
    assert estimate.value == pytest.approx(scores.mean())
    assert (estimate.low, estimate.high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=half / 10)
    assert mean_interval(scores) == estimate  # the same every time


def test_one_unit_or_one_group_says_nothing_about_others():
    for count, groups in ((1, None), (6, ["a"] * 6)):
        (found,) = compare_systems({"A": [0.9] * count, "B": [0.2] * count}, groups)
        assert (found.p_value, found.difference.n, found.difference.n_resampled) == (1.0, count, 1)
        assert math.isnan(found.bootstrap_p_value)
    (found,) = compare_systems({"A": [0.9, 0.8, 0.7], "B": [0.2, 0.2, NAN]}, ["a", "b", "c"])
    assert found.difference.n_resampled == 2
    assert found.bootstrap_p_value < 0.01


def test_95_percent_intervals_cover_the_true_mean_in_95_percent_of_2000_trials():
    trials = np.random.default_rng(1).uniform(-1, 1, (100, 2000))
    found = ratio_intervals(trials, np.ones_like(trials), resamples=2999)
    assert {estimate.method for estimate in found} == {"BCa"}
    assert 0.94 <= np.mean([e.low <= 0 <= e.high for e in found]) <= 0.96


def test_intervals_over_patients_cover_where_those_over_studies_do_not():
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(100), 4)
    trials = rng.normal(0, 1, (100, 1000))[patients] + rng.normal(0, 0.3, (400, 1000))
    covered = {
        name: np.mean([e.low <= 0 <= e.high for e in ratio_intervals(trials, np.ones_like(trials), g, resamples=999)])
        for name, g in (("patients", patients), ("studies", None))
    }
    assert 0.93 <= covered["patients"] <= 0.97
    assert covered["studies"] < 0.8


def test_without_a_difference_p_is_below_5_percent_in_5_percent_of_2000_trials():
    trials = np.random.default_rng(3).normal(0, 1, (60, 2000))
    assert 0.04 <= (sign_flip_p_values(trials) < 0.05).mean() <= 0.06
    patients = np.repeat(np.arange(30), 2)  # two equal studies of each patient: flipped alone they would be too sure
    twice = np.repeat(trials[:30], 2, axis=0)
    assert 0.04 <= (sign_flip_p_values(twice, patients) < 0.05).mean() <= 0.06
    assert (sign_flip_p_values(twice) < 0.05).mean() > 0.1


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_bca_is_scipys_to_the_digit(seed):
    values = np.random.default_rng(seed).exponential(1, 30)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=500, method="BCa", rng=seed)
    jackknifed = (values.sum() - values) / 29
    ours = bca_interval(values.mean(), theirs.bootstrap_distribution, jackknifed)
    assert ours == pytest.approx(tuple(theirs.confidence_interval), rel=1e-9)


def test_intervals_and_p_values_are_scipys_within_the_noise_of_resampling():
    rng = np.random.default_rng(4)
    a = rng.beta(2, 1, 80)
    b = a - rng.normal(0.02, 0.08, 80)
    (found,) = compare_systems({"a": a, "b": b})
    theirs = stats.bootstrap((a - b,), np.mean, method="BCa", rng=5).confidence_interval
    assert (found.difference.low, found.difference.high) == pytest.approx(tuple(theirs), abs=0.001)
    p = stats.permutation_test((a - b,), np.mean, permutation_type="samples", vectorized=True, rng=5).pvalue
    assert found.p_value == pytest.approx(p, abs=0.01)
    assert found.bootstrap_p_value == pytest.approx(p, abs=0.02)
    ratio = stats.bootstrap(
        (a, b), lambda x, y, axis: x.sum(axis) / y.sum(axis), paired=True, vectorized=True, method="BCa", rng=5
    )
    (ours,) = ratio_intervals(a[:, None], b[:, None])
    assert (ours.low, ours.high) == pytest.approx(tuple(ratio.confidence_interval), abs=0.002)


def test_a_skewed_ratio_has_scipys_interval_which_leans_to_one_side():
    a = np.array([0.0] * 9 + [1, 1, 2, 5, 12])
    b = np.array([1.0, 2] * 7)

    def ratio(x, y, axis):
        return x.sum(axis) / y.sum(axis)

    theirs = stats.bootstrap((a, b), ratio, paired=True, vectorized=True, method="BCa", rng=5).confidence_interval
    (ours,) = ratio_intervals(a[:, None], b[:, None])
    assert ours.method == "BCa"
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), rel=0.06)
    assert ours.high - ours.value > 2 * (ours.value - ours.low)


def test_a_ratio_of_sums_by_hand():
    numerators = np.array([[1.0, 0.0], [0.0, 0.0], [2.0, np.nan]])
    denominators = np.array([[1.0, 0.0], [2.0, 3.0], [2.0, 1.0]])
    first, second = ratio_intervals(numerators, denominators)
    assert (first.value, first.n, first.n_left_out) == (3 / 5, 5, 0)
    assert (second.value, second.n, second.n_left_out) == (0.0, 3, 1)
    assert second.method == "none"  # one unit alone has something to average
    assert math.isnan(second.low)


def test_patients_are_resampled_and_flipped_as_one():
    values = [0.1, 0.1, 0.9, 0.9, 0.4, 0.4]
    assert mean_interval(values, list("aabbcc"))[:3] == pytest.approx(mean_interval([0.1, 0.9, 0.4])[:3])
    (found,) = compare_systems({"a": values, "b": [0.0] * 6}, list("aabbcc"))
    assert found.p_value == 2 / 8  # three patients, eight ways of signs, two of them as far out
    with pytest.raises(InputError, match="groups has 2 entries and there are 6 values"):
        mean_interval(values, ["a", "b"])


def test_the_effect_size_is_cohens_dz():
    (found,) = compare_systems({"a": [0.1, 0.2, 0.3, 0.6], "b": [0.0] * 4})
    assert found.effect_size == pytest.approx(0.3 / math.sqrt((0.04 + 0.01 + 0 + 0.09) / 3))
    (two,) = compare_systems({"a": [0.5, 0.3], "b": [0.4, 0.0]})
    assert two.effect_size == pytest.approx(0.2 / math.sqrt(0.02))
    (same,) = compare_systems({"a": [0.5, 0.2], "b": [0.5, 0.2]})
    assert same.effect_size == 0
    (shifted,) = compare_systems({"a": [0.5, 0.2], "b": [0.4, 0.1]})
    assert math.isnan(shifted.effect_size)


def test_the_correction_spans_all_comparisons_that_it_is_given():
    (one,) = compare_systems({"a": [0.1] * 12, "b": [0.0] * 12})
    assert one.adjusted_p_value == one.p_value
    assert [c.adjusted_p_value for c in corrected([one, one])] == [2 * one.p_value] * 2


def test_agreement():
    a, b = [0.0, 0.5, 1.0, 0.2, NAN], [0.1, 0.5, 0.7, 0.1, 0.3]
    found = agreement(a, b)
    assert found.pearson == pytest.approx(np.corrcoef(a[:4], b[:4])[0, 1])
    assert found.spearman == pytest.approx(0.9486832980505138)  # ranks 1 3 4 2 and 1.5 3 4 1.5
    assert found.kendall == pytest.approx(5 / math.sqrt(6 * 5))  # five pairs agree, one is tied in b
    assert found.difference.value == pytest.approx(0.075)
    assert (found.difference.n, found.difference.n_left_out, found.n_within) == (4, 1, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for constant in ([0.5] * 5, [NAN] * 5):
            for pair in ((constant, b), (b, constant)):
                assert all(math.isnan(own) for own in agreement(*pair)[:3])


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], (NAN, NAN, NAN, 0, 0)),
        ([NAN, NAN], (NAN, NAN, NAN, 0, 2)),
        ([0.5, NAN], (0.5, NAN, NAN, 1, 1)),  # one pair says nothing about the next one
        ([1.0, 1.0, 1.0], (1.0, 1.0, 1.0, 3, 0)),
    ],
)
def test_few_or_equal_scores(scores, expected):
    assert mean_interval(scores)[:5] == pytest.approx(expected, nan_ok=True)


def test_two_scores_are_enough_for_an_interval_and_one_system_for_no_comparison():
    found = mean_interval([0.25, 0.75])
    assert (found.low, found.high, found.n_resampled) == (0.25, 0.75, 2)
    assert compare_systems({"a": [0.25, 0.75]}) == []


def test_unscored_pairs_are_left_out_of_a_comparison_and_counted():
    (found,) = compare_systems({"a": [1.0, NAN, 0.5, 0.2, NAN], "b": [0.0, 1.0, 0.5, 0.4, NAN]})
    assert found.systems == ("a", "b")
    assert (found.wins, found.losses, found.ties) == (1, 1, 1)
    assert (found.difference.n, found.difference.n_left_out) == (3, 2)
    assert found.difference.value == pytest.approx(0.8 / 3)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-10, 10), min_size=2, max_size=8))
def test_the_p_value_is_that_of_all_sign_flips(differences):
    (found,) = compare_systems({"a": [d / 10 for d in differences], "b": [0.0] * len(differences)})
    observed = abs(sum(differences))
    flips = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in product((1, -1), repeat=len(differences))]  # fmt: skip
    assert found.p_value == pytest.approx(sum(flip >= observed for flip in flips) / len(flips))


def test_a_clear_difference_of_many_pairs_has_a_small_p_value_and_noise_has_not():
    rng = np.random.default_rng(2)
    scores = rng.uniform(0, 1, 300)
    better, same = compare_systems({"a": scores, "b": scores - 0.05, "c": scores + rng.normal(0, 0.1, 300)})[:2]
    assert better.p_value < 0.001
    assert better.wins == 300
    assert same.p_value > 0.01
    (found,) = compare_systems({"a": 0.5 + scores / 100, "b": np.zeros(300)})
    assert found.p_value == found.bootstrap_p_value == pytest.approx(1 / 10_000), (
        "the least that 9,999 resamples can show"
    )


def test_all_signs_are_flipped_for_13_units_and_units_without_a_difference_change_nothing():
    assert sign_flip_p_values(np.ones((13, 1))) == pytest.approx([2 / 2**13])
    assert sign_flip_p_values(np.ones((14, 1))) != pytest.approx([2 / 2**14])
    told = np.array([[0.3], [0.2], [-0.1], [0.4]])
    assert sign_flip_p_values(np.insert(told, 2, NAN, axis=0)) == pytest.approx(sign_flip_p_values(told))


def test_a_resample_that_is_just_as_far_counts():
    (found,) = compare_systems(
        {"a": [1.0, 0.0], "b": [0.0, 0.0]}
    )  # half of the resamples are 0 or 1, and .5 is the mean
    assert found.bootstrap_p_value == pytest.approx(0.5, abs=0.03)


def test_the_jackknife_leaves_out_one_unit_or_group_of_a_ratio():
    columns = np.array([[1.0], [2.0], [6.0]]), np.array([[1.0], [4.0], [5.0]])
    assert _resample(*columns, None, 0, 9).jackknifed.ravel() == pytest.approx([8 / 9, 7 / 6, 3 / 5])
    assert _resample(*columns, ["p", "q", "p"], 0, 9).jackknifed.ravel() == pytest.approx([2 / 4, 7 / 6])


def test_without_a_common_pair_there_is_no_p_value():
    (found,) = compare_systems({"a": [1.0, NAN], "b": [NAN, 1.0]})
    assert math.isnan(found.p_value)
    assert math.isnan(found.adjusted_p_value)
    assert math.isnan(found.effect_size)
    assert (found.difference.n, found.difference.n_left_out) == (0, 2)


@pytest.mark.parametrize("scores", [{"a": [0.3], "b": [0.1]}, {"a": [0.1, 0.2], "b": [0.1, 0.2]}])
def test_one_pair_or_no_difference_proves_nothing(scores):
    (found,) = compare_systems(scores)
    assert found.p_value == 1.0


def test_differences_that_are_equal_on_paper_are_ties():
    (found,) = compare_systems({"a": [0.1 + 0.2, 0.5], "b": [0.3, 0.5]})
    assert found.ties == 2


def test_every_two_systems_are_compared_with_holms_correction():
    found = compare_systems({"a": [1.0] * 12, "b": [0.9] * 12, "c": [0.9, 1.0] * 6})
    assert [c.systems for c in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [c.adjusted_p_value for c in found] == holm([c.p_value for c in found])


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx(
        [0.03, 0.06, 0.06]
    )  # by hand: 3 * .01, then 2 * .03, then at least that
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.02, NAN]) == pytest.approx([0.02, NAN], nan_ok=True)
    assert holm([]) == []


def test_unequal_numbers_are_refused():
    with pytest.raises(InputError, match="a 2, b 1"):
        compare_systems({"a": [1.0, 1.0], "b": [1.0]})
