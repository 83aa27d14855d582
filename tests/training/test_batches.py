"""Data sets that are bought in batches."""

import json
from pathlib import Path

import pytest
from batch_server import BatchServer
from fault_server import completion

from crimson_core.errors import InputError
from crimson_core.judges.engines.batch import BatchesPending
from training.generate import generate
from training.records import Record
from training.settings import GenerateConfig

NO_FINDINGS = json.dumps(
    {
        **{"reference_findings": [], "predicted_findings": [], "matched_findings": []},
        "errors": {"false_findings": [], "missing_findings": [], "attribute_errors": []},
    }
)


def script(body):
    """Rewrites honestly, and calls all reports normal."""
    if body["model"] == "j":
        return {"body": completion(NO_FINDINGS).body}
    prompt = body["messages"][-1]["content"]
    report = json.loads(prompt[prompt.rindex('{"report"') :])["report"]
    return {"body": completion(json.dumps({"candidate": f"Chest radiograph. {report}", "changes": []})).body}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    folder = tmp_path / "reports"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.txt").write_text(
            f"There is a {number + 3} mm nodule in the right upper lobe.", encoding="utf-8"
        )
    return {
        "corpus": {"source": "folder", "path": str(folder), "shares": {"validation": 0, "test": 0}},
        "output": str(tmp_path / "out"),
        "candidates": {"train": 30},
        "prices": {"writer": {"input": 1e4, "output": 1e4}, "judge": {"input": 1e4, "output": 1e4}},
    }


def made(settings, server, **options):
    api = {"base_url": server.url, "max_retries": 0}
    config = settings | {"writer": {"spec": "openai:w", "options": api}, "judge": {"spec": "openai:j", "options": api}}
    monitor = {"yes": True, "batch": True, "every": 0.01} | options
    import training.generate as module

    module.nearest = lambda own, **_: [[(place + 1) % len(own)] for place in range(len(own))]
    generate(GenerateConfig.model_validate(config), **monitor)
    lines = Path(settings["output"], "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [Record.model_validate_json(line) for line in lines]


def test_all_is_bought_in_batches_at_half_the_price(settings, capsys):
    with BatchServer(script) as server:
        records = made(settings, server)
        assert {record.regime for record in records} == {0, 1, 2}  # the server makes no errors
        assert all(record.label_source.startswith("crimson|judge:openai") for record in records)
        # A round for the drafts, one for second attempts, one for the labels.
        assert len(server.batches) == 3
        asked = len(server.asked)
        assert f"${asked * 18 * 0.01 / 2:.2f} spent" in capsys.readouterr().out
        assert made(settings, server) == records and len(server.asked) == asked


def test_a_run_that_is_left_collects_and_ends_the_same(settings, tmp_path):
    with BatchServer(script) as server:
        whole = made(settings | {"output": str(tmp_path / "whole")}, server)
        asked = len(server.asked)
        left = 0
        while True:
            try:
                records = made(settings, server, wait=False)
                break
            except BatchesPending:
                left += 1
        assert left >= 3 and records == whole and len(server.asked) == 2 * asked


def test_batches_need_an_api(settings):
    config = settings | {"writer": {"spec": "rules"}, "judge": {"spec": "offline"}}
    with pytest.raises(InputError, match="--batch is for a writer or a judge of OpenAI or Azure"):
        generate(GenerateConfig.model_validate(config), batch=True)
