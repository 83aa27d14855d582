"""A judge that asks a language model, around an engine of twenty lines: what holds whatever the engine is."""

import json

import pytest
from echo_engine import EchoEngine

from crimson_core import CRIMSONScore, CrimsonScorer, InputError, Judge, ReportPair, load_judge
from crimson_core.judges import JUDGES
from crimson_core.judges.base import Judgement
from crimson_core.judges.model import Answer, ModelJudge
from crimson_core.protocol.prompt import Prompt

EMPTY = {
    "reference_findings": [],
    "predicted_findings": [],
    "matched_findings": [],
    "errors": {"false_findings": [], "missing_findings": [], "attribute_errors": []},
}
TEXT = json.dumps(EMPTY)
PAIRS = [ReportPair("A long reference.", "A candidate."), ReportPair("Short.", "B"), ReportPair("Short.", "")]


@pytest.fixture
def echo(monkeypatch):
    """The line in the registry."""
    monkeypatch.setitem(JUDGES, "echo", "echo_engine:echo_judge")


def judged(answer):
    """What becomes of an engine's answer."""

    class Engine(EchoEngine):
        def write(self, questions):
            yield 0, answer

    ((_, judgement),) = ModelJudge(Engine("m"), Prompt("compact")).judge(PAIRS[:1])
    return judgement


def test_a_new_engine_is_one_file_and_one_line(echo, tmp_path):
    judge = load_judge(f"echo:{TEXT}", guidelines=False)
    assert isinstance(judge, Judge)
    scorer = CrimsonScorer(judge, store=tmp_path / "store")
    results = scorer.score(PAIRS)
    assert [result.crimson_score for result in results] == [1.0] * 3
    assert results[0].usage == {"prompt_tokens": 2}
    assert all(result.from_store for result in CrimsonScorer(judge, store=tmp_path / "store").score(PAIRS))
    assert scorer.signature.startswith("crimson|judge:echo|model:")
    assert CRIMSONScore(api="echo", model_name=TEXT).evaluate("a", "b")["crimson_score"] == 1.0
    with pytest.raises(InputError, match="knows no option 'seed'. Its options: guidelines"):
        load_judge("echo:m", seed=1)


def test_the_prompt_stands_behind_the_model_in_the_signature(echo):
    judge = load_judge("echo:m", guidelines=False)
    assert list(judge.signature()) == ["judge", "model", "prompt", "answers"]
    assert judge.signature()["prompt"].startswith("reference-without-guidelines")
    assert judge.asked_signature() == judge.signature()
    judge.prompt = Prompt("compact")
    assert judge.signature()["prompt"] == "compact"


def test_short_pairs_are_asked_first_and_those_with_the_same_reference_together(echo):
    pairs = [*PAIRS, ReportPair("Normal", "B"), ReportPair("Short.", "C")]
    assert [index for index, _ in load_judge(f"echo:{TEXT}").judge(pairs)] == [3, 2, 1, 4, 0]


def test_prompts_are_made_as_they_are_taken_and_closing_closes_the_engine(monkeypatch):
    made, closed, messages = [], [], Prompt.messages

    class Engine(EchoEngine):
        def write(self, questions):
            try:
                yield from super().write(questions)
            finally:
                closed.append(True)

    judge = ModelJudge(Engine(TEXT), Prompt("compact"))
    monkeypatch.setattr(Prompt, "messages", lambda prompt, pair: made.append(pair) or messages(prompt, pair))
    judging = judge.judge(PAIRS)
    next(judging)
    assert (made, closed) == ([PAIRS[2]], [])
    judging.close()
    assert (len(made), closed) == (1, [True])


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (Answer("no", finish_reason="stop"), "the output holds no JSON object"),
        (Answer(None, "the engine broke"), "the engine broke"),
        (Answer(TEXT, "the output did not end within 9 tokens", "length"), "the output did not end within 9 tokens"),
        (Answer(TEXT.replace("}", ",}")), "the output is no valid JSON and may be cut"),
        (Answer(None), "the output holds no JSON object"),
    ],
)
def test_what_is_no_evaluation_is_a_failure_that_keeps_its_text(answer, failure):
    judgement = judged(answer)
    assert (judgement.failure, judgement.evaluation, judgement.repairs) == (failure, None, [])
    assert (judgement.raw_output or "") == (answer.text or "")


def test_text_that_ended_is_mended_and_usage_and_cost_are_kept():
    judgement = judged(Answer(TEXT.replace("}", ",}"), None, "stop", {"completion_tokens": 3}, 0.5))
    assert judgement.repairs and judgement.evaluation.model_dump() == EMPTY
    assert (judgement.usage, judgement.cost) == ({"completion_tokens": 3}, 0.5)
    assert judged(Answer(TEXT)) == Judgement.from_output(TEXT)
