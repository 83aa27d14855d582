import json

import pytest
from jsonschema import Draft202012Validator

from crimson_core.protocol.evaluation import Evaluation, evaluation_schema, parse_evaluation, repair_evaluation

WHOLE = {
    "reference_findings": [{"id": "R1", "finding": "effusion", "clinical_significance": "urgent"}],
    "predicted_findings": [{"id": "P1", "finding": "effusion", "clinical_significance": "urgent"}],
    "matched_findings": [{"ref_id": "R1", "pred_id": "P1"}],
    "errors": {
        "false_findings": [],
        "missing_findings": [],
        "attribute_errors": [
            {
                "ref_id": "R1",
                "pred_id": "P1",
                "severity": "significant",
                "error_types": ["location"],
                "explanation": "left {not} right",
            }
        ],
    },
}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(WHOLE),
        json.dumps(WHOLE, indent=4),
        f"Here it is:\n```json\n{json.dumps(WHOLE)}\n```\nAnything else?",
        json.dumps(WHOLE) + json.dumps({"reference_findings": []}),
        '<think>{"a": {"b": 1}} {hm</think>' + json.dumps(WHOLE),
    ],
)
def test_valid_output_is_read_as_it_is(text):
    assert parse_evaluation(text) == (Evaluation.model_validate(WHOLE), [])


@pytest.mark.parametrize("broken", [lambda t: t.replace('"', "'"), lambda t: t.replace("}]", "},]")])
def test_broken_json_is_mended_and_that_is_said(broken):
    evaluation, repairs = parse_evaluation(broken(json.dumps(WHOLE)))
    assert evaluation.reference_findings == Evaluation.model_validate(WHOLE).reference_findings
    assert repairs == ["output: was no valid JSON and has been mended"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot help with that.",
        "{}",
        "[1, 2]",
        "{" * 100_000,
        *(json.dumps(WHOLE)[:n] for n in range(20, len(json.dumps(WHOLE)), 25)),  # cut: what was to come is unknown
        json.dumps(WHOLE | {"matched_findings": [["R1", "P1"]]}),
        json.dumps(WHOLE | {"reference_findings": ["effusion"]}),
        json.dumps(WHOLE | {"errors": None}),
    ],
)
def test_what_is_no_evaluation_is_a_failure_without_report_text(text):
    with pytest.raises(ValueError, match="output") as error:
        parse_evaluation(text)
    assert "effusion" not in str(error.value)
    assert len(str(error.value)) < 200


def test_half_a_surrogate_pair_is_replaced_and_whole_ones_are_kept():
    text = json.dumps(WHOLE).replace("effusion", "\\ud83d x \\ud83e\\ude7b", 1)
    evaluation, _ = parse_evaluation(text)
    assert evaluation.reference_findings[0].finding == "\ufffd x \U0001fa7b"
    evaluation.model_dump_json().encode()


def test_error_types_in_one_string_are_split():
    for together in ("location|severity", "location, severity"):
        text = json.dumps(WHOLE).replace('["location"]', f'"{together}"')
        assert parse_evaluation(text)[0].errors.attribute_errors[0].error_types == ["location", "severity"]


def test_letter_case_and_blanks_are_repaired_and_that_is_said():
    text = json.dumps(WHOLE).replace('"R1"', '"r1 "').replace("urgent", "Urgent")
    repaired, repairs = repair_evaluation(parse_evaluation(text)[0])
    assert repaired == Evaluation.model_validate(WHOLE)
    assert repairs == ["spelling: ids or levels had other letter case or blanks"]


def test_repairs_quote_no_text():
    odd = json.loads(json.dumps(WHOLE).replace("R1", "SECRET"))
    odd["errors"]["missing_findings"] = ["SECRET", "HIDDEN"]
    _, repairs = repair_evaluation(Evaluation.model_validate(odd))
    assert repairs
    assert not any(word in line for line in repairs for word in ("SECRET", "HIDDEN"))


@pytest.mark.parametrize("bounds", [(None, None), (40, 400), (1, 16)])
def test_the_schema_describes_the_wire_format(bounds):
    schema = evaluation_schema(*bounds)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    validator.validate(WHOLE)
    assert Evaluation.model_validate(WHOLE).model_dump() == WHOLE
    for wrong in (
        {},
        WHOLE | {"more": 1},
        WHOLE | {"reference_findings": [{"id": "P1", "finding": "a", "clinical_significance": "urgent"}]},
        WHOLE | {"reference_findings": [{"id": "R1", "finding": "a", "clinical_significance": "grave"}]},
    ):
        assert not validator.is_valid(wrong)


def test_the_schema_bounds_lists_and_texts():
    validator = Draft202012Validator(evaluation_schema(2, 5))
    finding = {"id": "R1", "finding": "abcde", "clinical_significance": "urgent"}
    assert validator.is_valid(
        WHOLE | {"reference_findings": [finding] * 2, "predicted_findings": [], "errors": _no_errors()}
    )
    for findings in ([finding] * 3, [finding | {"finding": "abcdef"}]):
        assert not validator.is_valid(
            WHOLE | {"reference_findings": findings, "predicted_findings": [], "errors": _no_errors()}
        )


def _no_errors():
    return {"false_findings": [], "missing_findings": [], "attribute_errors": []}
