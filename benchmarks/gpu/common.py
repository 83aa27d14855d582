"""Shared by the GPU benchmarks: a random model in the published checkpoint's shape, results that survive a stop, the machine."""

import json
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, GenerationConfig

from crimson_core.errors import InputError

_PACKAGES = ("torch", "transformers", "accelerate", "peft", "xgrammar", "triton", "crimson-score")
ENDS = [1, 106]  # of Gemma's vocabulary: <eos>, <end_of_turn>

# MedGemma 4B's language model: Gemma 3 4B, as its config.json on the Hub has it.
PUBLISHED = {
    "vocab_size": 262208,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 34,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 1024,
    "max_position_embeddings": 131072,
    "query_pre_attn_scalar": 256,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
}
SHAPES = {
    "4b": PUBLISHED,
    # For a CPU, with the same vocabulary, so that the same texts have the same tokens.
    "tiny": PUBLISHED
    | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 7, "num_attention_heads": 2}
    | {"num_key_value_heads": 1, "head_dim": 16, "sliding_window": 256},
}


def random_model(shape: str, device: torch.device, dtype: torch.dtype = torch.bfloat16, **changes: Any) -> Any:
    """A Gemma 3 with random weights, created on its device; `changes` are changes to the shape."""
    config = Gemma3TextConfig(**(SHAPES[shape] | changes), eos_token_id=ENDS, pad_token_id=0, bos_token_id=2)
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Gemma3ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)
    model.generation_config = GenerationConfig(eos_token_id=ENDS, pad_token_id=0, max_new_tokens=8192)
    return model


def machine() -> dict[str, str]:
    """Card, driver's CUDA, Python and versions of packages."""
    known = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        known |= {"card": card.name, "memory": f"{card.total_memory / 2**30:.0f} GiB", "cuda": torch.version.cuda}
    else:
        known["card"] = "no GPU"
    return known


class Results:
    """Figures by name in a JSON file, written one by one, so that a run that was stopped can continue.

    Args:
        file: The file; it is read if it exists.
        **about: What the figures depend on besides the machine and the versions.

    Raises:
        InputError: The file is of another machine or of other versions.
    """

    def __init__(self, file: Path, **about: str) -> None:
        self._file = file
        here = machine() | about
        self.figures: dict[str, Any] = {"machine": here}
        if file.is_file():
            self.figures = json.loads(file.read_text(encoding="utf-8"))
            if self.figures.get("machine") != here:
                raise InputError(f"{file} holds figures of another machine or other versions. Give another --output.")

    def once(self, name: str, measure: Callable[[], Any]) -> Any:
        """The figures with this name from the file; if they are missing, measure and write them."""
        if name not in self.figures:
            self.figures[name] = measure()
            self._file.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._file.with_suffix(".new")
            fresh.write_text(json.dumps(self.figures, indent=1) + "\n", encoding="utf-8")
            fresh.replace(self._file)
        return self.figures[name]


def cuda_or_cpu(wanted: str | None) -> torch.device:
    """The device to measure on.

    Raises:
        InputError: This machine does not have it.
    """
    if wanted is None or wanted.startswith("cuda"):
        if torch.cuda.is_available():
            return torch.device(wanted or "cuda")
        raise InputError(
            "No CUDA device was found: torch sees none. Check `nvidia-smi` and that torch is a CUDA build, "
            "or try the commands with --device cpu --shape tiny."
        )
    return torch.device(wanted)
