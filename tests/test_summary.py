"""Corpus figures: intervals and comparisons of systems."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crimson_core import InputError
from crimson_core.summary import compare_systems, holm, mean_interval

NAN = float("nan")


def test_the_interval_is_about_that_of_the_normal_distribution_where_that_holds():
    scores = np.random.default_rng(0).normal(0.4, 0.2, 400)
    estimate = mean_interval(scores)
    half = 1.96 * scores.std() / 20
    assert estimate.value == pytest.approx(scores.mean())
    assert (estimate.low, estimate.high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=half / 10)
    assert mean_interval(scores) == estimate  # the same every time


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    estimates = [mean_interval(rng.uniform(0, 1, 60)) for _ in range(150)]
    covered = sum(e.low <= 0.5 <= e.high for e in estimates)
    assert 0.88 * 150 <= covered <= 149


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
    assert mean_interval(scores) == pytest.approx(expected, nan_ok=True)


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


def test_without_a_common_pair_there_is_no_p_value():
    (found,) = compare_systems({"a": [1.0, NAN], "b": [NAN, 1.0]})
    assert math.isnan(found.p_value)
    assert math.isnan(found.adjusted_p_value)
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
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02, NAN]) == pytest.approx([0.02, NAN], nan_ok=True)
    assert holm([]) == []


def test_unequal_numbers_are_refused():
    with pytest.raises(InputError, match="a 2, b 1"):
        compare_systems({"a": [1.0, 1.0], "b": [1.0]})
