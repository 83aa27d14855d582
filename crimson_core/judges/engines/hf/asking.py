"""How a local model is asked about a report pair, and how its answer is read, whatever engine runs the model."""

from collections.abc import Collection, Sequence
from typing import Any

from transformers import GenerationConfig
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from crimson_core.errors import InputError, JudgeError
from crimson_core.judges.base import Judgement
from crimson_core.judges.engines.hf.checkpoint import Checkpoint
from crimson_core.judges.engines.hf.encoding import ChatEncoder
from crimson_core.protocol.pair import ReportPair
from crimson_core.protocol.prompt import PUBLISHED_NAMES, Prompt, prompt_for

DEFAULT_NEW_TOKENS = 8192  # the reference implementation's, where a checkpoint does not say
MAX_FINDINGS, MAX_TEXT = 40, 400


def prompt_of(checkpoint: Checkpoint, guidelines: bool | None) -> Prompt:
    """The prompt of a checkpoint: what its name or its folder says, else what the caller wants.

    Raises:
        JudgeError: The folder's prompt file cannot be read.
    """
    published = checkpoint.name in PUBLISHED_NAMES
    return prompt_for(checkpoint.name if published else str(checkpoint.folder), guidelines)


def chat_encoder(tokenizer: PreTrainedTokenizerBase, name: str, prompt: Prompt) -> ChatEncoder:
    """An encoder whose chat template is known to take the prompt.

    Raises:
        JudgeError: It does not, or the tokenizer cannot be guarded.
    """
    encoder = ChatEncoder(tokenizer, name)
    encoder.prepare([message["role"] for message in prompt.messages(ReportPair("", ""))])
    return encoder


def encode_pair(encoder: ChatEncoder, prompt: Prompt, pair: ReportPair, context: int | None) -> list[int]:
    """Token ids of a pair's prompt.

    Args:
        encoder: Of the model's tokenizer.
        prompt: How a pair is put to the model.
        pair: The reports.
        context: Tokens that the model holds; None if it does not say.

    Raises:
        ValueError: The model cannot be asked; the text says why, without report text.
    """
    ids = encoder.encode(prompt.messages(pair))
    if context is not None and len(ids) >= context:
        raise ValueError(f"the prompt has {len(ids)} tokens and the model holds {context}")
    return ids


def output_limit(max_new_tokens: int, context: int | None, prompt_tokens: int) -> int:
    """How many tokens may follow a prompt."""
    return max_new_tokens if context is None else min(max_new_tokens, context - prompt_tokens)


def read_output(
    tokenizer: PreTrainedTokenizerBase, ends: Collection[int], prompt_tokens: int, output: Sequence[int], limit: int
) -> Judgement:
    """The judgement that an output holds; one that did not end within `limit` tokens is a failure."""
    end = next((place for place, token in enumerate(output) if token in ends), None)
    output = list(output if end is None else output[: end + 1])
    text = tokenizer.decode(output, skip_special_tokens=True)
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(output)}
    if end is None:
        return Judgement(failure=f"the output did not end within {limit} tokens", raw_output=text, usage=usage)
    return Judgement.from_output(text, usage)


def end_tokens(said: GenerationConfig, tokenizer: PreTrainedTokenizerBase, name: str) -> list[int]:
    """The tokens that end an output.

    Raises:
        JudgeError: Neither the generation config nor the tokenizer names one.
    """
    ends = said.eos_token_id if said.eos_token_id is not None else tokenizer.eos_token_id
    if ends is None or ends == []:
        raise JudgeError(f"{name} names no end token. Write eos_token_id into its generation_config.json.")
    return [ends] if isinstance(ends, int) else list(ends)


def order(pair: ReportPair) -> tuple[int, str, int]:
    """A sorting key: short ones first, and those with the same reference together, since their prompts start alike."""
    context = sum(map(len, pair.context.as_dict().values() if pair.context else ()))
    return len(pair.reference) + context, pair.reference, len(pair.candidate)


def bounds_of(constrained: bool, max_findings: int, max_text: int) -> str:
    """What keeps an output in bounds, as it stands in a signature."""
    return f"xgrammar,findings{max_findings},text{max_text}" if constrained else "unconstrained"


def check_positive(option: str, value: Any) -> None:
    """Refuse what is no positive whole number.

    Raises:
        InputError: Names the option.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{option} is {value!r}. Give a whole number from 1 on.")
