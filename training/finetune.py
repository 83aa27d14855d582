"""LoRA fine-tuning of a judge: `accelerate launch -m training.finetune CONFIG`.

The same command goes on from the last checkpoint. The adapter, with all that the hf judge needs beside its base, is in
`<output>`; `metrics.jsonl` there holds every logged figure.
"""

import json
import math
import platform
import shutil
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import peft
import torch
import transformers
import typer
from accelerate import PartialState
from accelerate.utils import gather_object
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from crimson_core.errors import CrimsonError, InputError
from crimson_core.judges.hf import HFJudge
from crimson_core.judges.hf.checkpoint import find_checkpoint, language_model, load_model, load_tokenizer
from crimson_core.prompt import PROMPT_FILE, Prompt
from crimson_core.scorer import CrimsonScorer
from training.agreement import agreement
from training.card import RECORD_FILE, model_card
from training.command import run
from training.config import load_config
from training.encoding import RecordEncoder, answer_loss, collate
from training.folder import whole_folder
from training.journal import write_whole
from training.records import REGIMES, Record, read_records

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
_KEPT = 2  # checkpoints: the best and the last


class PromptConfig(BaseModel):
    """How a pair is put to the model; recorded in the checkpoint's folder."""

    model_config = ConfigDict(extra="forbid")

    style: Literal["reference", "compact"] = "reference"
    guidelines: bool = False


class LoraSettings(BaseModel):
    """Of the adapter."""

    model_config = ConfigDict(extra="forbid")

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)


class EvaluationSettings(BaseModel):
    """Of the held-out split while training."""

    model_config = ConfigDict(extra="forbid")

    steps: int = Field(500, ge=1, description="Every how many steps; a checkpoint is written each time.")
    records: int = Field(1000, ge=1, description="Records of the validation split for the loss, the first ones.")
    generate: int = Field(200, ge=0, description="Of these, for how many the model writes its evaluations.")
    batch_size: int | None = Field(None, ge=1, description="Pairs that are generated together.")


class FinetuneConfig(BaseModel):
    """A training run."""

    model_config = ConfigDict(extra="forbid")

    base: str = Field(description="Hub id or folder of the base model.")
    base_name: str | None = Field(None, description="What the adapter names as its base, if not `base`.")
    data: Path = Field(description="Folder with train.jsonl and validation.jsonl, as training.generate writes it.")
    output: Path
    prompt: PromptConfig = Field(default_factory=PromptConfig)
    epochs: float = Field(1, gt=0)
    max_steps: int | None = Field(None, ge=1, description="Instead of epochs.")
    batch_size: int = Field(4, ge=1, description="Records per device and step of accumulation.")
    accumulation: int = Field(1, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps.")
    weight_decay: float = Field(0.05, ge=0)
    max_length: int = Field(4048, ge=16, description="Tokens of prompt and answer; longer records are left out.")
    seed: int = 42
    lora: LoraSettings = Field(default_factory=LoraSettings)
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    gradient_checkpointing: bool = True
    group_by_length: bool = Field(False, description="Whether records of like length share a batch: less padding.")
    log_steps: int = Field(10, ge=1)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)


class Examples(Dataset):
    """Encoded records.

    Attributes:
        records: Those that are not too long.
        left_out: How many were too long.
    """

    def __init__(self, records: Sequence[Record], encoder: RecordEncoder, max_length: int) -> None:
        self.records: list[Record] = []
        self._encoded: list[tuple[torch.Tensor, int]] = []
        for record in records:
            try:
                prompt, answer = encoder.encode(record)
            except ValueError as error:
                raise InputError(f"Record {record.id} cannot be learnt: {error}.") from None
            if len(prompt) + len(answer) <= max_length:
                self.records.append(record)
                self._encoded.append((torch.tensor([*prompt, *answer], dtype=torch.int32), len(answer)))
        self.left_out = len(records) - len(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        tokens, answer = self._encoded[index]
        return {"input_ids": tokens.tolist(), "answer_tokens": answer, "length": len(tokens)}


def main(
    config: Annotated[Path, typer.Argument(help="YAML; training/configs has examples.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another value, such as max_steps=20.")
    ] = None,
) -> None:
    """Train a LoRA adapter on labelled records. The same command goes on after a stop."""
    finetune(load_config(config, FinetuneConfig, overrides))


def finetune(config: FinetuneConfig) -> None:
    """Train an adapter, or go on with one, and write it with its card.

    Raises:
        InputError: The configuration, the data or the output folder cannot be used.
        JudgeError: The base model cannot be had.
    """
    state = PartialState()
    train_records = read_records(config.data / "train.jsonl")
    held_out = read_records(config.data / "validation.jsonl")[: config.evaluation.records]
    _check_same_run(config, state)

    checkpoint = find_checkpoint(config.base)
    tokenizer = load_tokenizer(checkpoint, None)
    prompt = Prompt(config.prompt.style, config.prompt.guidelines)
    encoder = RecordEncoder(tokenizer, checkpoint.name, prompt)
    train = Examples(train_records, encoder, config.max_length)
    validation = Examples(held_out, encoder, config.max_length)
    for name, examples in (("train", train), ("validation", validation)):
        if not len(examples):
            raise InputError(f"No record of {name} has at most {config.max_length} tokens (max_length). Raise it.")

    device = state.device if state.device.type != "cpu" else torch.device("cpu")
    model = language_model(load_model(checkpoint, None, _DTYPES[config.dtype], device))
    ends = model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=sorted({*ends, encoder.end}), pad_token_id=tokenizer.pad_token_id
    )
    model.config.use_cache = False
    model = peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=config.lora.r,
            lora_alpha=config.lora.alpha,
            lora_dropout=config.lora.dropout,
            target_modules=list(TARGETS),
            task_type="CAUSAL_LM",
        ),
    )

    effective = config.batch_size * config.accumulation * state.num_processes
    state.print(
        f"{len(train)} records to train on ({train.left_out} too long), {len(validation)} held out; effective batch "
        f"{effective} = {config.batch_size} per device x {config.accumulation} accumulated x {state.num_processes} "
        f"process{'es' if state.num_processes > 1 else ''}"
    )
    folder = Path(config.output)
    trainer = _Trainer(
        model=model,
        args=_arguments(config, len(train), state.num_processes),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=partial(collate, pad=tokenizer.pad_token_id or 0),
        compute_loss_func=answer_loss,
        callbacks=[_Metrics(folder / "metrics.jsonl")],
    )
    trainer.generated = validation.records[: config.evaluation.generate]
    if trainer.generated:
        trainer.judge = HFJudge.from_model(
            trainer.model,
            tokenizer,
            name=checkpoint.name,
            prompt=prompt,
            batch_size=config.evaluation.batch_size,
            max_new_tokens=config.max_length,
        )
    last = get_last_checkpoint(str(folder / "checkpoints")) if (folder / "checkpoints").is_dir() else None
    if last:
        state.print(f"Going on from {last}.")
    began = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=last)
    except OSError as error:
        raise CrimsonError(
            f"{config.output} cannot be written: {error.strerror}. Mend that, and run the same command."
        ) from None
    seconds = time.monotonic() - began
    if state.is_main_process:
        _write_adapter(config, trainer, tokenizer, train, validation, seconds, state.num_processes)


class _Trainer(Trainer):
    """A trainer that also lets the model write evaluations for held-out records."""

    judge: HFJudge | None = None
    generated: Sequence[Record] = ()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As ever, and the agreement of what the model writes with the labels."""
        metrics = super().evaluate(*args, **kwargs)
        if self.generated:
            figures = self._agreement()
            more = {f"eval_{key}": value for key, value in figures.items() if not math.isnan(value)}
            self.log(more)
            metrics |= more
        return metrics

    def _agreement(self) -> dict[str, float]:
        """Each process takes its share of the pairs; all get the figures of all."""
        rank, processes = self.args.process_index, self.args.world_size
        share = list(range(rank, len(self.generated), processes))
        pairs = [self.generated[i].pair for i in share]
        with self.autocast_smart_context_manager():  # the judge goes around the wrapper that does it in training
            results = CrimsonScorer(self.judge).score(pairs) if share else []
        done = dict(gather_object(list(zip(share, results, strict=True))))
        return agreement(self.generated, [done[i] for i in range(len(self.generated))])


class _Metrics(TrainerCallback):
    """Writes what is logged as JSON lines; those after the checkpoint from which a run goes on are taken away."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = [m for m in read_metrics(self.path) if m["step"] <= state.global_step]
            write_whole(self.path, (json.dumps(metrics) + "\n" for metrics in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if state.is_world_process_zero and logs:
            with self.path.open("a", encoding="utf-8") as file:
                print(json.dumps({"step": state.global_step, "epoch": state.epoch, **logs}), file=file)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The logged figures of a run, one dictionary per log; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def _arguments(config: FinetuneConfig, records: int, processes: int) -> TrainingArguments:
    per_epoch = math.ceil(records / (config.batch_size * config.accumulation * processes))
    steps = config.max_steps or math.ceil(config.epochs * per_epoch)
    return TrainingArguments(
        output_dir=str(config.output / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=math.ceil(config.warmup * steps),
        weight_decay=config.weight_decay,
        bf16=config.dtype == "bfloat16",
        activation_checkpointing=config.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        train_sampling_strategy="group_by_length" if config.group_by_length else "random",
        length_column_name="length",
        seed=config.seed,
        data_seed=config.seed,
        logging_steps=config.log_steps,
        logging_first_step=True,
        eval_strategy="steps",
        eval_steps=config.evaluation.steps,
        save_strategy="steps",
        save_steps=config.evaluation.steps,
        save_total_limit=_KEPT,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=False,
        prediction_loss_only=True,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=["tensorboard"] if find_spec("tensorboard") else [],
        ddp_find_unused_parameters=False,
        use_cpu=not torch.accelerator.is_available(),
    )


def _check_same_run(config: FinetuneConfig, state: PartialState) -> None:
    """Refuse to go on with a run that was begun with other settings."""
    path = config.output / "config.json"
    now = config.model_dump(mode="json", exclude={"output"})
    try:
        if path.is_file():
            begun = json.loads(path.read_text(encoding="utf-8"))
            for key in now:
                if begun.get(key) != now[key]:
                    raise InputError(
                        f"The run in {config.output} was begun with another {key}. Give another output, or put it back."
                    )
        elif state.is_main_process:
            config.output.mkdir(parents=True, exist_ok=True)
            write_whole(path, [json.dumps(now, indent=1) + "\n"])
    except (OSError, ValueError) as error:
        raise InputError(
            f"output {config.output} cannot be used: {getattr(error, 'strerror', None) or error}."
        ) from None
    state.wait_for_everyone()


def _write_adapter(
    config: FinetuneConfig,
    trainer: Trainer,
    tokenizer: Any,
    train: Examples,
    validation: Examples,
    seconds: float,
    processes: int,
) -> None:
    """The best adapter in bfloat16, with all that the hf judge needs beside its base, the run's record and its card."""
    target = config.output / "adapter"
    if target.is_dir():  # of an earlier start
        shutil.rmtree(target)
    with whole_folder(target) as folder:
        _fill(folder, config, trainer, tokenizer, run_record(config, trainer, train, validation, seconds, processes))
    print(f"The adapter is in {target}.")


def _fill(folder: Path, config: FinetuneConfig, trainer: Trainer, tokenizer: Any, record: dict[str, Any]) -> None:
    adapted = trainer.accelerator.unwrap_model(trainer.model)
    adapted.save_pretrained(folder)
    adapter = folder / "adapter_config.json"
    named = json.loads(adapter.read_text(encoding="utf-8")) | {
        "base_model_name_or_path": config.base_name or config.base
    }
    adapter.write_text(json.dumps(named, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    weights = folder / "adapter_model.safetensors"
    save_file({k: v.to(torch.bfloat16).contiguous() for k, v in load_file(weights).items()}, weights, {"format": "pt"})
    (folder / "chat_template.jinja").write_text(tokenizer.chat_template, encoding="utf-8")
    adapted.get_base_model().generation_config.save_pretrained(folder)
    (folder / PROMPT_FILE).write_text(json.dumps(config.prompt.model_dump()) + "\n", encoding="utf-8")
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card(record, name=config.output.name, merged=False), encoding="utf-8")


def run_record(
    config: FinetuneConfig,
    trainer: Trainer,
    train: Examples,
    validation: Examples,
    seconds: float,
    processes: int,
) -> dict[str, Any]:
    """What a model card tells of a run."""
    metrics = read_metrics(config.output / "metrics.jsonl")
    evaluations: dict[int, dict[str, float]] = {}
    for logged in metrics:
        found = {key.removeprefix("eval_"): value for key, value in logged.items() if key.startswith("eval_")}
        if found:
            evaluations.setdefault(logged["step"], {"step": logged["step"]}).update(found)
    speeds = ("runtime", "samples_per_second", "steps_per_second")
    best = trainer.state.best_global_step
    sources = {
        source.partition("|")[0] if source.startswith("construction") else source
        for r in train.records
        for source in [r.label_source]
    }
    hyper = config.model_dump(
        mode="json", exclude={"base", "base_name", "data", "output", "prompt", "lora", "evaluation"}
    )
    hyper["effective_batch_size"] = config.batch_size * config.accumulation * processes
    return {
        "base": config.base_name or config.base,
        "method": "LoRA",
        "prompt": config.prompt.model_dump(),
        "data": {
            "path": str(config.data),
            "records": {"train": len(train), "validation": len(validation)},
            "left_out": train.left_out,
            "regimes": {name: sum(r.regime == i for r in train.records) for i, name in enumerate(REGIMES)},
            "label_sources": {s: sum(r.label_source.startswith(s) for r in train.records) for s in sorted(sources)},
            "writer": next((r.writer for r in train.records if r.writer), None),
        },
        "hyperparameters": {key: value for key, value in hyper.items() if value is not None},
        "lora": config.lora.model_dump() | {"targets": list(TARGETS)},
        "hardware": _hardware(),
        "processes": processes,
        "steps": trainer.state.global_step,
        "best_step": best,
        "seconds": round(seconds, 1),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "accelerate")},
        "evaluation": [
            {key: value for key, value in found.items() if key not in speeds}
            for _, found in sorted(evaluations.items())
        ],
    }


def _hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


if __name__ == "__main__":
    run(main)
