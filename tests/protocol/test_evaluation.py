import json
import re

import pytest
from jsonschema import Draft202012Validator

from crimson_core.protocol.evaluation import (
    ERROR_TYPES,
    Evaluation,
    check_evaluation,
    evaluation_schema,
    parse_evaluation,
    repair_evaluation,
)

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


@pytest.mark.parametrize(
    "broken",
    [
        lambda text: text.replace('"', "'"),
        lambda text: text.replace("}]", "},]"),
        lambda text: text.replace("}]", "},]") + '{"more": 1}',
        lambda text: text.replace("}]", "},]").replace("left", 'a \\"{\\" and a \\\\'),  # quotes and brackets in a text
    ],
)
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
        "{" * 20_000,
        "{'a':" * 3000 + "1" + "}" * 3000,
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


@pytest.mark.parametrize(
    "cut",
    [
        lambda text: text[:-1],
        lambda text: text[:-4],
        lambda text: text[: text.index("right")],
        lambda text: text.replace("right", '\\"')[:-5],
    ],
)
def test_output_that_is_cut_after_its_last_key_is_not_closed_as_if_it_were_whole(cut):
    with pytest.raises(ValueError, match="the output ends before its JSON does"):
        parse_evaluation(cut(json.dumps(WHOLE)))


@pytest.mark.parametrize("around", ["{{{}}}", 'First {{"errors": {{}}}}, then {}', "{} {{}}"])
def test_a_whole_evaluation_among_other_brackets_needs_no_repair(around):
    told = WHOLE | {"remark": "a key of the judge's own"}
    assert parse_evaluation(around.format(json.dumps(told))) == (Evaluation.model_validate(told), [])


def test_what_is_no_object_is_no_evaluation():
    with pytest.raises(ValueError, match="the output is not a JSON object"):
        check_evaluation([WHOLE])


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
    only = json.dumps(WHOLE).replace('"location"', '"Location "')
    assert repair_evaluation(parse_evaluation(only)[0])[0] == Evaluation.model_validate(WHOLE)
    repaired, repairs = repair_evaluation(parse_evaluation(text)[0])
    assert repaired == Evaluation.model_validate(WHOLE)
    assert repairs == ["spelling: ids or levels had other letter case or blanks"]


def test_every_repair_is_said():
    def finding(i, text="effusion"):
        return {"id": i, "finding": text, "clinical_significance": "urgent"}

    pair, error = {"ref_id": "R1", "pred_id": "P1"}, {"severity": "significant", "error_types": ["location"]}
    evaluation = {
        "reference_findings": [
            finding("R1"),
            finding("R1"),
            finding("R1", "mass"),
            finding("R1", "node"),
            finding("R2"),
        ],
        "predicted_findings": [finding("P1"), finding("P2")],
        "matched_findings": [pair, pair, {"ref_id": "R9", "pred_id": "P2"}, {"ref_id": "R2", "pred_id": "P8"}],
        "errors": {
            "false_findings": ["P1", "P2", "P2", "P7"],
            "missing_findings": ["R2"],
            "attribute_errors": [pair | error, {"ref_id": "R2", "pred_id": "P1"} | error],
        },
    }
    evaluation["reference_findings"].append(finding("R1.2"))
    repaired, repairs = repair_evaluation(Evaluation.model_validate(evaluation))
    assert repairs == [
        "reference_findings: dropped a second R1",
        "reference_findings: R1 stood for two findings; the later one is now R1.3",
        "reference_findings: R1 stood for two findings; the later one is now R1.4",
        "matched_findings: dropped a second R1-P1",
        "matched_findings: dropped R9-P2, an id without a finding",
        "matched_findings: dropped R2-P8, an id without a finding",
        "missing_findings: added R1.3, which has no match",
        "missing_findings: added R1.4, which has no match",
        "missing_findings: added R1.2, which has no match",
        "false_findings: dropped P1, which has a match",
        "false_findings: dropped a second P2",
        "false_findings: dropped P7, an id without a finding",
        "attribute_errors: dropped one on R2-P1, which is no match",
    ]
    assert [(f.id, f.finding) for f in repaired.reference_findings] == [
        ("R1", "effusion"), ("R1.3", "mass"), ("R1.4", "node"), ("R2", "effusion"), ("R1.2", "effusion"),
    ]  # fmt: skip
    assert repaired.errors.missing_findings == ["R2", "R1.3", "R1.4", "R1.2"]
    assert repaired.errors.false_findings == ["P2"]


def test_an_evaluation_prints_ids_and_no_text():
    told = repr(Evaluation.model_validate(WHOLE))
    assert "effusion" not in told and "left" not in told
    assert "reference_findings=1" in told and "attribute_errors=1" in told
    assert repr(Evaluation.model_validate(WHOLE).matched_findings) == "[Match(ref_id='R1', pred_id='P1')]"


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

    error = WHOLE["errors"]["attribute_errors"][0] | {"error_types": list(ERROR_TYPES), "explanation": ""}
    errors = _no_errors() | {"attribute_errors": [error]}
    few = [finding | {"id": "P1"}]
    assert validator.is_valid(WHOLE | {"reference_findings": [finding], "predicted_findings": few, "errors": errors})
    assert not {"maxItems", "maxLength"} & set(re.findall(r"\w+", json.dumps(evaluation_schema()))), "OpenAI takes none"


def _no_errors():
    return {"false_findings": [], "missing_findings": [], "attribute_errors": []}


def test_of_two_findings_under_one_id_the_later_one_gets_the_next_free_number():
    twice = [WHOLE["reference_findings"][0], WHOLE["reference_findings"][0] | {"finding": "mass"}]
    repaired, _ = repair_evaluation(check_evaluation(WHOLE | {"reference_findings": twice}))
    assert [finding.id for finding in repaired.reference_findings] == ["R1", "R1.2"]
