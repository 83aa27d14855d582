"""The metric through `evaluate.load`, as its users load it."""

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import evaluate
import pandas
import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULE = str(ROOT / "crimson_metric.py")
PREDICTIONS = ["Small left effusion.", "Clear lungs.", "Right lower lobe pneumonia. Cardiomegaly."]
REFERENCES = ["Small left effusion.", "Large right pneumothorax.", "Left lower lobe pneumonia."]
CONTEXTS = [{"age": "65", "indication": "chest pain"}, None, {"sex": "F"}]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def crimson(tmp_path):
    return evaluate.load(MODULE, "offline", cache_dir=str(tmp_path / "cache"))


def cached(tmp_path):
    return [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_several_processes_give_the_same(crimson, tmp_path):
    reports = {"predictions": PREDICTIONS * 200, "references": REFERENCES * 200}
    several = evaluate.load(MODULE, "offline", workers=2, cache_dir=str(tmp_path / "cache"))
    assert several.compute(**reports) == crimson.compute(**reports)
    assert several.compute(**reports, store=tmp_path / "kept") == crimson.compute(**reports)


def test_compute(crimson):
    result = crimson.compute(predictions=PREDICTIONS, references=REFERENCES, patient_contexts=CONTEXTS)
    assert result["scores"][:2] == [1.0, 0.0]
    assert result["crimson_score"] == pytest.approx(sum(result["scores"]) / 3)
    assert (result["n_pairs"], result["n_unscored"], result["n_unrecognised"]) == (3, 0, 0)
    assert result["mean_location_errors"] == pytest.approx(1 / 3)
    assert "judge:offline" in result["signature"]
    assert "evaluations" not in result


def test_judgements_are_kept_where_asked(crimson, tmp_path):
    pairs = {"predictions": PREDICTIONS, "references": REFERENCES, "patient_contexts": CONTEXTS}
    plain = crimson.compute(**pairs, detailed=True)
    kept = evaluate.load(MODULE, "offline", store=str(tmp_path / "one"))
    for judged, metric, options in (
        (True, kept, {}),
        (False, kept, {}),
        (False, crimson, {"store": tmp_path / "one"}),
        (True, crimson, {"store": tmp_path / "two"}),
        (True, kept, {"store": tmp_path / "three"}),
        (True, crimson, {}),
    ):
        result = metric.compute(**pairs, detailed=True, **options)
        assert [e["from_store"] for e in result["evaluations"]] == [not judged] * 3
        same = [e | {"from_store": False} for e in result["evaluations"]]
        assert result | {"evaluations": same} == plain
    with pytest.raises(RuntimeError, match="is a folder"):
        evaluate.load(MODULE, "offline", store=str(tmp_path))


def test_add_and_add_batch_give_what_compute_gives(crimson):
    whole = crimson.compute(predictions=PREDICTIONS, references=REFERENCES, patient_contexts=CONTEXTS, detailed=True)
    records = [{"report": r} | (c or {}) for r, c in zip(REFERENCES, CONTEXTS, strict=True)]
    crimson.add(prediction=PREDICTIONS[0], reference=records[0])
    crimson.add_batch(predictions=PREDICTIONS[1:], references=records[1:])
    assert crimson.compute(detailed=True) == whole
    assert len(whole["evaluations"]) == 3
    assert whole["evaluations"][1]["raw_evaluation"]["errors"]["missing_findings"] == ["R1"]
    assert crimson.compute(predictions=PREDICTIONS, references=records)["scores"] == whole["scores"]


def test_strings_and_records_may_be_mixed(crimson):
    crimson.add_batch(predictions=["Effusion."] * 2, references=["Effusion.", {"report": "Effusion.", "age": 70}])
    assert crimson.compute()["scores"] == [1.0, 1.0]


def test_columns_of_pandas_and_datasets_and_arrays(crimson):
    table = pandas.DataFrame({"p": PREDICTIONS, "r": REFERENCES, "c": CONTEXTS})
    expected = crimson.compute(predictions=PREDICTIONS, references=REFERENCES, patient_contexts=CONTEXTS)["scores"]
    backwards = table.iloc[::-1]
    reverse = crimson.compute(predictions=backwards.p, references=backwards.r, patient_contexts=backwards.c)
    assert reverse["scores"] == expected[::-1]
    dataset = datasets.Dataset.from_dict({"p": PREDICTIONS, "r": REFERENCES})
    assert crimson.compute(predictions=dataset["p"], references=dataset["r"])["n_pairs"] == 3
    assert crimson.compute(predictions=table.p.to_numpy(), references=tuple(REFERENCES))["n_pairs"] == 3


def test_contexts_reach_the_judge(crimson):
    def weight(reference, contexts=None):
        result = crimson.compute(predictions=[""], references=[reference], patient_contexts=contexts, detailed=True)
        return result["evaluations"][0]["metrics"]["N_G"]

    assert weight("Tortuous aorta.") == 0.25
    assert weight("Tortuous aorta.", [{"age": "082Y"}]) == 0
    assert weight({"report": "Tortuous aorta.", "age": "82"}) == 0


def test_combine_with_another_metric(tmp_path):
    other = tmp_path / "length.py"
    other.write_text(
        "import datasets\nimport evaluate\n\n\n"
        "class Length(evaluate.Metric):\n"
        "    def _info(self):\n"
        "        v = datasets.Value('string')\n"
        "        return evaluate.MetricInfo(description='', citation='', inputs_description='',\n"
        "            features=datasets.Features({'predictions': v, 'references': v}))\n\n"
        "    def _compute(self, predictions, references):\n"
        "        return {'length': sum(map(len, predictions))}\n"
    )
    both = evaluate.combine([evaluate.load(MODULE, "offline"), evaluate.load(str(other))])
    result = both.compute(predictions=PREDICTIONS, references=REFERENCES)
    assert result["length"] == sum(map(len, PREDICTIONS))
    assert result["scores"][0] == 1.0
    both.add_batch(predictions=PREDICTIONS, references=REFERENCES)
    both.add(prediction="", reference="")
    assert len(both.compute()["scores"]) == 4


def test_inputs_wait_in_a_cache_file_that_compute_deletes(crimson, tmp_path):
    crimson.add_batch(predictions=PREDICTIONS, references=REFERENCES)
    assert [p.suffix for p in cached(tmp_path)] == [".arrow"]
    crimson.compute()
    assert cached(tmp_path) == []


def test_keep_in_memory_writes_no_file(tmp_path):
    crimson = evaluate.load(MODULE, "offline", keep_in_memory=True, cache_dir=str(tmp_path / "cache"))
    crimson.add_batch(predictions=PREDICTIONS, references=REFERENCES)
    crimson.add(prediction="", reference={"report": "", "age": "3"})
    assert cached(tmp_path) == []
    assert len(crimson.compute()["scores"]) == 4
    assert len(crimson.compute(predictions=PREDICTIONS, references=REFERENCES)["scores"]) == 3


def test_after_a_failing_judge_no_patient_data_lies_about(crimson, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(crimson.scorer, "score", fail)
        with pytest.raises(KeyboardInterrupt):
            crimson.compute(predictions=PREDICTIONS, references=REFERENCES)
    assert cached(tmp_path) == []
    assert len(crimson.compute(predictions=PREDICTIONS[:1], references=REFERENCES[:1])["scores"]) == 1


def test_after_a_failure_two_metrics_collect_pairs_apart(crimson, tmp_path):
    crimson.add(prediction="Effusion.", reference="Effusion.")
    with pytest.raises(ValueError, match="bogus"):
        crimson.compute(patient_contexts=[{"bogus": "1"}])
    other = evaluate.load(MODULE, "offline", cache_dir=str(tmp_path / "cache"))
    for prediction in ("Effusion.", "Clear lungs."):
        other.add(prediction=prediction, reference="Effusion.")
    crimson.add(prediction="Effusion.", reference="Effusion.")
    assert other.compute()["scores"] == [1.0, 0.0]
    assert crimson.compute()["scores"] == [1.0]


def test_refused_input_leaves_what_was_added_before(crimson):
    crimson.add(prediction="Effusion.", reference="Effusion.")
    with pytest.raises(ValueError, match=r"predictions\[1\]"):
        crimson.compute(predictions=["a", None], references=["b", "c"])
    crimson.add(prediction="Pneumothorax.", reference="Pneumothorax.")
    assert crimson.compute()["scores"] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"predictions": ["a", None], "references": ["b", "c"]}, r"predictions\[1\] is missing"),
        ({"predictions": ["a"], "references": [math.nan]}, r"references\[0\] is missing"),
        ({"predictions": ["a"], "references": [["b"]]}, r"references\[0\] is of type list"),
        ({"predictions": ["a"], "references": ["b", "c"]}, "predictions has 1 entries and references has 2"),
        ({"predictions": [], "references": []}, "predictions is empty"),
        ({}, "predictions and references are missing"),
        ({"predictions": ["a"]}, "references is missing"),
        ({"predictions": ["a"], "references": ["b"], "patient_contexts": [{"weight": 3}]}, r"patient_contexts\[0\].*weight"),
        ({"predictions": ["a"], "references": [{"report": "b", "age": "x"}]}, r"references\[0\]\['age'\] can't be read"),
    ],
)  # fmt: skip
def test_bad_input_names_the_argument_and_row_and_prints_no_report(crimson, arguments, said):
    with pytest.raises(ValueError, match=said):
        crimson.compute(**arguments)
    assert crimson.compute(predictions=["Effusion."], references=["Effusion."])["scores"] == [1.0]


def test_add_names_its_own_argument(crimson):
    with pytest.raises(ValueError, match="^prediction is of type int"):
        crimson.add(prediction=3, reference="a")
    with pytest.raises(ValueError, match="^reference is missing"):
        crimson.add(prediction="a")


def test_a_judge_spec_with_a_path_stays_inside_the_cache(tmp_path, monkeypatch):
    import crimson_core

    model = tmp_path / "model"
    model.mkdir()
    monkeypatch.setattr(crimson_core, "CrimsonScorer", lambda spec, **options: (spec, options))
    metric = evaluate.load(MODULE, str(model), cache_dir=str(tmp_path / "cache"), batch_size=2)
    assert metric.scorer == (str(model), {"batch_size": 2})
    assert Path(metric.data_dir).is_relative_to(tmp_path / "cache")
    assert list(model.iterdir()) == []

    spec = f"hf:{'deep/' * 40}adapter,base={'deep/' * 40}base"
    metric = evaluate.load(MODULE, spec, cache_dir=str(tmp_path / "cache"))
    assert metric.scorer == (spec, {}), "although no file system takes so long a name"


def test_without_a_second_argument_it_is_the_published_model(monkeypatch):
    import crimson_core

    monkeypatch.setattr(crimson_core, "CrimsonScorer", lambda spec, **_: spec)
    assert evaluate.load(MODULE).scorer == "default"


@pytest.mark.parametrize(("spec", "options"), [("nope", {}), ("offline", {"batch_size": 3}), (5, {})])
def test_unknown_judges_and_options(spec, options):
    with pytest.raises(ValueError, match="judge "):
        evaluate.load(MODULE, spec, **options)


def test_the_space_folder_loads_as_on_the_hub(tmp_path):
    checkout = tmp_path / "checkout"
    shutil.copytree(
        ROOT, checkout, ignore=shutil.ignore_patterns(".git", ".venv*", "dist", ".cache", "__pycache__", "*.egg-info")
    )
    subprocess.run(["make", "space"], cwd=checkout, check=True, capture_output=True)
    space = checkout / "dist" / "space"
    code = "import evaluate; c = evaluate.load('crimson', 'offline'); print(c.compute(predictions=['Effusion.'], references=['Effusion.'])['scores'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=space, capture_output=True, text=True, env=_offline(tmp_path)
    )
    assert done.stdout.strip() == "[1.0]", done.stderr
    assert not list(space.rglob("__pycache__"))

    folder = space / "crimson"
    assert "crimson_metric.py" not in (folder / "crimson.py").read_text(), "it has another name there"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert readme.split("---")[1] == Path(ROOT, "README.md").read_text(encoding="utf-8").split("---")[1]
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", readme) if "://" not in link]
    assert links and all((folder / link).exists() for link in links)
    assert not re.search(r"docs/|make |crimson_metric\.py", readme), "what only a checkout has"


def test_without_crimson_core_the_error_names_the_one_command(tmp_path):
    # -S and an own path hide what is installed in editable mode; the packages themselves stay visible
    packages = os.pathsep.join(p for p in sys.path if p.endswith("site-packages"))
    code = f"import evaluate; evaluate.load({MODULE!r}, 'offline')"
    environment = _offline(tmp_path) | {"PYTHONPATH": packages}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert "pip install git+https://" in done.stderr
    assert "crimson_core" in done.stderr


def test_the_example_in_the_docstring_is_true(crimson):
    import doctest

    example = doctest.DocTestParser().get_doctest(crimson.inputs_description, {"evaluate": evaluate}, "doc", None, 0)
    for line in example.examples:
        line.source = line.source.replace('"crimson_metric.py"', repr(MODULE))
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


def _offline(tmp_path):
    return os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}


def test_what_was_added_lies_in_a_file_that_only_its_owner_can_read(tmp_path):
    metric = evaluate.load(MODULE, "offline", cache_dir=str(tmp_path))
    metric.add(prediction="Edema.", reference="Edema.")
    (file,) = tmp_path.rglob("*.arrow")
    assert file.stat().st_mode & 0o777 == 0o600
    assert metric.compute()["n_pairs"] == 1
