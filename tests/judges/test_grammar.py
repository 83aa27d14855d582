"""The grammar that keeps outputs inside the evaluation's schema."""

import json

import pytest

from crimson_core.judges.engines.local.grammar import evaluation_grammar
from crimson_core.protocol.evaluation import evaluation_schema, parse_evaluation


@pytest.fixture(scope="module")
def accepts():
    import xgrammar

    letters = [chr(c) for c in range(256)]
    info = xgrammar.TokenizerInfo([*letters, "</s>"], stop_token_ids=[256])
    compiled = xgrammar.GrammarCompiler(info).compile_grammar(evaluation_grammar(evaluation_schema(3, 20)))

    def check(text):
        matcher = xgrammar.GrammarMatcher(compiled)
        return matcher.accept_string(text) and matcher.accept_token(256)

    return check


def example(text="nodule", count=2, **changes):
    ids = range(1, count + 1)
    return {
        "reference_findings": [{"id": f"R{i}", "finding": text, "clinical_significance": "urgent"} for i in ids],
        "predicted_findings": [{"id": "P10", "finding": "", "clinical_significance": "benign_expected"}],
        "matched_findings": [{"ref_id": "R1", "pred_id": "P10"}],
        "errors": {
            "false_findings": [],
            "missing_findings": ["R2"],
            "attribute_errors": [
                {
                    "ref_id": "R1",
                    "pred_id": "P10",
                    "severity": "negligible",
                    "error_types": ["location", "temporal"],
                    "explanation": text,
                }
            ],
        },
    } | changes


@pytest.mark.parametrize(
    "layout", [{}, {"indent": 2}, {"indent": 4}, {"separators": (",", ":")}, {"ensure_ascii": False}]
)
@pytest.mark.parametrize("text", ["nodule", "", 'a "quoted" 5\' nodule', "line\nbreak\\", "é “–” 肺", "x" * 20])
def test_grammar_takes_what_a_trained_model_may_write(accepts, text, layout):
    output = json.dumps(example(text), **layout)
    assert accepts(output)
    assert parse_evaluation(output)[1] == []


@pytest.mark.parametrize(
    "output",
    [
        json.dumps(example("x" * 21)),
        json.dumps(example(count=4)),
        json.dumps(example(other=1)),
        json.dumps(example(matched_findings=[{"ref_id": "P1", "pred_id": "P2"}])),
        json.dumps(example(matched_findings=[{"ref_id": "R0", "pred_id": "P2"}])),
        json.dumps({"reference_findings": []}),
        json.dumps(example()) + " {}",
        json.dumps(example()) + "\n",
        "Sure: " + json.dumps(example()),
        json.dumps(example("a")).replace('"a"', '"a\tb"'),
        json.dumps(example("a")).replace('"a"', '"\\x"'),
        json.dumps(example("\n" * 9)),
        "{" + " " * 25 + json.dumps(example())[1:],
        json.dumps(example())[:-1],
    ],
)
def test_grammar_refuses_the_rest(accepts, output):
    assert not accepts(output)
