"""The grammar that keeps outputs inside the evaluation's schema."""

import json

import pytest
import torch

from crimson_core.judges.engines.hf.grammar import Grammar
from crimson_core.judges.engines.local.grammar import evaluation_grammar
from crimson_core.protocol.evaluation import evaluation_schema, parse_evaluation

END = 256


def compiled(max_text):
    """A grammar over the characters up to 255, which are their own tokens."""
    import xgrammar

    info = xgrammar.TokenizerInfo([*map(chr, range(END)), "</s>"], stop_token_ids=[END])
    grammar = evaluation_grammar(evaluation_schema(3, max_text))
    return xgrammar, xgrammar.GrammarCompiler(info).compile_grammar(grammar)


def accepting(max_text):
    xgrammar, grammar = compiled(max_text)

    def check(text):
        matcher = xgrammar.GrammarMatcher(grammar)
        return matcher.accept_string(text) and matcher.accept_token(END)

    return check


@pytest.fixture(scope="module")
def accepts():
    return accepting(20)


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


@pytest.mark.parametrize("most", [1, 7, 19, 23, 40, 45])
def test_a_text_has_the_most_characters_and_no_more(most):
    accepts = accepting(most)
    for length in range(most + 2):
        assert accepts(json.dumps(example("x" * length))) == (length <= most), length
    assert accepts(json.dumps(example("x" * most + "\n" + "x" * most)))
    assert not accepts(json.dumps(example("\n" + "x" * (most + 1))))


def test_many_tokens_at_once_are_followed_as_one_by_one_up_to_the_first_that_is_refused():
    xgrammar, made = compiled(20)
    grammar = Grammar(xgrammar, made, torch.device("cpu"))
    right = [*json.dumps(example()).encode(), END]
    texts = [right, right[:30], [], [*right[:40], ord("]"), *right[40:]], [END], [*right[:20], ord("x"), ord("x")]]
    matchers, one_by_one = ([grammar.start() for _ in texts] for _ in range(2))
    counts = grammar.follow(matchers, texts)
    assert counts == [len(right), 30, 0, 40, 0, 20]
    for matcher, text in zip(one_by_one, texts, strict=True):
        all(map(matcher.accept_token, text))  # to the first that is refused
    grammar.go_back(matchers, [min(count, 5) for count in counts])
    for matcher, other, count in zip(matchers, one_by_one, counts, strict=True):
        other.rollback(min(count, 5))
        assert grammar.allowed(matcher) is grammar.allowed(other), "they stand in the same place"
    assert grammar.follow([], []) == []
