"""Checkpoints for the tests: variants of real ones, and tiny random models that load in no time."""

import json
import shutil
from pathlib import Path

CHATML_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
"""


def variant(folder: Path, target: Path, *, generation: dict | None = None, prompt: dict | None = None) -> Path:
    """The same checkpoint with another generation config or prompt file; weights are linked, not copied."""
    target.mkdir(parents=True)
    for path in folder.iterdir():
        if path.suffix in (".json", ".jinja") and path.name != "tokenizer.json":
            shutil.copy(path, target)
        else:
            (target / path.name).symlink_to(path.resolve())
    if generation is not None:
        (target / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    if prompt is not None:
        (target / "crimson_prompt.json").write_text(json.dumps(prompt), encoding="utf-8")
    return target


def byte_tokenizer(template: str | None = CHATML_TEMPLATE):
    """One token per byte, and control tokens of which some are not called special, as in Qwen's tokenizers."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in ("<|im_start|>", "<|im_end|>", "<pad>")])
    plain = ("<think>", "</think>", "<tool_call>", "\n\n", "  ")
    backend.add_tokens([AddedToken(name, normalized=False, special=False) for name in plain])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<pad>")
    tokenizer.chat_template = template
    return tokenizer


def metaspace_tokenizer():
    """A tokenizer that marks the start of the whole text, and whose turn token swallows the space behind it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "▁"] + [f"<0x{byte:02X}>" for byte in range(256)] + [chr(c) for c in range(33, 127)]
    backend = Tokenizer(
        models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[], unk_token="<unk>", byte_fallback=True)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    backend.add_special_tokens([AddedToken("<unk>"), AddedToken("<s>"), AddedToken("</s>")])
    backend.add_special_tokens([AddedToken(f"<|{role}|>", rstrip=True) for role in ("system", "user", "assistant")])
    backend.add_special_tokens([AddedToken("<|end|>", lstrip=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + ' <|end|>\\n' }}{% endfor %}<|assistant|>\\n"
    return tokenizer


def save_tiny(target: Path, *, context: int = 4096, seed: int = 0, **overrides) -> Path:
    """A random two-layer Gemma 3 over bytes, with the compact prompt, in float32."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(seed)
    model = Gemma3ForCausalLM(Gemma3TextConfig(**(_tiny_settings(context) | overrides)))
    model.save_pretrained(target)
    byte_tokenizer().save_pretrained(target)
    (target / "crimson_prompt.json").write_text('{"style": "compact"}', encoding="utf-8")
    return target


def save_tiny_multimodal(target: Path, *, seed: int = 0) -> Path:
    """The same inside a Gemma 3 that sees images, of random weights too."""
    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, SiglipVisionConfig

    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    torch.manual_seed(seed)
    config = Gemma3Config(vision_config=vision.to_dict(), text_config=_tiny_settings(4096), mm_tokens_per_image=4)
    model = Gemma3ForConditionalGeneration(config)
    model.generation_config.update(eos_token_id=[256, 257], do_sample=True, top_k=64)
    model.save_pretrained(target)
    byte_tokenizer().save_pretrained(target)
    return target


def _tiny_settings(context: int) -> dict:
    tokenizer = byte_tokenizer()
    return {
        "vocab_size": len(tokenizer) + 7,  # padded, as published models often are
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention"],  # so that every token, padding too, is in reach
        "max_position_embeddings": context,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "initializer_range": 0.5,
    }


def save_tiny_seq2seq(target: Path, *, seed: int = 0) -> Path:
    """A random encoder-decoder over bytes, as report generators often are."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = byte_tokenizer()
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target
