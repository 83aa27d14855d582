"""Figures of a corpus, counted by hand."""

import math
from dataclasses import replace

import pytest

from crimson_core import PairResult, make_pairs
from crimson_core.compare.summary import (
    CLINICAL_FIGURES,
    Summary,
    age_band,
    clinical_figures,
    compared_figures,
    sex,
    spread_first,
    summarize,
)

URGENT, ACTIONABLE, MINOR, BENIGN = (
    "urgent",
    "actionable_not_urgent",
    "not_actionable_not_urgent",
    "benign_expected",
)


def result(index, references=(), predictions=(), matches=(), attribute_errors=()):
    """Findings are R1, R2, … and P1, P2, … with these levels; what is not matched is missing or false."""
    evaluation = {
        side: [{"id": f"{letter}{n}", "finding": "x", "clinical_significance": v} for n, v in enumerate(levels, 1)]
        for side, letter, levels in (("reference_findings", "R", references), ("predicted_findings", "P", predictions))
    }
    evaluation["matched_findings"] = [{"ref_id": r, "pred_id": p} for r, p in matches]
    evaluation["errors"] = {
        "false_findings": [f["id"] for f in evaluation["predicted_findings"] if f["id"] not in {p for _, p in matches}],
        "missing_findings": [
            f["id"] for f in evaluation["reference_findings"] if f["id"] not in {r for r, _ in matches}
        ],
        "attribute_errors": [
            {"ref_id": r, "pred_id": p, "severity": grade, "error_types": ["location", "severity"], "explanation": ""}
            for r, p, grade in attribute_errors
        ],
    }
    return PairResult(index, evaluation=evaluation)


RESULTS = [
    # an urgent finding that the candidate calls minor, a missing one, a false actionable one
    result(0, [URGENT, URGENT], [MINOR, ACTIONABLE], [("R1", "P1")], [("R1", "P1", "significant")]),
    # one reference finding with two matches, of which one has a negligible error; a false minor one
    result(1, [ACTIONABLE], [URGENT, ACTIONABLE, MINOR], [("R1", "P1"), ("R1", "P2")], [("R1", "P2", "negligible")]),
    result(2, [BENIGN], []),
    PairResult(3, failure="a refusal"),
]


def counts(results):
    return Summary(results, clinical=True).counts()


def test_the_clinical_figures_are_those_counted_by_hand():
    found = clinical_figures({"a": counts(RESULTS)})["a"]
    values = {key: (estimate.value, estimate.n) for key, estimate in found.items() if key != "crimson_score"}
    assert values == {
        "urgent_recall": (1 / 2, 2),  # R1 of R1, R2
        "urgent_precision": (1 / 1, 1),  # the second pair's P1, though its reference is not urgent
        "actionable_recall": (2 / 3, 3),
        "actionable_precision": (2 / 3, 3),  # not the first pair's P2
        "false_findings_per_report": (2 / 3, 3),
        "attribute_errors_per_match": (2 / 3, 3),
        "reports_without_grave_errors": (2 / 3, 3),  # not the first one
    }
    assert {estimate.n_left_out for estimate in found.values()} == {1}
    assert found["crimson_score"].value == pytest.approx(sum(r.crimson_score for r in RESULTS[:3]) / 3)
    assert all(figure.definition for figure in CLINICAL_FIGURES.values())


@pytest.mark.parametrize(
    ("made", "grave"),
    [
        (result(0, [MINOR], []), False),
        (result(0, [ACTIONABLE], []), True),
        (result(0, [], [MINOR]), False),
        (result(0, [], [URGENT]), True),
        (result(0, ["made up"], []), False),
        (result(0, [URGENT], [MINOR], [("R1", "P1")], [("R1", "P1", "negligible")]), False),
        (result(0, [URGENT], [MINOR], [("R1", "P1")], [("R1", "P1", "no grade")]), True),
        (result(0, [MINOR], [URGENT], [("R1", "P1")], [("R1", "P1", "significant")]), False),
    ],
)
def test_which_errors_are_grave(made, grave):
    assert clinical_figures({"a": counts([made])})["a"]["reports_without_grave_errors"].value == (0.0 if grave else 1.0)


def test_where_there_is_nothing_to_count_a_figure_is_not_a_number():
    for results in ([RESULTS[3]], [result(0)]):
        found = clinical_figures({"a": counts(results)})["a"]
        assert math.isnan(found["urgent_recall"].value)
        assert (found["urgent_recall"].n, found["crimson_score"].n_left_out) == (0, results[0].evaluation is None)


def test_the_flat_summary_of_a_corpus_by_hand():
    odd = [
        replace(RESULTS[0], repairs=["a"]),
        replace(RESULTS[1], suspicions=["b"]),
        replace(RESULTS[2], unrecognised=["c"]),
    ]
    found = summarize([*odd, RESULTS[3]], "crimson|x")
    assert math.isnan(found["scores"].pop())
    assert found["scores"] == [r.crimson_score for r in RESULTS[:3]]
    assert found["crimson_score"] == pytest.approx(sum(found["scores"]) / 3)
    counts = {key: found[key] for key in ("n_pairs", "n_unscored", "n_repaired", "n_suspect", "n_unrecognised")}
    assert list(counts.values()) == [4, 1, 1, 1, 1]
    assert found["failures"] == {3: "a refusal"}
    assert found["mean_false_findings"] == found["mean_missing_findings"] == found["mean_location_errors"] == 2 / 3
    assert found["mean_temporal_errors"] == 0
    assert found["signature"] == "crimson|x"
    none = summarize([RESULTS[3]], "s")
    assert math.isnan(none["crimson_score"]) and math.isnan(none["mean_false_findings"])


def test_urgent_findings_and_what_came_from_a_store_are_counted():
    counted = Summary([*RESULTS[:3], replace(RESULTS[0], from_store=True), replace(RESULTS[3], from_store=True)])
    assert (counted.n_urgent, counted.n_urgent_missed) == (4, 2)
    assert (counted.n_read, counted.n_failures_read) == (2, 1)


def test_parts_of_a_run_add_up_to_the_whole():
    results = [replace(RESULTS[0], from_store=True, repairs=["x"]), *RESULTS[1:3], replace(RESULTS[3], from_store=True)]
    merged = Summary(results[:1])
    merged.merge(Summary(results[1:]))
    told, expected = vars(merged), vars(Summary(results))
    assert list(told.pop("scores")) == pytest.approx(list(expected.pop("scores")), nan_ok=True)
    assert told == expected


def test_the_figures_and_the_comparison_of_two_systems_stand_together():
    figures, (comparison,) = compared_figures({"a": counts(RESULTS), "b": counts(RESULTS[::-1])})
    assert figures["a"]["crimson_score"].value == figures["b"]["crimson_score"].value
    assert comparison.systems == ("a", "b")
    assert (comparison.difference.n, comparison.difference.n_left_out) == (2, 2)
    assert comparison.wins == sum(
        a.crimson_score > b.crimson_score for a, b in zip(RESULTS[1:3], RESULTS[2:0:-1], strict=True)
    )


def test_errors_by_type_and_by_significance():
    types = Summary(RESULTS).errors_by_type
    assert (types["false finding"], types["missing finding"], types["location"], types["temporal"]) == (2, 2, 2, 0)
    levels = Summary([*RESULTS, result(4, ["made up"])]).errors_by_significance
    assert levels["false"] == {ACTIONABLE: 1, MINOR: 1}
    assert levels["missing"] == {URGENT: 1, BENIGN: 1, "other": 1}
    assert levels["attribute"] == {URGENT: 1, ACTIONABLE: 1}


def test_subgroups_of_a_patient_context():
    contexts = [{"age": "006M", "sex": "F"}, {"age": "40", "sex": "Male"}, {"age": "80", "sex": "other"}, None]
    pairs = make_pairs(["a"] * 4, ["a"] * 4, contexts)
    assert [age_band(pair) for pair in pairs] == ["under 18", "40 to 64", "80 and over", "unknown"]
    assert [sex(pair) for pair in pairs] == ["female", "male", "other", "unknown"]


def test_age_bands_end_before_the_next():
    ages = (17.5, 18, 39, 40, 64, 65, 79, 80)
    pairs = make_pairs(["a"] * 8, ["a"] * 8, [{"age": age} for age in ages])
    bands = ["under 18", *["18 to 39"] * 2, *["40 to 64"] * 2, *["65 to 79"] * 2, "80 and over"]
    assert [age_band(pair) for pair in pairs] == bands


def test_the_pairs_that_differ_most_stand_first():
    def results(*scores):
        made = [PairResult(i) for i in range(len(scores))]
        for result, score in zip(made, scores, strict=True):
            result.__dict__["crimson_score"] = math.nan if score is None else score  # cached there
        return made

    found = spread_first({"a": results(1.0, None, 0.5, 0.0), "b": results(0.9, 0.3, -0.5, 0.0)})
    assert [position for position, _ in found] == [2, 0, 3, 1]
    assert found[0][1] == 1.0
    assert math.isnan(found[-1][1])
