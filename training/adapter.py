"""What a finished run leaves: the adapter, with all that the hf judge needs beside its base, its record and its card."""

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
    """The best adapter in bfloat16, with all that the hf judge needs beside its base, the run's record and its card."""
    target = config.output / "adapter"
    if target.is_dir():  # of an earlier start
        shutil.rmtree(target)
    with whole_folder(target) as folder:
        _fill(
            folder,
            config,
            trainer,
            tokenizer,
            run_record(config, trainer, train, validation, effective_batch, processes),
        )
    print(f"The adapter is in {target}.")


def _fill(
    folder: Path, config: FinetuneConfig, trainer: Trainer, tokenizer: PreTrainedTokenizerBase, record: dict[str, Any]
) -> None:
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
    effective_batch: int,
    processes: int,
) -> dict[str, Any]:
    """What a model card tells of a run."""
    metrics = read_metrics(config.output / METRICS_FILE)
    evaluations: dict[int, dict[str, float]] = {}
    for logged in metrics:
        found = {key.removeprefix("eval_"): value for key, value in logged.items() if key.startswith("eval_")}
        if found:
            evaluations.setdefault(logged["step"], {"step": logged["step"]}).update(found)
    peft_config = trainer.accelerator.unwrap_model(trainer.model).peft_config["default"]
    hyper = config.model_dump(
        mode="json",
        exclude={
            "base",
            "base_name",
            "base_source",
            "data",
            "output",
            "prompt",
            "lora",
            "evaluation",
            "effective_batch",
        },
    )
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
    """The runs that made an adapter which is trained further, the first one first."""
    run = read_run(find_checkpoint(adapter).folder)
    told = {key: run.get("hyperparameters", {}).get(key) for key in ("learning_rate", "max_length")}
    return [*run.get("earlier", ()), {key: run.get(key) for key in ("steps", "records_seen", "seconds")} | told]


def _dataset(folder: Path) -> dict[str, Any]:
    """How the records were made, where `training.generate` has written it."""
    path = folder / DATASET_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _hardware() -> str:
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"
