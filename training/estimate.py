"""What a training run will take: steps, tokens, memory of each device, and hours."""

import time
from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from crimson_core.errors import InputError
from crimson_core.judges.engines.local.checkpoint import Checkpoint, loading
from training.encoding import Examples
from training.settings import FinetuneConfig

_LORA_BYTES = 16  # of a trained weight: itself, its gradient and two moments, in float32
_SHARE_OF_PRODUCTS = 0.5  # of the speed of a large product of matrices, what a step reaches
_SIZE_OF_PRODUCT = {"cpu": 1024, "cuda": 8192}
_SPARE = 1.1  # what allocators and libraries take besides


@dataclass(frozen=True)
class Estimate:
    """Attributes:
    records: Of all epochs together.
    steps: Of the optimizer.
    tokens: Of prompts and answers that are read.
    memory: Bytes of each device at most.
    seconds: On the devices that are there.
    """

    records: int
    steps: int
    tokens: int
    memory: int
    seconds: float

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
    """Work out what a run takes, from the shape of its base model; nothing is loaded.

    Args:
        config: Of the run.
        checkpoint: Of the base model.
        train: What is trained on.
        steps: Of the optimizer.
        processes: That share the work, each with a device of its own.
        device: Of this process.
    """
    with loading(checkpoint):
        shape = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True).get_text_config()
        body, output = _parameters(shape)
    lengths = train.lengths
    mean, longest = sum(lengths) / len(lengths), max(lengths)
    records = steps * config.batch_size * accumulation(config, processes) * processes
    # Forwards, backwards to the adapter's weights, and forwards again where activations are not kept.
    passes = 3 if config.gradient_checkpointing else 2
    answers = train.answer_tokens / len(train)
    flops = records * (2 * passes * body * mean + 4 * output * answers)
    dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
    seconds = flops / processes / (_SHARE_OF_PRODUCTS * _speed(device, dtype))
    memory = _memory(config, shape, body, output, longest, train.longest_answer)
    return Estimate(records, steps, round(records * mean), memory, seconds)


def check_fits(found: Estimate, config: FinetuneConfig, device: torch.device) -> None:
    """Refuse a run that the device cannot hold.

    Raises:
        InputError: It cannot.
    """
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
        if found.memory > there:
            raise InputError(
                f"The run needs some {found.memory / 2**30:.1f} GiB on each device, and {torch.cuda.get_device_name(device)} has "
                f"{there / 2**30:.1f}. Lower batch_size ({config.batch_size} now) or max_length ({config.max_length}), or set "
                "gradient_checkpointing."
            )


def accumulation(config: FinetuneConfig, processes: int) -> int:
    """Steps of accumulation.

    Raises:
        InputError: The effective batch of the configuration cannot be had with so many processes.
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
    """Of the layers, and of the output layer."""
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
    # What a layer keeps for its gradient: inputs of its products, and the gated ones thrice.
    layer = tokens * size * (6 * shape.hidden_size + 4 * heads + 4 * shape.intermediate_size)
    kept = shape.num_hidden_layers * (tokens * size * shape.hidden_size if config.gradient_checkpointing else layer)
    words = shape.vocab_size if config.output_sample is None else min(shape.vocab_size, 2 * config.output_sample)
    # Logits in the model's type and in float32, and the gradient of the latter.
    logits = config.batch_size * (answer + 1) * words * (size + 8)
    return round(_SPARE * (weights + adapter + kept + layer + logits))


def _speed(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large product, measured."""
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
