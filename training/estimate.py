"""Estimates steps, tokens, memory per device and hours of a training run."""

import time
from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from crimson_core.errors import InputError
from crimson_core.judges.engines.local.checkpoint import Checkpoint, loading
from training.encoding import Examples
from training.settings import FinetuneConfig

_LORA_BYTES = 16  # per trained weight: itself, its gradient and two moments, in float32
_SHARE_OF_PRODUCTS = 0.5  # the speed of a step, as a share of the speed of a large matrix product
_SIZE_OF_PRODUCT = {"cpu": 1024, "cuda": 8192}
_SPARE = 1.1  # for allocators and libraries


@dataclass(frozen=True)
class Estimate:
    """The estimate of a run, over all epochs together."""

    records: int
    steps: int  # of the optimizer
    tokens: int  # of prompts and answers
    memory: int  # bytes per device, at most
    seconds: float  # on the present devices

    def __str__(self) -> str:
        hours = self.seconds / 3600
        long = f"{hours:.1f} hours" if hours >= 1 else f"{max(1, round(60 * hours))} minutes"
        return (
            f"{self.records:,} records in {self.steps:,} steps, {self.tokens / 1e6:,.1f} million tokens, at most some "
            f"{self.memory / 2**30:.1f} GiB on each device, some {long} without evaluations"
        )


def estimate(
    config: FinetuneConfig, checkpoint: Checkpoint, train: Examples, steps: int, processes: int, device: torch.device
) -> Estimate:
    """Estimate a run of so many optimizer steps from the shape of its base model, which is not loaded.

    Each process has a device of its own; `device` is this process's.
    """
    with loading(checkpoint):
        shape = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True).get_text_config()
        body, output = _parameters(shape)
    lengths = train.lengths
    mean, longest = sum(lengths) / len(lengths), max(lengths)
    records = steps * config.batch_size * accumulation(config, processes) * processes
    # forward, backward to the adapter's weights, and forward again if activations are not kept
    passes = 3 if config.gradient_checkpointing else 2
    answers = train.answer_tokens / len(train)
    flops = records * (2 * passes * body * mean + 4 * output * answers)
    dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
    seconds = flops / processes / (_SHARE_OF_PRODUCTS * _speed(device, dtype))
    memory = _memory(config, shape, body, output, longest, train.longest_answer)
    return Estimate(records, steps, round(records * mean), memory, seconds)


def check_fits(found: Estimate, config: FinetuneConfig, device: torch.device) -> None:
    """Raise `InputError` if the device has too little memory for the run."""
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
        if found.memory > there:
            raise InputError(
                f"The run needs some {found.memory / 2**30:.1f} GiB on each device, and {torch.cuda.get_device_name(device)} has "
                f"{there / 2**30:.1f}. Lower batch_size ({config.batch_size} now) or max_length ({config.max_length}), or set "
                "gradient_checkpointing."
            )


def accumulation(config: FinetuneConfig, processes: int) -> int:
    """Steps of gradient accumulation.

    Raises:
        InputError: So many processes cannot make the configured effective batch.
    """
    if config.effective_batch is None:
        return config.accumulation or 1
    steps = config.accumulation or config.effective_batch // (config.batch_size * processes)
    if steps * config.batch_size * processes != config.effective_batch:
        raise InputError(
            f"effective_batch is {config.effective_batch}, which batch_size {config.batch_size} x {processes} "
            f"process{'es' if processes > 1 else ''}{f' x accumulation {steps}' if config.accumulation else ''} cannot make. "
            "Change one of them: the learning rate is for that batch."
        )
    return steps


def _parameters(shape: PretrainedConfig) -> tuple[int, int]:
    """Numbers of parameters of the layers and of the output layer."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape)
    output = model.get_output_embeddings().weight.numel()
    embedding = model.get_input_embeddings().weight.numel()
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight or shape.tie_word_embeddings
    return model.num_parameters() - embedding - (0 if tied else output), output


def _memory(config: FinetuneConfig, shape: PretrainedConfig, body: int, output: int, longest: int, answer: int) -> int:
    size = 2 if config.dtype == "bfloat16" else 4
    tokens = config.batch_size * longest
    weights = size * (body + output * (1 if shape.tie_word_embeddings else 2))
    adapter = (
        _LORA_BYTES * config.lora.r * shape.num_hidden_layers * (8 * shape.hidden_size + 3 * shape.intermediate_size)
    )
    heads = shape.num_attention_heads * (
        getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    )
    # A layer keeps the inputs of its products for the gradient, those of the gated ones thrice.
    layer = tokens * size * (6 * shape.hidden_size + 4 * heads + 4 * shape.intermediate_size)
    kept = shape.num_hidden_layers * (tokens * size * shape.hidden_size if config.gradient_checkpointing else layer)
    words = shape.vocab_size if config.output_sample is None else min(shape.vocab_size, 2 * config.output_sample)
    # logits in the model's type and in float32, and the gradient of the latter
    logits = config.batch_size * (answer + 1) * words * (size + 8)
    return round(_SPARE * (weights + adapter + kept + layer + logits))


def _speed(device: torch.device, dtype: torch.dtype) -> float:
    """Measured operations per second in a large matrix product."""
    size = _SIZE_OF_PRODUCT.get(device.type, 4096)
    one = torch.randn(size, size, device=device).to(dtype)

    def done() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    _ = one @ one
    best = float("inf")
    for _ in range(3):
        began = done()
        _ = one @ one
        best = min(best, done() - began)
    return 2 * size**3 / best
