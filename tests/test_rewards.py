"""The reward as TRL calls it, and one real step of TRL's GRPO trainer."""

import logging
import subprocess
import sys

import pytest

from crimson_core import InputError, JudgeError, Judgement
from crimson_core.judges.rules import OfflineJudge
from crimson_core.rewards import crimson_reward

REFERENCE = "Small left effusion."
RIGHT, WRONG = "There is a small left effusion.", "Large right pneumothorax."


def said(text):
    return [{"role": "assistant", "content": text}]


class Picky:
    """Judges offline, but fails where a report says so; counts what it is asked."""

    def __init__(self):
        self.offline, self.asked = OfflineJudge(), []

    def judge(self, pairs):
        self.asked += pairs
        for index, judgement in self.offline.judge(pairs):
            fails = "unreadable" in pairs[index].candidate
            yield index, Judgement(failure="mute") if fails else judgement

    def signature(self):
        return {"judge": "picky"}


@pytest.fixture
def picky():
    return Picky()


def test_plain_completions_and_conversations_have_the_same_rewards():
    reward = crimson_reward("offline")
    plain = reward(prompts=["p"] * 2, completions=[RIGHT, WRONG], reference=[REFERENCE] * 2)
    assert plain == [1.0, -0.5]
    chats = [[{"role": "user", "content": "again"}, *said(RIGHT)], said([{"type": "text", "text": WRONG}])]
    assert reward(prompts=["p"] * 2, completions=chats, reference=[REFERENCE] * 2) == plain


def test_trl_logs_its_name():
    assert crimson_reward("offline").__name__ == "crimson_reward"


def test_contexts_by_column():
    row = {"completions": [""], "truth": ["Tortuous aorta."]}
    assert crimson_reward("offline", reference_column="truth")(**row) == [0.0]
    assert crimson_reward("offline", reference_column="truth")(**row, age=["82"]) == [1.0]
    assert crimson_reward("offline", reference_column="truth", age_column="years")(**row, years=[82]) == [1.0]
    reward = crimson_reward("offline", reference_column="truth", context_column="patient")
    assert reward(**row, patient=[{"age": "82"}]) == [1.0]
    records = [{"report": "Tortuous aorta.", "age": "82"}]
    assert crimson_reward("offline")(completions=[""], reference=records) == [1.0]


def test_what_cannot_be_judged_is_none_and_is_logged(picky):
    logged = {}
    completions = ["unreadable", RIGHT, said(None), [{"role": "tool", "content": RIGHT}], []]
    reward = crimson_reward(picky)
    rewards = reward(completions=completions, reference=[REFERENCE] * 5, log_metric=logged.__setitem__)
    assert rewards == [None, 1.0, None, None, None]
    assert logged == {"crimson/unscored": 0.8}
    assert reward(completions=[said(None)], reference=[REFERENCE]) == [None]


def test_an_empty_completion_is_an_empty_report():
    assert crimson_reward("offline")(completions=["", ""], reference=[REFERENCE, "Clear lungs."]) == [0.0, 1.0]


def test_the_report_may_be_a_part_of_the_completion():
    reward = crimson_reward("offline", report=lambda text: text.partition("</think>")[2] or None)
    completions = [f"{WRONG}</think>{RIGHT}", f"thinking {RIGHT}"]
    assert reward(completions=completions, reference=[REFERENCE] * 2) == [1.0, None]


def test_equal_completions_are_judged_once(picky):
    completions, references = [RIGHT, WRONG, RIGHT, RIGHT], [REFERENCE] * 3 + ["Clear lungs."]
    rewards = crimson_reward(picky)(completions=completions, reference=references)
    assert len(picky.asked) == 3
    assert rewards == crimson_reward("offline")(completions=completions, reference=references)


@pytest.mark.parametrize(
    ("options", "columns", "said"),
    [
        ({}, {"completions": [RIGHT]}, "no column 'reference'"),
        ({"reference_column": "truth"}, {"completions": [RIGHT], "reference": ["a"]}, "no column 'truth'.*reference_column"),
        ({"age_column": "years"}, {"completions": [RIGHT], "reference": ["a"]}, "no column 'years'.*age_column"),
        ({}, {"completions": [RIGHT], "reference": [None]}, r"references\[0\] is missing"),
        ({}, {"completions": [[], RIGHT], "reference": ["a", 5]}, r"references\[1\] is of type int"),
        ({}, {"completions": [RIGHT], "reference": ["a", "b"]}, "2 entries and completions has 1"),
        ({}, {"completions": [5], "reference": ["a"]}, r"completions\[0\] is of type int"),
        ({}, {"completions": [RIGHT], "reference": ["a"], "age": ["old"]}, "can't be read"),
    ],
)  # fmt: skip
def test_bad_columns_are_errors_without_report_text(options, columns, said):
    with pytest.raises(InputError, match=said) as caught:
        crimson_reward("offline", **options)(**columns)
    assert "effusion" not in str(caught.value)


def test_impossible_options():
    with pytest.raises(InputError, match="one of the two"):
        crimson_reward("offline", context_column="c", age_column="a")
    with pytest.raises(InputError, match="judge 'nope'"):
        crimson_reward("nope")


def test_a_judge_that_cannot_go_on_stops_the_training(picky, monkeypatch):
    def broken(pairs):
        raise JudgeError("no key")
        yield

    monkeypatch.setattr(picky, "judge", broken)
    with pytest.raises(JudgeError, match="no key"):
        crimson_reward(picky)(completions=[RIGHT], reference=[REFERENCE])


def test_no_engine_is_imported_with_the_package():
    code = "import sys, crimson_core, crimson_core.rewards; print([m for m in ('torch', 'trl', 'ray', 'vllm') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("conversational", [False, True])
def test_a_step_of_grpo(tiny_folder, tmp_path, picky, monkeypatch, conversational):
    """The rewards reach the trainer, and of two completions that nobody could judge neither moves the model."""
    datasets = pytest.importorskip("datasets")
    trl = pytest.importorskip("trl")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompts = ["Report: ", "Findings: "]
    if conversational:
        prompts = [[{"role": "user", "content": prompt}] for prompt in prompts]
    data = datasets.Dataset.from_dict({"prompt": prompts, "reference": [REFERENCE] * 2, "age": ["70", "71"]})
    # a random model writes debris: every second completion is taken for a right report, and those of one prompt fail
    calls = iter(range(1000))
    texts = [RIGHT, WRONG, "unreadable", "unreadable"]
    reward = crimson_reward(picky, report=lambda _: texts[next(calls) % 4])
    seen = {}

    def kept(*arguments, **columns):
        seen["age"], seen["rewards"] = columns["age"], reward(*arguments, **columns)
        return seen["rewards"]

    kept.__name__ = reward.__name__
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    trainer = trl.GRPOTrainer(
        model,
        kept,
        args=trl.GRPOConfig(
            str(tmp_path), per_device_train_batch_size=4, num_generations=2, max_completion_length=6, max_steps=1,
            learning_rate=1e-2, logging_steps=1, report_to="none", use_cpu=True, shuffle_dataset=False, bf16=False,
            gradient_checkpointing=False, disable_tqdm=True, save_strategy="no",
        ),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(tiny_folder),
    )  # fmt: skip
    advantages = []
    loss = trainer._compute_loss
    monkeypatch.setattr(
        trainer, "_compute_loss", lambda m, i: advantages.append(i["advantages"].tolist()) or loss(m, i)
    )
    logging.getLogger("trl").setLevel(logging.ERROR)  # it would print the rows that nobody could judge
    trainer.train()
    assert seen == {"age": ["70", "70", "71", "71"], "rewards": [1.0, -0.5, None, None]}
    (given,) = advantages
    assert sorted(given)[0] == -sorted(given)[3] != 0
    assert sorted(given)[1:3] == [0, 0]
    logs = trainer.state.log_history[0]
    assert logs["rewards/crimson_reward/mean"] == pytest.approx(0.25)
    assert logs["crimson/unscored"] == 0.5
    assert any(not torch.equal(weight, before[name]) for name, weight in model.named_parameters())
