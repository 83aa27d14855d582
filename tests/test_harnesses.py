"""The examples for other evaluation frameworks, with the frameworks themselves (`make test-harnesses`) and fixed outputs."""

import importlib.util
import json
from pathlib import Path

import pytest

HARNESSES = Path(__file__).resolve().parent.parent / "examples" / "harnesses"
STUDIES = [
    {"prompt": "view: frontal", "reference": "Small left effusion.", "age": "65", "sex": "F", "indication": "cough"},
    {"prompt": "view: lateral", "reference": "Tortuous aorta.", "age": "82", "sex": None, "indication": None},
]
REPORTS = {"view: frontal": "Small left effusion.", "view: lateral": "Large right pneumothorax."}
SCORES = {"view: frontal": 1.0, "view: lateral": -0.5}  # the aorta of the old patient need not be told


@pytest.fixture
def studies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "studies.jsonl"
    path.write_text("".join(json.dumps(study) + "\n" for study in STUDIES))
    return path


def example(name):
    spec = importlib.util.spec_from_file_location(name, HARNESSES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lm_evaluation_harness(studies):
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    class Scripted(LM):
        def generate_until(self, requests, **_):
            return [REPORTS[request.arguments[0]] for request in requests]

        loglikelihood = loglikelihood_rolling = generate_until

    tasks = TaskManager(include_path=str(HARNESSES / "lm_eval"), include_defaults=False)
    found = lm_eval.simple_evaluate(model=Scripted(), tasks=["crimson"], task_manager=tasks, bootstrap_iters=0)
    results = found["results"]["crimson"]
    assert results["crimson_score,none"] == sum(SCORES.values()) / 2
    assert results["crimson_unscored,none"] == 0


def test_lighteval(studies, tmp_path, monkeypatch):
    pytest.importorskip("lighteval")
    from lighteval.metrics import apply_metric
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.lighteval_task import LightevalTask

    (tmp_path / "studies").mkdir()
    studies.rename(tmp_path / "studies" / "test.jsonl")
    monkeypatch.setenv("CRIMSON_STUDIES", str(tmp_path / "studies"))
    task = LightevalTask(example("lighteval_task").TASKS_TABLE[0])
    docs = task.get_docs()
    outputs = apply_metric([ModelResponse(text=[REPORTS[doc.query]]) for doc in docs], docs, task.metrics)
    assert [output["crimson_score"] for output in outputs] == [SCORES[doc.query] for doc in docs]
    mean = task.aggregation()["crimson_score"]
    assert mean([output["crimson_score"] for output in outputs]) == sum(SCORES.values()) / 2


def test_inspect(studies, tmp_path):
    inspect_ai = pytest.importorskip("inspect_ai")
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    outputs = [ModelOutput.from_content("mockllm/model", REPORTS[study["prompt"]]) for study in STUDIES]
    for output in outputs:
        output.usage = ModelUsage()  # else it counts tokens with a tokenizer that it downloads
    model = get_model("mockllm/model", custom_outputs=outputs)
    task = example("inspect_scorer").reports(str(studies))
    (log,) = inspect_ai.eval(task, model=model, display="none", log_dir=str(tmp_path / "logs"), max_samples=1)
    assert log.status == "success"
    scores = {sample.input: sample.scores["crimson"] for sample in log.samples}
    assert {prompt: score.value for prompt, score in scores.items()} == SCORES
    evaluation = scores["view: lateral"].metadata["evaluation"]
    assert evaluation["errors"]["false_findings"] == ["P1"]
    assert log.results.scores[0].metrics["mean"].value == sum(SCORES.values()) / 2
