"""Writes the result of a finished run: the adapter as the hf judge loads it, the run's record and the model card."""

import json
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from crimson_core.judges.engines.local.checkpoint import find_checkpoint
from crimson_core.protocol.prompt import PROMPT_FILE
from training.card import RECORD_FILE, model_card, read_run
from training.encoding import Examples
from training.folder import whole_folder
from training.records import DATASET_FILE, REGIMES
from training.settings import FinetuneConfig
from training.trainer import METRICS_FILE, read_metrics

_SPEEDS = ("runtime", "samples_per_second", "steps_per_second")


def write_adapter(
    config: FinetuneConfig,
    trainer: Trainer,
    tokenizer: PreTrainedTokenizerBase,
    train: Examples,
    validation: Examples,
    effective_batch: int,
    processes: int,
) -> None:
    """Write the best adapter in bfloat16, with everything that the hf judge loads beside the base model."""
    target = config.output / "adapter"
    record = run_record(config, trainer, train, validation, effective_batch, processes)
    if target.is_dir():  # of an earlier start
        shutil.rmtree(target)
    with whole_folder(target) as folder:
        adapted = trainer.accelerator.unwrap_model(trainer.model)
        adapted.save_pretrained(folder)
        adapter = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        adapter["base_model_name_or_path"] = config.base_name or config.base
        weights = folder / "adapter_model.safetensors"
        halved = {name: weight.to(torch.bfloat16).contiguous() for name, weight in load_file(weights).items()}
        save_file(halved, weights, {"format": "pt"})
        adapted.get_base_model().generation_config.save_pretrained(folder)
        texts = {
            "adapter_config.json": json.dumps(adapter, indent=1, sort_keys=True) + "\n",
            "chat_template.jinja": tokenizer.chat_template,
            PROMPT_FILE: json.dumps(config.prompt.model_dump()) + "\n",
            RECORD_FILE: json.dumps(record, indent=1) + "\n",
            "README.md": model_card(record, name=config.output.name, merged=False),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    print(f"The adapter is in {target}.")


def run_record(
    config: FinetuneConfig,
    trainer: Trainer,
    train: Examples,
    validation: Examples,
    effective_batch: int,
    processes: int,
) -> dict[str, Any]:
    """The record of a run, from which its model card is made."""
    metrics = read_metrics(config.output / METRICS_FILE)
    evaluations: dict[int, dict[str, float]] = {}
    for logged in metrics:
        found = {key.removeprefix("eval_"): value for key, value in logged.items() if key.startswith("eval_")}
        if found:
            evaluations.setdefault(logged["step"], {"step": logged["step"]}).update(found)
    peft_config = trainer.accelerator.unwrap_model(trainer.model).peft_config["default"]
    elsewhere = "base base_name base_source data output prompt lora evaluation effective_batch".split()
    hyper = config.model_dump(mode="json", exclude=set(elsewhere))
    hyper["accumulation"] = trainer.args.gradient_accumulation_steps
    hyper["effective_batch_size"] = effective_batch
    return {
        "base": config.base_name or config.base,
        "base_source": config.base_source,
        "method": "LoRA",
        "prompt": config.prompt.model_dump(),
        "data": {
            "path": str(config.data),
            "records": {"train": len(train), "validation": len(validation)},
            "left_out": train.left_out,
            "regimes": {name: train.regimes.get(i, 0) for i, name in enumerate(REGIMES)},
            "label_sources": train.sources,
            **_dataset(config.data),
        },
        "hyperparameters": {key: value for key, value in hyper.items() if value is not None},
        "lora": {
            "r": peft_config.r,
            "alpha": peft_config.lora_alpha,
            "dropout": peft_config.lora_dropout,
            "targets": sorted(peft_config.target_modules),
        },
        "hardware": _hardware(),
        "processes": processes,
        "steps": trainer.state.global_step,
        "records_seen": trainer.state.global_step * hyper["effective_batch_size"],
        "best_step": trainer.state.best_global_step,
        "earlier": _earlier(config.adapter) if config.adapter else [],
        "seconds": round(max((m["seconds"] for m in metrics if "seconds" in m), default=0.0), 1),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "accelerate")},
        "evaluation": [
            {key: value for key, value in found.items() if key not in _SPEEDS}
            for _, found in sorted(evaluations.items())
        ],
    }


def _earlier(adapter: str) -> list[dict[str, Any]]:
    """The runs that made the adapter that is trained further, the first one first."""
    run = read_run(find_checkpoint(adapter).folder)
    told = {key: run.get("hyperparameters", {}).get(key) for key in ("learning_rate", "max_length")}
    return [*run.get("earlier", ()), {key: run.get(key) for key in ("steps", "records_seen", "seconds")} | told]


def _dataset(folder: Path) -> dict[str, Any]:
    """How the records were made, if `training.generate` has written it."""
    path = folder / DATASET_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"
