"""Loads the weights of a checkpoint as a Transformers model."""

import json
import warnings
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, PreTrainedModel

from crimson_core.errors import needed
from crimson_core.judges.engines.hf.device import check_fits, roomiest_device
from crimson_core.judges.engines.local.checkpoint import Checkpoint, generation_config, loading, quiet


def load_model(
    checkpoint: Checkpoint, base: Checkpoint | None, dtype: torch.dtype, device: torch.device | None
) -> PreTrainedModel:
    """Load a model; an adapter is merged into its base model, and its generation config comes first.

    If the device is None, the model goes to the accelerator with the most free memory, to several accelerators if it is too
    large for one, or to the CPU.

    Raises:
        JudgeError: The model cannot be loaded, or does not fit into memory.
    """
    size = _parameters((base or checkpoint).folder) * dtype.itemsize
    check_fits((base or checkpoint).name, size, dtype, device)
    device = device or roomiest_device(size)
    placed: dict[str, Any] = {"device_map": device} if device is not None and device.type != "cpu" else {}
    if device is None and torch.accelerator.is_available():
        placed["device_map"] = "auto"
    with loading(base or checkpoint), quiet():
        # No attention implementation is asked for: it is sdpa for every model that has it.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            (base or checkpoint).folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **placed,
        )
        model, info = loaded
        # Transformers fills missing weights with random numbers.
        if info["missing_keys"] or info["mismatched_keys"]:
            raise ValueError("its weights do not fit its config")
    if base:
        peft = needed("peft", "hf")
        with loading(checkpoint), quiet():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            if not _adapts_multimodal(checkpoint.folder):
                model = language_model(model)
            model = peft.PeftModel.from_pretrained(model, checkpoint.folder).merge_and_unload()
        model.generation_config = generation_config(checkpoint, base)
    return model if device is None else model.to(device)


def _parameters(folder: Path) -> int:
    """Number of parameters in the safetensors of a folder; 0 if they cannot be read, which loading will report."""
    try:
        count = 0
        for path in folder.glob("*.safetensors"):
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            count += sum(prod(tensor["shape"]) for key, tensor in header.items() if key != "__metadata__")
        return count
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError):
        return 0


def language_model(model: PreTrainedModel) -> PreTrainedModel:
    """The text model inside a multimodal Gemma 3, with the same weights in memory; any other model as it is."""
    if model.config.model_type != "gemma3":
        return model
    config = model.config.text_config
    config.tie_word_embeddings = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    with torch.device("meta"):  # its own weights are never used
        text = Gemma3ForCausalLM(config)
    text.model, text.lm_head = model.model.language_model, model.lm_head
    text.generation_config = model.generation_config
    return text.train(model.training)


def _adapts_multimodal(folder: Path) -> bool:
    """Whether an adapter was trained on a multimodal model, not on the text model taken out of one."""
    with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
        return any(".language_model." in key for key in weights.keys())  # noqa: SIM118 (no dictionary)
