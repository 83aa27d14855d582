"""The evaluation loops under examples/, on tiny random models."""

import importlib.util
import json
from pathlib import Path

import evaluate
import numpy as np
import pytest
from models import byte_tokenizer, save_tiny_seq2seq

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
STUDIES = [
    {"prompt": "view: frontal", "reference": "Small left effusion.", "age": "65", "sex": "F", "indication": "cough"},
    {"prompt": "view: lateral", "reference": "Tortuous aorta.", "age": "82", "sex": None, "indication": None},
    {"prompt": "view: frontal, prior", "reference": "Clear lungs.", "age": None, "sex": None, "indication": None},
]


@pytest.fixture(autouse=True)
def _own_caches(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "metrics")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def studies(tmp_path):
    path = tmp_path / "studies.jsonl"
    path.write_text("".join(json.dumps(study) + "\n" for study in STUDIES))
    return str(path)


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def watched(monkeypatch, module):
    """What the example hands to the metric."""
    seen = {}
    load = evaluate.load

    def watching(*arguments, **options):
        metric = load(*arguments, **options)
        compute = metric.compute
        metric.compute = lambda **columns: seen.update(columns) or compute(**columns)
        return metric

    monkeypatch.setattr(module.evaluate, "load", watching)
    return seen


def test_the_evaluator(tiny_folder, studies, monkeypatch):
    module = example("evaluate_generator")
    seen = watched(monkeypatch, module)
    results = module.run(str(tiny_folder), studies, max_new_tokens=12)
    assert seen["references"] == [
        {"report": s["reference"], "age": s["age"], "sex": s["sex"], "indication": s["indication"]} for s in STUDIES
    ]
    assert len(seen["predictions"]) == 3
    assert not any(p.startswith(s["prompt"]) for p, s in zip(seen["predictions"], STUDIES, strict=True))
    # debris is no finding: the urgent one is missed, the aorta of the old patient and the clear lungs need none
    assert results["scores"] == [0.0, 1.0, 1.0]
    assert results["samples_per_second"] > 0


def test_the_trainer(studies, tmp_path, monkeypatch):
    module = example("train_generator")
    seen = watched(monkeypatch, module)
    monkeypatch.setattr(module, "MAX_TOKENS", 16)  # which cuts the labels
    results = module.run(
        str(save_tiny_seq2seq(tmp_path / "t5")), studies, studies, str(tmp_path / "out"),
        num_train_epochs=1, per_device_eval_batch_size=2, use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    assert results["eval_crimson_score"] == pytest.approx(2 / 3)
    assert results["eval_n_unscored"] == 0
    assert [r["report"] for r in seen["references"]] == [s["reference"] for s in STUDIES], "and not what was cut"
    assert seen["references"][1]["age"] == "82"


def test_generated_ids_become_reports(studies):
    import datasets
    from transformers import EvalPrediction

    module = example("train_generator")
    tokenizer = byte_tokenizer()
    reports = [study["reference"] for study in STUDIES]
    rows = [[*tokenizer(report)["input_ids"], tokenizer.eos_token_id] for report in reports]
    ids = np.full((3, max(map(len, rows))), -100)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    metrics = module.crimson_metrics(tokenizer, datasets.load_dataset("json", data_files=studies, split="train"))
    results = metrics(EvalPrediction(predictions=ids, label_ids=ids))
    assert results["crimson_score"] == 1.0
    assert all(isinstance(value, (int, float)) for value in results.values())


def test_the_notebook(monkeypatch, capsys):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells), "outputs are not kept"
    names = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["results"]["A"]["scores"] == [1.0, 1.0, 0.5, 1.0]
    assert names["results"]["B"]["scores"][1] == 0.0
    printed = capsys.readouterr().out
    assert "The reference says right, the candidate left" in printed and "A less B: +" in printed
    assert len(plt.gcf().axes[0].patches) == 8
    plt.close("all")
