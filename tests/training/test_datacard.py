"""The data card: its figures, its plots, and a folder that `datasets` loads."""

import random
import tracemalloc

import pytest
import yaml
from datasets import load_dataset

from crimson_core.errors import CrimsonError
from crimson_core.protocol.pair import PatientContext
from training.corpus import Corpus, Study
from training.datacard import write_data_card
from training.records import REGIMES, Context, Included, Record
from training.writers import Change

LEVELS = ("urgent", "actionable_not_urgent", "not_actionable_not_urgent", "benign_expected")
CORPUS = Corpus(
    [
        Study("a", "Secret edema.", "train", None, PatientContext("65", None, "pain")),
        Study("b", "Nodule.", "train"),
        Study("c", "Clear.", "test", None, PatientContext(None, "F", None)),
        Study("d", "Rib.", "validation"),
    ],
    {"duplicate": 3, "blank report": 1},
    "invented 1.0",
)
CONFIG = {
    "writer": {"spec": "azure:gpt", "options": {"api_key": "sk-1", "azure_endpoint": "https://x", "max_tokens": 9}},
    "encoder": "/somewhere/on/a/disk/minilm",
    "seed": 42,
}


def finding(rng, name):
    return {"id": name, "finding": "nodule", "clinical_significance": rng.choice(LEVELS)}


def record(number, split="train", **settings):
    rng = random.Random(number)
    regime = rng.randrange(len(REGIMES))
    changes = []
    if regime >= 3:
        kind = ("false_finding", "attribute_error", "omission")[regime - 3]
        attribute = rng.choice(("location", "severity", "temporal")) if kind == "attribute_error" else None
        changes = [Change(kind=kind, attribute=attribute, before="a", after="b")]
    pairs = [{"ref_id": "R1", "pred_id": "P1"}]
    wrong = (
        [dict(pairs[0], severity="significant", error_types=["location"], explanation="left")] if regime == 4 else []
    )
    evaluation = {
        "reference_findings": [finding(rng, f"R{n}") for n in range(1, rng.randrange(2, 8))],
        "predicted_findings": [finding(rng, f"P{n}") | {"span": [0, 6]} for n in range(1, rng.randrange(2, 8))],
        "matched_findings": pairs,
        "errors": {"false_findings": ["P2"], "missing_findings": [], "attribute_errors": wrong},
    }
    fields = {
        "id": f"{split}-{number}",
        "split": split,
        "study": "a",
        "ground_truth": "Secret " * rng.randrange(1, 120),
        "candidate": "nodule " * rng.randrange(1, 100),
        "patient_context": Context(age="65" if number % 2 else None),
        "context_included": Included(age=True, sex=False, indication=number % 4 == 0),
        "regime": regime,
        "error_types": [change.kind for change in changes],
        "changes": changes,
        "raw_evaluation": evaluation,
        "crimson_score": rng.choice((1.0, 0.0, rng.uniform(-1, 1), rng.uniform(0, 1))),
        "label_source": "construction|writer:rules" if regime > 1 else "crimson|judge:offline|lexicon:1",
        "seed": 42,
    }
    return Record(**fields | settings)


def write(folder, records, **settings):
    for split in {record.split for record in records}:
        lines = (record.model_dump_json() + "\n" for record in records if record.split == split)
        (folder / f"{split}.jsonl").write_text("".join(lines))
    settings = {"config": CONFIG, "corpus": CORPUS, "failures": {"a | bar": 2}, "cost": 1.5} | settings
    write_data_card((record.model_dump() for record in records), folder, **settings)
    return (folder / "README.md").read_text()


def test_figures_plots_and_privacy(tmp_path):
    records = [record(n, split) for n, split in enumerate(["train"] * 100 + ["validation"] * 20 + ["test"] * 10)]
    card = write(tmp_path, records)
    assert "| records | 100 | 20 | 10 | 130 |" in card
    for number, name in enumerate(REGIMES):
        count = sum(r.regime == number for r in records)
        assert f"| {number} {name} |" in card
        assert f"| {count} |" in card
    assert "| age | 100.0% | 50.0% | 25.0% |" in card
    assert "| indication | 25.4% | 0.0% | 25.0% |" in card
    assert "| `crimson\\|judge:offline\\|lexicon:1` |" in card
    assert "| a \\| bar | 2 |" in card
    assert "duplicate 3, blank report 1" in card
    assert "1.50 US dollars" in card
    assert "For research only" in card
    assert "the changes that the writer meant to make" in card
    assert "Labels of the offline judge are made by rules" in card
    assert "Labels of a model judge" not in card
    for private in ("Secret", "sk-1", "https://x", "somewhere"):
        assert private not in card
    assert "encoder: minilm" in card
    assert "max_tokens: 9" in card
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert plots == {f"{n}.png" for n in ("regimes", "errors", "significance", "scores", "lengths", "findings")}
    assert all(f"(plots/{name})" in card for name in plots)


def test_forgeries_are_counted(tmp_path):
    records = [record(n, forgery=kind) for n, kind in enumerate([None, "order", "order", "answer", None])]
    card = write(tmp_path, records)
    assert "| order | 2 | 2 |" in card and "| claim | 0 | 0 |" in card and "| answer | 1 | 1 |" in card
    assert "win a judge over" not in write(tmp_path, records[:1])


def test_the_folder_loads_with_datasets(tmp_path):
    # The first records lack what later ones hold, and the test split holds no changes at all.
    plain = [record(n, "test") for n in range(60) if record(n).regime < 3]
    full = [record(n) for n in range(60)]
    records = sorted(full, key=lambda r: r.regime) + plain
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", records)
    (tmp_path / "data" / "failures.jsonl").write_text('{"id": "x", "failure": "why"}\n')
    loaded = load_dataset(str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "test"}
    assert loaded["train"].num_rows == 60
    assert loaded["train"].features == loaded["test"].features
    assert [Record(**row).id for row in loaded["test"]] == [r.id for r in plain]
    last = loaded["train"][-1]
    assert last["changes"] == [change.model_dump() for change in records[59].changes]
    assert last["raw_evaluation"]["predicted_findings"][0]["span"] == [0, 6]


def test_one_split_without_errors_or_failures(tmp_path):
    records = [r for r in map(record, range(30)) if r.regime < 2]
    card = write(tmp_path, records, failures={}, cost=0.0)
    assert list(yaml.safe_load(card.split("---")[1])["configs"][0]["data_files"]) == [
        {"split": "train", "path": "train.jsonl"}
    ]
    assert "Every record could be made." in card
    assert "plots/errors.png" not in card
    assert not (tmp_path / "plots" / "errors.png").exists()


def test_no_records_at_all(tmp_path):
    assert "0 pairs" in write(tmp_path, [])


def test_memory_is_flat(tmp_path):
    template = record(1).model_dump()
    records = (template | {"ground_truth": f"{n} " + "word " * 1000} for n in range(4_000))
    tracemalloc.start()
    write_data_card(records, tmp_path, config=CONFIG, corpus=CORPUS, failures={}, cost=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6  # the texts alone are 20 MB


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "plots").write_text("a file")
    with pytest.raises(CrimsonError, match="plots.* cannot be written"):
        write(tmp_path, [record(1)])
