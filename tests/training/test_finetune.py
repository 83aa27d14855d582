"""LoRA fine-tuning on tiny random models: loss on the answer, resumable, over processes, and the adapter is a judge."""

import itertools
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from models import byte_tokenizer
from safetensors.torch import load_file
from torch._inductor import config as inductor_config
from transformers import AutoModelForCausalLM

from crimson_core.errors import CrimsonError, InputError, JudgeError
from crimson_core.judges.engines.hf import hf_judge
from crimson_core.protocol.evaluation import parse_evaluation
from crimson_core.protocol.prompt import Prompt
from crimson_core.protocol.scoring import score_evaluation
from crimson_core.run.scorer import PairResult
from training import finetune as finetuning
from training.agreement import agreement
from training.encoding import IGNORED, Examples, RecordEncoder, answer_loss, collate, encode
from training.estimate import Estimate, check_fits
from training.finetune import finetune, last_checkpoint
from training.journal import locked
from training.records import Context, Included, Record, answer_of
from training.settings import FinetuneConfig
from training.trainer import LengthGroups, MetricsLog, read_metrics
from training.vocabulary import SampledHead
from training.writers import ERROR_KINDS, Task
from training.writers.rules import RuleWriter

REPORTS = [
    f"Small {side} effusion. Mild cardiomegaly." if n else f"Acute {side} rib fracture. Mild edema."
    for side in ("left", "right")
    for n in range(2)
]


def record(n: int, report: str, split="train") -> Record:
    kinds = ((), *((kind,) for kind in ERROR_KINDS))[n % 4]
    ((_, draft),) = RuleWriter().write([Task(report, kinds, str(n))])
    evaluation = draft.evaluation.model_dump()
    return Record(
        id=f"{split}-{n}",
        split=split,
        study=f"s{n}",
        ground_truth=report,
        candidate=draft.candidate,
        patient_context=Context(age="65"),
        context_included=Included(age=True, sex=False, indication=True),
        regime=2 + n % 4,
        error_types=list(kinds),
        changes=list(draft.changes),
        raw_evaluation=evaluation,
        crimson_score=score_evaluation(evaluation)["crimson_score"],
        label_source="construction|writer:rules",
        writer="writer:rules",
        seed=1,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 12), ("validation", 4)):
        records = [record(n, REPORTS[n % len(REPORTS)], split) for n in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(r.model_dump_json() + "\n" for r in records), encoding="utf-8")
    return folder


@pytest.fixture
def settings(tiny_folder, data, tmp_path):
    return {
        "base": str(tiny_folder),
        "data": str(data),
        "output": str(tmp_path / "run"),
        "prompt": {"style": "compact"},
        "max_steps": 6,
        "batch_size": 2,
        "accumulation": 2,
        "learning_rate": 1e-2,
        "dtype": "float32",
        "gradient_checkpointing": False,
        "log_steps": 1,
        "evaluation": {"steps": 3, "generate": 0},
        "lora": {"dropout": 0.1},
    }


def train(settings):
    finetune(FinetuneConfig.model_validate(settings))
    return Path(settings["output"]) / "adapter"


@pytest.fixture(scope="module")
def encoder():
    return RecordEncoder(byte_tokenizer(), "bytes", Prompt("compact"))


# What is learnt


def test_the_prompt_is_the_judges_and_the_answer_ends(encoder, tiny_folder):
    judge = hf_judge(str(tiny_folder), dtype="float32", constrained=False)
    one = record(3, REPORTS[0])
    prompt, answer, errors = encoder.encode(one)
    assert prompt == judge.engine.codec.encode(judge.prompt.messages(one.pair))
    tokenizer = byte_tokenizer()
    assert answer[-1] == encoder.end == tokenizer.convert_tokens_to_ids("<|im_end|>")
    evaluation, repairs = parse_evaluation(tokenizer.decode(answer[:-1]))
    assert not repairs
    assert answer_of(evaluation.model_dump()) == answer_of(one.raw_evaluation)
    assert tokenizer.decode(answer[-errors:-1]).startswith(',"matched_findings":[')


def test_answers_as_the_reference_implementation_writes_them():
    label = {
        "errors": {"missing_findings": ["R1"], "false_findings": [], "attribute_errors": []},
        "reference_findings": [
            {"finding": "Œdema,\n mild", "id": "R1", "clinical_significance": "urgent", "span": [0, 5]}
        ],
        "matched_findings": [],
        "predicted_findings": [],
        "unrecognised": [],
    }
    theirs = json.loads(json.dumps(label))
    del theirs["unrecognised"], theirs["reference_findings"][0]["span"]
    assert answer_of(label, "reference") == json.dumps(theirs)
    assert answer_of(label) == json.dumps(
        {
            "reference_findings": [{"id": "R1", "finding": "Œdema, mild", "clinical_significance": "urgent"}],
            **{"predicted_findings": [], "matched_findings": []},
            "errors": {"false_findings": [], "missing_findings": ["R1"], "attribute_errors": []},
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )
    one = record(3, REPORTS[0])
    encoder = RecordEncoder(byte_tokenizer(), "bytes", Prompt("compact"), "reference")
    _, answer, errors = encoder.encode(one)
    assert byte_tokenizer().decode(answer[:-1]) == answer_of(one.raw_evaluation, "reference")
    assert byte_tokenizer().decode(answer[-errors:-1]).startswith(', "matched_findings": [')


def test_a_control_token_in_a_finding_is_text(encoder):
    one = record(2, REPORTS[0])
    label = json.loads(json.dumps(one.raw_evaluation).replace("rib fracture", "rib fracture<|im_end|>"))
    _, answer, _ = encoder.encode(one.model_copy(update={"raw_evaluation": label}))
    assert answer.count(encoder.end) == 1 and "<|im_end|>" in byte_tokenizer().decode(answer[:-1])


def test_batches_end_with_their_answers(encoder):
    examples = encode([record(n, REPORTS[n]) for n in range(4)], encoder, 4048)
    batch = collate([examples[n] for n in range(4)], pad=258)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    for row in range(4):
        prompt, answer, _ = encoder.encode(record(row, REPORTS[row]))
        counted = batch["labels"][row] != IGNORED
        assert batch["labels"][row][counted].tolist() == answer
        assert batch["input_ids"][row][batch["attention_mask"][row] == 1].tolist() == prompt + answer
        assert batch["position_ids"][row][-1] == len(prompt) + len(answer) - 1
    assert batch["logits_to_keep"] == max(examples[n]["answer_tokens"] for n in range(4)) + 1


def test_the_loss_is_that_of_transformers_on_the_answers(encoder, tiny_folder):
    examples = encode([record(n, REPORTS[n]) for n in range(3)], encoder, 4048)
    batch = collate([examples[n] for n in range(3)], pad=258)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder).eval()
    labels, _ = batch.pop("labels"), batch.pop("weights")
    with torch.no_grad():
        ours = answer_loss(model(**batch), labels)
        batch.pop("logits_to_keep")
        theirs = model(**batch, labels=labels).loss
        one_by_one = []
        for n in range(3):
            single = collate([examples[n]], pad=258)
            own, _ = single.pop("labels"), single.pop("weights")
            one_by_one.append((answer_loss(model(**single), own, 1), (own != IGNORED).sum()))
    assert torch.isclose(ours, theirs, rtol=1e-5)
    assert torch.isclose(ours, sum(loss for loss, _ in one_by_one) / sum(n for _, n in one_by_one), rtol=1e-5)


def test_matches_and_errors_can_weigh_more_than_findings(encoder, tiny_folder):
    records = [record(n, REPORTS[n]) for n in range(3)]
    model = AutoModelForCausalLM.from_pretrained(tiny_folder).eval()

    examples = encode(records, encoder, 4048)
    batch = collate([examples[n] for n in range(3)], pad=258, errors_weight=5.0)
    labels, weights = batch.pop("labels"), batch.pop("weights")

    def loss(labels, weights=None):
        with torch.no_grad():
            return answer_loss(model(**batch), labels, weights=weights)

    assert [int(row.sum()) for row in weights == 5.0] == [encoder.encode(one)[2] for one in records]
    assert set(weights.unique().tolist()) == {1.0, 5.0}
    assert torch.isclose(loss(labels, torch.ones_like(weights)), loss(labels))
    errors = labels.where(weights == 5.0, IGNORED)  # the others count in no loss
    share = (errors != IGNORED).sum() / (labels != IGNORED).sum()
    assert torch.isclose(loss(labels, weights), loss(labels) + 4 * share * loss(errors), rtol=1e-5)


def test_encoded_records_are_kept_in_a_file(encoder, tmp_path):
    records = [record(n, REPORTS[n % 4]) for n in range(8)]
    longest = max(len(p) + len(a) for p, a, _ in map(encoder.encode, records))
    made = encode(records, encoder, longest - 1)
    made.save(tmp_path / "x.safetensors")
    again = Examples.load(tmp_path / "x.safetensors")
    assert [again[n] for n in range(len(again))] == [made[n] for n in range(len(made))]
    for name in ("places", "left_out", "longest_answer", "regimes", "sources", "words", "lengths"):
        assert getattr(again, name) == getattr(made, name)
    assert again.left_out == 8 - len(again) > 0 and sum(again.regimes.values()) == len(again)
    assert again.sources == {"construction|writer:rules": len(again)}
    answers = [again[n]["answer_tokens"] for n in range(len(again))]
    assert again.longest_answer == max(answers) and again.answer_tokens == sum(answers)
    assert again.words == {token for n in range(len(again)) for token in again[n]["input_ids"]}


def test_a_sampled_output_layer_stands_for_the_whole_one():
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 1000, bias=False)
    hidden, labels = torch.randn(1, 50, 8), torch.randint(20, (1, 50))
    nothing = torch.zeros(1, 1, 8)  # the last column predicts no token
    hidden, labels = torch.cat([hidden, nothing], 1), torch.nn.functional.pad(labels, (1, 0))

    def loss(layer, places):
        return answer_loss(SimpleNamespace(logits=layer(hidden)), labels, places=places)

    whole = loss(head, None)
    everything = SampledHead(head, range(20), 980, seed=1).train()
    assert torch.isclose(loss(everything, everything.places), whole, rtol=1e-5)
    sampled = [SampledHead(head, range(20), 200, seed=n).train() for n in range(8)]
    estimates = torch.stack([loss(layer, layer.places) for layer in sampled])
    assert sampled[0](hidden).shape[-1] == 220
    assert torch.isclose(estimates.mean(), whole, rtol=0.01) and estimates.std() < 0.05
    alone = SampledHead(head, range(20), 0, seed=1).train()
    assert loss(alone, alone.places) < 0.7 * whole  # without the sample the other words would cost nothing
    assert torch.equal(alone.eval()(hidden), head(hidden))
    assert torch.isclose(loss(alone, alone.places), whole)


def test_long_records_are_left_out_whole_and_counted(encoder):
    records = [record(n, REPORTS[n % 4]) for n in range(8)]
    lengths = sorted(len(p) + len(a) for p, a, _ in map(encoder.encode, records))
    examples = encode(records, encoder, lengths[4])
    assert len(examples) >= 5 and examples.left_out == 8 - len(examples) > 0
    assert all(length <= lengths[4] for length in examples.lengths)
    assert examples.lengths == [len(examples[n]["input_ids"]) for n in range(len(examples))]


def test_steps_of_like_length_come_in_no_order_of_length():
    lengths = torch.randint(100, 500, (803,), generator=torch.Generator().manual_seed(1)).tolist()
    groups = LengthGroups(lengths, step=4, seed=7)
    order = list(groups)
    assert sorted(order) == list(range(803)) and len(groups) == 803
    steps = [[lengths[n] for n in order[at : at + 4]] for at in range(0, 800, 4)]
    # Four of 400 drawn at random lie some 240 tokens apart; two steps in a row, some 130.
    assert statistics.mean(max(step) - min(step) for step in steps) < 30
    means = [statistics.mean(step) for step in steps]
    assert statistics.mean(abs(a - b) for a, b in pairwise(means)) > 100
    assert list(groups) == order
    groups.set_epoch(1)
    assert list(groups) != order


# Runs


def test_a_run_learns_and_its_adapter_is_a_judge(settings, tiny_folder, data, capsys):
    settings["max_steps"], settings["evaluation"] = 30, {"steps": 15, "generate": 3}
    adapter = train(settings)
    assert "effective batch 4 = 2 per device x 2 accumulated x 1 process" in capsys.readouterr().out
    logged = read_metrics(Path(settings["output"]) / "metrics.jsonl")
    losses = [m["loss"] for m in logged if "loss" in m]
    assert losses[-1] < 0.7 * losses[0]
    held_out = [m for m in logged if "eval_parsed" in m]
    assert [m["step"] for m in held_out] == [15, 30] and all(0 <= m["eval_parsed"] <= 1 for m in held_out)

    assert {path.name for path in adapter.iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "crimson_prompt.json",
        "generation_config.json",
        "training_run.json",
        "README.md",
    }
    assert all(w.dtype == torch.bfloat16 for w in load_file(adapter / "adapter_model.safetensors").values())
    run = json.loads((adapter / "training_run.json").read_text())
    assert run["steps"] == 30 and run["best_step"] in (15, 30) and len(run["evaluation"]) == 2
    assert run["data"]["records"] == {"train": 12, "validation": 4} and sum(run["data"]["regimes"].values()) == 12
    judge = hf_judge(str(adapter), dtype="float32", max_new_tokens=8)
    assert judge.prompt == Prompt("compact", guidelines=False)
    pair = Record.model_validate_json((data / "train.jsonl").read_text().splitlines()[0]).pair
    assert [index for index, _ in judge.judge([pair])] == [0]


def broken_at(steps, monkeypatch):
    """Let the loss of the first batch of some steps be no number."""
    loss, calls = finetuning.answer_loss, itertools.count()

    def broken(outputs, labels, num_items_in_batch=None, weights=None, **options):
        found = loss(outputs, labels, num_items_in_batch, weights, **options)
        return found * torch.nan if weights is not None and next(calls) in {2 * step - 2 for step in steps} else found

    monkeypatch.setattr(finetuning, "answer_loss", broken)


def test_a_step_without_a_finite_gradient_is_skipped_and_counted(settings, monkeypatch):
    broken_at([2, 5], monkeypatch)
    adapter = train(settings)
    assert all(w.isfinite().all() for w in load_file(adapter / "adapter_model.safetensors").values())
    logged = [m for m in read_metrics(Path(settings["output"]) / "metrics.jsonl") if "loss" in m]
    assert [m.get("skipped_steps", 0) for m in logged] == [0, 1, 1, 1, 2, 2]
    assert [math.isnan(m["grad_norm"]) for m in logged] == [False, True, False, False, True, False]


def test_a_run_whose_gradients_stay_infinite_stops(settings, monkeypatch):
    settings |= {"max_steps": 30, "log_steps": 5}
    broken_at(range(4, 31), monkeypatch)
    with pytest.raises(CrimsonError, match=r"10 steps in a row, up to step 13, .* learning_rate"):
        train(settings)
    newest = sorted((Path(settings["output"]) / "checkpoints").glob("*/adapter_model.safetensors"))[-1]
    assert all(w.isfinite().all() for w in load_file(newest).values())


def test_a_run_with_a_sampled_output_layer(settings):
    settings |= {"max_steps": 30, "output_sample": 20, "evaluation": {"steps": 15, "generate": 0}}
    adapter = train(settings)
    logged = read_metrics(Path(settings["output"]) / "metrics.jsonl")
    losses = [m["loss"] for m in logged if "loss" in m]
    held_out = [m["eval_loss"] for m in logged if "eval_loss" in m]  # over all words
    assert losses[-1] < 0.7 * losses[0] and held_out[-1] < 0.7 * losses[0]
    assert all("lora_" in key for key in load_file(adapter / "adapter_model.safetensors"))
    hf_judge(str(adapter), dtype="float32", max_new_tokens=8)


def test_a_run_in_which_errors_weigh_more(settings, tmp_path):
    settings |= {"lora": {"dropout": 0}, "max_steps": 1, "evaluation": {"steps": 1, "generate": 0}}
    plain, weighed = {}, {}
    for logged, more in ((plain, {}), (weighed, {"errors_weight": 5, "output": str(tmp_path / "weighed")})):
        adapter = train(settings | more)
        for metrics in read_metrics(adapter.parent / "metrics.jsonl"):
            logged |= metrics
        assert f"| errors weight | {5 if more else 1} |" in (adapter / "README.md").read_text()
    assert 2 * plain["loss"] < weighed["loss"] < 5 * plain["loss"]
    # The first step of a warm-up learns nothing, and a held-out loss weighs all alike.
    assert weighed["eval_loss"] == pytest.approx(plain["eval_loss"])


@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="there is no C++ compiler")
def test_compiled_layers_learn_the_same(settings, tmp_path):
    settings |= {"lora": {"dropout": 0}, "max_steps": 3, "learning_rate": 1e-3}
    settings["evaluation"] = {"steps": 3, "generate": 2}
    logged = {}
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for compiled in (False, True):
        assert not torch._dynamo.utils.counters["stats"]["unique_graphs"]
        output = tmp_path / f"compiled-{compiled}"
        train(settings | {"compile": compiled, "output": str(output)})
        logged[compiled] = read_metrics(output / "metrics.jsonl")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for key in ("loss", "eval_loss", "eval_parsed"):
        plain, compiled = ([m[key] for m in logged[c] if key in m] for c in (False, True))
        assert plain and compiled == pytest.approx(plain, rel=1e-4)


def test_the_best_checkpoint_is_kept(settings):
    settings |= {"max_steps": 9, "learning_rate": 3.0, "schedule": "constant_with_warmup"}  # so that it gets worse
    train(settings)
    logged = read_metrics(Path(settings["output"]) / "metrics.jsonl")
    losses = {m["step"]: m["eval_loss"] for m in logged if "eval_loss" in m and not math.isnan(m["eval_loss"])}
    run = json.loads((Path(settings["output"]) / "adapter" / "training_run.json").read_text())
    assert run["best_step"] == min(losses, key=losses.get)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_run_that_was_killed_ends_like_one_that_was_not(grouped, settings, tmp_path, monkeypatch):
    settings["group_by_length"] = grouped
    whole = load_file(train(settings) / "adapter_model.safetensors")
    settings["output"] = str(tmp_path / "killed")

    def die(self, args, state, control, **_):
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MetricsLog, "on_step_end", die, raising=False)
        with pytest.raises(KeyboardInterrupt):
            train(settings)
    assert not (Path(settings["output"]) / "adapter").exists()
    torn = Path(settings["output"]) / "checkpoints" / "checkpoint-5"  # as a kill while it is written leaves it
    torn.mkdir()
    (torn / "adapter_model.safetensors").write_bytes(b"torn")
    assert last_checkpoint(torn.parent).name == "checkpoint-3"
    resumed = load_file(train(settings) / "adapter_model.safetensors")
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole)
    steps = [m["step"] for m in read_metrics(Path(settings["output"]) / "metrics.jsonl") if "loss" in m]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_an_adapter_is_trained_further(settings, tmp_path, tiny_folder):
    first = read_metrics(train(settings).parent / "metrics.jsonl")
    more = settings | {"adapter": str(tmp_path / "run" / "adapter"), "output": str(tmp_path / "more"), "max_steps": 1}
    adapter = train(more | {"evaluation": {"steps": 1, "generate": 0}})
    assert read_metrics(adapter.parent / "metrics.jsonl")[0]["loss"] < first[0]["loss"]
    (earlier,) = json.loads((adapter / "training_run.json").read_text())["earlier"]
    assert earlier["steps"] == 6 and earlier["records_seen"] == 24 and earlier["learning_rate"] == 1e-2
    assert "Before that: 6 steps on 24 records" in (adapter / "README.md").read_text()
    with pytest.raises(InputError, match="is a whole model and no adapter"):
        train(more | {"adapter": str(tiny_folder), "output": str(tmp_path / "none")})


def test_two_processes_share_the_work(settings, tmp_path):
    settings |= {"accumulation": 1, "evaluation": {"steps": 6, "generate": 3}}
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    # What `accelerate launch` calls for several GPUs; for several processes on a CPU it wants MPI.
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run(
        [*command, "-m", "training.finetune", str(config)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("effective batch 4 = 2 per device x 1 accumulated x 2 processes") == 1
    run = json.loads((Path(settings["output"]) / "adapter" / "training_run.json").read_text())
    assert run["processes"] == 2 and run["steps"] == 6 and run["evaluation"][0]["pairs"] == 3


def test_the_reference_prompt_and_bfloat16(settings):
    settings |= {"prompt": {"style": "reference", "system": False}, "max_steps": 1, "max_length": 100_000}
    settings |= {"dtype": "bfloat16", "gradient_checkpointing": True, "batch_size": 1, "accumulation": 1}
    settings["evaluation"] = {"steps": 1, "generate": 0, "records": 1}
    adapter = train(settings)
    assert hf_judge(str(adapter), constrained=False).prompt == Prompt("reference", guidelines=False, system=False)


def test_a_dry_run_tells_what_a_run_takes_and_stops(settings, capsys):
    finetune(FinetuneConfig.model_validate(settings), dry_run=True)
    said = capsys.readouterr().out
    assert re.search(
        r"24 records in 6 steps, 0\.0 million tokens, at most some 0\.\d GiB on each device, some 1 minutes", said
    )
    assert not (Path(settings["output"]) / "checkpoints").exists()
    encoded = next(Path(settings["output"]).glob("train-*.safetensors"))
    written = encoded.stat().st_mtime_ns
    train(settings)
    assert encoded.stat().st_mtime_ns == written  # encoded once


@pytest.mark.parametrize(
    "change, told",
    [
        ({"effective_batch": 8, "accumulation": None}, "effective batch 8 = 2 per device x 4 accumulated x 1 process"),
        ({"effective_batch": 4}, "effective batch 4 = 2 per device x 2 accumulated x 1 process"),
        ({"accumulation": None}, "effective batch 2 = 2 per device x 1 accumulated x 1 process"),
    ],
)
def test_the_effective_batch(settings, change, told, capsys):
    finetune(FinetuneConfig.model_validate(settings | change), dry_run=True)
    assert told in capsys.readouterr().out


# What is wrong


@pytest.mark.parametrize(
    "change, words",
    [
        ({"effective_batch": 8}, r"effective_batch is 8, which batch_size 2 x 1 process x accumulation 2 cannot make"),
        ({"effective_batch": 5, "accumulation": None}, r"effective_batch is 5, which batch_size 2 x 1 process cannot"),
        ({"effective_batch": 1, "accumulation": None}, r"effective_batch is 1,"),
    ],
)
def test_another_effective_batch_is_refused(settings, change, words):
    with pytest.raises(InputError, match=words):
        train(settings | change)


def test_a_folder_in_which_a_worker_lives_on_is_refused(settings):
    with locked(Path(settings["output"]), "lock-0"), pytest.raises(InputError, match="Another run works in"):
        train(settings)
    train(settings)


def test_what_a_device_cannot_hold_is_refused(settings, monkeypatch):
    config = FinetuneConfig.model_validate(settings)
    found = Estimate(1, 1, 1, memory=90 * 2**30, seconds=1.0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    with pytest.raises(
        InputError, match=r"needs some 90.0 GiB on each device, and H100 has 80.0.*batch_size \(2 now\)"
    ):
        check_fits(found, config, torch.device("cuda"))
    check_fits(replace(found, memory=2**30), config, torch.device("cuda"))


def test_what_is_wrong_is_one_message(settings, data, tmp_path):
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "train.jsonl").write_text('{"id": 1}\n')
    for change, words in (
        ({"data": str(tmp_path / "empty")}, "train.jsonl cannot be read.*training.generate"),
        ({"data": str(broken)}, "train.jsonl line 1 is no training record"),
        ({"max_length": 20}, "No record of train has at most 20 tokens"),
    ):
        with pytest.raises(InputError, match=words):
            train(settings | change | {"output": str(tmp_path / words[:5])})
    with pytest.raises(JudgeError, match="no folder"):
        train(settings | {"base": "./nowhere", "output": str(tmp_path / "o")})


def test_layers_are_not_compiled_without_a_compiler(settings):
    # monkeypatch would leave the setting deleted, since torch makes it anew at each look.
    without_one = inductor_config.patch({"cpp.cxx": ("no-such-compiler",)})
    with without_one, pytest.raises(InputError, match="compile needs a C\\+\\+ compiler"):
        train(settings | {"compile": True})
    train(settings | {"compile": False})  # as the message says, into the same folder


def test_a_run_is_not_continued_with_other_settings(settings):
    train(settings | {"max_steps": 1, "evaluation": {"steps": 1, "generate": 0}})
    with pytest.raises(InputError, match="begun with another max_steps"):
        train(settings)


# Agreement


def test_agreement_counts_errors_about_the_same_findings():
    truth = [record(n, REPORTS[n % 4]) for n in range(8)]

    def result(n, evaluation):
        return PairResult(n, evaluation=evaluation, failure=None if evaluation else "no")

    same = agreement(truth, [result(n, r.raw_evaluation) for n, r in enumerate(truth)])
    assert same["parsed"] == same["score_tau"] == same["false_f1"] == same["missing_f1"] == same["attribute_f1"] == 1.0
    assert same["score_mae"] == 0.0
    perfect = record(0, REPORTS[0]).raw_evaluation
    blind = agreement(truth, [result(n, perfect) for n in range(8)])
    assert blind["false_f1"] == blind["missing_f1"] == blind["attribute_f1"] == 0.0
    half = agreement(truth, [result(n, r.raw_evaluation if n % 2 else None) for n, r in enumerate(truth)])
    assert half["parsed"] == 0.5 and half["false_f1"] == 1.0
    nothing = agreement(truth, [result(n, None) for n in range(8)])
    assert nothing["parsed"] == 0.0 and math.isnan(nothing["score_mae"]) and math.isnan(nothing["false_f1"])


def test_an_error_on_another_finding_or_of_another_type_does_not_agree():
    def evaluation(false, kind, ref="left effusion"):
        return {
            "reference_findings": [{"id": "R1", "finding": ref, "clinical_significance": "urgent"}],
            "predicted_findings": [
                {"id": "P1", "finding": "right effusion", "clinical_significance": "urgent"},
                {"id": "P2", "finding": false, "clinical_significance": "urgent"},
            ],
            "matched_findings": [{"ref_id": "R1", "pred_id": "P1"}],
            "errors": {
                "false_findings": ["P2"],
                "missing_findings": [],
                "attribute_errors": [
                    {
                        "ref_id": "R1",
                        "pred_id": "P1",
                        "severity": "significant",
                        "error_types": [kind],
                        "explanation": "",
                    }
                ],
            },
        }

    truth = record(0, REPORTS[0]).model_copy(update={"raw_evaluation": evaluation("small nodule", "location")})

    def figures(*args):
        return agreement([truth], [PairResult(0, evaluation=evaluation(*args))])

    assert figures("Small nodules", "location")["false_f1"] == 1.0
    assert figures("fracture of a rib", "location")["false_f1"] == 0.0
    assert figures("small nodule", "severity")["attribute_f1"] == 0.0
    assert figures("small nodule", "location", "rib fracture")["attribute_f1"] == 0.0
