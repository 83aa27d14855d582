"""The shipped training configs, as they are, on tiny random models: trained, evaluated, killed, resumed, merged, judged with."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path

import CRIMSON
import psutil
import pytest
import torch
import yaml
from models import CHATML_TEMPLATE, save_tiny_multimodal
from transformers import AutoModelForImageTextToText, Gemma3TextConfig

from benchmarks.gpu.common import PUBLISHED
from benchmarks.gpu.train import (
    finish,
    flops_of_step,
    lean_to_ends,
    made_up_records,
    start,
    step_seconds,
    train,
    write_records,
)
from crimson_core.errors import CrimsonError, InputError, JudgeError
from crimson_core.judges.engines.hf import hf_judge
from crimson_core.protocol.prompt import Prompt
from training.config import load_config
from training.encoding import RecordEncoder
from training.estimate import accumulation
from training.finetune import finetune, last_checkpoint
from training.merge import merge
from training.records import answer_of
from training.settings import FinetuneConfig
from training.trainer import JudgeTrainer, read_metrics, was_evaluated

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path for path in (ROOT / "training" / "configs").glob("*.yaml") if "base" in yaml.safe_load(path.read_text())
)
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
PROMPTS = (Prompt("reference", guidelines=False), Prompt("compact"))


def word_tokenizer():
    """Words of made-up records and prompts as tokens, so that these are as long as for a real tokenizer."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    records = list(islice(made_up_records("train", seed=500), 50))
    texts = [message["content"] for one in records for prompt in PROMPTS for message in prompt.messages(one.pair)]
    texts += [answer_of(one.raw_evaluation) for one in records]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=letters, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in ("<|im_start|>", "<|im_end|>", "<pad>")])
    backend.add_tokens([AddedToken(name, normalized=False, special=False) for name in ("<think>", "</think>")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<pad>")
    tokenizer.chat_template = CHATML_TEMPLATE
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny random multimodal Gemma 3 whose outputs end."""
    folder = save_tiny_multimodal(tmp_path_factory.mktemp("multimodal") / "model")
    tokenizer = word_tokenizer()
    model = AutoModelForImageTextToText.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer) + 7)
    lean_to_ends(model, tokenizer, by=3.0)
    ends = tokenizer.eos_token_id
    model.config.text_config.eos_token_id, model.config.text_config.pad_token_id = ends, tokenizer.pad_token_id
    model.generation_config.update(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Records that are short enough for every config."""
    folder, encoder = tmp_path_factory.mktemp("data"), RecordEncoder(word_tokenizer(), "words", PROMPTS[1])

    def short(split, seed):
        for one in made_up_records(split, seed):
            prompt, answer, _ = encoder.encode(one)
            if len(prompt) + len(answer) <= 500:
                yield one

    write_records(folder, list(islice(short("train", 1), 24)), list(islice(short("validation", 2), 4)))
    return folder


def changes(base, data, output, steps=4):
    """All that a test may change of a shipped config."""
    return [f"base={base}", f"data={data}", f"output={output}", f"max_steps={steps}", f"evaluation.steps={steps // 2}"]


def test_every_shipped_config_is_here():
    assert [path.name for path in CONFIGS] == ["gemma3-270m.yaml", "medgemma-4b.yaml"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_goes_all_the_way(path, base, data, tmp_path):
    output = tmp_path / "run"
    overrides = changes(base, data, output)
    config = load_config(path, FinetuneConfig, overrides)
    if config.compile and not COMPILER:
        pytest.skip("there is no C++ compiler")

    command = [sys.executable, "-m", "training.finetune", str(path), *(f"--set={change}" for change in overrides)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not last_checkpoint(output / "checkpoints"):
            time.sleep(0.01)
        process.kill()
        assert last_checkpoint(output / "checkpoints"), process.stderr.read()[-2000:]
    assert not (output / "adapter").exists()

    finetune(config)
    logged = read_metrics(output / "metrics.jsonl")
    assert [m["step"] for m in logged if "eval_loss" in m] == [2, 4]
    assert all(math.isfinite(m["eval_loss"]) for m in logged if "eval_loss" in m)
    generated = [m for m in logged if "eval_parsed" in m]
    assert [m["step"] for m in generated] == ([2, 4] if config.evaluation.generate else [])
    assert all(m["eval_parsed"] == 1.0 for m in generated)
    told = json.loads((output / "adapter" / "training_run.json").read_text(encoding="utf-8"))
    assert told["steps"] == 4 and told["best_step"] in (2, 4) and told["data"]["left_out"] == 0

    merge(output / "adapter", tmp_path / "merged", base=base)  # one config names another place of its base
    judge = hf_judge(str(tmp_path / "merged"))
    assert judge.prompt == Prompt(**config.prompt.model_dump())
    pairs = [one.pair for one in islice(made_up_records("test", seed=3), 3)]
    judged = dict(judge.judge(pairs))
    assert sorted(judged) == [0, 1, 2] and all(judgement.evaluation for judgement in judged.values())
    if config.prompt.style == "reference":
        is_scored_by_the_reference_implementation(tmp_path / "merged", config)


def is_scored_by_the_reference_implementation(merged, config):
    """It loads the merged model, asks what the model was trained on, and reads the answer that the model has learnt."""
    scorer = CRIMSON.CRIMSONScore(model_name=str(merged), device="cpu")
    encoder = RecordEncoder(scorer.pipe.tokenizer, "merged", Prompt(**config.prompt.model_dump()), config.answers)
    (one,) = islice((r for r in made_up_records("test", seed=4) if -1 < r.crimson_score < 1), 1)
    prompt, answer, _ = encoder.encode(one)
    asked = []

    def generate(input_ids, *, generation_config, **_):  # in the place of a model that has learnt something
        asked.append((input_ids[0].tolist(), generation_config))
        return torch.cat([input_ids, torch.tensor([answer])], 1)

    scorer.pipe.model.generate = generate
    context = one.pair.context and one.pair.context.as_dict()
    result = scorer.evaluate(one.ground_truth, one.candidate, patient_context=context, include_guidelines=False)
    ((ids, told),) = asked
    assert ids == prompt and told.max_new_tokens >= 1024 and encoder.end in told.eos_token_id
    assert result["crimson_score"] == one.crimson_score
    assert result["raw_evaluation"] == json.loads(answer_of(one.raw_evaluation))


def test_workers_that_outlive_their_launcher_keep_the_folder(base, data, tmp_path):
    output = tmp_path / "run"
    overrides = [
        *changes(base, data, output, steps=10_000),
        "evaluation.steps=2",
        "evaluation.records=1",
        "log_steps=1",
    ]
    overrides += ["prompt.style=compact", "evaluation.generate=0", "batch_size=1", "effective_batch=2", "dtype=float32"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    command += ["-m", "training.finetune", str(ROOT / "training" / "configs" / "medgemma-4b.yaml")]
    command += [f"--set={change}" for change in overrides]

    def steps():
        return max((logged["step"] for logged in read_metrics(output / "metrics.jsonl")), default=0)

    def started(log):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with log.open("w") as file:
            return psutil.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)

    def wait_for(what, process, log):
        end = time.monotonic() + 300
        while not what():
            assert process.is_running() and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end, (
                log.read_text()
            )
            time.sleep(0.05)

    known, logs = [], [tmp_path / f"{name}.txt" for name in ("first", "second", "third")]
    try:
        first = started(logs[0])
        wait_for(lambda: steps() >= 3, first, logs[0])
        workers = first.children(recursive=True)
        known += workers
        first.kill()
        first.wait()
        before = steps()
        wait_for(lambda: steps() > before, workers[0], logs[0])  # they work on

        second = started(logs[1])
        known.append(second)
        assert second.wait() != 0
        said = logs[1].read_text(encoding="utf-8")
        assert "Another run works in" in said and any(f"(process {worker.pid})" in said for worker in workers)
        assert all(worker.is_running() for worker in workers)
        assert [m["step"] for m in read_metrics(output / "metrics.jsonl") if "loss" in m][:4] == [1, 2, 3, 4]

        for worker in workers:
            worker.kill()
        psutil.wait_procs(workers)
        last = last_checkpoint(output / "checkpoints")
        third = started(logs[2])
        wait_for(lambda: f"Going on from {last.name}" in logs[2].read_text(encoding="utf-8"), third, logs[2])
        known += [third, *third.children(recursive=True)]
    finally:
        for process in known:
            with suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.mark.parametrize("processes, accumulated", [(8, 1), (4, 2), (1, 8)])
def test_the_published_batch_on_as_many_devices(processes, accumulated):
    config = load_config(ROOT / "training" / "configs" / "medgemma-4b.yaml", FinetuneConfig, [])
    assert config.effective_batch == 32 and accumulation(config, processes) == accumulated
    with pytest.raises(InputError, match="effective_batch is 32"):
        accumulation(config, 3)
    if processes > 1:
        launch = yaml.safe_load((ROOT / "training" / "configs" / f"accelerate-{processes}.yaml").read_text())
        assert launch["num_processes"] == processes and launch["distributed_type"] == "MULTI_GPU"


def test_an_evaluation_that_fails_costs_no_step(base, data, tmp_path, monkeypatch):
    """The checkpoint is there before; a resumed run evaluates it first, and ends as if nothing had happened."""
    config = ROOT / "training" / "configs" / "medgemma-4b.yaml"

    def run(name, steps=4):
        settings = [*changes(base, data, tmp_path / name, steps), "prompt.style=compact", "log_steps=1"]
        finetune(load_config(config, FinetuneConfig, settings))
        return read_metrics(tmp_path / name / "metrics.jsonl")

    whole = run("whole")
    agreement, failed = JudgeTrainer._agreement, []

    def fail_once(trainer):
        if trainer.state.global_step not in failed:
            failed.append(trainer.state.global_step)
            raise JudgeError("no")
        return agreement(trainer)

    monkeypatch.setattr(JudgeTrainer, "_agreement", fail_once)
    for step in (2, 4):
        with pytest.raises(JudgeError):
            run("failed")
        last = last_checkpoint(tmp_path / "failed" / "checkpoints")
        assert last.name == f"checkpoint-{step}" and not was_evaluated(last)
    resumed = run("failed")
    assert failed == [2, 4] and was_evaluated(last)

    def figures(metrics):
        return [(m["step"], key, m[key]) for m in metrics for key in ("loss", "eval_loss", "eval_parsed") if key in m]

    assert figures(resumed) == figures(whole)
    told = [json.loads((tmp_path / name / "adapter" / "training_run.json").read_text()) for name in ("whole", "failed")]
    assert told[0]["best_step"] == told[1]["best_step"] and told[1]["steps"] == 4
    weights = [(tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes() for name in ("whole", "failed")]
    assert weights[0] == weights[1]


# The GPU script's part that trains


def test_the_gpu_script_trains(tokenizer_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.train.HELD_OUT", 2)
    options = {"shape": "tiny", "steps": 3, "count": 8, "generate": 2, "skip_longest": True}
    figures = train(tmp_path / "out", tokenizer_folder, **options)
    assert 1600 < figures["data"]["prompt_tokens"] < 2100 and 150 <= figures["data"]["answer_tokens"] <= 600
    assert 4000 < figures["data"]["longest_tokens"] <= 4048
    told = figures["summary"]
    assert told["steps"] == 3 and told["records_per_step"] == 8 and told["evaluations"][0] == {"step": 2, "parsed": 1.0}
    assert told["tokens_per_second"] > 0 and 0 < told["share_of_peak"] < told["share_of_peak_with_recomputation"] < 1
    assert "Going on from checkpoint-2" in (tmp_path / "out" / "logs" / "run.txt").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "merged" / "model.safetensors").is_file()

    monkeypatch.setattr("benchmarks.gpu.train.start", None)  # nothing is done twice
    assert train(tmp_path / "out", tokenizer_folder, **options) == figures
    assert json.loads((tmp_path / "out" / "train.json").read_text(encoding="utf-8")) == figures
    with pytest.raises(InputError, match="Give another --output"):
        train(tmp_path / "out", tokenizer_folder, **options | {"steps": 5})


def test_what_fails_in_the_gpu_script_is_one_message(tokenizer_folder, tmp_path):
    with pytest.raises(InputError, match="--tokenizer .* cannot be loaded"):
        train(tmp_path / "a", tmp_path / "nowhere", shape="tiny")
    log = tmp_path / "logs" / "merge.txt"
    with pytest.raises(CrimsonError, match=r"^merge failed: training: There is no folder \./nowhere.* More is in "):
        finish(start(log, "training.merge", "./nowhere", tmp_path / "merged"), log)


def test_operations_of_a_step_are_those_of_the_weights_and_attention():
    shape = Gemma3TextConfig(**PUBLISHED)
    weights = 34 * (2560 * 256 * 24 + 3 * 2560 * 10240)
    for again, passes in ((False, 2), (True, 3)):
        operations = flops_of_step(shape, 2000, 0, records=1, again=again)
        assert 1.0 < operations / (2 * passes * weights * 2000) < 1.06
    output = flops_of_step(shape, 2000, 400, 1, True) - flops_of_step(shape, 2000, 0, 1, True)
    assert output == pytest.approx(4 * 2560 * 262208 * 400)


def test_seconds_of_a_step_leave_out_starts_and_evaluations():
    logged = [(1, 9.0, "loss"), (2, 10.0, "loss"), (2, 90.0, "eval_loss"), (3, 95.0, "loss"), (5, 97.0, "loss")]
    assert step_seconds([{"step": step, "seconds": seconds, key: 0.5} for step, seconds, key in logged]) == 1.0
    assert step_seconds([{"step": 1, "seconds": 9.0, "loss": 0.5}]) is None
