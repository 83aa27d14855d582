"""The arithmetic, against the reference implementation of the installed crimson-score."""

import json

import pytest
from CRIMSON.generate_score import CRIMSONScore as Reference
from hypothesis import given, settings
from hypothesis import strategies as st

from crimson_core import score_evaluation
from crimson_core.protocol.evaluation import ERROR_TYPES, GRADES, SIGNIFICANCE_LEVELS, Evaluation, repair_evaluation
from crimson_core.protocol.scoring import ERROR_COUNT_KEYS, read_outcome

REF_IDS, PRED_IDS = [f"R{n}" for n in range(1, 6)], [f"P{n}" for n in range(1, 6)]


def findings(ids):
    level = st.sampled_from([*SIGNIFICANCE_LEVELS, "benign_expected", "unheard_of", ""])
    full = st.fixed_dictionaries(
        {"id": st.sampled_from(ids), "finding": st.just("x")}, optional={"clinical_significance": level}
    )
    return st.lists(full, max_size=6)


attribute_error = st.fixed_dictionaries(
    {"ref_id": st.sampled_from(REF_IDS), "pred_id": st.sampled_from(PRED_IDS)},
    optional={
        "severity": st.sampled_from([*GRADES, "middling", ""]),
        "error_types": st.lists(st.sampled_from([*ERROR_TYPES, "other"]), max_size=4)
        | st.sampled_from(["location|severity", "temporal", ""]),
        "explanation": st.just("y"),
    },
)
errors = st.fixed_dictionaries(
    {},
    optional={
        "false_findings": st.lists(st.sampled_from([*PRED_IDS, "P9"]), max_size=6),
        "missing_findings": st.lists(st.sampled_from([*REF_IDS, "R9"]), max_size=6),
        "attribute_errors": st.lists(attribute_error, max_size=6),
    },
)
match = st.fixed_dictionaries({"ref_id": st.sampled_from([*REF_IDS, "R9"]), "pred_id": st.sampled_from(PRED_IDS)})
# Each list may be missing, empty, or contradict the others: scoring repairs nothing.
evaluations = st.fixed_dictionaries(
    {},
    optional={
        "reference_findings": findings(REF_IDS),
        "predicted_findings": findings(PRED_IDS),
        "matched_findings": st.lists(match, max_size=8),
        "errors": errors,
    },
)


@settings(max_examples=3000, deadline=None)
@given(evaluations)
def test_every_number_equals_the_reference_implementation(evaluation):
    expected = Reference._calculate_crimson(None, json.loads(json.dumps(evaluation)))
    ours = score_evaluation(evaluation)
    assert ours == expected
    assert tuple(ours["error_counts"]) == ERROR_COUNT_KEYS == tuple(expected["error_counts"])
    assert list(ours) == list(expected)
    assert -1 < ours["crimson_score"] <= 1


@settings(max_examples=1000, deadline=None)
@given(evaluations)
def test_an_evaluation_object_scores_as_its_wire_format(evaluation):
    checked = Evaluation.model_validate(evaluation)
    expected = Reference._calculate_crimson(None, json.loads(checked.model_dump_json()))
    assert score_evaluation(checked) == expected


@settings(max_examples=1000, deadline=None)
@given(evaluations)
def test_repair_makes_any_evaluation_consistent_and_says_so(evaluation):
    before = Evaluation.model_validate(evaluation)
    after, repairs = repair_evaluation(before)
    refs, preds = [f.id for f in after.reference_findings], [f.id for f in after.predicted_findings]
    matches = [(m.ref_id, m.pred_id) for m in after.matched_findings]
    assert len(set(refs)) == len(refs)
    assert len(set(preds)) == len(preds)
    assert set(after.errors.missing_findings) == set(refs) - {r for r, _ in matches}
    assert set(after.errors.false_findings) == set(preds) - {p for _, p in matches}
    for ids in (after.errors.missing_findings, after.errors.false_findings, matches):
        assert len(set(ids)) == len(ids)
    assert {r for r, _ in matches} <= set(refs)
    assert {p for _, p in matches} <= set(preds)
    assert all((e.ref_id, e.pred_id) in matches for e in after.errors.attribute_errors)
    assert bool(repairs) == (after.model_dump() != before.model_dump())
    assert repair_evaluation(after) == (after, [])


def test_what_the_matches_say_wins():
    evaluation = Evaluation.model_validate(
        {
            "reference_findings": [{"id": "R1", "finding": "a", "clinical_significance": "urgent"}],
            "predicted_findings": [{"id": "P1", "finding": "a", "clinical_significance": "urgent"}],
            "matched_findings": [{"ref_id": "R1", "pred_id": "P1"}],
            "errors": {"false_findings": ["P1"], "missing_findings": ["R1", "R7"], "attribute_errors": []},
        }
    )
    repaired, repairs = repair_evaluation(evaluation)
    assert score_evaluation(repaired)["crimson_score"] == 1.0
    assert score_evaluation(evaluation)["crimson_score"] == 0.0
    assert len(repairs) == 3


def test_extra_keys_never_change_the_score():
    plain = {
        "reference_findings": [{"id": "R1", "finding": "a", "clinical_significance": "urgent"}],
        "predicted_findings": [],
        "matched_findings": [],
        "errors": {"missing_findings": ["R1"]},
    }
    extra = json.loads(json.dumps(plain))
    extra["reference_findings"][0]["span"] = [0, 1]
    extra["note"] = "x"
    assert score_evaluation(extra)["crimson_score"] == score_evaluation(plain)["crimson_score"]
    assert Evaluation.model_validate(extra).model_dump()["reference_findings"][0]["span"] == [0, 1]


@pytest.mark.parametrize(
    ("false", "missing", "score"), [([], [], 1.0), (["P1"], [], -0.5), ([], ["R1"], 0.0), (["P1"], ["R1"], -0.5)]
)
def test_scores_by_hand(false, missing, score):
    """One urgent finding weighs 1: a false one gives -1 / (1 + 1), a missing one 0 of 1."""
    finding = {"finding": "a", "clinical_significance": "urgent"}
    evaluation = {
        "reference_findings": [{"id": "R1"} | finding] if missing else [],
        "predicted_findings": [{"id": "P1"} | finding] if false else [],
        "matched_findings": [],
        "errors": {"false_findings": false, "missing_findings": missing, "attribute_errors": []},
    }
    assert score_evaluation(evaluation)["crimson_score"] == score


@settings(max_examples=1000, deadline=None)
@given(evaluations)
def test_what_is_shown_of_each_finding_adds_up_to_the_score_of_a_repaired_evaluation(evaluation):
    repaired, _ = repair_evaluation(Evaluation.model_validate(evaluation))
    outcome = read_outcome(repaired.model_dump())
    terms = outcome.terms
    if outcome.references:
        assert sum(finding.weight for finding in outcome.references.values()) == terms.N
    assert sum(finding.credit for finding in outcome.references.values()) == pytest.approx(terms.C)
    assert sum(finding.weight for finding in outcome.false) == terms.F
    assert sum(finding.weight for finding in outcome.missing) == terms.M
    for finding in outcome.references.values():
        assert finding.credit == 0 if not finding.partners else 0 <= finding.credit <= finding.weight


def test_findings_know_their_partners_and_errors():
    match = {"ref_id": "R1", "pred_id": "P2"}
    errors = {"attribute_errors": [match | {"severity": "significant", "error_types": ["location"]}]}
    listed = {"reference_findings": [{"id": "R1"}], "predicted_findings": [{"id": "P1"}, {"id": "P2"}]}
    outcome = read_outcome(listed | {"matched_findings": [match], "errors": errors})
    assert outcome.references["R1"].partners == ("P2",)
    assert [(f.partners, len(f.errors)) for f in outcome.predictions.values()] == [((), 0), (("R1",), 1)]


def test_an_outcome_prints_no_report_text():
    finding = {"finding": "secret", "clinical_significance": "urgent"}
    error = {"ref_id": "R1", "pred_id": "P1", "severity": "significant", "error_types": ["location"]}
    evaluation = {
        "reference_findings": [{"id": "R1"} | finding],
        "predicted_findings": [{"id": "P1"} | finding],
        "matched_findings": [{"ref_id": "R1", "pred_id": "P1"}],
        "errors": {"attribute_errors": [error | {"explanation": "secret"}]},
    }
    assert "secret" not in repr(read_outcome(evaluation))
