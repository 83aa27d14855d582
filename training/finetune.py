"""LoRA fine-tuning of a judge: `accelerate launch -m training.finetune CONFIG`.

The same command continues from the last checkpoint. `<output>/adapter` is what the hf judge loads beside the base model;
`<output>/metrics.jsonl` has every logged figure.
"""

import dataclasses
import hashlib
import json
import math
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import peft
import torch
import transformers
import typer
from accelerate import PartialState
from peft.helpers import disable_input_dtype_casting
from safetensors import SafetensorError
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler
from transformers import TrainingArguments

from crimson_core.errors import CrimsonError, InputError
from crimson_core.judges.engines.hf import judge_in_memory
from crimson_core.judges.engines.hf.weights import language_model, load_model
from crimson_core.judges.engines.local.checkpoint import find_checkpoint, load_tokenizer
from crimson_core.protocol.prompt import Prompt
from training.adapter import write_adapter
from training.command import run
from training.config import load_config
from training.encoding import Examples, RecordEncoder, answer_loss, collate, encode
from training.estimate import accumulation, check_fits, estimate
from training.journal import check_same_run, locked, write_json
from training.records import read_records
from training.settings import FinetuneConfig
from training.trainer import METRICS_FILE, STATE_FILE, JudgeTrainer, MetricsLog, was_evaluated
from training.vocabulary import SampledHead

_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_LEAST_LIMIT = 1024  # tokens of an output
_CONFIG_FILE = "config.json"  # the settings that a run was begun with
_KEPT = 2  # checkpoints: the best and the last


def main(
    config: Annotated[Path, typer.Argument(help="YAML; training/configs has examples.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another value, such as max_steps=20.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what it will take, and stop.")] = False,
) -> None:
    """Train a LoRA adapter on labelled records. The same command goes on after a stop."""
    finetune(load_config(config, FinetuneConfig, overrides), dry_run=dry_run)


def finetune(config: FinetuneConfig, *, dry_run: bool = False) -> None:
    """Train an adapter, or continue, and write it with its model card. A dry run stops after the estimate.

    Raises:
        InputError: The configuration, the data or the output folder cannot be used, or the device has too little memory.
        JudgeError: The base model cannot be loaded.
    """
    state = PartialState(cpu=not torch.accelerator.is_available())
    # Each process has a lock: workers may live on when their launcher is killed.
    with locked(config.output, f"lock-{state.process_index}"):
        _finetune(config, state, dry_run)


def _finetune(config: FinetuneConfig, state: PartialState, dry_run: bool) -> None:
    # compiled or not, it learns the same
    settings = config.model_dump(mode="json", exclude={"output", "compile"})
    check_same_run(config.output / _CONFIG_FILE, settings, config.output)
    accumulated = accumulation(config, state.num_processes)
    checkpoint = find_checkpoint(config.base)
    tokenizer = load_tokenizer(checkpoint, None)
    prompt = Prompt(**config.prompt.model_dump())
    encoder = RecordEncoder(tokenizer, checkpoint.name, prompt, config.answers)
    train = _encoded(config, "train", encoder, state)
    held_out = read_records(config.data / "validation.jsonl")[: config.evaluation.records]
    validation = encode(held_out, encoder, config.max_length)
    for name, examples in (("train", train), ("validation", validation)):
        if not len(examples):
            raise InputError(f"No record of {name} has at most {config.max_length} tokens (max_length). Raise it.")

    effective = config.batch_size * accumulated * state.num_processes
    steps = config.max_steps or math.ceil(config.epochs * math.ceil(len(train) / effective))
    found = estimate(config, checkpoint, train, steps, state.num_processes, state.device)
    state.print(
        f"{len(train)} records to train on ({train.left_out} too long), {len(validation)} held out; effective batch "
        f"{effective} = {config.batch_size} per device x {accumulated} accumulated x {state.num_processes} "
        f"process{'es' if state.num_processes > 1 else ''}\n{found}"
    )
    check_fits(found, config, state.device)
    if dry_run:
        return

    model = language_model(load_model(checkpoint, None, _DTYPES[config.dtype], state.device))
    ends = model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=sorted({*ends, encoder.end}),
        pad_token_id=tokenizer.pad_token_id,
        # An output that is much longer than any that was learnt repeats itself, and is a failure.
        max_new_tokens=max(_LEAST_LIMIT, 2 * train.longest_answer),
    )
    model.config.use_cache = False
    places = None
    if config.output_sample is not None:
        model.lm_head = SampledHead(model.get_output_embeddings(), train.words, config.output_sample, config.seed)
        places = model.lm_head.places
    model = _adapted(model, config)
    if config.compile:
        _compile(model)

    folder = Path(config.output)
    if state.is_main_process:
        write_json(folder / _CONFIG_FILE, settings)
    state.wait_for_everyone()
    last = last_checkpoint(folder / "checkpoints")
    arguments = _arguments(config, steps, accumulated)
    arguments.eval_on_start = last is not None and not was_evaluated(last)
    trainer = JudgeTrainer(
        model=model,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=partial(collate, pad=tokenizer.pad_token_id or 0, errors_weight=config.errors_weight),
        compute_loss_func=partial(answer_loss, places=places),
        callbacks=[MetricsLog(folder / METRICS_FILE)],
    )
    trainer.generated = [held_out[place] for place in validation.places[: config.evaluation.generate]]
    if trainer.generated:
        trainer.judge = judge_in_memory(
            trainer.model,
            tokenizer,
            name=checkpoint.name,
            prompt=prompt,
            batch_size=config.evaluation.batch_size,
        )
    if last:
        state.print(f"Going on from {last.name}.")
    try:
        # Autocast chooses the type of a product; peft would first copy its input to float32.
        with disable_input_dtype_casting(model):
            trainer.train(resume_from_checkpoint=last and str(last))
    except (OSError, SafetensorError, RuntimeError) as error:
        # Optimizer states are written by torch, whose error is a RuntimeError like any other.
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CrimsonError(
            f"{config.output} cannot be written: {reason}. Make room or mend that, and run the same command: it goes on "
            "from the last whole checkpoint."
        ) from None
    if state.is_main_process:
        write_adapter(config, trainer, tokenizer, train, validation, effective, state.num_processes)


def _encoded(config: FinetuneConfig, split: str, encoder: RecordEncoder, state: PartialState) -> Examples:
    """The encoded records of a split; one process encodes them for all processes and for later starts."""
    source = config.data / f"{split}.jsonl"
    known = hashlib.sha256(
        json.dumps([config.base, config.prompt.model_dump(), config.answers, config.max_length]).encode()
    )
    with suppress(OSError):  # reading it says what is wrong
        known.update(f"{source.stat().st_size} {source.stat().st_mtime_ns}".encode())
    path = config.output / f"{split}-{known.hexdigest()[:12]}.safetensors"
    if state.is_main_process and not path.is_file():
        encode(read_records(source), encoder, config.max_length).save(path)
    state.wait_for_everyone()
    return Examples.load(path)


def _adapted(model: transformers.PreTrainedModel, config: FinetuneConfig) -> peft.PeftModel:
    """The model with a new adapter, or with an existing one to train further."""
    if config.adapter:
        folder = find_checkpoint(config.adapter).folder
        if not (folder / "adapter_config.json").is_file():
            raise InputError(f"adapter {config.adapter} is a whole model and no adapter. Give it as the base.")
        return peft.PeftModel.from_pretrained(model, folder, is_trainable=True)
    transformers.set_seed(config.seed)  # a new adapter begins with random numbers
    settings = peft.LoraConfig(
        r=config.lora.r,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=list(TARGETS),
        task_type="CAUSAL_LM",
    )
    return peft.get_peft_model(model, settings)


def _compile(model: peft.PeftModel) -> None:
    """Let torch compile the layers one by one, for all lengths, so that equal layers share the compiled code."""
    if not torch.accelerator.is_available():
        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            raise InputError(
                "compile needs a C++ compiler, and none works (g++, or $CXX). Install one, or --set compile=false."
            ) from None
    for layer in model.get_base_model().get_decoder().layers:
        layer.compile(dynamic=True)


def last_checkpoint(folder: Path) -> Path | None:
    """The latest complete checkpoint in a folder; None if there is none.

    The trainer writes its state last, so a checkpoint without a state was cut off by a kill.
    """

    def step(path: Path) -> int:
        return int(path.name.rpartition("-")[2])

    for path in sorted(folder.glob("checkpoint-*"), key=step, reverse=True):
        try:
            json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return path
    return None


def _arguments(config: FinetuneConfig, steps: int, accumulated: int) -> TrainingArguments:
    # Newer versions of transformers have renamed gradient checkpointing to activation checkpointing.
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    again = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    return TrainingArguments(
        output_dir=str(config.output / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=accumulated,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=math.ceil(config.warmup * steps),
        weight_decay=config.weight_decay,
        bf16=config.dtype == "bfloat16",
        **{again: config.gradient_checkpointing, f"{again}_kwargs": {"use_reentrant": False}},
        train_sampling_strategy="group_by_length" if config.group_by_length else "random",
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


if __name__ == "__main__":
    run(main)
