"""Code written for the reference implementation, with one import changed, on the offline judge."""

import pytest

from crimson_core import CRIMSONScore, InputError, Judgement, ReportPair
from crimson_core.judges import JUDGES
from crimson_core.judges.model import Answer, ModelJudge
from crimson_core.protocol.evaluation import Evaluation
from crimson_core.protocol.prompt import PUBLISHED_MODEL, Prompt, prompt_for


@pytest.fixture
def scorer():
    return CRIMSONScore(api="offline")


def test_the_examples_of_its_readme(scorer):
    result = scorer.evaluate(
        reference_findings="Cardiomegaly. Small bilateral pleural effusions.",
        predicted_findings="Normal heart size. Small left pleural effusion.",
    )
    assert list(result)[:5] == ["raw_evaluation", "error_counts", "weighted_error_counts", "metrics", "crimson_score"]
    assert result["error_counts"]["missing_findings"] == 1
    assert result["error_counts"]["location_errors"] == 1
    assert 0 < result["crimson_score"] < 1

    results = scorer.evaluate_batch(
        reference_findings_list=["Cardiomegaly.", "No acute cardiopulmonary abnormality.", "Right lower lobe pneumonia."],
        predicted_findings_list=["Normal heart size.", "No acute cardiopulmonary abnormality.", "Right lower lobe pneumonia."],
        patient_contexts=[{"Age": "72", "Indication": "Shortness of breath"}, None, {"Age": "45"}],
    )  # fmt: skip
    assert [r["crimson_score"] for r in results] == [0.0, 1.0, 1.0]


def test_lists_of_findings_are_joined(scorer):
    findings = ["Cardiomegaly.", "Left effusion."]
    assert scorer.evaluate(findings, "Cardiomegaly. Left effusion.")["crimson_score"] == 1.0
    assert scorer.evaluate(["No effusion", "cardiomegaly"], ["cardiomegaly"])["crimson_score"] == 1.0


def test_an_unscored_pair_raises_alone_and_is_none_in_a_batch(scorer, monkeypatch):
    monkeypatch.setattr(
        scorer._scorer.judge, "judge", lambda pairs: ((i, Judgement(failure="mute")) for i in range(len(pairs)))
    )
    with pytest.raises(ValueError, match="mute"):
        scorer.evaluate("a", "b")
    with pytest.warns(UserWarning, match="is unscored: mute"):
        assert scorer.evaluate_batch(["a", "b"], ["a", "b"]) == [None, None]


@pytest.mark.parametrize("model", ["someone/else", PUBLISHED_MODEL, f"{PUBLISHED_MODEL}@0123abc"])
def test_include_guidelines_reaches_the_prompt_but_not_that_of_the_published_model(model, monkeypatch):
    monkeypatch.setitem(JUDGES, "recorder", f"{__name__}:recorder_judge")
    scorer = CRIMSONScore(api="recorder", model_name=model)
    for wanted in (True, False, True):
        scorer.evaluate("a", "b", include_guidelines=wanted)
    guidelines = [model == "someone/else", False, model == "someone/else"]
    pair = ReportPair("a", "b")
    asked = [question.messages for question in scorer._scorer.judge.engine.asked]
    assert asked == [Prompt(guidelines=given).messages(pair) for given in guidelines]


class Recorder:
    """An engine that keeps what it is asked."""

    def __init__(self):
        self.asked = []

    def write(self, questions):
        for place, question in enumerate(questions):
            self.asked.append(question)
            yield place, Answer(Evaluation().model_dump_json(), finish_reason="stop")

    def signature(self):
        return {"judge": "recorder"}


def recorder_judge(model):
    return ModelJudge(Recorder(), prompt_for(model))


def test_bad_input(scorer):
    with pytest.raises(InputError, match="entries"):
        scorer.evaluate_batch(["a"], ["b", "c"])
    with pytest.raises(InputError, match="reference_findings 0, a finding, is missing"):
        scorer.evaluate(["a", None], "b")
    with pytest.raises(InputError, match="predicted_findings 0 is missing"):
        scorer.evaluate("a", None)
    assert scorer.evaluate_batch([], []) == []
    with pytest.raises(InputError, match="reference_findings_list is a string"):
        scorer.evaluate_batch("a", "b")
    with pytest.raises(InputError, match="weight"):
        scorer.evaluate("a", "b", {"weight": "80 kg"})
    with pytest.raises(InputError, match="judge"):
        CRIMSONScore(api="nope")


def test_an_api_model_gets_the_reference_implementations_messages_unless_tags_are_wanted():
    pytest.importorskip("openai")  # not in the environment without torch
    for options, delimited in (({}, False), ({"delimited": True}, True)):
        scorer = CRIMSONScore(api="openai", model_name="some-model", api_key="k", **options)
        assert scorer._scorer.judge.prompt.delimited is delimited
