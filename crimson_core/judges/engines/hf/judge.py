"""The hf judge: a causal language model in the Transformers format, run on this machine."""

import warnings
from importlib.metadata import version
from typing import Any

import torch
import transformers
from transformers import GenerationConfig, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from crimson_core.errors import InputError, JudgeError, check_whole, first_line, needed
from crimson_core.judges.base import IN_MEMORY
from crimson_core.judges.engines.hf.crews import DraftEngine
from crimson_core.judges.engines.hf.device import chosen_device
from crimson_core.judges.engines.hf.grammar import compile_grammar
from crimson_core.judges.engines.hf.packed import PackedModel, is_trusted, why_not_compiled, why_not_packed
from crimson_core.judges.engines.hf.plain import PlainEngine
from crimson_core.judges.engines.hf.proof import LEAST, Proof, needs_proof
from crimson_core.judges.engines.hf.weights import load_model
from crimson_core.judges.engines.local.checkpoint import base_of, find_checkpoint, load_tokenizer, origin_of, prompt_of
from crimson_core.judges.engines.local.codec import MAX_FINDINGS, MAX_TEXT, Codec, Limits, chat_encoder
from crimson_core.judges.engines.local.encoding import ChatEncoder
from crimson_core.judges.model import ModelJudge
from crimson_core.protocol.prompt import Prompt

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_CPU_BATCH, _CUDA_BATCH = 8, 256  # the latter as far as memory allows
_PLAIN_BATCH = 16  # on an accelerator with generate, which takes what memory it wants
_DECODING = ("drafts", "plain")


def hf_judge(
    model: str,
    *,
    base: str | None = None,
    revision: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    dtype: str = "bfloat16",
    constrained: bool = True,
    guidelines: bool | None = None,
    max_new_tokens: int | None = None,
    max_findings: int = MAX_FINDINGS,
    max_text: int = MAX_TEXT,
    decoding: str | None = None,
    compile: bool | None = None,
) -> ModelJudge:
    """A judge that asks a causal language model in the Transformers format.

    Only safetensors are loaded and no code from a checkpoint is ever run. Decoding is greedy whatever the
    checkpoint's generation config says, of which only the end tokens, the pad token and `max_new_tokens` count.

    Args:
        model: Hub id, `<Hub id>@<revision>`, or folder: a merged model, or a LoRA adapter, which is merged into the
            base model that its config names.
        base: Folder or Hub id of an adapter's base model; None uses the one that the adapter names.
        revision: Branch, tag or commit of a Hub id.
        batch_size: Number of pairs that are judged together. None starts with 8 on a CPU, and on an accelerator with as
            many as fit into its free memory, up to 256 (16 with `plain`). It is halved when memory runs out, and stays so.
        device: For example `cpu`, `cuda` or `cuda:1`; None uses the accelerators that exist, else the CPU.
        dtype: `bfloat16`, `float16` or `float32`. In float32, a pair's evaluation does not depend on its batch. In the
            shorter types, rounding depends on the shape of the batch, which can decide between two tokens of almost equal
            probability.
        constrained: Keep the output inside the evaluation's JSON schema. False decodes freely, as the reference
            implementation does.
        guidelines: Whether the reference prompt contains the guidelines; None uses the default for this model.
        max_new_tokens: Maximum output tokens; None uses the checkpoint's own limit, else 8192.
        max_findings: Maximum number of entries in a list of findings, matches or errors of a constrained output.
        max_text: Maximum number of characters of a finding or an explanation in a constrained output. Each escaped character
            in it, such as a quotation mark, allows as many again, up to eight times.
        decoding: `drafts` guesses tokens ahead and lets the model check them. This is several times as fast with the same
            output: in float32 on a CPU it is equal, except for tokens that tie within rounding. `plain` is `generate` of
            Transformers, one token at a time. None uses drafts if the model's architecture allows it (Gemma 3, Llama,
            Mistral, Qwen 2 and 3, on one device) and the device too (a CPU; an NVIDIA GPU in half precision), else plain,
            which is then in the signature. On a GPU, a few rows are tried first; if they do not agree with the model's own
            passes, a warning says so, and decoding is plain.
        compile: Let torch compile the model's layers. This takes some seconds before the first pair and makes passes on a
            GPU about twice as fast. None does so on a CUDA device in half precision if there is a C compiler. It is in the
            signature.

    Raises:
        InputError: An option has an impossible value; the message names it.
        JudgeError: The model is missing or cannot be used; the message says what to do.
    """
    limits = Limits(constrained, max_new_tokens, max_findings, max_text)
    _check(limits, batch_size, decoding)
    if dtype not in _DTYPES:
        raise InputError(f"dtype is {dtype!r}. Use one of {', '.join(_DTYPES)}.")
    where = chosen_device(device)

    checkpoint = find_checkpoint(model, revision)
    prompt = prompt_of(checkpoint, guidelines)
    found = base_of(checkpoint, base)
    # before the weights, which take long to load
    encoder = chat_encoder(load_tokenizer(checkpoint, found), checkpoint.name, prompt)
    loaded = load_model(checkpoint, found, _DTYPES[dtype], where)
    loaded.eval()
    prove = needs_proof(loaded)
    engine = _engine(loaded, encoder, origin_of(checkpoint, found), limits, batch_size, decoding, compile, prove)
    # Nobody else uses this model, so its config need not be changed and restored in each run.
    engine.model.generation_config = GenerationConfig()
    return ModelJudge(engine, prompt)


def judge_in_memory(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    name: str,
    prompt: Prompt,
    batch_size: int | None = None,
    decoding: str | None = None,
    compile: bool | None = False,
    **limits: Any,
) -> ModelJudge:
    """A judge around a model in memory, for example one that is being trained.

    The model is used as it is at each call, and keeps the mode of its modules and its generation config. Of that config, the
    present end tokens, pad token and `max_new_tokens` count.

    Args:
        model: A causal language model, or a `PeftModel` with LoRA around one.
        tokenizer: A fast tokenizer with a chat template.
        name: Name in the signature and in errors.
        prompt: Turns a pair into messages.
        batch_size: As for `hf_judge`.
        decoding: As for `hf_judge`.
        compile: As for `hf_judge`; the model's layers stay compiled.
        **limits: Fields of `Limits`.

    Raises:
        InputError: An option has an impossible value; the message names it.
        JudgeError: The model cannot be used; the message says what to do.
    """
    bounds = Limits(**limits)
    _check(bounds, batch_size, decoding)
    encoder = chat_encoder(tokenizer, name, prompt)
    return ModelJudge(_engine(model, encoder, {"revision": IN_MEMORY}, bounds, batch_size, decoding, compile), prompt)


def _check(limits: Limits, batch_size: int | None, decoding: str | None) -> None:
    """Refuse impossible values before anything is loaded."""
    if batch_size is not None:
        check_whole("batch_size", batch_size)
    if decoding not in (None, *_DECODING):
        raise InputError(f"decoding is {decoding!r}. Use one of {', '.join(_DECODING)}, or leave it out.")
    if limits.constrained:
        needed("xgrammar", "hf")


def _engine(
    model: PreTrainedModel,
    encoder: ChatEncoder,
    origin: dict[str, str],
    limits: Limits,
    batch_size: int | None,
    decoding: str | None,
    compile: bool | None,
    prove: bool = False,
) -> DraftEngine | PlainEngine:
    own, name = model.generation_config, encoder.name
    # LoRA works inside of the model that peft wraps; the wrapper's generate() writes its config into that model.
    model = getattr(model, "get_base_model", lambda: model)()
    config = model.config.get_text_config()
    codec = Codec(encoder, own, limits.max_new_tokens, getattr(config, "max_position_embeddings", None))
    obstacle = why_not_packed(model)
    if obstacle and decoding == "drafts":
        raise JudgeError(f"{name} cannot be decoded with drafts: {obstacle} is not known here. Leave decoding out.")
    plain = obstacle or decoding == "plain" or (decoding is None and not is_trusted(model))
    packed = None if plain else PackedModel(model)
    proof = Proof(model, packed) if packed and prove else None
    compiled = _compile(model, packed, name, compile)
    if packed and proof and not _holds(proof, packed, name, decoding):
        packed, compiled = None, False
    grammar = limits.grammar()
    if grammar:
        xgrammar = needed("xgrammar", "hf")
        grammar = compile_grammar(xgrammar, grammar, encoder.tokenizer, config.vocab_size, codec.ends)
    usual = _CPU_BATCH if model.device.type == "cpu" else _CUDA_BATCH if packed else _PLAIN_BATCH
    fields = {
        "judge": f"hf:{name}",
        **origin,
        "decoding": f"greedy,max{codec.max_new_tokens},{limits}"
        f"{'' if packed else ',plain'}{',compiled' if compiled else ''}",
        "dtype": str(model.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **({"xgrammar": version("xgrammar")} if limits.constrained else {}),
    }
    common = model, codec, grammar, batch_size or usual, fields
    return DraftEngine(*common, packed) if packed else PlainEngine(*common)


def _holds(proof: Proof, packed: PackedModel, name: str, decoding: str | None) -> bool:
    """Whether packed passes agree with the model's own passes; if not, the layers are as they were."""
    try:
        share = proof.agreement(packed)
        found = f"{share:.0%} of the likeliest tokens are the same"
    except RuntimeError as error:
        share, found = 0.0, first_line(error)
    packed.forget()  # what was recorded of the few rows
    if share >= LEAST:
        return True
    packed.uncompile()
    problem = f"On this device, packed passes of {name} do not agree with the model's own passes ({found})."
    if decoding == "drafts":
        raise JudgeError(f"{problem} Leave decoding out.")
    warnings.warn(
        f"{problem} It is decoded plainly, which is much slower. Please report this with the versions of the signature.",
        stacklevel=4,
    )
    return False


def _compile(model: PreTrainedModel, packed: PackedModel | None, name: str, wanted: bool | None) -> bool:
    """Compile the model's layers if that is wanted, or, for None, if it is possible; return whether they are compiled."""
    if wanted is False or (wanted is None and not packed):
        return False
    obstacle = why_not_compiled(model) if packed else "it is decoded plainly"
    if obstacle and wanted:
        raise JudgeError(f"{name} cannot be compiled: {obstacle}. Leave compile out.")
    if obstacle or not packed:
        return False
    try:
        packed.compile()
        return True
    except Exception as error:  # of the compiler and of all that it calls
        if wanted:
            raise JudgeError(f"{name} cannot be compiled: {first_line(error)}. Give compile=False.") from None
        warnings.warn(
            f"The layers of {name} could not be compiled ({first_line(error)}). They run as they are, which takes "
            "about twice the time; compile=False does so without this warning.",
            stacklevel=4,
        )
        return False
